"""Chat models by their names, for commands and drafts of questions."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.messages.content import create_image_block, create_text_block

from colpali_integrations.errors import ConfigurationError, InputError

__all__ = ["Parts", "chat_model", "open_chat"]

Parts: TypeAlias = Sequence[str | bytes]
"""A message: texts, and pictures as the bytes of JPEG files."""
_KEY = "OPENAI_API_KEY"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def chat_model(name: str, *, url: str | None = None) -> BaseChatModel:
    """Open a chat model by its name.

    Args:
        name: for LangChain's `init_chat_model`, such as "openai:gpt-5"; with `url` the model's name on that server.
        url: of a server that speaks OpenAI's API, such as "http://localhost:11434/v1". The key is that of the
            environment variable OPENAI_API_KEY, if there is one.

    Raises:
        InputError: LangChain is not installed, or the provider cannot open the model, such as without its key.
        ConfigurationError: the URL is none, or would carry the key over the network without TLS.
    """
    options: dict[str, Any] = {} if url is None else _of_server(url)
    try:
        from langchain.chat_models import init_chat_model  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "langchain":
            raise
        raise InputError(
            f"the chat model {name!r} is a name for LangChain's init_chat_model, which needs the package langchain and "
            "that of the provider. Run: pip install langchain langchain-openai (or another provider's package)"
        ) from error
    try:
        model: BaseChatModel = init_chat_model(name, **options)
    except Exception as error:  # of any provider, such as for its missing key or package
        lines = str(error).splitlines() or [type(error).__name__]
        reason = lines[0].replace(os.environ.get(_KEY) or "\0", "...")
        raise InputError(f"the chat model {name!r} cannot be opened: {reason}") from None
    return model


def open_chat(name: str, *, url: str | None = None) -> Callable[[Parts], str]:
    """Open a chat model as a function from one message to its answer.

    Args:
        name: as for `chat_model`.
        url: as for `chat_model`.

    Raises:
        InputError: as `chat_model`.
        ConfigurationError: as `chat_model`.
    """
    model = chat_model(name, url=url)

    def ask(parts: Parts) -> str:
        blocks: list[Any] = [
            create_text_block(part)
            if isinstance(part, str)
            else create_image_block(base64=base64.b64encode(part).decode("ascii"), mime_type="image/jpeg")
            for part in parts
        ]
        return str(model.invoke([HumanMessage(content_blocks=blocks)]).text)

    return ask


def _of_server(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise ConfigurationError(
            f"the URL of a chat model's server must be like http://localhost:11434/v1, got {url!r}"
        )
    key = os.environ.get(_KEY)
    if key and parts.scheme == "http" and host not in _LOOPBACK:
        raise ConfigurationError(
            f"{parts.scheme}://{host} would carry the key of {_KEY} over the network in the clear; use https, or unset "
            f"{_KEY}"
        )
    return {"model_provider": "openai", "base_url": url, "api_key": key or "none"}
