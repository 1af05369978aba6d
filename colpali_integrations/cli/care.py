"""The commands that look after a store: `info`, `list`, `delete`, `prune`, `verify`, `repair` and `backup`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from colpali_integrations.cli import display
from colpali_integrations.cli.common import EPILOG, ExitCode, open_store
from colpali_integrations.cli.options import (
    DebugOption,
    JsonOption,
    QuietOption,
    StoreArgument,
    StoreFolderArgument,
    given_path,
)
from colpali_integrations.stores import repair_store, verify_store

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (info, list_, delete, prune, verify, repair, backup):
        app.command(command.__name__.rstrip("_"), epilog=EPILOG)(command)


def info(store: StoreArgument, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show the model, the first stage and the size of an index.

    [dim]Example:[/]  colpali-integrations info my-index
    """
    with open_store(store, read_only=True) as opened:
        facts = opened.info().to_dict()
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        display.facts(facts)


def list_(store: StoreArgument, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the documents of an index, with the number of pages of each.

    [dim]Example:[/]  colpali-integrations list my-index --json
    """
    with open_store(store, read_only=True) as opened:
        documents = opened.documents()
    _list(documents, as_json=as_json)
    if not documents:
        display.note(f"The index {store} has no documents.")
        raise typer.Exit(ExitCode.INCOMPLETE)


def delete(
    store: StoreArgument,
    document: Annotated[list[str], Argument(metavar="DOCUMENT", help="Ids of documents, as list prints them.")],
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete documents from an index. The files themselves stay.

    [dim]Example:[/]  colpali-integrations delete my-index /data/report.pdf
    """
    with open_store(store) as opened:
        removed = {one: opened.delete(document_id=one) for one in dict.fromkeys(document)}
        left = len(opened)
    if as_json:
        typer.echo(json.dumps({"removed": sum(removed.values()), "pages": left}))
    elif not quiet:
        display.note(f"{sum(removed.values())} removed; {left} left.")
    if unknown := [one for one, number in removed.items() if not number]:
        display.note(f"Not in the index: {', '.join(unknown)}. Name documents by their ids, as `list` prints them.")
        raise typer.Exit(ExitCode.INCOMPLETE)


def prune(
    store: StoreFolderArgument,
    root: Annotated[Path, Argument(metavar="ROOT", parser=given_path, help="The folder of the documents.")],
    yes: Annotated[bool, Option("--yes", "-y", help="Delete them from the index.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the documents under a folder whose files are gone; with --yes, delete them from the index.

    A folder that is missing or empty, such as that of a disk that is not mounted, is refused.

    [dim]Example:[/]  colpali-integrations prune my-index reports/ --yes
    """
    with open_store(store, read_only=not yes) as opened:
        found = opened.prune(root, delete=yes)
    if as_json or not (yes and quiet):
        _list(found, as_json=as_json)
    if not quiet:
        outcome = "deleted" if yes else "would be deleted; run it again with --yes"
        display.note(f"{display.number(len(found), 'document')} {outcome if found else 'gone'}.")


def verify(
    store: StoreFolderArgument, quiet: QuietOption = False, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Check everything in an index against its checksums.

    [dim]Example:[/]  colpali-integrations verify my-index
    """
    report = verify_store(store)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        for problem in report.problems:
            display.result(str(problem))
        if not report.ok:
            display.note(f"{display.number(len(report.problems), 'problem')}. Run: colpali-integrations repair {store}")
        elif not quiet:
            display.note(f"No problems in {display.number(report.entries, 'entry', 'entries')}.")
    if not report.ok:
        raise typer.Exit(ExitCode.INCOMPLETE)


def repair(
    store: StoreFolderArgument, quiet: QuietOption = False, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Make a damaged index sound again: keep what is intact, and list the pages to index again.

    [dim]Example:[/]  colpali-integrations repair my-index
    """
    report = repair_store(store)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        for lost in report.lost:
            display.result(f"lost: {lost.name} ({lost.document_id or lost.id or 'unknown'}): {lost.reason}")
        for name in report.set_aside:
            display.note(f"Set aside: {store / name}")
        if not quiet:
            outcome = f"{report.kept} kept, {len(report.rebuilt)} of them rebuilt; {len(report.lost)} lost."
            display.note(outcome if report.problems else "No problems; nothing was changed.")
        if report.lost:
            display.note("Index the documents of the lost pages again.")
        if any(name.endswith(".unknown") for name in report.set_aside):
            display.note("The damaged database does not name all entries: index all documents again.")
    if report.lost:
        raise typer.Exit(ExitCode.INCOMPLETE)


def backup(
    store: StoreFolderArgument,
    folder: Annotated[Path, Argument(metavar="FOLDER", parser=given_path, help="A new or an empty folder.")],
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Copy an index, also while it is in use, and check the copy.

    [dim]Example:[/]  colpali-integrations backup my-index /backups/my-index
    """
    with open_store(store) as opened:
        report = opened.backup(folder)
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), "store": str(folder)}))
    elif not quiet:
        display.note(f"{display.number(report.entries, 'entry', 'entries')} copied to {folder} and checked.")


def _list(documents: dict[str, int], *, as_json: bool) -> None:
    for document, pages in documents.items():
        if as_json:
            typer.echo(json.dumps({"document_id": document, "pages": pages}))
        else:
            display.result(f"{pages:>6}  {document}")
