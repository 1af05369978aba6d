"""What a checkpoint is, and the original class with its weights: transformers' own, colpali-engine's, or adapters.

folder or Hub name -> files -> Kind (which class) -> Original (class with weights, processor, prompts)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from colpali_integrations.errors import ModelLoadError, ModelNotFoundError

__all__ = ["Kind", "Original", "Prompts", "find_checkpoint", "kind_of", "load_original"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A class of checkpoints.

    Attributes:
        library: the module that has the classes.
        model: the name of the model's class.
        processor: the name of the processor's class.
        family: the module of `core/families` that knows its inputs.
    """

    library: str
    model: str
    processor: str
    family: str


_KINDS: dict[str, Kind] = {
    kind.model: kind
    for kind in (
        Kind("transformers", "ColPaliForRetrieval", "ColPaliProcessor", "paligemma"),
        Kind("transformers", "ColModernVBertForRetrieval", "ColModernVBertProcessor", "idefics3"),
        Kind("colpali_engine.models", "ColPali", "ColPaliProcessor", "paligemma"),
        Kind("colpali_engine.models", "ColIdefics3", "ColIdefics3Processor", "idefics3"),
        Kind("colpali_engine.models", "ColModernVBert", "ColModernVBertProcessor", "idefics3"),
    )
}
# What an adapter is put on: its base says only which architecture it has, and is often no ColPali by itself.
_OF_BASE = {"paligemma": "ColPali", "idefics3": "ColIdefics3", "modernvbert": "ColModernVBert"}


@dataclass(frozen=True)
class Prompts:
    """The texts around a query and a page; see `ModelDescription`."""

    query_prefix: str
    query_suffix: str
    image_prompt: str


# The query's string changed between releases of colpali-engine, and a checkpoint answers well only to the one it was
# trained with: of these it is known (the table in tests/parity/README.md). Others get what the installed
# release has.
_PADS = "<pad>" * 10
_TRAINED_WITH: dict[str, tuple[str, str]] = {
    "vidore/colpali": ("<bos>Question: ", _PADS + "\n"),
    "vidore/colpali-v1.1": ("<bos>Question: ", _PADS + "\n"),
    "vidore/colpali-v1.2": ("<bos>Question: ", _PADS + "\n"),
    "vidore/colpali-v1.2-merged": ("<bos>Question: ", _PADS + "\n"),
    "vidore/colpali-v1.3": ("<bos>Query: ", _PADS + "\n"),
    "vidore/colpali-v1.3-merged": ("<bos>Query: ", _PADS + "\n"),
    # the same weights, though the class of transformers says "Question: "
    "vidore/colpali-v1.3-hf": ("<bos>Query: ", _PADS + "\n"),
}


@dataclass
class Original:
    """A checkpoint in memory.

    Attributes:
        kind: its classes.
        model: the torch module, float32, in evaluation mode, adapters merged into its weights.
        processor: of the same library.
        prompts: that it should be used with.
        known_prompts: whether those are on record for this checkpoint; otherwise they are the library's of today.
    """

    kind: Kind
    model: Any
    processor: Any
    prompts: Prompts
    known_prompts: bool


def find_checkpoint(source: str | Path, revision: str | None) -> Path:
    """The folder of a checkpoint, downloaded if it is no folder.

    Raises:
        ModelNotFoundError: neither a folder nor a repository that can be reached.
    """
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    from huggingface_hub import snapshot_download

    try:
        unused = ["*.onnx*", "*.gguf", "*.msgpack", "*.h5"]
        return Path(snapshot_download(str(source), revision=revision, ignore_patterns=unused))
    except Exception as error:  # its errors have no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelNotFoundError(
            f"{source}: no such folder, and no repository of the Hub that can be read ({reason})"
        ) from error


def kind_of(folder: Path) -> Kind:
    """Which class a checkpoint's files are of.

    Raises:
        ModelLoadError: they are of no class that this package has a family for.
    """
    config = _read(folder / "config.json")
    adapter = _read(folder / "adapter_config.json")
    for name in config.get("architectures") or []:
        if name in _KINDS:
            return _KINDS[name]
    found = str(config.get("model_type", ""))
    if adapter:
        from transformers import AutoConfig

        base = str(adapter.get("base_model_name_or_path", ""))
        try:
            found = str(AutoConfig.from_pretrained(base).model_type)
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(
                f"{folder} is an adapter on {base!r}, whose config.json cannot be read: {error}. Put the base where "
                "adapter_config.json's base_model_name_or_path says, or change that entry"
            ) from error
        if found in _OF_BASE:
            return _KINDS[_OF_BASE[found]]
    raise ModelLoadError(
        f"{folder}: cannot export {config.get('architectures') or found or 'files without config.json'}; known are "
        f"{', '.join(_KINDS)}, and adapters on {', '.join(_OF_BASE)}"
    )


def load_original(source: str | Path, folder: Path, kind: Kind) -> Original:
    """Load the original class with its weights, in float32.

    Raises:
        ModelLoadError: the library cannot load it; the message says why.
    """
    import importlib

    library = importlib.import_module(kind.library)
    adapter = _read(folder / "adapter_config.json")
    try:
        model = getattr(library, kind.model).from_pretrained(str(folder), dtype=torch.float32).eval()
        parts = folder if _has_processor(folder) else adapter.get("base_model_name_or_path", folder)
        processor = getattr(library, kind.processor).from_pretrained(str(parts))
    except Exception as error:  # whatever the two libraries raise
        raise ModelLoadError(f"{kind.library}.{kind.model} cannot load {source}: {error}") from error
    merge_adapters(model)
    if kind.model == "ColPali":
        # Logits over 257,152 tokens are computed and thrown away, and the head may have no weights after loading.
        model.model.lm_head = torch.nn.Identity()
    query = _TRAINED_WITH.get(str(source))
    prompts = _prompts(kind, processor)
    if query is not None:
        prompts = Prompts(*query, prompts.image_prompt)
    return Original(kind, model, processor, prompts, known_prompts=query is not None or kind.family == "idefics3")


def merge_adapters(model: torch.nn.Module) -> int:
    """Add LoRA's products to the weights that they adapt and take the adapters out; returns how many there were."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name in adapted:
        parent, _, child = name.rpartition(".")
        layer = model.get_submodule(name)
        layer.merge(safe_merge=True)
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    return len(adapted)


def _prompts(kind: Kind, processor: Any) -> Prompts:
    """The installed library's own prompts."""
    if kind.family == "idefics3":
        prefix = str(getattr(processor, "query_prefix", "") or "")
        token = str(getattr(processor, "query_augmentation_token", "<end_of_utterance>"))
        return Prompts(prefix, token * 10, str(processor.visual_prompt_prefix))
    if kind.library == "transformers":
        prompt = f"<image><bos>{processor.visual_prompt_prefix}\n"
        return Prompts(f"<bos>{processor.query_prefix}", _PADS + "\n", prompt)
    # PaliGemma's processor puts a <bos> of its own between image and text, beside the one that colpali-engine writes.
    prompt = str(processor.visual_prompt_prefix).replace("<image>", "<image><bos>", 1) + "\n"
    return Prompts(f"<bos>{processor.query_prefix}", _PADS, prompt)


def _has_processor(folder: Path) -> bool:
    known = ("preprocessor_config.json", "processor_config.json")
    return (folder / "tokenizer.json").is_file() and any((folder / name).is_file() for name in known)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"cannot read {path}: {error}") from error
    return content if isinstance(content, dict) else {}
