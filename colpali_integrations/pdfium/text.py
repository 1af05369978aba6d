"""The text layer of a page, without text that no viewer shows.

| text | stays |
|---|---|
| outside of the crop box | no |
| in a hidden layer | no |
| whose place shows no ink: in the colour of its background, clipped, covered | no |
| invisible (render mode 3) over a picture, as OCR writes it over a scan | yes |
| in a font that is neither in the file nor on this machine | yes, and the font is named |

A place shows ink if its colours differ. Text is judged in the pieces that the file draws it in: one that lies over a
picture or a line shows ink, whatever its own colour.

Accents that the file draws apart from their letters are put together with them, as a reader sees them. Nothing is
encoded again for it: a page's hash is of its file, and a stored page keeps the text that it was stored with.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

from colpali_integrations._accents import composed_accents
from colpali_integrations.pdfium.ink import Box, Ink
from colpali_integrations.pdfium.layers import INVISIBLE, hidden_texts
from colpali_integrations.pdfium.messages import MAX_FONTS, PageText

__all__ = ["clean", "read_text"]

# Boxes of glyphs may reach a little beyond the crop box.
_TOLERANCE = 1.0
# Where a font is missing, pdfium draws Western European letters in a font of its own; it may have none for these.
_OTHER_SCRIPTS = re.compile(
    "[\u0100-\u02af\u0370-\u1fff\u2c00-\u2dff\u2e80-\ud7ff\uf900-\ufdff\ufe70-\ufeff\U00010000-\U0003ffff]"
)
_MOST_SAMPLES = 256
# A character without a glyph has a box of a thousandth of its font's size.
_NO_GLYPH = 0.005
_DEPTH = 15  # of form XObjects


class _Character(NamedTuple):
    """A character of the text layer.

    Attributes:
        text: the character.
        position: in the text layer, from 0.
        piece: the address of the text object that draws it; 0 for spaces and line ends that pdfium adds.
    """

    text: str
    position: int
    piece: int


def read_text(page: pypdfium2.PdfPage, unit: float, *, may_have_layers: bool, judged: bool = True) -> PageText:
    """Read the text layer of a page.

    Args:
        page: of an open document.
        unit: its user unit, in points.
        may_have_layers: whether the document may have layers (optional content).
        judged: draw the page to find the text that is not shown. Otherwise only text outside of the crop box is left
            out.
    """
    text_page = page.get_textpage()
    try:
        return _Reading(page, text_page, unit, may_have_layers=may_have_layers and judged, judged=judged).result()
    finally:
        text_page.close()


class _Reading:
    """The reading of one page: as a whole where all text is shown, which is nearly always, and else by pieces."""

    def __init__(
        self,
        page: pypdfium2.PdfPage,
        text_page: pypdfium2.PdfTextPage,
        unit: float,
        *,
        may_have_layers: bool,
        judged: bool,
    ) -> None:
        self._page, self._text_page, self._unit, self._may_have_layers = page, text_page, unit, may_have_layers
        self._judged = judged
        self._crop_box = Box(*page.get_bbox())
        self._missing_fonts: dict[str, None] = {}  # in order

    def result(self) -> PageText:
        """The text of the page."""
        text: str = self._text_page.get_text_range()
        if not text.strip() or (self._all_shown() and not self._may_lack_fonts(text) and not self._hidden):
            return PageText(composed_accents(clean(text)), judged=self._judged)
        kept = composed_accents(clean(self._text_of_pieces(text)))
        return PageText(kept, tuple(self._missing_fonts)[:MAX_FONTS], self._judged)

    # -- as a whole -----------------------------------------------------------------------------------------------

    def _all_shown(self) -> bool:
        boxes = [Box(*self._text_page.get_rect(index)) for index in range(self._text_page.count_rects())]
        if not all(box.within(self._crop_box, _TOLERANCE) for box in boxes):
            return False
        return self._is_scan(boxes) or all(map(self._shows_ink, boxes))

    def _is_scan(self, boxes: Sequence[Box]) -> bool:
        """Whether all text is invisible and over pictures; a large picture is then not drawn just for its text."""
        texts = self._page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_TEXT], max_depth=_DEPTH)
        return all(_mode(text.raw) == INVISIBLE for text in texts) and all(map(self._is_over_picture, boxes))

    def _may_lack_fonts(self, text: str) -> bool:
        """Whether a sample of the characters that pdfium has no font for finds one whose font is not in the file."""
        places = [found.start() for found in _OTHER_SCRIPTS.finditer(text)]
        sample = places[:: max(1, math.ceil(len(places) / _MOST_SAMPLES))]
        return any(not self._is_embedded(piece) for index in sample if (piece := self._piece(index)))

    def _shows_ink(self, box: Box) -> bool:
        return not self._judged or self._ink.shows(box)

    @cached_property
    def _ink(self) -> Ink:
        return Ink(self._page, self._unit)

    @cached_property
    def _hidden(self) -> set[int]:
        """The pieces in hidden layers."""
        return hidden_texts(self._page, self._unit, self._ink, _DEPTH) if self._may_have_layers else set()

    @cached_property
    def _pictures(self) -> list[Box]:
        images = self._page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=_DEPTH)
        # The bounds of one in a form XObject are in the form's coordinates: it counts as the whole page.
        return [self._crop_box if image.level else Box(*image.get_bounds()) for image in images]

    def _is_over_picture(self, box: Box) -> bool:
        return any(picture.contains(*box.center) for picture in self._pictures)

    # -- by pieces ------------------------------------------------------------------------------------------------

    def _text_of_pieces(self, text: str) -> str:
        characters = self._characters(text)
        kept: list[_Character] = []
        for piece, group in groupby(characters, key=lambda one: one.piece):
            kept += self._kept(piece, list(group))
        if len(kept) == len(characters):
            return text
        # Only the end is left of a line that is not shown.
        lines = (line.strip() for line in _joined(one.text for one in kept).split("\n"))
        return "\n".join(line for line in lines if line)

    def _characters(self, text: str) -> list[_Character]:
        count = self._text_page.count_chars()
        # Only broken characters, and those beyond 16 bits, have other places in the text than in the layer.
        texts = text if len(text) == count else map(self._character, range(count))
        return [_Character(one, index, self._piece(index)) for index, one in enumerate(texts)]

    def _character(self, index: int) -> str:
        if pdfium.FPDFText_IsHyphen(self._text_page, index) == 1:
            return "\ufffe"  # as in the text
        return chr(pdfium.FPDFText_GetUnicode(self._text_page, index))

    def _kept(self, piece: int, characters: Sequence[_Character]) -> Sequence[_Character]:
        """The characters of a piece that are shown."""
        if not piece:
            return characters
        inside = [one for one in characters if self._crop_box.contains(*self._box(one.position, loose=True).center)]
        written = [one for one in inside if not one.text.isspace()]
        if not written or self._lacks_font(piece, written):
            return inside
        if piece in self._hidden:
            return []
        box = _around([self._inked_box(one.position) for one in written])
        is_shown = self._shows_ink(box) or (_mode(_pointer(piece)) == INVISIBLE and self._is_over_picture(box))
        return inside if is_shown else []

    def _lacks_font(self, piece: int, characters: Sequence[_Character]) -> bool:
        """Whether characters have no glyph. Where they are letters, and not only dashes, their font is noted."""
        if self._is_embedded(piece):
            return False
        undrawn = [one.text for one in characters if self._has_no_glyph(one.position)]
        if any(map(str.isalnum, undrawn)):
            self._missing_fonts[_font_name(piece)] = None
        return bool(undrawn)

    def _has_no_glyph(self, index: int) -> bool:
        tight, loose = self._box(index), self._box(index, loose=True)
        return min(tight.size) < _NO_GLYPH * max(loose.size)

    def _inked_box(self, index: int) -> Box:
        return self._box(index, loose=self._has_no_glyph(index))

    def _box(self, index: int, *, loose: bool = False) -> Box:
        return Box(*self._text_page.get_charbox(index, loose=loose))

    def _piece(self, index: int) -> int:
        if pdfium.FPDFText_IsGenerated(self._text_page, index) == 1:
            return 0
        return ctypes.cast(pdfium.FPDFText_GetTextObject(self._text_page, index), ctypes.c_void_p).value or 0

    def _is_embedded(self, piece: int) -> bool:
        return bool(pdfium.FPDFFont_GetIsEmbedded(pdfium.FPDFTextObj_GetFont(_pointer(piece))) != 0)


def _pointer(piece: int) -> Any:
    return ctypes.cast(piece, pdfium.FPDF_PAGEOBJECT)


def _mode(text_object: Any) -> int:
    return int(pdfium.FPDFTextObj_GetTextRenderMode(text_object))


def _font_name(piece: int) -> str:
    font, name = pdfium.FPDFTextObj_GetFont(_pointer(piece)), ctypes.create_string_buffer(128)
    pdfium.FPDFFont_GetBaseFontName(font, name, len(name))
    shown = "".join(filter(str.isprintable, name.value.decode("utf-8", "replace")))
    return shown or "without a name"


def _around(boxes: Sequence[Box]) -> Box:
    return Box(
        min(box.left for box in boxes),
        min(box.bottom for box in boxes),
        max(box.right for box in boxes),
        max(box.top for box in boxes),
    )


def _joined(characters: Iterable[str]) -> str:
    """A text with line ends of one character, and pairs of surrogates as the characters that they stand for."""
    text = "".join(characters).replace("\r\n", "\n")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def clean(text: str) -> str:
    """Replace characters of a text or label that some stores cannot hold.

    pdfium joins lines at a hyphen by U+FFFE, which is no character; broken character maps yield NULs and surrogates.
    """
    text = text.replace("\r\n", "\n").replace("\ufffe", "-").replace("\x00", "")
    return text.encode("utf-8", "ignore").decode("utf-8")
