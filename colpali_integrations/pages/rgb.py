"""Pictures of all modes and arrays as RGB: transparency on white, 16-bit and float values scaled.

A large picture is converted in bands, so that a copy in another mode never exists as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import ImageError

__all__ = ["array_image", "to_rgb"]

_BAND = 2**20  # pixels


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB: transparency is composited on white, 16-bit and float values are scaled.

    Modes "I" and "I;16" count as 16-bit samples, 0..65535, whatever values they hold. Mode "F" counts as [0, 1] when no
    value is greater, otherwise as [0, 255].

    Raises:
        ImageError: the values are outside these ranges.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", image.size)
    for box, band in _bands(image):
        if band.mode == "La":  # premultiplied: Pillow converts it only to LA
            band = band.convert("LA")
        white = Image.new("RGBA", band.size, "white")
        white.alpha_composite(band.convert("RGBA"))
        page.paste(white.convert("RGB"), box)
    return page


def _to_8_bit(image: Image.Image) -> Image.Image:
    scale = _scale(image)
    grey = np.empty((image.height, image.width), np.uint8)
    for (_, top, _, bottom), band in _bands(image):
        values = np.asarray(band)
        rows = grey[top:bottom]
        rows[:] = np.rint(values.astype(np.float64) * scale)
        if isinstance(image.info.get("transparency"), int):  # the one grey level that a PNG declares transparent
            rows[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _scale(image: Image.Image) -> float:
    least, most = np.inf, -np.inf
    for _, band in _bands(image):
        values = np.asarray(band)
        least, most = np.minimum(least, values.min()), np.maximum(most, values.max())  # not a number stays so
    if image.mode == "F":
        if not (least >= 0 and most <= 255):
            raise ImageError("a float image must hold values in [0, 1] or [0, 255]")
        return 255.0 if most <= 1 else 1.0
    # I;16 and its byte orders, and I, which has 16-bit samples in some formats
    if least < 0 or most > 65535:
        raise ImageError("an integer image must hold values in 0..65535")
    return 255.0 / 65535.0


def _bands(image: Image.Image) -> Iterator[tuple[tuple[int, int, int, int], Image.Image]]:
    """Cut a picture into bands of about `_BAND` pixels, each with its box: left, top, right, bottom."""
    width, height = image.size
    rows = max(1, _BAND // width)
    if rows >= height:
        yield (0, 0, width, height), image
        return
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        yield box, image.crop(box)


def array_image(array: NDArray[Any]) -> Image.Image:
    """A picture of an array; `pages.load_image` says which arrays.

    Raises:
        ImageError: another shape, dtype or range of values.
    """
    expected = "expected (height, width), (height, width, 1, 3 or 4) or (1, 3 or 4, height, width)"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise ImageError(f"cannot use an array of shape {array.shape} as an image; {expected}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.newbyteorder("=") == np.uint16:
        array = np.rint(array / 257.0).astype(np.uint8)
    elif array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ImageError(
                f"a float array must hold values in [0, 1], got {array.min()} to {array.max()}; for 0..255 pass uint8"
            )
        # At least float32: half precision is too coarse for the product.
        array = np.rint(array.astype(np.promote_types(array.dtype, np.float32)) * 255.0).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(f"cannot use an array of {array.dtype} as an image; expected uint8, uint16, bool or floats")
    return Image.fromarray(np.ascontiguousarray(array))
