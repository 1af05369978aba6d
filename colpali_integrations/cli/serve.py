"""The command `serve`."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from colpali_integrations.cli import display
from colpali_integrations.cli.collections import is_collection, opened_store
from colpali_integrations.cli.common import NAME, open_encoder
from colpali_integrations.cli.model_options import CheckpointOptions, with_checkpoint_options
from colpali_integrations.cli.options import (
    DebugOption,
    IndexModelOption,
    ServedRootOption,
    StoreFolderOption,
    given_path,
)
from colpali_integrations.cli.roots import recorded_roots
from colpali_integrations.errors import ConfigurationError, MissingExtraError
from colpali_integrations.stores import find_documents, stored_settings

if TYPE_CHECKING:
    from colpali_integrations.server.settings import Chat

__all__ = ["serve"]


@with_checkpoint_options
def serve(
    store: StoreFolderOption,
    options: CheckpointOptions,
    root: ServedRootOption = None,
    model: IndexModelOption = None,
    host: Annotated[str, Option(metavar="HOST", help="Another one than loopback needs an API key.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, metavar="N", help="0 for any that is free.")] = 8765,
    api_key_file: Annotated[
        Path | None,
        Option(metavar="FILE", parser=given_path, help="With the key of requests. Default: $COLPALI_API_KEY."),
    ] = None,
    read_key_file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            parser=given_path,
            help="With a second key, for those who only search and read. Default: $COLPALI_READ_API_KEY.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="Another name of the server, such as that of a proxy. Repeatable."),
    ] = None,
    answers: Annotated[
        str | None,
        Option(
            metavar="CHAT_MODEL", help="Answer from found pages by a chat model of LangChain, such as openai:gpt-5."
        ),
    ] = None,
    answers_url: Annotated[
        str | None,
        Option(metavar="URL", help="The server of CHAT_MODEL, if it is one that speaks OpenAI's API."),
    ] = None,
    open_: Annotated[bool, Option("--open", help="Open the search page in the browser.")] = False,
    max_upload_total: Annotated[
        int, Option(min=1, metavar="GIB", help="The most GiB of all uploaded files together.")
    ] = 16,
    debug: DebugOption = False,
) -> None:
    """Serve an index over HTTP: a search page, page pictures, embeddings, reranking and uploads.

    [dim]Example:[/]  colpali-integrations serve --store my-index --root reports/
    """
    try:
        from colpali_integrations.server.service import is_writable
        from colpali_integrations.server.serving import serve as run
        from colpali_integrations.server.settings import READ_KEY_VARIABLE, ServerSettings, key_of
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "serve", "The server") from error
    settings = ServerSettings(
        host=host,
        port=port,
        key=key_of(api_key_file),
        read_key=key_of(read_key_file, READ_KEY_VARIABLE),
        roots=root or (),
        recorded_roots=lambda: recorded_roots(store),
        allowed_hosts=allowed_host or (),
        chat=_chat(answers, answers_url),
        max_upload_total=max_upload_total * 2**30,
    )
    if not is_collection(store):
        _refuse_documents(store)
    encoder = open_encoder(model, options, store)
    with encoder, opened_store(store, encoder) as opened:

        def ready(url: str) -> None:
            keys = (settings.key is not None, settings.read_key is not None)
            writable = is_writable(opened)
            display.serving(url, store, len(opened), has_key=keys[0], has_read_key=keys[1], is_writable=writable)
            if open_:  # a browser in the terminal would keep the server waiting
                threading.Thread(target=_open, args=[url], name="serve-browser", daemon=True).start()

        run(encoder, opened, store.resolve(), settings, ready)
    display.note(f"{NAME} has stopped.")


def _refuse_documents(store: Path) -> None:
    """Refuse a folder of documents without an index: the caller takes --store for the folder that is to be served.

    Raises:
        ConfigurationError: it is one.
    """
    if stored_settings(store) is None and store.is_dir() and (found := find_documents([store])):
        count = display.number(len(found), "document")
        raise ConfigurationError(
            f"--store {store} holds no index but {count}, such as {found[0].name}. Make an index of them in another "
            f"folder, and serve that: {NAME} index {store} --store my-index && {NAME} serve --store my-index"
        )


def _chat(name: str | None, url: str | None) -> Chat | None:
    """The chat model of --answers."""
    if name is None:
        if url is not None:
            raise ConfigurationError("--answers-url needs --answers with the name of the model on that server")
        return None
    from colpali_integrations.langchain.chat import open_chat
    from colpali_integrations.server.settings import Chat

    return Chat(name if url is None else f"{name} at {url}", open_chat(name, url=url))


def _open(url: str) -> None:
    """Show the search page in the browser of the user."""
    # The address of all interfaces is one to listen on, and not one to call.
    url = url.replace("://0.0.0.0:", "://127.0.0.1:").replace("://[::]:", "://[::1]:")
    try:
        opened = webbrowser.open(url)
    except webbrowser.Error:
        opened = False
    if not opened:
        display.note(f"No browser could be opened; open {url} in one.")
