"""The command `mcp`."""

from __future__ import annotations

import sys
from typing import Annotated

from typer import Option

from colpali_integrations._paths import check_roots
from colpali_integrations.cli import display
from colpali_integrations.cli.common import open_encoder, open_store, require_store
from colpali_integrations.cli.model_options import CheckpointOptions, with_checkpoint_options
from colpali_integrations.cli.options import DebugOption, FilterOption, ServedRootOption, StoreOption, json_filter
from colpali_integrations.cli.roots import recorded_roots
from colpali_integrations.errors import MissingExtraError
from colpali_integrations.pages.access import PageAccess, root_folders
from colpali_integrations.stores.current import CurrentStore

__all__ = ["mcp"]


@with_checkpoint_options
def mcp(
    store: StoreOption,
    options: CheckpointOptions,
    root: ServedRootOption = None,
    model: Annotated[
        str | None, Option("--model", "-m", metavar="NAME", help="A model's name or folder. Default: the store's.")
    ] = None,
    where: FilterOption = None,
    debug: DebugOption = False,
) -> None:
    """Give agents tools to search and read an index, over MCP on stdin and stdout.

    A client starts this command; see the page on agents for its configuration.

    [dim]Example:[/]  colpali-integrations mcp --store my-index --root reports/
    """
    try:
        from colpali_integrations.agents.stdio import run_stdio
        from colpali_integrations.agents.tools import PageTools
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "mcp", "The MCP server") from error
    parsed, roots = json_filter(where), root or []
    check_roots(roots)
    require_store(store)
    with open_encoder(model, options, store) as encoder, open_store(store, encoder, read_only=True) as opened:
        if sys.stdin.isatty():
            display.note("This command waits for an MCP client on stdin; Ctrl-C ends it.")
        current = CurrentStore(opened)
        limits = encoder.image_limits

        def access() -> PageAccess:
            return PageAccess(limits=limits, folders=root_folders([*roots, *recorded_roots(store)]))

        try:
            run_stdio(PageTools(current, access=access, where=parsed))
        finally:
            current.close()
