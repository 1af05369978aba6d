"""ColQwen2 and ColQwen2.5, built from safetensors, against their classes: ids, pixels, and distances to float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations.errors import ImageError
from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.resizing import smart_resize
from colpali_integrations.pages.images import load_image

from .bounds import check, measured
from .cases import (
    QWEN2_VL_PROMPTS,
    Page,
    Prompt,
    draw,
    page_named,
)
from .conftest import FIXTURES, PILLOW_13, load_golden
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

NAMES = ["colqwen2", "colqwen2_5"]


@cache
def family(**changes: Any) -> Family:
    description = replace(describe_folder(FIXTURES / "colqwen2"), **changes)
    return family_class(description.family)(description, FIXTURES / "colqwen2")


@pytest.fixture(scope="module")
def opened() -> Iterator[Open]:
    with opening({"colqwen2_5": "colqwen2_5-base"}) as open_:
        yield open_


@PILLOW_13
@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_as_close_to_float64_as_the_reference(opened: Open, name: str) -> None:
    pairs = measured(load_golden(name), outputs(opened, name))
    assert len(pairs) == 2 * (7 + 8 + 1)
    check(pairs)


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_as_alone(opened: Open, name: str) -> None:
    check_batches(opened(name, BUDGET))


@pytest.mark.parametrize("prompt", QWEN2_VL_PROMPTS, ids=lambda prompt: prompt.name)
def test_query_ids(prompt: Prompt) -> None:
    queries = family(query_prefix=prompt.prefix, query_suffix=prompt.suffix).queries
    check_query_ids(queries, load_golden("colqwen2").facts["queries"][prompt.name])


def test_the_class_decides_the_query_prompt() -> None:
    by_class = {name: describe_folder(FIXTURES / name) for name in ("colqwen2", "colqwen2_5-base")}
    for name, prompt in (("colqwen2", "transformers"), ("colqwen2_5-base", "bare")):
        [known] = [one for one in QWEN2_VL_PROMPTS if one.name == prompt]
        assert (by_class[name].query_prefix, by_class[name].query_suffix) == (known.prefix, known.suffix)


@pytest.mark.parametrize("page", TAKEN, ids=lambda page: page.name)
def test_ids_of_pages(page: Page) -> None:
    check_page_ids(family(), "colqwen2", page)


@PILLOW_13
@pytest.mark.parametrize("page", TAKEN, ids=lambda page: page.name)
def test_pixels_are_those_of_the_reference(page: Page) -> None:
    check_pixels(family(), "colqwen2", page)


@pytest.mark.parametrize("name", sorted(TOO_LONG))
def test_pages_that_are_too_long_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match="more than 200 times the other"):
        family().pages.prepare(load_image(draw(page_named(name))))


# transformers 5.24 smart_resize
@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((1, 1), (3136, 602112), (56, 56)),
        ((42, 70), (1, 10**9), (56, 56)),  # halves are rounded to even numbers
        ((100, 20000), (3136, 602112), (28, 10948)),
        ((1000, 1000), (10**6, 2 * 10**6), (1008, 1008)),
        ((2000, 2000), (3136, 784 * 100), (280, 280)),
        ((20, 20), (5000, 10**6), (84, 84)),
    ],
)
def test_smart_resize(size: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]) -> None:
    assert smart_resize(*size, factor=28, limits=limits) == expected


def test_the_fixtures_are_hard_enough() -> None:
    """A golden that hardly depends on the page, or a page within one window, would prove nothing."""
    for name in NAMES:
        golden = load_golden(name)
        first, second = (golden.arrays[f"page/{page}/rows"] for page in ("a4-portrait", "odd"))
        assert np.abs(first[3] - second[3]).max() > 0.05
    assert (Path(FIXTURES) / "colqwen2" / "model.safetensors.index.json").is_file()
    assert family(max_num_visual_tokens=BUDGET).pages.prepare(load_image(draw(page_named("odd")))).extra == (15, 6)
