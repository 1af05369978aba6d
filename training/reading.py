"""How well an exported ColTiny reads real pages: word by word, by font class, size and kind of word.

``python -m training.reading --model colpali_integrations/models/coltiny/weights [--pages 60]``

Each word of a page's text layer has a box. Of the cells that the model reads within a cell and a half of its centre,
the one that fits it best is compared with every word of the evaluation set's vocabulary. "Read" means that the right
spelling comes first; a word where the model reads nothing is not read.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from colpali_integrations.models.coltiny.words import _WORD
from colpali_integrations.runtime.arrays import Float32
from training.evaluate import SET, Encoder, Raw, load

_MONO = re.compile(r"mono|courier|typewriter|cmtt|cmsltt|cmitt|consol|tt\d|nimbusmon|lmtt", re.IGNORECASE)
_SANS = re.compile(r"sans|helvet|arial|cmss|heros|nimbussan|lmss|frutiger|verdana", re.IGNORECASE)
_BOLD = re.compile(r"bold|cmbx|-bd|medi|demi|black", re.IGNORECASE)
_ITALIC = re.compile(r"ital|obli|cmti|cmsl|-it|slant", re.IGNORECASE)


@dataclass(frozen=True)
class Word:
    """A printed word: folded spelling, font name, size and centre in pixels at the model's resolution."""

    spelling: str
    font: str
    em: float
    x: float
    y: float
    turned: bool = False
    """Not upright, as the name of a vertical axis."""

    @property
    def classes(self) -> Iterator[str]:
        """The groups that the word counts in; a turned one in a group of its own, as no model here reads it."""
        yield "all"
        if self.turned:
            yield "turned"
            return
        yield "mono" if _MONO.search(self.font) else "sans" if _SANS.search(self.font) else "serif"
        if _BOLD.search(self.font):
            yield "bold"
        if _ITALIC.search(self.font):
            yield "italic"
        yield "em " + ("7 to 9" if 7 <= self.em < 9 else "9 to 20" if 9 <= self.em <= 20 else "other")
        yield "with digits" if any(character.isdigit() for character in self.spelling) else "letters only"


def printed_words(page: pdfium.PdfPage, *, longest_side: int) -> Iterator[Word]:
    """The words of a page's text layer that stand on one line, with their places."""
    text, (width, height) = page.get_textpage(), page.get_size()
    scale = longest_side / max(width, height)
    codes = [pdfium_c.FPDFText_GetUnicode(text, index) for index in range(text.count_chars())]
    folded = "".join(chr(code).lower() if 32 < code < 128 else " " for code in codes)
    buffer, flags = ctypes.create_string_buffer(128), ctypes.c_int()
    for found in _WORD.finditer(folded):
        start, stop = found.span()
        boxes = [text.get_charbox(index) for index in range(start, stop)]
        left, right = boxes[0][0], boxes[-1][2]
        bottom, top = min(box[1] for box in boxes), max(box[3] for box in boxes)
        if abs(boxes[0][1] - boxes[-1][1]) > 8 or right < left:
            continue
        pdfium_c.FPDFText_GetFontInfo(text, start, buffer, 128, ctypes.byref(flags))
        # A PDF may say "size 1" and scale the text, or the figure that holds it.
        matrix = pdfium_c.FS_MATRIX()
        pdfium_c.FPDFText_GetMatrix(text, start, matrix)
        enlarged = math.sqrt(abs(matrix.a * matrix.d - matrix.b * matrix.c))
        yield Word(
            found[0],
            buffer.value.decode("latin-1").split("+")[-1],
            pdfium_c.FPDFText_GetFontSize(text, start) * enlarged * scale,
            (left + right) / 2 * scale,
            (height - (bottom + top) / 2) * scale,
            turned=abs(matrix.b) > 0.2 * abs(matrix.a),
        )


def read_as(word: Word, raw: Raw, table: Float32, index: int, cell: int) -> Float32:
    """How like each word of a vocabulary the print at a word's place is: float32 (n_words,); -1 where nothing is read.

    Args:
        word: what is printed.
        raw: what the model reads on its page.
        table: float32 (n_words, dim - 1), the vocabulary's vectors.
        index: which of them is the word's own.
        cell: pixels of a cell's side.
    """
    away = np.abs(raw.centres - [word.x, word.y]).max(axis=1)
    near = raw.vectors[away <= 1.5 * cell * max(1, word.em / 40)]  # large print is read smaller
    if not len(near):
        return np.full(len(table), -1, np.float32)
    similar: Float32 = table @ near[(near @ table[index]).argmax()]
    return similar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("colpali_integrations/models/coltiny/weights")])
    parser.add_argument("--pdfs", type=Path, default=Path("training/work/pdfs"))
    parser.add_argument("--work", type=Path, default=Path("training/work/evaluation"))
    parser.add_argument("--pages", type=int, default=60)
    options = parser.parse_args()
    pages, _ = load(options.pdfs, options.work / "pages")
    vocabulary = sorted({w for p in pages for w in _WORD.findall(p.text.lower()) if len(w) > 2 or w.isdigit()})
    index = {word: place for place, word in enumerate(vocabulary)}
    chosen = sorted(random.Random(5).sample(range(len(pages)), options.pages))
    documents = {document["package"]: document for document in json.loads(SET.read_text())["documents"]}
    print(f"{len(chosen)} pages, vocabulary of {len(vocabulary)} words")
    for folder in options.model:
        encoder = Encoder(folder, options.work / "raw")
        table = np.concatenate([encoder.words(word)[:1] for word in vocabulary])
        read: dict[str, list[tuple[bool, float]]] = {}
        for place in chosen:
            document = documents[pages[place].package]
            data = (options.pdfs / document["package"] / document["path"]).read_bytes()
            pdf = pdfium.PdfDocument(gzip.decompress(data) if document["path"].endswith(".gz") else data)
            number = int(pages[place].image.stem.rsplit("-", 1)[1])
            raw, config = encoder.raw(pages[place].image), encoder.config
            for word in printed_words(pdf[number - 1], longest_side=config.longest_side):
                if word.spelling not in index:
                    continue
                similar = read_as(word, raw, table, index[word.spelling], config.cell)
                right = bool(similar.max() > -1 and similar.argmax() == index[word.spelling])
                for name in word.classes:
                    read.setdefault(name, []).append((right, float(similar[index[word.spelling]])))
        for name, words in sorted(read.items()):
            values = np.array(words)
            share, cosine = values.mean(axis=0)
            print(f"{folder.name:<12} {name:<14} n {len(words):>6}  read {share:.3f}  cosine {cosine:.2f}")


if __name__ == "__main__":
    main()
