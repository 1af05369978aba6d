"""The tiny models and the references' outputs, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray

from colpali_integrations import ColPali

FIXTURES = Path(__file__).parent / "fixtures"
TOLERANCE = 1e-4
"""Largest difference allowed in any component of a vector, from torch to onnxruntime. About 1e-6 is measured."""


@dataclass(frozen=True)
class Golden:
    """What the reference gives for one model."""

    folder: Path
    facts: dict[str, Any]
    arrays: dict[str, NDArray[np.float32]]

    @property
    def main_prompt(self) -> str:
        name: str = self.facts["main_prompt"]
        return name

    def query_vectors(self, position: int, prompt: str | None = None) -> NDArray[np.float32]:
        return self.arrays[f"query/{prompt or self.main_prompt}/{position}"]


@cache
def load_golden(name: str) -> Golden:
    folder = FIXTURES / name
    facts = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    with np.load(folder / "golden.npz") as arrays:
        return Golden(folder, facts, dict(arrays))


_PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])
OLDER_PILLOW = _PILLOW < (13, 0)
"""Pillow 13 rounds some resized pixels differently by one level; the goldens hold both (see older_pillow.py)."""
BETWEEN = (12, 2) <= _PILLOW < (13, 0)
"""These have some of 13's changes; pages on which the two sets of goldens agree are compared, the others skipped."""


PILLOW_13 = pytest.mark.skipif(OLDER_PILLOW, reason="the goldens are of Pillow 13, which rounds some pixels otherwise")


def wanted_pixels(name: str, page: str) -> dict[str, Any]:
    """The reference's pixels of a page under the Pillow that is installed."""
    if OLDER_PILLOW:
        older = json.loads((FIXTURES / "pixels_pillow12.json").read_text(encoding="utf-8"))
        found: dict[str, Any] = older["paligemma" if name == "paligemma" else "idefics3"][page]
    else:
        found = load_golden(name).facts["pages"][page]
    return found


def other_pixels(name: str, page: str) -> bool:
    """Whether the multi-vectors of a page are of other pixels than the installed Pillow makes."""
    sha256: str = load_golden(name).facts["pages"][page]["sha256"]
    return bool(wanted_pixels(name, page)["sha256"] != sha256)


def skip_where_pillow_matters(name: str, page: str) -> None:
    """Skips a page whose multi-vectors are of other pixels than the installed Pillow makes."""
    if other_pixels(name, page):
        pytest.skip(f"multi-vectors of {page} are of Pillow 13's pixels; {PIL.__version__} rounds otherwise")


def skip_where_pillow_is_between(name: str, page: str) -> None:
    """Skips a page whose pixels under a Pillow from 12.2 to 13 are in neither set of goldens."""
    if BETWEEN and wanted_pixels(name, page)["sha256"] != load_golden(name).facts["pages"][page]["sha256"]:
        pytest.skip(f"Pillow {PIL.__version__} rounds {page} neither as 12.1 did nor as 13 does")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    return load_golden


@pytest.fixture(scope="session")
def load() -> Iterator[Callable[..., ColPali]]:
    """Makes models from the fixtures' folders, each once a session."""
    made: dict[tuple[str, bool], ColPali] = {}

    def make(name: str, *, split_graph: bool = True) -> ColPali:
        if (name, split_graph) not in made:
            made[name, split_graph] = ColPali.from_pretrained(FIXTURES / name, split_graph=split_graph, threads=2)
        return made[name, split_graph]

    yield make
    for model in made.values():
        model.close()
