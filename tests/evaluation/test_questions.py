"""Files of questions: what is read, and one clear error for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations.errors import ColPaliError, InputError
from colpali_integrations.evaluation import Answer, Question, read_questions, write_questions

LINE = {"question": "Who paid?", "source": "harbour.pdf", "page": 3}


def answers(value: dict[str, Any], **options: Any) -> list[Answer]:
    return list(read_questions([value], **options)[0].answers)


def test_a_file_is_read_with_its_metadata(tmp_path: Path) -> None:
    lines = [LINE, {**LINE, "id": 7, "language": "en", "question": "Wer? \u2028 Zahlte?"}]
    file = tmp_path / "questions.jsonl"
    file.write_text("\ufeff" + "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\r\n", "utf-8")
    first, second = read_questions(file)
    assert (first.text, list(first.answers), first.metadata) == (
        "Who paid?",
        [Answer(source="harbour.pdf", page=3)],
        {},
    )
    assert (second.id, second.metadata, second.text) == ("7", {"language": "en"}, "Wer? \u2028 Zahlte?")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"pages": [3, 4]}, [("a.pdf", 3, 1.0), ("a.pdf", 4, 1.0)]),
        ({"page": [3, 4], "grade": 2}, [("a.pdf", 3, 2), ("a.pdf", 4, 2)]),
        ({"page": "3"}, [("a.pdf", 3, 1.0)]),
        ({"page": 3.0}, [("a.pdf", 3, 1.0)]),
        ({}, [("a.pdf", None, 1.0)]),
        ({"answers": [{"source": "b.pdf", "page": 1, "grade": 2}, {"id": "x"}]}, [("b.pdf", 1, 2), (None, None, 1.0)]),
    ],
)
def test_right_pages_have_several_forms(value: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    found = answers({"question": "Who?", "source": "a.pdf", **value})
    assert [(one.source, one.page, one.grade) for one in found] == expected


def test_pages_may_count_from_0() -> None:
    assert [one.page for one in answers({**LINE, "pages": [0, 4]}, first_page=0)] == [1, 5]
    with pytest.raises(InputError, match=r"question 1: page 0: pages count from 1; .* pass first_page=0") as raised:
        answers({**LINE, "page": 0})
    assert (raised.value.command or "").endswith("pass --first-page 0")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"query": "Who?", "source": "a.pdf", "page": 1}, "it has no 'question' .* rename 'query' to 'question'"),
        ({"question": "Who?", "file": "a.pdf", "page": 1}, "it has no 'source' .* rename 'file' to 'source'"),
        ({"question": "Who?"}, "it has no 'source' .* a line is an object such as"),
        ({"question": " ", "source": "a.pdf"}, "question must be a text that is not empty, got ' '"),
        ({"question": 3, "source": "a.pdf"}, "question must be a text"),
        ({"question": "Who?", "source": 3, "page": 1}, "source must be a path, URL or name, got 3"),
        ({"question": "Who?", "source": None, "page": 1}, "an answer needs the source"),
        ({**LINE, "page": "iv"}, "page must be a whole number, from 1, got 'iv'"),
        ({**LINE, "page": True}, "page must be a whole number, from 1, got True"),
        ({**LINE, "pages": []}, "has no right page"),
        ({**LINE, "grade": 0}, "grade must be a positive number, got 0"),
        ({**LINE, "grade": float("nan")}, "grade must be a positive number, got nan"),
        ({**LINE, "answers": "x"}, "answers must be a list of objects"),
        ({**LINE, "answers": []}, "has no right page"),
        (3, "expected an object such as .* got 3"),
    ],
)
def test_what_is_no_question_is_named_with_its_line(value: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(LINE) + "\n" + json.dumps(value) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"questions.jsonl, line 2: .*{message}"):
        read_questions(file)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "broken.jsonl").write_text('{"question": ')
    (tmp_path / "folder").mkdir()
    for name, message in {
        "missing.jsonl": "cannot be read: No such file",
        "binary": "it is not text in UTF-8",
        "empty.jsonl": "has no questions; write one JSON object per line",
        "broken.jsonl": "line 1: not JSON",
        "folder": "has no table 'corpus'",
    }.items():
        with pytest.raises(InputError, match=message):
            read_questions(tmp_path / name)
    for wrong in (None, 3):
        with pytest.raises(InputError, match="expected questions, their file, or a folder"):
            read_questions(wrong)


def test_relevant_docs_are_lists() -> None:
    with pytest.raises(InputError, match="relevant_docs of 'q1' must be a list of ids, got 5"):
        read_questions({**QA, "relevant_docs": {"q1": 5}})


QA: dict[str, Any] = {
    "queries": {"q1": "low tide?", "q2": "unanswered?"},
    "corpus": {"n1": "Low tide at six"},
    "relevant_docs": {"q1": ["n1"]},
}


def test_llama_index_s_data_sets_are_read(tmp_path: Path) -> None:
    (tmp_path / "qa.json").write_text(json.dumps({**QA, "mode": "text"}, indent=2))
    for source in (tmp_path / "qa.json", QA, SimpleNamespace(**QA)):
        read = read_questions(source)
        assert [(one.id, one.text, one.answers[0].id) for one in read] == [("q1", "low tide?", "n1")]
        assert read.corpus is not None
        assert [(page.id, page.text, page.image) for page in read.corpus] == [("n1", "Low tide at six", None)]


VALUES = st.recursive(
    st.sampled_from(
        [None, True, 0, 1, -3, 10**400, 0.5, 3.0, float("nan"), float("inf"), "", "a.pdf", "3", "\0", "\ud800"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["source", "page", "id", "grade"]), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["question", "source", "page", "pages", "answers", "grade", "id"]), VALUES))
def test_any_line_is_a_question_or_an_input_error(value: dict[str, Any]) -> None:
    try:
        [question] = read_questions([value])
    except ColPaliError as error:
        assert str(error).startswith("question 1: ")
    else:
        assert question.answers


NAMES = st.text(min_size=1, max_size=8).filter(str.strip)
ANSWERS = st.builds(Answer, source=NAMES, page=st.integers(1, 99) | st.none(), grade=st.sampled_from([1.0, 2.0]))


@given(st.lists(st.builds(Question, text=NAMES, answers=st.lists(ANSWERS, min_size=1, max_size=3)), min_size=1))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, questions: list[Question]) -> None:
    target = tmp_path_factory.mktemp("written") / "questions.jsonl"
    write_questions(questions, target)
    again = read_questions(target)
    assert [(one.text, list(one.answers)) for one in again] == [(one.text, list(one.answers)) for one in questions]
