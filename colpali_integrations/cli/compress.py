"""The command `compress`: fewer bytes per page of an index, measured first on the user's own pages."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from colpali_integrations.cli import display
from colpali_integrations.cli.common import ExitCode, open_encoder, require_store
from colpali_integrations.cli.doctor import size_text
from colpali_integrations.cli.model_options import CheckpointOptions, with_checkpoint_options
from colpali_integrations.cli.options import (
    DebugOption,
    FirstPageOption,
    JsonOption,
    MissingOption,
    ModelOption,
    QuietOption,
    StoreFolderArgument,
    check_target,
    given_path,
)
from colpali_integrations.cli.study_page import study_page
from colpali_integrations.evaluation import Questions, read_questions
from colpali_integrations.evaluation.targets import find_answers
from colpali_integrations.stores import (
    CompressionStudy,
    MultiVectorStore,
    SampleQuestion,
    compress_store,
    delete_old_store,
    measure_compression,
)
from colpali_integrations.stores.settings import Datatype

__all__ = ["compress"]


@with_checkpoint_options
def compress(
    store: StoreFolderArgument,
    options: CheckpointOptions,
    sample: Annotated[int | None, Option(min=1, metavar="N", help="Measure on N pages, and change nothing.")] = None,
    questions: Annotated[
        Path | None,
        Option(metavar="FILE", parser=given_path, help="Your questions, as `evaluate` takes them, with --sample."),
    ] = None,
    on_error: MissingOption = "raise",
    first_page: FirstPageOption = 1,
    model: ModelOption = None,
    recall: Annotated[
        float, Option(min=0, max=1, metavar="SHARE", help="Recommend the smallest way with this recall.")
    ] = 0.98,
    html: Annotated[
        Path | None, Option(metavar="FILE", parser=given_path, help="Write the table and a plot, with --sample.")
    ] = None,
    datatype: Annotated[Datatype | None, Option(help="Of the vectors in the compressed index.")] = None,
    pool_factor: Annotated[
        int | None, Option("--pool-factor", "--pool", min=1, metavar="N", help="Keep means of N similar vectors.")
    ] = None,
    delete_old: Annotated[
        bool, Option("--delete-old", help="Delete the former index, now or after an earlier run.")
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Keep an index in fewer bytes. Measure with --sample first, then choose a --datatype and a --pool-factor.

    The former index stays beside the new one until --delete-old. An interrupted run continues.

    [dim]Example:[/]  colpali-integrations compress my-index --sample 200
    """
    chosen = datatype is not None or pool_factor is not None
    if sample is None and not (chosen or delete_old):
        raise typer.BadParameter("pass --sample N to measure, or --datatype or --pool-factor to compress")
    if sample is not None and (chosen or delete_old):
        raise typer.BadParameter(
            "--sample measures all ways and changes nothing; leave the other options for a second run"
        )
    if sample is None and (questions is not None or html is not None):
        raise typer.BadParameter("--questions and --html are for --sample")
    if questions is None and (on_error != "raise" or first_page != 1):
        raise typer.BadParameter("--on-error and --first-page are for --questions")
    if html is not None:
        check_target(html)
    with display.CountProgress("Compressing", quiet=quiet or sample is not None) as copied:
        if sample is not None:
            require_store(store)
            read = None if questions is None else read_questions(questions, first_page=first_page)
            asking = read is not None or model is not None or options.given()
            encoder = open_encoder(model, options, store) if asking else None
            with encoder or nullcontext(), MultiVectorStore.open(store, model=encoder, read_only=True) as opened:
                asked, problems = (None, []) if read is None else _found(read, opened, on_error)
                study = _study(opened, sample, asked, quiet=quiet)
            _tell_study(study, store, recall, html, quiet=quiet, as_json=as_json)
            for problem in problems:
                display.note(f"Left out: {problem}")
            if problems:
                raise typer.Exit(ExitCode.INCOMPLETE)
        elif chosen:
            report = compress_store(
                store, datatype=datatype, pool_factor=pool_factor, delete_old=delete_old, progress=copied
            )
            _tell(report.to_dict(), as_json=as_json, quiet=quiet)
        else:
            removed = delete_old_store(store)
            if as_json:
                typer.echo(json.dumps({"removed_bytes": removed}))
            elif not quiet:
                display.note(f"{size_text(removed)} removed." if removed else "There is no former index.")


def _tell(report: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report))
        return
    if report["not_pooled"]:
        display.note(f"{display.number(report['not_pooled'], 'page')} without a grid kept all vectors.")
    if not quiet:
        before, after = (size_text(report[f"bytes_{when}"]) for when in ("before", "after"))
        display.note(f"{display.number(report['entries'], 'entry', 'entries')}: {before} became {after}.")
        if report["old_path"]:
            display.note(f"The former index is in {report['old_path']}; --delete-old removes it.")


def _found(questions: Questions, store: MultiVectorStore, on_error: str) -> tuple[list[SampleQuestion], list[str]]:
    """The questions with their entries, and the problems of those that are left out."""
    entries = {entry.id: entry for entry in store.scroll()}
    found, problems = find_answers(questions, entries, store.where, on_error)  # type: ignore[arg-type]  # it is checked
    return [SampleQuestion(text=one.question.text, grades=one.grades) for one in found], problems


def _study(
    store: MultiVectorStore, sample: int, questions: list[SampleQuestion] | None, *, quiet: bool
) -> CompressionStudy:
    with display.CountProgress("Measuring", quiet=quiet) as progress:
        return measure_compression(store, sample=sample, questions=questions, progress=progress)


def _tell_study(
    study: CompressionStudy, store: Path, recall: float, html: Path | None, *, quiet: bool, as_json: bool
) -> None:
    best = study.recommended(recall)
    if as_json:
        for way in study.to_dict()["ways"]:
            typer.echo(json.dumps(way))
    else:
        display.table(*_table(study))
    if html is not None:
        html.write_text(study_page(study, best, recall), encoding="utf-8")
        display.note(f"Report: {html}")
    if not quiet:
        display.note(_advice(study, store, recall))


def _table(study: CompressionStudy) -> tuple[list[str], list[list[str]]]:
    head = [
        "datatype",
        "pool factor",
        "bytes per page",
        "recall@10",
        *(["nDCG@10"] if study.asked == "questions" else []),
    ]
    rows = [
        [
            way.datatype if way.is_compressed else f"{way.datatype} (as it is)",
            str(way.pool_factor),
            f"{way.bytes_per_page:,.0f}",
            f"{way.recall:.3f}",
            *([] if way.ndcg is None else [f"{way.ndcg:.3f}"]),
        ]
        for way in study.front()
    ]
    return head, rows


_ORIGIN = {
    "questions": "of yours",
    "text": "made of words of the pages",
    "vectors": "made of vectors of the pages, which have no text",
}


def _advice(study: CompressionStudy, store: Path, recall: float) -> str:
    best = study.recommended(recall)
    pages, questions = display.number(study.pages, "page"), display.number(study.questions, "question")
    measured = (
        f"Measured on {pages} with {questions} {_ORIGIN[study.asked]}. Each way has the highest recall of its size; "
        "recall falls with the number of pages."
    )
    if not best.is_compressed:
        return f"{measured} None reaches a recall of {recall:g}: leave the index as it is."
    pooling = f" --pool-factor {best.pool_factor}" if best.pool_factor > 1 else ""
    return (
        f"{measured} The smallest with a recall of {recall:g}: colpali-integrations compress {store} "
        f"--datatype {best.datatype}{pooling}"
    )
