"""Export a checkpoint to a folder: load it, run the original, export, and compare."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from colpali_integrations.errors import ConfigurationError, ModelLoadError
from colpali_integrations.export import verify
from colpali_integrations.export.checkpoints import Original, Prompts, find_checkpoint, kind_of, load_original
from colpali_integrations.export.graphs import graph_of
from colpali_integrations.export.onnx_files import write_onnx
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.family import family_class
from colpali_integrations.models.folder import DESCRIPTION_FILE, new_folder
from colpali_integrations.models.registry import ModelDescription

__all__ = ["Exported", "export_model"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """The result of `export_model`.

    Attributes:
        folder: load it with `ColPali.from_pretrained(folder)`.
        kind: the original's class, such as "colpali_engine.models.ColPali".
        prompts: the prompts in the folder's description.
        known_prompts: whether the prompts are on record for the checkpoint or come from the caller. Otherwise they are
            those of the installed library, and a checkpoint trained with an older one needs another `query_prefix`.
        size_in_bytes: size of graph and weights.
        difference: difference from the original on random pages and questions; None without the check.
    """

    folder: Path
    kind: str
    prompts: Prompts
    known_prompts: bool
    size_in_bytes: int
    difference: verify.Difference | None


def export_model(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: Literal["float32", "float16"] = "float32",
    revision: str | None = None,
    query_prefix: str | None = None,
    query_suffix: str | None = None,
    check: bool = True,
    progress: Callable[[str], None] = logger.info,
) -> Exported:
    r"""Write a checkpoint of colpali-engine or transformers as an ONNX folder that this package loads.

    Supports ColPali, ColModernVBERT and ColIdefics3 (ColSmol), whole or as adapters (LoRA), which are merged. Needs
    memory for about three copies of the weights in float32.

    Args:
        source: a folder, or a repository of the Hub, which is downloaded.
        out: a folder that does not exist yet, or is empty.
        precision: type of the weights. float16 halves the folder; on CPUs it is no faster.
        revision: commit, tag or branch of the repository.
        query_prefix: text before a query in the checkpoint's training, with special tokens ("<bos>Query: "). None
            takes the one on record for the checkpoint, or else that of the installed library.
        query_suffix: the same after a query.
        check: compare with the original class at the end.
        progress: called with the name of each step.

    Raises:
        ConfigurationError: `out` exists and is not an empty folder, or precision has an invalid value.
        ModelNotFoundError: the checkpoint or the base of its adapter does not exist.
        ModelLoadError: the checkpoint has an unsupported class or cannot be loaded; or the export differs from the
            original, in which case the folder is kept for inspection.
    """
    if precision not in ("float32", "float16"):
        raise ConfigurationError(f"precision must be 'float32' or 'float16', got {precision!r}")
    source, target = os.fspath(source), Path(out).expanduser()
    with new_folder(target) as draft:
        folder = find_checkpoint(source, revision)
        kind = kind_of(folder)
        name = f"{kind.library}.{kind.model}"
        progress(f"loading {source} as {name}")
        original = load_original(source, folder, kind)
        prompts = (("query_prefix", query_prefix), ("query_suffix", query_suffix))
        requested = {field: text for field, text in prompts if text is not None}
        original.prompts = replace(original.prompts, **requested)
        original.known_prompts |= query_prefix is not None
        description = _write_small_files(original, draft, source, revision)
        family = family_class(kind.family)(description, draft)
        pages = verify.random_pages()
        if check:
            progress("running the original on random pages and questions")
        expected = verify.reference(original, family, pages) if check else None
        progress(f"exporting in {precision}")
        feed = family.pages.feed([family.pages.prepare(pages[0])] * 2)
        example = {key: torch.from_numpy(value) for key, value in feed.items()}
        graph = graph_of(kind.family, original.model.half() if precision == "float16" else original.model)
        try:
            write_onnx(graph, example, draft / "model.onnx")
        except Exception as error:  # torch's exporter raises errors of many kinds
            raise ModelLoadError(f"torch.onnx cannot export {name} of {source}: {error}") from error
        del graph, original.model
    difference = None
    if expected is not None:
        progress("comparing")
        with ColPali.from_pretrained(target) as model:
            difference = verify.compare(expected, model, pages)
        if not difference.agrees(precision):
            raise ModelLoadError(
                f"{target} was written, but its outputs are not the original's: components of pages differ by up to "
                f"{difference.pages:.2g}, of questions by {difference.questions:.2g}, least cosine "
                f"{difference.least_cosine:.4f}, token ids {'equal' if difference.same_ids else 'differ'}, pixels "
                f"differ by up to {difference.pixels:.2g}. Please "
                "report it with the checkpoint's name and the versions of torch, transformers and colpali-engine"
            )
    return Exported(
        folder=target,
        kind=name,
        prompts=original.prompts,
        known_prompts=original.known_prompts,
        size_in_bytes=sum(file.stat().st_size for file in target.glob("model.onnx*")),
        difference=difference,
    )


def _write_small_files(original: Original, folder: Path, source: str, revision: str | None) -> ModelDescription:
    """Write tokenizer, processor, configuration and prompts, and return the description of the model."""
    kind, processor, config = original.kind, original.processor, original.model.config
    processor.tokenizer.save_pretrained(str(folder))
    processor.image_processor.save_pretrained(str(folder))
    if kind.family == "idefics3":
        sizes = {"image_seq_len": int(processor.image_seq_len), "processor_class": kind.processor}
        _write_json(folder / "processor_config.json", sizes)
    content = json.loads(config.to_json_string(use_diff=False)) | {"architectures": [kind.model]}
    content.pop("_name_or_path", None)  # a path of this machine
    _write_json(folder / "config.json", content)
    values: dict[str, Any] = {
        "family": kind.family,
        "dim": int(getattr(original.model, "dim", 0) or getattr(config, "embedding_dim", 128)),
        **asdict(original.prompts),
        "parameters": sum(weights.numel() for weights in original.model.parameters()),
    }
    libraries = ("torch", "transformers", "colpali_engine", "onnx", "onnxscript", "colpali_integrations")
    made_from = {
        "checkpoint": Path(source).name if Path(source).is_dir() else source,
        "revision": revision,
        "class": f"{kind.library}.{kind.model}",
        "libraries": {library: importlib.metadata.version(library) for library in libraries},
    }
    _write_json(folder / DESCRIPTION_FILE, {"description": values, "made_from": made_from})
    return ModelDescription(name=folder.name, **values)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
