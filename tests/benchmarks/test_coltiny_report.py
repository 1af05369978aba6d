"""What the report counts, on rankings made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.coltiny_report import OURS, WORDS, Measured, _failures
from benchmarks.page_set import Document, Page, Question


def measured() -> Measured:
    first = Document("a", None, "a.pdf", "", 1, 2, "dev", "en", "paper")
    second = Document("b", None, "b.pdf", "", 1, 1, "test", "en", "slides")
    pages = [Page(first, 1, Path("a-1"), ""), Page(first, 2, Path("a-2"), ""), Page(second, 1, Path("b-1"), "")]
    asked = [Question("near", "keywords", ("a:2",)), Question("far | wide", "figure", ("b:1", "a:1"))]
    ours, words = [[1, 0, 2], [1]], [[1], [2, 0]]
    return Measured(pages, asked, {"clean": {OURS: ours, WORDS: words}, "scans": {}})


def test_gains_know_every_relevant_page() -> None:
    found = measured()
    assert found.gains(found.systems["clean"][OURS]).tolist() == [1, 0]
    assert found.gains(found.systems["clean"][WORDS], 10).tolist() == pytest.approx([1, 1])
    assert found.gains([[0, 1], [0]], 1).tolist() == [0, 1]
    assert found.half.tolist() == ["dev", "test"]


def test_failures_come_with_the_widest_gap_first() -> None:
    rows = _failures(measured(), count=2).splitlines()[2:]
    assert rows[0].startswith("| far \\| wide | figure | b:1, a:1 | > 10 | a:2 |")
    assert rows[1].startswith("| near | keywords | a:2 | 1 | a:2 |")
