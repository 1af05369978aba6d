"""Finds the entries of a store that questions name as their right pages."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath
from typing import Literal

from colpali_integrations._options import shown
from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.evaluation.questions import Answer, Question
from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.filters import FilterLike

__all__ = ["Asked", "OnError", "find_answers", "wanted_ids"]

OnError = Literal["raise", "skip"]
_SHOWN = 10  # problems in one message


@dataclass(frozen=True)
class Asked:
    """A question with the ids of its right pages.

    Attributes:
        question: the question.
        grades: the grade per id.
        document: of the first right page, for intervals over documents.
    """

    question: Question
    grades: Mapping[str, float]
    document: str


def wanted_ids(
    questions: Iterable[Question],
    store: MultiVectorStore,
    *,
    where: FilterLike = None,
    on_error: OnError = "raise",
) -> list[dict[str, float]]:
    """The ids of the entries that answer each question, with their grades.

    They are the `expected_ids` of LlamaIndex's evaluators, and the ids of LangChain's Documents.

    Args:
        questions: of `read_questions`.
        store: with the pages.
        where: only entries that fit this filter.
        on_error: "raise" an error that names all questions whose pages are not in the store, or "skip" them.

    Returns:
        A dict per question, in their order; an empty one for a question that was skipped.

    Raises:
        InputError: the store lacks a page, or a name fits several documents; the message names all. With "skip": no
            question is left.
        ConfigurationError: `on_error` has an invalid value.

    Example:
        >>> from colpali_integrations.evaluation import read_questions
        >>> questions = read_questions([{"question": "palettes", "source": "report.pdf", "page": 1}])
        >>> with MultiVectorStore.open("my-index") as store:
        ...     [ids] = wanted_ids(questions, store)
        ...     store.get(ids)[0].name, list(ids.values())
        ('report.pdf, page 1', [1.0])
    """
    entries = {entry.id: entry for entry in store.scroll(where)}
    several = list(questions)
    asked, _ = find_answers(several, entries, store.where, on_error)
    grades = {id(one.question): one.grades for one in asked}
    return [dict(grades.get(id(question), {})) for question in several]


def find_answers(
    questions: Sequence[Question], entries: Mapping[str, Entry], where: str, on_error: OnError = "raise"
) -> tuple[list[Asked], list[str]]:
    """Find the right pages of all questions, and the problems of those that are left out.

    Args:
        questions: the questions.
        entries: of the store, by id.
        where: the store, for messages.
        on_error: "skip" leaves out a question with a problem.

    Raises:
        InputError: there is a problem, or no question is left; the message names the problems.
    """
    if on_error not in ("raise", "skip"):
        raise ConfigurationError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if not questions:
        raise InputError("there are no questions; pass at least one")
    finder = _Finder(entries, where)
    asked, problems = [], []
    for number, question in enumerate(questions, 1):
        grades: dict[str, float] = {}
        try:
            for answer in question.answers:
                id_ = finder.find(answer)
                grades[id_] = max(grades.get(id_, 0.0), float(answer.grade))
        except InputError as error:
            problems.append(f"question {number} ({shown(question.text)}): {error}")
            continue
        first = next(iter(grades))
        asked.append(Asked(question, grades, entries[first].document_id or first))
    if problems and (on_error == "raise" or not asked):
        raise _all(problems, len(questions))
    return asked, problems


def _all(problems: Sequence[str], count: int) -> InputError:
    more = f"; ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    lines = "; ".join(problems[:_SHOWN])  # in one line, as all errors are printed
    if len(problems) == 1:
        lines += "" if lines.endswith("?") else "."
        return InputError(
            f"{lines} Correct it, or pass on_error='skip'", command=f"{lines} Correct it, or pass --on-error skip"
        )
    reason = f"{len(problems)} of {count} questions name pages that cannot be found"
    return InputError(
        f"{reason}; correct them, or pass on_error='skip': {lines}{more}",
        command=f"{reason}; correct them, or pass --on-error skip: {lines}{more}",
    )


class _Finder:
    """Looks up answers among entries.

    Args:
        entries: by id.
        where: the store, for messages.
    """

    def __init__(self, entries: Mapping[str, Entry], where: str) -> None:
        self._entries, self._where = entries, where
        self._hints = _SHOWN  # closest names are looked up for as many problems as are shown
        self._pages: defaultdict[str, dict[int | None, list[str]]] = defaultdict(dict)  # by document, then number
        self._by_name: defaultdict[str, set[str]] = defaultdict(set)  # documents by their exact names
        self._by_end: defaultdict[str, set[str]] = defaultdict(set)  # documents by the last part of their path
        self._paths: dict[str, PurePath] = {}
        for entry in entries.values():
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        document = entry.document_id or entry.id
        self._pages[document].setdefault(entry.page, []).append(entry.id)
        for name in (entry.source, entry.metadata.get("file_path"), entry.metadata.get("file_name"), document):
            if isinstance(name, str) and name:
                self._by_name[name].add(document)
        path = entry.metadata.get("file_path") or entry.source or document
        if document not in self._paths and isinstance(path, str):
            self._paths[document] = PurePath(path)
            self._by_end[PurePath(path).name].add(document)

    def find(self, answer: Answer) -> str:
        """The id of an answer's entry.

        Raises:
            InputError: there is none, or several; the message names the closest.
        """
        if answer.id is not None and answer.id in self._entries:
            return answer.id
        if answer.source is None:
            near = self._near(answer.id or "", self._entries)
            raise InputError(f"{self._where} has no entry {shown(answer.id)}{near}")
        pages = self._pages[self._document(answer.source)]
        if answer.page is None:
            return self._only(answer.source, pages)
        if found := pages.get(answer.page):
            return found[0]
        raise InputError(f"{_short(answer.source)} has no page {answer.page} in {self._where}; it has {_ranges(pages)}")

    def _document(self, source: str) -> str:
        for documents in (self._by_name.get(source), self._by_name.get(_real(source)), self._ending(source)):
            if documents and len(documents) == 1:
                return next(iter(documents))
            if documents:
                several = ", ".join(map(_short, sorted(documents)[:4])) + (", ..." if len(documents) > 4 else "")
                raise InputError(
                    f"{len(documents)} documents are named {_short(source)}: {several}; write more of its path or its "
                    "document_id, or choose by a filter"
                )
        names = {name for name in self._by_name if name in self._by_end} or set(self._by_name)
        near = self._near(PurePath(source).name, names) or self._some(names)
        raise InputError(f"{self._where} has no document {_short(source)}{near}")

    def _ending(self, source: str) -> set[str]:
        """The documents whose paths end in `source`."""
        parts = tuple(part for part in PurePath(source).parts if part not in (".", ".."))
        ends = self._by_end.get(PurePath(source).name, set())
        return {one for one in ends if self._paths[one].parts[-len(parts) :] == parts}

    def _only(self, source: str, pages: Mapping[int | None, list[str]]) -> str:
        if len(pages) == 1 and len(found := next(iter(pages.values()))) == 1:
            return found[0]
        raise InputError(f"{_short(source)} has {_ranges(pages)}; name the right one as page, or several as pages")

    def _near(self, name: str, names: Iterable[str]) -> str:
        self._hints -= 1
        if self._hints < 0:
            return ""
        lower = {one.lower(): one for one in names}
        near = [_short(lower[one]) for one in get_close_matches(name.lower(), lower, n=3)]
        return f"; did you mean {' or '.join(near)}?" if near else ""

    @staticmethod
    def _some(names: Iterable[str]) -> str:
        some = sorted(names)
        return (
            f"; it has {', '.join(map(_short, some[:3]))}{', ...' if len(some) > 3 else ''}"
            if some
            else "; it is empty"
        )


def _real(source: str) -> str:
    """The real path of a file; the source itself where no path can have this name."""
    try:
        return os.path.realpath(user_path(source))
    except (InputError, OSError, ValueError):
        return source


def _short(name: str) -> str:
    """A name or path as messages show it: its end, of at most 120 characters.

    >>> _short("reports/2024.pdf"), len(_short("x" * 5000))
    ('reports/2024.pdf', 120)
    """
    return name if len(name) <= 120 else f"...{name[-117:]}"


def _ranges(pages: Mapping[int | None, list[str]]) -> str:
    """The numbers of pages: "pages 1 to 12", or "pages 1, 4".

    >>> _ranges({1: ["a"], 2: ["b"]}), _ranges({1: ["a"], 4: ["b"]}), _ranges({None: ["a"]})
    ('pages 1 to 2', 'pages 1, 4', 'entries without a page')
    """
    numbers = sorted(page for page in pages if page is not None)
    if not numbers:
        return "entries without a page"
    if len(numbers) == 1:
        return f"page {numbers[0]} alone"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"pages {numbers[0]} to {numbers[-1]}"
    return f"pages {', '.join(map(str, numbers[:12]))}{', ...' if len(numbers) > 12 else ''}"
