"""The command `evaluate`: its options, and the choice between measuring and drafting questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from colpali_integrations.cli import display, words
from colpali_integrations.cli.collections import opened_store
from colpali_integrations.cli.common import NAME, ExitCode, open_encoder, open_store
from colpali_integrations.cli.model_options import CheckpointOptions, with_checkpoint_options
from colpali_integrations.cli.options import (
    DebugOption,
    FilterOption,
    FirstPageOption,
    ImageFormatOption,
    MaxPixelsOption,
    MissingOption,
    ModelOption,
    PasswordOption,
    QuietOption,
    RootOption,
    StoreOption,
    check_target,
    given_path,
    json_filter,
    page_access,
)
from colpali_integrations.cli.places import StorePlace
from colpali_integrations.errors import InputError
from colpali_integrations.evaluation import Evaluation, read_questions, write_questions
from colpali_integrations.evaluation import evaluate as evaluate_questions
from colpali_integrations.evaluation.results import first_places
from colpali_integrations.models.connection import is_server

__all__ = ["evaluate"]

_HELP_QUESTIONS = "JSON Lines with question, source and page; or a folder in the layout of BEIR or ViDoRe."


@with_checkpoint_options
def evaluate(
    questions: Annotated[Path, Argument(metavar="QUESTIONS", parser=given_path, help=_HELP_QUESTIONS)],
    store: StoreOption,
    options: CheckpointOptions,
    configuration: Annotated[
        list[str] | None,
        Option(
            "--configuration",
            "-c",
            metavar="SETTINGS",
            help="A way to search, such as 'hybrid=0.2' or 'small: datatype=int8, pooling=3'. Repeatable: all are "
            "compared with the first.",
        ),
    ] = None,
    k: Annotated[
        list[int] | None, Option("-k", "--k", min=1, metavar="N", help="How many pages count. Repeatable.")
    ] = None,
    model: ModelOption = None,
    where: FilterOption = None,
    by: Annotated[str | None, Option(metavar="KEY", help="Means per value of this key, or per document.")] = None,
    over: Annotated[str, Option(metavar="UNIT", help="Intervals over questions, or over documents.")] = "questions",
    on_error: MissingOption = "raise",
    first_page: FirstPageOption = 1,
    cache: Annotated[
        Path | None,
        Option(metavar="DIR", parser=given_path, help="Keep the vectors of other models here, for later runs."),
    ] = None,
    html: Annotated[
        Path | None, Option(metavar="FILE", parser=given_path, help="Write a report with the misses' pages.")
    ] = None,
    draft: Annotated[
        str | None,
        Option(
            metavar="CHAT_MODEL",
            help="Write QUESTIONS from pages by a chat model of LangChain, such as openai:gpt-5, for you to correct.",
        ),
    ] = None,
    sample: Annotated[int, Option(min=1, metavar="N", help="With --draft: how many pages.")] = 20,
    password_file: PasswordOption = None,
    max_pixels: MaxPixelsOption = None,
    image_format: ImageFormatOption = None,
    root: RootOption = None,
    quiet: QuietOption = False,
    as_json: Annotated[bool, Option("--json", help="All results as a JSON object on stdout.")] = False,
    debug: DebugOption = False,
) -> None:
    """Measure how well questions find the pages that answer them, by several ways to search.

    [dim]Example:[/]  colpali-integrations evaluate questions.jsonl --store my-index -c mode=auto -c hybrid=0.2 --html misses.html
    """  # noqa: E501 - a line of help
    access, parsed = page_access(password_file, max_pixels, image_format, root), json_filter(where)
    if draft is not None:
        _draft(questions, store, draft, sample, {"where": parsed, **access.options})
        return
    read = read_questions(questions, first_page=first_page)
    if read.corpus is None:
        open_store(store, read_only=True).close()  # an error before a model is opened
    if html is not None:
        check_target(html)
    encodes = read.corpus is not None or any("model" in one or "float32" in one for one in configuration or ())
    hidden = quiet or not encodes
    with (
        open_encoder(model, options, store) as encoder,
        display.IndexProgress(quiet=hidden) as progress,
        opened_store(store, encoder, read_only=read.corpus is None and not is_server(store)) as opened,
    ):
        result = evaluate_questions(
            read,
            store=opened,
            configurations=configuration or None,
            k=k or 5,
            where=parsed,
            by=by,
            over=over,  # type: ignore[arg-type]  # it is checked
            on_error=on_error,  # type: ignore[arg-type]  # it is checked
            cache=cache,
            progress=progress,
            **access.options,
        )
    _show(result, html, quiet=quiet, as_json=as_json)
    if drafts := sum(bool(question.metadata.get("draft")) for question in read):
        those = (
            "is a draft: correct it, and remove its" if drafts == 1 else "are drafts: correct them, and remove their"
        )
        display.note(f'{drafts} of {display.number(len(read), "question")} {those} "draft".')
    if result.skipped:
        raise typer.Exit(ExitCode.INCOMPLETE)


def _show(result: Evaluation, html: Path | None, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
    else:
        display.evaluation(result)
    for problem in result.skipped:
        display.note(f"Left out: {problem}")
    if html is not None:
        report = result.to_html(wording=words.message)
        display.note(f"Report: {report.save(html)}")
        display.pictures_missing(report.missing)
    elif not (quiet or as_json) and (misses := result.misses()):
        display.note(
            f"{display.number(len(misses), 'question')} without a right page {first_places(result.k[0])}; "
            "--html FILE shows them."
        )


def _draft(target: Path, store: StorePlace, chat_model: str, count: int, options: dict[str, Any]) -> None:
    from colpali_integrations.langchain import draft_questions

    if target.exists():
        raise InputError(f"{target} exists already, and drafts would replace it; name another file")
    written = []
    with open_store(store, read_only=True) as opened:
        try:
            for question in draft_questions(opened, chat_model, count=count, **options):
                written.append(question)
                write_questions(written, target)  # an interruption loses none
        finally:
            if written:
                outcome = f"{display.number(len(written), 'question')} in {target}. Correct them, and remove each"
                display.note(f'{outcome} "draft"; then: {NAME} evaluate {target} --store {store}')
