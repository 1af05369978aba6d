"""The sizes to which pages are resized before they are cut into patches."""

from __future__ import annotations

import math

from colpali_integrations.errors import ImageError

__all__ = ["page_size", "smart_resize"]

# Qwen2-VL's processors refuse longer pages.
_LARGEST_ASPECT = 200


def page_size(
    width: int, height: int, *, max_side: int | None, min_pixels: int | None = None, max_pixels: int | None = None
) -> tuple[int, int]:
    """The size to which a page is resized: within the limits, with its aspect.

    Edges are rounded; down where rounding would exceed a limit, and up where a small page would stay too small.

    Args:
        width: in pixels.
        height: in pixels.
        max_side: the longest edge; None for no limit.
        min_pixels: pixels of a page at least, where the other limits allow it.
        max_pixels: pixels of a page at most.

    Returns:
        Width and height.

    Example:
        >>> page_size(2480, 3508, max_side=2048)
        (1448, 2048)
        >>> page_size(595, 842, max_side=2048)
        (595, 842)
    """
    area = width * height
    small = min_pixels is not None and area < min_pixels
    scale = (min_pixels / area) ** 0.5 if min_pixels is not None and small else 1.0
    if max_side is not None:
        scale = min(scale, max_side / max(width, height))
    if max_pixels is not None:
        scale = min(scale, (max_pixels / area) ** 0.5)
    if scale == 1.0:
        return width, height

    def fits(size: tuple[int, int]) -> bool:
        return (max_side is None or max(size) <= max_side) and (max_pixels is None or size[0] * size[1] <= max_pixels)

    rounded, lower, upper = (
        (max(1, to_int(width * scale)), max(1, to_int(height * scale))) for to_int in (round, math.floor, math.ceil)
    )
    if fits(rounded):
        enough = not small or min_pixels is None or rounded[0] * rounded[1] >= min_pixels
        return rounded if enough or not fits(upper) else upper
    if max_pixels is None or lower[0] * lower[1] <= max_pixels:
        return lower
    # An edge of less than a pixel became one, so the other is cut.
    if lower[1] >= lower[0]:
        return lower[0], max(1, max_pixels // lower[0])
    return max(1, max_pixels // lower[1]), lower[1]


def smart_resize(width: int, height: int, *, factor: int, limits: tuple[int, int]) -> tuple[int, int]:
    """The size to which a page is resized: multiples of `factor`, within limits, close to its own size and aspect.

    (Qwen2-VL, arXiv:2409.12191, section 2.1; transformers `smart_resize`.)

    Args:
        width: in pixels.
        height: in pixels.
        factor: pixels of a token's edge.
        limits: the least and the largest number of pixels.

    Returns:
        Width and height.

    Raises:
        ImageError: one edge is more than 200 times the other.

    Example: an A4 page at 300 dpi, in at most 768 tokens.
        >>> smart_resize(2480, 3508, factor=28, limits=(56 * 56, 768 * 28 * 28))
        (644, 896)
    """
    least, most = limits
    if max(width, height) > _LARGEST_ASPECT * min(width, height):
        raise ImageError(
            f"a page of {width} x {height} pixels has an edge more than {_LARGEST_ASPECT} times the other, which "
            "Qwen2-VL does not take; cut it into parts"
        )
    resized = [round(edge / factor) * factor for edge in (width, height)]
    if math.prod(resized) > most:
        shrink = math.sqrt(width * height / most)
        resized = [max(factor, math.floor(edge / shrink / factor) * factor) for edge in (width, height)]
    elif math.prod(resized) < least:
        grow = math.sqrt(least / (width * height))
        resized = [math.ceil(edge * grow / factor) * factor for edge in (width, height)]
    return resized[0], resized[1]
