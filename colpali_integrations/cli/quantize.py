"""The command `quantize`: make a model's int8 weights, and compare it with the original on the user's pages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colpali_integrations.cli import display
from colpali_integrations.cli.model_options import CheckpointOptions, with_checkpoint_options
from colpali_integrations.cli.options import DebugOption, DpiOption, given_path

if TYPE_CHECKING:
    from colpali_integrations.models.quantizing import Agreement, Quantized

__all__ = ["quantize"]


@with_checkpoint_options
def quantize(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name or folder: a float32 ONNX export, or a checkpoint.")
    ],
    options: CheckpointOptions,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            parser=given_path,
            help="The folder to write, which must not exist yet; for an export only.",
        ),
    ] = None,
    pages: Annotated[
        list[Path] | None,
        typer.Option(
            "--pages",
            "-p",
            metavar="PATH",
            parser=given_path,
            help="A PDF, an image or a folder of them to compare on.",
        ),
    ] = None,
    questions: Annotated[
        list[str] | None, typer.Option("--question", "-q", metavar="TEXT", help="A question to rank the pages by.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, metavar="N", help="Maximum number of pages to compare on.")] = 50,
    dpi: DpiOption = 150,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    debug: DebugOption = False,
) -> None:
    """Make a model's int8 weights, a quarter of the size, and report how close its outputs are to the original's.

    An ONNX export is written into OUT. A checkpoint's weights, in int8 or --precision int8-dynamic, are kept in the
    cache, where other commands find them by that option.

    [dim]Example:[/]  colpali-integrations quantize my-export my-export-int8 -p report.pdf -q "revenue by region"
    """
    from colpali_integrations.errors import InputError
    from colpali_integrations.models.colpali import ColPali
    from colpali_integrations.models.loading import describe
    from colpali_integrations.models.options import ModelOptions
    from colpali_integrations.models.quantizing import check_not_exported, compare, quantize_model

    if questions and not pages:
        raise InputError("questions rank pages: pass some with --pages")
    sample = _pages(pages, most, dpi) if pages else None  # a missing path is an error before the work
    given = options.given()
    description, _ = describe(model, ModelOptions(**given))  # refuses options of checkpoints for an export
    check_not_exported(description)
    precision = given.pop("precision", "int8")
    if description.is_checkpoint and precision == "float32":
        raise InputError("float32 is the precision of the original: pass --precision int8 or int8-dynamic")
    if out is None and not description.is_checkpoint:
        raise InputError(f"{description.name} is an ONNX export: name the folder to write, OUT")
    quantized = None if out is None else quantize_model(model, out, revision=options.revision)
    if quantized is None:
        opened = ColPali.from_pretrained(model, precision=precision, **given)
    else:
        opened = quantized.load(lazy_load=True)
    agreement = None
    with opened as other:
        if sample is not None:
            if description.is_checkpoint:  # its description may say int8
                reference = ColPali.from_pretrained(model, precision="float32", **given)
            else:
                reference = ColPali.from_pretrained(model, **given)
            with reference as original:
                agreement = compare(original, other, sample, questions or [])
    if as_json:
        made = {"precision": precision} if quantized is None else _folder_record(quantized)
        typer.echo(json.dumps(_record(made, agreement)))
        return
    if quantized is None:
        display.note(display.usage(model, {"precision": precision, **given}))
    else:
        _show_made(quantized)
    _show(agreement)


def _pages(paths: list[Path], most: int, dpi: float) -> Callable[[], Iterator[Any]]:
    from colpali_integrations.errors import InputError
    from colpali_integrations.pages.paged import is_paged
    from colpali_integrations.pages.pdf import pdf_pages
    from colpali_integrations.stores import find_documents

    documents = find_documents(paths)
    if not documents:
        raise InputError(f"no PDFs, Office files or images in {', '.join(str(path) for path in paths)}")

    def every() -> Iterator[Any]:
        for document in documents:
            if is_paged(document):
                yield from pdf_pages(document, dpi=dpi)
            else:
                yield document

    return lambda: islice(every(), most)


def _folder_record(quantized: Quantized) -> dict[str, Any]:
    record = {**asdict(quantized), "folder": str(quantized.folder)}
    del record["registered"]
    return record


def _record(made: dict[str, Any], agreement: Agreement | None) -> dict[str, Any]:
    record = dict(made)
    if agreement is not None:
        record |= {"pages": agreement.pages, "questions": agreement.questions, "k": agreement.k}
        for name in ("page", "query"):
            cosines = getattr(agreement, f"{name}_cosines")
            if len(cosines):
                record |= {f"{name}_cosine_mean": cosines.mean(), f"{name}_cosine_least": cosines.min()}
        for name in ("same_first", "overlap", "rank_correlation"):
            value = getattr(agreement, name)
            record[name] = None if math.isnan(value) else value
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in record.items()}


def _show_made(quantized: Quantized) -> None:
    registered, folder = quantized.registered, str(quantized.folder)
    usage = display.usage(folder) if registered is None else display.usage(registered, folder=folder)
    display.note(
        f"{quantized.products} matrix products in int8: {quantized.bytes_before / 1e6:,.1f} MB became "
        f"{quantized.bytes_after / 1e6:,.1f} MB. {usage}"
    )


def _show(agreement: Agreement | None) -> None:
    if agreement is None:
        display.note("Not compared with the original: pass pages with --pages, and questions with --question.")
        return
    for name, cosines in (("pages", agreement.page_cosines), ("questions", agreement.query_cosines)):
        if len(cosines):
            low = float(sorted(cosines)[len(cosines) // 100])
            typer.echo(
                f"{len(cosines):,} vectors of {getattr(agreement, name)} {name}: cosine with the original "
                f"{cosines.mean():.4f} on average, {low:.4f} at the lowest percentile, {cosines.min():.4f} at least"
            )
    if agreement.questions:
        correlation = agreement.rank_correlation
        typer.echo(
            f"ranks of {agreement.pages} pages for {agreement.questions} questions: the same page first "
            f"{agreement.same_first:.0%}, first {agreement.k} in common {agreement.overlap:.0%}"
            + ("" if math.isnan(correlation) else f", rank correlation {correlation:.3f}")
        )
