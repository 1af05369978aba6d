"""Synthetic page tiles: text set in many faces and sizes, with the box of every word.

``python -m training.render --out training/work/tiles.png`` shows a sheet of them.

A tile is a cut-out of a page at the model's resolution, drawn fresh for each training step: some 55 a second on one
core. Skia draws unhinted, antialiased outlines at sub-pixel places, as PDF renderers do, at the tile's own size or up
to 2.5 times of it. Of the text a third is natural, the rest uniform vocabulary, invented words, numbers, units and
identifiers: the model shall read, not guess.
"""

from __future__ import annotations

import argparse
import io
import math
import random
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import skia
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from colpali_integrations.models.coltiny.words import _WORD, fold
from training.corpus import Corpus
from training.fonts import Face, families

HEIGHT, WIDTH = 192, 512
_ONSETS = ["b", "br", "c", "ch", "d", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v"]
_ONSETS += ["w", "z", "sh", ""]
_RIMES = ["a", "e", "i", "o", "u", "ar", "en", "il", "on", "ut", "ai", "ou", "y", "er", "ung", "eau"]
_UNITS = ["px", "mm", "kB", "MB", "ms", "th", "st", "%", "x", "GHz", "em", "pt", "nm", "k", "a", "b", "D", "V", "kg"]
# What TeX, word processors and PostScript set pages in unless told otherwise.
_COMMON = re.compile("cmun|lm(roman|sans|mono)|Liberation|Nimbus|FreeMono|texgyre|DejaVuSansMono")
_COMMON_SHARE = 2
_LIGATURES = {"ffi": "ﬃ", "ffl": "ﬄ", "ff": "ﬀ", "fi": "ﬁ", "fl": "ﬂ"}

Box = tuple[float, float, float, float]


@dataclass
class Tile:
    """Pixels uint8 (HEIGHT, WIDTH) and, for every word in sight, its folded spelling and box (x0, y0, x1, y1)."""

    pixels: NDArray[np.uint8]
    words: list[str]
    boxes: NDArray[np.float32]


class TextSource:
    """Draws tokens to set: natural lines, vocabulary, numbers, codes, invented words."""

    def __init__(self, corpus: Corpus, rng: random.Random) -> None:
        self._lines, self._foreign_lines = corpus.lines, corpus.foreign_lines
        self._vocabulary, self._foreign = corpus.vocabulary, corpus.foreign_vocabulary
        self._rng = rng

    def code(self) -> str:
        """A number with a unit, a version, a time, a hexadecimal number, an option or an identifier."""
        rng, kind = self._rng, self._rng.random()
        if kind < 0.2:
            return rng.choice("abcdefABCDEFvgspIVx") + str(rng.randint(0, 9999))
        if kind < 0.4:
            return str(rng.randint(0, 999)) + rng.choice(_UNITS)
        if kind < 0.55:
            return ".".join(str(rng.randint(0, 40)) for _ in range(rng.randint(2, 3)))
        if kind < 0.65:
            return "0x" + "".join(rng.choice("0123456789abcdef") for _ in range(rng.randint(2, 8)))
        if kind < 0.88:
            left, right = rng.choice(self._vocabulary), rng.choice(self._vocabulary)
            if rng.random() < 0.3:
                left, right = left[: rng.randint(2, 5)], right[: rng.randint(1, 5)]
            joined = rng.choice(["--", "-", "", ".", "$", "\\"]) + left + rng.choice("_-./_") + right
            return joined + rng.choice(["", "()", ";", ":", ",", "="])
        return str(rng.randint(1, 12)) + rng.choice("/:-") + str(rng.randint(0, 59)) + rng.choice(["", "/2019", ":30"])

    def number(self) -> str:
        """A number as tables, listings and prose print it."""
        rng, kind = self._rng, self._rng.random()
        if kind < 0.12:
            return str(rng.randint(0, 9))
        if kind < 0.47:
            return str(rng.randint(0, 10 ** rng.randint(1, 6)))
        if kind < 0.69:
            return f"{rng.random() * 10 ** rng.randint(0, 4):.{rng.randint(1, 4)}f}"
        if kind < 0.77:
            return f"{rng.random() * 10 ** -rng.randint(0, 2):.{rng.randint(5, 9)}f}"
        if kind < 0.82:
            date = f"{rng.randint(1990, 2030)}-{rng.randint(1, 12):02}"
            return date + rng.choice(["", f"-{rng.randint(1, 31):02}", f"-{rng.randint(1, 31):02}"])
        if kind < 0.85:
            return str(rng.randint(0, 10**5)).zfill(rng.randint(2, 5))
        return f"{rng.randint(1000, 10**7):,}" if kind < 0.91 else str(rng.randint(1900, 2030))

    def name(self) -> str:
        """A variable, a function or a field."""
        rng, kind = self._rng, self._rng.random()
        word = rng.choice(self._vocabulary)
        if kind < 0.22:
            return word[: rng.randint(1, 5)]
        if kind < 0.36:
            return self.short()
        if kind < 0.45:
            return word[: rng.randint(2, 8)] + rng.choice(self._vocabulary).capitalize()[: rng.randint(2, 8)]
        if kind < 0.55:
            return word[: rng.randint(1, 6)] + str(rng.randint(0, 20))
        return word.upper()[:6] if kind < 0.62 else word

    def value(self, depth: int = 0) -> str:
        """What stands to the right of an assignment or between brackets."""
        rng, kind = self._rng, self._rng.random()
        if kind < 0.3:
            return self.number()
        if kind < 0.5:
            return self.name()
        if kind < 0.65:
            quote = rng.choice('""\'')
            return quote + rng.choice([self.name(), self.number(), f"{self.name()} {self.name()}"]) + quote
        if kind < 0.75:
            return self.name() + rng.choice([".", "$", "_", "->", "::"]) + self.name()
        if kind < 0.85 or depth > 1:
            return rng.choice(["TRUE", "FALSE", "NULL", "None", "1:10", f"{self.name()}[{rng.randint(0, 9)}]"])
        return self.call(depth + 1)

    def call(self, depth: int = 0) -> str:
        """A function with its arguments."""
        rng = self._rng
        arguments = [
            rng.choice(["", "", f"{self.name()} = ", f"{self.name()}="]) + self.value(depth)
            for _ in range(rng.randint(0, 4))
        ]
        return self.name() + rng.choice(["(", "(", "(", "["]) + rng.choice([", ", ", ", ","]).join(arguments) + ")"

    def statement(self) -> str:
        """A line of a listing: a program, a shell, an interpreter's answer."""
        rng, kind = self._rng, self._rng.random()
        if kind < 0.3:
            line = f"{self.name()} {rng.choice(['<-', '=', '=', ':=', '+='])} {self.value()}{rng.choice(['', '', ';'])}"
        elif kind < 0.55:
            line = self.call() + rng.choice(["", "", ";", " {", " +"])
        elif kind < 0.65:
            test = f"{self.name()} {rng.choice(['==', '<', 'in', '!='])} {self.value()}"
            line = f"{rng.choice(['if', 'while', 'for'])} ({test}) {{"
        elif kind < 0.75:
            options = [
                f"{rng.choice(['-', '--'])}{self.name()}{rng.choice([' ', '='])}{self.value(2)}" for _ in range(2)
            ]
            line = f"{self.name()} {' '.join(options[: rng.randint(0, 2)])} {self.name()}.{self.name()[:3]}"
        elif kind < 0.88:
            line = f"[{rng.randint(1, 99)}] " + " ".join(self.number() for _ in range(rng.randint(1, 6)))
        else:
            line = f"{self.name()}{rng.choice([': ', ' : ', '->'])}{self.value()}{rng.choice(['', ',', ';'])}"
        return rng.choice(["", "", "", "> ", "R> ", "$ ", "+ "]) + line

    def short(self) -> str:
        """Two to four letters without sense, as identifiers and abbreviations are; there is nothing to guess by."""
        rng = self._rng
        letters = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.choice([2, 3, 3, 3, 4, 4])))
        return letters + rng.choice(["", "", "", str(rng.randint(0, 9))])

    def invented(self) -> str:
        """A word no dictionary has, in lower case, capitalised or in capitals."""
        rng, kind = self._rng, self._rng.random()
        if kind < 0.1:
            return self.short()
        if kind < 0.18:
            return "/".join(self.short().upper() for _ in range(rng.randint(1, 2)))
        if kind < 0.5:
            word = "".join(rng.choice(_ONSETS) + rng.choice(_RIMES) for _ in range(rng.randint(1, 4)))
        elif kind < 0.75:
            word = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 9)))
        elif kind < 0.88:
            word = "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(2, 4)))
            return word + rng.choice(["-", "", "_", "/"]) + str(rng.randint(1, 9999))
        else:
            return "".join(rng.choice(string.ascii_letters + string.digits) for _ in range(rng.randint(3, 10)))
        return self.cased(word)

    def cased(self, word: str) -> str:
        """The word as it is, capitalised, or in capitals."""
        kind = self._rng.random()
        return word.capitalize() if kind < 0.22 else word.upper() if kind < 0.3 else word

    def dictionary_word(self) -> str:
        """A vocabulary word with the punctuation that sticks to words on pages."""
        rng, kind = self._rng, self._rng.random()
        word = self.cased(rng.choice(self._vocabulary if rng.random() < 0.75 else self._foreign))
        if kind < 0.15:
            return word + rng.choice(".,;:)?!")
        if kind < 0.19:
            return "(" + word + rng.choice([")", ""])
        if kind < 0.22:
            return rng.choice(['"{}"', "“{}”", "„{}“", "«{}»", "‘{}’"]).format(word)
        return word + rng.choice("-_/.") + rng.choice(self._vocabulary) if kind < 0.26 else word

    def listing(self) -> Iterator[str]:
        """Endless tokens of program text."""
        while True:
            yield from self.statement().split()

    def stream(self, natural: float) -> Iterator[str]:
        """Endless tokens, of which the share ``natural`` comes as whole lines of real text."""
        rng = self._rng
        while True:
            if rng.random() < natural:
                yield from rng.choice(self._lines if rng.random() < 0.8 else self._foreign_lines).split()
                continue
            for _ in range(6):
                kind = rng.random()
                if kind < 0.53:
                    yield self.dictionary_word()
                else:
                    yield self.code() if kind < 0.68 else self.number() if kind < 0.86 else self.invented()


@dataclass
class Ink:
    """How a stretch of text looks: a font at its size, in grey (0 to 255), with space between letters."""

    font: skia.Font
    grey: int
    tracking: float = 0.0
    ligatures: bool = False


@dataclass
class Sheet:
    """A canvas in tile pixels and the words printed on it."""

    scale: float
    paper: int
    surface: skia.Surface = field(init=False)
    canvas: skia.Canvas = field(init=False)
    words: list[tuple[str, Box]] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = math.ceil(WIDTH * self.scale), math.ceil(HEIGHT * self.scale)
        self.surface = skia.Surface.MakeRaster(
            skia.ImageInfo.Make(*size, skia.kGray_8_ColorType, skia.kOpaque_AlphaType)
        )
        self.canvas = self.surface.getCanvas()
        self.canvas.clear(skia.Color(self.paper, self.paper, self.paper))
        self.canvas.scale(size[0] / WIDTH, size[1] / HEIGHT)

    def print(self, token: str, x: float, baseline: float, ink: Ink) -> float:
        """Print a token from x on and note its words; returns its width in pixels (0: the font lacks a letter)."""
        text, glyphs = _printable(token, ink)
        if not glyphs:
            return 0.0
        widths = np.asarray(ink.font.getWidths(glyphs)) + ink.tracking
        ends = np.concatenate([[0.0], np.cumsum(widths)])
        paint = skia.Paint(AntiAlias=True, Color=skia.Color(ink.grey, ink.grey, ink.grey))
        if ink.tracking:
            places = [skia.Point(x + float(end), baseline) for end in ends[:-1]]
            self.canvas.drawTextBlob(skia.TextBlob.MakeFromPosText(text, places, ink.font), 0, 0, paint)
        else:
            self.canvas.drawString(text, x, baseline, ink.font, paint)
        matrix, size = self.canvas.getTotalMatrix(), ink.font.getSize()
        for word, start, stop in spelled(text):
            rectangle = skia.Rect.MakeLTRB(
                x + float(ends[start]), baseline - 0.72 * size, x + float(ends[stop]), baseline + 0.22 * size
            )
            box = matrix.mapRect(rectangle)
            self.words.append(
                (word, tuple(edge / self.scale for edge in (box.left(), box.top(), box.right(), box.bottom())))
            )
        return float(ends[-1])

    def hide(self, left: float, top: float, right: float, bottom: float) -> None:
        """Forget the words that something drawn over this rectangle covers."""
        self.words = [
            (word, box)
            for word, box in self.words
            if box[2] <= left or box[0] >= right or box[3] <= top or box[1] >= bottom
        ]

    def image(self) -> Image.Image:
        """What has been drawn, at its own scale."""
        return Image.fromarray(self.surface.toarray(colorType=skia.kGray_8_ColorType))


def _printable(token: str, ink: Ink) -> tuple[str, list[int]]:
    """The token as the font can print it (with ligatures, or else without accents) and its glyphs."""
    text = token
    if ink.ligatures:
        for letters, glyph in _LIGATURES.items():
            if letters in text and ink.font.getTypeface().unicharToGlyph(ord(glyph)):
                text = text.replace(letters, glyph)
    for attempt in (text, token, fold(token)):
        glyphs = ink.font.textToGlyphs(attempt)
        if len(glyphs) == len(attempt) and 0 not in glyphs:
            return attempt, glyphs
    return token, []


def spelled(token: str) -> list[tuple[str, int, int]]:
    """The readable words in a printed token with their character spans; single letters are left out.

    >>> spelled("(fork_exec)"), spelled("Maß-ﬁt")
    ([('fork', 1, 5), ('exec', 6, 10)], [('mass', 0, 3), ('fit', 4, 6)])
    """
    if token.isascii():
        folded, origin = token.lower(), list(range(len(token)))
    else:
        folded, origin = "", []
        for place, character in enumerate(token):
            opened = fold(character)
            folded += opened
            origin += [place] * len(opened)
    return [
        (found[0], origin[found.start()], origin[found.end() - 1] + 1)
        for found in _WORD.finditer(folded)
        if len(found[0]) > 1 or found[0].isdigit()
    ]


@lru_cache(1000)
def typeface(path: Path) -> skia.Typeface:
    """The font file, kept open."""
    return skia.Typeface.MakeFromFile(str(path))


class TileSetter:
    """Sets tiles: columns of text, tables, slides and plots, each with its own faces, sizes and disturbances."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self._rng = random.Random(seed)
        self._noise = np.random.default_rng(seed)
        self._text = TextSource(corpus, self._rng)
        self._families = families()
        self._shares = {
            kind: [_COMMON_SHARE if _COMMON.match(family[0].path.name) else 1 for family in group]
            for kind, group in self._families.items()
        }

    def tile(self) -> Tile:
        """Draw one tile."""
        rng = self._rng
        dark = rng.random() < 0.05
        paper = rng.randint(0, 90) if dark else 255 if rng.random() < 0.75 else rng.randint(190, 254)
        sheet = Sheet(rng.choice([1.0, 1.0, 1.0, 1.3, 1.5, 1.5, 2.0, 2.5]), paper)
        if rng.random() < 0.16:  # a page that was scanned askew
            sheet.canvas.rotate(rng.uniform(-2.2, 2.2), WIDTH / 2, HEIGHT / 2)
        if rng.random() < 0.17:
            self._plot(sheet)
        elif rng.random() < 0.1:
            self._form(sheet)
        else:
            if rng.random() < 0.7:
                columns = [(rng.randint(-60, 70), WIDTH + rng.randint(-120, 40))]
            else:
                middle, gap = rng.randint(170, 340), rng.randint(8, 30)
                columns = [(rng.randint(-30, 40), middle - gap // 2), (middle + gap // 2, WIDTH + rng.randint(-40, 40))]
            for left, right in columns:
                self._column(sheet, left, right)
            self._clutter(sheet)
        pixels = self._disturbed(sheet.image())
        boxes = np.array([box for _, box in sheet.words], np.float32).reshape(-1, 4)
        return Tile(pixels, [word for word, _ in sheet.words], boxes)

    def _em(self) -> float:
        """Type size in pixels at the model's resolution; A4 body text is 11 to 14.

        A tile holds the more words the smaller they are, so that small print is seen more than these shares say.
        """
        kind, rng = self._rng.random(), self._rng
        for share, low, high in ((0.08, 6.8, 9), (0.28, 9, 11), (0.61, 11, 14), (0.87, 14, 19), (0.95, 19, 30)):
            if kind < share:
                return rng.uniform(low, high)
        return rng.uniform(30, 68)

    def _family(self, kind: str | None = None) -> list[Face]:
        """A family, of a class; those that most documents are set in are chosen more often."""
        kind = kind or self._rng.choices(["serif", "sans", "mono"], [0.34, 0.34, 0.32])[0]
        return self._rng.choices(self._families[kind], self._shares[kind])[0]

    def _font(self, face: Face, size: float) -> skia.Font:
        font = skia.Font(typeface(face.path), size)
        font.setSubpixel(True)
        font.setHinting(skia.FontHinting.kNone)
        font.setEdging(skia.Font.Edging.kAntiAlias)
        rng = self._rng
        if rng.random() < 0.12:
            font.setScaleX(rng.uniform(0.8, 1.12))
        if not face.styled and rng.random() < 0.05:  # slanted and bold made by a program
            font.setSkewX(-rng.uniform(0.12, 0.25))
        if not face.styled and rng.random() < 0.03:
            font.setEmbolden(True)
        return font

    def _grey(self, paper: int) -> int:
        """Ink that can be told from the paper."""
        rng = self._rng
        if paper < 100:
            return rng.randint(paper + 110, 255)
        return rng.choice([0, 0, 0, rng.randint(0, 90), rng.randint(0, min(150, paper - 90))])

    def _column(self, sheet: Sheet, left: float, right: float) -> None:
        """Fill one column with lines."""
        rng = self._rng
        family = self._family()
        upright = [face for face in family if not face.styled] or family
        styled = [face for face in family if face.styled] or family
        em = self._em()
        leading = em * rng.choice([rng.uniform(1.08, 1.3), rng.uniform(1.15, 1.7)])
        stream = self._text.stream(rng.choices([1.0, 0.5, 0.0], [0.3, 0.3, 0.4])[0])
        if rng.random() < (0.5 if family in self._families["mono"] else 0.05):
            stream = self._text.listing()
        elif rng.random() < 0.07:
            stream = (token.upper() for token in stream)
        grey, ligatures = self._grey(sheet.paper), rng.random() < 0.5
        tracking = rng.uniform(-0.03, 0.1) * em if rng.random() < 0.1 else 0.0
        face = rng.choice(upright if rng.random() < 0.55 else styled)
        body = Ink(self._font(face, em), grey, tracking, ligatures)
        emphasis = Ink(self._font(rng.choice(styled), em), grey, 0.0, ligatures)
        typewriter = Ink(self._font(rng.choice(self._family("mono")), em * rng.uniform(0.85, 1)), grey)
        spacing, table, mixed = rng.uniform(0.9, 1.6), rng.random() < 0.15, rng.random() < 0.45
        stops = [rng.uniform(30, 110) for _ in range(8)] if rng.random() < 0.6 else []
        y = rng.uniform(-leading, 20)
        while y < HEIGHT:
            if rng.random() < 0.04:
                y += rng.choice([leading * 0.5, leading, rng.uniform(10, 60)])
            x, line, size = float(left + rng.choice([0, 0, 0, 20])), body, em
            if rng.random() < 0.06:  # a heading, a caption
                size = em * rng.choice([1.2, 1.44, 1.7, 0.85])
                line = Ink(self._font(rng.choice(family), size), grey, 0.0, ligatures)
            if rng.random() < 0.03:  # light on a dark bar
                bar = skia.Rect.MakeLTRB(left, y - 2, right, y + size * 1.25)
                level = rng.randint(0, 110)
                sheet.canvas.drawRect(bar, skia.Paint(Color=skia.Color(level, level, level)))
                line = Ink(line.font, rng.randint(215, 255), line.tracking, ligatures)
            end = right if rng.random() < 0.85 else rng.uniform(left + 60, right)
            baseline, cell = y + 0.9 * size, 0
            for token in stream:
                ink = line
                if line is body and mixed and rng.random() < 0.15:
                    ink = emphasis
                elif line is body and rng.random() < 0.03:
                    ink = typewriter
                if len(token) > 60 or x + len(token) * size * 0.45 > end:
                    break
                x += sheet.print(token, x, baseline, ink) + 0.25 * size * spacing
                if ink.font.getTypeface().isFixedPitch():
                    x += 0.3 * size
                if table and rng.random() < 0.6:
                    x += stops[cell % len(stops)] - 0.5 * len(token) * size if stops else rng.uniform(5, 60)
                    x, cell = max(x, left), cell + 1
                if table and rng.random() < 0.6:
                    token_x = x + (rng.uniform(5, 60) if not stops else 0)
                    x = token_x + sheet.print(self._text.number(), token_x, baseline, ink) + 0.5 * size
                if x > end:
                    break
            y += leading * max(1, size / em)

    def _form(self, sheet: Sheet) -> None:
        """Fields in frames: labels close to rules, often in capitals, numbered, with boxes to tick."""
        rng = self._rng
        family = self._family() if rng.random() < 0.3 else self._family("sans")
        em, grey = rng.uniform(7.5, 14), self._grey(sheet.paper)
        rule = skia.Paint(
            AntiAlias=True, Style=skia.Paint.kStroke_Style, StrokeWidth=rng.uniform(0.4, 2),
            Color=skia.Color(grey, grey, grey),
        )  # fmt: skip
        y, capitals = rng.uniform(-20, 10), rng.choice([0.0, 0.5, 1.0])
        while y < HEIGHT:
            lines = rng.randint(1, 3)
            height = em * (1.2 * lines + rng.uniform(0.1, 0.8))
            x = rng.uniform(-60, 10)
            while x < WIDTH:
                width = rng.uniform(60, 330)
                sheet.canvas.drawRect(skia.Rect.MakeXYWH(x, y, width, height), rule)
                tokens = self._text.stream(rng.choice([1.0, 0.0]))
                ink = Ink(self._font(rng.choice(family), em), grey)
                shout = rng.random() < capitals
                for line in range(lines):
                    at, baseline = x + rng.uniform(1.5, 5), y + em * (0.95 + 1.2 * line)
                    if line == 0 and rng.random() < 0.4:
                        label = f"{rng.randint(1, 30)}{rng.choice(['', 'a', 'b'])}."
                        at += sheet.print(label, at, baseline, ink) + 0.3 * em
                    while True:
                        if rng.random() < 0.12:
                            side = em * rng.uniform(0.8, 1.3)
                            sheet.canvas.drawRect(skia.Rect.MakeXYWH(at, baseline - 0.85 * side, side, side), rule)
                            at += side + rng.uniform(1, 5)
                        token = next(tokens)
                        token = token.upper() if shout else token
                        if at + ink.font.measureText(token) > x + width:
                            break
                        at += sheet.print(token, at, baseline, ink) + rng.uniform(0.22, 0.4) * em
                x += width
            y += height

    def _plot(self, sheet: Sheet) -> None:
        """Axes with ticks and labels, curves, a legend, and words that stand alone at any place."""
        rng = self._rng
        face = rng.choice(self._family(rng.choice(["sans", "sans", "serif"])))
        em, grey = rng.uniform(6.8, 17), self._grey(sheet.paper)
        ink = Ink(self._font(face, em), grey)
        line = skia.Paint(
            AntiAlias=True, Style=skia.Paint.kStroke_Style, StrokeWidth=rng.uniform(0.5, 2),
            Color=skia.Color(grey, grey, grey),
        )  # fmt: skip
        if rng.random() < 0.4:
            self._map(sheet)
        left, bottom = rng.uniform(20, 90), rng.uniform(HEIGHT * 0.6, HEIGHT - 20)
        right, top = rng.uniform(WIDTH * 0.6, WIDTH), rng.uniform(-20, 40)
        for _ in range(rng.randint(0, 5)):
            level = rng.randint(60, 240)
            shape = skia.Rect.MakeLTRB(
                *(sorted((rng.uniform(left, right), rng.uniform(left, right)))[0], top, right, bottom)
            )
            paint = skia.Paint(AntiAlias=True, Color=skia.Color(level, level, level))
            if rng.random() < 0.5:
                x, width = rng.uniform(left, right), rng.uniform(5, 60)
                shape = skia.Rect.MakeLTRB(x, rng.uniform(top, bottom), x + width, bottom)
            else:
                paint.setStyle(skia.Paint.kStroke_Style)
            sheet.canvas.drawRect(shape, paint)
        sheet.canvas.drawLine(left, bottom, right, bottom, line)
        sheet.canvas.drawLine(left, top, left, bottom, line)
        for _ in range(rng.randint(0, 3)):
            path = skia.Path()
            path.moveTo(left, rng.uniform(top, bottom))
            for step in range(1, 12):
                path.lineTo(left + (right - left) * step / 11, rng.uniform(top, bottom))
            sheet.canvas.drawPath(path, line)
        step = rng.uniform(30, 90)
        for tick in range(int((right - left) // step)):
            label = self._text.number() if rng.random() < 0.8 else self._text.dictionary_word()
            sheet.print(label, left + tick * step - em, bottom + 1.3 * em, ink)
        for tick in range(int((bottom - top) // 28)):
            sheet.print(self._text.number(), left - rng.uniform(2.5, 3.2) * em, bottom - tick * 28, ink)
        tokens = self._text.stream(0.5)
        taken: list[Box] = [box for _, box in sheet.words]
        for _ in range(rng.randint(6, 40)):
            x, y = rng.uniform(-10, WIDTH - 30), rng.uniform(0, HEIGHT)
            if any(box[0] - 90 < x < box[2] + 6 and box[1] - 4 < y < box[3] + 1.2 * em for box in taken):
                continue
            known = len(sheet.words)
            for token in (next(tokens) for _ in range(rng.randint(1, 2))):
                x += sheet.print(token, x, y, ink) + 0.3 * em
            taken += [box for _, box in sheet.words[known:]]

    def _map(self, sheet: Sheet) -> None:
        """Regions with outlines, as on a map: whatever is printed next crosses their borders."""
        rng = self._rng
        line = skia.Paint(AntiAlias=True, Style=skia.Paint.kStroke_Style, StrokeWidth=rng.uniform(0.4, 1.4))
        level = rng.randint(0, 200)
        line.setColor(skia.Color(level, level, level))
        tinted, radius = rng.random() < 0.7, rng.uniform(25, 110)
        for _ in range(rng.randint(4, 30)):
            x, y, corners = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.randint(5, 14)
            path = skia.Path()
            for corner in range(corners):
                angle, reach = 2 * math.pi * corner / corners, radius * rng.uniform(0.5, 1.2)
                go = path.lineTo if corner else path.moveTo
                go(x + reach * math.cos(angle), y + reach * math.sin(angle))
            path.close()
            if tinted:
                level = rng.randint(max(0, sheet.paper - 70), min(255, sheet.paper + 40))
                sheet.canvas.drawPath(path, skia.Paint(AntiAlias=True, Color=skia.Color(level, level, level)))
            sheet.canvas.drawPath(path, line)

    def _clutter(self, sheet: Sheet) -> None:
        """Rules across the text, and a figure that hides some words."""
        rng = self._rng
        if rng.random() < 0.14:
            for _ in range(rng.randint(1, 4)):
                level = rng.randint(0, 160)
                rule = skia.Paint(
                    AntiAlias=True, StrokeWidth=rng.uniform(0.3, 1.2), Color=skia.Color(level, level, level)
                )
                if rng.random() < 0.5:
                    y = rng.uniform(0, HEIGHT)
                    sheet.canvas.drawLine(0, y, WIDTH, y, rule)
                else:
                    x = rng.uniform(0, WIDTH)
                    sheet.canvas.drawLine(x, 0, x, HEIGHT, rule)
        if rng.random() >= 0.08:
            return
        left, top = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        right, bottom = left + rng.uniform(60, 250), top + rng.uniform(40, 120)
        level = rng.randint(60, 255)
        sheet.canvas.drawRect(
            skia.Rect.MakeLTRB(left, top, right, bottom), skia.Paint(Color=skia.Color(level, level, level))
        )
        for _ in range(rng.randint(3, 40)):
            level = rng.randint(0, 255)
            paint = skia.Paint(AntiAlias=True, StrokeWidth=rng.uniform(0.5, 3), Color=skia.Color(level, level, level))
            x0, x1 = rng.uniform(left, right), rng.uniform(left, right)
            y0, y1 = rng.uniform(top, bottom), rng.uniform(top, bottom)
            if rng.random() < 0.5:
                sheet.canvas.drawLine(x0, y0, x1, y1, paint)
            else:
                sheet.canvas.drawOval(skia.Rect.MakeLTRB(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), paint)
        sheet.hide(left - 2, top - 2, right + 2, bottom + 2)

    def _disturbed(self, image: Image.Image) -> NDArray[np.uint8]:
        """The tile at its size, with the contrast, grain, blur and compression that pages come with."""
        rng = self._rng
        if image.size != (WIDTH, HEIGHT):
            filters = [
                Image.Resampling.LANCZOS,
                Image.Resampling.LANCZOS,
                Image.Resampling.BICUBIC,
                Image.Resampling.BOX,
            ]
            image = image.resize((WIDTH, HEIGHT), rng.choice(filters))
        if rng.random() < 0.14:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
        if rng.random() < 0.25:
            values = np.asarray(image, np.float32)
            if rng.random() < 0.5:
                values = 255 - (255 - values) * rng.uniform(0.55, 1.15)
            if rng.random() < 0.8:
                values = values + self._noise.standard_normal(values.shape, np.float32) * rng.uniform(2, 12)
            if rng.random() < 0.3:
                values = 255 * (values.clip(0, 255) / 255) ** rng.uniform(0.7, 1.6)
            image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        if rng.random() < 0.14:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=rng.randint(30, 85))
            image = Image.open(buffer).convert("L")
        return np.asarray(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("training/work/corpus.json.gz"))
    parser.add_argument("--out", type=Path, default=Path("training/work/tiles.png"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    setter = TileSetter(Corpus.load(options.corpus), options.seed)
    rows = []
    for _ in range(6):
        tiles = [setter.tile() for _ in range(3)]
        for tile in tiles:
            for x0, _, x1, y1 in tile.boxes.clip(0, [WIDTH - 1, HEIGHT - 1] * 2).astype(int).tolist():
                tile.pixels = tile.pixels.copy()
                tile.pixels[y1, x0:x1] = 128
        rows.append(np.hstack([tile.pixels for tile in tiles]))
    Image.fromarray(np.vstack(rows)).save(options.out)


if __name__ == "__main__":
    main()
