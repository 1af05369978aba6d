"""Pictures in the payloads of a collection that another program has made, as metadata from which pages are drawn."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from colpali_integrations.pages.metadata import PICTURE

__all__ = ["PICTURE_KEYS", "picture_metadata", "stored_picture"]

PICTURE_KEYS = ("image_base64", "image_mime_type", PICTURE)
"""The keys of `picture_metadata`."""

_PNG = "image/png"
_DATA_URL = re.compile(r"data:([^,;]*)(?:;[^,;]*)*;base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", re.IGNORECASE)
_LONGEST_PATH = 4096
_SHORTEST = 64  # characters in base64 of the smallest picture, nearly: "/9j/" may also begin a path
# How pictures begin.
_TYPES = {
    b"\x89PNG": _PNG,
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
    b"BM": "image/bmp",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
}


def picture_metadata(value: Any) -> dict[str, str]:
    """The metadata of a picture: its base64 and type, or its path or address; none of a value that is no text.

    Args:
        value: base64, with or without the head of a data URL, a path or a URL. A text that is too long for a path is
            base64; whether it can be read shows when it is drawn.

    Example:
        >>> picture_metadata("data:image/jpeg;base64,/9j/4AAQ")
        {'image_base64': '/9j/4AAQ', 'image_mime_type': 'image/jpeg'}
        >>> picture_metadata("pages/3.png"), picture_metadata({"url": "x"})
        ({'page_picture': 'pages/3.png'}, {})
    """
    if not isinstance(value, str) or not value:
        return {}
    if head := _DATA_URL.match(value):
        return {"image_base64": value[head.end() :], "image_mime_type": head[1].strip() or _PNG}
    if _ADDRESS.match(value):
        return {PICTURE: value}
    kind = _type_of(value)
    if kind is not None or len(value) > _LONGEST_PATH:
        return {"image_base64": value, "image_mime_type": kind or _PNG}
    return {PICTURE: value}


def stored_picture(metadata: Mapping[str, Any], *, as_url: bool) -> str | None:
    """The value of a payload for the picture in metadata; None without one.

    Args:
        metadata: of an entry.
        as_url: whether base64 gets the head of a data URL, as the collection's other pictures have it.
    """
    encoded = metadata.get("image_base64")
    if not isinstance(encoded, str) or not encoded:
        named = metadata.get(PICTURE)
        return named if isinstance(named, str) and named else None
    return f"data:{metadata.get('image_mime_type', _PNG)};base64,{encoded}" if as_url else encoded


def _type_of(text: str) -> str | None:
    """The media type of a picture in base64; None for a text that is none."""
    if len(text) < _SHORTEST:
        return None
    start = "".join(text[:32].split())
    try:
        content = base64.b64decode(start[: len(start) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return None
    return next((kind for begin, kind in _TYPES.items() if content.startswith(begin)), None)
