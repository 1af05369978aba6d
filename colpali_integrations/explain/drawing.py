"""Draw regions or a heatmap on a page, with Pillow alone.

>>> page = Image.new("RGB", (200, 100), "white")
>>> draw_regions(page, [Region("tide", 0.8, 1.0, (0.25, 0.5, 0.5, 0.75))]).size
(200, 100)
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from colpali_integrations.errors import InputError
from colpali_integrations.explain.grid import Box
from colpali_integrations.explain.regions import Region
from colpali_integrations.explain.similarity import SimilarityMaps
from colpali_integrations.pages.images import ImageSource, load_image

__all__ = [
    "PALETTE",
    "AnyRegion",
    "draw_heatmap",
    "draw_regions",
    "heat_colours",
    "heat_layer",
    "heat_limits",
    "heat_strength",
    "region_parts",
    "word_colours",
]

AnyRegion: TypeAlias = Region | Mapping[str, Any]

# Distinguishable with any colour vision (after Okabe and Ito), and dark enough for white letters (contrast 4.5).
PALETTE = ("#0067a5", "#c03a00", "#00795a", "#a3306f", "#6d5a00", "#5b48b5", "#00707c", "#8a4b2a")
# From transparent over amber to crimson; the text below stays readable on white paper and on a dark slide.
_HEAT = np.array([[255, 214, 64, 0], [255, 176, 32, 105], [244, 96, 32, 135], [200, 16, 64, 150]], np.float64)


def draw_regions(
    page_image: ImageSource,
    regions: Sequence[AnyRegion],
    *,
    labels: bool = True,
    scores: bool = False,
    font: str | None = None,
) -> Image.Image:
    """Draw boxes around the regions of a page, one colour per word.

    Args:
        page_image: anything that `load_image` takes, of any resolution.
        regions: the result of `regions`, or dicts as in `metadata["regions"]`, whose `box` has fractions of the page.
        labels: write each box's word beside it.
        scores: write each box's score beside it.
        font: path of a TrueType font for the labels. Pillow's default font has Latin letters only.

    Returns:
        A new RGB image of the page's size.

    Raises:
        ImageError: the page cannot be read.
        InputError: a region has no box of four fractions, or the font cannot be read.

    Example:
        >>> from colpali_integrations import ColPali, pdf_pages, regions
        >>> model = ColPali.from_pretrained()
        >>> page = next(pdf_pages("report.pdf"))
        >>> [embedded] = model.embed_pages([page])
        >>> [query] = model.embed_queries("diverging palettes")
        >>> boxes = regions(query, *embedded, tokens=model.query_tokens("diverging palettes"))
        >>> draw_regions(page, boxes).save("marked.png")
    """
    page = load_image(page_image).convert("RGB")
    unit = max(page.size) / 1000  # lines are 2 wide on a page of 1000, at any resolution
    parts = [region_parts(region) for region in regions]
    colours = word_colours(token for token, _, _ in parts)
    overlay = Image.new("RGBA", page.size)
    pen = ImageDraw.Draw(overlay)
    line = max(1, round(2 * unit))
    # Around the box, so that the line does not hide its content.
    frames = [_pixels(box, page.size, outset=line + 1) for _, _, box in parts]
    for (token, _, _), frame in zip(parts, frames, strict=True):
        pen.rectangle(frame, fill=(*ImageColor.getrgb(colours[token]), 38))
    for (token, _, _), frame in zip(parts, frames, strict=True):
        pen.rectangle(frame, outline=(*ImageColor.getrgb(colours[token]), 255), width=line)
    if labels:
        lettering = _font(font, max(9.0, 13 * unit))
        taken: list[Box] = []
        for (token, score, _), frame in zip(parts, frames, strict=True):
            text = " ".join(part for part in (token or "", f"{score:.2f}" if scores else "") if part)
            if text:
                _label(pen, text, frame, page.size, lettering, colours[token], taken)
    return Image.alpha_composite(page.convert("RGBA"), overlay).convert("RGB")


def draw_heatmap(
    page_image: ImageSource,
    maps: SimilarityMaps,
    word: int | str | None = None,
    *,
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """Draw a heatmap of a question's matches on a page.

    Args:
        page_image: anything that `load_image` takes, of any resolution.
        maps: the page's maps, from `similarity_maps`.
        word: a token of the question or its index; None for all of its words together.
        limits: the similarities of no colour and of full colour. The default is the map's median, because most models
            match everything a little, and its maximum. Pass equal limits to compare pages.

    Returns:
        A new RGB image of the page's size.

    Raises:
        ImageError: the page cannot be read.
        InputError: the question does not have the word.

    Example:
        >>> from colpali_integrations import ColPali, pdf_pages
        >>> from colpali_integrations.explain import similarity_maps
        >>> model = ColPali.from_pretrained()
        >>> page = next(pdf_pages("report.pdf"))
        >>> [embedded] = model.embed_pages([page])
        >>> [query] = model.embed_queries("diverging palettes")
        >>> maps = similarity_maps(query, *embedded, tokens=model.query_tokens("diverging palettes"))
        >>> draw_heatmap(page, maps, "palettes").save("heat.png")
    """
    page = load_image(page_image).convert("RGBA")
    return Image.alpha_composite(page, heat_layer(maps, word, size=page.size, limits=limits)).convert("RGB")


def heat_layer(
    maps: SimilarityMaps,
    word: int | str | None = None,
    *,
    size: tuple[int, int],
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """Draw a heatmap without its page: an RGBA image, which is transparent where nothing matches.

    Args:
        maps: as for `draw_heatmap`.
        word: as for `draw_heatmap`.
        size: width and height of the image, in pixels.
        limits: as for `draw_heatmap`.

    Raises:
        InputError: the question does not have the word.
    """
    strength = heat_strength(maps.on_page(word, size=size), limits or heat_limits([maps.of(word)]))
    return Image.fromarray(heat_colours(strength))


def heat_limits(maps: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Compute the median and the maximum of maps, between which a heatmap has colour."""
    values = np.concatenate([one[np.isfinite(one)] for one in maps])
    return (float(np.median(values)), float(values.max())) if values.size else (0.0, 1.0)


def heat_strength(values: ArrayLike, limits: tuple[float, float]) -> NDArray[np.float32]:
    """Scale similarities to a range, cut to [0, 1]; all are 0 where the range is empty.

    >>> heat_strength([0.2, 0.5, 0.9], (0.3, 0.7)).tolist()
    [0.0, 0.5, 1.0]
    """
    low, high = limits
    span = high - low
    array = np.asarray(values, np.float64)
    return np.round(np.clip((array - low) / span if span > 0 else array * 0, 0, 1), 6).astype(np.float32)


def heat_colours(strength: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Colour strengths (height, width) from 0 to 1: uint8 (height, width, 4), red, green, blue and opacity."""
    steps = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(strength, steps, _HEAT[:, channel]) for channel in range(4)]
    return np.asarray(np.stack(channels, axis=-1).round(), np.uint8)


def region_parts(region: AnyRegion) -> tuple[str | None, float, Box]:
    """Get token, score and box of a region or its dict.

    Raises:
        InputError: the box is not four fractions.
    """
    if isinstance(region, Region):
        return region.token, region.score, region.box
    try:
        left, top, right, bottom = (float(edge) for edge in region["box"])
        token, score = region.get("token"), float(region.get("score", 0.0))
        token = None if token is None else str(token)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"a region must be a Region or a dict with 'box': [left, top, right, bottom] as fractions, got "
            f"{reprlib.repr(region)}"
        ) from error
    if not all(0 <= edge <= 1 for edge in (left, top, right, bottom)) or left > right or top > bottom:
        raise InputError(
            f"a region's box must be [left, top, right, bottom] as fractions of the page, got {reprlib.repr(region)}"
        )
    return token, score, (left, top, right, bottom)


def word_colours(tokens: Any) -> dict[str | None, str]:
    """Assign a colour to each token, in their order."""
    return {token: PALETTE[index % len(PALETTE)] for index, token in enumerate(dict.fromkeys(tokens))}


def _pixels(box: Box, size: tuple[int, int], *, outset: int) -> tuple[int, int, int, int]:
    width, height = size
    left, top = int(box[0] * width) - outset, int(box[1] * height) - outset
    right, bottom = round(box[2] * width) - 1 + outset, round(box[3] * height) - 1 + outset
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return left, top, max(left, min(right, width - 1)), max(top, min(bottom, height - 1))


def _label(
    pen: ImageDraw.ImageDraw,
    text: str,
    frame: tuple[int, int, int, int],
    size: tuple[int, int],
    font: Any,
    colour: str,
    taken: list[Box],
) -> None:
    """Write a word on its colour: above, below or beside the box, at the position that other labels overlap least."""
    left, top, right, bottom = frame
    x0, y0, x1, y1 = pen.textbbox((0, 0), text, font=font)
    pad = max(2.0, (y1 - y0) * 0.25)
    width, height = x1 - x0 + 2 * pad, y1 - y0 + 2 * pad
    positions = [(left, top - height), (left, bottom + 1), (right + 1, top), (left - width, top), (left, top)]
    boxes = []
    for x, y in positions:
        x, y = min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))
        boxes.append((x, y, x + width, y + height))
    box = min(boxes, key=lambda one: sum(_shared_area(one, other) for other in taken))
    taken.append(box)
    pen.rounded_rectangle(box, radius=pad, fill=(*ImageColor.getrgb(colour), 255))
    pen.text((box[0] + pad - x0, box[1] + pad - y0), text, fill="white", font=font)


def _shared_area(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _font(path: str | None, size: float) -> Any:
    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise InputError(f"cannot read the font {path}: {error}; pass the path of a .ttf, .otf or .ttc file") from error
