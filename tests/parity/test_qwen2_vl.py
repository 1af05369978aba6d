"""ColQwen2 and ColQwen2.5, built from safetensors, against their classes: ids, pixels, and distances to float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import ColPali
from colpali_integrations.errors import ImageError
from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.resizing import smart_resize
from colpali_integrations.pages.images import load_image

from .bounds import check, measured
from .cases import (
    EMBEDDED_QUERIES,
    HOSTILE,
    LEADING_SPACE,
    PAGES,
    QUERIES,
    QWEN2_VL_PROMPTS,
    STRIP,
    Page,
    Prompt,
    draw,
    page_named,
)
from .conftest import FIXTURES, PILLOW_13, load_golden
from .measures import fingerprint, runs

Open = Callable[..., ColPali]
NAMES = ["colqwen2", "colqwen2_5"]
BUDGET = 100  # of the generator
TOO_LONG = {"tall", "wide"}
TAKEN = [page for page in (*PAGES, STRIP) if page.name not in {*TOO_LONG, "exact-512"}]


@cache
def family(**changes: Any) -> Family:
    description = replace(describe_folder(FIXTURES / "colqwen2"), **changes)
    return family_class(description.family)(description, FIXTURES / "colqwen2")


@pytest.fixture(scope="module")
def opened() -> Iterator[Open]:
    models: dict[tuple[str, int | None], ColPali] = {}

    def open_(name: str, budget: int | None = None) -> ColPali:
        if (name, budget) not in models:
            more: dict[str, Any] = {"base": FIXTURES / "colqwen2_5-base"} if name == "colqwen2_5" else {}
            models[name, budget] = ColPali.from_pretrained(
                FIXTURES / name, threads=1, max_num_visual_tokens=budget, **more
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
    pairs = measured(load_golden(name), outputs(opened, name))
    assert len(pairs) == 2 * (7 + 8 + 1)
    check(pairs)


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_as_alone(opened: Open, name: str) -> None:
    model = opened(name, BUDGET)
    pages = [draw(page_named(page)) for page in ("odd", "grey", "odd", "odd", "small")]
    for page, vectors in zip(pages, model.embed_images(pages, batch_size=3), strict=True):
        [alone] = model.embed_images([page])
        np.testing.assert_allclose(vectors, alone, rtol=0, atol=5e-6)
    for text, vectors in zip(EMBEDDED_QUERIES, model.embed_queries(EMBEDDED_QUERIES, batch_size=8), strict=True):
        np.testing.assert_allclose(vectors, model.embed_query(text), rtol=0, atol=5e-6)


@pytest.mark.parametrize("prompt", QWEN2_VL_PROMPTS, ids=lambda prompt: prompt.name)
def test_query_ids(prompt: Prompt) -> None:
    wanted = load_golden("colqwen2").facts["queries"][prompt.name]
    assert set(wanted) == {*QUERIES, *LEADING_SPACE, *HOSTILE}
    queries = family(query_prefix=prompt.prefix, query_suffix=prompt.suffix).queries
    assert {query: queries.prepare(query).ids.tolist() for query in wanted} == wanted


def test_the_class_decides_the_query_prompt() -> None:
    by_class = {name: describe_folder(FIXTURES / name) for name in ("colqwen2", "colqwen2_5-base")}
    for name, prompt in (("colqwen2", "transformers"), ("colqwen2_5-base", "bare")):
        [known] = [one for one in QWEN2_VL_PROMPTS if one.name == prompt]
        assert (by_class[name].query_prefix, by_class[name].query_suffix) == (known.prefix, known.suffix)


@pytest.mark.parametrize("page", TAKEN, ids=lambda page: page.name)
def test_ids_of_pages(page: Page) -> None:
    wanted = load_golden("colqwen2").facts["pages"][page.name]
    prepared = family().pages.prepare(load_image(draw(page)))
    assert runs(prepared.ids.tolist()) == wanted["ids"]
    rows, columns = prepared.extra
    assert [1, 2 * rows, 2 * columns] == wanted["grid"]


@PILLOW_13
@pytest.mark.parametrize("page", TAKEN, ids=lambda page: page.name)
def test_pixels_are_those_of_the_reference(page: Page) -> None:
    """To the last bit: the reference is transformers' processor on Pillow."""
    wanted = load_golden("colqwen2").facts["pages"][page.name]
    found = fingerprint(family().pages.prepare(load_image(draw(page))).pixels)
    assert found == {key: wanted[key] for key in found}


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
