"""Words in bulk: their spelling features as tensors, how rare they are, and which of them share a stem."""

from __future__ import annotations

import math
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from colpali_integrations.models.coltiny.words import word_features
from training.corpus import Corpus

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
class WordSet:
    """Words as tensors of one device.

    Attributes:
        ids: int64 (features,), the spelling features of one word after the other.
        lengths: int64 (words,), how many features each word has.
        words: int64 (words,), a number for each spelling (CRC-32).
        roots: int64 (words,), a number for each stem.
        rarity: float32 (words,), what a word's weight should be.
    """

    ids: Tensor
    lengths: Tensor
    words: Tensor
    roots: Tensor
    rarity: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def features(self) -> tuple[Tensor, Tensor]:
        """The arguments of ``WordEncoder``."""
        return self.ids, self.lengths.cumsum(0) - self.lengths

    def to(self, device: torch.device) -> WordSet:
        """The same on a device."""
        return WordSet(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))

    def at(self, places: Tensor) -> WordSet:
        """Some of the words."""
        lengths = self.lengths[places]
        starts = (self.lengths.cumsum(0) - self.lengths)[places]
        within = torch.arange(int(lengths.sum()), device=lengths.device)
        ids = self.ids[torch.repeat_interleave(starts - lengths.cumsum(0) + lengths, lengths) + within]
        return WordSet(ids, lengths, self.words[places], self.roots[places], self.rarity[places])

    def __add__(self, more: WordSet) -> WordSet:
        return WordSet(*(torch.cat([getattr(self, f.name), getattr(more, f.name)]) for f in fields(self)))


def number_of(text: str) -> int:
    """A number for a spelling, the same in every process."""
    return zlib.crc32(text.encode())


@lru_cache(300_000)
def _described(word: str) -> tuple[tuple[int, ...], int, int]:
    return tuple(word_features(word)), number_of(word), number_of(stem(word))


class Lexicon:
    """What the corpus knows of words."""

    def __init__(self, corpus: Corpus) -> None:
        self._frequency = corpus.frequency
        self._lines = len(corpus.lines) + len(corpus.foreign_lines)
        rng = random.Random(0)
        known = rng.sample(sorted(corpus.frequency), min(14000, len(corpus.frequency)))
        known += rng.sample(corpus.vocabulary, 10000) + rng.sample(corpus.foreign_vocabulary, 4000)
        self.known = sorted(
            {word for word in known if word.isascii() and word.isalnum() and word.islower() and len(word) > 1}
        )
        self._mates: dict[str, list[str]] = {}
        for word in self.known:
            self._mates.setdefault(stem(word), []).append(word)

    def rarity(self, word: str) -> float:
        """Inverse document frequency over corpus lines, scaled to [0.05, 1]: the target of a word's weight."""
        idf = math.log(self._lines / (self._frequency.get(word, 0) + 1)) / math.log(self._lines)
        return min(1.0, max(0.05, idf))

    def mates(self, word: str) -> list[str]:
        """Other words of the same stem."""
        return [mate for mate in self._mates.get(stem(word), ()) if mate != word]

    def set_of(self, words: Sequence[str]) -> WordSet:
        """The words as tensors."""
        found = [_described(word) for word in words]
        return WordSet(
            torch.tensor([feature for features, _, _ in found for feature in features]),
            torch.tensor([len(features) for features, _, _ in found]),
            torch.tensor([word for _, word, _ in found]),
            torch.tensor([root for _, _, root in found]),
            torch.tensor([self.rarity(word) for word in words]),
        )
