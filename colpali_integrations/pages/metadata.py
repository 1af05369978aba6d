"""Metadata of a page that frameworks pass around: page or text, and the key of the content.

Frameworks copy a page's metadata to the chunks of its text, and callers exchange its text or its picture. The hashes in
the metadata reveal both: a page whose text was changed is a text, and one whose picture was exchanged is another page.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

import numpy as np

from colpali_integrations._options import checked_number, shown
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.pages.identity import file_digest, page_hash, page_key, text_key

__all__ = [
    "PICTURE",
    "checked_metadata",
    "content_key",
    "describes_page",
    "has_own_picture",
    "is_unchanged",
    "page_number",
    "picture_hash",
    "picture_key",
    "shows_picture",
    "source_text",
    "storable_metadata",
    "storage_fault",
]

PICTURE = "page_picture"
"""The key of the path or address of a page's picture, in a collection of another program; see `stores.Layout`."""

_PAGE_HASH = re.compile("[0-9a-f]{64}")


def describes_page(metadata: Mapping[str, Any], text: str) -> bool:
    """Whether metadata describe a page, to be encoded as an image, and not a text.

    They contain the picture as `image_base64`, or `source`, `page`, `content_hash` and `text_hash` as the readers of
    this package write them. With a `text_hash` of another text they describe a text.

    Args:
        metadata: of a framework's document.
        text: of that document.

    Example:
        >>> describes_page({"source": "a.pdf", "page": 1}, "a chunk")
        False
    """
    if _text(metadata.get("image_base64")):
        return metadata.get("text_hash") in (None, text_key(text))
    return is_unchanged(metadata, text) and _text(metadata.get("source")) and page_number(metadata) is not None


def source_text(metadata: Mapping[str, Any]) -> str | None:
    """The document that metadata name, as a text; None where they name none.

    Collections of other programs number their documents, which counts as a name.

    Args:
        metadata: of an entry, or of a framework's document.

    Example:
        >>> source_text({"source": "a.pdf"}), source_text({"source": 7}), source_text({"source": ["a.pdf"]})
        ('a.pdf', '7', None)
    """
    source = metadata.get("source")
    is_number = isinstance(source, int) and not isinstance(source, bool)
    return str(source) if is_number or _text(source) else None


def shows_picture(metadata: Mapping[str, Any], text: str) -> bool:
    """Whether metadata have the picture of a page, or name it in a collection of another program.

    Args:
        metadata: of an entry, or of a framework's document.
        text: of the same.

    Example:
        >>> shows_picture({"image_base64": "iVBORw0KGgo="}, ""), shows_picture({"source": "a.pdf", "page": 1}, "a")
        (True, False)
    """
    has_base64 = _text(metadata.get("image_base64")) and describes_page(metadata, text)
    return has_base64 or _text(metadata.get(PICTURE))


def is_unchanged(metadata: Mapping[str, Any], text: str) -> bool:
    """Whether a reader of this package made the metadata, and text and picture are those of the page.

    Args:
        metadata: of a framework's document.
        text: of that document.
    """
    content_hash = metadata.get("content_hash")
    by_reader = isinstance(content_hash, str) and _PAGE_HASH.fullmatch(content_hash) is not None
    return by_reader and metadata.get("text_hash") == text_key(text) and has_own_picture(metadata)


def has_own_picture(metadata: Mapping[str, Any]) -> bool:
    """Whether the picture in the metadata is the one that a reader put there; true without any."""
    encoded = metadata.get("image_base64")
    return not isinstance(encoded, str) or not encoded or metadata.get("image_hash") == picture_hash(encoded)


def checked_metadata(values: Any, name: str = "metadata") -> dict[str, Any]:
    """The metadata that a caller passes for all pages of a call, as a dict.

    Args:
        values: a mapping, or None for none.
        name: of the argument, for the message.

    Raises:
        ConfigurationError: something else, or a key that is no string.

    Example:
        >>> checked_metadata({"tenant": "north"}), checked_metadata(None)
        ({'tenant': 'north'}, {})
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        example = "{'tenant': 'north'}"
        raise ConfigurationError(
            f"{name} must be a dict with the same values for every page, such as {example}, got {shown(values)}"
        )
    if wrong := [key for key in values if not isinstance(key, str)]:
        raise ConfigurationError(f"{name}: keys must be strings, got {shown(wrong[0])}")
    return dict(values)


def storable_metadata(values: Any, name: str = "metadata") -> dict[str, Any]:
    """`checked_metadata` whose values a store can keep, which is what JSON can write.

    Raises:
        ConfigurationError: as `checked_metadata`, or a value that JSON cannot write.

    Example:
        >>> storable_metadata({"when": {1, 2}})
        Traceback (most recent call last):
        colpali_integrations.errors.ConfigurationError: metadata: JSON cannot hold 'when', which is {1, 2}; pass list...
    """
    tags = checked_metadata(values, name)
    if (fault := storage_fault(tags)) is not None:
        raise ConfigurationError(f"{name}: {fault}")
    return tags


def storage_fault(values: Mapping[str, Any]) -> str | None:
    """What is wrong with metadata that a store cannot keep: the key, its value, and what to pass instead.

    Args:
        values: with any values.

    Returns:
        The message; None where JSON can write them all.

    Example:
        >>> from datetime import date
        >>> storage_fault({"title": "Tides", "read_on": date(2024, 1, 31)})
        "JSON cannot hold 'read_on', which is datetime.date(2024, 1, 31); pass value.isoformat(), a text"
    """
    for key, value in values.items():
        if (reason := _unwritable({key: value})) is not None:
            too_deep = isinstance(reason, RecursionError)
            advice = "it has too many levels" if too_deep else _advice(_unwritable_part(value))
            return f"JSON cannot hold {key!r}, which is {_shown(value)}; {advice}"
    return None


def _unwritable(value: object) -> Exception | None:
    """The reason why JSON cannot write a value; None where it can."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return error
    return None


def _unwritable_part(value: object) -> object:
    """The innermost part of a value that JSON cannot write."""
    inside: Collection[object] = value.values() if isinstance(value, dict) else ()
    if isinstance(value, list | tuple):
        inside = value
    return next((_unwritable_part(one) for one in inside if _unwritable(one) is not None), value)


def _advice(value: object) -> str:
    """What to pass in the place of a value that JSON cannot write."""
    if hasattr(value, "isoformat"):
        return "pass value.isoformat(), a text"
    if isinstance(value, np.generic):
        return "pass value.item(), a number of Python"
    if isinstance(value, np.ndarray):
        return "pass value.tolist()"
    if isinstance(value, os.PathLike):
        return "pass str(value)"
    if isinstance(value, Enum):
        return "pass value.value"
    if isinstance(value, set | frozenset):
        return "pass list(value)"
    if isinstance(value, float):
        return "pass None, because JSON has neither NaN nor infinity"
    if isinstance(value, str):
        return "pass valid Unicode: it has a lone surrogate"
    return "pass texts, finite numbers, bools, None, and lists and dicts of these with texts as keys"


def _shown(value: object) -> str:
    try:
        return shown(value)
    except RecursionError:
        return f"a {type(value).__name__}"


def content_key(metadata: Mapping[str, Any], text: str) -> str:
    """The key of a document that is equal for equal vectors: `picture_key` of a page, `text_key` of a text.

    Args:
        metadata: of a framework's document.
        text: of that document.
    """
    return picture_key(metadata, text) if describes_page(metadata, text) else text_key(text)


def picture_key(metadata: Mapping[str, Any], text: str) -> str:
    """The key of a page: by its document where text and picture are unchanged, else by the picture in the metadata.

    Args:
        metadata: that `describes_page` accepts, or with `image_base64`.
        text: of the page.
    """
    if is_unchanged(metadata, text):
        dpi = None
        with suppress(ConfigurationError):  # an image has none
            dpi = checked_number(metadata.get("dpi"), "dpi", 0, above=True)
        return page_key(metadata["content_hash"], dpi)
    encoded = metadata["image_base64"]
    try:
        picture = base64.b64decode(encoded, validate=True)
    except ValueError:  # encoding the page raises the error
        picture = encoded.encode("utf-8", "surrogatepass")
    return page_key(page_hash(file_digest(picture), 1), None)


def picture_hash(encoded: str) -> str:
    """SHA-256 of a picture in base64, as 64 hex digits."""
    return file_digest(encoded.encode("utf-8", "surrogatepass"))


def page_number(metadata: Mapping[str, Any], key: str = "page") -> int | None:
    """The 1-based number of a page, or None; some stores return all numbers as floats.

    >>> page_number({"page": 3.0}), page_number({"page": "iii"})
    (3, None)
    """
    number = metadata.get(key)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 1 <= number < 2**63:
        return None
    return int(number) if number == int(number) else None


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
