"""The commands. They read arguments, call the package and choose the exit code; `display` writes to the terminal."""

from __future__ import annotations

import functools
import json
import logging
import os
import tempfile
import webbrowser
from collections.abc import Callable
from contextlib import nullcontext
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from colpali_integrations.cli import display
from colpali_integrations.cli.export import export
from colpali_integrations.cli.options import (
    PASSWORD,
    DebugOption,
    DocumentIdOption,
    FilterOption,
    JsonOption,
    StoreOption,
    debugging,
    expand_home,
    json_filter,
    page_numbers,
    pdf_password,
    tags,
)
from colpali_integrations.cli.quantize import quantize
from colpali_integrations.errors import ColPaliError, StoreError

if TYPE_CHECKING:
    from colpali_integrations.models.colpali import ColPali
    from colpali_integrations.stores import Hits, MultiVectorStore

__all__ = ["ExitCode", "app", "run"]

NAME = "colpali-integrations"
Arguments = ParamSpec("Arguments")


class ExitCode(IntEnum):
    """Exit codes, for scripts."""

    OK = 0
    ERROR = 1
    USAGE = 2
    INCOMPLETE = 3
    INTERRUPTED = 130


class OnError(str, Enum):
    """How to treat a document that cannot be read."""

    skip = "skip"
    raise_ = "raise"


_EPILOG = (
    "Exit codes: 0 done; 1 error; 2 wrong usage; 3 nothing found, some documents could not be indexed, or doctor "
    "found a problem; 130 interrupted."
)

app = typer.Typer(
    name=NAME,
    help="Find the pages of PDFs and images that answer a question, by late interaction, offline.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _guarded(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Let errors of a command become one line and an exit code; with `--debug` the traceback comes first."""

    @functools.wraps(command)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):
            raise
        except (ColPaliError, OSError) as error:
            if debugging.get():
                display.traceback()
            display.error(str(error))
            raise typer.Exit(ExitCode.ERROR) from error
        except Exception as error:  # a bug, here or in a library; it gets one line too
            if debugging.get():
                display.traceback()
            advice = "" if debugging.get() else "; run it again with --debug to see where, and please report it"
            display.error(f"unexpected {type(error).__name__}: {error}{advice}")
            raise typer.Exit(ExitCode.ERROR) from error
        except KeyboardInterrupt:
            display.note("Interrupted. Finished pages are kept; the same command continues from there.")
            raise typer.Exit(ExitCode.INTERRUPTED) from None

    return guarded


def _version(wanted: bool) -> None:
    if wanted:
        from colpali_integrations import __version__

        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Find the pages of PDFs and images that answer a question, by late interaction, offline."""


@app.command(epilog=_EPILOG)
@_guarded
def index(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="PDFs, images, and folders that are searched through.")
    ],
    store: StoreOption,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="NAME", help="A model's name or folder. Default: the store's, or coltiny."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", metavar="PATTERN", help="Pass over files in folders: 'drafts/*', '*.tif'. Repeatable."
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="KEY=VALUE", help="Stored with each page, for filters. Repeatable."),
    ] = None,
    document_id: DocumentIdOption = None,
    pages: Annotated[
        str | None, typer.Option("--pages", metavar="RANGES", help="Only these pages, such as 1-3,7.")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=expand_home, help=f"With the password of the PDFs. Default: ${PASSWORD}."
        ),
    ] = None,
    dpi: Annotated[
        float, typer.Option(min=10, max=1200, metavar="N", help="Resolution at which PDF pages are drawn.")
    ] = 150,
    parallel: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Batches at the same time; 0 for one per core.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Pages per batch.")] = None,
    on_error: Annotated[
        OnError, typer.Option(help="Skip documents that cannot be read, or stop at the first.")
    ] = OnError.skip,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; errors still show.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as a JSON object on stdout.")] = False,
    debug: DebugOption = False,
) -> None:
    """Add PDFs, images and folders to an index. Pages that it holds already are not embedded again.

    [dim]Example:[/]  colpali-integrations index reports/ scan.png --store my-index
    """
    from colpali_integrations.models.colpali import ColPali
    from colpali_integrations.stores import IngestReport, MultiVectorStore, find_documents, index_documents

    own, numbers, password = tags(metadata), page_numbers(pages), pdf_password(password_file)
    documents = find_documents(paths, exclude=exclude or ())
    if not documents:
        display.note(f"No PDFs or images in {', '.join(str(path) for path in paths)}.")
        if as_json:
            typer.echo(json.dumps({**IngestReport().to_dict(), "seconds": 0.0, "store": str(store)}))
        raise typer.Exit(ExitCode.INCOMPLETE)
    encoder = ColPali.from_pretrained(model or _model_of(store), lazy_load=True)
    with encoder, MultiVectorStore.open(store, model=encoder) as opened:
        with display.IndexProgress(quiet=quiet) as progress:
            report = index_documents(
                documents,
                model=encoder,
                store=opened,
                metadata=own,
                document_id=document_id,
                pages=numbers,
                dpi=dpi,
                password=password,
                parallel=parallel,
                batch_size=batch_size,
                on_error="raise" if on_error is OnError.raise_ else "skip",
                progress=progress,
            )
        display.failures(report.failures)
        if as_json:
            counts = {**report.to_dict(), "seconds": round(progress.seconds, 3), "store": str(store)}
            typer.echo(json.dumps({**counts, "pages": len(opened)}))
        elif not quiet:
            display.index_summary(report, store, opened.documents(), progress.seconds)
    if report.failures:
        raise typer.Exit(ExitCode.INCOMPLETE)


@app.command(epilog=_EPILOG)
@_guarded
def search(
    question: Annotated[list[str], typer.Argument(metavar="QUESTION", help="The question, in your own words.")],
    store: StoreOption,
    k: Annotated[int, typer.Option("-k", "--top", min=1, metavar="N", help="How many pages.")] = 5,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="A model's name or folder. Default: the store's."),
    ] = None,
    where: FilterOption = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Rank by the words of the text layer too (BM25), where pages have one.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", callback=expand_home, help="Write a report: pages, boxes that match, heatmaps."
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", "-o", help="Write the report and open it in a browser.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Find the pages that answer a question.

    [dim]Example:[/]  colpali-integrations search "revenue by region" --store my-index -k 3 --open
    """
    from colpali_integrations.models.colpali import ColPali

    text, fitting = " ".join(question), json_filter(where)
    with (
        nullcontext() if model is None else ColPali.from_pretrained(model, lazy_load=True) as encoder,
        _existing(store, encoder) as opened,
    ):
        hits = opened.search(text, k, where=fitting, hybrid=hybrid)
        if as_json:
            for hit in hits:
                entry, scores = hit.entry, {"score": round(hit.score, 4), "relevance": round(hit.relevance, 4)}
                found = {"document_id": entry.document_id, "source": entry.source, "page": entry.page}
                typer.echo(json.dumps({**found, **scores}))
        elif hits:
            display.hits(text, hits)
        if hits and (html is not None or open_):
            _report(hits, html, open_=open_)
    if not hits:
        display.note(f"The index {store} has no pages{' that fit the filter' if fitting else ''}.")
        raise typer.Exit(ExitCode.INCOMPLETE)


@app.command(epilog=_EPILOG)
@_guarded
def remove(
    store: StoreOption,
    document_id: DocumentIdOption = None,
    where: FilterOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Remove a document from an index, or all pages that fit a filter.

    [dim]Example:[/]  colpali-integrations remove --store my-index --filter '{"file_name": "report.pdf"}'
    """
    fitting = json_filter(where)
    with _existing(store) as opened:
        removed = opened.delete(where=fitting, document_id=document_id)
        if as_json:
            typer.echo(json.dumps({"removed": removed, "pages": len(opened)}))
        else:
            display.note(f"{removed} removed; {len(opened)} left.")
    if not removed:
        raise typer.Exit(ExitCode.INCOMPLETE)


def _existing(store: Path, model: ColPali | None = None) -> MultiVectorStore:
    from colpali_integrations.stores import MultiVectorStore, stored_settings

    if stored_settings(store) is None:
        raise StoreError(f"there is no store at {store}: make one with {NAME} index PATH --store {store}")
    return MultiVectorStore.open(store, model=model)


def _report(hits: Hits, target: Path | None, *, open_: bool) -> None:
    if target is None:
        handle, name = tempfile.mkstemp(prefix="colpali-", suffix=".html")
        os.close(handle)
        target = Path(name)
    written = hits.to_html(limit=len(hits)).save(target)
    display.note(f"Report: {written}")
    if open_ and not webbrowser.open(written.as_uri()):
        display.note("No browser could be opened; open that file yourself, or set BROWSER.")


@app.command(epilog=_EPILOG)
@_guarded
def models(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the models that can be used."""
    from colpali_integrations.models.registry import list_supported_models

    descriptions = list_supported_models()
    if as_json:
        for description in descriptions:
            typer.echo(json.dumps(description.to_dict()))
    else:
        display.models(descriptions)


app.command("export", epilog=_EPILOG)(_guarded(export))
app.command("quantize", epilog=_EPILOG)(_guarded(quantize))


@app.command(epilog=_EPILOG)
@_guarded
def doctor(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="NAME", help="Only this model; may be given several times."),
    ] = None,
    embed: Annotated[bool, typer.Option(help="Let each installed model embed a page.")] = True,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check the installation, the execution providers and the model cache, and name the fix of each problem.

    [dim]Example:[/]  colpali-integrations doctor --json
    """
    from colpali_integrations.cli.doctor import Status, examine
    from colpali_integrations.models.registry import find_model

    chosen = None if not model else [find_model(name) for name in model]
    problems, group = 0, ""
    for check in examine(models=chosen, embed=embed):
        problems += check.status is Status.problem
        if as_json:
            typer.echo(json.dumps(check.to_dict()))
        else:
            display.check(check, heading=check.group != group)
        group = check.group
    if not as_json:
        display.diagnosis(problems)
    if problems:
        raise typer.Exit(ExitCode.INCOMPLETE)


def _model_of(store: Path) -> str:
    """The model of an existing store, so that only the first run needs `--model`."""
    from colpali_integrations.stores import stored_settings

    settings = stored_settings(store)
    return "coltiny" if settings is None else settings.model.name


def run(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: instead of the process's own.

    Returns:
        The exit code.
    """
    handler = display.log_handler()
    root, package = logging.getLogger(), logging.getLogger("colpali_integrations")
    level, debug = package.level, debugging.set(False)
    root.addHandler(handler)
    # pypdfium2 warns about XFA forms, whose plain pages are drawn anyway.
    logging.getLogger("pypdfium2").setLevel(logging.ERROR)
    try:
        app(arguments, prog_name=NAME)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else ExitCode.OK
    finally:
        root.removeHandler(handler)
        package.setLevel(level)
        debugging.reset(debug)
    return ExitCode.OK
