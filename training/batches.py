"""Crops of rendered tiles with everything that the losses need to know about them."""

from __future__ import annotations

import gzip
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.model import CELL

CROP_HEIGHT, CROP_WIDTH = 192, 512
ROWS, COLUMNS = CROP_HEIGHT // CELL, CROP_WIDTH // CELL
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
        pixels: float32 (batch, 1, CROP_HEIGHT, CROP_WIDTH).
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


class TilePool:
    """All rendered shards of some folders; pixels stay on disk until a crop asks for them."""

    def __init__(self, folders: list[Path]) -> None:
        self._tiles: list[NDArray[np.uint8]] = []
        self._labels: list[tuple[list[str], NDArray[np.float32]]] = []
        self._seen: set[Path] = set()
        self._folders = folders
        self.refresh()

    def __len__(self) -> int:
        return len(self._tiles)

    def refresh(self) -> None:
        """Take up shards that have been finished since the last look, so that rendering may go on meanwhile."""
        found = {path for folder in self._folders for path in folder.glob("*.json.gz")}
        for path in sorted(found - self._seen):
            self._seen.add(path)
            self._tiles.extend(np.load(str(path).removesuffix(".json.gz") + ".npy", mmap_mode="r"))
            with gzip.open(path, "rt") as file:
                labels = json.load(file)
            self._labels.extend((tile["words"], np.array(tile["boxes"], np.float32).reshape(-1, 4)) for tile in labels)

    def crops(self, size: int, rng: random.Random) -> Crops:
        """Draw ``size`` random crops, each with its own contrast, noise and gamma."""
        noise = np.random.default_rng(rng.getrandbits(32))
        pixels = np.empty((size, 1, CROP_HEIGHT, CROP_WIDTH), np.float32)
        salient = np.zeros((size, ROWS, COLUMNS), np.float32)
        printed: list[str] = []
        cells: list[int] = []
        touched: list[tuple[str, int, int, int, int, int]] = []
        for index in range(size):
            number = rng.randrange(len(self._tiles))
            tile, (words, boxes) = self._tiles[number], self._labels[number]
            top, left = rng.randint(0, tile.shape[0] - CROP_HEIGHT), rng.randint(0, tile.shape[1] - CROP_WIDTH)
            pixels[index, 0] = disturbed(tile[top : top + CROP_HEIGHT, left : left + CROP_WIDTH], rng, noise)
            boxes = boxes - np.array([left, top, left, top], np.float32)
            for word, (x0, y0, x1, y1) in zip(words, boxes.tolist(), strict=True):
                if x1 < 0 or x0 > CROP_WIDTH or y1 < 0 or y0 > CROP_HEIGHT:
                    continue
                rows = max(0, int((y0 - 2) // CELL)), min(ROWS - 1, int((y1 + 2) // CELL))
                columns = max(0, int((x0 - 3) // CELL)), min(COLUMNS - 1, int((x1 + 3) // CELL))
                touched.append((word, index, *rows, *columns))
                x, y = (x0 + x1) / 2, (y0 + y1) / 2
                whole = x0 > -2 and x1 < CROP_WIDTH + 2 and y0 > -2 and y1 < CROP_HEIGHT + 2
                if whole and 0 <= x < CROP_WIDTH and 0 <= y < CROP_HEIGHT:
                    row, column = int(y // CELL), int(x // CELL)
                    printed.append(word)
                    cells.append((index * ROWS + row) * COLUMNS + column)
                    if len(word) > 2 or word[0].isdigit():
                        salient[index, row, column] = 1
        return Crops(torch.from_numpy(pixels), printed, torch.tensor(cells), touched, torch.from_numpy(salient))


def disturbed(pixels: NDArray[np.uint8], rng: random.Random, noise: np.random.Generator) -> NDArray[np.float32]:
    """Grey levels in [0, 1] with a random change of contrast, grain and gamma."""
    grey = pixels.astype(np.float32) / 255
    if rng.random() < 0.3:
        grey = 1 - (1 - grey) * rng.uniform(0.55, 1.15)
    if rng.random() < 0.25:
        grey = grey + noise.standard_normal(grey.shape, np.float32) * rng.uniform(0.01, 0.06)
    if rng.random() < 0.1:
        grey = np.clip(grey, 0, 1) ** rng.uniform(0.7, 1.6)
    return grey.astype(np.float32)
