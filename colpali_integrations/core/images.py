"""Whatever a user calls an image -> one RGB page.

The references read an image as `Image.open(path).convert("RGB")`, which turns transparent pages black, clips 16-bit
scans to white and ignores the orientation that cameras write. Here a page looks to the model as it looks to a person.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
import urllib.parse
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from colpali_integrations.core.errors import ImageError

__all__ = ["HasImage", "ImageSource", "image_name", "load_image", "to_rgb"]

logger = logging.getLogger(__name__)


@runtime_checkable
class HasImage(Protocol):
    """Anything that carries a picture as `image`, such as a `PdfPage`."""

    @property
    def image(self) -> Image.Image:
        """The picture."""
        ...


ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[Any] | HasImage"
)


def load_image(
    source: ImageSource, *, allow_urls: bool = False, timeout: float = 10.0, max_bytes: int = 64 * 2**20
) -> Image.Image:
    """Read an image of any kind as RGB: turned by its EXIF orientation, transparency on white, 16 bits scaled to 8.

    Args:
        source: a path, `data:` URI or http(s) URL; encoded bytes; an open binary file (rewound first); a PIL image;
            an array (height, width), (height, width, 1, 3 or 4) or (1, 3 or 4, height, width) of uint8, uint16, bool,
            or floats in [0, 1]; or an object with such a picture as `image` (a `PdfPage`). Of a file with several
            frames the first is read, and the log says so.
        allow_urls: whether http(s) URLs may be fetched.
        timeout: seconds for a URL.
        max_bytes: the largest body accepted from a URL.

    Returns:
        An RGB image of the source's size.

    Raises:
        ImageError: not readable as an image, or too large (Pillow's limit, `PIL.Image.MAX_IMAGE_PIXELS` x 2).

    Example:
        >>> import numpy as np
        >>> load_image(np.full((2, 3), 65535, dtype=np.uint16)).getpixel((0, 0))
        (255, 255, 255)
    """
    if isinstance(source, HasImage) and not isinstance(source, Image.Image):
        source = source.image
    if isinstance(source, Image.Image):
        return _finish(source, source)
    if isinstance(source, np.ndarray):
        return to_rgb(_from_array(source))
    return _open(_binary(source, allow_urls=allow_urls, timeout=timeout, max_bytes=max_bytes), source)


def image_name(source: object) -> str:
    """A short name of an image source for messages: the path or URL, else what it is."""
    if isinstance(source, str):
        return source if len(source) <= 120 and not source.startswith("data:") else f"{source[:40]}..."
    if isinstance(source, os.PathLike):
        return str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{len(source)} bytes"
    if isinstance(source, np.ndarray):
        return f"array {source.shape} of {source.dtype}"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "")) or f"{source.mode} image of {source.width}x{source.height}"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else type(source).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB: transparency is composited on white, 16-bit and float values are scaled.

    Raises:
        ImageError: a float image with values outside [0, 1] and [0, 255].
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        page.alpha_composite(layer)
        image = page
    return image.convert("RGB")


def _binary(source: object, *, allow_urls: bool, timeout: float, max_bytes: int) -> IO[bytes]:
    """An open, rewound binary stream of an encoded image."""
    if isinstance(source, str):
        if source.startswith("data:"):
            return io.BytesIO(_data_uri(source))
        if source.startswith(("http://", "https://")):
            if not allow_urls:
                raise ImageError(
                    f"{image_name(source)} is a URL, and fetching is off. Pass allow_urls=True to allow it, or fetch "
                    "it yourself and pass the bytes."
                )
            from colpali_integrations.core.fetch import fetch_url  # urllib.request is slow to import

            return io.BytesIO(fetch_url(source, timeout=timeout, max_bytes=max_bytes))
        if source.startswith("file://"):
            source = urllib.parse.unquote(urllib.parse.urlsplit(source).path)
    if isinstance(source, (str, os.PathLike)):
        try:
            return io.BytesIO(Path(source).read_bytes())
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise ImageError(f"cannot read {image_name(source)}: {error}") from error
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if callable(getattr(source, "read", None)):
        return _whole_file(source)
    raise ImageError(
        f"cannot use {type(source).__name__} as an image; expected a path, bytes, an open binary file, a PIL image, "
        "an array or a data URI"
    )


def _whole_file(file: Any) -> IO[bytes]:
    """The whole content of an open file, from its beginning: a file that was read before gives the same image again."""
    if getattr(file, "seekable", lambda: False)():
        file.seek(0)
    content = file.read()
    if not isinstance(content, bytes):
        raise ImageError(f"{image_name(file)} is open in text mode; open it with mode 'rb'")
    return io.BytesIO(content)


def _data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise ImageError(f"malformed data URI {image_name(uri)!r}: no comma")
    try:
        if head.endswith(";base64"):
            return base64.b64decode(urllib.parse.unquote(body), validate=True)
        return urllib.parse.unquote_to_bytes(body)
    except binascii.Error as error:
        raise ImageError(f"malformed base64 in data URI {image_name(uri)!r}: {error}") from error


def _open(stream: IO[bytes], source: object) -> Image.Image:
    start = stream.read(5)
    stream.seek(0)
    if start == b"%PDF-":
        raise ImageError(f"{image_name(source)} is a PDF; pass its pages: embed_images(pdf_pages(path))")
    if not start:
        raise ImageError(f"{image_name(source)} is empty")
    try:
        with Image.open(stream) as image:
            return _finish(image, source)
    except UnidentifiedImageError as error:
        raise ImageError(f"{image_name(source)} is not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{image_name(source)} is refused: {error}. Scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error


def _finish(image: Image.Image, source: object) -> Image.Image:
    """Load the pixels, turn the image upright and convert it."""
    if getattr(image, "n_frames", 1) > 1:
        logger.warning("%s has %d frames; the first is used", image_name(source), getattr(image, "n_frames", 1))
    if 0 in image.size:
        raise ImageError(f"{image_name(source)} has no pixels ({image.width}x{image.height})")
    try:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    # A broken file shows itself in many ways, depending on its format's decoder.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, MemoryError) as error:
        raise ImageError(f"{image_name(source)} is damaged or cut off: {error}") from error


def _to_8_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
            raise ImageError("a float image must hold values in [0, 1] or [0, 255]")
        scale = 255.0 if values.max() <= 1 else 1.0
    else:  # I;16 and its byte orders, and I, which holds 16-bit samples of some formats
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("an integer image must hold values in 0..65535")
        scale = 255.0 / 65535.0
    return Image.fromarray(np.rint(values.astype(np.float64) * scale).astype(np.uint8))


def _from_array(array: NDArray[Any]) -> Image.Image:
    expected = "expected (height, width), (height, width, 1, 3 or 4) or (1, 3 or 4, height, width)"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise ImageError(f"cannot use an array of shape {array.shape} as an image; {expected}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array = np.rint(array / 257.0).astype(np.uint8)
    elif array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ImageError(
                f"a float array must hold values in [0, 1], got {array.min()} to {array.max()}; for 0..255 pass uint8"
            )
        array = np.rint(array * 255.0).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(f"cannot use an array of {array.dtype} as an image; expected uint8, uint16, bool or floats")
    return Image.fromarray(np.ascontiguousarray(array))
