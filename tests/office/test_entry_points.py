"""Office files at every entry point, with a program in LibreOffice's place."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from colpali_integrations import ColPali, MultiVectorStore, index_documents, pdf_pages
from colpali_integrations.cli.app import app
from colpali_integrations.errors import InputError, OfficeError
from colpali_integrations.langchain import PdfPageLoader
from colpali_integrations.llama_index import PdfPageReader, image_blocks
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.pages.reference import page_image
from colpali_integrations.stores import find_documents
from tests.office.conftest import FakeSoffice
from tests.office.documents import Slide, docx, paragraph, pptx, shape

DECK = pptx(Slide(shape("a")), Slide(shape("b"), "low tide at six"))


@pytest.fixture
def deck(tmp_path: Path, fake_soffice: FakeSoffice) -> Path:
    fake_soffice()
    path = tmp_path / "deck.pptx"
    path.write_bytes(DECK)
    return path


def test_pages_are_those_of_the_office_file(deck: Path, coltiny: ColPali) -> None:
    with MultiVectorStore.open(model=coltiny) as store:
        report = index_documents(deck, model=coltiny, store=store)
        assert (report.added, report.failures) == (2, [])
        assert index_documents(deck, model=coltiny, store=store).present == 2
        [hit] = store.search("low tide at six", k=1, where={"page": 2})
        assert hit.entry.metadata["file_path"] == str(deck)
        assert (hit.entry.metadata["file_name"], hit.entry.metadata["dpi"]) == ("deck.pptx", 150.0)
        assert "low tide at six" in hit.entry.text, "the notes of the slide"
        assert page_image(hit.entry.metadata).size == (625, 417)
        deck.write_bytes(docx(paragraph("other")))
        with pytest.raises(InputError, match="has changed since it was indexed"):
            page_image(hit.entry.metadata)


def test_adapters_and_bytes(deck: Path) -> None:
    documents = PdfPageLoader(deck).load()
    assert [one.metadata["page"] for one in documents] == [1, 2]
    assert "low tide" in documents[1].page_content
    nodes = PdfPageReader().load_data(deck)
    assert nodes[1].metadata["file_name"] == "deck.pptx"
    [block] = image_blocks([nodes[1]])
    assert Image.open(io.BytesIO(block.resolve_image().read())).size == (625, 417)
    assert [page.name for page in pdf_pages(deck)] == [f"{deck}, page 1", f"{deck}, page 2"]
    with PagedDocument(DECK, name="mail/deck") as document:
        assert document.page_count == 2
        assert "low tide" in document.page(2).content


def test_the_command_line(deck: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "~$deck.pptx").write_bytes(b"lock")
    runner, store = CliRunner(), str(tmp_path / "index")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for name in ("deck.pptx", "~$deck.pptx", ".~lock.deck.pptx#"):
        (shelf / name).write_bytes(DECK)
    indexed = runner.invoke(app, ["index", str(shelf), "--store", store])
    assert indexed.exit_code == 0, indexed.output
    assert "1 lock file of an Office program" in " ".join(indexed.output.split())
    found = runner.invoke(app, ["search", "low tide at six", "--store", store, "--json"])
    assert json.loads(found.output.splitlines()[0])["metadata"]["file_name"] == "deck.pptx"
    monkeypatch.setenv("COLPALI_SOFFICE", "nowhere")
    (shelf / "letter.docx").write_bytes(docx(paragraph("tides")))
    failed = " ".join(runner.invoke(app, ["index", str(shelf), "--store", store]).output.split())
    assert "needs LibreOffice, and COLPALI_SOFFICE=nowhere is no program" in failed
    assert "2 present" in failed, "the run goes on, with pages that were converted before"


def test_a_file_that_fails_does_not_end_a_run(deck: Path, coltiny: ColPali, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "a.docx").write_bytes(b"PK\x03\x04")
    (shelf / "deck.pptx").write_bytes(DECK)
    found = find_documents(shelf)
    assert [path.name for path in found] == ["a.docx", "deck.pptx"]
    with MultiVectorStore.open(model=coltiny) as store:
        report = index_documents(found, model=coltiny, store=store)
        [failure] = report.failures
        assert isinstance(failure.error, OfficeError)
        assert failure.reason == f"{shelf / 'a.docx'} is no DOCX file, or is damaged or cut off"
        assert report.added == 2
