"""Pages per second of ColTiny with PDFs read in worker processes and in the calling process, in turns.

python -m benchmarks.isolation --pages 300 --rounds 3
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from colpali_integrations import ColPali, pdf_pages
from colpali_integrations.pages.pdf import PdfPage

PDFS = sorted((Path(__file__).parents[1] / "demo" / "pdfs").glob("*.pdf"))


def pages(isolate: bool) -> Iterator[PdfPage]:
    """The pages of the demo's PDFs at 150 dpi, without end."""
    for path in cycle(PDFS):
        yield from pdf_pages(path, isolate=isolate)


def rate(model: ColPali, count: int, isolate: bool) -> float:
    """Pages per second over `count` pages."""
    start = time.perf_counter()
    for _ in model.embed_images(islice(pages(isolate), count)):
        pass
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rates: dict[bool, list[float]] = {True: [], False: []}
    with ColPali.from_pretrained() as model:
        for isolate in (True, False):
            rate(model, 8, isolate)
        for round_ in range(arguments.rounds):
            for isolate in (True, False) if round_ % 2 else (False, True):
                rates[isolate].append(rate(model, arguments.pages, isolate))
                print(f"{'worker processes' if isolate else 'calling process '} {rates[isolate][-1]:.2f} pages/s")
    share = median(rates[True]) / median(rates[False])
    print(f"{median(rates[True]):.2f} and {median(rates[False]):.2f} pages/s: {(1 - share) * 100:.1f} % less")


if __name__ == "__main__":
    main()
