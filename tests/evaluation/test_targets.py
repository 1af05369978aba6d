"""Right pages are found by every name of their document, and missing ones are named with the closest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali, MultiVectorStore
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.evaluation import read_questions, wanted_ids
from colpali_integrations.evaluation.targets import find_answers
from colpali_integrations.stores import Entry


def entries(*pages: tuple[str, int | None]) -> dict[str, Entry]:
    found = {}
    for source, page in pages:
        metadata = {"source": source, "file_name": Path(source).name, **({} if page is None else {"page": page})}
        found[f"{source}#{page}"] = Entry(id=f"{source}#{page}", metadata=metadata, document_id=source)
    return found


SEVERAL = entries(
    *(("/data/a/report.pdf", page) for page in (1, 2, 3)), ("/data/b/report.pdf", 1), ("/data/scan.png", 1)
)


def ids(value: dict[str, Any], pages: dict[str, Entry] = SEVERAL) -> list[str]:
    [asked], _ = find_answers(read_questions([{"question": "Who?", **value}]), pages, "the store x")
    return list(asked.grades)


@pytest.mark.parametrize(
    ("source", "page", "expected"),
    [
        ("/data/a/report.pdf", 2, "/data/a/report.pdf#2"),
        ("a/report.pdf", 2, "/data/a/report.pdf#2"),
        ("./b/report.pdf", 1, "/data/b/report.pdf#1"),
        ("scan.png", None, "/data/scan.png#1"),
        ("/data/b/report.pdf", None, "/data/b/report.pdf#1"),
    ],
)
def test_a_document_has_several_names(source: str, page: int | None, expected: str) -> None:
    assert ids({"source": source, "page": page}) == [expected]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"source": "report.pdf", "page": 1},
            "2 documents are named report.pdf: /data/a/report.pdf, /data/b/report.pdf",
        ),
        ({"source": "Scan.PNG", "page": 1}, r"the store x has no document Scan.PNG; did you mean scan.png\?"),
        ({"source": "zebra", "page": 1}, "has no document zebra; it has report.pdf, scan.png"),
        ({"source": "x" * 5000, "page": 1}, r"has no document \.\.\.x{117}; it has"),
        ({"source": "a/report.pdf", "page": 9}, "a/report.pdf has no page 9 in the store x; it has pages 1 to 3"),
        ({"source": "a/report.pdf"}, "has pages 1 to 3; name the right one as page, or several as pages"),
        ({"answers": [{"id": "/data/scan.png#2"}]}, "has no entry '/data/scan.png#2'; did you mean /data/scan.png#1"),
        ({"source": "\0", "page": 1}, "has no document"),
    ],
)
def test_what_is_missing_is_named_with_the_closest(value: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"question 1 .*{message}") as raised:
        ids(value)
    assert "pass on_error='skip'" in str(raised.value)
    assert "pass --on-error skip" in (raised.value.command or "")


def test_all_problems_are_in_one_error_and_may_be_skipped() -> None:
    lines = [{"question": f"Who {n}?", "source": "scan.png" if n == 5 else f"{n}.pdf", "page": 1} for n in range(15)]
    with pytest.raises(InputError, match="14 of 15 questions name pages that cannot be found") as raised:
        find_answers(read_questions(lines), SEVERAL, "the store x")
    assert str(raised.value).count("question ") == 10
    assert "... and 4 more" in str(raised.value)
    asked, problems = find_answers(read_questions(lines), SEVERAL, "the store x", "skip")
    assert ([one.question.text for one in asked], len(problems)) == (["Who 5?"], 14)
    with pytest.raises(InputError, match="question 1"):
        find_answers(read_questions(lines[:1]), SEVERAL, "the store x", "skip")
    with pytest.raises(ConfigurationError, match="on_error must be 'raise' or 'skip'"):
        find_answers(read_questions(lines), SEVERAL, "the store x", "ignore")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there are no questions"):
        find_answers([], SEVERAL, "the store x")


def test_equal_pages_keep_the_highest_grade() -> None:
    answers = [{"source": "scan.png", "grade": 1}, {"source": "/data/scan.png", "page": 1, "grade": 3}]
    [asked], _ = find_answers(read_questions([{"question": "Who?", "answers": answers}]), SEVERAL, "x")
    assert asked.grades == {"/data/scan.png#1": 3.0}
    assert asked.document == "/data/scan.png"


def test_files_are_found_from_the_working_directory(
    documents: Path, store: MultiVectorStore, monkeypatch: pytest.MonkeyPatch, coltiny: ColPali
) -> None:
    monkeypatch.chdir(documents / "deep")
    lines = [
        {"question": "train", "source": "er/train.PNG", "page": 1},
        {"question": "apples", "source": "../fruit.pdf", "page": 1},
        {"question": "bananas", "source": str(documents / "fruit.pdf"), "page": 2},
    ]
    with store:
        found = [store.get(ids)[0] for ids in map(list, wanted_ids(read_questions(lines), store))]
        assert [(entry.metadata["file_name"], entry.page) for entry in found if entry] == [
            ("train.PNG", 1),
            ("fruit.pdf", 1),
            ("fruit.pdf", 2),
        ]
        with pytest.raises(InputError, match="has no document"):
            wanted_ids(read_questions(lines), store, where={"file_name": "train.PNG"})
