"""How well ColTiny reads printed words of the test set, by font class, size and kind.

From the repository's root, after `benchmarks.coltiny_quality` has fetched the documents::

    python -m benchmarks.coltiny_reading    # -> results/coltiny_reading.md; some minutes

Every fourth page of the English documents. A word's box comes from the PDF's text layer; of what the model reads within
a cell and a half of its centre, the best is compared with every word of the vocabulary; read means that the right
spelling comes first, and a word where nothing is read counts as misread (as `training.reading`). The vocabulary is that
of all 314 pages, some 12,000 words.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
from PIL import Image, ImageDraw, ImageFont

from benchmarks import machine
from benchmarks.coltiny_quality import MODEL, digest
from benchmarks.coltiny_set import WORK, load, read
from colpali_integrations.models.coltiny.words import _WORD
from training.evaluate import Encoder
from training.reading import Word, printed_words, read_as

# Its text layer lacks the ligatures: the printed word "confidence" is "condence" in it.
_UNTRUE = ("survival",)
FONTS = ("serif", "sans", "mono", "bold", "italic")


def vocabulary(texts: list[str]) -> list[str]:
    """Every word of the pages that can be judged: numbers, and words of three letters or more."""
    return sorted({word for text in texts for word in _WORD.findall(text.lower()) if len(word) > 2 or word.isdigit()})


def groups(word: Word) -> Iterator[str]:
    """The groups of a word: fonts and digits at 9 to 20 pixels, and sizes."""
    classes = set(word.classes)
    yield "all"
    yield from (name for name in classes if name.startswith("em ") or name == "turned")
    if "em 9 to 20" in classes:
        yield from (f"{name}, em 9 to 20" for name in classes if name in FONTS or name == "with digits")
        if "italic" in classes and "mono" not in classes:
            yield "italic and not mono, em 9 to 20"


@dataclass(frozen=True)
class Misread:
    """A printed word, the picture of its page, and the word that ColTiny read (None: no word)."""

    word: Word
    image: Path
    read: str | None

    def __str__(self) -> str:
        return f"{self.word.spelling} as {self.read or 'nothing'}"


def sheet(wrong: dict[str, list[Misread]], longest_side: int, path: Path, *, each: int = 6) -> None:
    """Misread words as the model gets them, twice enlarged, one row per group; written as WebP."""
    width, height = 260, 92
    named = [group for group in wrong if group not in {"all", "em 9 to 20"}]
    picture = Image.new("L", (width * each, (height + 26) * len(named)), 255)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for row, group in enumerate(named):
        top = row * (height + 26)
        draw.text((6, top + 4), group, font=font, fill=0)
        step = max(1, len(wrong[group]) // each)
        for column, missed in enumerate(wrong[group][step // 2 :: step][:each]):
            with Image.open(missed.image) as page:
                scale = max(page.size) / longest_side
                x, y = missed.word.x * scale, missed.word.y * scale
                near = (x - 60 * scale, y - 15 * scale, x + 60 * scale, y + 15 * scale)
                crop = page.convert("L").transform((240, 60), Image.Transform.EXTENT, near, fillcolor=255)
            picture.paste(crop, (column * width + 6, top + 24))
            draw.text((column * width + 6, top + 88), str(missed)[:34], font=font, fill=90)
    picture.save(path, quality=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--packages", type=Path, default=WORK / "packages")
    parser.add_argument("--name", default="coltiny_reading")
    options = parser.parse_args()
    pages = load(options.packages)
    words = vocabulary([page.text for page in pages])
    index = {word: place for place, word in enumerate(words)}
    encoder = Encoder(options.model, WORK / "raw")
    config = encoder.config
    table = np.concatenate([encoder.words(word)[:1] for word in words])
    found: dict[str, list[bool]] = defaultdict(list)
    wrong: dict[str, list[Misread]] = defaultdict(list)
    used = [page for page in pages[::4] if page.document.language == "en" and page.document.name not in _UNTRUE]
    for page in used:
        raw = encoder.raw(page.image)
        with pdfium.PdfDocument(read(page.document, options.packages)) as pdf:
            printed = list(printed_words(pdf[page.number - 1], longest_side=config.longest_side))
        for word in printed:
            if word.spelling not in index:
                continue
            similar = read_as(word, raw, table, index[word.spelling], config.cell)
            best = None if similar.max() == -1 else words[similar.argmax()]
            for group in groups(word):
                found[group].append(best == word.spelling)
                if best != word.spelling:
                    wrong[group].append(Misread(word, page.image, best))
    bars = {f"{font}, em 9 to 20": 0.88 for font in FONTS} | {"with digits, em 9 to 20": 0.75, "em 7 to 9": 0.6}
    rows = []
    for group, marks in sorted(found.items()):
        share, bar = float(np.mean(marks)), bars.get(group)
        verdict = "" if bar is None else f">= {bar}: {'met' if share >= bar else '**missed**'}"
        shown = map(str, wrong[group][:: max(1, len(wrong[group]) // 5)])
        examples = "; ".join(list(dict.fromkeys(shown))[:5])
        rows.append((group, len(marks), f"{share:.3f}", verdict, examples))
    text = [
        "# How well ColTiny reads words of the test set",
        "`python -m benchmarks.coltiny_reading`",
        f"{machine.describe()} Model files {digest(options.model)}.",
        f"{len(used)} pages, {len(words):,} words in the vocabulary. Sizes are pixels of a line at 1152 on the page's "
        "longest side, after all scaling that the PDF asks for; fonts without a name count as serif. Words turned on "
        "their side, as along a vertical axis, are in the first row and one of their own: nothing here reads them. "
        "What the last tiles of training added (listings, forms, capitals, long numbers) was decided by what was "
        "misread on these very pages before; training/README.md has the shares of manuals that were not looked at.",
        machine.table(("words", "number", "read", "bar", "misread, for instance"), rows),
        f"![misread words]({options.name}.webp)",
    ]
    sheet(wrong, config.longest_side, machine.RESULTS / f"{options.name}.webp")
    machine.write(f"{options.name}.md", "\n\n".join(text))


if __name__ == "__main__":
    main()
