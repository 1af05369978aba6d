"""ColQwen3.5 and pplx-embed-v2-late, built from safetensors, against their classes: ids, pixels, vectors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.pages.images import load_image
from tests.models.linear_attention import NEEDS_LINEAR_ATTENTION

from .bounds import check, measured
from .cases import (
    HOSTILE,
    QUERIES,
    QWEN3_5_PROMPTS,
    Page,
    draw,
    page_named,
)
from .conftest import FIXTURES, PILLOW_13, load_golden
from .qwen_checks import (
    BUDGET,
    PUNCTUATION,
    TAKEN,
    Open,
    check_batches,
    check_page_ids,
    check_pixels,
    check_query_ids,
    opening,
    outputs,
)

NAMES = ["colqwen3_5", "pplx_late"]
KEPT = 3  # of the generator


@cache
def family(name: str) -> Family:
    description = describe_folder(FIXTURES / name)
    return family_class(description.family)(description, FIXTURES / name)


@pytest.fixture(scope="module")
def opened() -> Iterator[Open]:
    with opening() as open_:
        yield open_


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
    check_batches(opened(name, BUDGET))


def test_query_ids() -> None:
    [prompt] = QWEN3_5_PROMPTS
    check_query_ids(family("colqwen3_5").queries, load_golden("colqwen3_5").facts["queries"][prompt.name])


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
    check_page_ids(family("colqwen3_5"), "colqwen3_5", page)


@PILLOW_13
@pytest.mark.parametrize("page", TAKEN, ids=lambda page: page.name)
def test_pixels_are_those_of_the_reference(page: Page) -> None:
    check_pixels(family("colqwen3_5"), "colqwen3_5", page)


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
