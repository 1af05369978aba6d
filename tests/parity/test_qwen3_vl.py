"""ColQwen3 and Nemotron, built from safetensors, against their classes: ids, pixels, and distances to float64."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import ColPali
from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder
from tests.models.builder.checkpoints import read, save

from .bounds import check, measured
from .cases import (
    EMBEDDED_QUERIES,
    PAGES,
    STRIP,
    draw,
    page_named,
)
from .conftest import FIXTURES, PILLOW_13, load_golden

Open = Callable[..., ColPali]
NAMES = ["colqwen3", "colqwen3-adapter", "nemotron"]
BUDGET, KEPT = 100, 3  # of the generator
TOO_LONG = {"tall", "wide"}
TAKEN = [page for page in (*PAGES, STRIP) if page.name not in {*TOO_LONG, "exact-512"}]


@cache
def family(**changes: Any) -> Family:
    description = replace(describe_folder(FIXTURES / "colqwen3"), **changes)
    return family_class(description.family)(description, FIXTURES / "colqwen3")


def nemotron(folder: Path) -> Path:
    """The configuration of Nemotron's class with the weights of the other class but for its head."""
    shutil.copytree(FIXTURES / "nemotron", folder, ignore=shutil.ignore_patterns("golden*"))
    arrays: dict[str, NDArray[Any]] = {}
    for shard in sorted((FIXTURES / "colqwen3").glob("*.safetensors")):
        arrays |= read(shard)
    save(folder / "model.safetensors", {name: array for name, array in arrays.items() if "custom_text" not in name})
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    models: dict[tuple[str, int | None], ColPali] = {}
    folders = {name: FIXTURES / name for name in NAMES}
    folders["nemotron"] = nemotron(tmp_path_factory.mktemp("models") / "nemotron")

    def open_(name: str, budget: int | None = None) -> ColPali:
        if (name, budget) not in models:
            more: dict[str, Any] = {"base": FIXTURES / "colqwen3-base"} if name == "colqwen3-adapter" else {}
            models[name, budget] = ColPali.from_pretrained(
                folders[name], threads=1, max_num_visual_tokens=budget, **more
            )
        return models[name, budget]

    yield open_
    for model in models.values():
        model.close()


def outputs(opened: Open, name: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The vectors of each case of a golden."""
    for case in load_golden(name).facts["distances"]:
        kind, key = case.split("/")
        if kind == "query":
            yield case, opened(name).embed_query(EMBEDDED_QUERIES[int(key)])
        else:
            page = draw(STRIP if key == STRIP.name else page_named(key))
            [rows] = opened(name, BUDGET if kind == "page" else None).embed_images([page])
            yield case, rows


@PILLOW_13
@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_as_close_to_float64_as_the_reference(opened: Open, name: str) -> None:
    pairs = measured(load_golden(name), outputs(opened, name), kept=KEPT)
    assert len(pairs) == 2 * (7 + 8 + 1)
    check(pairs)
