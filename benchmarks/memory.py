"""Memory over many pages of many sizes through one model, to see whether it stays flat (PSS, read after each page).

From the repository's root::

    python -m benchmarks.memory [--model coltiny] [--pages 500] [--parallel 2]
    python -m benchmarks.memory --model tests/parity/fixtures/paligemma --pages 10000

`--model` is a registered name or a folder; the fixtures under tests/parity are quick.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import psutil
from PIL import Image

from benchmarks import machine
from benchmarks.encode import pages
from benchmarks.process import pss
from colpali_integrations import ColPali

MIB = 2**20
LATEST = 100  # pages over which a median is taken: one look falls into a run, another between two


def source(count: int, seed: int = 1) -> Iterator[Image.Image]:
    """Real pages, each scaled and cropped at random, so that few have equal sizes."""
    chance = random.Random(seed)
    paths = pages(24)
    for _ in range(count):
        with Image.open(chance.choice(paths)) as image:
            scale = chance.uniform(0.4, 1.0)
            page = image.convert("RGB").resize((int(image.width * scale), int(image.height * scale)))
            yield page.crop((0, 0, page.width, int(page.height * chance.uniform(0.6, 1.0))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="coltiny")
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--no-arena", action="store_true", help="enable_cpu_mem_arena=False")
    options = parser.parse_args()
    if options.pages < 2 * LATEST:
        parser.error(f"--pages must be at least {2 * LATEST}")
    me = psutil.Process()
    step = max(options.pages // 10, 1)
    curve: list[tuple[int, int, int]] = []
    with ColPali.from_pretrained(options.model, enable_cpu_mem_arena=not options.no_arena) as model:
        curve.append((0, pss(me) // MIB, pss(me) // MIB))
        highest = 0
        seen: list[int] = []
        results = model.embed_images(source(options.pages), batch_size=options.batch_size, parallel=options.parallel)
        for number, _ in enumerate(results, start=1):
            seen.append(pss(me) // MIB)
            highest = max(highest, seen[-1])
            if number % step == 0:
                curve.append((number, pss(me) // MIB, highest))
    rows = [(number, now, top) for number, now, top in curve]
    early = next(top for number, _, top in curve if number >= options.pages // 5)
    growth = median(seen[-LATEST:]) / median(seen[LATEST : 2 * LATEST])
    name = Path(options.model).name
    arena = ", no arena" if options.no_arena else ""
    machine.write(
        f"memory-{name}{'-no-arena' if options.no_arena else ''}.md",
        f"# Memory over {options.pages} pages of different sizes: {name}, parallel={options.parallel}{arena}\n\n"
        "Made by `python -m benchmarks.memory`.\n\n"
        f"{machine.table(('pages done', 'PSS, MiB', 'highest so far, MiB'), rows)}\n\n"
        f"The highest at the end is {curve[-1][2] / early:.2f} times the highest after a fifth of the pages. The "
        f"median over the last {LATEST} pages is {growth:.2f} times that over "
        f"pages {LATEST + 1} to {2 * LATEST}.\n\n"
        f"{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
