"""Pages and queries that look like ColPali's to a store: any number of them, none of them in memory.

From the repository's root::

    python -m benchmarks.stores_data [--pages 10000] [--vectors 1030]

prints what one looks like. A page is a grid of patches, row by row, and the vectors of a prompt after it: 32 x 32 + 6,
or 20 x 20 with `vectors=400`. Every vector is of unit length and made of

- a direction that all patches of all pages share, and one of the page's own;
- a meaning. Each of 400 topics has 60 meanings near its centre, asked for by Zipf's law, and 200 are everybody's. A
  page is about one to three topics and has some 40 meanings. They stand as text does: lines with margins, paragraphs
  with empty lines between, runs of one to some five patches of a meaning, now and then a picture of one meaning;
- for patches without print, "blank", whose vectors differ by place and page more than by patch;
- noise, half of it smooth over 4 x 4 patches, half of it each patch's own; neighbours in a line mix, as attention
  mixes them.

Directions decay (the j-th of dim coordinates has a standard deviation of j^-1/4), as embeddings' spectra do. A query
is 8 to 12 patches with print from two or three places of its target page, each with noise of 0.7 its length, and the
vectors that a query's prompt and padding add: nearly the same for all queries, and drawn to what the query says.

These shares are guesses: no weights of a real ColPali were at hand to measure. ColTiny's cells, which were, have the
same kinds of cosines (10%, 50%, 90% on 28 pages of manuals: side by side .21 .51 .96, any two with print .08 .28 .50,
blank .86 .98 1.00, 80% blank), without the common direction and less smooth along a line. Recalls found here order
methods; check them on pages of your own.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from colpali_integrations.scoring.maxsim import max_sim

Float = NDArray[np.float32]
BLANK = -1
TOPICS, MEANINGS, SHARED = 400, 60, 200
# Lengths of a patch's parts before it is scaled to length 1.
COMMON, PAGE, TOPIC, MEANING, SMOOTH, OWN = 0.75, 0.25, 0.45, 0.65, 0.25, 0.35
QUERY_NOISE = 0.7


@dataclass(frozen=True)
class Corpus:
    """Pages and queries, each a function of the seed and its number.

    Attributes:
        pages: how many; queries have their targets among them.
        vectors: of a page.
        dim: of a vector.
        seed: another gives other pages.
    """

    pages: int = 10_000
    vectors: int = 1030
    dim: int = 128
    seed: int = 0

    @property
    def side(self) -> int:
        """Rows and columns of the grid."""
        return math.isqrt(self.vectors)

    @cached_property
    def _spectrum(self) -> Float:
        spectrum = np.arange(1, self.dim + 1) ** -0.25
        return (spectrum / np.sqrt((spectrum**2).sum())).astype(np.float32)  # a draw is about of length 1

    def _draw(self, rng: np.random.Generator, *shape: int) -> Float:
        return rng.standard_normal((*shape, self.dim), np.float32) * self._spectrum

    @cached_property
    def _world(self) -> dict[str, Any]:
        """The direction that all pages share."""
        rng = np.random.default_rng([self.seed, 0])
        topics = self._draw(rng, TOPICS)
        meanings = TOPIC * topics[:, None] + MEANING * self._draw(rng, TOPICS, MEANINGS)
        shared = math.hypot(TOPIC, MEANING) * self._draw(rng, SHARED)
        # Each row of the table is a meaning: first those of topics, then those of all pages, last blank (-1).
        table = np.concatenate([meanings.reshape(-1, self.dim), shared, 0.5 * self._draw(rng, 1)])
        zipf = 1 / np.arange(1, MEANINGS + 1)
        return {
            "common": COMMON * self._draw(rng),
            "table": table,
            "places": 0.2 * self._draw(rng, 8, 8),  # what a patch knows of where it is
            "prompt": self._draw(rng, 64),
            "padding": self._draw(rng, 16),
            "zipf": zipf / zipf.sum(),
        }

    def layout(self, number: int) -> NDArray[np.intp]:
        """Meaning of each patch of a page: (side, side), -1 for blank."""
        return self._layout(np.random.default_rng([self.seed, 1, number]))

    def page(self, number: int) -> NDArray[np.float16]:
        """One page: (vectors, dim), unit rows."""
        world, side = self._world, self.side
        rng = np.random.default_rng([self.seed, 1, number])
        shown = self._layout(rng)
        page = PAGE * self._draw(rng) + world["common"]
        rows = np.arange(side) * 8 // side
        smooth = SMOOTH * self._draw(rng, side // 4 + 1, side // 4 + 1) + page
        quarter = np.arange(side) // 4
        grid = world["table"][shown]
        grid += smooth[quarter[:, None], quarter]
        grid += world["places"][rows[:, None], rows]
        own = self._draw(rng, side, side)
        own *= np.where(shown == BLANK, OWN / 2, OWN)[:, :, None].astype(np.float32)
        grid += own
        mixed = grid.copy()
        mixed[:, 1:] += 0.25 * grid[:, :-1]
        mixed[:, :-1] += 0.25 * grid[:, 1:]
        rest = world["prompt"][: self.vectors - side * side] + page + 0.1 * self._draw(rng, self.vectors - side * side)
        return _unit(np.concatenate([mixed.reshape(-1, self.dim), rest])).astype(np.float16)

    def _layout(self, rng: np.random.Generator) -> NDArray[np.intp]:
        side = self.side
        topics = rng.choice(TOPICS, rng.integers(1, 4), replace=False)
        words = rng.choice(MEANINGS, (len(topics), 12), p=self._world["zipf"])
        known = np.concatenate(
            [(topics[:, None] * MEANINGS + words).ravel(), TOPICS * MEANINGS + rng.integers(0, SHARED, 12)]
        )
        starts = rng.random((side, side)) < 0.4
        starts[:, 0] = True
        runs = np.cumsum(starts).reshape(side, side) - 1
        shown = rng.choice(known, runs[-1, -1] + 1)[runs]
        margin, top = max(1, side // 12), max(1, side // 16)
        shown[rng.random(side) < 0.3] = BLANK
        ends = np.where(rng.random(side) < 0.25, rng.integers(side // 4, side, side), side - margin)
        columns = np.arange(side)
        shown[(columns < margin) | (columns >= ends[:, None])] = BLANK
        shown[:top] = shown[side - top - int(rng.integers(0, side // 2)) :] = BLANK
        if rng.random() < 0.4:
            height, width = rng.integers(side // 5, side // 2, 2)
            row, column = rng.integers(top, side - height), rng.integers(margin, side - width)
            shown[row : row + height, column : column + width] = rng.choice(known)
        return np.asarray(shown)

    def target(self, number: int) -> int:
        """The page that a query is made from."""
        return int(np.random.default_rng([self.seed, 2, number]).integers(self.pages))

    def query(self, number: int) -> Float:
        """One query: (20 to 24, dim), unit rows."""
        rng = np.random.default_rng([self.seed, 2, number])
        target = int(rng.integers(self.pages))
        printed = np.flatnonzero(self.layout(target).reshape(-1) != BLANK)
        page = self.page(target)[: self.side**2].astype(np.float32)
        said = rng.integers(8, 13)
        anchors = rng.choice(len(printed), rng.integers(2, 4))
        near = (anchors[rng.integers(0, len(anchors), said)] + rng.integers(0, 6, said)) % len(printed)
        content = _unit(page[printed[near]] + QUERY_NOISE * self._draw(rng, said))
        others = int(rng.integers(20, 25)) - said
        padding = self._world["padding"][:others] + 0.5 * self._world["common"] + 0.5 * content.mean(axis=0)
        return np.concatenate([content, _unit(padding + 0.1 * self._draw(rng, others))])

    def truth(self, queries: Sequence[Float], *, top: int = 10, block: int = 32) -> tuple[NDArray[np.intp], Float]:
        """The best pages of each query by exact MaxSim, block by block.

        Returns:
            Numbers (n_queries, top), best first, and the scores (n_queries, pages).
        """
        scores = np.empty((len(queries), self.pages), np.float32)
        for start in range(0, self.pages, block):
            numbers = range(start, min(start + block, self.pages))
            scores[:, start : start + len(numbers)] = max_sim(queries, [self.page(number) for number in numbers])
        return np.argsort(-scores, axis=1, kind="stable")[:, :top], scores


def _unit(rows: Float) -> Float:
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows


def cosines(corpus: Corpus, pages: int = 20) -> list[tuple[str, str]]:
    """Quantiles of cosines between patches of a page, by the relation of the patches."""
    seen: dict[str, list[NDArray[Any]]] = {}
    for number in range(pages):
        shown = corpus.layout(number).reshape(-1)
        vectors = corpus.page(number).astype(np.float32)
        other = corpus.page(number + pages).astype(np.float32)
        side = corpus.side
        print_at, blank_at = np.flatnonzero(shown != BLANK), np.flatnonzero(shown == BLANK)
        pairs = np.random.default_rng(number).integers(0, 2**31, (2, 500))
        grid = vectors[: side * side].reshape(side, side, -1)
        beside = (grid[:, 1:] * grid[:, :-1]).sum(-1)
        both = (shown.reshape(side, side)[:, 1:] != BLANK) & (shown.reshape(side, side)[:, :-1] != BLANK)
        for name, values in (
            ("any two patches of a page", _products(vectors, vectors, pairs)),
            ("two with print", _products(vectors[print_at], vectors[print_at], pairs)),
            ("two with print, side by side", beside[both]),
            ("two blank", _products(vectors[blank_at], vectors[blank_at], pairs)),
            ("a patch with print and one of another page", _products(vectors[print_at], other, pairs)),
        ):
            seen.setdefault(name, []).append(values)
    rows = []
    for name, found in seen.items():
        low, middle, high = np.quantile(np.concatenate(found), [0.1, 0.5, 0.9])
        rows.append((name, f"{low:.2f} {middle:.2f} {high:.2f}"))
    return rows


def _products(left: Float, right: Float, pairs: NDArray[Any]) -> Float:
    values: Float = (left[pairs[0] % len(left)] * right[pairs[1] % len(right)]).sum(axis=1)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--vectors", type=int, default=1030)
    options = parser.parse_args()
    corpus = Corpus(options.pages, options.vectors)
    corpus.page(0)
    start = time.perf_counter()
    blank = np.mean([(corpus.layout(number) == BLANK).mean() for number in range(50)])
    for number in range(50):
        corpus.page(number)
    took = (time.perf_counter() - start) / 50
    print(f"{took * 1e3:.1f} ms a page; {blank:.0%} of the patches blank\n")
    print(machine.table(("cosines of", "10%, 50%, 90%"), cosines(corpus)))
    small = Corpus(min(options.pages, 500), options.vectors)
    queries = [small.query(number) for number in range(20)]
    best, scores = small.truth(queries)
    hit = np.mean([best[number, 0] == small.target(number) for number in range(20)])
    ordered = -np.sort(-scores, axis=1)
    print(
        f"\n{small.pages} pages, 20 queries: the target is first for {hit:.0%}; MaxSim of the 1st, 10th and median "
        f"page: {ordered[:, 0].mean():.2f}, {ordered[:, 9].mean():.2f}, {np.median(scores):.2f}; "
        f"standard deviation over pages {scores.std(axis=1).mean():.2f}"
    )


if __name__ == "__main__":
    main()
