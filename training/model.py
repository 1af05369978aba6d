"""ColTiny's two encoders: pixels to word vectors, words to vectors of the same space.

Both are trained from random weights. Their vectors meet in one space: the vector that is read at a 16 x 16 pixel cell
points to the vector of the word whose centre lies in that cell, so MaxSim over the cells of a page asks "does this
page say the word, as far as it can be read?".

A page has some 3,700 cells and 400 words. A light convolutional trunk sees all of it and says where words are centred
(salience); a heavy reader looks at those places only:

    page -> trunk -> letters (1/8) ------> window of 4 x 14 around a salient cell --+-> reader -> vector, spelling
                  -> words (1/16) -------> the cell and two on either side ---------+
                  -> salience (1/16): which cells
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colpali_integrations.models.coltiny.words import FEATURE_COUNT, word_features

CELL = 16
"""Side in pixels of the square cell that a word's centre is located in (four strides of two)."""
WORD_WEIGHT_RANGE = (0.05, 1.1)
"""Bounds of a query word's learned weight, so that no word is mute or drowns the rest."""
SPELLED = 10
"""Characters that the reader spells from either end of a word, in training only."""
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789.,"


def conv_norm(
    inputs: int, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A padded convolution without bias followed by BatchNorm, which export folds into one convolution."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    conv = nn.Conv2d(inputs, outputs, (height, width), stride, (height // 2, width // 2), groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class DenseResidual(nn.Module):
    """Two 3 x 3 convolutions with a skip connection: letter strokes at a quarter of the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels, 3)
        self.second = conv_norm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class WideBlock(nn.Module):
    """ConvNeXt-like block whose depthwise kernel is wider than high, as words are."""

    def __init__(self, channels: int, kernel: tuple[int, int], *, expansion: int = 2) -> None:
        super().__init__()
        self.depthwise = conv_norm(channels, channels, kernel, groups=channels)
        self.expand = nn.Conv2d(channels, channels * expansion, 1)
        self.reduce = nn.Conv2d(channels * expansion, channels, 1)
        self.gain = nn.Parameter(torch.full((1, channels, 1, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        return x + self.gain * self.reduce(F.relu(self.expand(self.depthwise(x))))


@dataclass
class Seen:
    """What the trunk sees of a page.

    Attributes:
        letters: (batch, LETTERS, height / 8, width / 8).
        words: (batch, WORDS, height / 16, width / 16).
        salience: logits (batch, height / 16, width / 16); positive: "a word is centred in this cell".
    """

    letters: Tensor
    words: Tensor
    salience: Tensor


class PageEncoder(nn.Module):
    """Greyscale page to salience everywhere and a unit vector at chosen cells."""

    LETTERS, WORDS = 48, 192
    WINDOW = (4, 14)
    """Rows and columns of letter features around a cell's centre: 32 x 112 pixels."""
    BESIDE = 2
    """Cells to either side whose word features are read too."""
    HIDDEN, EXPANDED = 384, 1152
    """Features of a window, and of them inside of each of the reader's layers."""

    def __init__(self, *, dim: int = 128) -> None:
        super().__init__()
        self.precision = torch.float32
        """What convolutions and matrices are multiplied in: bfloat16 trains a third faster where the CPU has it."""
        self.stem = conv_norm(1, 16, 3, stride=2)
        self.down4 = conv_norm(16, 32, 3, stride=2)
        self.strokes = DenseResidual(32)
        self.down8 = conv_norm(32, 96, 3, stride=2)
        self.letters = nn.Sequential(*[WideBlock(96, (5, 7)) for _ in range(3)])
        self.narrow = conv_norm(96, self.LETTERS, 1)
        self.down16 = conv_norm(96, self.WORDS, 3, stride=2)
        self.words = nn.Sequential(*[WideBlock(self.WORDS, (3, 9)) for _ in range(2)])
        self.norm = nn.BatchNorm2d(self.WORDS)
        self.salience = nn.Conv2d(self.WORDS, 1, 1)
        inputs = self.WINDOW[0] * self.WINDOW[1] * self.LETTERS + (2 * self.BESIDE + 1) * self.WORDS
        self.read = nn.Linear(inputs, self.HIDDEN, bias=False)
        self.read_norm = nn.BatchNorm1d(self.HIDDEN)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(self.HIDDEN, self.EXPANDED), nn.ReLU(), nn.Linear(self.EXPANDED, self.HIDDEN))
            for _ in range(3)
        )
        self.vector = nn.Linear(self.HIDDEN, dim)
        self.spelling = nn.Linear(self.HIDDEN, 2 * SPELLED * (len(ALPHABET) + 1))

    def see(self, page: Tensor) -> Seen:
        """Run the trunk.

        Args:
            page: float (batch, 1, height, width), 0 black to 1 white, sides multiples of 16.
        """
        with self._multiplied():
            x = F.relu(self.stem(page))
            x = self.strokes(F.relu(self.down4(x)))
            x = self.letters(F.relu(self.down8(x)))
            words = self.norm(self.words(F.relu(self.down16(x))))
            return Seen(F.relu(self.narrow(x)), words, self.salience(words)[:, 0].float())

    def _multiplied(self) -> torch.autocast:
        device = self.vector.weight.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision is torch.bfloat16)

    def windows(self, seen: Seen, cells: Tensor) -> Tensor:
        """What the reader looks at: float (n, inputs).

        Args:
            seen: of the whole batch.
            cells: int64 (n,), indices into the flattened (batch, rows, columns) of cells.
        """
        rows, columns = seen.words.shape[2], seen.words.shape[3]
        number, place = cells // (rows * columns), cells % (rows * columns)
        row, column = place // columns, place % columns

        high, wide = self.WINDOW
        up, left = high // 2 - 1, wide // 2 - 1
        letters = F.pad(seen.letters, (left, wide // 2 - 1, up, high // 2 - 1)).permute(0, 2, 3, 1)
        tall, broad = 2 * rows + high - 2, 2 * columns + wide - 2
        start = (number * tall + 2 * row) * broad + 2 * column
        device = cells.device
        offsets = (torch.arange(high, device=device)[:, None] * broad + torch.arange(wide, device=device)).reshape(-1)
        near = letters.reshape(-1, self.LETTERS)[start[:, None] + offsets].reshape(-1, high * wide * self.LETTERS)

        words = F.pad(seen.words, (self.BESIDE, self.BESIDE)).permute(0, 2, 3, 1)
        start = (number * rows + row) * (columns + 2 * self.BESIDE) + column
        around = words.reshape(-1, self.WORDS)[start[:, None] + torch.arange(2 * self.BESIDE + 1, device=device)]
        return torch.cat([near, around.reshape(-1, (2 * self.BESIDE + 1) * self.WORDS)], dim=1)

    def hidden(self, windows: Tensor) -> Tensor:
        """The reader's features (n, HIDDEN) of windows (n, inputs)."""
        x = F.relu(self.read_norm(self.read(windows)))
        for layer in self.layers:
            x = x + layer(x)
        return x

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Read windows: unit vectors (n, dim), and spelling logits (n, 2 * SPELLED, letters + 1)."""
        with self._multiplied():
            x = self.hidden(windows)
            vector, spelled = self.vector(x).float(), self.spelling(x).float()
        return F.normalize(vector, dim=1), spelled.view(len(x), 2 * SPELLED, -1)


class WordEncoder(nn.Module):
    """Sum of spelling features (see ``word_features``), a residual MLP, a unit vector and a weight."""

    def __init__(self, *, hidden: int = 192, dim: int = 128) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(FEATURE_COUNT, hidden, mode="sum")
        nn.init.normal_(self.embedding.weight, 0, 0.08)
        self.norm_in = nn.LayerNorm(hidden)
        self.expand = nn.Linear(hidden, 512)
        self.reduce = nn.Linear(512, hidden)
        self.norm_out = nn.LayerNorm(hidden)
        self.vector = nn.Linear(hidden, dim)
        self.weight = nn.Sequential(nn.Linear(hidden, 64), nn.ReLU(), nn.Linear(64, 1))

    def head(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Summed features (words, hidden) to unit vectors (words, dim) and weights (words,)."""
        x = self.norm_in(x)
        x = self.norm_out(x + self.reduce(F.gelu(self.expand(x))))
        # The weight only observes the vector's features: regressing it must not bend the shared space.
        return F.normalize(self.vector(x), dim=1), self.weight(x.detach()).squeeze(1)

    def forward(self, ids: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Encode words given as concatenated feature ids (total,) and each word's start (words,)."""
        return self.head(self.embedding(ids, offsets))


def word_batch(words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Feature ids and offsets of ``words`` for :class:`WordEncoder`."""
    ids: list[int] = []
    offsets: list[int] = []
    for word in words:
        offsets.append(len(ids))
        ids.extend(word_features(word))
    return torch.tensor(ids), torch.tensor(offsets)


@lru_cache(200_000)
def _classes(word: str) -> tuple[int, ...]:
    codes = [ALPHABET.index(character) for character in word]
    none = [len(ALPHABET)] * SPELLED
    return (*(codes + none)[:SPELLED], *(codes[::-1] + none)[:SPELLED])


def spelling(words: Sequence[str]) -> Tensor:
    """Characters from the left and from the right as classes, ``len(ALPHABET)`` for none: (words, 2 * SPELLED)."""
    return torch.tensor([_classes(word) for word in words])


def load_weights(path: str | Path) -> tuple[PageEncoder, WordEncoder, dict[str, object]]:
    """Read a checkpoint of ``train.py`` into two encoders in eval mode.

    Returns:
        The page encoder, the word encoder, and the checkpoint's other entries (step, seconds, ...).
    """
    state = torch.load(path, map_location="cpu", weights_only=False)
    page, word = PageEncoder(), WordEncoder()
    page.load_state_dict(state["page"])
    word.load_state_dict(state["word"])
    return page.eval(), word.eval(), {name: value for name, value in state.items() if name not in {"page", "word"}}
