"""Batches of freshly drawn tiles with everything that the losses need to know about them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from colpali_integrations.core.families.coltiny_pixels import even_light
from training.corpus import Corpus
from training.model import CELL
from training.render import HEIGHT, WIDTH, TileSetter

ROWS, COLUMNS = HEIGHT // CELL, WIDTH // CELL
_SUFFIX = re.compile(r"(ings?|edly|ed|ers?|es|s|ly|ions?)$")
_DIGITS, _LETTERS = "0123456789", "abcdefghijklmnopqrstuvwxyz"


def stem(word: str) -> str:
    """A word without its English inflection, crudely; words of one stem are never pushed apart.

    >>> stem("compiling"), stem("compiles"), stem("1999")
    ('compil', 'compil', '1999')
    """
    if word[0].isdigit() or len(word) < 5:
        return word
    root = _SUFFIX.sub("", word).removesuffix("e")
    return root if len(root) >= 4 else word


def misspelt(word: str, rng: random.Random) -> str:
    """The word with one character replaced, dropped, added or swapped: what a careless reader would see."""
    place, kind = rng.randrange(len(word)), rng.random()
    alphabet = _DIGITS if word[place].isdigit() else _LETTERS
    if kind < 0.55 or len(word) < 3:
        return word[:place] + rng.choice(alphabet) + word[place + 1 :]
    if kind < 0.7:
        return word[:place] + word[place + 1 :]
    if kind < 0.85:
        return word[:place] + rng.choice(alphabet) + word[place:]
    return word[:place] + word[place + 1 : place + 2] + word[place] + word[place + 2 :]


@dataclass
class Crops:
    """A training batch.

    Attributes:
        pixels: float32 (batch, 1, HEIGHT, WIDTH).
        words: every printed word that is wholly in sight, folded.
        cells: int64 (words,), index of the cell of each word's centre in the flattened (batch, ROWS, COLUMNS).
        touched: for every word at least partly in sight: spelling, crop, first and last row, first and last column.
        salient: float32 (batch, ROWS, COLUMNS), 1 where a word is centred.
    """

    pixels: Tensor
    words: list[str]
    cells: Tensor
    touched: list[tuple[str, int, int, int, int, int]]
    salient: Tensor


def draw(setter: TileSetter, size: int) -> Crops:
    """``size`` fresh tiles as a batch."""
    pixels = np.empty((size, 1, HEIGHT, WIDTH), np.float32)
    salient = np.zeros((size, ROWS, COLUMNS), np.float32)
    printed: list[str] = []
    cells: list[int] = []
    touched: list[tuple[str, int, int, int, int, int]] = []
    for index in range(size):
        tile = setter.tile()
        pixels[index, 0] = even_light(tile.pixels)
        for word, (x0, y0, x1, y1) in zip(tile.words, tile.boxes.tolist(), strict=True):
            if x1 < 0 or x0 > WIDTH or y1 < 0 or y0 > HEIGHT:
                continue
            rows = max(0, int((y0 - 2) // CELL)), min(ROWS - 1, int((y1 + 2) // CELL))
            columns = max(0, int((x0 - 3) // CELL)), min(COLUMNS - 1, int((x1 + 3) // CELL))
            touched.append((word, index, *rows, *columns))
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            whole = x0 > -2 and x1 < WIDTH + 2 and y0 > -2 and y1 < HEIGHT + 2
            if whole and 0 <= x < WIDTH and 0 <= y < HEIGHT:
                row, column = int(y // CELL), int(x // CELL)
                printed.append(word)
                cells.append((index * ROWS + row) * COLUMNS + column)
                if len(word) > 2 or word[0].isdigit():
                    salient[index, row, column] = 1
    return Crops(torch.from_numpy(pixels), printed, torch.tensor(cells), touched, torch.from_numpy(salient))


class FreshTiles(IterableDataset[Crops]):
    """Endless batches, no tile twice."""

    def __init__(self, corpus: Corpus, size: int, seed: int) -> None:
        super().__init__()
        self._corpus, self._size, self._seed = corpus, size, seed

    def __iter__(self) -> Iterator[Crops]:
        worker = torch.utils.data.get_worker_info()
        setter = TileSetter(self._corpus, self._seed * 1000 + (worker.id if worker else 0))
        while True:
            crops = draw(setter, self._size)
            if len(crops.words) >= 50:
                yield crops


def batches(corpus: Corpus, size: int, seed: int) -> Iterator[Crops]:
    """Batches drawn ahead in a process of their own."""
    loader = DataLoader(FreshTiles(corpus, size, seed), batch_size=None, num_workers=1, prefetch_factor=8)
    return iter(loader)
