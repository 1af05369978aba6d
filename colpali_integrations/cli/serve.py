"""The command `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from colpali_integrations.cli import display
from colpali_integrations.cli.common import NAME, open_encoder
from colpali_integrations.cli.model_options import CheckpointOptions, with_checkpoint_options
from colpali_integrations.cli.options import DebugOption, IndexModelOption, RootOption, StoreOption, given_path
from colpali_integrations.errors import MissingExtraError
from colpali_integrations.stores import MultiVectorStore

__all__ = ["serve"]


@with_checkpoint_options
def serve(
    store: StoreOption,
    options: CheckpointOptions,
    root: RootOption = None,
    model: IndexModelOption = None,
    host: Annotated[str, Option(metavar="HOST", help="Another one than loopback needs an API key.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, metavar="N", help="0 for any that is free.")] = 8765,
    api_key_file: Annotated[
        Path | None,
        Option(metavar="FILE", parser=given_path, help="With the key of requests. Default: $COLPALI_API_KEY."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="Another name of the server, such as that of a proxy. Repeatable."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Serve an index over HTTP: search, page pictures, embeddings, reranking and uploads.

    [dim]Example:[/]  colpali-integrations serve --store my-index --root reports/
    """
    try:
        from colpali_integrations.server.serving import serve as run
        from colpali_integrations.server.settings import ServerSettings, read_key
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "serve", "The server") from error
    settings = ServerSettings(
        host=host, port=port, key=read_key(api_key_file), roots=root or (), allowed_hosts=allowed_host or ()
    )
    encoder = open_encoder(model, options, store)
    with encoder, MultiVectorStore.open(store, model=encoder) as opened:

        def ready(url: str) -> None:
            display.serving(url, store, len(opened), needs_key=settings.key is not None)

        run(encoder, opened, store.resolve(), settings, ready)
    display.note(f"{NAME} has stopped.")
