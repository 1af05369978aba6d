"""The command `export`: write a PyTorch checkpoint as an ONNX folder, and compare it with the original."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colpali_integrations.cli import display
from colpali_integrations.cli.options import DebugOption

if TYPE_CHECKING:
    from colpali_integrations.export import Exported

__all__ = ["export"]


class Precision(str, Enum):
    """Type of the weights."""

    float32 = "float32"
    float16 = "float16"


def export(
    source: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help="A folder or Hub repository: ColPali, ColModernVBERT, ColSmol."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, which must not exist yet.")],
    precision: Annotated[
        Precision, typer.Option(help="Type of the weights; float16 halves the folder and is no faster on CPUs.")
    ] = Precision.float32,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Commit, tag or branch of the repository.")
    ] = None,
    query_prefix: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help='Text before a query in the checkpoint\'s training: "<bos>Query: ".'),
    ] = None,
    query_suffix: Annotated[str | None, typer.Option(metavar="TEXT", help="The same after a query.")] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare with the original on random pages and questions.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    debug: DebugOption = False,
) -> None:
    """Write a checkpoint of colpali-engine or transformers, adapters merged, as an ONNX folder. Needs PyTorch.

    [dim]Example:[/]  colpali-integrations export vidore/colSmol-256M colsmol-onnx
    """
    from colpali_integrations.export import export_model

    exported = export_model(
        source,
        out,
        precision=precision.value,
        revision=revision,
        query_prefix=query_prefix,
        query_suffix=query_suffix,
        check=check,
        progress=display.note,
    )
    if as_json:
        typer.echo(json.dumps({**asdict(exported), "folder": str(exported.folder)}))
    else:
        _show(exported)


def _show(exported: Exported) -> None:
    display.note(
        f"{exported.kind}, {exported.size_in_bytes / 1e6:,.1f} MB. "
        f"Load it with ColPali.from_pretrained({str(exported.folder)!r})."
    )
    if not exported.known_prompts:
        prompts = exported.prompts
        display.note(
            f"Queries are written as {prompts.query_prefix + '...' + prompts.query_suffix!r}, as the "
            "installed library does. A checkpoint works well only with the exact prompt of its training: if that "
            "differs, pass --query-prefix and --query-suffix."
        )
    if exported.difference is None:
        display.note("Not compared with the original.")
        return
    difference = exported.difference
    typer.echo(
        f"against the original, on random pages and questions: components differ by at most {difference.pages:.1e} "
        f"(pages) and {difference.questions:.1e} (questions), least cosine {difference.least_cosine:.6f}, "
        f"token ids equal, pixels by at most {difference.pixels:.2f} of 2"
    )
