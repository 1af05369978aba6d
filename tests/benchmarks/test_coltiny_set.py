"""The committed test set: what can be checked without its documents."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.coltiny_set import KINDS, documents, questions, read
from benchmarks.page_set import ROOT, scan


def test_size_and_halves() -> None:
    kept = documents()
    assert len({document.name for document in kept}) == len(kept) >= 12
    assert sum(document.last - document.first + 1 for document in kept) >= 300
    assert {document.half for document in kept} == {"dev", "test"}
    assert {"en", "de", "fr", "es"} == {document.language for document in kept}
    # Documents of one package share wording, so no package may have documents in both halves.
    halves = {(document.package, document.half) for document in kept if document.package}
    assert len(halves) == len({package for package, _ in halves})


def test_questions_point_at_pages_that_are_used() -> None:
    kept = {document.name: document for document in documents()}
    asked = questions()
    assert len({question.text for question in asked}) == len(asked) >= 150
    for question in asked:
        assert question.kind in KINDS
        for name, number in (page.split(":") for page in question.pages):
            assert kept[name].first <= int(number) <= kept[name].last, question
        if question.kind == "keywords":
            assert 3 <= len(question.text.split()) <= 6, question
    counts = Counter((kept[question.document].half, question.kind) for question in asked)
    assert min(counts[half, kind] for half in ("dev", "test") for kind in KINDS) >= 15


def test_documents_of_this_repository_are_the_pinned_ones(tmp_path: Path) -> None:
    own = [document for document in documents() if document.package is None]
    assert own
    for document in own:
        assert hashlib.sha256((ROOT / document.path).read_bytes()).hexdigest() == document.sha256
        assert read(document, tmp_path).startswith(b"%PDF")
    with pytest.raises(ValueError, match="SHA-256"):
        read(replace(own[0], sha256="0" * 64), tmp_path)


def test_scan_is_the_same_for_the_same_seed_and_worse_than_the_page() -> None:
    page = Image.new("L", (300, 400), 255)
    ImageDraw.Draw(page).text((40, 60), "fork_exec E-1042", fill=0, font_size=20)
    one, again, other = (np.asarray(scan(page, seed), np.int16) for seed in ("a:1", "a:1", "a:2"))
    assert one.shape == (400, 300)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert 180 < np.median(one) < 250  # grey paper
    assert one.std() > 3  # noise
    assert one.min() < 140  # ink is still there
