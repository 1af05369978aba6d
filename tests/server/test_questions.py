"""Questions that wait at the same time are answered together, and each gets its own answer or error."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from colpali_integrations.errors import InputError
from colpali_integrations.server.questions import Question, Questions
from colpali_integrations.stores import Hits, SearchOptions


class Answers:
    """Answers a text by the text and k, notes the runs, and fails where one of the texts is "bad"."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, texts: Sequence[str], options: SearchOptions) -> list[Hits]:
        self.runs.append(list(texts))
        assert self.go.wait(20)
        if "bad" in texts:
            raise InputError(f"cannot answer {list(texts)}")
        return [cast("Hits", (text, options.k)) for text in texts]


@pytest.fixture
def answers() -> Answers:
    return Answers()


def ask(questions: Any, *texts: str, **options: Any) -> list[Question]:
    return [questions.ask(text, options) for text in texts]


def test_those_with_equal_options_are_answered_together(answers: Answers) -> None:
    questions: Any = Questions(answers, 3)
    asked = [*ask(questions, "a", "b", k=1), *ask(questions, "c", k=2), *ask(questions, "d", "e", k=1)]
    found = [questions.answer(one) for one in asked]
    assert found == [("a", 1), ("b", 1), ("c", 2), ("d", 1), ("e", 1)]
    assert answers.runs == [["a", "b", "d"], ["c"], ["e"]]


def test_true_and_one_are_other_options(answers: Answers) -> None:
    questions: Any = Questions(answers, 3)
    asked = [questions.ask("a", {"where": {"new": True}}), questions.ask("b", {"where": {"new": 1}})]
    assert [questions.answer(one) for one in asked] == [("a", 10), ("b", 10)]
    assert answers.runs == [["a"], ["b"]]


def test_an_error_reaches_only_the_caller_whose_question_causes_it(answers: Answers) -> None:
    questions: Any = Questions(answers, 8)
    first, bad, last = ask(questions, "a", "bad", "b")
    assert questions.answer(first) == ("a", 10)
    with pytest.raises(InputError, match=r"cannot answer \['bad'\]"):
        questions.answer(bad)
    assert questions.answer(last) == ("b", 10)
    assert answers.runs == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]


def test_a_question_that_is_withdrawn_is_not_answered(answers: Answers) -> None:
    questions: Any = Questions(answers, 8)
    first, gone = ask(questions, "a", "gone")
    questions.withdraw(gone)
    questions.withdraw(gone)
    questions.answer(first)
    assert answers.runs == [["a"]]


def test_threads_share_a_run_and_the_oldest_questions_come_first(answers: Answers) -> None:
    questions: Any = Questions(answers, 4)
    answers.go.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(questions.answer, questions.ask("a", {}))
        while not answers.runs:
            pass
        texts = [f"q{number}" for number in range(9)]
        asked = ask(questions, *texts)
        found = [pool.submit(questions.answer, one) for one in asked]
        answers.go.set()
        assert first.result(20) == ("a", 10)
        assert [one.result(20) for one in found] == [(text, 10) for text in texts]
    assert [len(run) for run in answers.runs] == [1, 4, 4, 1]
    assert sorted(text for run in answers.runs for text in run) == ["a", *texts]


def test_a_question_that_has_its_answer_does_not_wait_for_the_next_run(answers: Answers) -> None:
    questions: Any = Questions(answers, 8)
    first, second = ask(questions, "a", "b")
    assert questions.answer(first) == ("a", 10)
    answers.go.clear()
    with ThreadPoolExecutor(2) as pool:
        later = pool.submit(questions.answer, questions.ask("c", {}))
        while len(answers.runs) < 2:
            pass
        try:
            assert pool.submit(questions.answer, second).result(10) == ("b", 10)
            assert not later.done()
        finally:
            answers.go.set()
        assert later.result(20) == ("c", 10)
    assert answers.runs == [["a", "b"], ["c"]]


def test_a_question_waits_only_for_its_own_run(answers: Answers) -> None:
    """A thread that waits for a run has the answer after it, though another run has begun at once."""
    release = [threading.Event(), threading.Event()]
    begun: list[list[str]] = []

    def run(texts: Sequence[str], options: SearchOptions) -> list[Hits]:
        begun.append(list(texts))
        assert release[len(begun) - 1].wait(20)
        return answers(texts, options)

    questions: Any = Questions(run, 2)
    first, second, third = ask(questions, "a", "b", "c")

    def both() -> None:
        questions.answer(first)
        questions.answer(third)

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(both)
        while not begun:
            pass
        waiter = pool.submit(questions.answer, second)
        release[0].set()
        while len(begun) < 2:
            pass
        try:
            assert waiter.result(10) == ("b", 10)
            assert not leader.done()
        finally:
            release[1].set()
        leader.result(20)
    assert begun == [["a", "b"], ["c"]]
