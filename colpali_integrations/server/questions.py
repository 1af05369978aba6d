"""Questions of several clients that are answered together.

    event loop    ask(a)    ask(b)    ask(c)
    thread        answer(a): runs a             answer(c): c has its answer already
    thread                  answer(b): waits for the run of a, then runs b and c

A question waits from the moment at which its request has come, and not only once a thread is free for it. So few
threads are enough for any number of clients.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colpali_integrations.stores import Hits, SearchOptions

__all__ = ["Question", "Questions"]

Run = Callable[[Sequence[str], SearchOptions], Sequence[Hits]]


@dataclass(eq=False)
class Question:
    """A question that waits or has been answered.

    Attributes:
        text: of the question.
        options: of `SearchOptions`, as JSON has them.
        key: questions of equal key are answered together; None for one that is answered alone.
        hits: the answer; None until then.
    """

    text: str
    options: Mapping[str, Any]
    key: str | None
    hits: Hits | None = None


class Questions:
    """The questions that wait. Threads may share it.

    Args:
        run: answers texts with the same options.
        together: the most questions of one run.
    """

    def __init__(self, run: Run, together: int) -> None:
        self._run, self._together = run, together
        self._waiting: list[Question] = []
        self._changed = threading.Condition()  # of the list, and of whether a run is under way
        self._busy = False

    def ask(self, text: str, options: Mapping[str, Any]) -> Question:
        """Let a question wait; `answer` must be called with it, or `withdraw`.

        Args:
            text: of the question.
            options: of `SearchOptions`, as JSON has them.
        """
        # As JSON, not as SearchOptions: True equals 1 in Python, and is another value in a filter.
        question = Question(text, options, json.dumps(options, sort_keys=True))
        with self._changed:
            self._waiting.append(question)
        return question

    def withdraw(self, question: Question) -> None:
        """Let a question wait no longer, if it does."""
        with self._changed:
            if question in self._waiting:
                self._waiting.remove(question)

    def answer(self, question: Question) -> Hits:
        """Answer a question, if no other thread has, and with it all that wait and have the same options.

        When such a run fails, its questions are answered one by one, so that an error reaches only the caller whose
        question causes it.

        Raises:
            ColPaliError: of this question.
        """
        with self._changed:
            self._changed.wait_for(lambda: question.hits is not None or not self._busy)
            if question.hits is not None:  # at once, whatever runs now
                return question.hits
            self._busy = True
            together = self._take(question)
        try:
            return self._answered(question, together)
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _answered(self, question: Question, together: Sequence[Question]) -> Hits:
        """Answer a question and those that are answered with it."""
        try:
            found = self._run([one.text for one in together], SearchOptions(**question.options))
        except Exception:
            if len(together) == 1:
                raise
            for one in together:
                one.key = None
            found, together = self._run([question.text], SearchOptions(**question.options)), [question]
        for one, hits in zip(together, found, strict=True):
            one.hits = hits
        assert question.hits is not None
        return question.hits

    def _take(self, question: Question) -> list[Question]:
        """The question and those that are answered with it, the oldest first; they wait no longer."""
        same = [one for one in self._waiting if one is not question and one.key and one.key == question.key]
        together = [question, *same[: self._together - 1]]
        self._waiting = [one for one in self._waiting if one not in together]
        return together
