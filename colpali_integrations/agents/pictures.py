"""Pictures of pages for a chat model, which together keep to a number of bytes as sent.

Chat APIs take PNG, JPEG, WebP and GIF, as base64 in JSON, and refuse or cut what is too long. So pictures share a
budget: each is drawn once and encoded well, those that need little leave their rest to the others, and the others lose
quality first and size last.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, features

from colpali_integrations._options import checked_whole
from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.pages.access import Roots, root_folders
from colpali_integrations.pages.formats import DEFAULT_LIMITS, ImageLimits
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.pages.reference import DEFAULT_DPI, page_image
from colpali_integrations.pages.resolution import dpi_for_side

__all__ = ["BUDGET", "FORMATS", "PagePicture", "page_pictures", "readable_side"]

BUDGET = 380_000
"""Bytes of the pictures of one answer, as sent, so that with its texts it stays below 400 KB."""
FORMATS = ("png", "jpeg", "webp")
"""Formats of `page_pictures`; the chat APIs of OpenAI, Anthropic and Google take all of them."""

_READABLE = 1000  # pixels: below, small print of a page of A4 is lost
_SMALLEST, _LARGEST = 320, 8000  # chat APIs refuse larger pictures
_SHRINK = 0.85
_GOOD, _FAIR, _POOR = 80, 60, (45, 30, 15)  # qualities of JPEG and WebP
_COLOURS = 256  # of a PNG with a palette, which is then exact
_LEAST_DPI, _MOST_DPI = 10.0, 600.0  # the size of a page in metadata may be wrong
_NO_ROOM = "there is no room for its picture beside the others; ask for fewer pages at a time"


@dataclass(frozen=True, kw_only=True)
class PagePicture:
    """The picture of a page, or the reason why there is none.

    Attributes:
        content: the bytes of an image file; empty without a picture.
        mime_type: such as "image/webp"; "" without a picture.
        size: width and height in pixels.
        problem: the reason why there is no picture; "" with one.
    """

    content: bytes = field(default=b"", repr=False)
    mime_type: str = ""
    size: tuple[int, int] = (0, 0)
    problem: str = ""

    @property
    def base64(self) -> str:
        """The content in base64, without the head of a data URI."""
        return base64.b64encode(self.content).decode("ascii")

    @property
    def sent_bytes(self) -> int:
        """Number of bytes of the picture in base64."""
        return _sent(len(self.content))

    def __bool__(self) -> bool:
        """Whether there is a picture."""
        return bool(self.content)


@keep_pdfs_open()
def page_pictures(
    pages: Sequence[Mapping[str, Any]],
    budget: int = BUDGET,
    *,
    max_side: int | None = None,
    formats: Sequence[str] = FORMATS,
    password: str | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
    roots: Roots = None,
    wording: Callable[[ColPaliError], str] = str,
) -> list[PagePicture]:
    """Draw pages from their metadata, as pictures that together keep to a number of bytes in base64.

    Of up to three pages the long side has at least 1,000 pixels, as far as the budget permits it at the lowest quality
    (400 KB do for pages of print), and as far as an image file has as many. Each further page makes them smaller.

    Args:
        pages: metadata of pages, as `pages.page_image` takes them.
        budget: bytes of all pictures, in base64.
        max_side: pixels of the longest side, up to 8,000; by default 1,568 for one page, and fewer for several.
        formats: that the chat model takes: some of "png", "jpeg" and "webp". JPEG or WebP is needed; WebP is preferred,
            and PNG is taken for pages of few colours if it is smaller.
        password: for encrypted PDFs.
        limits: size and formats of images.
        roots: as for `pages.page_image`.
        wording: tells an error as the reason.

    Returns:
        One picture per page, in order; for a page that cannot be drawn, or for which there is no room, the reason.

    Raises:
        ConfigurationError: budget, max_side, formats or roots have an invalid value.

    Example:
        >>> page = {"source": "report.pdf", "width": 595, "height": 842, "dpi": 150}
        >>> pages = [{**page, "page": number} for number in (1, 2)]
        >>> pictures = page_pictures(pages, 200_000, roots=["."])
        >>> sum(picture.sent_bytes for picture in pictures) <= 200_000, min(max(one.size) for one in pictures) >= 1000
        (True, True)
        >>> page_pictures([{"source": "lost.pdf", "page": 1}], roots=["."])[0].problem
        "cannot draw lost.pdf, page 1: no file at 'lost.pdf'. A relative path is valid only in the folder where the ..."
    """
    budget, folders, kinds = checked_whole(budget, "budget", 0), root_folders(roots), _checked_formats(formats)
    side = readable_side(len(pages)) if max_side is None else min(checked_whole(max_side, "max_side"), _LARGEST)
    drawn: dict[int, Image.Image] = {}
    results = [PagePicture()] * len(pages)
    for index, metadata in enumerate(pages):
        dpi = dpi_for_side(metadata, side, least=_LEAST_DPI, most=_MOST_DPI)
        if dpi is None and "dpi" in metadata:
            dpi = DEFAULT_DPI
        try:
            picture = page_image(metadata, dpi=dpi, password=password, roots=folders, **limits.options)
        except ColPaliError as error:
            results[index] = PagePicture(problem=wording(error))
        else:
            drawn[index] = _reduced(picture, side)
    best = {index: _encoded(picture, _GOOD, kinds) for index, picture in drawn.items()}
    least = min(side, _READABLE if len(pages) <= 3 else 0.64 * _READABLE)
    left = budget
    # The smallest first, so that their rest goes to the others.
    for done, index in enumerate(sorted(best, key=lambda one: len(best[one].content))):
        fitting = _fitted(drawn[index], best[index], left // (len(best) - done), least, kinds)
        left -= fitting.sent_bytes
        results[index] = fitting
    return results


def readable_side(count: int) -> int:
    """Pixels of the longest side of each of so many pictures, where the budget is large enough.

    >>> readable_side(1), readable_side(3), readable_side(5), readable_side(20)
    (1568, 1250, 1000, 800)
    """
    # Chat models reduce larger pictures than 1,568 pixels.
    return 1568 if count <= 1 else 1250 if count <= 3 else _READABLE if count <= 10 else 800


def _fitted(picture: Image.Image, best: PagePicture, allowed: int, least: float, kinds: Sequence[str]) -> PagePicture:
    """The best encoding of a picture in `allowed` bytes as sent; `best` is the one of highest quality and size."""
    if best.sent_bytes <= allowed:
        return best
    pixels = picture.width * picture.height
    fair = PagePicture()
    for side, quality in _steps(max(picture.size), least):
        smaller = _reduced(picture, side)
        share = smaller.width * smaller.height / pixels
        # Bytes fall more slowly than pixels: a smaller picture has more detail per pixel.
        if fair and quality == _FAIR and fair.sent_bytes * share > allowed:
            continue
        encoded = _encoded(smaller, quality, kinds)
        if encoded.sent_bytes <= allowed:
            return encoded
        fair = fair or encoded
    return PagePicture(problem=_NO_ROOM)


def _steps(side: int, least: float) -> Iterator[tuple[int, int]]:
    """Sides and qualities to try one after the other: quality falls before a side falls below `least`."""
    readable = min(side, round(least))
    current = float(side)
    while current > readable:
        yield round(current), _FAIR
        current *= _SHRINK
    yield from ((readable, quality) for quality in (_FAIR, *_POOR))
    current = readable * _SHRINK
    while current >= _SMALLEST:
        yield round(current), _POOR[1]
        current *= _SHRINK


def _encoded(picture: Image.Image, quality: int, kinds: Sequence[str]) -> PagePicture:
    contents = {}
    if "webp" in kinds:
        contents["webp"] = _saved(picture, "WEBP", quality=quality, method=4)
    else:
        contents["jpeg"] = _saved(picture, "JPEG", quality=quality, optimize=True)
    if "png" in kinds and picture.getcolors(_COLOURS) is not None:
        contents["png"] = _saved(picture.quantize(_COLOURS, dither=Image.Dither.NONE), "PNG", optimize=True)
    kind = min(contents, key=lambda one: len(contents[one]))
    return PagePicture(content=contents[kind], mime_type=f"image/{kind}", size=picture.size)


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    """The picture with sides of at most `side` pixels."""
    if max(picture.size) <= side:
        return picture
    smaller = picture.copy()
    smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
    return smaller


def _checked_formats(formats: Sequence[str]) -> list[str]:
    kinds = [kind for kind in FORMATS if kind in formats and (kind != "webp" or features.check("webp"))]
    if isinstance(formats, str) or set(formats) - set(FORMATS) or not {"jpeg", "webp"} & set(kinds):
        raise ConfigurationError(
            f"formats must be some of {', '.join(FORMATS)}, with jpeg or with a webp that Pillow can write, got "
            f"{formats!r}"
        )
    return kinds


def _sent(length: int) -> int:
    """Bytes in base64.

    >>> [_sent(length) for length in (0, 1, 3, 4)]
    [0, 4, 4, 8]
    """
    return 4 * -(-length // 3)
