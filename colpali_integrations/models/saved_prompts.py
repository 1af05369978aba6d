"""The prompts that sentence-transformers saves with a model, in config_sentence_transformers.json.

    {"prompts": {"query": "[Q] ", "document": "[D] "}, ...}

They stand before a query and before a page or text (sentence-transformers 6.2, `MultiVectorEncoder.encode_query` and
`encode_document`, whose names of a document's prompt are these, in this order).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.unsupported import describe_by_hand

__all__ = ["PROMPTS_FILE", "SavedPrompts"]

PROMPTS_FILE = "config_sentence_transformers.json"
_DOCUMENT_NAMES = ("document", "passage", "corpus")
# A class that formats queries and pages itself; sentence-transformers puts its prompt before the text alone.
_FORMATTING = "ForRetrieval"


class SavedPrompts:
    """The prompts of a folder; both empty where it has none.

    Args:
        folder: of the model, with the file or without it.

    Attributes:
        query: before a query.
        document: before a page or text.

    Raises:
        ModelLoadError: the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        prompts = read_json(folder, PROMPTS_FILE, optional=True).get("prompts") or {}
        if not isinstance(prompts, Mapping) or not all(isinstance(one, str | None) for one in prompts.values()):
            raise ModelLoadError(f"{folder / PROMPTS_FILE}: prompts must be strings by name, got {prompts!r}")
        self.query = prompts.get("query") or ""
        self.document = next((prompts[name] for name in _DOCUMENT_NAMES if prompts.get(name)), "")

    def __bool__(self) -> bool:
        return bool(self.query or self.document)

    def applied(self, model: ModelDescription, architectures: object) -> ModelDescription:
        """A description with these prompts instead of those of its architecture and class.

        Args:
            model: with the prompts of the class.
            architectures: the names of the classes in config.json. One of transformers' classes for retrieval keeps its
                prefix and suffix around the prompt and the text; other classes have none.

        Raises:
            ModelLoadError: the class takes its prompts from a chat template, and how both go together is not known.
        """
        if not (model.query_prefix or model.query_suffix or model.image_prompt):
            raise describe_by_hand(
                f"{PROMPTS_FILE} has the prompts {self.query!r} and {self.document!r}, and this family takes its own "
                "from a chat template",
                f"register_model(ModelDescription(name=..., family={model.family!r}, dim={model.dim}, "
                "query_prefix=..., ...))",
            )
        kept = _FORMATTING in str(architectures)
        return replace(
            model,
            query_prefix=(model.query_prefix if kept else "") + self.query,
            query_suffix=model.query_suffix if kept else "",
            image_prompt=self.document + model.image_prompt,
        )
