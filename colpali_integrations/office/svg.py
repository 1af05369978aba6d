"""SVG pictures in Office files, without references to anything outside of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from colpali_integrations.errors import OfficeError
from colpali_integrations.office.markup import Rule, local_name, rewritten, root_name
from colpali_integrations.office.references import is_base64_picture, names_place

__all__ = ["cleaned_svg", "is_svg"]

_DROPPED = frozenset({"script", "foreignObject", "style", "iframe", "audio", "video", "handler", "listener"})
_DATA = re.compile(r"data:image/(png|jpeg|gif);base64,", re.IGNORECASE)
_URL = re.compile(r"url\s*\(\s*['\"]?\s*(?!#)", re.IGNORECASE)


def is_svg(content: bytes) -> bool:
    """Whether XML is an SVG picture."""
    return root_name(content) == "svg"


def cleaned_svg(content: bytes) -> bytes | None:
    """A picture without what leads out of it; None for one that cannot be read."""
    try:
        return rewritten(content, _Svg())
    except OfficeError:
        return None


class _Svg(Rule):
    def start(self, name: str, attributes: Mapping[str, str]) -> Mapping[str, str] | None:
        if local_name(name) in _DROPPED:
            return None
        return {key: value for key, value in attributes.items() if key.startswith("xmlns") or _stays(key, value)}


def _stays(key: str, value: str) -> bool:
    local = local_name(key).lower()
    if local in ("href", "src"):
        data = _DATA.match(value.strip())
        return value.strip().startswith("#") or (data is not None and is_base64_picture(value.strip()[data.end() :]))
    return not local.startswith("on") and local != "base" and not _URL.search(value) and not names_place(value)
