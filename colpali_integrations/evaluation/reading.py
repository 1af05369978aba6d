"""Reads questions with the pages that answer them, from JSON Lines, JSON, data sets or Python.

A line of a file of questions:

    {"question": "Who paid for the lighthouse?", "source": "harbour.pdf", "page": 3}

Several right pages are a list, in `pages` or, of several documents or with grades, in `answers`:

    {"question": "...", "source": "harbour.pdf", "pages": [3, 4]}
    {"question": "...", "answers": [{"source": "a.pdf", "page": 3, "grade": 2}, {"source": "b.pdf", "page": 1}]}

All further keys are metadata, by which results can be grouped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colpali_integrations._options import checked_several, checked_whole, shown
from colpali_integrations._paths import user_path
from colpali_integrations._text import parse_json
from colpali_integrations.errors import InputError
from colpali_integrations.evaluation.data_sets import qa_questions, read_folder
from colpali_integrations.evaluation.questions import Answer, Question, Questions

__all__ = ["read_questions"]


def read_questions(source: Any, *, first_page: int = 1) -> Questions:
    """Read questions with the pages that answer them.

    Args:
        source: a file of JSON Lines, each with `question`, `source` and `page`; a folder in the layout of BEIR or of
            ViDoRe (corpus, queries, qrels) or a JSON file or object of LlamaIndex's `EmbeddingQAFinetuneDataset`, which
            bring their pages; or `Question`s, or dicts like the lines of a file.
        first_page: the number that the first page of a document has in the file: 1, or 0.

    Raises:
        InputError: the file cannot be read, or a line is not a question; the message names the line.
        MissingExtraError: pyarrow is not installed, for parquet files.

    Example:
        >>> questions = read_questions([{"question": "diverging palettes", "source": "report.pdf", "page": 1}])
        >>> questions[0].text, str(questions[0].answers[0])
        ('diverging palettes', 'report.pdf, page 1')
    """
    first = checked_whole(first_page, "first_page", 0)
    if isinstance(source, Questions):
        return source
    if isinstance(source, str | os.PathLike):
        return _read_path(user_path(source), first)
    if _is_qa_dataset(source):
        return qa_questions(source if isinstance(source, Mapping) else vars(source), where="the data set")
    several = checked_several(source, "questions, their file, or a folder of a data set")
    where = "the questions"
    return Questions((_question(one, f"question {n}", first) for n, one in enumerate(several, 1)), where=where)


def _read_path(path: Path, first: int) -> Questions:
    if path.is_dir():
        return read_folder(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InputError(
            f"{path} cannot be read: {reason}; pass a file of questions, one JSON object per line"
        ) from error
    document = _whole_document(text)
    if document is not None:
        return qa_questions(document, where=str(path))
    questions = Questions(_lines(text, path, first), where=str(path))
    if not questions:
        raise InputError(f"{path} has no questions; write one JSON object per line: {_EXAMPLE}")
    return questions


def _whole_document(text: str) -> Mapping[str, Any] | None:
    """The object in a file of one JSON document in LlamaIndex's layout; None for other files."""
    if '"relevant_docs"' not in text:
        return None
    try:
        document = parse_json(text)
    except ValueError:
        return None
    return document if _is_qa_dataset(document) else None


def _is_qa_dataset(value: object) -> bool:
    names = ("queries", "corpus", "relevant_docs")
    if isinstance(value, Mapping):
        return all(isinstance(value.get(name), Mapping) for name in names)
    return all(isinstance(getattr(value, name, None), Mapping) for name in names)


def _lines(text: str, path: Path, first: int) -> Iterator[Question]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = parse_json(line)
        except ValueError as error:
            raise InputError(f"{where}: not JSON ({error}); each line is an object such as {_EXAMPLE}") from error
        yield _question(value, where, first)


_EXAMPLE = '{"question": "Who paid?", "source": "harbour.pdf", "page": 3}'
_KEYS = frozenset({"question", "answers", "source", "page", "pages", "grade", "id"})
_GUESSES = {
    **dict.fromkeys(("query", "q", "text", "prompt", "input"), "question"),
    **dict.fromkeys(("file", "path", "document", "file_name", "file_path", "filename", "doc", "url"), "source"),
    **dict.fromkeys(("page_number", "page_no", "pageno"), "page"),
    **dict.fromkeys(("score", "relevance"), "grade"),
}


def _question(value: Any, where: str, first: int) -> Question:
    """The question of a line.

    Raises:
        InputError: it is none; the message names the place, the expected keys and the likely one.
    """
    if isinstance(value, Question):
        return value
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected an object such as {_EXAMPLE}, got {shown(value)}")
    try:
        _require_keys(value)
        answers = list(_answers(value, first))
        metadata = {key: one for key, one in value.items() if key not in _KEYS}
        id_ = value.get("id", "")
        return Question(text=value["question"], answers=answers, id=str(id_), metadata=metadata)
    except InputError as error:
        command = f"{where}: {error.command}" if error.command else None
        raise InputError(f"{where}: {error}", command=command) from error


def _require_keys(value: Mapping[str, Any]) -> None:
    needed = {"question": "question" in value, "source": "source" in value or "answers" in value}
    for name, is_there in needed.items():
        if not is_there:
            near = next((key for key in value if _GUESSES.get(str(key).lower()) == name), None)
            advice = f"rename {near!r} to {name!r}" if near else f"a line is an object such as {_EXAMPLE}"
            raise InputError(f"it has no {name!r} (its keys: {', '.join(map(str, value)) or 'none'}); {advice}")


def _answers(value: Mapping[str, Any], first: int) -> Iterator[Answer]:
    several = value.get("answers")
    if several is not None:
        if not isinstance(several, list | tuple) or not all(isinstance(one, Mapping | Answer) for one in several):
            raise InputError(
                f'answers must be a list of objects such as {{"source": ..., "page": 3}}, got {shown(several)}'
            )
        for one in several:
            yield from [one] if isinstance(one, Answer) else _of_document(one, first, id_=one.get("id"))
        return
    yield from _of_document(value, first)


def _of_document(value: Mapping[str, Any], first: int, *, id_: Any = None) -> Iterator[Answer]:
    source = value.get("source")
    if source is not None and not isinstance(source, str):
        raise InputError(f"source must be a path, URL or name, got {shown(source)}")
    pages = value["pages"] if value.get("pages") is not None else value.get("page")
    grade = value.get("grade", 1.0)
    for page in pages if isinstance(pages, list | tuple) else [pages]:
        number = _number(page)
        if isinstance(number, int) and not isinstance(number, bool) and number >= first:
            number += 1 - first
        yield Answer(source=source, page=number, id=None if id_ is None else str(id_), grade=grade)


def _number(page: Any) -> Any:
    """A page's number: also "3" and 3.0, as tables that were saved as JSON have them."""
    if isinstance(page, float) and page.is_integer():
        return int(page)
    return int(page) if isinstance(page, str) and page.strip().isdecimal() and len(page) < 10 else page
