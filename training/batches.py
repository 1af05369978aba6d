"""Batches of freshly drawn tiles with everything that the losses need to know about them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from colpali_integrations.models.coltiny.pixels import even_light
from training.corpus import Corpus
from training.lexicon import Lexicon, WordSet, misspelt, number_of, stem
from training.model import CELL, spelling
from training.render import HEIGHT, WIDTH, TileSetter

ROWS, COLUMNS = HEIGHT // CELL, WIDTH // CELL
MISSPELT, INFLECTED, OTHERS = 220, 150, 120
"""Words beside the printed ones that a batch's cells must not show: misspellings, words of the same stem, any."""


@dataclass
class Crops:
    """A training batch. Cells are numbered through the flattened (batch, ROWS, COLUMNS).

    Attributes:
        pixels: float16 (batch, 1, HEIGHT, WIDTH).
        salient: float32 (batch, ROWS, COLUMNS), 1 where a word is centred.
        cells: int64 (tokens,), the cell of the centre of every printed word that is wholly in sight.
        target: int64 (tokens,), which of ``pool`` it is.
        letters: int64 (tokens, 2 * SPELLED), its characters.
        pool: the words that the batch is scored against, each once, those of ``target`` among them.
        misspelt: int64 (pairs, 2), places of a misspelling and of the word it comes from.
        touched: int64 (n, 2), the stem's number of a word at least partly in sight and a cell that it touches.
    """

    pixels: Tensor
    salient: Tensor
    cells: Tensor
    target: Tensor
    letters: Tensor
    pool: WordSet
    misspelt: Tensor
    touched: Tensor

    def to(self, device: torch.device) -> Crops:
        """The same on a device."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("pixels", "salient", "cells", "target", "letters", "misspelt", "touched")
        }
        return replace(self, pool=self.pool.to(device), **moved)


def draw(setter: TileSetter, lexicon: Lexicon, size: int, rng: random.Random) -> Crops:
    """``size`` fresh tiles as a batch."""
    pixels = np.empty((size, 1, HEIGHT, WIDTH), np.float16)
    salient = np.zeros((size, ROWS, COLUMNS), np.float32)
    printed: list[str] = []
    cells: list[int] = []
    touched: list[tuple[int, int]] = []
    for index in range(size):
        tile = setter.tile()
        pixels[index, 0] = even_light(tile.pixels)
        for word, (x0, y0, x1, y1) in zip(tile.words, tile.boxes.tolist(), strict=True):
            if x1 < 0 or x0 > WIDTH or y1 < 0 or y0 > HEIGHT:
                continue
            root = number_of(stem(word))
            for row in range(max(0, int((y0 - 2) // CELL)), min(ROWS - 1, int((y1 + 2) // CELL)) + 1):
                first = (index * ROWS + row) * COLUMNS
                left, right = max(0, int((x0 - 3) // CELL)), min(COLUMNS - 1, int((x1 + 3) // CELL))
                touched += [(root, first + column) for column in range(left, right + 1)]
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            whole = x0 > -2 and x1 < WIDTH + 2 and y0 > -2 and y1 < HEIGHT + 2
            if whole and 0 <= x < WIDTH and 0 <= y < HEIGHT:
                row, column = int(y // CELL), int(x // CELL)
                printed.append(word)
                cells.append((index * ROWS + row) * COLUMNS + column)
                if len(word) > 2 or word[0].isdigit():
                    salient[index, row, column] = 1
    pool, pairs = _pool(printed, lexicon, rng)
    return Crops(
        torch.from_numpy(pixels),
        torch.from_numpy(salient),
        torch.tensor(cells, dtype=torch.int64),
        torch.tensor([pool[word] for word in printed], dtype=torch.int64),
        spelling(printed),
        lexicon.set_of(list(pool)),
        torch.tensor(pairs, dtype=torch.int64).view(-1, 2),
        torch.tensor(touched, dtype=torch.int64).view(-1, 2),
    )


def _pool(printed: list[str], lexicon: Lexicon, rng: random.Random) -> tuple[dict[str, int], list[tuple[int, int]]]:
    """Words to their places, and pairs of places of misspellings and their words."""
    pool: dict[str, int] = {}
    for word in printed:
        pool.setdefault(word, len(pool))
    seen = list(pool)
    pairs = []
    for word in rng.sample(seen, min(len(seen), MISSPELT)):
        wrong = misspelt(word, rng)
        if wrong and wrong not in pool:
            pairs.append((pool.setdefault(wrong, len(pool)), pool[word]))
    for word in rng.sample(seen, min(len(seen), INFLECTED)):
        mates = lexicon.mates(word)
        if mates:
            pool.setdefault(rng.choice(mates), len(pool))
    for word in rng.sample(lexicon.known, OTHERS):
        pool.setdefault(word, len(pool))
    return pool, pairs


class FreshTiles(IterableDataset[Crops]):
    """Endless batches, no tile twice."""

    def __init__(self, corpus: Corpus, lexicon: Lexicon, size: int, seed: int) -> None:
        super().__init__()
        self._corpus, self._lexicon, self._size, self._seed = corpus, lexicon, size, seed

    def __iter__(self) -> Iterator[Crops]:
        worker = torch.utils.data.get_worker_info()
        seed = self._seed * 1000 + (worker.id if worker else 0)
        setter, rng = TileSetter(self._corpus, seed), random.Random(seed)
        while True:
            crops = draw(setter, self._lexicon, self._size, rng)
            if len(crops.cells) >= 50:
                yield crops


def batches(corpus: Corpus, lexicon: Lexicon, size: int, seed: int, workers: int) -> Iterator[Crops]:
    """Batches drawn ahead by ``workers`` processes."""
    tiles = FreshTiles(corpus, lexicon, size, seed)
    return iter(DataLoader(tiles, batch_size=None, num_workers=workers, prefetch_factor=4))
