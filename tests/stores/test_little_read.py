"""Pages in a script that the bundled model cannot read are stored, counted in the report and named once in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
from PIL import Image, ImageDraw, ImageFont

from colpali_integrations import ColPali
from colpali_integrations.cli.app import run
from colpali_integrations.stores import Entry, IngestReport, MultiVectorStore, index_documents
from tests.stores.documents import draw, save_pdf

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
LATIN = [
    "rain", "harbour", "market", "winter", "engine", "paper", "letter", "garden",
    "bridge", "window", "river", "forest", "summer", "station", "money",
]  # fmt: skip
CYRILLIC = [
    "дождь", "гавань", "рынок", "зима", "двигатель", "бумага", "письмо", "сад",
    "мост", "окно", "река", "лес", "лето", "станция", "деньги", "завод",
]  # fmt: skip


def printed(words: list[str]) -> Image.Image:
    """A page of many different words: the given ones, joined in pairs."""
    picture = Image.new("L", (900, 1200), 255)
    pen, font = ImageDraw.Draw(picture), ImageFont.truetype(str(FONT), 22)
    for line, first in enumerate(words):
        pieces = [
            first,
            *(words[(line + step) % len(words)] + words[(line + 2 * step) % len(words)] for step in (1, 3)),
        ]
        pen.text((40, 30 + 60 * line), " ".join(pieces), fill=0, font=font)
        pen.text((40, 60 + 60 * line), " ".join([words[line - 4], words[line - 7] + first]), fill=0, font=font)
    return picture


@pytest.fixture(scope="module")
def model() -> Iterator[ColPali]:
    with ColPali.from_pretrained("coltiny") as loaded:
        yield loaded


@pytest.fixture
def pages(tmp_path: Path) -> list[Path]:
    save_pdf(tmp_path / "letter.pdf", draw("Harvest of apples"), printed(CYRILLIC), printed(CYRILLIC[::-1]))
    save_pdf(tmp_path / "note.pdf", printed(LATIN))
    return [tmp_path / "letter.pdf", tmp_path / "note.pdf"]


def test_the_report_and_one_log_entry_name_them(
    pages: list[Path], model: ColPali, caplog: pytest.LogCaptureFixture
) -> None:
    with MultiVectorStore.open(model=model) as store, caplog.at_level(logging.WARNING):
        report = index_documents(pages, model=model, store=store)
        again = index_documents(pages, model=model, store=store)
    assert (report.added, report.little_read, report.little_read_with_text) == (4, {str(pages[0]): 2}, 0)
    assert again.little_read == {}, "unchanged pages are not read again"
    [record] = caplog.records
    assert record.getMessage() == (
        f"coltiny recognises few words on 2 of 4 new pages, in 1 of 2 documents, such as {pages[0]}: their print may "
        "be in another script than Latin. None of them has a text layer; use a model that reads their script"
    )


def test_the_command_prints_the_warning_and_its_summary_has_the_numbers(
    pages: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["index", *map(str, pages), "--store", str(tmp_path / "store"), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["little_read"] == {str(pages[0]): 2}
    assert "recognises few words on 2 of 4 new pages" in " ".join(shown.err.split())


def test_pages_with_a_text_layer_are_counted_apart() -> None:
    report = IngestReport()
    report.note_little_read(Entry(id="a", text="Дождь", metadata={"source": "letter.pdf"}))
    report.note_little_read(Entry(id="b", text="", metadata={"source": "letter.pdf"}))
    assert (report.little_read, report.little_read_with_text) == ({"letter.pdf": 2}, 1)


@pytest.mark.parametrize("words", [[], ["дождь"]])
def test_a_page_of_few_words_is_no_page_that_is_little_read(words: list[str], model: ColPali) -> None:
    [page] = model.embed_pages([draw(" ".join(words)) if words else Image.new("L", (300, 300), 255)])
    assert not model.reads_little(page)
