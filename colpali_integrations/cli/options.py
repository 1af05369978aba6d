"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer

from colpali_integrations.cli import display

__all__ = [
    "PASSWORD",
    "DebugOption",
    "DocumentIdOption",
    "FilterOption",
    "JsonOption",
    "StoreOption",
    "debugging",
    "expand_home",
    "json_filter",
    "page_numbers",
    "pdf_password",
    "tags",
]

PASSWORD = "COLPALI_PDF_PASSWORD"

debugging: ContextVar[bool] = ContextVar("debug", default=False)
"""Whether `--debug` was given."""


def expand_home(path: Path | None) -> Path | None:
    """A path with `~` expanded, which shells leave alone in `--store=~/index`."""
    return None if path is None else Path(os.path.expanduser(path))  # noqa: PTH111 - an unknown user is no error


def page_numbers(text: str | None) -> list[int] | None:
    """Numbers and ranges.

    >>> page_numbers("1-3,7")
    [1, 2, 3, 7]
    """
    if text is None:
        return None
    found = re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text.replace(" ", ""))
    if found is None:
        raise typer.BadParameter(f"{text!r} are no pages; write them like 1-3,7")
    parts = [part.split("-") for part in found[0].split(",")]
    return [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]


def tags(pairs: Iterable[str] | None) -> dict[str, Any]:
    """Metadata from the command line; values are JSON, or else text.

    >>> tags(["tenant=north", "year=2024", 'topics=["a", "b"]'])
    {'tenant': 'north', 'year': 2024, 'topics': ['a', 'b']}
    """
    found: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{pair!r} is no KEY=VALUE")
        try:
            found[key] = json.loads(value, parse_constant=str)  # NaN is not JSON
        except ValueError:
            found[key] = value
    return found


def pdf_password(file: Path | None) -> str | None:
    """The password of encrypted PDFs, from a file or the environment: command lines can be read by every user."""
    if file is None:
        return os.environ.get(PASSWORD) or None
    return file.read_text(encoding="utf-8").rstrip("\r\n")


def json_filter(text: str | None) -> dict[str, Any] | None:
    """A filter as JSON.

    >>> json_filter('{"year": {"$gte": 2020}}')
    {'year': {'$gte': 2020}}
    """
    try:
        found = None if text is None else json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON ({error})") from error
    if not isinstance(found, dict | None):
        raise typer.BadParameter('a filter is a JSON object such as {"year": {"$gte": 2020}}')
    return found


def _set_debug(wanted: bool) -> bool:
    if wanted:
        debugging.set(True)
        logging.getLogger("colpali_integrations").setLevel(logging.DEBUG)
        display.show_all_logs()
    return wanted


StoreOption = Annotated[
    Path, typer.Option("--store", "-s", metavar="DIR", callback=expand_home, help="The folder of the index.")
]
FilterOption = Annotated[
    str | None,
    typer.Option("--filter", metavar="JSON", help='Only pages that fit, such as {"tenant": "north"}.'),
]
DocumentIdOption = Annotated[
    str | None, typer.Option("--document-id", metavar="ID", help="A document's id; by default its path and metadata.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, for scripts.")]
DebugOption = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show the traceback of an error, and all log entries.")
]
