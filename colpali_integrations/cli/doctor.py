"""Checks of the installation, the execution providers and the model cache, each with its fix."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from colpali_integrations.errors import ColPaliError
from colpali_integrations.models.hub import CacheState, cache_folder, cache_state
from colpali_integrations.models.registry import ModelDescription, list_supported_models

__all__ = ["EXTRAS", "Check", "Status", "examine"]

# Distributions that the extras of pyproject.toml bring; a test compares.
EXTRAS = {
    "langchain": ("langchain-core",),
    "llama-index": ("llama-index-core",),
    "store": ("qdrant-edge-py",),
    "qdrant": ("qdrant-client",),
    "cli": ("rich", "typer"),
    "plot": ("matplotlib",),
    "ray": ("ray",),
    "export": ("colpali-engine", "onnx", "onnxscript"),
}
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
_GB = 1e9
# Less does not hold a store of some thousand pages.
_LEAST_DISK = 1.0
# A model's weights are in memory once, beside the buffers of a page.
_MEMORY_FACTOR = 1.2


class Status(str, Enum):
    """How a check came out."""

    ok = "ok"
    note = "note"
    """Nothing is wrong; something is not there that may be wanted."""
    problem = "problem"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: "environment", "extras", "providers", "cache" or "models".
        name: of the thing.
        status: how it is.
        detail: the finding.
        fix: a command or an instruction; "" where no fix is needed.
    """

    group: str
    name: str
    status: Status
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {**asdict(self), "status": self.status.value}


def examine(*, models: list[ModelDescription] | None = None, embed: bool = True) -> Iterator[Check]:
    """Check everything, each as soon as it is known.

    Args:
        models: only these, and these even where memory looks short; None for all that are registered.
        embed: let every installed model embed a page and a query.
    """
    yield from _environment()
    yield from _extras()
    yield from _providers()
    yield from _cache()
    for description in models if models is not None else list_supported_models():
        state = cache_state(description)
        yield from _files(description, state)
        if embed and state.complete:
            yield _embeds(description, forced=models is not None)


def _environment() -> Iterator[Check]:
    from colpali_integrations import __version__

    yield Check("environment", "colpali-integrations", Status.ok, __version__)
    yield Check("environment", "Python", Status.ok, f"{platform.python_version()} on {platform.platform(terse=True)}")
    runtimes = {name: version for name in _RUNTIMES if (version := _version(name)) is not None}
    shown = ", ".join(f"{name} {version}" for name, version in runtimes.items()) or "not by pip"
    if len(runtimes) > 1:
        # They write into one folder, and the last one wins in part.
        wanted = next(name for name in reversed(runtimes))
        fix = f"pip uninstall -y {' '.join(runtimes)} && pip install {wanted}"
        yield Check("environment", "onnxruntime", Status.problem, f"{shown}: they overwrite each other", fix)
    else:
        yield Check("environment", "onnxruntime", Status.ok, shown)


def _extras() -> Iterator[Check]:
    for extra, distributions in EXTRAS.items():
        versions = {name: _version(name) for name in distributions}
        absent = [name for name, version in versions.items() if version is None]
        if absent:
            fix = f'pip install "colpali-integrations[{extra}]"'
            yield Check("extras", extra, Status.note, f"not installed: {', '.join(absent)}", fix)
        else:
            shown = ", ".join(f"{name} {version}" for name, version in versions.items())
            yield Check("extras", extra, Status.ok, shown)


def _providers() -> Iterator[Check]:
    """Whether each provider of this onnxruntime computes; a build lists providers whose libraries it cannot load."""
    import onnxruntime as ort

    for name in ort.get_available_providers():
        if name == "AzureExecutionProvider":  # in every build; it calls a service, and computes nothing
            continue
        error = provider_error(name)
        if error is None:
            yield Check("providers", name, Status.ok, "computes")
            continue
        fix = "pass providers=['CPUExecutionProvider'], or install what the message names"
        if name == "CUDAExecutionProvider":
            fix = (
                "install the NVIDIA driver, CUDA and cuDNN of onnxruntime's requirements "
                "(https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html)"
            )
        elif name == "CPUExecutionProvider":
            fix = "pip install --force-reinstall onnxruntime"
        yield Check("providers", name, Status.problem, f"does not start: {error}", fix)


def provider_error(name: str) -> str | None:
    """Why an execution provider does not compute; None where it does.

    A session falls back to the CPU without an error otherwise: here it must not.

    Args:
        name: such as "CUDAExecutionProvider".
    """
    import onnxruntime as ort
    from onnx import TensorProto, helper

    square = [helper.make_tensor_value_info(value, TensorProto.FLOAT, [2, 2]) for value in ("a", "b", "c")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "doctor", square[:2], square[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    if name != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    a, b = np.array([[1, 2], [3, 4]], np.float32), np.array([[0, 1], [1, 0]], np.float32)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[name], enable_fallback=0)
        if session.get_providers()[:1] != [name]:
            return f"onnxruntime chose {', '.join(session.get_providers())} instead"
        [found] = session.run(None, {"a": a, "b": b})
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None if np.allclose(found, a @ b) else "it computes a wrong product of two matrices"


def _cache() -> Iterator[Check]:
    folder = cache_folder()
    there = next(parent for parent in [folder, *folder.parents] if parent.exists())
    free = shutil.disk_usage(there).free / _GB
    detail = f"{folder}, {free:.1f} GB free"
    if not os.access(there, os.W_OK):
        yield Check(
            "cache", "folder", Status.problem, f"{detail}; it cannot be written", "set HF_HOME to another folder"
        )
    elif free < _LEAST_DISK:
        yield Check("cache", "folder", Status.problem, detail, "hf cache prune, or set HF_HOME to a larger disk")
    else:
        yield Check("cache", "folder", Status.ok, detail)


def _files(description: ModelDescription, state: CacheState) -> Iterator[Check]:
    name, size = description.name, _size(state.size)
    fetch = f"hf download {description.repository}" if description.repository else "reinstall colpali-integrations"
    if description.repository and description.revision:
        fetch += f" --revision {description.revision}"
    if state.folder is None and not state.partial:
        detail = f"not here; {_size(description.size_in_bytes)} to download at first use"
        yield Check("models", name, Status.note, detail, fetch)
        return
    wrong = []
    if state.missing:
        wrong.append(f"lacks {', '.join(state.missing)}")
    if state.short:
        wrong.append(f"cut off: {', '.join(state.short)}")
        # huggingface_hub takes a file that is there for whole.
        broken = " ".join(str((state.folder or Path()) / one) for one in state.short)
        fetch = f"delete {broken}, then {fetch} --force-download"
    if state.partial and not state.complete:
        wrong.append(f"{len(state.partial)} download{'s' * (len(state.partial) > 1)} cut off")
    if wrong:
        yield Check("models", name, Status.problem, f"{'; '.join(wrong)} ({size} here)", fetch)
    else:
        yield Check("models", name, Status.ok, f"{'bundled' if description.repository is None else 'cached'}, {size}")


def _embeds(description: ModelDescription, *, forced: bool) -> Check:
    """Whether an installed model embeds a page and a query."""
    from PIL import Image, ImageDraw, ImageFont

    from colpali_integrations.models.colpali import ColPali

    name = description.name
    needed, free = _MEMORY_FACTOR * description.size_in_bytes, _free_memory()
    if free is not None and needed > free and not forced:
        detail = f"not tried: it needs about {needed / _GB:.0f} GB of memory, {free / _GB:.1f} are free"
        return Check("models", name, Status.note, detail, f"colpali-integrations doctor --model {name}")
    picture = Image.new("RGB", (640, 400), "white")
    ImageDraw.Draw(picture).text((60, 160), "Is anybody there?", fill="black", font=ImageFont.load_default(32))
    started = time.perf_counter()
    try:
        with ColPali.from_pretrained(name, local_files_only=True, lazy_load=True) as model:
            [page] = model.embed_images(picture)
            [query] = model.embed_queries("a page")
    except ColPaliError as error:
        return Check("models", name, Status.problem, f"does not embed a page: {error}", "see the message")
    seconds = time.perf_counter() - started
    detail = f"embeds a page ({len(page)} vectors) and a query ({len(query)}) in {seconds:.1f} s, loading included"
    return Check("models", name, Status.ok, detail)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _free_memory() -> float | None:
    """Bytes that a process could allocate; None where the system has no figure."""
    if sys.platform == "linux":
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * float(line.split()[1])
    return None


def _size(size: float) -> str:
    return f"{size / _GB:.1f} GB" if size >= _GB else f"{size / 1e6:.0f} MB"
