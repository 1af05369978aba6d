"""How long `import colpali_integrations` takes over its dependencies, against `import fastembed`; and the wheel's size.

From the repository's root::

    python -m benchmarks.import_time [--rounds 15]

Each import runs in a fresh process, the contestants taking turns; a first round fills the file cache and is thrown
away.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from benchmarks import machine

ROOT = Path(__file__).parent.parent
DEPENDENCIES = "import onnxruntime, numpy, PIL.Image, tokenizers"
CONTESTANTS = {
    "colpali_integrations": "import colpali_integrations",
    "from colpali_integrations import ColPali": "from colpali_integrations import ColPali",
    "fastembed": "import fastembed",
    "from fastembed import LateInteractionMultimodalEmbedding": (
        "from fastembed import LateInteractionMultimodalEmbedding"
    ),
}
CODE = """
import time
a = time.process_time(), time.perf_counter()
{first}
b = time.process_time(), time.perf_counter()
{second}
c = time.process_time(), time.perf_counter()
print(b[0] - a[0], b[1] - a[1], c[0] - b[0], c[1] - b[1])
"""


def once(statement: str) -> list[float]:
    """Seconds of the dependencies (CPU, wall) and of the statement after them (CPU, wall)."""
    code = CODE.format(first=DEPENDENCIES, second=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [float(part) for part in done.stdout.split()]


def wheel() -> tuple[float, float, list[str]]:
    """Megabytes of the wheel, packed and unpacked, and its largest files."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(ROOT)]
        subprocess.run(command, check=True, capture_output=True)
        path = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(path) as archive:
            files = sorted(archive.infolist(), key=lambda file: -file.compress_size)
            largest = [f"{file.filename} {file.compress_size / 1e6:.2f}" for file in files[:3]]
            return path.stat().st_size / 1e6, sum(file.file_size for file in files) / 1e6, largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    seen: dict[str, list[list[float]]] = defaultdict(list)
    present = {
        name: code
        for name, code in CONTESTANTS.items()
        if importlib.util.find_spec("fastembed" if "fastembed" in name else "colpali_integrations")
    }
    for turn in range(rounds + 1):
        for name, code in present.items():
            times = once(code)
            if turn:
                seen[name].append(times)
    every = [times for all_times in seen.values() for times in all_times]
    rows = [
        (f"`{DEPENDENCIES}`", *(machine.spread([times[place] for times in every], unit=1000) for place in (1, 0)), "")
    ]
    least = min(times[0] for times in every)
    for name, times in seen.items():
        rows.append(
            (
                f"`{name}`, after these",
                machine.spread([one[3] for one in times], unit=1000),
                machine.spread([one[2] for one in times], unit=1000),
                f"{median(one[2] for one in times) / least:.2f}",
            )
        )
    size, unpacked, largest = wheel()
    header = ("import", "wall, ms", "CPU, ms", "CPU over the dependencies' least")
    machine.write(
        "import_time.md",
        "# Import time and wheel size\n\nMade by `python -m benchmarks.import_time`.\n\n"
        f"{machine.table(header, rows)}\n\nMedian of {rounds} fresh processes (least to greatest).\n\n"
        f"Wheel: {size:.2f} MB, unpacked {unpacked:.2f} MB. Its largest files, compressed, in MB: "
        f"{', '.join(largest)}.\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
