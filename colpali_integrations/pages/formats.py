"""The formats of pictures that are read, their suffixes, and the limit of their size.

Pillow opens some files by running a program (EPS starts Ghostscript), and has decoders of rare formats that few people
test. So only the formats of `FORMATS` are opened, and those that the caller names.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import PIL
from PIL import Image

from colpali_integrations._kinds import kind_of
from colpali_integrations._options import checked_whole
from colpali_integrations.errors import ConfigurationError

__all__ = ["DEFAULT_LIMITS", "FORMATS", "MAX_PIXELS", "ImageLimits", "formats_of", "image_suffixes", "refusal"]

# A0 at 300 dpi has 139 megapixels, and the largest cameras have 151.
MAX_PIXELS = 160_000_000

FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    # Pillow loads the plugins from here on only for a file that is none of the above.
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif", ".avifs"),
    "TGA": (".tga",),
}
"""Pillow's names of the formats that are read, with the suffixes of their files."""

# Formats whose files have no mark at their beginning: only the suffix tells.
_UNMARKED = ("TGA",)
# Packages that add a format to Pillow, and the module that does so when it is imported.
_PLUGINS = {"HEIF": ("pillow-heif", "pillow_heif.HeifImagePlugin")}
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_registering = threading.Lock()


@dataclass(frozen=True)
class ImageLimits:
    """Which pictures are decoded.

    Args:
        max_pixels: the most pixels of a picture. Decoding may take six bytes for each of them; see `pages.decoding`.
        image_formats: formats that are read besides those of `FORMATS`, in Pillow's names, such as "HEIF".

    Raises:
        ConfigurationError: max_pixels is not a positive whole number, or Pillow has no such format.

    Example:
        >>> ImageLimits(image_formats="psd").image_formats
        ('PSD',)
    """

    max_pixels: int = MAX_PIXELS
    image_formats: Iterable[str] = ()

    def __post_init__(self) -> None:
        """Normalise the names, and refuse invalid values."""
        object.__setattr__(self, "max_pixels", checked_whole(self.max_pixels, "max_pixels"))
        given: Any = self.image_formats
        names = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
        if not all(isinstance(name, str) for name in names):
            raise ConfigurationError(f"image_formats must be names of formats, such as ['HEIF'], got {names!r}")
        object.__setattr__(self, "image_formats", tuple(dict.fromkeys(name.upper() for name in names)))
        for name in self.image_formats:
            if name not in FORMATS and not _is_registered(name):
                raise ConfigurationError(f"image_formats: Pillow has no format {name!r}; {_advice(name)}")

    def override(self, max_pixels: int | None, image_formats: Iterable[str] | None) -> ImageLimits:
        """The limits with other values in the place of these; None keeps a value."""
        return ImageLimits(
            self.max_pixels if max_pixels is None else max_pixels,
            self.image_formats if image_formats is None else image_formats,
        )

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments for `load_image`, `page_image` and others."""
        return {"max_pixels": self.max_pixels, "image_formats": self.image_formats}


DEFAULT_LIMITS = ImageLimits()
"""The usual size, and no further formats."""


def formats_of(prefix: bytes, suffix: str, limits: ImageLimits) -> Iterator[str]:
    """The formats that a file may have by its first bytes and its suffix, in Pillow's names, the likeliest first.

    Args:
        prefix: the first 16 bytes.
        suffix: of the file's name, such as ".tga"; "" without one.
        limits: with the formats that are read.
    """
    named = [name for name in limits.image_formats if name not in FORMATS]
    unmarked = [name for name in _UNMARKED if suffix.lower() in FORMATS[name] or name in limits.image_formats]
    marked = [name for name in FORMATS if name not in _UNMARKED]
    yield from (name for name in [*marked, *named] if _accepts(name, prefix))
    yield from unmarked


def image_suffixes(image_formats: Iterable[str] = ()) -> frozenset[str]:
    """The suffixes of the formats that are read, in lower case.

    Args:
        image_formats: names of further formats, in capitals.

    Example:
        >>> ".jfif" in image_suffixes(), ".psd" in image_suffixes(), ".psd" in image_suffixes(["PSD"])
        (True, False, True)
    """
    further = set(image_formats)
    added = [suffix for suffix, name in Image.registered_extensions().items() if name in further] if further else []
    return frozenset([*added, *(suffix for suffixes in FORMATS.values() for suffix in suffixes)])


def refusal(prefix: bytes) -> str:
    """The reason why a file is not read, from its first 16 bytes: a sentence that follows its name."""
    brand = prefix[8:12] if prefix[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis"):
        return f"is AVIF, which needs Pillow 11.3 or later with AVIF support; this is Pillow {PIL.__version__}"
    if brand in _HEIF_BRANDS:
        return "is HEIF; install pillow-heif and pass image_formats=['HEIF'] (--image-format HEIF)"
    if prefix.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "is PostScript (EPS), a program and not an image; convert it to PDF or PNG"
    Image.init()
    for name in Image.ID:
        if name not in FORMATS and Image.OPEN[name][1] is not None and _accepts(name, prefix):
            return (
                f"is not an image of the formats that are read; it may be {name}, for which pass "
                f"image_formats=[{name!r}] (--image-format {name})"
            )
    kind = kind_of(prefix)
    if kind is None:
        return "is not an image that Pillow can read"
    is_image = kind.name.endswith("image")
    return f"is {kind.name} that is damaged or cut off" if is_image else f"is {kind.name} and no image"


def _accepts(name: str, prefix: bytes) -> bool:
    """Whether a file may have the format by its first bytes."""
    if name not in Image.OPEN:
        Image.preinit()
    if name not in Image.OPEN:
        Image.init()
    accept = Image.OPEN[name][1] if name in Image.OPEN else lambda _: False
    with suppress(Exception):  # a file shorter than the mark
        return accept is None or accept(prefix) is True  # a string is the reason why the format is not supported
    return False


def _is_registered(name: str) -> bool:
    """Whether Pillow reads the format; the plugin of a known package is imported for it."""
    Image.init()
    if name not in Image.OPEN and name in _PLUGINS:
        module = _PLUGINS[name][1]
        with _registering, suppress(ImportError):
            importlib.import_module(module)
    return name in Image.OPEN


def _advice(name: str) -> str:
    if name in _PLUGINS:
        return f"install {_PLUGINS[name][0]}"
    return f"it has {', '.join(sorted(Image.OPEN))}, and those of plugins that are imported before"
