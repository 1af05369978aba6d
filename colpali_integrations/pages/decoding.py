"""Decoding of pictures that may come from strangers: formats, size, damaged EXIF data.

A few kilobytes can decode to gigabytes, so a picture is refused by its header where it has more than `max_pixels`
pixels, or where decoding it would take more than six bytes for each of `max_pixels`. Decoding takes:

| for | bytes per pixel |
|---|---|
| the picture in Pillow's memory | 1 in the modes 1, L and P, 2 in I;16, 4 in all others, RGB among them |
| the largest of: its RGB copy, for a picture of another mode or with transparency | 4 (5 for 16 bits and more) |
| a turned copy, for some EXIF orientations | as the picture |
| the decoder of a JPEG of several scans, such as a progressive one | 2 per sample |
| of JPEG 2000 | 5 per sample |
| of WebP | 13 |
| of AVIF, and of formats of plugins | 12 |
| of TIFF | the bytes of its largest compressed strip or tile |
| of PPM as text, and of compressed BMP | 3 per sample |

and 8 bytes per row of the picture and of its copy.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, ImageFile

from colpali_integrations._forks import hold_during_forks
from colpali_integrations.errors import ImageError
from colpali_integrations.pages.formats import ImageLimits, formats_of, refusal
from colpali_integrations.pages.rgb import to_rgb
from colpali_integrations.pages.tiff import ORIENTATION

__all__ = ["check_size", "is_unread", "load_pixels", "open_picture", "upright_rgb"]

_BYTES_PER_PIXEL = 6
_POINTER = 8
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where Pillow looks for an orientation; a picture that was turned must not be turned again.
_ORIENTED_BY = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_TEXT_CODECS = ("ppm", "ppm_plain", "bmp_rle")  # decoded in Python, by way of copies of the samples


def open_picture(file: IO[bytes], suffix: str, limits: ImageLimits) -> ImageFile.ImageFile:
    """Open a picture, whose pixels are not read yet; of a TIFF the first frame.

    `PIL.Image.open` does the same for all formats that Pillow has, and applies Pillow's own limit of pixels, which
    belongs to the process and not to the caller.

    Args:
        file: a seekable binary file.
        suffix: of its name, such as ".tga"; "" without one.
        limits: with the formats that are read.

    Raises:
        ImageError: the file has another format.
        Exception: what Pillow raises for a damaged file.
    """
    file.seek(0)
    prefix = file.read(16)
    for name in formats_of(prefix, suffix, limits):
        file.seek(0)
        try:
            with _pillow_allows(math.ceil(limits.max_pixels / 2)):  # it refuses beyond twice its limit
                return Image.OPEN[name][0](file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # it has another format after all
            continue
    raise ImageError(refusal(prefix))


def check_size(image: Image.Image, limits: ImageLimits, orientation: int | None = None) -> None:
    """Refuse a picture by its size.

    Args:
        image: a picture whose pixels are not read yet, or not converted yet.
        limits: with the most pixels.
        orientation: of the EXIF data; None looks for it where that reads no pixels.

    Raises:
        ImageError: a side is 0, or decoding would take too much memory.
    """
    width, height = image.size
    if 0 in image.size:
        raise ImageError(f"has no pixels ({width}x{height})")
    if orientation is None:
        # Looking for them, Pillow would read all of a PNG without EXIF data before its pixels.
        orientation = 1 if image.format == "PNG" and "exif" not in image.info else _exif_orientation(image)
    taken = _decoding_bytes(image, orientation)
    counted = max(width * height, math.ceil(taken / _BYTES_PER_PIXEL))
    if counted > limits.max_pixels:
        raise ImageError(
            f"is refused: it has {width * height / 1e6:,.1f} megapixels ({width}x{height}, mode {image.mode}), and "
            f"decoding it takes {taken / 1e6:,.0f} MB. The limits are {limits.max_pixels / 1e6:g} megapixels and "
            f"{limits.max_pixels * _BYTES_PER_PIXEL / 1e6:,.0f} MB. Scale it down, or pass max_pixels={counted} for a "
            "picture that you trust"
        )


def is_unread(image: Image.Image) -> bool:
    """Whether a picture is a file whose pixels are not in memory yet."""
    core = vars(image).get("_im", vars(image).get("im"))  # Pillow before 11.1 has no `_im`
    return isinstance(image, ImageFile.ImageFile) and (bool(image.tile) or core is None)


def load_pixels(image: Image.Image, *, own: bool = False) -> int:
    """Read the pixels of a picture.

    Args:
        image: from `open_picture`, or the caller's.
        own: whether nothing else uses the picture, which `upright_rgb` then uses up.

    Returns:
        The EXIF orientation that the pixels have now; 1, upright, for EXIF data that cannot be read.

    Raises:
        Exception: what Pillow raises for a damaged file.
    """
    is_tiff = isinstance(image, ImageFile.ImageFile) and image.format == "TIFF"
    # Pillow turns a TIFF once its pixels are read, and fails there if other tags than the orientation are damaged.
    before = _exif_orientation(image) if is_tiff and own else None
    if before is not None:
        image.load_end = lambda: None  # type: ignore[attr-defined]
    with _pillow_allows(image.width * image.height):
        try:
            image.load()
        except Exception:
            if not is_tiff or own or getattr(image, "tile", True):
                raise
    return _exif_orientation(image) if before is None else before


def upright_rgb(image: Image.Image, orientation: int, *, own: bool = False, shared: bool = False) -> Image.Image:
    """Turn a picture by its EXIF orientation and convert it to RGB.

    Args:
        image: with its pixels read.
        orientation: 1 to 8.
        own: as for `load_pixels`.
        shared: whether the result may share the pixels of the picture, which the caller then only reads.

    Raises:
        ImageError: its values are out of range.
    """
    turn = _TURNS.get(orientation)
    upright = image if turn is None else image.transpose(turn)
    if turn is not None and own:
        image.close()
    result = to_rgb(upright)
    if result is image:
        # As a plain picture, without the file. A picture of the caller's is copied, unless it is shared.
        result = image._new(image.im) if own or shared else image.copy()
    for key in _ORIENTED_BY:
        result.info.pop(key, None)
    return result


def _exif_orientation(image: Any) -> int:
    try:
        is_tiff = isinstance(image, ImageFile.ImageFile) and image.format == "TIFF"
        value = (image.tag_v2 if is_tiff else image.getexif()).get(ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _decoding_bytes(image: Image.Image, orientation: int) -> int:
    """The most memory that decoding takes at a time; the table of this module says what it is made of."""
    pixels = image.width * image.height
    mode = _MODE_BYTES.get(image.mode, 4)
    is_rgb = image.mode == "RGB" and "transparency" not in image.info
    copy = 0 if is_rgb else 5 if image.mode[0] in "IF" else 4
    if orientation in _TURNS:
        copy = max(copy, mode)
    # Pillow has a pointer for each row of a picture, which counts where rows are short.
    rows = _POINTER * (max(image.size) if orientation in _TURNS else image.height)
    return pixels * mode + rows + max(pixels * copy + rows * bool(copy), _decoder_bytes(image, pixels))


def _decoder_bytes(image: Any, pixels: int) -> int:
    samples: int = pixels * len(image.getbands())
    kind = image.format or ""
    if kind in ("JPEG", "MPO"):
        several = image.info.get("progressive") or _begins_with_one_colour(image)
        return _coefficients(image, pixels) if several else 0
    if kind == "TIFF":
        return _segment_bytes(image.tag_v2)
    if kind in ("PPM", "BMP"):
        return 3 * samples if image.tile and image.tile[0][0] in _TEXT_CODECS else 0
    known: dict[str, int] = {"PNG": 0, "GIF": 0, "TGA": 0, "JPEG2000": 5 * samples, "WEBP": 13 * pixels}
    return known[kind] if kind in known else 12 * pixels


def _begins_with_one_colour(image: Any) -> bool:
    """Whether a JPEG has a scan per colour. Pillow has just read the header of the first scan, of 8 bytes for one."""
    if image.fp is None:  # it is decoded
        return False
    at = image.fp.tell()
    image.fp.seek(max(0, at - 8))
    header = image.fp.read(3)
    image.fp.seek(at)
    return header == b"\0\x08\x01" and len(image.layer) > 1


def _coefficients(image: Any, pixels: int) -> int:
    """A JPEG of several scans is kept as 2 bytes per sample until the last one; colours may have fewer samples."""
    factors: list[tuple[int, int]] = [(layer[1], layer[2]) for layer in image.layer]
    most: int = max(h for h, _ in factors) * max(v for _, v in factors)
    return math.ceil(2 * pixels * sum(h * v for h, v in factors) / most)


def _segment_bytes(tags: Any) -> int:
    """The largest strip or tile of a compressed TIFF, which libtiff unpacks before Pillow copies it."""

    def number(tag: int, default: int) -> int:
        value = tags.get(tag, default)
        first = value[0] if isinstance(value, tuple) and value else value
        return first if isinstance(first, int) and first > 0 else default

    compression, samples, bits = number(259, 1), number(277, 1), number(258, 1)
    if compression == 1:
        return 0
    is_ycbcr = number(262, 0) == 6  # unpacked to four samples
    width, height = number(256, 1), number(257, 1)
    strip = width * min(number(278, height), height)
    tile = number(322, 0) * number(323, 0)
    return math.ceil((tile or strip) * max(samples * bits, 32 if is_ycbcr else 0) / 8)


# -- Pillow's own limit -----------------------------------------------------------------------------------------------

_limit = threading.Lock()
hold_during_forks(_limit)
_allowed: list[int] = []
_before: int | None = None


@contextmanager
def _pillow_allows(pixels: int) -> Iterator[None]:
    """Let Pillow decode so many pixels without a DecompressionBombWarning.

    `PIL.Image.MAX_IMAGE_PIXELS` belongs to the process, so it is left alone for all pictures but those beyond it, which
    `check_size` has let through.
    """
    global _before
    with _limit:
        if not _allowed:
            _before = Image.MAX_IMAGE_PIXELS
        raised = _before is not None and pixels > _before
        if raised:
            _allowed.append(pixels)
            Image.MAX_IMAGE_PIXELS = max(_allowed)
    try:
        yield
    finally:
        if raised:
            with _limit:
                _allowed.remove(pixels)
                Image.MAX_IMAGE_PIXELS = max(_allowed, default=_before)
