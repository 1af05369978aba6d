"""Synthetic page tiles: text set in many faces and sizes, with the box of every word.

``python -m training.render --minutes 10 --seed 1 --out training/work/tiles``

A tile is a 256 x 640 cut-out of a page at the model's resolution. It is drawn at two to four times that size and
reduced, so that glyphs have the unhinted, antialiased look of a rendered PDF. Of the text about a third is natural,
the rest uniform vocabulary, invented words, numbers, units and identifiers: the model shall read, not guess.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from colpali_integrations.core.families.coltiny_words import _WORD, fold
from training.corpus import Corpus
from training.fonts import Face, families, font

HEIGHT, WIDTH = 256, 640
SHARD = 250
"""Tiles a file."""
_ONSETS = ["b", "br", "c", "ch", "d", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v"]
_ONSETS += ["w", "z", "sh", ""]
_RIMES = ["a", "e", "i", "o", "u", "ar", "en", "il", "on", "ut", "ai", "ou", "y", "er", "ung", "eau"]
_UNITS = ["px", "mm", "kB", "MB", "ms", "th", "st", "%", "x", "GHz", "em", "pt", "nm", "k", "a", "b", "D", "V", "kg"]
_ACCENTED = {
    "a": "äáàâãå", "c": "ç", "e": "éèêë", "i": "íìîï", "n": "ñ", "o": "öóòôõ", "u": "üúùû", "A": "ÄÁÀ", "E": "ÉÈ",
    "O": "ÖÓ", "U": "ÜÚ",
}  # fmt: skip


@dataclass
class Tile:
    """Pixels uint8 (HEIGHT, WIDTH) and, for every word in sight, its folded spelling and box (x0, y0, x1, y1)."""

    pixels: NDArray[np.uint8]
    words: list[str]
    boxes: NDArray[np.float32]


@lru_cache(2000)
def has_accents(path: Path) -> bool:
    """Whether a font draws accented letters (a missing glyph looks like that of a code point no font has)."""
    sample = font(path, 24.0)
    missing = bytes(sample.getmask("\uffff"))
    return all(bytes(sample.getmask(letter)) not in {missing, b""} for letter in "éüñÖ")


class TextSource:
    """Draws tokens to set: natural lines, vocabulary, numbers, codes, invented words."""

    def __init__(self, corpus: Corpus, rng: random.Random) -> None:
        self._lines = corpus.lines
        self._vocabulary = corpus.vocabulary
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
        if kind < 0.68:
            return "0x" + "".join(rng.choice("0123456789abcdef") for _ in range(rng.randint(2, 8)))
        if kind < 0.9:
            left, right = rng.choice(self._vocabulary), rng.choice(self._vocabulary)
            joined = rng.choice(["--", "-", "", ".", "$", "\\"]) + left + rng.choice("_-./") + right
            return joined + rng.choice(["", "()", ";", ":", ",", "="])
        return str(rng.randint(1, 12)) + rng.choice("/:-") + str(rng.randint(0, 59)) + rng.choice(["", "/2019", ":30"])

    def number(self) -> str:
        """A number as tables and prose print it."""
        rng, kind = self._rng, self._rng.random()
        if kind < 0.45:
            return str(rng.randint(0, 10 ** rng.randint(1, 6)))
        if kind < 0.7:
            return f"{rng.random() * 10 ** rng.randint(0, 4):.{rng.randint(1, 3)}f}"
        return f"{rng.randint(1000, 10**7):,}" if kind < 0.85 else str(rng.randint(1900, 2030))

    def invented(self) -> str:
        """A word no dictionary has, in lower case, capitalised or in capitals."""
        rng, kind = self._rng, self._rng.random()
        if kind < 0.55:
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
        rng, word, kind = self._rng, self.cased(self._rng.choice(self._vocabulary)), self._rng.random()
        if kind < 0.15:
            return word + rng.choice(".,;:)?!")
        if kind < 0.19:
            return "(" + word + rng.choice([")", ""])
        if kind < 0.22:
            return f'"{word}"'
        return word + rng.choice("-_/.") + rng.choice(self._vocabulary) if kind < 0.26 else word

    def stream(self, natural: float) -> Iterator[str]:
        """Endless tokens, of which the share ``natural`` comes as whole lines of real text."""
        rng = self._rng
        while True:
            if rng.random() < natural:
                yield from rng.choice(self._lines).split()
                continue
            for _ in range(6):
                kind = rng.random()
                if kind < 0.52:
                    yield self.dictionary_word()
                else:
                    yield self.code() if kind < 0.7 else self.number() if kind < 0.85 else self.invented()


class TileSetter:
    """Sets tiles: one or two columns, each with a face, a size and its own disturbances."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self._rng = random.Random(seed)
        self._text = TextSource(corpus, self._rng)
        self._families = families()

    def tile(self) -> Tile:
        """Draw one tile."""
        rng = self._rng
        scale = rng.choice([2, 3, 3, 4]) if rng.random() < 0.9 else 1
        paper = 255 if rng.random() < 0.75 else rng.randint(200, 254)
        image = Image.new("L", (WIDTH * scale, HEIGHT * scale), paper)
        draw = ImageDraw.Draw(image)
        words: list[tuple[str, float, float, float, float]] = []
        if rng.random() < 0.7:
            columns = [(rng.randint(-60, 90), WIDTH + rng.randint(-150, 40))]
        else:
            middle, gap = rng.randint(220, 420), rng.randint(8, 30)
            columns = [(rng.randint(-30, 50), middle - gap // 2), (middle + gap // 2, WIDTH + rng.randint(-40, 40))]
        for left, right in columns:
            words += self._column(draw, scale, left, right)
        words = self._clutter(draw, scale, words)
        if scale > 1:
            filters = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS]
            image = image.reduce(scale) if rng.random() < 0.6 else image.resize((WIDTH, HEIGHT), rng.choice(filters))
        kind = rng.random()
        if kind < 0.06:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
        elif kind < 0.12:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=rng.randint(30, 85))
            image = Image.open(buffer).convert("L")
        boxes = np.array([word[1:] for word in words], np.float32).reshape(-1, 4)
        return Tile(np.asarray(image), [word[0] for word in words], boxes)

    def _em(self) -> float:
        """Type size in pixels at the model's resolution; A4 body text is 11 to 14."""
        kind, rng = self._rng.random(), self._rng
        if kind < 0.24:
            return rng.uniform(7.5, 11)
        if kind < 0.55:
            return rng.uniform(11, 14)
        return rng.uniform(13, 18) if kind < 0.86 else rng.uniform(18, 28) if kind < 0.97 else rng.uniform(28, 44)

    def _family(self) -> list[Face]:
        return self._rng.choice(self._families[self._rng.choices(["serif", "sans", "mono"], [0.33, 0.31, 0.36])[0]])

    def _column(
        self, draw: ImageDraw.ImageDraw, scale: int, left: int, right: int
    ) -> list[tuple[str, float, float, float, float]]:
        """Fill one column with lines and return its words with boxes in tile pixels."""
        rng = self._rng
        family = self._family()
        upright = [face for face in family if not face.styled] or family
        face = rng.choice(upright if rng.random() < 0.65 else family)
        accents = rng.random() < 0.12
        em = self._em()
        leading = em * rng.choice([rng.uniform(1.08, 1.3), rng.uniform(1.15, 1.7)])
        stream = self._text.stream(rng.choices([1.0, 0.5, 0.0], [0.3, 0.3, 0.4])[0])
        ink = rng.choice([0, 0, 0, 0, rng.randint(0, 110)])
        spacing = rng.uniform(0.9, 1.6)
        table, mixed, emphasis = rng.random() < 0.14, rng.random() < 0.4, rng.choice(family)
        words: list[tuple[str, float, float, float, float]] = []
        y = rng.uniform(-leading, 20)
        while y < HEIGHT:
            if rng.random() < 0.04:
                y += rng.choice([leading * 0.5, leading, rng.uniform(10, 60)])
            x = float(left + rng.choice([0, 0, 0, 20]))
            size, line_face, colour = em, face, ink
            if rng.random() < 0.05:  # a heading, a caption
                size, line_face = em * rng.choice([1.2, 1.44, 1.7, 0.85]), rng.choice(family)
            points = max(6 * scale, int(size * scale * 2) / 2)
            line_font = font(line_face.path, points)
            space = line_font.getlength(" ") / scale * spacing
            inverse = rng.random() < 0.025
            if inverse:
                bar = (left * scale, (y - 2) * scale, right * scale, (y + size * 1.2) * scale)
                draw.rectangle(bar, fill=rng.randint(0, 110))
                colour = rng.randint(215, 255)
            end = right if rng.random() < 0.85 else rng.uniform(left + 60, right)
            baseline = round(y * scale) + line_font.getmetrics()[0]
            for token in stream:
                word_face = line_face
                if mixed and rng.random() < 0.12:
                    word_face = emphasis
                elif rng.random() < 0.02:
                    word_face = rng.choice(rng.choice(self._families["mono"]))
                word_font = font(word_face.path, points)
                if accents and has_accents(word_face.path):
                    token = self._accented(token)
                length = word_font.getlength(token) / scale
                if x + length > end:
                    break
                if x + length > -5:
                    draw.text((round(x * scale), baseline), token, font=word_font, fill=colour, anchor="ls")
                    bottom = baseline / scale
                    for word, start, stop in spelled(token):
                        x0, x1 = (x + word_font.getlength(token[:cut]) / scale for cut in (start, stop))
                        words.append((word, x0, bottom - 0.72 * size, x1, bottom + 0.22 * size))
                    if rng.random() < 0.01:
                        under = baseline + scale
                        draw.line(
                            [x * scale, under, (x + length) * scale, under], fill=colour, width=max(1, scale // 2)
                        )
                x += length + space
                if table and rng.random() < 0.5:
                    x += rng.uniform(5, 60)
            y += size * 1.5 if inverse else leading * max(1, size / em)
        return words

    def _accented(self, token: str) -> str:
        """The token with an accent on some letters; folding takes it off again."""
        rng = self._rng
        return "".join(
            rng.choice(_ACCENTED[letter]) if letter in _ACCENTED and rng.random() < 0.12 else letter for letter in token
        )

    def _clutter(
        self, draw: ImageDraw.ImageDraw, scale: int, words: list[tuple[str, float, float, float, float]]
    ) -> list[tuple[str, float, float, float, float]]:
        """Rules across the text, and a figure that hides some words; returns the words still in sight."""
        rng = self._rng
        if rng.random() < 0.14:
            for _ in range(rng.randint(1, 4)):
                ink, width = rng.randint(0, 160), rng.randint(1, scale)
                if rng.random() < 0.5:
                    y = rng.randint(0, HEIGHT * scale)
                    draw.line([0, y, WIDTH * scale, y], fill=ink, width=width)
                else:
                    x = rng.randint(0, WIDTH * scale)
                    draw.line([x, 0, x, HEIGHT * scale], fill=ink, width=width)
        if rng.random() >= 0.09:
            return words
        left, top = rng.randint(0, WIDTH), rng.randint(0, HEIGHT)
        width, height = rng.randint(60, 300), rng.randint(40, 150)
        frame = (left * scale, top * scale, (left + width) * scale, (top + height) * scale)
        draw.rectangle(frame, fill=rng.randint(60, 255))
        for _ in range(rng.randint(3, 40)):
            xs = sorted((left + rng.random() * width) * scale for _ in range(2))
            ys = sorted((top + rng.random() * height) * scale for _ in range(2))
            if rng.random() < 0.5:
                ends = [xs[0], ys[0], xs[1], ys[1]] if rng.random() < 0.5 else [xs[0], ys[1], xs[1], ys[0]]
                draw.line(ends, fill=rng.randint(0, 255), width=rng.randint(1, 3 * scale))
            else:
                draw.ellipse([xs[0], ys[0], xs[1], ys[1]], fill=rng.randint(0, 255), outline=0)
        return [
            word
            for word in words
            if word[3] <= left or word[1] >= left + width or word[4] <= top or word[2] >= top + height
        ]


def spelled(token: str) -> list[tuple[str, int, int]]:
    """The readable words in a printed token with their character spans; single letters are left out.

    >>> spelled("(fork_exec)")
    [('fork', 1, 5), ('exec', 6, 10)]
    """
    folded = fold(token)
    if len(folded) != len(token):  # a letter folds to two: spans would not fit
        return []
    return [(found[0], *found.span()) for found in _WORD.finditer(folded) if len(found[0]) > 1 or found[0].isdigit()]


def write_shard(tiles: list[Tile], stem: Path) -> None:
    """Write pixels as ``.npy`` (mapped when training) and labels as ``.json.gz``, the labels last."""
    np.save(stem.with_suffix(".npy"), np.stack([tile.pixels for tile in tiles]))
    labels = [{"words": tile.words, "boxes": np.round(tile.boxes, 1).tolist()} for tile in tiles]
    with gzip.open(stem.with_suffix(".part"), "wt", compresslevel=3) as file:
        json.dump(labels, file)
    stem.with_suffix(".part").rename(stem.with_suffix(".json.gz"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("training/work/corpus.json.gz"))
    parser.add_argument("--out", type=Path, default=Path("training/work/tiles"))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1, help="one for each process that renders")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    setter = TileSetter(Corpus.load(options.corpus), options.seed)
    end, shard = time.monotonic() + 60 * options.minutes, 0
    while time.monotonic() < end:
        start = time.monotonic()
        write_shard([setter.tile() for _ in range(SHARD)], options.out / f"tiles-{options.seed:03d}-{shard:04d}")
        shard += 1
        print(f"shard {shard}: {SHARD / (time.monotonic() - start):.1f} tiles a second", flush=True)


if __name__ == "__main__":
    main()
