"""Pictures of pages as their address asks for them: size, format, boxes, and the heatmap of a question."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from colpali_integrations.errors import InputError
from colpali_integrations.explain import SimilarityMaps
from colpali_integrations.explain.drawing import draw_heatmap, draw_regions
from colpali_integrations.pages.reference import draw_page, encode_png
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.schemas import LONGEST_TEXT
from colpali_integrations.server.service import Service
from colpali_integrations.stores import Entry

__all__ = [
    "FORMATS",
    "LARGEST_DPI",
    "LARGEST_WIDTH",
    "MOST_BOXES",
    "SMALLEST_DPI",
    "SMALLEST_WIDTH",
    "PictureOptions",
    "drawn",
    "maps_of",
    "question_of",
    "word_of",
]

SMALLEST_DPI, LARGEST_DPI, MOST_BOXES = 10, 300, 200
SMALLEST_WIDTH, LARGEST_WIDTH = 16, 4096
FORMATS = ("png", "jpeg")
_QUALITY = 85


@dataclass(frozen=True)
class PictureOptions:
    """How a picture is drawn.

    Attributes:
        dpi: resolution of a PDF's page; None for that of the index.
        width: the largest width in pixels; None for that of the page.
        format: "png" or "jpeg".
        boxes: left, top, right and bottom of each box, as fractions of the page.
        heatmap: the question whose matches are drawn; "" for none.
        word: the only word of the question that counts; None for all.
    """

    dpi: float | None = None
    width: int | None = None
    format: str = "png"
    boxes: tuple[tuple[float, ...], ...] = ()
    heatmap: str = ""
    word: str | None = None

    @classmethod
    def read(cls, query: Mapping[str, str]) -> PictureOptions:
        """The options of an address.

        Raises:
            RequestError: one has an invalid value.
        """
        kind = query.get("format", "png")
        if kind not in FORMATS:
            raise RequestError(400, f"format must be one of {', '.join(FORMATS)}, got {kind[:40]!r}")
        heatmap = question_of(query, "heatmap") if "heatmap" in query else ""
        boxes = _boxes(query.get("boxes"))
        return cls(_dpi(query.get("dpi")), _width(query.get("width")), kind, boxes, heatmap, word_of(query))


def question_of(query: Mapping[str, str], name: str) -> str:
    """A question in an address.

    Raises:
        RequestError: it is missing, has no text, or is longer than that of a search may be.
    """
    question = query.get(name, "")
    if not question.strip():
        raise RequestError(400, f"{name} must be a question, such as {name}=diverging%20palettes", "missing_field")
    if len(question) > LONGEST_TEXT:
        raise RequestError(400, f"{name} must have at most {LONGEST_TEXT:,} characters, got {len(question):,}")
    return question


def word_of(query: Mapping[str, str]) -> str | None:
    """The word of a question in an address; None for all words.

    Raises:
        RequestError: it is empty.
    """
    word = query.get("word")
    if word == "":
        raise RequestError(400, "word must be a word of the question; leave it out for all of its words")
    return word


def maps_of(service: Service, id_: str, question: str) -> SimilarityMaps:
    """The matches of each word of a question with each cell of a page.

    Raises:
        RequestError: there is no such page, or it is a text.
    """
    vectors, tokens = service.question(question)
    found = service.current.use(lambda store: store.similarity_maps(vectors, [id_], tokens=tokens))
    if id_ not in found:
        raise RequestError(404, f"the index has no page with the id {id_!r} and a picture", "no_such_page")
    return found[id_]


def drawn(service: Service, entry: Entry, options: PictureOptions) -> tuple[bytes, str]:
    """Draw a page: the bytes of a file, and their media type.

    Raises:
        RequestError: the file of the page is missing or has changed, or cannot be read.
        InputError: the question does not have the word.
    """
    dpi = _fitting_dpi(entry.metadata, options)
    try:
        image = draw_page(entry.metadata, service.access, dpi=dpi)
    except InputError as error:
        raise RequestError(410, str(error), "not_drawn") from error
    if options.width is not None and image.width > options.width:
        height = max(1, round(image.height * options.width / image.width))
        image = image.resize((options.width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    if options.heatmap and not entry.is_page:
        raise RequestError(
            404,
            f"{entry.name} has no heatmap: the program that made the collection recorded no grid, which says where on "
            "the page each vector stands",
            "no_heatmap",
        )
    if options.heatmap:
        image = draw_heatmap(image, maps_of(service, entry.id, options.heatmap), options.word)
    if options.boxes:
        image = draw_regions(image, [{"box": box} for box in options.boxes], labels=False)
    if options.format == "png":
        return encode_png(image), "image/png"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, subsampling="4:4:4")  # thin coloured letters stay sharp
    return buffer.getvalue(), "image/jpeg"


def _fitting_dpi(metadata: Mapping[str, Any], options: PictureOptions) -> float | None:
    """The resolution that gives a PDF's page the wished width at once: a smaller picture is drawn sooner."""
    points = metadata.get("width")
    if options.width is None or "dpi" not in metadata or not isinstance(points, int | float) or not points > 0:
        return options.dpi
    fitting = max(1.0, 72 * options.width / points)
    return min(fitting, options.dpi or LARGEST_DPI)


def _dpi(text: str | None) -> float | None:
    if text is None:
        return None
    number = _number(text)
    if number is None or not SMALLEST_DPI <= number <= LARGEST_DPI:
        raise RequestError(400, f"dpi must be a number from {SMALLEST_DPI} to {LARGEST_DPI}, got {text[:40]!r}")
    return number


def _width(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 9 and SMALLEST_WIDTH <= int(text) <= LARGEST_WIDTH):
        raise RequestError(
            400, f"width must be a whole number from {SMALLEST_WIDTH} to {LARGEST_WIDTH}, got {text[:40]!r}"
        )
    return int(text)


def _boxes(text: str | None) -> tuple[tuple[float, ...], ...]:
    """Boxes as "left,top,right,bottom;...", in fractions of the page."""
    if not text:
        return ()
    parts = text.split(";")
    if len(parts) > MOST_BOXES:
        raise RequestError(400, f"boxes: at most {MOST_BOXES} boxes, got {len(parts)}")
    return tuple(map(_box, parts))


def _box(part: str) -> tuple[float, ...]:
    box = [_number(edge) for edge in part.split(",")]
    edges = tuple(edge for edge in box if edge is not None and 0 <= edge <= 1)
    if len(box) != 4 or len(edges) != 4 or edges[0] > edges[2] or edges[1] > edges[3]:
        raise RequestError(
            400,
            "boxes must be left,top,right,bottom as fractions of the page, with ; between boxes, such as "
            f"0.1,0.2,0.5,0.25; got {part[:60]!r}",
        )
    return edges


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
