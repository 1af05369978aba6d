"""Find a checkpoint's files, recognise its class, and load it: of transformers, of colpali-engine, or adapters."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from colpali_integrations.errors import ModelLoadError, ModelNotFoundError
from colpali_integrations.models.hub import read_json

__all__ = ["Kind", "Original", "Prompts", "find_checkpoint", "kind_of", "load_original"]


@dataclass(frozen=True)
class Kind:
    """A class of checkpoints.

    Attributes:
        library: the module of the classes.
        model: the name of the model's class.
        processor: the name of the processor's class.
        family: the model family that makes its inputs, a key of `models.families.FAMILIES`.
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
# Classes of adapters by model type of their base, which is often no ColPali by itself.
_OF_BASE = {"paligemma": "ColPali", "idefics3": "ColIdefics3", "modernvbert": "ColModernVBert"}


@dataclass(frozen=True)
class Prompts:
    """The texts around a query and a page; see `ModelDescription`."""

    query_prefix: str
    query_suffix: str
    image_prompt: str


# The query prompt changed between releases of colpali-engine, and a checkpoint works well only with the exact prompt it
# was trained with. These are on record (the table in tests/parity/README.md). Others get the prompt of the installed
# release.
_PADS = "<pad>" * 10
_TRAINED_WITH: dict[str, str] = {
    **dict.fromkeys(("", "-v1.1", "-v1.2", "-v1.2-merged"), "<bos>Question: "),
    # -hf has the same weights, although the class of transformers has "Question: ".
    **dict.fromkeys(("-v1.3", "-v1.3-merged", "-v1.3-hf"), "<bos>Query: "),
}


@dataclass
class Original:
    """A checkpoint in memory.

    Attributes:
        kind: its classes.
        model: the torch module, float32, in evaluation mode, adapters merged into its weights.
        processor: of the same library.
        prompts: the prompts of its training.
        known_prompts: whether the prompts are on record; otherwise they are those of the installed library.
    """

    kind: Kind
    model: Any
    processor: Any
    prompts: Prompts
    known_prompts: bool


def find_checkpoint(source: str, revision: str | None) -> Path:
    """The folder of a checkpoint, which is downloaded from the Hub if necessary.

    Raises:
        ModelNotFoundError: `source` is neither a folder nor a readable repository.
    """
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    from huggingface_hub import snapshot_download

    try:
        unused = ["*.onnx*", "*.gguf", "*.msgpack", "*.h5"]
        return Path(snapshot_download(source, revision=revision, ignore_patterns=unused))
    except Exception as error:  # its errors have no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelNotFoundError(
            f"{source}: no such folder, and no readable repository of the Hub ({reason})"
        ) from error


def kind_of(folder: Path) -> Kind:
    """Recognise the class of a checkpoint by its files.

    Raises:
        ModelLoadError: this package has no family for the class.
    """
    config = read_json(folder, "config.json", optional=True)
    adapter = read_json(folder, "adapter_config.json", optional=True)
    for name in config.get("architectures") or []:
        if name in _KINDS:
            return _KINDS[name]
    model_type = str(config.get("model_type", ""))
    if adapter:
        from transformers import AutoConfig

        base = str(adapter.get("base_model_name_or_path", ""))
        try:
            model_type = str(AutoConfig.from_pretrained(base).model_type)
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(
                f"{folder} is an adapter on {base!r}, whose config.json cannot be read: {error}. Put the base at "
                "that path, or change base_model_name_or_path in adapter_config.json"
            ) from error
        if model_type in _OF_BASE:
            return _KINDS[_OF_BASE[model_type]]
    architecture = config.get("architectures") or model_type or "files without config.json"
    raise ModelLoadError(
        f"{folder}: cannot export {architecture}; known are {', '.join(_KINDS)}, and adapters on {', '.join(_OF_BASE)}"
    )


def load_original(source: str, folder: Path, kind: Kind) -> Original:
    """Load the original class with its weights, in float32.

    Raises:
        ModelLoadError: the library cannot load it.
    """
    library = importlib.import_module(kind.library)
    adapter = read_json(folder, "adapter_config.json", optional=True)
    try:
        model = getattr(library, kind.model).from_pretrained(str(folder), dtype=torch.float32).eval()
        parts = folder if _has_processor(folder) else adapter.get("base_model_name_or_path", folder)
        processor = getattr(library, kind.processor).from_pretrained(str(parts))
    except Exception as error:  # the libraries raise errors of many kinds
        raise ModelLoadError(f"{kind.library}.{kind.model} cannot load {source}: {error}") from error
    merge_adapters(model)
    if kind.model == "ColPali":
        # Its logits over 257,152 tokens are not used, and the head may have no weights after loading.
        model.model.lm_head = torch.nn.Identity()
    prefix = _TRAINED_WITH.get(source.removeprefix("vidore/colpali")) if source.startswith("vidore/colpali") else None
    prompts = _prompts(kind, processor)
    if prefix is not None:
        prompts = Prompts(prefix, _PADS + "\n", prompts.image_prompt)
    return Original(kind, model, processor, prompts, known_prompts=prefix is not None or kind.family == "idefics3")


def merge_adapters(model: torch.nn.Module) -> int:
    """Merge LoRA adapters into the weights that they adapt, and return their number."""
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
    # PaliGemma's processor adds a <bos> of its own between image and text, beside the one of colpali-engine.
    prompt = str(processor.visual_prompt_prefix).replace("<image>", "<image><bos>", 1) + "\n"
    return Prompts(f"<bos>{processor.query_prefix}", _PADS, prompt)


def _has_processor(folder: Path) -> bool:
    configs = (folder / name for name in ("preprocessor_config.json", "processor_config.json"))
    return (folder / "tokenizer.json").is_file() and any(path.is_file() for path in configs)
