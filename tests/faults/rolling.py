"""A rolling store: old entries are deleted as new ones come; the disk and the memory that it takes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from colpali_integrations.stores import Entry, MultiVectorStore
from tests.faults.children import in_child
from tests.faults.figures import Figures
from tests.stores.stored_models import made_up

__all__ = ["rolling"]

_DIM, _ROWS, _BATCH = 128, 1030, 4
_MODEL = made_up("faults", family="paligemma", dim=_DIM)


def rolling(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Store `10 * rounds` pages of 1030 x 128, of which 84 stay (22 MB): delete the oldest, or replace any."""
    results = []
    for name in ("deletion", "replacement"):
        figures = Figures(f"rolling store, by {name}")
        wrong, figures.notes = in_child(_roll, folder / name, 10 * rounds, name == "replacement", patience=3600)
        figures.add(wrong, f"{10 * rounds} pages")
        results.append(figures)
    return results


def _roll(place: Path, total: int, replaces: bool) -> tuple[list[str], str]:
    live = min(84, total // 3)
    random = np.random.default_rng(0)
    pool = random.standard_normal((8, _ROWS, _DIM)).astype(np.float32)
    pool /= np.linalg.norm(pool, axis=2, keepdims=True)
    highest, memory, wrong = 0.0, [], []
    query = pool[0, :4]
    with MultiVectorStore.open(place, model=_MODEL, first_stage="exact") as store:
        for first in range(0, total, _BATCH):
            numbers = range(first, first + _BATCH)
            ids = {number: str(random.integers(live) if replaces and first >= live else number) for number in numbers}
            store.add((Entry(id=ids[n], text=f"page {n}", metadata={"page": n}), pool[n % 8]) for n in numbers)
            if not replaces and first >= live:
                store.delete([str(number - live) for number in numbers])
            if len(store.search(query, 3)) != 3:
                wrong.append(f"a search after {first} pages finds too few")
            if first >= live:
                highest = max(highest, _disk(place) / (2 * _ROWS * _DIM * len(store)))
            if first >= total // 2:
                memory.append(_private())
    if highest > 2:
        wrong.append(f"the disk holds up to {highest:.2f} times the live vectors")
    growth = max(memory[-10:]) - max(memory[:10])
    if growth > 20e6:
        wrong.append(f"private memory grew by {growth / 1e6:.0f} MB in the second half")
    notes = f"disk at most {highest:.2f} x the live vectors, private memory {growth / 1e6:+.1f} MB in the second half"
    return wrong, notes


def _disk(place: Path) -> int:
    return sum(path.stat().st_size for path in place.iterdir())


def _private() -> int:
    """Bytes of this process that no file backs."""
    if sys.platform != "linux":
        return 0
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) * 1024
