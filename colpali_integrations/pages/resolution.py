"""At which resolution a page is drawn, so that its picture has a wished size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colpali_integrations.pages.reference import DEFAULT_DPI

__all__ = ["dpi_for_side"]


def dpi_for_side(
    metadata: Mapping[str, Any], side: int, *, least: float = 1.0, most: float = DEFAULT_DPI
) -> float | None:
    """The resolution at which the longest side of a PDF's page has so many pixels.

    Args:
        metadata: of the page; its size may be wrong.
        side: in pixels.
        least: dpi that the result has at least.
        most: dpi that it has at most.

    Returns:
        In dpi; None for an image, and where the metadata have no size of the page.

    Example:
        >>> round(dpi_for_side({"dpi": 150.0, "width": 595.0, "height": 842.0}, 1000))  # A4, in points
        86
        >>> dpi_for_side({"width": 640, "height": 480}, 1000) is None
        True
    """
    if "dpi" not in metadata:
        return None
    try:
        longest = max(float(metadata[key]) for key in ("width", "height"))
        return min(max(72 * side / longest, least), most) if longest > 0 else None  # not NaN, either
    except (KeyError, OverflowError, TypeError, ValueError):
        return None
