"""The commands. They read arguments, call the package and choose the exit code; `display` writes to the terminal."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import webbrowser
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from colpali_integrations import __version__
from colpali_integrations.cli import display, words
from colpali_integrations.cli.care import register
from colpali_integrations.cli.collections import opened_store
from colpali_integrations.cli.common import EPILOG, NAME, ExitCode, open_encoder, open_store, require_store
from colpali_integrations.cli.compress import compress
from colpali_integrations.cli.copy import copy
from colpali_integrations.cli.doctor import Status, examine
from colpali_integrations.cli.evaluate import evaluate
from colpali_integrations.cli.export import export
from colpali_integrations.cli.interrupts import interrupted, terminated_as_interrupted
from colpali_integrations.cli.mcp import mcp
from colpali_integrations.cli.model_options import CheckpointOptions, with_checkpoint_options
from colpali_integrations.cli.options import (
    DebugOption,
    DocumentIdOption,
    DpiOption,
    FilterOption,
    ImageFormatOption,
    IndexModelOption,
    IsolateOption,
    JsonOption,
    MaxPixelsOption,
    ModelOption,
    PasswordOption,
    QuietOption,
    RootOption,
    StoreOption,
    check_target,
    given_path,
    hybrid_weight,
    index_fields,
    json_filter,
    page_access,
    page_numbers,
    pdf_password,
    tags,
)
from colpali_integrations.cli.quantize import quantize
from colpali_integrations.cli.roots import record_roots, roots_of
from colpali_integrations.cli.serve import serve
from colpali_integrations.errors import ColPaliError
from colpali_integrations.explain.report import DOUBTFUL
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.registry import list_supported_models
from colpali_integrations.pages.access import PageAccess
from colpali_integrations.stores import (
    Hit,
    Hits,
    IngestReport,
    find_documents,
    index_documents,
)
from colpali_integrations.stores.fusion import Hybrid
from colpali_integrations.stores.settings import Datatype, FirstStage

__all__ = ["ExitCode", "app", "run"]


class OnError(str, Enum):
    """The reaction to a document that cannot be read."""

    skip = "skip"
    raise_ = "raise"


class _Commands(TyperGroup):
    """The commands, whose errors about an option have the words of this program alone."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # Typer reads values by pydantic, whose messages begin with the class of an error.
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name=NAME,
    cls=_Commands,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Find the pages of PDFs, Office files and images that answer a question, by late interaction, offline."""


@app.command(epilog=EPILOG)
@with_checkpoint_options
def index(
    paths: Annotated[
        list[Path], Argument(metavar="PATH", parser=given_path, help="PDFs, Office files, images; or folders.")
    ],
    store: StoreOption,
    options: CheckpointOptions,
    model: IndexModelOption = None,
    first_stage: Annotated[
        FirstStage | None,
        Option(help="Scanned first in a large index. Default: the store's; for a new one it depends on the model."),
    ] = None,
    datatype: Annotated[
        Datatype | None,
        Option(help="Of the stored vectors. Default: the store's; float16 for a new one. See `compress --sample`."),
    ] = None,
    pool_factor: Annotated[
        int | None,
        Option(min=1, metavar="N", help="Store means of N similar vectors of a page. Default: the store's, or 1."),
    ] = None,
    language: Annotated[
        str | None,
        Option(metavar="NAME", help="Its stemmer serves hybrid search; or none. Default: the store's, or english."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        Option(metavar="PATTERN", help="Pass over files in folders: 'drafts/*', '*.tif'. Repeatable."),
    ] = None,
    follow_symlinks: Annotated[
        bool, Option("--follow-symlinks", help="Search folders behind symbolic links too.")
    ] = False,
    metadata: Annotated[
        list[str] | None, Option(metavar="KEY=VALUE", help="Stored with each page, for filters. Repeatable.")
    ] = None,
    index_field: Annotated[
        list[str] | None,
        Option(
            metavar="FIELD=KIND",
            help="Index a metadata field of a collection on a Qdrant server: text, number, bool, datetime or tenant. "
            "Repeatable.",
        ),
    ] = None,
    document_id: DocumentIdOption = None,
    pages: Annotated[str | None, Option(metavar="RANGES", help="Only these pages, such as 1-3,7.")] = None,
    password_file: PasswordOption = None,
    isolate: IsolateOption = True,
    max_pixels: MaxPixelsOption = None,
    image_format: ImageFormatOption = None,
    dpi: DpiOption = 150,
    force: Annotated[
        bool, Option("--force", help="Draw and embed pages that are in the index already, such as with new fonts.")
    ] = False,
    parallel: Annotated[
        int | None, Option(min=0, metavar="N", help="Batches at the same time; 0 for one per core.")
    ] = None,
    batch_size: Annotated[int | None, Option(min=1, metavar="N", help="Pages per batch.")] = None,
    on_error: Annotated[
        OnError, Option(help="Skip documents that cannot be read, or stop at the first.")
    ] = OnError.skip,
    quiet: QuietOption = False,
    as_json: Annotated[bool, Option("--json", help="The summary as a JSON object on stdout.")] = False,
    debug: DebugOption = False,
) -> None:
    """Add PDFs, Office files, images and folders to an index. Pages that it has already are not embedded again.

    [dim]Example:[/]  colpali-integrations index reports/ scan.png --store my-index
    """
    reading: dict[str, Any] = {"metadata": tags(metadata), "pages": page_numbers(pages)}
    indexes = index_fields(index_field, store)
    password = pdf_password(password_file)  # an error before the work
    finding: dict[str, Any] = {
        "exclude": exclude or (),
        "follow_symlinks": follow_symlinks,
        "image_formats": image_format or (),
    }
    documents = find_documents(paths, **finding)
    if not documents:
        display.note(f"No PDFs, Office files or images in {', '.join(map(str, paths))}.")
        if not quiet:
            display.passed_over(documents)
        if as_json:
            empty = IngestReport(passed_over=dict(documents.passed_over))
            typer.echo(json.dumps({**empty.to_dict(), "seconds": 0.0, "store": str(store)}))
        raise typer.Exit(ExitCode.INCOMPLETE)
    encoder = open_encoder(model, options, store)
    roots = roots_of(paths, documents)
    kept: dict[str, Any] = {"first_stage": first_stage, "datatype": datatype}
    kept |= {"pool_factor": pool_factor, "language": language, **({"indexes": indexes} if indexes else {})}
    with encoder, opened_store(store, encoder, **kept) as opened:
        record_roots(store, roots)  # before the work: what an interrupted one has stored may be shown
        with display.IndexProgress(quiet=quiet) as progress:
            report = index_documents(
                documents,
                model=encoder,
                store=opened,
                document_id=document_id,
                dpi=dpi,
                password=password,
                isolate=isolate,
                max_pixels=max_pixels,
                image_formats=image_format,
                force=force,
                parallel=parallel,
                batch_size=batch_size,
                on_error="raise" if on_error is OnError.raise_ else "skip",
                progress=progress,
                **reading,
            )
        if not quiet:
            display.warnings(report.warnings)
            display.passed_over(documents)
            display.twins(report.twins, store)
        if as_json:
            failures = [{"name": one.name, "error": words.reason(one.error)} for one in report.failures]
            warnings = [{"name": one.name, "warning": words.in_commands(one.message)} for one in report.warnings]
            counts = {**report.to_dict(), "failures": failures, "warnings": warnings}
            counts["seconds"] = round(progress.seconds, 3)
            typer.echo(json.dumps({**counts, "store": str(store), "pages": len(opened)}))
        elif not quiet:
            display.index_summary(report, store, opened.documents(), progress.seconds)
    if report.failures:
        raise typer.Exit(ExitCode.INCOMPLETE)


@app.command(epilog=EPILOG)
@with_checkpoint_options
def search(
    question: Annotated[list[str], Argument(metavar="QUESTION", help="The question, in your own words.")],
    store: StoreOption,
    options: CheckpointOptions,
    k: Annotated[int, Option("-k", "--top", min=1, metavar="N", help="How many pages.")] = 5,
    model: ModelOption = None,
    where: FilterOption = None,
    hybrid: Annotated[
        bool | None,
        Option(
            "--hybrid/--no-hybrid",
            help="Rank by the words of text layers too (BM25). Default: where that pays for the model.",
            show_default=False,
        ),
    ] = None,
    weight: Annotated[
        Any,
        Option(
            "--hybrid-weight",
            metavar="W",
            parser=hybrid_weight,
            help="The weight of the words for --hybrid, 0 to 1; or rrf. Default: each question decides.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        Option(metavar="FILE", parser=given_path, help="Write a report: pages, boxes that match, heatmaps."),
    ] = None,
    open_: Annotated[bool, Option("--open", "-o", help="Write the report and open it in a browser.")] = False,
    password_file: PasswordOption = None,
    max_pixels: MaxPixelsOption = None,
    image_format: ImageFormatOption = None,
    root: RootOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Find the pages that answer a question.

    [dim]Example:[/]  colpali-integrations search "revenue by region" --store my-index -k 3 --open
    """
    text, parsed = " ".join(question), json_filter(where)
    if weight is not None and hybrid is False:
        raise typer.BadParameter("--hybrid-weight is for hybrid searches; leave out --no-hybrid")
    ranking: Hybrid = weight if weight is not None else "auto" if hybrid is None else hybrid
    access = page_access(password_file, max_pixels, image_format, root)  # an error before the work
    if html is not None:
        check_target(html)
    require_store(store)
    with open_encoder(model, options, store) as encoder, open_store(store, encoder, read_only=True) as opened:
        found = opened.search(text, k, where=parsed, hybrid=ranking)
        hits = found.matching()
        if as_json:
            for hit in hits:
                typer.echo(json.dumps(_record(hit, doubtful=hits.doubtful)))
        elif hits:
            display.hits(text, hits)
            if hits.doubtful:
                display.note(DOUBTFUL)
        if hits and (html is not None or open_):
            _report(hits, html, access, open_=open_)
    if not hits:
        reason = "nothing of the question" if found else f"no pages{' that match the filter' if parsed else ''}"
        display.note(f"The index {store} has {reason}.")
        raise typer.Exit(ExitCode.INCOMPLETE)


@app.command(epilog=EPILOG)
def remove(
    store: StoreOption,
    document_id: DocumentIdOption = None,
    where: FilterOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Remove a document from an index, or all pages that match a filter.

    [dim]Example:[/]  colpali-integrations remove --store my-index --filter '{"file_name": "report.pdf"}'
    """
    parsed = json_filter(where)
    if document_id is None and not parsed:
        raise typer.BadParameter("name a document by --document-id, or pages by a --filter that is not empty")
    with open_store(store) as opened:
        removed = opened.delete(where=parsed, document_id=document_id)
        if as_json:
            typer.echo(json.dumps({"removed": removed, "pages": len(opened)}))
        else:
            display.note(f"{removed} removed; {len(opened)} left.")
    if not removed:
        raise typer.Exit(ExitCode.INCOMPLETE)


def _record(hit: Hit, *, doubtful: bool) -> dict[str, Any]:
    """A hit for scripts: the metadata without a picture, which may have megabytes."""
    entry, parts = hit.entry, {} if hit.halves is None else hit.halves.to_dict()
    halves = {"halves": {key: round(one, 4) for key, one in parts.items()}} if parts else {}
    return {
        "id": entry.id,
        "document_id": entry.document_id,
        "source": entry.source,
        "file_path": entry.metadata.get("file_path"),
        "page": entry.page,
        "score": round(hit.score, 4),
        "relevance": round(hit.relevance, 4),
        "doubtful": doubtful,
        **halves,
        "text": entry.text if entry.has_text else "",
        "metadata": {key: value for key, value in entry.metadata.items() if key != "image_base64"},
    }


def _report(hits: Hits, target: Path | None, access: PageAccess, *, open_: bool) -> None:
    if target is None:
        with tempfile.NamedTemporaryFile(prefix="colpali-", suffix=".html", delete=False) as file:
            target = Path(file.name)
    report = hits.to_html(limit=len(hits), wording=words.message, **access.options)
    display.note(f"Report: {report.save(target)}")
    display.pictures_missing(report.missing)
    if open_ and not webbrowser.open(target.absolute().as_uri()):
        display.note("No browser could be opened; open that file yourself, or set BROWSER.")


@app.command(epilog=EPILOG)
def models(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the models that can be used."""
    descriptions = list_supported_models()
    if as_json:
        for description in descriptions:
            typer.echo(json.dumps(description.to_dict()))
    else:
        display.models(descriptions)


register(app)
app.command(epilog=EPILOG)(compress)
app.command(epilog=EPILOG)(copy)
app.command(epilog=EPILOG)(evaluate)
app.command(epilog=EPILOG)(export)
app.command(epilog=EPILOG)(mcp)
app.command(epilog=EPILOG)(quantize)
app.command(epilog=EPILOG)(serve)


@app.command(epilog=EPILOG)
@with_checkpoint_options
def doctor(
    options: CheckpointOptions,
    model: Annotated[
        list[str] | None,
        Option("--model", "-m", metavar="NAME", help="Only this model: a name or folder. Repeatable."),
    ] = None,
    embed: Annotated[bool, Option(help="Let each installed model embed a page.")] = True,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check the installation, the execution providers and the model cache, and name the fix of each problem.

    [dim]Example:[/]  colpali-integrations doctor --json
    """
    if not model:
        options.require_model("name the checkpoint by --model")
    problems, group = 0, ""
    for check in examine(models=model or None, options=ModelOptions(**options.given()), embed=embed):
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


def run(arguments: list[str] | None = None) -> int:
    """Run a command. An error becomes one line on stderr, after its traceback with `--debug`.

    Args:
        arguments: of the command line; None for those of the process.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    handler = display.log_handler(logging.DEBUG if debug else logging.WARNING)
    root, package = logging.getLogger(), logging.getLogger("colpali_integrations")
    level = package.level
    root.addHandler(handler)
    if debug:
        package.setLevel(logging.DEBUG)
    try:
        with display.any_encoding(), terminated_as_interrupted():
            app(arguments, prog_name=NAME)
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else ExitCode.OK
        if code == ExitCode.INTERRUPTED:
            display.note(interrupted(arguments, exit_))
        return code
    except KeyboardInterrupt as error:  # before the command began, or after it
        display.note(interrupted(arguments, error))
        return ExitCode.INTERRUPTED
    except Exception as error:
        if debug:
            display.traceback()
        message = words.message(error)
        if not isinstance(error, ColPaliError | OSError):  # a bug, here or in a library
            advice = "" if debug else "; run it again with --debug to see where, and please report it"
            message = f"unexpected {type(error).__name__}: {error}{advice}"
        display.error(message)
        return ExitCode.ERROR
    finally:
        root.removeHandler(handler)
        package.setLevel(level)
    return ExitCode.OK
