"""Checks of the installation, the execution providers and the model cache, each with its fix."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colpali_integrations.cli import words
from colpali_integrations.errors import ColPaliError
from colpali_integrations.models.connection import is_server, server_url
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.hub import CacheState, cache_folder, cache_state
from colpali_integrations.models.loading import describe, load_parts
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.registry import list_supported_models
from colpali_integrations.office.soffice import PACKAGES, soffice_version
from colpali_integrations.pages.fonts import drawn_scripts
from colpali_integrations.runtime.machine import byte_instructions

if TYPE_CHECKING:
    from colpali_integrations.models.builder.speeds import LayerSpeed

__all__ = ["EXTRAS", "Check", "Status", "examine", "provider_error", "recommendation", "size_text"]

# Distributions that the extras of pyproject.toml install; a test compares.
EXTRAS = {
    "langchain": ("langchain-core",),
    "llama-index": ("llama-index-core",),
    "qdrant": ("qdrant-client",),
    "cli": ("rich", "typer"),
    "plot": ("matplotlib",),
    "evaluate": ("pyarrow",),
    "ray": ("ray",),
    "serve": ("prometheus-client", "python-multipart", "starlette", "uvicorn"),
    "mcp": ("mcp",),
}
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
_CUDA_DOCS = "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html"
_PROVIDER_FIXES = {
    "CPUExecutionProvider": "pip install --force-reinstall onnxruntime",
    "CUDAExecutionProvider": f"install the NVIDIA driver, CUDA and cuDNN of onnxruntime's requirements ({_CUDA_DOCS})",
}
_OTHER_FIX = "install what the message names; in Python, providers=['CPUExecutionProvider'] does without"
# pdfium draws Chinese, Japanese and Korean in either of these.
_FONTS_FIX = "install fonts (Debian: apt-get install fonts-noto-cjk, or the smaller fonts-wqy-microhei)"
_LEAST_DISK = 1e9  # bytes; a store of some thousand pages needs more
_WORTHWHILE = 1.3  # times as fast as float32
_ROUNDING = 0.02  # an overflow halves a sum
_MEMORY_FACTOR = 1.2  # a model's weights are in memory once, beside the buffers of a page
_DEFAULTS = ModelOptions()


class Status(str, Enum):
    """The outcome of a check."""

    ok = "ok"
    note = "note"
    """Nothing is wrong, but something optional is missing."""
    problem = "problem"


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        group: "environment", "extras", "providers", "cache" or "models".
        name: of the package, extra, provider, folder or model.
        status: the outcome.
        detail: the reason, in words.
        fix: a command or an instruction; "" where no fix is needed.
    """

    group: str
    name: str
    status: Status
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, JSON-safe."""
        return {**asdict(self), "status": self.status.value}


def examine(
    *, models: Sequence[str] | None = None, options: ModelOptions = _DEFAULTS, embed: bool = True
) -> Iterator[Check]:
    """Run all checks, and yield each result at once.

    Args:
        models: names and folders of models; only these, even where memory looks short. None for all registered models.
        options: of these models.
        embed: let every installed model embed a page and a query.

    Raises:
        ColPaliError: as `ColPali.from_pretrained`, before the first check, for a name that is not known, a folder
            without a model, or an option that is none of the model's.
    """
    names = [model.name for model in list_supported_models()] if models is None else models
    described = [(name, *describe(name, options)) for name in names]
    yield from _environment()
    yield _fonts()
    yield _office()
    yield from _precision()
    yield from _extras()
    yield from _providers()
    yield from _cache()
    for name, description, folder in described:
        if is_server(name):
            yield Check("models", description.name, Status.ok, f"on the server {server_url(name)}")
            if embed:
                yield _embeds(name, description, options, forced=True)
            continue
        state = cache_state(description, local_dir=folder, base=options.base)
        yield from _files(description, state, folder)
        if embed and state.complete:
            yield _embeds(name, description, options, forced=models is not None)


def _environment() -> Iterator[Check]:
    from colpali_integrations import __version__

    yield Check("environment", "colpali-integrations", Status.ok, __version__)
    yield Check("environment", "Python", Status.ok, f"{platform.python_version()} on {platform.platform(terse=True)}")
    runtimes = {name: version for name in _RUNTIMES if (version := _version(name)) is not None}
    shown = ", ".join(f"{name} {version}" for name, version in runtimes.items()) or "not by pip"
    if len(runtimes) > 1:
        # They write into one folder, and the last one wins in part.
        fix = f"pip uninstall -y {' '.join(runtimes)} && pip install {list(runtimes)[-1]}"
        yield Check("environment", "onnxruntime", Status.problem, f"{shown}: they overwrite each other", fix)
    else:
        yield Check("environment", "onnxruntime", Status.ok, shown)


def _fonts() -> Check:
    """Let pdfium draw text in fonts that are not in the PDF."""
    try:
        scripts = drawn_scripts()
    except ColPaliError as error:
        return Check("environment", "fonts", Status.problem, f"PDFs cannot be read: {error}", "see the message")
    others = "languages beside these and those of Western Europe may need the very font that a PDF names"
    if missing := [script for script, is_drawn in scripts.items() if not is_drawn]:
        detail = f"PDFs that do not include their fonts are drawn without {', '.join(missing)}; {others}"
        return Check("environment", "fonts", Status.note, detail, _FONTS_FIX)
    return Check(
        "environment", "fonts", Status.ok, f"for {', '.join(scripts)} where a PDF does not include them; {others}"
    )


def _office() -> Check:
    try:
        return Check("environment", "LibreOffice", Status.ok, f"{soffice_version()}, for Office files")
    except ColPaliError as error:
        return Check("environment", "LibreOffice", Status.note, f"Office files cannot be read: {error}", PACKAGES)


def _precision() -> Iterator[Check]:
    """Recommend a precision for checkpoints; `from_pretrained` chooses none by itself."""
    from colpali_integrations.models.builder.speeds import precision_speeds

    instructions, speeds = byte_instructions(), precision_speeds()
    shown = "not listed by this system" if instructions is None else ", ".join(instructions) or "none"
    yield Check("environment", "products of bytes", Status.ok, shown)
    measured = ", ".join(f"{name} {speed.ratio:.1f}" for name, speed in speeds.items() if name != "float32")
    detail = f"{recommendation(instructions, speeds)}. A layer's products, times as fast as in float32: {measured}"
    yield Check("environment", "precision", Status.ok, detail)


def recommendation(instructions: tuple[str, ...] | None, speeds: Mapping[str, LayerSpeed]) -> str:
    """The advice on the precision of checkpoints, in words.

    Args:
        instructions: of `byte_instructions`.
        speeds: of `precision_speeds`.
    """
    exact = [name for name, speed in speeds.items() if speed.error < _ROUNDING]
    fast = [name for name in exact if instructions != () and speeds[name].ratio >= _WORTHWHILE]
    parts = []
    if "int8" in exact:
        parts.append("int8 is recommended" if "int8" in fast else "int8 saves memory and hardly any time")
    if "int8-dynamic" in fast:
        parts.append("int8-dynamic is the fastest and less exact, compare it on your pages with `quantize`")
    if wrong := [name for name in speeds if name not in exact]:
        parts.append(f"sums overflow on this processor in {', '.join(wrong)}, which must not be used")
    return f"of a checkpoint: {'; '.join(parts)}"


def _extras() -> Iterator[Check]:
    for extra, distributions in EXTRAS.items():
        versions = {name: _version(name) for name in distributions}
        if missing := [name for name, version in versions.items() if version is None]:
            fix = f'pip install "colpali-integrations[{extra}]"'
            yield Check("extras", extra, Status.note, f"not installed: {', '.join(missing)}", fix)
        else:
            shown = ", ".join(f"{name} {version}" for name, version in versions.items())
            yield Check("extras", extra, Status.ok, shown)


def _providers() -> Iterator[Check]:
    """Check that each provider computes; a build of onnxruntime lists some whose libraries it cannot load."""
    import onnxruntime as ort

    for name in ort.get_available_providers():
        if name == "AzureExecutionProvider":  # in every build; it calls a service, and computes nothing
            continue
        if (error := provider_error(name)) is None:
            yield Check("providers", name, Status.ok, "computes")
        else:
            fix = _PROVIDER_FIXES.get(name, _OTHER_FIX)
            yield Check("providers", name, Status.problem, f"does not start: {error}", fix)


def provider_error(name: str) -> str | None:
    """Return the reason why an execution provider does not compute; None if it does.

    By default a session falls back to the CPU without an error; here that is forbidden.

    Args:
        name: such as "CUDAExecutionProvider".
    """
    import onnxruntime as ort
    from onnx import parser

    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "doctor (float[2, 2] a, float[2, 2] b) => (float[2, 2] c) {c = MatMul(a, b)}"
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    if name != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    a, b = np.array([[1, 2], [3, 4]], np.float32), np.array([[0, 1], [1, 0]], np.float32)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[name], enable_fallback=0)
        if session.get_providers()[:1] != [name]:
            return f"onnxruntime chose {', '.join(session.get_providers())} instead"
        [product] = session.run(None, {"a": a, "b": b})
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None if np.allclose(product, a @ b) else "it computes a wrong product of two matrices"


def _cache() -> Iterator[Check]:
    folder = cache_folder()
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{folder}, {free / 1e9:.1f} GB free"
    status, fix = Status.ok, ""
    if not os.access(existing, os.W_OK):
        status, fix, detail = Status.problem, "set HF_HOME to another folder", f"{detail}; it is not writable"
    elif free < _LEAST_DISK:
        status, fix = Status.problem, "hf cache prune, or set HF_HOME to a larger disk"
    yield Check("cache", "folder", status, detail, fix)


def _files(description: ModelDescription, state: CacheState, local: str | os.PathLike[str] | None) -> Iterator[Check]:
    name, size = description.name, size_text(state.size)
    fetch = f"hf download {description.repository}" if description.repository else "reinstall colpali-integrations"
    if local is not None:
        fetch = f"copy the missing files into {local} again"
    elif description.repository and description.revision:
        fetch += f" --revision {description.revision}"
    if state.folder is None and not state.partial:
        detail = f"not here; {size_text(description.size_in_bytes)} to download at first use"
        yield Check("models", name, Status.note, detail, fetch)
        return
    damage = []
    if state.missing:
        damage.append(f"lacks {', '.join(state.missing)}")
    if state.short:
        damage.append(f"cut off: {', '.join(state.short)}")
        # huggingface_hub takes an existing file for complete.
        broken = " ".join(str((state.folder or Path()) / file) for file in state.short)
        fetch = f"delete {broken}, then {fetch}" + (" --force-download" if description.repository else "")
    if state.partial and not state.complete:
        damage.append(f"{len(state.partial)} download{'s' * (len(state.partial) > 1)} cut off")
    if damage:
        yield Check("models", name, Status.problem, f"{'; '.join(damage)} ({size} here)", fetch)
    else:
        place = "bundled" if description.repository is None else "cached"
        yield Check("models", name, Status.ok, f"{place if local is None else f'in {local}'}, {size}")


def _embeds(name_or_path: str, description: ModelDescription, options: ModelOptions, *, forced: bool) -> Check:
    """Let an installed model embed a page and a query."""
    from PIL import Image, ImageDraw, ImageFont

    from colpali_integrations.models.colpali import ColPali

    name = description.name
    needed, free = _MEMORY_FACTOR * description.size_in_bytes, _free_memory()
    if free is not None and needed > free and not forced:
        detail = f"not tried: it needs about {needed / 1e9:.0f} GB of memory, {free / 1e9:.1f} are free"
        return Check("models", name, Status.note, detail, f"colpali-integrations doctor --model {name}")
    picture = Image.new("RGB", (640, 400), "white")
    ImageDraw.Draw(picture).text((60, 160), "Revenue by region", fill="black", font=ImageFont.load_default(32))
    started = time.perf_counter()
    try:
        options = options if is_server(name_or_path) else replace(options, local_files_only=True)
        with ColPali(*load_parts(name_or_path, options, lazy_load=True)) as model:
            [page] = model.embed_images(picture)
            [query] = model.embed_queries("a page")
    except ColPaliError as error:
        reason = words.message(error)
        return Check("models", name, Status.problem, f"does not embed a page: {reason}", "see the message")
    seconds = time.perf_counter() - started
    detail = f"embeds a page ({len(page)} vectors) and a query ({len(query)}) in {seconds:.1f} s, loading included"
    return Check("models", name, Status.ok, detail)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _free_memory() -> float | None:
    """Return the bytes that a process could allocate; None if the system has no figure."""
    if sys.platform == "linux":
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * float(line.split()[1])
    return None


def size_text(size: float) -> str:
    """Write a number of bytes.

    >>> size_text(6.5e9), size_text(10e6)
    ('6.5 GB', '10 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
