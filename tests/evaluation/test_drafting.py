"""Drafts of questions by a chat model: what it is shown, what it may answer, and the file that `evaluate` reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import BaseMessage
from PIL import Image

from colpali_integrations import MultiVectorStore
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.evaluation import evaluate, read_questions, write_questions
from colpali_integrations.evaluation.drafting import draft, sampled
from colpali_integrations.langchain import ColPaliRetriever, draft_questions
from colpali_integrations.stores import Entry


class Seeing(FakeListChatModel):
    """A chat model that keeps what it is sent."""

    sent: list[list[BaseMessage]] = []  # noqa: RUF012 - a field of pydantic

    def _call(self, messages: list[BaseMessage], *arguments: Any, **options: Any) -> str:
        self.sent.append(messages)
        return super()._call(messages, *arguments, **options)


def test_a_chat_model_sees_the_page_and_its_questions_are_evaluated(store: MultiVectorStore, tmp_path: Path) -> None:
    model = Seeing(responses=['["What grows?", "Second?"]', "Sure!\n```json\n[]\n```", '[" Who pays? "]'])
    with store:
        drafted = list(draft_questions(store, model, count=3))
        assert [question.text for question in drafted] == ["What grows?", "Who pays?"]
        [message] = model.sent[0]
        blocks = message.content_blocks
        assert [block["type"] for block in blocks] == ["text", "image"]
        written = write_questions(drafted, tmp_path / "draft.jsonl")
        assert read_questions(written)[0].metadata == {"draft": True}
        assert evaluate(written, store=store).questions == 2
        vectorstore = ColPaliRetriever(vectorstore=store).vectorstore
        assert len(list(draft_questions(vectorstore, Seeing(responses=['["A?"]']), count=1))) == 1


def test_the_prompt_has_name_number_and_text(store: MultiVectorStore) -> None:
    prompts: list[str] = []

    def ask(prompt: str, picture: Image.Image) -> str:
        prompts.append(prompt)
        return '["one", "two", "three"]'

    with store:
        found = list(draft(store, ask, count=1, per_page=2, where={"file_name": "fruit.pdf"}))
        assert [one.text for one in found] == ["one", "two"]
        assert "The picture is a page of fruit.pdf. Write up to 2 questions that" in prompts[0]
        assert "The text of the page" not in prompts[0], "it has none"
        with pytest.raises(InputError, match="has no pages to draft questions about"):
            list(draft(store, ask, where={"file_name": "none"}))
        with pytest.raises(ConfigurationError, match="count must be a whole number"):
            list(draft(store, ask, count=0))


@pytest.mark.parametrize("answer", ["I cannot.", '{"questions": 3}', "[1, 2]", '["unfinished', "", "[" * 50_000])
def test_another_answer_is_an_error_that_names_the_page(answer: str, store: MultiVectorStore) -> None:
    with store, pytest.raises(InputError, match=r"page \d: expected a JSON list of questions from the chat model"):
        list(draft(store, lambda *_: answer, count=1))


def test_pages_are_taken_in_turn_from_the_documents() -> None:
    counts = {"a": 9, "b": 2, "c": 1}
    entries = [Entry(id=f"{name}{page}", document_id=name) for name, count in counts.items() for page in range(count)]
    some = sampled(entries, 5, seed=1)
    assert sorted(entry.document_id or "" for entry in some) == ["a", "a", "b", "b", "c"]
    assert some == sampled(reversed(entries), 5, seed=1)
    assert len(sampled(entries, 99, seed=1)) == 12
    assert len({entry.id for entry in sampled(entries, 99, seed=1)}) == 12
    assert any(sampled(entries, 1, seed=seed) != sampled(entries, 1, seed=0) for seed in range(1, 9))


def test_a_name_needs_langchain(store: MultiVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)  # as if langchain were not installed
    with store, pytest.raises(InputError, match="pip install langchain langchain-openai"):
        draft_questions(store, "openai:gpt-5")
