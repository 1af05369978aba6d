"""The layout of sentence-transformers: a backbone, and the modules that follow it in numbered folders.

    modules.json                    the modules in their order, and the folder of each
    sentence_bert_config.json       the most tokens of a query and of a text
    1_Dense/                        a linear layer: the retrieval head
    2_MultiVectorMask/config.json   the words whose vectors are dropped
    3_Normalize/config.json         vectors get length 1

(sentence-transformers 6.2 `MultiVectorEncoder`.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.files import DENSE, LENGTHS_FILE, MODULES_FILE, module_folders
from colpali_integrations.models.chat_template import TEMPLATE_FILE
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.prompt import Vocabulary
from colpali_integrations.models.unsupported import describe_by_hand

__all__ = ["Modules", "check_template", "without_modules"]

_MASK, _NORMALIZE = "MultiVectorMask", "Normalize"
_KNOWN = ("Transformer", DENSE, _MASK, _NORMALIZE)
_TOKENS = "token_embeddings"
# The folder of a module.
_NUMBERED = re.compile(r"\d+_\w+/")
_ROLE = "<|im_start|>"
_PICTURE = "<|vision_start|><image><|vision_end|>"


def without_modules(names: Iterable[str]) -> list[str]:
    """The files of a backbone among those of a model."""
    return [name for name in names if name not in (MODULES_FILE, LENGTHS_FILE) and not _NUMBERED.match(name)]


def check_template(folder: Path) -> None:
    """Refuse a chat template with words of its own, which would stand around saved prompts and texts.

    Raises:
        ModelLoadError: it has some.
    """
    path = folder / TEMPLATE_FILE
    if path.is_file() and _ROLE in path.read_text(encoding="utf-8", errors="replace"):
        raise describe_by_hand(
            f"{path} puts words around a text, with which prompts of sentence-transformers were not tried",
            "register_model(ModelDescription(query_prefix=..., query_suffix=..., image_prompt=..., ...))",
        )


@dataclass(frozen=True)
class Modules:
    """What the modules of a folder say, beside their weights.

    Attributes:
        dim: length of a vector; None where the backbone has the retrieval head.
        query_length: the most tokens of a query, its prompt included; None for no limit.
        document_length: the same for a text.
        mask: the configuration of the words to drop; empty for none.
    """

    dim: int | None
    query_length: int | None
    document_length: int | None
    mask: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Modules | None:
        """Read the modules of a folder; None where it is not of this layout.

        Raises:
            ModelLoadError: a file is damaged, or a module is not supported.
        """
        folders = module_folders(folder)
        if not folders:
            return None
        if not folders.keys() <= set(_KNOWN) or (DENSE in folders and _NORMALIZE not in folders):
            raise ModelLoadError(
                f"{folder / MODULES_FILE} has the modules {', '.join(folders)}; supported are {', '.join(_KNOWN)}, and "
                f"no {DENSE} without {_NORMALIZE}"
            )
        configs = {kind: read_json(folder, f"{path}/config.json") for kind, path in folders.items() if path}
        for kind in {DENSE, _NORMALIZE} & configs.keys():
            if configs[kind].get("module_input_name", _TOKENS) != _TOKENS:
                raise ModelLoadError(f"{folder / folders[kind]}: module_input_name must be {_TOKENS!r}, the vectors")
        lengths = read_json(folder, LENGTHS_FILE, optional=True)
        if lengths.get("query_expansion"):
            raise ModelLoadError(f"{folder / LENGTHS_FILE}: query_expansion is not supported")
        dim = _head_dim(configs[DENSE], folder / folders[DENSE]) if DENSE in configs else None
        return cls(dim, lengths.get("query_length"), lengths.get("document_length"), configs.get(_MASK, {}))

    def kept(self, task: str, vocabulary: Vocabulary) -> Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None:
        """What tells from token ids, (n_tokens,), which of them keep their vectors; None where all do.

        Args:
            task: "query", or "document" for pages and texts.
            vocabulary: the model's tokenizer.
        """
        words = self.mask.get("skiplist_words") or []
        if task not in self.mask.get("skiplist_tasks", ["document"]):
            words = []
        # A word that is no token of its own cannot occur.
        dropped = [number for word in words if (number := vocabulary.number(word)) is not None]
        only = self.mask.get("keep_only_token_ids") if task == "document" else None
        if only:
            return lambda ids: np.isin(ids, only) & ~np.isin(ids, dropped)
        return (lambda ids: ~np.isin(ids, dropped)) if dropped else None

    def query(self, description: ModelDescription, vocabulary: Vocabulary) -> ModelDescription:
        """The description with the limit of queries."""
        return _limited(description, self.query_length, vocabulary)

    def text(self, description: ModelDescription, vocabulary: Vocabulary) -> ModelDescription:
        """The description of texts that are searched beside pages: prompt and limit as those of a query.

        A text stands where a page has its picture.
        """
        before, _, after = description.image_prompt.replace(_PICTURE, "<image>").partition("<image>")
        longest = self.document_length or np.iinfo(np.int32).max
        described = replace(description, query_prefix=before, query_suffix=after, max_query_tokens=longest)
        return _limited(described, self.document_length, vocabulary)


def _limited(description: ModelDescription, length: int | None, vocabulary: Vocabulary) -> ModelDescription:
    if length is None:
        return description
    prompts = (description.query_prefix, description.query_suffix)
    room = length - sum(len(vocabulary.prompt_ids(prompt)) for prompt in prompts)
    return replace(description, max_query_tokens=max(1, min(description.max_query_tokens, room)))


def _head_dim(config: Mapping[str, Any], folder: Path) -> int:
    """The outputs of a plain linear layer."""
    activation = str(config.get("activation_function", ""))
    if not activation.endswith(".Identity") or config.get("use_residual"):
        raise ModelLoadError(
            f"{folder}: a head with activation_function {activation!r} and use_residual "
            f"{config.get('use_residual', False)!r} is not supported, only Identity and False"
        )
    try:
        return int(config["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelLoadError(f"{folder}: config.json must hold out_features: {error!r}") from error
