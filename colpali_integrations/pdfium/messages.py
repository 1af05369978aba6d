"""Messages between a caller and a worker: fields as JSON, and bytes. Neither side can make the other run code.

| part | bytes |
|---|---|
| length of the fields, length of the data | 4 and 8, big-endian |
| fields | JSON, ASCII |
| data | the content of a PDF in a request; a text in UTF-8 or pixels in a reply |
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from colpali_integrations._text import parse_json

__all__ = ["HEAD_BYTES", "MAX_FIELDS", "MAX_FONTS", "OTHER_VERSION", "PageText", "lengths", "pack", "unpack"]

_HEAD = struct.Struct(">IQ")
HEAD_BYTES = _HEAD.size
# A path, a password, an error or a label; a receiver accepts no more.
MAX_FIELDS = 2**20
# Names of missing fonts per page.
MAX_FONTS = 8
# The exit code of a worker that is of another version than its caller: their messages may differ.
OTHER_VERSION = 64


class PageText(NamedTuple):
    """The text of a page.

    Attributes:
        text: the text layer.
        missing_fonts: names of the fonts that are neither in the file nor on this machine, so that the page is drawn
            without their characters.
        judged: whether text that no viewer shows was looked for, and left out.
    """

    text: str
    missing_fonts: tuple[str, ...] = ()
    judged: bool = True


def pack(fields: Mapping[str, Any], data_length: int) -> bytes:
    """The beginning of a message, which its data follow.

    >>> pack({"call": "text", "page": 1}, 0)[HEAD_BYTES:]
    b'{"call": "text", "page": 1}'
    """
    packed = json.dumps(fields).encode("ascii")
    return _HEAD.pack(len(packed), data_length) + packed


def lengths(head: bytes | bytearray) -> tuple[int, int]:
    """The lengths of fields and data, from the first `HEAD_BYTES` bytes of a message."""
    fields, data = _HEAD.unpack(head)
    return fields, data


def unpack(fields: bytes | bytearray) -> dict[str, Any]:
    """The fields of a message.

    Raises:
        ValueError: they are not a JSON object.
    """
    unpacked = parse_json(fields)
    if not isinstance(unpacked, dict):
        raise ValueError("a message's fields must be a JSON object")
    return unpacked
