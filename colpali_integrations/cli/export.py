"""The command `export`: write a checkpoint as a folder of ONNX graphs, which opens without the checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from colpali_integrations.cli import display
from colpali_integrations.cli.options import DebugOption

__all__ = ["export"]


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A checkpoint in safetensors: a model's name, repository or folder.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, which must not exist yet.")],
    precision: Annotated[
        str, typer.Option("--precision", metavar="NAME", help="float32, float16, int8, int8-dynamic or int4.")
    ] = "float32",
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="The checkpoint that a LoRA adapter adapts: a name or folder.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Commit, tag or branch of the repository.")
    ] = None,
    allow_unused: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Beginning of the names of tensors that need not be read. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    debug: DebugOption = False,
) -> None:
    """Write a checkpoint as a folder of ONNX graphs, adapters merged, for machines without the checkpoint.

    Vectors are equal to the checkpoint's at the same precision. PyTorch is not needed.

    [dim]Example:[/]  colpali-integrations export Hcompany/NeoMME-260M-Retriever neomme-int8 --precision int8
    """
    from colpali_integrations.models.exporting import export_model

    exported = export_model(
        model,
        out,
        precision=precision,  # type: ignore[arg-type]  # `ModelOptions` refuses other words
        base=base,
        revision=revision,
        allow_unused=allow_unused,
    )
    if as_json:
        typer.echo(json.dumps({**asdict(exported), "folder": str(exported.folder)}))
        return
    display.note(
        f"{exported.checkpoint} in {exported.precision}, {exported.size_in_bytes / 1e6:,.1f} MB. "
        f"Load it with ColPali.from_pretrained({str(exported.folder)!r})."
    )
