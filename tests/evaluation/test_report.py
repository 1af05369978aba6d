"""The report: the wanted page beside those that were found, without scripts, with every text escaped."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from colpali_integrations import ColPali, MultiVectorStore, index_documents
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.evaluation import evaluate
from tests.evaluation.test_compare import LINES

EVIL = "<script>alert(1)</script> & bananas"


def test_misses_show_the_wanted_page_beside_the_found(store: MultiVectorStore, tmp_path: Path) -> None:
    with store:
        result = evaluate(LINES, store=store, configurations=["plain:", "blend: hybrid=0.2"], k=1, by="kind")
        html = result.to_html(found=2)
    assert html.count('<article class="miss">') == 1
    miss = html.partition('<article class="miss">')[2].partition("</article>")[0]
    assert re.findall(r"<b>([^<]+)</b><span dir=\"auto\">([^<]+)</span>", miss)[2][0].startswith("Found · rank 1")
    assert miss.count('class="page wanted"') == 2
    assert miss.count("<img ") == 3, "the two wanted pages are shown once"
    assert "blend: rank 2" in miss
    for part in (
        "Misses of plain: 1 of 3",
        "By kind",
        "Difference from the first configuration",
        "Rank of the first right",
    ):
        assert f"<h3>{part}" in html
    assert html.save(tmp_path / "report.html").read_text(encoding="utf-8") == html
    assert result.to_html(limit=0).count("<img ") == 0
    assert "The first 0 are shown" in result.to_html(limit=0)
    assert "iframe" in result._repr_html_()


def test_texts_are_escaped_and_nothing_is_fetched(store: MultiVectorStore) -> None:
    lines = [{**LINES[2], "question": EVIL, "pages": [1], "kind": EVIL}, {"question": EVIL, "source": EVIL, "page": 1}]
    with store:
        html = evaluate(lines, store=store, k=1, by="kind", on_error="skip", configurations=[f"{EVIL}:"]).to_html()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "default-src 'none'" in html.replace("&#x27;", "'")
    assert not re.search(r"(?:src|href)=\"(?!data:)", html)
    assert "<h3>Questions left out</h3>" in html


def test_a_page_without_a_file_has_the_reason_in_its_place(documents: Path, tmp_path: Path, coltiny: ColPali) -> None:
    copied = shutil.copytree(documents, tmp_path / "documents")
    with MultiVectorStore.open(model=coltiny) as store:
        index_documents([copied], model=coltiny, store=store, dpi=100)
        result = evaluate(LINES, store=store, k=1)
        (copied / "fruit.pdf").unlink()
        html = result.to_html()
    assert "No picture: " in html
    assert len(html.missing) == 2
    assert html.count("<img ") == 1, "the railway's page is there"


def test_options_of_the_report_are_checked(store: MultiVectorStore) -> None:
    with store:
        result = evaluate(LINES, store=store)
    for options in ({"limit": -1}, {"found": "x"}, {"max_side": 0}, {"name": "none"}, {"roots": 3}):
        with pytest.raises(ConfigurationError):
            result.to_html(**options)
