"""Search results as one HTML file: pictures, scores, boxes and heatmaps, without scripts and without the network.

Texts of pages and questions are untrusted: every text is escaped, and the file's Content-Security-Policy forbids
scripts and fetches. Toggles and tooltips are CSS alone (`_report_style`).

>>> page = ReportPage(name="report.pdf, page 1", score=1.5, image=Image.new("RGB", (60, 80), "white"))
>>> report = render_report("revenue", [page])
>>> "report.pdf, page 1" in report, "<script" in report
(True, False)
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from colpali_integrations._options import checked_several, checked_whole
from colpali_integrations.errors import ColPaliError
from colpali_integrations.explain._report_style import STYLE, word_rules
from colpali_integrations.explain.drawing import (
    AnyRegion,
    heat_colours,
    heat_limits,
    heat_strength,
    region_parts,
    word_colours,
)
from colpali_integrations.explain.regions import Region
from colpali_integrations.explain.similarity import SimilarityMaps
from colpali_integrations.explain.snippet import mark_words, snippet
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess
from colpali_integrations.pages.reference import draw_page
from colpali_integrations.pages.resolution import dpi_for_side

__all__ = [
    "DOUBTFUL",
    "HtmlReport",
    "ReportPage",
    "html_page",
    "picture_uri",
    "render_report",
    "report_picture",
    "theme_choice",
]

DOUBTFUL = "No page seems to answer the question; these are the closest. Try other words."
"""What a reader is told above the pages of a search that is `doubtful`; see `stores.Hits.doubtful`."""

_MAX_SIDE = 1100
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_HEAT_SIDE = 200  # pixels of a heatmap's longest side; the browser interpolates


class HtmlReport(str):
    """A page of HTML: a string that notebooks display, with a method that saves it.

    Attributes:
        missing: the reason for each page that is shown without its picture, in their order.
    """

    missing: Sequence[str] = ()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file, as UTF-8.

        Returns:
            The file's absolute path.
        """
        target = Path(path).absolute()
        target.write_text(self, encoding="utf-8")
        return target

    def _repr_html_(self) -> str:
        """Embed the page in a frame, which separates its styles from the notebook's."""
        return (
            '<div style="resize:vertical;overflow:hidden;height:680px;min-height:200px">'
            f'<iframe title="Found pages" sandbox="" srcdoc="{escape(self)}" '
            'style="width:100%;height:100%;border:1px solid #8884;border-radius:8px"></iframe></div>'
        )


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """A page or text among the search results.

    Attributes:
        name: the name for readers, such as "report.pdf, page 1".
        score: the score of the ranking, if there is one.
        relevance: the relevance, from 0 to 1, if known.
        max_sim: MaxSim of the page, if known: the sum that the words' scores are parts of.
        halves: of a hybrid search, the shares by `sight` and `words` that the score is made of, and the `weight` of
            the words; see `stores.Halves`.
        image: the picture; None for a text, or where the page cannot be drawn.
        note: the reason why there is no picture.
        regions: regions from `explain.regions`, or their dicts.
        maps: similarity maps of the question and this page.
        text: the text of the page.
        source: the path of the document.
    """

    name: str
    score: float | None = None
    relevance: float | None = None
    max_sim: float | None = None
    halves: Mapping[str, float] | None = None
    image: Image.Image | None = field(default=None, repr=False)
    note: str = ""
    regions: Sequence[AnyRegion] = ()
    maps: SimilarityMaps | None = None
    text: str = ""
    source: str | None = None


def report_picture(
    metadata: Mapping[str, Any],
    access: PageAccess = DEFAULT_ACCESS,
    *,
    max_side: int = _MAX_SIDE,
    wording: Callable[[ColPaliError], str] = str,
) -> tuple[Image.Image | None, str]:
    """Draw a page from its metadata (see `pages.reference`), with sides of at most about `max_side` pixels.

    Args:
        metadata: of the page.
        access: how its file is opened.
        max_side: in pixels.
        wording: tells an error as the reason.

    Returns:
        The picture and "", or None and the reason why it cannot be drawn, which the report shows instead.

    Raises:
        ConfigurationError: max_side is not a positive whole number.
    """
    max_side = checked_whole(max_side, "max_side")
    try:
        return draw_page(metadata, access, dpi=dpi_for_side(metadata, max_side)), ""
    except ColPaliError as error:
        return None, wording(error)


def render_report(
    question: str,
    pages: Sequence[ReportPage],
    *,
    model: str = "",
    note: str = "",
    max_side: int = _MAX_SIDE,
    doubtful: bool = False,
) -> HtmlReport:
    """Make a self-contained HTML file of search results.

    Args:
        question: the question; "" if it is unknown.
        pages: the pages, the best first. Those with a score and a relevance of 0, which have nothing of the question,
            are left out.
        model: the name of the model, for display.
        note: a note to the reader.
        max_side: maximum side of a page's picture, in pixels; pictures are WebP (or JPEG, if Pillow lacks WebP).
        doubtful: whether no page seems to answer the question. The report then has `DOUBTFUL` above the pages, and
            leaves out the scores, of which the best is high for any question.

    Raises:
        InputError: a region has no box of four fractions.
        ConfigurationError: max_side is not a positive whole number.
    """
    max_side = checked_whole(max_side, "max_side")
    related = [page for page in pages if not _is_unrelated(page)]
    return _Report(question, related, max_side, doubtful=doubtful).render(model, note)


class _Report:
    def __init__(self, question: str, pages: Sequence[ReportPage], max_side: int, *, doubtful: bool) -> None:
        self.question, self.pages, self.max_side, self.doubtful = question, pages, max_side, doubtful
        # The question's words in the order of the maps, then those of the regions alone.
        mapped = [page.maps.tokens[index] for page in pages if page.maps for index in page.maps.words]
        self.matched = dict.fromkeys(region_parts(region)[0] for page in pages for region in _regions(page))
        words = [word for word in dict.fromkeys([*mapped, *self.matched]) if word is not None]
        self.words = {word: index for index, word in enumerate(words)}
        self.colours = word_colours(words)
        self.limits = {word: self._limits(word) for word in [None, *words]}
        self.parts = [_parts(page) for page in pages]
        # One scale for all pages: their bars can be compared.
        self.most = max([1e-9, *(score for parts in self.parts for score in parts.values())])

    def render(self, model: str, note: str) -> HtmlReport:
        title = self.question or "Found pages"
        cards = "".join(self._card(rank, page) for rank, page in enumerate(self.pages, 1))
        count = len(self.pages)
        about = " · ".join([f"{count} {'page' if count == 1 else 'pages'}", *([escape(model)] if model else [])])
        body = (
            f'<header><p class="about">{about}</p><h1 dir="auto">{escape(title)}</h1>'
            + "".join(f'<p class="note">{escape(one)}</p>' for one in self._notes(note))
            + f"</header>\n{self._controls()}"
            + (f"<main>{cards}</main>" if cards else '<p class="note">Nothing was found.</p>')
        )
        html = html_page(title, body, style=word_rules(len(self.words)))
        html.missing = tuple(page.note for page in self.pages if page.note and page.image is None)
        return html

    def _notes(self, note: str) -> list[str]:
        return [*([DOUBTFUL] if self.doubtful and self.pages else []), *([note] if note else [])]

    def _controls(self) -> str:
        switches = []
        if any(page.maps for page in self.pages):
            switches.append(_switch("heat", "Heatmap", on=True))
        if any(page.regions for page in self.pages):
            switches.append(_switch("boxes", "Boxes", on=True))
        if any(page.image for page in self.pages):
            switches.append(_switch("large", "Large", on=False))
        words = ""
        if self.words:
            chips = [_choice("word", "wall", "All words", on=True)]
            chips += [
                _choice("word", f"w{index}", word, on=False, colour=self.colours[word], absent=word not in self.matched)
                for word, index in self.words.items()
            ]
            words = f"<fieldset><legend>Words</legend>{''.join(chips)}</fieldset>"
        return (
            f'<div class="controls"><fieldset><legend>Show</legend>{"".join(switches)}</fieldset>{words}'
            f"{theme_choice()}</div>\n"
        )

    def _card(self, rank: int, page: ReportPage) -> str:
        numbers = []
        if page.score is not None and math.isfinite(page.score) and not self.doubtful:
            numbers.append(f"<span>score <b>{page.score:.2f}</b></span>")
        if page.relevance is not None and not math.isnan(page.relevance):
            share = round(100 * min(max(page.relevance, 0), 1))
            numbers.append(
                f'<span>relevance <b>{share}%</b></span><span class="bar" aria-hidden="true">'
                f'<i style="width:{share}%"></i></span>'
            )
        numbers += [] if self.doubtful else _halves(page.halves)
        source = f'<p class="source">{escape(page.source)}</p>' if page.source else ""
        return (
            f'<article aria-labelledby="page{rank}"><div class="head"><h2 id="page{rank}" dir="auto">'
            f'<span class="rank">{rank}</span> {escape(page.name)}</h2><p class="numbers">{"".join(numbers)}</p></div>'
            f"{self._figure(page)}{self._matches(self.parts[rank - 1])}{self._text(page)}{source}</article>\n"
        )

    def _figure(self, page: ReportPage) -> str:
        if page.image is None:
            if not page.note:
                return ""
            return f'<p class="missing" role="note">No picture: {escape(page.note)}</p>'
        page.image.load()
        picture = page.image._new(page.image.im)  # shares the pixels, of which there may be many
        picture.thumbnail((self.max_side, self.max_side), Image.Resampling.LANCZOS)
        layers = [f'<img src="{picture_uri(picture)}" alt="{escape(page.name)}">']
        if page.maps is not None:
            matched = {region_parts(region)[0] for region in page.regions}
            for word, name in [(None, "all"), *((word, f"w{index}") for word, index in self.words.items())]:
                if word is None or word in matched:
                    layers.append(f'<img class="heat {name}" alt="" src="{self._heat(page.maps, word, picture.size)}">')
        layers += [self._box(region) for region in page.regions]
        size = f"aspect-ratio:{picture.width}/{picture.height}"
        return f'<figure style="{size}">{"".join(layers)}</figure>'

    def _box(self, region: AnyRegion) -> str:
        word, score, (left, top, right, bottom) = region_parts(region)
        name = "" if word is None else f" w{self.words[word]}"
        label = f"{word or 'match'}: {score:.2f}"
        style = f"left:{100 * left:.2f}%;top:{100 * top:.2f}%;width:{100 * (right - left):.2f}%;"
        style += f"height:{100 * (bottom - top):.2f}%;--c:{self.colours.get(word, '#0067a5')}"
        side = " below" if top < 0.08 else ""
        side += " leftward" if left > 0.6 else ""
        return (
            f'<span class="box{name}{side}" tabindex="0" role="img" aria-label="{escape(label)}" style="{style}">'
            f'<span class="tip" aria-hidden="true" dir="auto">{escape(word or "match")} <b>{score:.2f}</b></span>'
            "</span>"
        )

    def _heat(self, maps: SimilarityMaps, word: str | None, size: tuple[int, int]) -> str:
        scale = min(1.0, _HEAT_SIDE / max(size))
        small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        strength = heat_strength(maps.on_page(word, size=small), self.limits[word])
        # 24 steps look the same as more, and take a third of the bytes.
        return picture_uri(Image.fromarray(heat_colours(np.round(strength * 24) / 24)), lossless=True)

    def _limits(self, word: str | None) -> tuple[float, float]:
        """Get the limits of a word's heatmaps on all pages, so that weaker matches have weaker colours."""
        maps: list[NDArray[np.float32]] = [
            page.maps.of(word) for page in self.pages if page.maps and (word is None or word in page.maps.tokens)
        ]
        return heat_limits(maps) if maps else (0.0, 1.0)

    def _matches(self, parts: Mapping[str | None, float]) -> str:
        rows = []
        for word, score in parts.items():
            kind = "rest" if word is None else f"w{self.words[word]}"
            colour = "var(--soft)" if word is None else self.colours[word]
            name = "beyond these words" if word is None else word
            width = 100 * max(score, 0) / self.most
            rows.append(
                f'<li class="{kind}" style="--c:{colour}"><span dir="auto">{escape(name)}</span>'
                f'<span class="bar" aria-hidden="true"><i style="width:{width:.0f}%"></i></span>'
                f"<b>{score:.2f}</b></li>"
            )
        return f'<ul class="found" aria-label="Words found on this page">{"".join(rows)}</ul>' if rows else ""

    def _text(self, page: ReportPage) -> str:
        text = snippet(page.text, self.question, width=240 if page.image is not None else 1200)
        if not text or text == page.name:
            return ""
        pieces, position = [], 0
        for start, end in mark_words(text, self.question):
            pieces += [escape(text[position:start]), f"<mark>{escape(text[start:end])}</mark>"]
            position = end
        return f'<p class="text" dir="auto">{"".join(pieces)}{escape(text[position:])}</p>'


def _halves(halves: object) -> list[str]:
    """The shares of both halves and their weights; nothing where metadata hold something else."""
    if not isinstance(halves, Mapping):
        return []
    values = [halves.get(name) for name in ("sight", "words", "weight")]
    shares = [value for value in values if isinstance(value, int | float) and 0 <= value <= 1]
    if len(shares) < len(values):
        return []
    sight, words, weight = shares
    by_sight = f"by sight <b>{sight:.2f}</b> \u00d7 {1 - weight:.2f}"
    return [f"<span>{by_sight}, by words <b>{words:.2f}</b> \u00d7 {weight:.2f}</span>"]


def _is_unrelated(page: ReportPage) -> bool:
    """Whether a page has nothing of the question: its score is 0, or its relevance is 0 and the score not above.

    Other rankers have no relevance here, and cross-encoders may give their best page a negative score.
    """
    if page.score is None or page.relevance:
        return False
    return page.score == 0 or (page.relevance is not None and page.score < 0)


def _parts(page: ReportPage) -> dict[str | None, float]:
    """The best score of each word on a page, and under None the rest of the page's MaxSim.

    The rest is that of vectors without a word: the passages of ColTiny, and the prompts of other models.
    """
    best: dict[str | None, float] = {}
    shares = 0.0
    for region in page.regions:
        word, score, _ = region_parts(region)
        share = region.share if isinstance(region, Region) else region.get("share")
        shares += share if isinstance(share, int | float) and 0 <= share <= 1 else 1.0
        if word is not None:
            best[word] = max(score, best.get(word, score))
    parts = dict(sorted(best.items(), key=lambda item: -item[1]))
    rest = 0.0 if page.max_sim is None else page.max_sim * (1 - shares)
    if parts and rest >= 0.005:  # it is shown with two digits
        parts[None] = rest
    return parts


def _regions(page: ReportPage) -> Sequence[AnyRegion]:
    return checked_several(page.regions, "a list of regions")  # type: ignore[no-any-return]


def _switch(name: str, label: str, *, on: bool) -> str:
    checked = " checked" if on else ""
    return f'<label class="chip"><input type="checkbox" id="{name}"{checked}><span>{label}</span></label>'


def _choice(group: str, name: str, label: str, *, on: bool, colour: str = "", absent: bool = False) -> str:
    checked = " checked" if on else ""
    kind = ' class="chip absent" title="on none of these pages"' if absent else ' class="chip"'
    dot = f'<i class="dot" style="background:{colour}"></i>' if colour else ""
    return (
        f'<label{kind}><input type="radio" name="{group}" id="{name}"{checked}>'
        f'<span dir="auto">{dot}{escape(label)}</span></label>'
    )


def theme_choice() -> str:
    """The buttons that choose a light or dark page, for the controls of a report."""
    themes = (_choice("theme", name.lower(), name, on=name == "System") for name in ("System", "Light", "Dark"))
    return f'<fieldset class="theme"><legend>Theme</legend>{"".join(themes)}</fieldset>'


def html_page(title: str, body: str, *, style: str = "") -> HtmlReport:
    """A whole page of HTML, without scripts and fetches.

    Args:
        title: of the page, which is escaped.
        body: HTML, in which all foreign texts are escaped.
        style: CSS beside that of all reports.
    """
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body>{body}</body></html>\n"
    )
    # Pairs of surrogates become their character. One alone, as in the name of a file, cannot be written as UTF-8.
    return HtmlReport(page.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))


def picture_uri(image: Image.Image, *, lossless: bool = False) -> str:
    """A picture as the address of an `img`: WebP (or JPEG, if Pillow lacks WebP), or a PNG of few colours."""
    buffer = io.BytesIO()
    if lossless:
        kind = "png"
        image.quantize(64, method=Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    elif features.check("webp"):
        kind = "webp"
        image.save(buffer, "WEBP", quality=72, method=4)
    else:
        kind = "jpeg"
        image.convert("RGB").save(buffer, "JPEG", quality=80, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
