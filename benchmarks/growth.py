"""How time grows with the input, where it grew with its square before: snippets, BM25's hyphens, pages of a long PDF.

From the repository's root::

    python -m benchmarks.growth [--rounds 3]      # -> results/growth.md

Each input is measured at three sizes, each twice the one before. Time in proportion to the size is the same time per
item in all three columns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pypdfium2

from benchmarks import machine
from colpali_integrations.explain.snippet import snippet
from colpali_integrations.pages import PagedDocument, page_image
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.scoring.bm25 import Bm25

Work = Callable[[], object]


def words(size: int, folder: Path) -> Work:
    text = "tide harbour mole " * (size // 2)
    return lambda: snippet(text, "tide in the harbour", width=240)


def newlines(size: int, folder: Path) -> Work:
    text, bm25 = "retrie-" + "\n" * size, Bm25()
    return lambda: bm25.document(text)


def hyphens(size: int, folder: Path) -> Work:
    text, bm25 = "retrie-\n \n" * size, Bm25()
    return lambda: bm25.document(text)


def pages(size: int, folder: Path) -> Work:
    path = folder / f"{size}.pdf"
    with pypdfium2.PdfDocument.new() as pdf:
        for _ in range(size):
            pdf.new_page(100, 100)
        pdf.save(path)
    with PagedDocument(path) as document:
        metadata = [page.metadata for page in document.pages()]

    def draw() -> None:
        with keep_pdfs_open():
            for one in metadata:
                page_image(one, dpi=10)

    return draw


INPUTS: dict[str, tuple[Callable[[int, Path], Work], tuple[int, int, int]]] = {
    "snippet, matched words": (words, (4_000, 8_000, 16_000)),
    "BM25, line breaks after one hyphen": (newlines, (5_000, 10_000, 20_000)),
    "BM25, hyphens with line breaks": (hyphens, (5_000, 10_000, 20_000)),
    "pages of one PDF, drawn from their metadata": (pages, (1_000, 2_000, 4_000)),
}


def seconds(work: Work, rounds: int) -> float:
    work()
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for label, (make, sizes) in INPUTS.items():
            taken = [seconds(make(size, Path(temporary)), options.rounds) for size in sizes]
            each = [f"{size:,}: {one * 1e3:,.1f} ms" for size, one in zip(sizes, taken, strict=True)]
            rows.append((label, *each, f"{taken[-1] / taken[0]:.1f}"))
    table = machine.table(("input", "size: time", "twice the size", "four times the size", "last over first"), rows)
    machine.write(
        "growth.md",
        f"# How time grows with the input\n\nMade by `python -m benchmarks.growth`.\n\n{table}\n\nThe least of "
        f"{options.rounds} rounds. Time in proportion to the size makes the last column 4; to its square, 16.\n\n"
        f"{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
