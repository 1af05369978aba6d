"""ColQwen3 and Nemotron, built from safetensors, against their classes: ids, pixels, and distances to float64."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import ColPali
from colpali_integrations.errors import ImageError
from colpali_integrations.models.builder.positions import table_taps
from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.pages.images import load_image
from tests.models.builder.checkpoints import read, save

from .bounds import check, measured
from .cases import (
    QWEN3_VL_PROMPTS,
    Page,
    Prompt,
    draw,
    page_named,
)
from .conftest import FIXTURES, PILLOW_13, load_golden
from .measures import fingerprint
from .qwen_checks import (
    BUDGET,
    TAKEN,
    TOO_LONG,
    Open,
    check_batches,
    check_page_ids,
    check_pixels,
    check_query_ids,
    opening,
    outputs,
)

NAMES = ["colqwen3", "colqwen3-adapter", "nemotron"]
KEPT = 3  # of the generator


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
    folder = nemotron(tmp_path_factory.mktemp("models") / "nemotron")
    with opening({"colqwen3-adapter": "colqwen3-base"}, {"nemotron": folder}) as open_:
        yield open_


@PILLOW_13
@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_as_close_to_float64_as_the_reference(opened: Open, name: str) -> None:
    pairs = measured(load_golden(name), outputs(opened, name), kept=KEPT)
    assert len(pairs) == 2 * (7 + 8 + 1)
    check(pairs)


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_as_alone(opened: Open, name: str) -> None:
    check_batches(opened(name, BUDGET))


@pytest.mark.parametrize("prompt", QWEN3_VL_PROMPTS, ids=lambda prompt: prompt.name)
def test_query_ids(prompt: Prompt) -> None:
    queries = family(query_prefix=prompt.prefix, query_suffix=prompt.suffix).queries
    check_query_ids(queries, load_golden("colqwen3").facts["queries"][prompt.name])


@pytest.mark.parametrize("page", TAKEN, ids=lambda page: page.name)
def test_ids_of_pages(page: Page) -> None:
    check_page_ids(family(), "colqwen3", page)


@PILLOW_13
@pytest.mark.parametrize("page", TAKEN, ids=lambda page: page.name)
def test_pixels_are_those_of_the_reference(page: Page) -> None:
    check_pixels(family(), "colqwen3", page)


@pytest.mark.parametrize("grid", ["1x1", "1x7", "9x4", "24x24", "25x40", "60x3"])
def test_places_in_the_table_are_those_of_the_reference(grid: str) -> None:
    """To the last bit, for the table of 48 x 48 positions of the published models."""
    rows, columns = map(int, grid.split("x"))
    taps = table_taps(rows, columns, 2, 48)
    wanted = load_golden("colqwen3").facts["taps"][grid]
    assert fingerprint(taps.rows) == wanted["rows"]
    assert fingerprint(taps.shares) == wanted["shares"]


@pytest.mark.parametrize("name", sorted(TOO_LONG))
def test_pages_that_are_too_long_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match="more than 200 times the other"):
        family().pages.prepare(load_image(draw(page_named(name))))


def test_the_fixtures_are_hard_enough() -> None:
    """A golden that hardly depends on the page, or on what distinguishes the classes, would prove nothing."""
    for name in NAMES:
        golden = load_golden(name)
        first, second = (golden.arrays[f"page/{page}/rows"][1] for page in ("a4-portrait", "odd"))
        assert np.linalg.norm(first - second) > 0.1
    assert family(max_num_visual_tokens=BUDGET).pages.prepare(load_image(draw(page_named("odd")))).extra == (15, 6)


@pytest.mark.parametrize("index", range(3))
def test_every_set_of_deep_features_matters(opened: Open, tmp_path: Path, index: int) -> None:
    folder = shutil.copytree(FIXTURES / "colqwen3", tmp_path / "model")
    for shard in folder.glob("*.safetensors"):
        names = f"deepstack_merger_list.{index}.linear_fc2"
        arrays = {name: np.zeros_like(array) if names in name else array for name, array in read(shard).items()}
        save(shard, arrays)
    page = draw(page_named("grey"))
    [without] = ColPali.from_pretrained(folder, threads=1).embed_images([page])
    [vectors] = opened("colqwen3").embed_images([page])
    assert np.abs(without - vectors).max() > 0.01
