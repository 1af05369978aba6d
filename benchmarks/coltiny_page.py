"""CPU time of a ColTiny page from its PDF to its vectors, by stage, on one thread and in one process.

From the repository's root::

    python -m benchmarks.coltiny_page [--pages 24] [--rounds 5] [--out FILE]

The stages are those of `index_documents`: pdfium reads the text layer and draws the page, its pixels become a picture,
the picture is read as any caller's, prepared for the model, run, and its cells become words with boxes. Times are those
of the processor, of which the system's share is told too: it holds the zeroing of fresh memory. The digest of all
vectors and grids tells whether two versions make the same ones.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median

from benchmarks import machine
from benchmarks.coltiny import chosen
from colpali_integrations import ColPali
from colpali_integrations.models.coltiny.family import ColTinyPages
from colpali_integrations.models.coltiny.word_boxes import word_boxes
from colpali_integrations.pages import isolation
from colpali_integrations.pdfium.reader import PdfiumReader
from colpali_integrations.runtime.machine import release_freed_memory

try:  # the picture without a copy, as `embed_pages` reads it
    from colpali_integrations.pages.images import borrow_image as read_image
except ImportError:
    from colpali_integrations.pages.images import load_image as read_image

Times = dict[str, list[tuple[float, float]]]


@contextmanager
def stopwatch(times: Times, stage: str) -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    yield
    after = resource.getrusage(resource.RUSAGE_SELF)
    times[stage].append((after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime))


def measure(pages: list[tuple[Path, int]], rounds: int, dpi: float) -> tuple[list[Times], str]:
    """The times of each round, and the digest of the vectors and grids."""
    model = ColPali.from_pretrained("coltiny", threads=1)
    codec, [sessions] = model.family.pages, model._sessions
    assert isinstance(codec, ColTinyPages)
    found: list[Times] = []
    digest = hashlib.sha256()
    for turn in range(rounds + 1):
        times: Times = defaultdict(list)
        for path, number in pages:
            reader = PdfiumReader(path, None)
            with stopwatch(times, "text layer"):
                reader.text(number)
            with stopwatch(times, "draw"):
                drawn = reader.draw(number, dpi)
            with stopwatch(times, "transfer"):
                picture = isolation.image_of(drawn)
            with stopwatch(times, "read the picture"):
                picture = read_image(picture)
            with stopwatch(times, "prepare"):
                ready = codec.prepare(picture)
            with stopwatch(times, "network"):
                outputs = sessions.pages(codec.feed([ready]))
                release_freed_memory()
            with stopwatch(times, "words"):
                [layout] = codec.layouts(outputs, [ready])
            with stopwatch(times, "boxes"):
                grid = word_boxes(ready.extra, layout.cells, codec._config.cell)
            reader.close()
            if not turn:  # the first round warms up
                assert grid.margins is not None
                digest.update(layout.vectors.tobytes() + grid.cells.tobytes() + grid.margins.tobytes())
        if turn:
            found.append(times)
    return found, digest.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dpi", type=float, default=150)
    parser.add_argument("--out", default="coltiny_page.md")
    options = parser.parse_args()
    found, digest = measure(chosen(options.pages), options.rounds, options.dpi)
    rows, total = [], [0.0, 0.0]
    for stage in found[0]:
        # The mean over the pages, and the median over the rounds: others may use the machine in one of them.
        user, system = (median(mean(one[part] for one in times[stage]) for times in found) for part in (0, 1))
        rows.append((stage, f"{(user + system) * 1e3:.1f}", f"{system * 1e3:.1f}"))
        total = [total[0] + user + system, total[1] + system]
    rows.append(("**all**", f"**{total[0] * 1e3:.1f}**", f"{total[1] * 1e3:.1f}"))
    table = machine.table(("stage, a page", "CPU, ms", "of the system, ms"), rows)
    machine.write(
        options.out,
        "# ColTiny: CPU time of a page from PDF to vectors\n\nMade by `python -m benchmarks.coltiny_page`.\n\n"
        f"{table}\n\nMeans over {options.pages} pages of the demo's PDFs at {options.dpi:.0f} dpi, medians of "
        f"{options.rounds} rounds, one thread. Digest of vectors and grids: {digest}.\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
