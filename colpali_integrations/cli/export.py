"""The command `export`: write a checkpoint as a folder of ONNX graphs, which opens without the checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from colpali_integrations.cli import display
from colpali_integrations.cli.model_options import CheckpointOptions, with_checkpoint_options
from colpali_integrations.cli.options import DebugOption, given_path

__all__ = ["export"]


@with_checkpoint_options
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A checkpoint in safetensors: a model's name, repository or folder.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", parser=given_path, help="The folder to write, which must not exist yet.")
    ],
    options: CheckpointOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    debug: DebugOption = False,
) -> None:
    """Write a checkpoint as a folder of ONNX graphs, adapters merged, for machines without the checkpoint.

    The precision is float32 by default. Vectors are equal to the checkpoint's at the same precision. PyTorch is not
    needed.

    [dim]Example:[/]  colpali-integrations export Hcompany/NeoMME-260M-Retriever neomme-int8 --precision int8
    """
    from colpali_integrations.models.exporting import export_model

    exported = export_model(model, out, **options.given(precision="float32"))
    if as_json:
        typer.echo(json.dumps({**asdict(exported), "folder": str(exported.folder)}))
        return
    display.note(
        f"{exported.checkpoint} in {exported.precision}, {exported.size_in_bytes / 1e6:,.1f} MB. "
        + display.usage(str(exported.folder))
    )
