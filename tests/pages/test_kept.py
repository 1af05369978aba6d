"""A PDF is opened once for all pages that a call draws from their metadata."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import PdfError
from colpali_integrations.langchain import ColPaliVectorStore, PdfPageLoader
from colpali_integrations.langchain import image_blocks as langchain_blocks
from colpali_integrations.langchain import to_html as langchain_html
from colpali_integrations.langchain._documents import candidate_of
from colpali_integrations.langchain._sources import image_sources
from colpali_integrations.llama_index import PdfPageReader, page_message
from colpali_integrations.llama_index import image_blocks as llama_index_blocks
from colpali_integrations.llama_index import to_html as llama_index_html
from colpali_integrations.llama_index._pictures import image_sources as node_sources
from colpali_integrations.pages.formats import ImageLimits
from colpali_integrations.pages.kept import keep_pdfs_open, open_or_kept
from colpali_integrations.pages.pdf import Pdf, open_pdf
from colpali_integrations.stores.rerank import CandidateScorer

SLIDES = Path(__file__).parents[2] / "demo" / "pdfs" / "metropolis-slides.pdf"


class Openings(list[Pdf]):
    """The documents that were opened."""

    @property
    def closed(self) -> list[bool]:
        return [one._reader is None for one in self]  # type: ignore[attr-defined]


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> Openings:
    opened = Openings()

    def recorded(*args: Any, **options: Any) -> Pdf:
        opened.append(open_pdf(*args, **options))
        return opened[-1]

    monkeypatch.setattr("colpali_integrations.pages.kept.open_pdf", recorded)
    return opened


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    return Path(shutil.copy(SLIDES, tmp_path))


def documents(path: Path) -> list[Any]:
    return list(PdfPageLoader(path, pages=[1, 2, 3], dpi=20).load())


def nodes(path: Path) -> list[Any]:
    return list(PdfPageReader(dpi=20).load_data(path, pages=[1, 2, 3]))


DOORS: dict[str, Callable[[Path, ColPali], object]] = {
    "langchain.image_blocks": lambda path, model: langchain_blocks(documents(path)),
    "langchain.to_html": lambda path, model: langchain_html(documents(path)),
    "langchain, embedding": lambda path, model: list(image_sources(documents(path), ImageLimits())),
    "langchain, adding": lambda path, model: ColPaliVectorStore().add_documents(documents(path)),
    "langchain, reranking": lambda path, model: CandidateScorer(lambda: model).scores(
        "slides", [candidate_of(one) for one in documents(path)]
    ),
    "llama_index.image_blocks": lambda path, model: llama_index_blocks(nodes(path)),
    "llama_index.page_message": lambda path, model: page_message("slides?", nodes(path)),
    "llama_index.to_html": lambda path, model: llama_index_html(nodes(path)),
    "llama_index, embedding": lambda path, model: list(node_sources(nodes(path), ImageLimits())),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_call_opens_a_pdf_once_and_closes_it(door: str, slides: Path, openings: Openings, coltiny: ColPali) -> None:
    DOORS[door](slides, coltiny)
    assert openings.closed == [True]


def test_without_a_caller_that_draws_several_pages_nothing_is_kept(slides: Path, openings: Openings) -> None:
    for _ in range(2):
        with open_or_kept(str(slides), password=None, isolate=True):
            pass
    assert openings.closed == [True, True]


def test_a_changed_file_is_another_document(slides: Path, openings: Openings) -> None:
    with keep_pdfs_open():
        for _ in range(2):
            with open_or_kept(str(slides), password=None, isolate=False) as pdf:
                assert pdf.page_count > 1
            os.utime(slides, ns=(1, 1))
    assert openings.closed == [True, True]


def test_two_threads_do_not_share_a_document(slides: Path, openings: Openings) -> None:
    def opened() -> Any:
        return open_or_kept(str(slides), password=None, isolate=False)

    with keep_pdfs_open():
        with opened() as first, opened() as second:
            assert first is not second
        assert openings.closed == [True, False]  # one is kept
        with opened() as third:
            assert third is second
    assert openings.closed == [True, True]


def test_the_latest_documents_are_kept(tmp_path: Path, openings: Openings) -> None:
    files = [str(shutil.copy(SLIDES, tmp_path / f"{number}.pdf")) for number in range(6)]
    with keep_pdfs_open():
        for file in files:
            with open_or_kept(file, password=None, isolate=False):
                pass
        assert openings.closed == [True, True, False, False, False, False]
        with keep_pdfs_open():  # another caller, whose end closes nothing
            pass
        assert not openings.closed[-1]
    assert all(openings.closed)


def test_a_document_outlives_a_page_that_cannot_be_drawn(slides: Path, openings: Openings) -> None:
    with keep_pdfs_open():
        for page in (1, 999, 2):
            with open_or_kept(str(slides), password=None, isolate=False) as pdf:
                if page == 999:
                    with pytest.raises(PdfError):
                        pdf.render(page, 20)
                else:
                    assert pdf.render(page, 20).mode == "RGB"
        with pytest.raises(PdfError), open_or_kept("no such.pdf", password=None, isolate=False):
            pass
    assert openings.closed == [True]
