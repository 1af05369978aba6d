"""The command `copy`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Annotated

import typer
from typer import Argument, Option

from colpali_integrations.cli import display
from colpali_integrations.cli.collections import opened_store
from colpali_integrations.cli.common import open_encoder, require_store
from colpali_integrations.cli.model_options import CheckpointOptions, with_checkpoint_options
from colpali_integrations.cli.options import (
    DebugOption,
    FilterOption,
    JsonOption,
    QuietOption,
    json_filter,
    store_place,
)
from colpali_integrations.cli.places import StorePlace
from colpali_integrations.stores import copy_store
from colpali_integrations.stores.settings import Datatype, FirstStage

__all__ = ["copy"]


@with_checkpoint_options
def copy(
    *,
    options: CheckpointOptions,
    source: Annotated[
        StorePlace,
        Argument(metavar="SOURCE", parser=store_place, help="A folder, a JSON file of a collection, or a URL."),
    ],
    target: Annotated[
        StorePlace, Argument(metavar="TARGET", parser=store_place, help="Another one, which is made if it is missing.")
    ],
    model: Annotated[
        str | None, Option("--model", "-m", metavar="NAME", help="Of a SOURCE with a layout. Default: its file's.")
    ] = None,
    where: FilterOption = None,
    first_stage: Annotated[FirstStage | None, Option(help="Of a new TARGET; it depends on the model.")] = None,
    datatype: Annotated[Datatype | None, Option(help="Of the vectors of a new TARGET; float16 by default.")] = None,
    pool_factor: Annotated[
        int | None, Option(min=1, metavar="N", help="A new TARGET stores means of N similar vectors of a page.")
    ] = None,
    language: Annotated[str | None, Option(metavar="NAME", help="Of the texts, in a new TARGET.")] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Copy an index with its vectors: between folders and Qdrant servers, or from a collection of another program.

    An interrupted run continues. Entries that TARGET has already stay, or are replaced where they have changed.

    [dim]Example:[/]  colpali-integrations copy my-index server.json
    """
    parsed = json_filter(where)
    require_store(source)
    encoder = open_encoder(model, options, source) if model is not None or options.given() else None
    settings = {"first_stage": first_stage, "datatype": datatype, "pool_factor": pool_factor, "language": language}
    with (
        encoder or nullcontext(),
        opened_store(source, encoder, read_only=True) as opened,
        opened_store(target, opened.model, **settings) as made,
    ):
        with display.CountProgress("Copying", quiet=quiet) as progress:
            report = copy_store(opened, made, where=parsed, progress=progress, waiting=progress.waiting)
        left = len(made)
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), "target": str(target), "pages": left}))
    elif not quiet:
        updated = f", {report.updated} updated" if report.updated else ""
        there = f", {report.present} there already" if report.present else ""
        bare = f", {report.without_vectors} without vectors left out" if report.without_vectors else ""
        copied = display.number(report.copied, "entry", "entries")
        display.note(f"{copied} copied{updated}{there}{bare}; {target} has {left}.")
