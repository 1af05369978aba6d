"""The second test set: what can be checked without its documents."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image, ImageFont

from benchmarks.grounding import Letter, as_annotated, evidence, folded, lines, passage
from benchmarks.hard_set import KINDS, documents, maps, questions
from colpali_integrations.explain.agreement import annotated_boxes, box_agreement


def test_documents_are_pinned_and_divided_by_work() -> None:
    kept = documents()
    assert len({document.name for document in kept}) == len(kept) >= 15
    assert {document.half for document in kept} == {"dev", "test"}
    assert {"de", "es", "fr", "it"} <= {document.language for document in kept}
    for document in kept:
        assert document.license, document
        assert document.version, document
        assert len(document.sha256) == (0 if document.path == "maps" else 64), document
    # Documents in one folder of a package are by one author and share wording. The maps share nothing but the fonts.
    works = {
        (document.package, str(PurePosixPath(document.path).parent), document.half)
        for document in kept
        if document.sha256
    }
    assert len(works) == len({work[:2] for work in works})


def test_questions_point_at_pages_that_are_used() -> None:
    kept = {document.name: document for document in documents()}
    asked = questions()
    assert len({question.text for question in asked}) == len(asked) >= 120
    for page in [page for question in asked for page in question.pages] + [one.page for one in evidence()]:
        name, number = page.split(":")
        assert kept[name].first <= int(number) <= kept[name].last, page
    counts = Counter((kept[question.document].half, question.kind) for question in asked)
    assert min(counts[half, kind] for half in ("dev", "test") for kind in KINDS) >= 5
    assert {question.document for question in asked} == kept.keys(), "every document is asked about"


def test_maps_are_asked_about_by_names_that_are_on_them() -> None:
    drawn = {
        f"{document['name']}:{number}": str(entry)
        for document in maps.entries()
        for number, entry in enumerate(document["maps"], 1)
    }
    for question in questions():
        if question.document.startswith("maps") and question.kind in ("lookup", "headline"):
            written = folded(drawn[question.pages[0]]).replace("peloponnesvs", "peloponnesus")
            assert folded(question.text) in written, question


def test_letters_are_spread_along_a_slanted_line() -> None:
    sheet = Image.new("L", (900, 600), 255)
    font = ImageFont.load_default(60)
    assert isinstance(font, ImageFont.FreeTypeFont)
    maps.spread(sheet, "TIDE", (450, 300), font, angle=20, step=150, bend=0.0)
    rows, columns = np.nonzero(np.asarray(sheet) < 128)
    gaps = np.diff(np.unique(columns))
    assert sorted(gaps)[-3:] >= [60, 60, 60], "four letters, apart"
    assert rows[columns < 300].mean() + 50 < rows[columns > 600].mean(), "it falls to the right"


def test_a_passage_is_the_boxes_of_its_lines() -> None:
    printed = [
        Letter(character, (0.1 + 0.02 * place, 0.1 * line, 0.12 + 0.02 * place, 0.1 * line + 0.05))
        for line, text in enumerate(("thetideis", "lowatsixi", "ntheharbo"), 1)
        for place, character in enumerate(text)
    ]
    assert np.allclose(passage(printed, "Tide", "at"), [(0.16, 0.1, 0.28, 0.15), (0.1, 0.2, 0.2, 0.25)])
    with pytest.raises(ValueError, match="not in the text layer"):
        passage(printed, "six", "tide")
    assert lines([]) == []


def test_boxes_of_a_passage_survive_vidore_s_format() -> None:
    boxes = [(0.1, 0.25, 0.5, 0.3), (0.1, 0.35, 0.9, 0.4)]
    [read] = annotated_boxes(as_annotated(boxes, 1000, 2000), 1000, 2000).values()
    assert box_agreement(read, boxes).f1 == pytest.approx(1)
