"""Options that several commands share, and the parsers of their values."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Option

from colpali_integrations._paths import user_path
from colpali_integrations.cli import display, words
from colpali_integrations.cli.collections import is_collection
from colpali_integrations.cli.places import StorePlace
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.models.connection import is_server, server_url
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess
from colpali_integrations.pages.identity import check_metadata
from colpali_integrations.stores.qdrant.index_kinds import checked_indexes

__all__ = [
    "DebugOption",
    "DocumentIdOption",
    "FilterOption",
    "JsonOption",
    "PasswordOption",
    "QuietOption",
    "RootOption",
    "ServedRootOption",
    "StoreOption",
]

PASSWORD = "COLPALI_PDF_PASSWORD"


_MOST_PAGES = 1_000_000  # of a document, as the reader of PDFs has it


def given_path(text: str | Path) -> Path:
    """Parse a path: expand `~`, which shells leave alone in `--store=~/index`, and refuse what is no path."""
    try:
        return user_path(text)
    except InputError as error:
        raise BadParameter(str(error)) from error


def store_folder(text: str | Path) -> Path:
    """Parse the folder of an index, and refuse the file of a collection, and URLs."""
    if is_collection(path := store_here(text)):
        raise BadParameter(f"{path} names a collection on a server, and this takes the folder of an index")
    return path


def store_here(text: str | Path) -> Path:
    """Parse the folder of an index, or the JSON file of a collection; a path would make a folder `http:` of a URL."""
    if is_server(text):
        raise BadParameter(
            f"{text} is the URL of a server, and this command takes a folder: run it on the machine of the server; "
            "index, search, evaluate, info, list, delete, remove and mcp take the URL"
        )
    return given_path(text)


def store_place(text: str | Path) -> StorePlace:
    """Parse the place of an index: a folder, the JSON file of a collection, or the URL of a server (`serve`)."""
    if not is_server(text):
        return given_path(text)
    try:
        return server_url(str(text))
    except ConfigurationError as error:
        raise BadParameter(words.message(error)) from error


def page_numbers(text: str | None) -> list[int] | None:
    """Parse numbers and ranges.

    >>> page_numbers("1-3,7")
    [1, 2, 3, 7]
    """
    if text is None:
        return None
    ranges = text.replace(" ", "").split(",")
    if not all(re.fullmatch(r"\d+(-\d+)?", each) for each in ranges):
        raise BadParameter(f"{text!r} is not a list of pages; write them like 1-3,7")
    bounds = [each.split("-") for each in ranges]
    # Before the numbers are read: Python refuses those of thousands of digits.
    if any(len(number.lstrip("0")) > len(str(_MOST_PAGES)) for bound in bounds for number in bound):
        raise BadParameter(_too_many(text))
    if any(not 1 <= int(bound[0]) <= int(bound[-1]) for bound in bounds):
        raise BadParameter(f"{text!r}: pages count from 1, and a range begins with the smaller number, such as 1-3")
    found = [range(int(bound[0]), int(bound[-1]) + 1) for bound in bounds]
    if sum(map(len, found)) > _MOST_PAGES:
        raise BadParameter(_too_many(text))
    return [number for numbers in found for number in numbers]


def _too_many(text: str) -> str:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{shown!r} are more than {_MOST_PAGES:,} pages, and a document may have no more"


def tags(pairs: Iterable[str] | None) -> dict[str, Any]:
    """Parse metadata; values are JSON, or else text.

    >>> tags(["tenant=north", "year=2024", 'topics=["a", "b"]'])
    {'tenant': 'north', 'year': 2024, 'topics': ['a', 'b']}
    """
    metadata: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise BadParameter(f"{pair!r} is not of the form KEY=VALUE")
        try:
            metadata[key] = json.loads(value, parse_constant=str)  # NaN is not JSON
        except ValueError:
            metadata[key] = value
        except RecursionError as error:
            raise BadParameter(f"{key} has too many levels of objects and lists") from error
    check_metadata(metadata)
    return metadata


def index_fields(pairs: Iterable[str] | None, store: StorePlace) -> dict[str, str]:
    """Parse the metadata fields that get an index, and the kinds of their values.

    Args:
        pairs: FIELD=KIND.
        store: of the command, which has to be the file of a collection.

    Example:
        >>> index_fields(["year=number", "tenant=tenant"], Path("server.json"))
        {'year': 'number', 'tenant': 'tenant'}
    """
    indexes: dict[str, str] = {}
    for pair in pairs or ():
        field, _, kind = pair.rpartition("=")
        try:
            indexes |= checked_indexes({field: kind})
        except ConfigurationError as error:
            raise BadParameter(
                f"--index-field {pair!r} is not of the form FIELD=KIND: {words.message(error)}"
            ) from error
    if indexes and not is_collection(store):
        raise BadParameter(
            f"--index-field is for a collection on a Qdrant server, whose JSON file --store names, and {store} is "
            f"{'the URL of a server of this package' if is_server(store) else 'a folder, whose filters need no index'}"
        )
    return indexes


def pdf_password(file: Path | None) -> str | None:
    """Read the password of encrypted PDFs from a file or the environment: every user can read command lines."""
    if file is None:
        return os.environ.get(PASSWORD) or None
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise BadParameter(f"--password-file {file} cannot be read: {reason}") from error


def page_access(
    password_file: Path | None, max_pixels: int | None, image_formats: list[str] | None, roots: list[Path] | None
) -> PageAccess:
    """How the files of pages are opened, from the options of a command."""
    return DEFAULT_ACCESS.override(
        password=pdf_password(password_file), max_pixels=max_pixels, image_formats=image_formats, roots=roots or None
    )


def json_filter(text: str | None) -> dict[str, Any] | None:
    """Parse a filter.

    >>> json_filter('{"year": {"$gte": 2020}}')
    {'year': {'$gte': 2020}}
    """
    try:
        parsed = None if text is None else json.loads(text)
    except ValueError as error:
        raise BadParameter(f"{text!r} is not JSON ({error})") from error
    except RecursionError as error:
        raise BadParameter("the filter has too many levels of filters within filters") from error
    if not isinstance(parsed, dict | None):
        raise BadParameter('a filter is a JSON object such as {"year": {"$gte": 2020}}')
    return parsed


def hybrid_weight(text: str | float) -> float | str:
    """Parse the weight of the words in a hybrid search.

    >>> hybrid_weight("0.3"), hybrid_weight("rrf")
    (0.3, 'rrf')
    """
    with suppress(ValueError):
        if 0 <= (weight := float(text)) <= 1:
            return weight
    if text != "rrf":
        raise BadParameter(f"{text!r} is neither a number from 0 to 1 nor rrf")
    return text


def check_target(path: Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it gets.

    Raises:
        InputError: it is a folder, its folder does not exist, or writing is not permitted.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise InputError(f"--html: {path} is a folder; name a file in it, such as {path / 'report.html'}")
    if not folder.is_dir():
        raise InputError(f"--html: there is no folder {folder}; make it, or name a file in another one")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"--html: writing {path} is not permitted; name a file in another folder")


def _quietly(quiet: bool) -> bool:
    if quiet:
        display.show_errors_alone()
    return quiet


StoreOption = Annotated[
    StorePlace,
    Option(
        "--store",
        "-s",
        metavar="PLACE",
        parser=store_place,
        help="The index: a folder, a JSON file of a collection, or the URL of a server (key in $COLPALI_API_KEY).",
    ),
]
StoreArgument = Annotated[
    StorePlace,
    Argument(metavar="STORE", parser=store_place, help="A folder, a JSON file of a collection, or a URL."),
]
StoreFolderOption = Annotated[
    Path, Option("--store", "-s", metavar="DIR", parser=store_here, help="The folder, or a JSON file of a collection.")
]
StoreFolderArgument = Annotated[Path, Argument(metavar="STORE", parser=store_folder, help="The folder of the index.")]
ModelOption = Annotated[
    str | None, Option("--model", "-m", metavar="NAME", help="A model's name, folder or URL. Default: the store's.")
]
IndexModelOption = Annotated[
    str | None,
    Option("--model", "-m", metavar="NAME", help="A model's name, folder or URL. Default: the store's, or coltiny."),
]
MissingOption = Annotated[
    str, Option(metavar="ACTION", help="raise or skip: questions whose pages the index does not have.")
]
FirstPageOption = Annotated[
    int, Option(min=0, max=1, metavar="N", help="The first page of a document, as questions count: 1 or 0.")
]
DpiOption = Annotated[float, Option(min=10, max=1200, metavar="N", help="Resolution of rendered PDF pages.")]
FilterOption = Annotated[
    str | None, Option("--filter", metavar="JSON", help='Only matching pages, such as {"tenant": "north"}.')
]
ServedRootOption = Annotated[
    list[Path] | None,
    Option(
        "--root",
        metavar="DIR",
        parser=given_path,
        help="Show pages of files in this folder as pictures, beside those that you have indexed. Repeatable.",
    ),
]
DocumentIdOption = Annotated[
    str | None, Option(metavar="ID", help="A document's id; by default its path and metadata.")
]
JsonOption = Annotated[bool, Option("--json", help="One JSON object per line on stdout, for scripts.")]
PasswordOption = Annotated[
    Path | None,
    Option(metavar="FILE", parser=given_path, help=f"With the password of the PDFs. Default: ${PASSWORD}."),
]
IsolateOption = Annotated[
    bool, Option("--isolate/--no-isolate", help="Read PDFs in processes with limits of time and memory.")
]
MaxPixelsOption = Annotated[
    int | None, Option(min=1, metavar="N", help="Refuse images with more pixels. Default: 160000000.")
]
ImageFormatOption = Annotated[
    list[str] | None,
    Option(
        "--image-format", metavar="NAME", help="Read images of this format of Pillow too, such as HEIF. Repeatable."
    ),
]
RootOption = Annotated[
    list[Path] | None,
    Option(
        "--root",
        metavar="DIR",
        parser=given_path,
        help="Show only pages of files in this folder as pictures. Repeatable.",
    ),
]
QuietOption = Annotated[
    bool, Option("--quiet", "-q", callback=_quietly, help="Nothing but errors: no progress, summary or warnings.")
]
# `app.run` looks for `--debug` before the arguments are parsed.
DebugOption = Annotated[bool, Option("--debug", help="Show the traceback of an error, and all log entries.")]
