"""ColQwen3.5 and pplx-embed-v2-late, built from safetensors, against their classes: ids, pixels, vectors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import ColPali
from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.pages.images import load_image
from tests.models.linear_attention import NEEDS_LINEAR_ATTENTION

from .bounds import check, measured
from .cases import (
    EMBEDDED_QUERIES,
    HOSTILE,
    LEADING_SPACE,
    LONG_QUERY,
    PAGES,
    QUERIES,
    QWEN3_5_PROMPTS,
    STRIP,
    TEXTS,
    Page,
    draw,
    page_named,
)
from .conftest import FIXTURES, PILLOW_13, load_golden
from .measures import fingerprint, runs

Open = Callable[..., ColPali]
NAMES = ["colqwen3_5", "pplx_late"]
BUDGET, KEPT = 100, 3  # of the generator
PUNCTUATION = "...!"
TAKEN = [page for page in (*PAGES, STRIP) if page.name not in {"tall", "wide", "exact-512"}]


@cache
def family(name: str) -> Family:
    description = describe_folder(FIXTURES / name)
    return family_class(description.family)(description, FIXTURES / name)


@pytest.fixture(scope="module")
def opened() -> Iterator[Open]:
    models: dict[tuple[str, int | None], ColPali] = {}

    def open_(name: str, budget: int | None = None) -> ColPali:
        if (name, budget) not in models:
            models[name, budget] = ColPali.from_pretrained(FIXTURES / name, threads=1, max_num_visual_tokens=budget)
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
        elif kind == "long":
            yield case, opened(name).embed_query(LONG_QUERY)
        elif kind == "text":
            [rows] = opened(name).embed_texts((*TEXTS, PUNCTUATION)[int(key)])
            yield case, rows
        else:
            page = draw(STRIP if key == STRIP.name else page_named(key))
            [rows] = opened(name, BUDGET if kind == "page" else None).embed_images([page])
            yield case, rows


@PILLOW_13
@NEEDS_LINEAR_ATTENTION
@pytest.mark.parametrize(("name", "cases"), [("colqwen3_5", 7 + 8 + 1 + 1), ("pplx_late", 7 + 4 + 8)])
def test_vectors_are_as_close_to_float64_as_the_reference(opened: Open, name: str, cases: int) -> None:
    pairs = measured(load_golden(name), outputs(opened, name), kept=KEPT)
    assert len(pairs) == 2 * cases
    check(pairs)


@NEEDS_LINEAR_ATTENTION
@pytest.mark.parametrize("name", NAMES)
def test_batches_are_as_alone(opened: Open, name: str) -> None:
    model = opened(name, BUDGET)
    pages = [draw(page_named(page)) for page in ("odd", "grey", "odd", "odd", "small")]
    for page, vectors in zip(pages, model.embed_images(pages, batch_size=3), strict=True):
        [alone] = model.embed_images([page])
        np.testing.assert_allclose(vectors, alone, rtol=0, atol=5e-6)
    for text, vectors in zip(EMBEDDED_QUERIES, model.embed_queries(EMBEDDED_QUERIES, batch_size=8), strict=True):
        np.testing.assert_allclose(vectors, model.embed_query(text), rtol=0, atol=5e-6)


def test_query_ids() -> None:
    [prompt] = QWEN3_5_PROMPTS
    wanted = load_golden("colqwen3_5").facts["queries"][prompt.name]
    assert set(wanted) == {*QUERIES, *LEADING_SPACE, *HOSTILE}
    queries = family("colqwen3_5").queries
    assert {query: queries.prepare(query).ids.tolist() for query in wanted} == wanted


def test_ids_of_queries_and_texts_behind_saved_prompts() -> None:
    """A prompt is one token, and stays text where a user writes it."""
    facts = load_golden("pplx_late").facts
    model = family("pplx_late")
    for codec, wanted in ((model.queries, facts["queries"]["pplx"]), (model.texts, facts["texts"])):
        assert set(wanted) >= {*QUERIES, *HOSTILE}
        assert {text: codec.prepare(text).ids.tolist() for text in wanted} == wanted


@NEEDS_LINEAR_ATTENTION
def test_texts_have_no_vectors_of_punctuation_and_queries_have(opened: Open) -> None:
    facts, model = load_golden("pplx_late").facts, opened("pplx_late")
    text = QUERIES[0]
    ids = facts["texts"][text]
    [vectors] = model.embed_texts([text])
    assert len(vectors) == sum(number not in facts["skipped"] for number in ids) < len(ids)
    assert len(model.embed_query(text)) == len(ids)
    [prompt] = model.embed_texts([PUNCTUATION])
    assert len(prompt) == 1


@pytest.mark.parametrize("page", TAKEN, ids=lambda page: page.name)
def test_ids_of_pages(page: Page) -> None:
    wanted = load_golden("colqwen3_5").facts["pages"][page.name]
    prepared = family("colqwen3_5").pages.prepare(load_image(draw(page)))
    assert runs(prepared.ids.tolist()) == wanted["ids"]
    rows, columns = prepared.extra
    assert [1, 2 * rows, 2 * columns] == wanted["grid"]


@PILLOW_13
@pytest.mark.parametrize("page", TAKEN, ids=lambda page: page.name)
def test_pixels_are_those_of_the_reference(page: Page) -> None:
    """To the last bit: the reference is transformers' processor on Pillow."""
    wanted = load_golden("colqwen3_5").facts["pages"][page.name]
    found = fingerprint(family("colqwen3_5").pages.prepare(load_image(draw(page))).pixels)
    assert found == {key: wanted[key] for key in found}


@NEEDS_LINEAR_ATTENTION
def test_the_direction_of_attention_is_read(opened: Open, tmp_path: Path) -> None:
    """Each fixture would have other vectors with the other direction."""
    for name, causal in (("colqwen3_5", False), ("pplx_late", True)):
        folder = shutil.copytree(FIXTURES / name, tmp_path / name)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["text_config"]["is_causal"] = causal
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with ColPali.from_pretrained(folder, threads=1) as other:
            assert np.abs(other.embed_query("page") - opened(name).embed_query("page")).max() > 0.01


def test_the_fixtures_are_hard_enough() -> None:
    """A golden that hardly depends on the page, or texts within one chunk, would prove nothing."""
    for name in NAMES:
        golden = load_golden(name)
        first, second = (golden.arrays[f"page/{page}/rows"][1] for page in ("a4-portrait", "odd"))
        assert np.linalg.norm(first - second) > 0.1
        assert max(len(values) for values in golden.arrays.values()) > 3 * 64
    description = replace(describe_folder(FIXTURES / "colqwen3_5"), max_num_visual_tokens=BUDGET)
    pages = family_class("qwen3_5")(description, FIXTURES / "colqwen3_5").pages
    assert pages.prepare(load_image(draw(page_named("odd")))).extra == (15, 6)
