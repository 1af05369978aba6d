"""Loading images of many kinds as RGB.

The reference implementations read an image as `Image.open(path).convert("RGB")`, which turns transparent pages black,
clips 16-bit scans to white and ignores the orientation that cameras write. `load_image` handles all three.
"""

from __future__ import annotations

import io
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from colpali_integrations._forks import hold_during_forks
from colpali_integrations._logs import package_logger
from colpali_integrations.errors import ImageError
from colpali_integrations.pages._local_urls import read_data_uri, read_file_url
from colpali_integrations.pages._urls import is_web_url, shown_url

__all__ = ["HasImage", "ImageSource", "image_name", "is_one_image", "load_image", "read_whole", "to_rgb"]

logger = package_logger(__name__)

# Several threads decode images, and a caller may pass one open file, or one image that Pillow has opened but not yet
# read, many times: two threads reading it at once would mix up their bytes.
_reading = threading.Lock()
hold_during_forks(_reading)


@runtime_checkable
class HasImage(Protocol):
    """An object with a picture as `image`, such as a `PdfPage`."""

    @property
    def image(self) -> Image.Image:
        """The picture."""


ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[Any] | HasImage"
)


def load_image(
    source: ImageSource,
    *,
    allow_urls: bool = False,
    allow_private_urls: bool = False,
    timeout: float = 10.0,
    max_bytes: int = 64 * 2**20,
) -> Image.Image:
    """Read an image of any kind as RGB: turned by its EXIF orientation, transparency on white, 16 bits scaled to 8.

    Args:
        source: a path, `data:` URI or http(s) URL; encoded bytes; an open binary file (rewound first); a PIL image;
            an array (height, width), (height, width, 1, 3 or 4) or (1, 3 or 4, height, width) of uint8, uint16, bool,
            or floats in [0, 1]; or an object with such a picture as `image` (a `PdfPage`). For a file with several
            frames, the first one is read, with a log entry; for a PIL image, its current frame.
        allow_urls: whether http(s) URLs may be fetched, from public addresses.
        allow_private_urls: whether they may be fetched from this machine and private networks too.
        timeout: seconds for a URL.
        max_bytes: the largest body accepted from a URL.

    Returns:
        An RGB image of the source's size (width and height exchanged for some EXIF orientations).

    Raises:
        ImageError: `source` cannot be read as an image, or is a decompression bomb: beyond twice
            `PIL.Image.MAX_IMAGE_PIXELS`, which is 179 megapixels. Between once and twice that limit an image is read
            with Pillow's own DecompressionBombWarning, because warning filters belong to the process and not to the
            threads of a library. To read such scans silently, raise MAX_IMAGE_PIXELS; to refuse them, make the warning
            an error.

    Example:
        >>> import numpy as np
        >>> load_image(np.full((2, 3), 65535, dtype=np.uint16)).getpixel((0, 0))
        (255, 255, 255)
    """
    if isinstance(source, HasImage) and not isinstance(source, Image.Image):
        source = source.image
    if isinstance(source, np.ndarray):
        return to_rgb(_from_array(source))
    if isinstance(source, Image.Image):
        return _decode(source)
    return _decode(source, _content(source, allow_urls, allow_private_urls, timeout, max_bytes))


def is_one_image(images: object) -> bool:
    """Whether `images` is one image. Files iterate by line and arrays by row, but are single images too."""
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, HasImage)):
        return True
    return hasattr(images, "read") or (isinstance(images, np.ndarray) and images.ndim in (2, 3))


def image_name(source: object) -> str:
    """A short name of an image source for messages: the path, or the URL without its query, or the kind of object."""
    if isinstance(source, str):
        if is_web_url(source):
            return shown_url(source)
        return source if len(source) <= 300 and not source.lower().startswith("data:") else f"{source[:40]}..."
    if isinstance(source, os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{memoryview(source).nbytes} bytes"
    if isinstance(source, np.ndarray):
        return f"array {source.shape} of {source.dtype}"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "")) or f"{source.mode} image of {source.width}x{source.height}"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else type(source).__name__


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
    elif image.mode == "La":  # premultiplied: Pillow converts it only to LA
        image = image.convert("LA")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        page.alpha_composite(layer)
        image = page
    return image.convert("RGB")


def _content(source: object, allow_urls: bool, allow_private_urls: bool, timeout: float, max_bytes: int) -> bytes:
    """The bytes of an encoded image."""
    if isinstance(source, str):
        scheme = source[:8].lower()  # the case of schemes does not matter (RFC 3986)
        if scheme.startswith("data:"):
            return read_data_uri(source)
        if is_web_url(source):
            if not allow_urls:
                raise ImageError(
                    f"{image_name(source)} is a URL, and fetching is off. Pass allow_urls=True to allow it, or fetch "
                    "it yourself and pass the bytes."
                )
            from colpali_integrations.pages._fetch import fetch_url  # slow to import

            return fetch_url(source, timeout=timeout, max_bytes=max_bytes, allow_private=allow_private_urls)
        if scheme.startswith("file://"):
            source = read_file_url(source)
    if isinstance(source, (str, os.PathLike)):
        return _file_at(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return source if isinstance(source, bytes) else memoryview(source).tobytes()  # a view may have gaps
    if callable(getattr(source, "read", None)):
        return _whole_file(source)
    raise ImageError(
        f"cannot use {type(source).__name__} as an image; expected a path, bytes, an open binary file, a PIL image, "
        "an array or a data URI"
    )


def _file_at(path: str | os.PathLike[Any]) -> bytes:
    try:
        file = Path(os.fsdecode(path))
        if file.exists() and not file.is_file() and not file.is_dir():
            raise ImageError(f"cannot read {image_name(path)}: it is a device or a pipe, and not a file")
        return file.read_bytes()
    except OSError as error:
        # strerror: the full message repeats the path, which is long if it is base64 by mistake.
        hint = "; is it base64? Pass a data URI, or the decoded bytes" if len(os.fsdecode(path)) > 300 else ""
        raise ImageError(f"cannot read {image_name(path)}: {error.strerror or error}{hint}") from error
    except ValueError as error:  # a null byte, or a lone surrogate
        raise ImageError(f"cannot read {image_name(path)!r}: {error}") from error


def read_whole(file: Any) -> Any:
    """Read the whole content of an open file from its beginning, whatever its position."""
    with _reading:
        if getattr(file, "seekable", lambda: False)():
            file.seek(0)
        return file.read()


def _whole_file(file: Any) -> bytes:
    try:
        content = read_whole(file)
    except (OSError, ValueError) as error:  # ValueError: closed, or not UTF-8 in text mode
        raise ImageError(f"cannot read {image_name(file)}: {error}") from error
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise ImageError(f"{image_name(file)} does not return bytes; open it in binary mode ('rb')")
    return bytes(content)


def _decode(source: object, content: bytes | None = None) -> Image.Image:
    """Decode a PIL image, or the encoded `content` of a source."""
    if content == b"":
        raise ImageError(f"{image_name(source)} is empty")
    try:
        if isinstance(source, Image.Image):
            return _finish(source, source, lock=_reading)
        with Image.open(io.BytesIO(content or b"")) as image:
            return _finish(image, source, lock=nullcontext())
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        if content and b"%PDF-" in content[:1024]:  # readers accept it anywhere in the first kilobyte
            raise ImageError(f"{image_name(source)} is a PDF; pass its pages: embed_images(pdf_pages(path))") from error
        raise ImageError(f"{image_name(source)} is not an image that Pillow can read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{image_name(source)} is refused: {error}. Scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    # The exceptions for a broken file depend on the decoder of its format: OSError, SyntaxError, ValueError,
    # EOFError, IndexError, KeyError, RuntimeError, struct.error and more.
    except Exception as error:
        raise ImageError(
            f"{image_name(source)} is damaged, cut off, or of a kind that Pillow cannot decode: {error}"
        ) from error


def _finish(image: Image.Image, source: object, *, lock: AbstractContextManager[Any]) -> Image.Image:
    """Load the pixels, turn the image upright and convert it."""
    if 0 in image.size:
        raise ImageError(f"{image_name(source)} has no pixels ({image.width}x{image.height})")
    with lock:
        frames = getattr(image, "n_frames", 1) if image.tell() == 0 else 1
        image.load()
    if frames > 1:
        logger.warning(
            "%s has %d frames; the first is used. Pass the others as separate images (PIL.ImageSequence)",
            image_name(source),
            frames,
        )
    return to_rgb(ImageOps.exif_transpose(image))


def _to_8_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
            raise ImageError("a float image must hold values in [0, 1] or [0, 255]")
        scale = 255.0 if values.max() <= 1 else 1.0
    else:  # I;16 and its byte orders, and I, which has 16-bit samples in some formats
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("an integer image must hold values in 0..65535")
        scale = 255.0 / 65535.0
    grey = np.rint(values.astype(np.float64) * scale).astype(np.uint8)
    if isinstance(image.info.get("transparency"), int):  # the one grey level that a PNG declares transparent
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


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
