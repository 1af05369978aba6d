"""Loading images of many kinds as RGB.

The reference implementations read an image as `Image.open(path).convert("RGB")`, which turns transparent pages black,
clips 16-bit scans to white and ignores the orientation that cameras write. `load_image` handles all three.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import IO, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations._forks import hold_during_forks
from colpali_integrations._logs import package_logger
from colpali_integrations._options import checked_timeout, checked_whole
from colpali_integrations.errors import ImageError
from colpali_integrations.pages._local_urls import is_file_url, read_data_uri, read_file_url
from colpali_integrations.pages._urls import is_web_url, shown_url
from colpali_integrations.pages._walks import file_frames
from colpali_integrations.pages.decoding import check_size, is_unread, load_pixels, open_picture, upright_rgb
from colpali_integrations.pages.files import open_file
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.pages.rgb import array_image, to_rgb
from colpali_integrations.pages.tiff import TiffFrames, is_tiff

__all__ = [
    "HasImage",
    "ImagePages",
    "ImageSource",
    "borrow_image",
    "image_name",
    "is_one_image",
    "load_image",
    "read_whole",
]

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
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[Any] | HasImage
)


def load_image(
    source: ImageSource,
    *,
    allow_urls: bool = False,
    allow_private_urls: bool = False,
    timeout: float = 10.0,
    max_bytes: int = 64 * 2**20,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
) -> Image.Image:
    """Read an image of any kind as RGB: turned by its EXIF orientation, transparency on white, 16 bits scaled to 8.

    Args:
        source: a path, `data:` URI, `file:` or http(s) URL; encoded bytes; an open binary file (rewound first); a PIL
            image; an array (height, width), (height, width, 1, 3 or 4) or (1, 3 or 4, height, width) of uint8, uint16,
            bool, or floats in [0, 1]; or an object with such a picture as `image` (a `PdfPage`). For a file with
            several frames, the first one is read, with a log entry; for a PIL image, its current frame.
        allow_urls: whether http(s) URLs may be fetched, from public addresses.
        allow_private_urls: whether they may be fetched from this machine and private networks too.
        timeout: seconds for a URL, with its redirects.
        max_bytes: the largest body accepted from a URL.
        max_pixels: the most pixels of a picture that is decoded. Decoding may take six bytes for each of them, so that
            a picture with transparency or of some formats may have fewer; see `docs/strangers.md`. Arrays, and PIL
            images whose pixels are in memory, have no limit, and `PIL.Image.MAX_IMAGE_PIXELS` plays no part.
        image_formats: names of Pillow's formats to read besides PNG, JPEG, TIFF, WebP, GIF, BMP, PPM, JPEG 2000, AVIF
            and TGA (by its suffix), such as "PSD"; "HEIF" with pillow-heif.

    Returns:
        An RGB image of the source's size (width and height exchanged for some EXIF orientations).

    Raises:
        ImageError: `source` cannot be read as an image, has another format, or is beyond the limit.
        ConfigurationError: timeout, max_bytes, max_pixels or image_formats has an invalid value.

    Example:
        >>> import numpy as np
        >>> load_image(np.full((2, 3), 65535, dtype=np.uint16)).getpixel((0, 0))
        (255, 255, 255)
    """
    return _loaded(source, allow_urls, allow_private_urls, timeout, max_bytes, ImageLimits(max_pixels, image_formats))


def borrow_image(
    source: ImageSource,
    *,
    allow_urls: bool = False,
    allow_private_urls: bool = False,
    timeout: float = 10.0,
    max_bytes: int = 64 * 2**20,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
) -> Image.Image:
    """`load_image`, whose result may share the pixels of a PIL image: for callers that only read it."""
    limits = ImageLimits(max_pixels, image_formats)
    return _loaded(source, allow_urls, allow_private_urls, timeout, max_bytes, limits, shared=True)


def _loaded(
    source: Any,
    allow_urls: bool,
    allow_private_urls: bool,
    timeout: float,
    max_bytes: int,
    limits: ImageLimits,
    *,
    shared: bool = False,
) -> Image.Image:
    timeout, max_bytes = checked_timeout(timeout, "timeout"), checked_whole(max_bytes, "max_bytes")
    if isinstance(source, HasImage) and not isinstance(source, Image.Image):
        source = source.image
    with _named_errors(source):
        if isinstance(source, np.ndarray):
            return to_rgb(array_image(source))
        if isinstance(source, Image.Image):
            return _decode_open(source, limits, shared=shared)
    return _decode(source, _content(source, allow_urls, allow_private_urls, timeout, max_bytes), limits)


class ImagePages:
    """The pages of an image file. Each frame of a TIFF is a page; any other image has one, its first frame.

    The file is open only while it is read.

    Args:
        source: a path, or the bytes.
        limits: formats and size.
        name: of the file in errors; its suffix counts for formats that have no other mark.

    Attributes:
        page_count: number of pages.

    Raises:
        ImageError: the file cannot be read, is empty, or is a TIFF without frames.
    """

    def __init__(self, source: str | bytes, limits: ImageLimits, name: str) -> None:
        self._source, self._limits, self._name = source, limits, name
        with self._opened() as file, _named_errors(name):
            self._frames = _tiff_frames(file, source if isinstance(source, str) else None)
        self.page_count = 1 if self._frames is None else self._frames.count

    def draw(self, number: int) -> Image.Image:
        """Read a page, as `load_image` does. One thread at a time may call it.

        Args:
            number: 1-based.

        Raises:
            ImageError: the page cannot be read, or does not exist.
        """
        name = self._name if self.page_count == 1 else f"{self._name}, page {number}"
        with self._opened() as file, _named_errors(name):
            image, count = _read(file, self._frames, number, _suffix(self._name), self._limits)
        if self._frames is None:
            _warn_of_frames(name, count)
        return image

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        with _named_file_errors(self._source):
            file = io.BytesIO(self._source) if isinstance(self._source, bytes) else open_file(self._source)
        with file:
            yield file


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


def _content(source: object, allow_urls: bool, allow_private_urls: bool, timeout: float, max_bytes: int) -> bytes:
    """The bytes of an encoded image."""
    if isinstance(source, str):
        if source[:5].lower() == "data:":  # the case of schemes does not matter (RFC 3986)
            return read_data_uri(source)
        if is_web_url(source):
            if not allow_urls:
                raise ImageError(
                    f"{image_name(source)} is a URL, and fetching is off. Pass allow_urls=True to allow it, or fetch "
                    "it yourself and pass the bytes."
                )
            from colpali_integrations.pages._fetch import fetch_url  # slow to import

            return fetch_url(source, timeout=timeout, max_bytes=max_bytes, allow_private=allow_private_urls)
        if is_file_url(source):
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
    with _named_file_errors(path), open_file(os.fsdecode(path)) as file:
        return file.read()


@contextmanager
def _named_file_errors(path: Any) -> Iterator[None]:
    """Turn the exceptions of opening and reading a file into an `ImageError`."""
    try:
        yield
    except OSError as error:
        # strerror: the full message repeats the path, which is long if it is base64 by mistake.
        hint = "; is it base64? Pass a data URI, or the decoded bytes" if len(os.fsdecode(path)) > 300 else ""
        raise ImageError(f"cannot read {image_name(path)}: {error.strerror or error}{hint}") from error
    except ValueError as error:  # a null byte, or a lone surrogate
        raise ImageError(f"cannot read {image_name(path)!r}: {error}") from error
    except MemoryError as error:
        raise ImageError(f"cannot read {image_name(path)}: it is larger than the memory") from error


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


@contextmanager
def _named_errors(name: object) -> Iterator[None]:
    """Turn all exceptions of decoding into an `ImageError` that begins with the name, or with that of a source."""
    try:
        yield
    except ImageError as error:
        text, named = str(error), image_name(name)
        if text.startswith(("is ", "has ")):
            raise ImageError(f"{named} {text}") from error.__cause__
        if text.startswith(("it ", "its ", "the ")):
            raise ImageError(f"{named} cannot be read: {text}") from error.__cause__
        raise
    except MemoryError as error:
        raise ImageError(f"{image_name(name)} cannot be read: there is not enough memory to decode it") from error
    # The exceptions for a broken file depend on the decoder of its format: OSError, SyntaxError, ValueError,
    # EOFError, IndexError, KeyError, RuntimeError, struct.error and more.
    except Exception as error:
        raise ImageError(
            f"{image_name(name)} is damaged, cut off, or of a kind that Pillow cannot decode: {error}"
        ) from error


def _decode(source: object, content: bytes, limits: ImageLimits) -> Image.Image:
    """Decode the encoded content of a source."""
    file = io.BytesIO(content)
    try:
        with _named_errors(source):
            image, count = _read(file, _tiff_frames(file), 1, _suffix(source), limits)
    except ImageError as error:
        if b"%PDF-" in content[:1024]:  # readers accept it anywhere in the first kilobyte
            raise ImageError(f"{image_name(source)} is a PDF; pass its pages: embed_images(pdf_pages(path))") from error
        raise
    _warn_of_frames(image_name(source), count)
    return image


def _decode_open(image: Image.Image, limits: ImageLimits, *, shared: bool) -> Image.Image:
    """Decode a PIL image, whose pixels may not be read yet."""
    with _reading:
        unread = is_unread(image)
        if unread and image.format == "EPS" and "EPS" not in limits.image_formats:
            raise ImageError("is PostScript (EPS), and reading it runs Ghostscript; call load() first if you trust it")
        if unread or 0 in image.size:
            check_size(image, limits)
        several = image.tell() == 0 and getattr(image, "is_animated", False)
        orientation = load_pixels(image)
    if several:
        _warn_of_frames(image_name(image), None)
    return upright_rgb(image, orientation, shared=shared)


def _read(
    file: IO[bytes], frames: TiffFrames | None, number: int, suffix: str, limits: ImageLimits
) -> tuple[Image.Image, int]:
    """Decode a page of a file, and count the file's frames."""
    if frames is not None:
        picture, count = open_picture(frames.frame(file, number), "", limits), frames.count
    elif number != 1:
        raise ImageError(f"is an image and has only page 1; page {number} was requested")
    else:
        picture = open_picture(file, suffix, limits)
        count = getattr(picture, "n_frames", 1)
    check_size(picture, limits)
    orientation = load_pixels(picture, own=True)
    check_size(picture, limits, orientation)  # that of some files stands behind the pixels
    return upright_rgb(picture, orientation, own=True), count


def _tiff_frames(file: IO[bytes], path: str | None = None) -> TiffFrames | None:
    """The frames of a TIFF, which are remembered for a path; None for another image."""
    if not file.seek(0, io.SEEK_END):
        raise ImageError("is empty")
    file.seek(0)
    if not is_tiff(file.read(4)):
        return None
    return TiffFrames(file) if path is None else file_frames(path, file)


def _warn_of_frames(name: str, count: int | None) -> None:
    if count != 1:
        logger.warning(
            "%s has %s frames; the first is used. Pass the others as separate images (PIL.ImageSequence)",
            name,
            count or "several",
        )


def _suffix(source: object) -> str:
    """The suffix of a path, a URL or an open file's name."""
    name = source if isinstance(source, str | os.PathLike) else getattr(source, "name", "")
    text = os.fsdecode(name) if isinstance(name, str | os.PathLike) else ""
    return "" if text[:5].lower() == "data:" else PurePath(text.partition("?")[0]).suffix
