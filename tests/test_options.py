"""Options that are numbers, at every door: what is taken, and one clear error for the rest."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations import ColPali, pdf_pages
from colpali_integrations._options import checked_number, checked_whole, shown
from colpali_integrations.errors import ConfigurationError, PdfError
from colpali_integrations.langchain import ColPaliVectorStore, PdfPageLoader
from colpali_integrations.pages import open_pdf, page_image
from colpali_integrations.pages.formats import ImageLimits
from colpali_integrations.scoring import top_pages
from colpali_integrations.stores import MultiVectorStore, SearchOptions, index_documents
from colpali_integrations.stores.mmr import mmr_select
from tests.conftest import PAPER

BEYOND = 10**400
NOT_WHOLE = [3.5, True, "3", None, b"3", [3], float("nan"), float("inf"), np.bool_(True), np.float32(2.5), 0, -BEYOND]
NOT_POSITIVE = ["150", True, None, 0, -1.0, float("nan"), float("inf"), BEYOND, 1j, [150]]


@given(st.integers(1, BEYOND))
def test_whole_numbers_of_every_type_are_taken(number: int) -> None:
    assert checked_whole(number, "k") == number
    small = number % 1000 + 1
    for one in (float(small), np.int32(small), np.float64(small), np.array(small), Fraction(small)):
        taken = checked_whole(one, "k")
        assert (taken, type(taken)) == (small, int)


@pytest.mark.parametrize("value", NOT_WHOLE)
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="k must be a whole number of at least 1, got "):
        checked_whole(value, "k")
    with pytest.raises(ConfigurationError, match="k must be a whole number"):
        SearchOptions(k=value)  # type: ignore[arg-type]


@given(st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.binary(), st.lists(st.floats()), st.booleans()))
def test_a_number_is_taken_or_refused_and_nothing_else(value: object) -> None:
    for check in (lambda: checked_whole(value, "n"), lambda: checked_number(value, "n", 0, 1)):
        try:
            assert check() == value
        except ConfigurationError as error:
            assert str(error).startswith("n must be a ")
    assert len(shown(value)) <= 60


DPI: dict[str, Callable[[Any, ColPali], object]] = {
    "index_documents": lambda dpi, model: index_documents(PAPER, model=model, store=memory(model), dpi=dpi),
    "pdf_pages": lambda dpi, _: pdf_pages(PAPER, dpi=dpi),
    "render": lambda dpi, _: open_pdf(PAPER, isolate=False).render(1, dpi),
    "LangChain": lambda dpi, _: PdfPageLoader(PAPER, dpi=dpi),
    "embed_pdf": lambda dpi, model: model.embed_pdf(PAPER, dpi=dpi),
}


def memory(model: ColPali) -> MultiVectorStore:
    return MultiVectorStore.open(model=model)


@pytest.mark.parametrize("door", DPI)
@pytest.mark.parametrize("dpi", NOT_POSITIVE)
def test_a_resolution_is_a_positive_number_at_every_door(door: str, dpi: object, coltiny: ColPali) -> None:
    with pytest.raises(ConfigurationError, match="dpi must be a positive number, got "):
        DPI[door](dpi, coltiny)


def test_limits_of_images_are_checked() -> None:
    assert ImageLimits(3.0).max_pixels == 3  # type: ignore[arg-type]
    for most in (0, True, 3.5, "3"):
        with pytest.raises(ConfigurationError, match="max_pixels must be a whole number of at least 1, got "):
            ImageLimits(most)  # type: ignore[arg-type]
    for formats in (3, [3]):
        with pytest.raises(ConfigurationError, match="image_formats must be names of formats"):
            ImageLimits(image_formats=formats)  # type: ignore[arg-type]


@pytest.mark.parametrize("dpi", ["x", BEYOND, [1], float("nan")])
def test_a_resolution_in_metadata_is_checked_too(dpi: object) -> None:
    with pytest.raises(ConfigurationError, match="dpi must be a positive number"):
        page_image({"source": str(PAPER), "page": 1, "dpi": dpi}, roots=PAPER.parent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": "4"}, "batch_size must be a whole number of at least 1, got '4'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"parallel": -1}, r"parallel \(0: one per core\) must be a whole number of at least 0, got -1"),
        ({"pages": "x"}, "pages: expected 1-based whole numbers"),
        ({"pages": [10**5000, "x"]}, "pages: expected 1-based whole numbers"),
    ],
)
def test_a_wrong_option_of_index_documents_is_one_error_before_any_work(
    options: dict[str, Any], message: str, coltiny: ColPali, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        index_documents(PAPER, model=coltiny, store=memory(coltiny), **options)


def test_searches_take_3_0_for_3(coltiny: ColPali) -> None:
    store = ColPaliVectorStore()
    store.add_texts(["low tide", "high tide", "ebb", "flood"])
    query = coltiny.embed_query("tide")
    assert len(store.store.search(query, 3.0)) == 3  # type: ignore[arg-type]
    assert len(store.similarity_search("tide", k=3.0)) == 3  # type: ignore[arg-type]
    assert len(store.max_marginal_relevance_search("tide", k=2.0, fetch_k=4.0)) == 2  # type: ignore[arg-type]
    assert len(store.as_retriever(search_kwargs={"k": 3.0}).invoke("tide")) == 3
    assert top_pages(np.array([0.5, 0.1, 0.7]), 2.0).tolist() == [2, 0]  # type: ignore[arg-type]
    assert len(store.store.search(query, BEYOND)) == 4


@pytest.mark.parametrize("name", ["oversampling", "min_relevance", "hybrid"])
@pytest.mark.parametrize("value", ["half", [], 2j, float("nan"), -1])
def test_other_numbers_of_a_search_are_checked(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be"):
        SearchOptions(**{name: value})
    with pytest.raises(ConfigurationError, match="lambda_mult must be a number from 0 to 1"):
        mmr_select([1.0], [np.ones((1, 2))], 1, lambda_mult=value)


def test_a_page_of_400_digits_is_named_in_one_line() -> None:
    with pytest.raises(PdfError, match="has pages 1 to") as raised:
        list(pdf_pages(PAPER, pages=[BEYOND], isolate=False))
    assert len(str(raised.value)) < 300
