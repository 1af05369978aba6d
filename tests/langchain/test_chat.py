"""Chat models by their names: LangChain's own function is called, and a key does not leave in the clear."""

from __future__ import annotations

import base64
import sys
from types import ModuleType
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.langchain.chat import open_chat

SERVER = "http://localhost:11434/v1"


class Recording(FakeListChatModel):
    """Keeps its messages."""

    seen: list[Any] = []  # noqa: RUF012 - a field of pydantic, copied for each model

    def _call(self, messages: Any, *arguments: Any, **options: Any) -> str:
        self.seen.extend(messages)
        return super()._call(messages, *arguments, **options)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `init_chat_model` was called with, and the model that it returned."""
    calls: list[Any] = []

    def init_chat_model(name: str, **options: Any) -> Recording:
        calls.append((name, options, model := Recording(responses=["Low tide is at six [1]."])))
        return model

    module: Any = ModuleType("langchain.chat_models")
    module.init_chat_model = init_chat_model
    monkeypatch.setitem(sys.modules, "langchain", ModuleType("langchain"))
    monkeypatch.setitem(sys.modules, "langchain.chat_models", module)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return calls


def test_texts_and_pictures_are_one_message(opened: list[Any]) -> None:
    ask = open_chat("any:model")
    assert ask(["When is low tide?", b"a picture"]) == "Low tide is at six [1]."
    [(name, options, model)] = opened
    assert (name, options) == ("any:model", {})
    [message] = model.seen
    text, picture = message.content_blocks
    assert (text["type"], text["text"]) == ("text", "When is low tide?")
    assert (picture["type"], picture["mime_type"]) == ("image", "image/jpeg")
    assert base64.b64decode(picture["base64"]) == b"a picture"


def test_a_server_of_openai_s_api_is_called_by_its_url(opened: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    open_chat("llava", url=SERVER)
    assert opened[0][:2] == ("llava", {"model_provider": "openai", "base_url": SERVER, "api_key": "none"})
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    open_chat("llava", url=SERVER)
    assert opened[1][1]["api_key"] == "sk-secret"
    open_chat("llava", url="https://example.org/v1")
    with pytest.raises(ConfigurationError, match="in the clear; use https") as raised:
        open_chat("llava", url="http://example.org/v1")
    assert "sk-secret" not in str(raised.value)


def test_a_provider_s_refusal_is_one_line_without_the_key(opened: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **options: Any) -> None:
        raise ValueError(f"no such key: {options['api_key']}\nmore")

    monkeypatch.setattr(sys.modules["langchain.chat_models"], "init_chat_model", refuse)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with pytest.raises(InputError) as raised:
        open_chat("llava", url=SERVER)
    assert str(raised.value) == "the chat model 'llava' cannot be opened: no such key: ..."


@pytest.mark.parametrize("url", ["localhost:11434", "ftp://example.org", "http://", "http://[::1", ""])
def test_what_is_no_url_is_refused(url: str, opened: list[Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be like http://localhost:11434/v1"):
        open_chat("llava", url=url)
    assert opened == []
