"""What the tests of checkpoints on Qwen's vision models share: opening them, and comparing them with a golden."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations import ColPali
from colpali_integrations.models.family import Codec, Family
from colpali_integrations.pages.images import load_image

from .cases import (
    EMBEDDED_QUERIES,
    HOSTILE,
    LEADING_SPACE,
    LONG_QUERY,
    PAGES,
    QUERIES,
    STRIP,
    TEXTS,
    Page,
    draw,
    page_named,
)
from .conftest import FIXTURES, load_golden
from .measures import fingerprint, runs

BUDGET = 100  # of the generator
PUNCTUATION = "...!"
TOO_LONG = {"tall", "wide"}
TAKEN = [page for page in (*PAGES, STRIP) if page.name not in {*TOO_LONG, "exact-512"}]

Open = Callable[..., ColPali]
"""Open a fixture by its name, and perhaps the most visual tokens of a page; once each."""


@contextmanager
def opening(bases: Mapping[str, str] | None = None, folders: Mapping[str, Path] | None = None) -> Iterator[Open]:
    """Open models, and close them at the end.

    Args:
        bases: the fixture of an adapter's base, by the fixture of the adapter.
        folders: of models that are not fixtures, by name.
    """
    with ExitStack() as stack:

        @cache
        def open_(name: str, budget: int | None = None) -> ColPali:
            folder = (folders or {}).get(name, FIXTURES / name)
            more: dict[str, Any] = {"base": FIXTURES / bases[name]} if bases and name in bases else {}
            model = ColPali.from_pretrained(folder, threads=1, max_num_visual_tokens=budget, **more)
            return stack.enter_context(model)

        yield open_


def outputs(opened: Open, name: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The vectors of each case of a golden."""
    for case in load_golden(name).facts["distances"]:
        kind, key = case.split("/")
        if kind == "query":
            yield case, opened(name).embed_query(EMBEDDED_QUERIES[int(key)])
        elif kind == "long":
            yield case, opened(name).embed_query(LONG_QUERY)
        elif kind == "text":
            [rows] = opened(name).embed_texts((*TEXTS, PUNCTUATION)[int(key)])
            yield case, rows
        else:
            page = draw(STRIP if key == STRIP.name else page_named(key))
            [rows] = opened(name, BUDGET if kind == "page" else None).embed_images([page])
            yield case, rows


def check_batches(model: ColPali) -> None:
    """Pages and queries have the vectors in a batch that they have alone."""
    pages = [draw(page_named(page)) for page in ("odd", "grey", "odd", "odd", "small")]
    for page, vectors in zip(pages, model.embed_images(pages, batch_size=3), strict=True):
        [alone] = model.embed_images([page])
        np.testing.assert_allclose(vectors, alone, rtol=0, atol=5e-6)
    for text, vectors in zip(EMBEDDED_QUERIES, model.embed_queries(EMBEDDED_QUERIES, batch_size=8), strict=True):
        np.testing.assert_allclose(vectors, model.embed_query(text), rtol=0, atol=5e-6)


def check_query_ids(queries: Codec[str], wanted: Mapping[str, list[int]]) -> None:
    """The ids of all queries are those of the reference."""
    assert set(wanted) == {*QUERIES, *LEADING_SPACE, *HOSTILE}
    assert {query: queries.prepare(query).ids.tolist() for query in wanted} == wanted


def check_page_ids(model: Family, name: str, page: Page) -> None:
    """The ids and the grid of a page are those of the reference."""
    wanted = load_golden(name).facts["pages"][page.name]
    prepared = model.pages.prepare(load_image(draw(page)))
    assert runs(prepared.ids.tolist()) == wanted["ids"]
    rows, columns = prepared.extra
    assert [1, 2 * rows, 2 * columns] == wanted["grid"]


def check_pixels(model: Family, name: str, page: Page) -> None:
    """The pixels are those of the reference to the last bit: it is transformers' processor on Pillow."""
    wanted = load_golden(name).facts["pages"][page.name]
    found = fingerprint(model.pages.prepare(load_image(draw(page))).pixels)
    assert found == {key: wanted[key] for key in found}
