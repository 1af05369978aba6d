"""Answers by a chat model: what it gets of the pages, and what becomes of its words and of its failures."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.server.settings import Chat
from colpali_integrations.stores import MultiVectorStore, index_documents
from tests.server.conftest import Running, Start

QUESTION = "diverging palettes, and seats in a parliament"  # on both pages


class Fake:
    """A chat model that keeps its messages."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer, self.messages = answer, list[Sequence[str | bytes]]()

    def __call__(self, parts: Sequence[str | bytes]) -> str:
        self.messages.append(parts)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def answering(start: Start, folder: Path, papers: Path, coltiny: ColPali, fake: Fake) -> Running:
    with MultiVectorStore.open(folder / "index", model=coltiny) as store:
        index_documents(papers / "report.pdf", model=coltiny, store=store)
    return start(folder / "index", roots=[papers], chat=Chat("any:model", fake))


def test_an_answer_is_from_the_pages_and_names_those_it_cites(
    start: Start, tmp_path: Path, papers: Path, coltiny: ColPali
) -> None:
    fake = Fake("They have two ends [2]. See also [7].")
    server = answering(start, tmp_path, papers, coltiny, fake)
    hits = server.store.search(QUESTION, 2)
    body = {"query": QUESTION, "pages": [hit.id for hit in hits]}
    second = {"number": 2, "id": hits[1].id, "name": hits[1].entry.name}
    assert server.client.post("/v1/answers", json=body).json() == {
        "query": QUESTION,
        "model": "any:model",
        "answer": fake.answer,
        "citations": [second],
    }
    [[prompt, *parts]] = fake.messages
    assert f"Question: {QUESTION}" in str(prompt)
    for number, hit in enumerate(hits, 1):
        text, picture = parts[2 * number - 2 : 2 * number]
        assert str(text).startswith(f"[{number}] {hit.entry.name}\n{hit.entry.text[:100]}")
        assert isinstance(picture, bytes)
        assert Image.open(io.BytesIO(picture)).width == 1100
    assert len(parts) == 4


def test_a_failure_of_the_model_is_told_without_its_words(
    start: Start, tmp_path: Path, papers: Path, coltiny: ColPali, caplog: pytest.LogCaptureFixture
) -> None:
    server = answering(start, tmp_path, papers, coltiny, Fake(ValueError("wrong key: sk-secret")))
    [hit] = server.store.search(QUESTION, 1)
    with caplog.at_level(logging.DEBUG):
        answer = server.client.post("/v1/answers", json={"query": QUESTION, "pages": [hit.id]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "chat_failed")
    assert "any:model has failed (ValueError)" in answer.json()["message"]
    assert "sk-secret" not in answer.text + caplog.text


def test_a_wrong_request_for_an_answer_is_refused(
    start: Start, tmp_path: Path, papers: Path, coltiny: ColPali, served: Running
) -> None:
    fake = Fake("")
    client = answering(start, tmp_path, papers, coltiny, fake).client
    for body, status, message in [
        ({"query": QUESTION, "pages": ["unknown"]}, 404, "no page with the id 'unknown'"),
        ({"query": QUESTION, "pages": []}, 400, "pages must have at least 1 items"),
        ({"query": QUESTION, "pages": ["a"] * 9}, 400, "pages must have at most 8 items"),
        ({"pages": ["a"]}, 400, "query is missing"),
    ]:
        answer = client.post("/v1/answers", json=body)
        assert answer.status_code == status
        assert message in answer.json()["message"]
    assert fake.messages == []
    answer = served.client.post("/v1/answers", json={"query": QUESTION, "pages": ["a"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_chat_model")
