"""Questions with the pages that answer them, and their files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colpali_integrations._options import shown
from colpali_integrations._paths import user_path
from colpali_integrations.errors import InputError
from colpali_integrations.evaluation.corpus import Corpus

__all__ = ["Answer", "Question", "Questions", "write_questions"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A page that answers a question.

    Attributes:
        source: path, URL or name of the document; the end of a path suffices where it is the only one of its kind.
        page: 1-based; None for the only page of a document, such as an image.
        id: of the store's entry, instead of source and page.
        grade: how well it answers, above 0.

    Raises:
        InputError: neither a source nor an id, a page below 1, or a grade that is not a positive number.

    Example:
        >>> str(Answer(source="reports/2024.pdf", page=7))
        'reports/2024.pdf, page 7'
    """

    source: str | None = None
    page: int | None = None
    id: str | None = None
    grade: float = 1.0

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if not self.source and not self.id:
            raise InputError("an answer needs the source of its document and a page, or the id of an entry")
        page: object = self.page  # callers without type checks may pass others
        if page is not None and (isinstance(page, bool) or not isinstance(page, int)):
            raise InputError(f"page must be a whole number, from 1, got {shown(page)}")
        if self.page is not None and self.page < 1:
            raise InputError(
                f"page {self.page}: pages count from 1; of a file whose pages count from 0, pass first_page=0",
                command=f"page {self.page}: pages count from 1; where they count from 0, pass --first-page 0",
            )
        grade: object = self.grade
        if isinstance(grade, bool) or not isinstance(grade, int | float) or not 0 < grade < 2**31:
            raise InputError(f"grade must be a positive number, got {shown(grade)}")

    def __str__(self) -> str:
        """The page in messages."""
        if self.source is None:
            return f"the entry {self.id}"
        return self.source if self.page is None else f"{self.source}, page {self.page}"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question and the pages that answer it.

    Attributes:
        text: the question.
        answers: at least one.
        id: of the question; by default its position.
        metadata: further values, by which results can be grouped.

    Raises:
        InputError: the text is empty, or there is no answer.

    Example:
        >>> Question(text="Who paid?", answers=[Answer(source="harbour.pdf", page=3)]).answers[0].page
        3
    """

    text: str
    answers: Sequence[Answer]
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        text: object = self.text
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"question must be a text that is not empty, got {shown(text)}")
        if not self.answers:
            raise InputError(f"the question {shown(self.text)} has no right page; name one, or leave the question out")

    def to_dict(self) -> dict[str, Any]:
        """The object of a line of a file of questions."""
        answers = [
            {key: value for key, value in vars(one).items() if value is not None and (key, value) != ("grade", 1.0)}
            for one in self.answers
        ]
        right = answers[0] if len(answers) == 1 else {"answers": answers}
        if len(answers) == 1 and "id" in right:
            right = {"answers": answers}
        return {"question": self.text, **right, **({"id": self.id} if self.id else {}), **self.metadata}


class Questions(list[Question]):
    """Questions in the order of their file.

    Args:
        questions: the questions.
        where: the file, for messages.
        corpus: the pages that come with the questions, as in ViDoRe's data sets; None where they are in a store.

    Example:
        >>> Questions([Question(text="Who paid?", answers=[Answer(source="harbour.pdf", page=3)])])
        Questions(1)
    """

    def __init__(
        self, questions: Iterable[Question] = (), *, where: str = "the questions", corpus: Corpus | None = None
    ) -> None:
        super().__init__(questions)
        self.where, self.corpus = where, corpus

    def __repr__(self) -> str:
        """Their number."""
        return f"Questions({len(self)})"


def write_questions(questions: Iterable[Question], path: str | os.PathLike[str]) -> Path:
    r"""Write questions as JSON Lines, which `read_questions` reads.

    Args:
        questions: the questions.
        path: of the file, which is replaced.

    Returns:
        The absolute path.

    Example:
        >>> question = Question(text="tide", answers=[Answer(source="a.pdf", page=1)])
        >>> target = write_questions([question], "questions.jsonl")
        >>> target.read_text(encoding="utf-8")
        '{"question": "tide", "source": "a.pdf", "page": 1}\n'
    """
    target = user_path(path).absolute()
    target.write_bytes(b"".join(_line(question.to_dict()) for question in questions))
    return target


def _line(value: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, as in the name of a file
        return json.dumps(value).encode() + b"\n"
