"""Options that several commands have."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import typer

from colpali_integrations.cli import display

__all__ = ["DebugOption", "JsonOption", "StoreOption", "debugging"]

StoreOption = Annotated[Path, typer.Option("--store", "-s", metavar="DIR", help="The folder of the index.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, for scripts.")]

debugging: ContextVar[bool] = ContextVar("debug", default=False)
"""Whether `--debug` was given."""


def _set_debug(wanted: bool) -> bool:
    if wanted:
        debugging.set(True)
        logging.getLogger("colpali_integrations").setLevel(logging.DEBUG)
        display.show_all_logs()
    return wanted


DebugOption = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show the traceback of an error, and all log entries.")
]
