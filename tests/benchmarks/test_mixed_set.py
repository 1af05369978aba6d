"""The third test set: what can be checked without its documents."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

from benchmarks import coltiny_set, hard_set
from benchmarks.mixed_set import KINDS, crowd, documents, questions


def test_documents_are_pinned_and_divided_by_work() -> None:
    kept = documents()
    assert len({document.name for document in kept}) == len(kept) >= 40
    assert sum(document.last - document.first + 1 for document in kept) >= 800
    assert {document.half for document in kept} == {"dev", "test"}
    assert len({document.language for document in kept}) >= 10
    for document in kept:
        assert document.license, document
        assert document.version, document
        assert len(document.sha256) == 64, document
    works = {(document.package, str(PurePosixPath(document.path).parent), document.half) for document in kept}
    assert len(works) == len({work[:2] for work in works}), "documents in one folder are by one author"
    older = {(one.package, one.path) for one in (*coltiny_set.documents(), *hard_set.documents())}
    assert not older & {(one.package, one.path) for one in kept}


def test_questions_point_at_pages_that_are_used() -> None:
    kept = {document.name: document for document in documents()}
    asked = questions()
    assert len({question.text for question in asked}) == len(asked) >= 450
    for page in [page for question in asked for page in question.pages]:
        name, number = page.split(":")
        assert kept[name].first <= int(number) <= kept[name].last, page
    counts = Counter((kept[question.document].half, question.kind) for question in asked)
    assert min(counts[half, kind] for half in ("dev", "test") for kind in KINDS) >= 10
    assert {question.document for question in asked} == kept.keys(), "every document is asked about"


def test_a_tenth_of_the_questions_can_be_answered_by_sight_alone() -> None:
    scans = {document.name for document in documents() if document.scanned}
    about_scans = [question for question in questions() if question.document in scans]
    assert len(about_scans) >= len(questions()) / 10


def test_the_crowd_has_other_works_than_those_asked_about() -> None:
    asked = {(document.package, document.path) for document in documents()}
    others = crowd.documents()
    assert crowd.size() >= 10_000
    assert all(1 <= first <= last for _, _, first, last in others)
    assert not asked & {(package, path) for package, path, *_ in others}
