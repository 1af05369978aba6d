"""How well ColTiny reads printed words of the test set, by font class, size and kind.

From the repository's root, after `benchmarks.coltiny_quality` has fetched the documents::

    python -m benchmarks.coltiny_reading    # -> results/coltiny_reading.md; some minutes

Every fourth page of the English documents. A word's box comes from the PDF's text layer; the cell at its centre, or
the best of its neighbours, is compared with every word of the vocabulary; read means that the right spelling comes
first (as `training.reading`). The vocabulary is that of all 314 pages, some 12,000 words.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium

from benchmarks import machine
from benchmarks.coltiny_quality import MODEL, digest
from benchmarks.coltiny_set import WORK, load, read
from colpali_integrations.core.families.coltiny_words import _WORD
from training.evaluate import Encoder
from training.reading import Word, around, printed_words

# Its text layer has lost the ligatures: what is printed as "confidence" is "condence" there.
_UNTRUE = ("survival",)
FONTS = ("serif", "sans", "mono", "bold", "italic")


def vocabulary(texts: list[str]) -> list[str]:
    """Every word of the pages that can be judged: numbers, and words of three letters or more."""
    return sorted({word for text in texts for word in _WORD.findall(text.lower()) if len(word) > 2 or word.isdigit()})


def groups(word: Word) -> Iterator[str]:
    """What a word counts for: fonts and digits at 9 to 20 pixels, and sizes."""
    classes = set(word.classes)
    yield "all"
    yield from (name for name in classes if name.startswith("em "))
    if "em 9 to 20" in classes:
        yield from (f"{name}, em 9 to 20" for name in classes if name in FONTS or name == "with digits")
        if "italic" in classes and "mono" not in classes:
            yield "italic and not mono, em 9 to 20"


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
    table = np.concatenate([encoder.query(word)[:1, :-1] for word in words])
    found: dict[str, list[bool]] = defaultdict(list)
    wrong: dict[str, list[str]] = defaultdict(list)
    used = [page for page in pages[::4] if page.document.language == "en" and page.document.name not in _UNTRUE]
    for page in used:
        vectors, _ = encoder.raw(page.image)
        with pdfium.PdfDocument(read(page.document, options.packages)) as pdf:
            printed = list(printed_words(pdf[page.number - 1], longest_side=config.longest_side, cell=config.cell))
        for word in printed:
            if word.spelling not in index or not (word.row < vectors.shape[0] and word.column < vectors.shape[1]):
                continue
            near = around(vectors, word.row, word.column)
            similar = table @ near[(near @ table[index[word.spelling]]).argmax()]
            right = bool(similar.argmax() == index[word.spelling])
            for group in groups(word):
                found[group].append(right)
                if not right:
                    wrong[group].append(f"{word.spelling} as {words[similar.argmax()]}")
    bars = {f"{font}, em 9 to 20": 0.88 for font in FONTS} | {"with digits, em 9 to 20": 0.75, "em 7 to 9": 0.6}
    rows = []
    for group, marks in sorted(found.items()):
        share, bar = float(np.mean(marks)), bars.get(group)
        verdict = "" if bar is None else f">= {bar}: {'met' if share >= bar else '**missed**'}"
        examples = "; ".join(list(dict.fromkeys(wrong[group][:: max(1, len(wrong[group]) // 5)]))[:5])
        rows.append((group, len(marks), f"{share:.3f}", verdict, examples))
    text = [
        "# How well ColTiny reads words of the test set",
        "`python -m benchmarks.coltiny_reading`",
        f"{machine.describe()} Model files {digest(options.model)}.",
        f"{len(used)} pages, {len(words):,} words in the vocabulary. Sizes are pixels of a line at 1152 on the page's "
        'longest side, as the PDF states the font; fonts that a PDF scales itself (the form) fall under "other", and '
        "fonts without a name count as serif.",
        machine.table(("words", "number", "read", "bar", "misread, for instance"), rows),
    ]
    machine.write(f"{options.name}.md", "\n\n".join(text))


if __name__ == "__main__":
    main()
