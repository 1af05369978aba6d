"""The way from a checkpoint to a folder: load, ask the original, export, ask the export."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from colpali_integrations.errors import ConfigurationError, ModelLoadError
from colpali_integrations.export import verify
from colpali_integrations.export.checkpoints import Original, Prompts, find_checkpoint, kind_of, load_original
from colpali_integrations.export.graphs import graph_of
from colpali_integrations.export.onnx_files import write_onnx
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.folder import DESCRIPTION_FILE
from colpali_integrations.models.loading import family_class
from colpali_integrations.models.registry import ModelDescription

__all__ = ["Exported", "export_model"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What `export_model` made.

    Attributes:
        folder: load it with `ColPali.from_pretrained(folder)`.
        kind: the original's class, such as "colpali_engine.models.ColPali".
        prompts: what the folder says should stand around queries and pages.
        known_prompts: whether those are on record for the checkpoint, or were given; otherwise they are what the
            installed library uses, and a checkpoint trained with an older one wants another `query_prefix`.
        size_in_bytes: of graph and weights.
        difference: from the original on random pages and questions; None without the check.
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

    Known are ColPali, ColModernVBERT and ColIdefics3 (ColSmol), whole or as adapters (LoRA), which are merged. Memory:
    about three times the weights in float32.

    Args:
        source: a folder, or a repository of the Hub, which is then downloaded.
        out: a folder that does not exist yet, or is empty.
        precision: of the weights. float16 halves the folder; on CPUs it is no faster.
        revision: of the repository.
        query_prefix: text before a query, special tokens spelled ("<bos>Query: "): the one that the checkpoint was
            trained with. By default what is on record for it, or else what the installed library uses.
        query_suffix: likewise after a query.
        check: compare with the original class at the end.
        progress: is told what happens.

    Raises:
        ConfigurationError: `out` is there and not empty, or another precision.
        ModelNotFoundError: no such checkpoint, or its adapter's base is missing.
        ModelLoadError: it is of no known class, or it cannot be loaded; or the export differs from the original, then
            the folder stays, to be looked at.
    """
    target = Path(out).expanduser()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigurationError(f"{target} is there already; name a folder that does not exist yet")
    if precision not in ("float32", "float16"):
        raise ConfigurationError(f"precision must be 'float32' or 'float16', got {precision!r}")
    folder = find_checkpoint(os.fspath(source), revision)
    kind = kind_of(folder)
    name = f"{kind.library}.{kind.model}"
    progress(f"loading {source} as {name}")
    original = load_original(os.fspath(source), folder, kind)
    given: dict[str, str] = {}
    if query_prefix is not None:
        given["query_prefix"] = query_prefix
    if query_suffix is not None:
        given["query_suffix"] = query_suffix
    original.prompts = replace(original.prompts, **given)
    original.known_prompts |= "query_prefix" in given
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        made = Path(temporary) / "model"
        made.mkdir()
        description = _write_small_files(original, made, str(source), revision)
        family = family_class(kind.family)(description, made)
        pages = verify.random_pages()
        if check:
            progress("asking the original about random pages and questions")
        known = verify.reference(original, family, pages) if check else None
        progress(f"exporting in {precision}")
        prepared = family.pages.feed([family.pages.prepare(pages[0])] * 2)
        prepared |= {"attention_mask": np.ones_like(prepared["input_ids"])}
        graph = graph_of(kind.family, original.model.half() if precision == "float16" else original.model)
        example = {key: torch.from_numpy(value) for key, value in prepared.items()}
        try:
            write_onnx(graph, example, made / "model.onnx")
        except Exception as error:  # torch's exporter has errors of many kinds, and much to say
            raise ModelLoadError(f"torch.onnx cannot export {name} of {source}: {error}") from error
        del graph, original.model
        if target.exists():
            target.rmdir()
        made.rename(target)
    difference = None
    if known is not None:
        progress("comparing")
        with ColPali.from_pretrained(target) as model:
            difference = verify.compare(known, model, pages)
        if not difference.agrees(precision):
            raise ModelLoadError(
                f"{target} was written, but it is not the original: components of pages differ by up to "
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


def _write_small_files(original: Original, made: Path, source: str, revision: str | None) -> ModelDescription:
    """Tokenizer, processor, configuration and prompts; returns the description that they amount to."""
    processor, config = original.processor, original.model.config
    processor.tokenizer.save_pretrained(str(made))
    processor.image_processor.save_pretrained(str(made))
    if original.kind.family == "idefics3":
        sizes = {"image_seq_len": int(processor.image_seq_len), "processor_class": original.kind.processor}
        (made / "processor_config.json").write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
    content = json.loads(config.to_json_string(use_diff=False)) | {"architectures": [original.kind.model]}
    content.pop("_name_or_path", None)  # a path of this machine
    (made / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    parameters = sum(weights.numel() for weights in original.model.parameters())
    described: dict[str, Any] = {
        "family": original.kind.family,
        "dim": int(getattr(original.model, "dim", 0) or getattr(config, "embedding_dim", 128)),
        **asdict(original.prompts),
        "parameters": parameters,
    }
    libraries = ("torch", "transformers", "colpali_engine", "onnx", "onnxscript", "colpali_integrations")
    versions = {library: importlib.metadata.version(library) for library in libraries}
    made_from = {
        "checkpoint": Path(source).name if Path(source).is_dir() else source,
        "revision": revision,
        "class": f"{original.kind.library}.{original.kind.model}",
        "libraries": versions,
    }
    entry = {"description": described, "made_from": made_from}
    text = json.dumps(entry, indent=2, ensure_ascii=False) + "\n"
    (made / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    return ModelDescription(name=made.name, **described)
