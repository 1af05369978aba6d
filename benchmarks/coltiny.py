"""Time per ColTiny page, by part: drawing it from a PDF, resizing, the network, gathering words.

From the repository's root::

    python -m benchmarks.coltiny [--pages 12] [--rounds 3] [--dpi 150]

CPU time and wall time of each stage on one thread, then the network alone at several batch sizes and thread counts.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort

from benchmarks import machine
from colpali_integrations import ColPali
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.pdf import pdf_page_count, pdf_pages
from colpali_integrations.runtime.machine import available_cores

PDFS = Path(__file__).parent.parent / "demo" / "pdfs"
Times = dict[str, list[tuple[float, float]]]


@contextmanager
def stopwatch(times: Times, stage: str) -> Iterator[None]:
    start = time.process_time(), time.perf_counter()
    yield
    times[stage].append((time.process_time() - start[0], time.perf_counter() - start[1]))


def chosen(count: int) -> list[tuple[Path, int]]:
    """Pages of the demo's PDFs, one document after the other in turn."""
    every = [(number, path) for path in sorted(PDFS.glob("*.pdf")) for number in range(1, pdf_page_count(path) + 1)]
    return [(path, number) for number, path in sorted(every)[:count]]


def session(path: Path, threads: int, *, spinning: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dpi", type=float, default=150)
    options = parser.parse_args()
    model = ColPali.from_pretrained("coltiny", threads=1)
    codec = model.family.pages
    one = session(model.family.graphs.pages, 1)
    times: Times = defaultdict(list)
    pages = chosen(options.pages)
    prepared = []
    for turn in range(options.rounds + 1):
        into: Times = times if turn else defaultdict(list)  # the first round warms up
        prepared = []
        for path, number in pages:
            with stopwatch(into, "draw the page and read its text layer"):
                [page] = pdf_pages(path, dpi=options.dpi, pages=[number])
            with stopwatch(into, "load, resize, scale"):
                ready = codec.prepare(load_image(page))
            with stopwatch(into, "network, batch 1, 1 thread"):
                outputs = dict(
                    zip([value.name for value in one.get_outputs()], one.run(None, codec.feed([ready])), strict=True)
                )
            with stopwatch(into, "gather words"):
                codec.vectors(outputs, [ready])
            prepared.append(ready)
    total = sum(median(cpu for cpu, _ in seen) for seen in times.values())
    rows = [
        (
            stage,
            f"{median(cpu for cpu, _ in seen) * 1e3:.1f}",
            f"{median(wall for _, wall in seen) * 1e3:.1f}",
            f"{median(cpu for cpu, _ in seen) / total:.0%}",
        )
        for stage, seen in times.items()
    ]
    stages = machine.table(("stage, a page", "CPU, ms", "wall, ms", "share of the CPU time"), rows)

    same = max(
        (list(group) for group in _by_key(prepared).values()), key=len
    )  # one size of page, or no batch could be made
    runs: list[tuple[str, int, Callable[[int], object]]] = []
    for threads, spinning in ((1, True), (available_cores(), True), (available_cores(), False)):
        made = session(model.family.graphs.pages, threads, spinning=spinning)
        for batch in (1, 2, 4, 8):
            feed = codec.feed([same[place % len(same)] for place in range(batch)])
            label = f"{threads} threads{'' if spinning else ', no spinning'}, batch {batch}"
            runs.append((label, batch, lambda _, made=made, feed=feed: made.run(None, feed)))
    seen: Times = defaultdict(list)
    for turn in range(options.rounds + 1):
        for label, batch, run in runs if turn % 2 else runs[::-1]:
            start = time.process_time(), time.perf_counter()
            for place in range(8 // batch):
                run(place)
            if turn:
                took = time.process_time() - start[0], time.perf_counter() - start[1]
                seen[label].append((took[0] / 8, took[1] / 8))
    rows2 = [
        (
            label,
            f"{median(cpu for cpu, _ in pairs) * 1e3:.1f}",
            f"{median(wall for _, wall in pairs) * 1e3:.1f}",
            f"{min(wall for _, wall in pairs) * 1e3:.1f}",
        )
        for label, pairs in seen.items()
    ]
    shape = "x".join(str(size) for size in np.shape(same[0].arrays["page"])[1:])
    network = machine.table((f"network, a page of {shape}", "CPU, ms", "wall, ms", "least wall, ms"), rows2)
    machine.write(
        "coltiny.md",
        "# ColTiny: where the time of a page goes\n\nMade by `python -m benchmarks.coltiny`.\n\n"
        f"{stages}\n\nMedians over {options.rounds} rounds of {len(pages)} pages of the demo's PDFs at "
        f"{options.dpi:.0f} dpi.\n\n{network}\n\n{machine.describe()}\n",
    )


def _by_key(prepared: list) -> dict:  # type: ignore[type-arg]
    groups = defaultdict(list)
    for item in prepared:
        groups[item.key].append(item)
    return groups


if __name__ == "__main__":
    main()
