"""Where on the page: the regions of the bundled model against the passages that answer, by F1 of the covered area.

From the repository's root, after `python -m benchmarks.quality --fetch`::

    python -m benchmarks.grounding        # -> results/grounding.md; a minute

`hard_set/evidence.json` has questions and, for each, the beginning and the end of the passage of the page that answers:
a sentence, a row of a table, an entry of a card. The boxes of its lines come from the PDF's text layer, in the format
of ViDoRe v3's annotations (pixels of the picture, one annotator), so that they pass through the code that reads those.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as raw
from numpy.typing import NDArray
from PIL import Image

from benchmarks import hard_set, machine
from benchmarks.coltiny_quality import MODEL, digest
from benchmarks.page_set import Page
from benchmarks.ranking import interval
from colpali_integrations import ColPali, regions
from colpali_integrations.explain.agreement import BoxAgreement, annotated_boxes, best_agreement
from colpali_integrations.explain.grid import Box, PageEmbedding
from colpali_integrations.scoring.bm25 import Bm25

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Letter:
    """A letter or digit of a text layer with its box, as fractions of the page."""

    character: str
    box: Box


@dataclass(frozen=True)
class Evidence:
    """A question, the page that answers it, and the first and last words of the passage."""

    page: str
    question: str
    first: str
    last: str


def evidence() -> list[Evidence]:
    """The questions, in the file's order."""
    return [Evidence(**one) for one in json.loads((hard_set.HERE / "evidence.json").read_text(encoding="utf-8"))]


def folded(text: str) -> str:
    """Letters and digits, without case and accents."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in plain if character.isalnum())


def letters(page: pdfium.PdfPage) -> list[Letter]:
    """The letters and digits of a page in the order of its text layer."""
    layer, (width, height) = page.get_textpage(), page.get_size()
    found = []
    for index in range(layer.count_chars()):
        left, bottom, right, top = layer.get_charbox(index)
        if left < right and bottom < top:  # others are blanks that pdfium adds
            box = (left / width, 1 - top / height, right / width, 1 - bottom / height)
            found += [Letter(one, box) for one in folded(chr(raw.FPDFText_GetUnicode(layer, index)))]
    return found


def passage(printed: Sequence[Letter], first: str, last: str) -> list[Box]:
    """The boxes of the lines from the first words to the last.

    Raises:
        ValueError: the page does not have them.
    """
    text = "".join(letter.character for letter in printed)
    start = text.find(folded(first))
    end = text.find(folded(last), max(start, 0))
    if start < 0 or end < 0:
        raise ValueError(f"the passage from {first!r} to {last!r} is not in the text layer")
    return lines([letter.box for letter in printed[start : end + len(folded(last))]])


def lines(boxes: Sequence[Box]) -> list[Box]:
    """The smallest box around each run of boxes that follow each other on one line."""
    found: list[Box] = []
    for left, top, right, bottom in boxes:
        if found:
            before = found[-1]
            same = min(bottom, before[3]) - max(top, before[1]) > 0.3 * min(bottom - top, before[3] - before[1])
            if same and left > before[0] and left - before[2] < 0.3:
                found[-1] = (before[0], min(top, before[1]), max(right, before[2]), max(bottom, before[3]))
                continue
        found.append((left, top, right, bottom))
    return found


def as_annotated(boxes: Sequence[Box], width: int, height: int) -> list[dict[str, int]]:
    """Boxes in pixels, as a row of ViDoRe v3's `qrels` has them."""
    return [
        {
            "annotator": 0,
            **dict(
                zip(
                    ("x1", "y1", "x2", "y2"),
                    (round(a * b) for a, b in zip(box, (width, height) * 2, strict=True)),
                    strict=True,
                )
            ),
        }
        for box in boxes
    ]


def printed_words(printed: Sequence[Letter], page: Page, question: str) -> list[Box]:
    """The boxes of the question's words in the text layer, by stems: what reading without error would mark."""
    bm25, text = Bm25(), "".join(letter.character for letter in printed)
    wanted = set(bm25.words(question))
    boxes = []
    place = 0
    for word in page.text.split():
        spelled = folded(word)
        start = text.find(spelled, place) if spelled else -1
        if start < 0:
            continue
        place = start + len(spelled)
        if len(spelled) > 2 and wanted & set(bm25.words(word)):
            boxes += lines([letter.box for letter in printed[start:place]])
    return boxes


def hull(boxes: Sequence[Box]) -> list[Box]:
    """One box around all."""
    if not boxes:
        return []
    edges = np.array(boxes)
    return [(*edges[:, :2].min(axis=0).tolist(), *edges[:, 2:].max(axis=0).tolist())]


def widened(boxes: Sequence[Box], printed: Sequence[Letter]) -> list[Box]:
    """The lines of the text layer that hold the middle of a box."""
    found = []
    for line in lines([letter.box for letter in printed]):
        middles = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in boxes]
        if any(line[0] <= x <= line[2] and line[1] <= y <= line[3] for x, y in middles):
            found.append(line)
    return found


def measure(model: ColPali, found: Evidence, page: Page, embedding: PageEmbedding) -> dict[str, BoxAgreement]:
    """The agreement of each way to mark the answer with the passage."""
    with pdfium.PdfDocument(hard_set.read(page.document)) as pdf:
        printed = letters(pdf[page.number - 1])
    with Image.open(page.image) as image:
        size = image.size
    annotated = annotated_boxes(as_annotated(passage(printed, found.first, found.last), *size), *size)
    [query] = model.embed_queries([found.question])
    ours = [one.box for one in regions(query, *embedding, tokens=model.query_tokens(found.question))]
    words = printed_words(printed, page, found.question)
    ways: dict[str, Sequence[Box]] = {
        "`regions`: boxes of the question's words": ours,
        "`regions`, each widened to its printed line": widened(ours, printed),
        "one box around `regions`": hull(ours),
        "the question's words in the text layer": words,
        "the same, each widened to its printed line": widened(words, printed),
        "the whole page": [WHOLE],
    }
    return {name: best_agreement(boxes, annotated) for name, boxes in ways.items()}


def rows(measured: Sequence[dict[str, BoxAgreement]]) -> list[tuple[Any, ...]]:
    """Means over the questions, with intervals of F1."""

    def values(way: str, name: str) -> NDArray[np.float64]:
        return np.array([getattr(one[way], name) for one in measured])

    found = []
    for way in measured[0]:
        f1 = values(way, "f1")
        low, high = interval(f1)
        means = (f"{values(way, name).mean():.3f}" for name in ("precision", "recall"))
        hit = f"{int((values(way, 'recall') > 0).sum())} of {len(measured)}"
        found.append((way, f"{f1.mean():.3f} [{low:.3f}, {high:.3f}]", *means, hit))
    return found


def main() -> None:
    model = ColPali.from_pretrained("coltiny", threads=1)
    pages, asked = {page.name: page for page in hard_set.load()}, evidence()
    used = list(dict.fromkeys(one.page for one in asked))
    embeddings = dict(zip(used, model.embed_pages([pages[name].image for name in used]), strict=True))
    measured = [measure(model, one, pages[one.page], embeddings[one.page]) for one in asked]
    text = [
        "# Where on the page",
        "`python -m benchmarks.grounding`",
        f"{machine.describe()} Model files {digest(MODEL)}.",
        f"{len(asked)} questions about {len(used)} pages with text layers; the annotation is the passage that answers, "
        "as the boxes of its lines. F1 of the covered area per question, its mean and 95 % bootstrap interval; "
        "precision and recall likewise; and how many questions have any area in common. ViDoRe v3 (arXiv:2601.08620) "
        "reports .602 for people who annotate the same page, .089 for the best of the vision-language models; its "
        "questions, pages and annotations are others, and its code was not at hand: these do not compare.",
        machine.table(("marked", "F1", "precision", "recall", "touches the passage"), rows(measured)),
        "`regions` marks the *words of the question*, each once, and no passage: its area is a small part of what "
        "answers. Widening to the printed line needs a text layer.",
    ]
    machine.write("grounding.md", "\n\n".join(text))


if __name__ == "__main__":
    main()
