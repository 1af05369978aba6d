"""The machine of a measurement, and the files of its tables."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from colpali_integrations.runtime.machine import available_cores

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("colpali-integrations", "fastembed", "onnxruntime", "numpy", "pillow", "tokenizers", "onnx", "pypdfium2")


def describe() -> str:
    """Date, processor, cores, memory, load and versions, as a line or two of Markdown."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    features = ""
    if info.is_file():
        fields = dict(
            line.split(":", 1) for line in info.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if ":" in line
        )
        stripped = {key.strip(): value.strip() for key, value in fields.items()}
        cpu = stripped.get("model name", cpu)
        flags = stripped.get("flags", "").split()
        features = ", ".join(name for name in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if name in flags)
    memory = ""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        memory = f", {int(meminfo.read_text(encoding='utf-8').split()[1]) / 2**20:.0f} GiB"
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return (
        f"{datetime.datetime.now(tz=datetime.timezone.utc).date()}; {available_cores()} cores of {cpu} "
        f"({features}){memory}; "
        f"load average at the end {load} (other work runs on this machine: read ratios); "
        f"{platform.system()}, Python {platform.python_version()}; {', '.join(versions)}."
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join([" --- "] + [" ---: "] * (len(header) - 1)) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def spread(values: Sequence[float], *, unit: float = 1.0, digits: int = 0) -> str:
    """Median, with minimum and maximum of several values."""
    scaled = [value * unit for value in values]
    if len(scaled) < 2:
        return f"{scaled[0]:,.{digits}f}"
    return f"{median(scaled):,.{digits}f} ({min(scaled):,.{digits}f} to {max(scaled):,.{digits}f})"


def write(name: str, text: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(text.rstrip() + "\n", encoding="utf-8")
    print(text)
    print(f"written: benchmarks/results/{name}")
