"""The losses: what a cell says must be the right word, near 1; what it does not say must stay below the hinge.

A softmax alone only orders words, and unrelated ones end at cosines of .5 to .7; then frequent neighbours win in
MaxSim. So most of the weight lies on absolute similarities: a sigmoid at a fixed scale and threshold over all pairs
of cells and candidate words, a pull towards 1 for the right pair, and hinges on absent words.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.batches import COLUMNS, ROWS, Crops, misspelt, stem
from training.corpus import Corpus
from training.model import PageEncoder, Seen, WordEncoder, spelling, word_batch

SCALE, THRESHOLD = 20.0, 0.5
"""Sigmoid over cosines: steepness and the cosine that means "as likely as not"."""
SOFTMAX_SCALE = 25.0
ABSENT_LIMIT, MISSPELT_LIMIT = 0.2, 0.35
"""Cosines that unrelated words, and words one letter apart, may have for free."""
INFLECTED_FLOOR = 0.5
"""Cosine that words of one stem should at least have: "compiling" finds "compile"."""
WEIGHTS = {
    "right": 1.0, "wrong": 0.5, "pull": 1.5, "absent": 5.0, "softmax": 0.5, "salience": 0.3, "apart": 0.5,
    "inflected": 2.0, "rarity": 1.0, "spelling": 1.0,
}  # fmt: skip


class WordBank:
    """Known words as negatives: their vectors are kept, slightly stale, to mine what is confused with what."""

    def __init__(self, corpus: Corpus, rng: random.Random, precision: torch.dtype = torch.float32) -> None:
        self._frequency, self._rng, self._precision = corpus.frequency, rng, precision
        self._lines = len(corpus.lines) + len(corpus.foreign_lines)
        known = rng.sample(sorted(corpus.frequency), min(14000, len(corpus.frequency)))
        known += rng.sample(corpus.vocabulary, 10000) + rng.sample(corpus.foreign_vocabulary, 4000)
        self.words = sorted(
            {word for word in known if word.isascii() and word.isalnum() and word.islower() and len(word) > 1}
        )
        self.stems = [stem(word) for word in self.words]
        self._mates: dict[str, list[str]] = {}
        for word, root in zip(self.words, self.stems, strict=True):
            self._mates.setdefault(root, []).append(word)
        self._features = word_batch(self.words)
        self.vectors = torch.empty(0)

    @torch.no_grad()
    def refresh(self, encoder: WordEncoder) -> None:
        """Encode the bank with the weights of now."""
        self.vectors = encoder(*self._features)[0].to(self._precision)

    def rarity(self, word: str) -> float:
        """Inverse document frequency over corpus lines, scaled to [0.05, 1]: the target of a word's weight."""
        idf = math.log(self._lines / (self._frequency.get(word, 0) + 1)) / math.log(self._lines)
        return min(1.0, max(0.05, idf))

    @torch.no_grad()
    def confusable(self, cells: Tensor, own: list[str | None], *, each: int = 2) -> list[str]:
        """For cell vectors (n, dim) and the stem each one shows (or None), the nearest wrong words."""
        nearest = (cells.to(self._precision) @ self.vectors.T).topk(4, dim=1).indices.tolist()
        return [
            self.words[index]
            for row, root in zip(nearest, own, strict=True)
            for index in [index for index in row if self.stems[index] != root][:each]
        ]

    def mates(self, word: str) -> list[str]:
        """Other words of the same stem."""
        return [mate for mate in self._mates.get(stem(word), []) if mate != word]

    def some(self, count: int) -> list[str]:
        """Random words."""
        return self._rng.sample(self.words, count)


@dataclass
class Candidates:
    """The words that a batch is scored against; the printed ones first, in the order of ``index``."""

    words: list[str]
    index: dict[str, int]
    misspelt: list[tuple[int, int]]
    """(place of a misspelling, place of the word it comes from)."""


def candidates(crops: Crops, cells: Tensor, of_word: Tensor, bank: WordBank, rng: random.Random) -> Candidates:
    """Printed words, words confused with them, misspellings, inflections and random words; each once.

    Args:
        crops: the labels.
        cells: vectors (n, dim) of the cells that were read.
        of_word: (words,), which of them each printed word's is.
        bank: source of negatives.
        rng: source of chance.
    """
    index: dict[str, int] = {}
    for word in crops.words:
        index.setdefault(word, len(index))
    printed = list(index)
    pick = rng.sample(range(len(crops.words)), min(len(crops.words), 160))
    elsewhere = torch.randint(len(cells), (60,))
    own: list[str | None] = [*(stem(crops.words[i]) for i in pick), *([None] * len(elsewhere))]
    for word in bank.confusable(torch.cat([cells[of_word[pick]], cells[elsewhere]]).detach(), own):
        index.setdefault(word, len(index))
    pairs = []
    for word in rng.sample(printed, min(len(printed), 220)):
        wrong = misspelt(word, rng)
        if wrong and wrong not in index:
            pairs.append((index.setdefault(wrong, len(index)), index[word]))
    for word in rng.sample(printed, min(len(printed), 150)):
        mates = bank.mates(word)
        if mates:
            index.setdefault(rng.choice(mates), len(index))
    for word in bank.some(120):
        index.setdefault(word, len(index))
    return Candidates(list(index), index, pairs)


SURE, CHANCE = 80, 30
"""Cells without a word that are read in training: those that look most like one, and random ones."""


@torch.no_grad()
def read_cells(salience: Tensor, crops: Crops) -> Tensor:
    """The cells to read, in ascending order: those of words, and others that the model may have to refuse."""
    score = salience.reshape(-1) - 2 * torch.rand(salience.numel()).clamp(1e-6, 1 - 1e-6).log().neg().log()
    score[crops.cells] = -torch.inf
    return torch.unique(torch.cat([crops.cells, score.topk(SURE).indices, torch.randperm(len(score))[:CHANCE]]))


def losses(
    page: PageEncoder, seen: Seen, crops: Crops, encoder: WordEncoder, bank: WordBank, rng: random.Random
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """All losses of one batch, unweighted, and what to log.

    Args:
        page: the page encoder.
        seen: what its trunk sees of the batch.
        crops: the labels.
        encoder: the word encoder.
        bank: source of negatives.
        rng: source of chance.
    """
    batch = len(crops.pixels)
    used = read_cells(seen.salience, crops)
    place = torch.full((batch * ROWS * COLUMNS,), -1)
    place[used] = torch.arange(len(used))
    cells, spelled = page(page.windows(seen, used))
    of_word = place[crops.cells]
    pool = candidates(crops, cells, of_word, bank, rng)
    vectors, weights = encoder(*word_batch(pool.words))
    root_id: dict[str, int] = {}
    roots = torch.tensor([root_id.setdefault(stem(word), len(root_id)) for word in pool.words])
    target = torch.tensor([pool.index[word] for word in crops.words])

    # Cells that touch a printed word say something of it: they are no negatives for any word of its stem.
    touched = np.zeros((len(root_id), batch, ROWS, COLUMNS), bool)
    for word, crop, row0, row1, column0, column1 in crops.touched:
        root = root_id.get(stem(word))
        if root is not None:
            touched[root, crop, row0 : row1 + 1, column0 : column1 + 1] = True
    ignored = torch.from_numpy(touched).view(len(root_id), -1)[:, used][roots]

    cosine = vectors @ cells.T
    # A word printed n times counts as sqrt(n) words.
    share = torch.bincount(target, minlength=len(pool.words)).float()[target] ** -0.5
    share = share / share.sum()
    right = cosine[target, of_word]
    wrong = F.softplus((SCALE * (cosine - THRESHOLD)).masked_fill(ignored, -50.0)).sum() / len(pool.words)

    crop_of = used // (ROWS * COLUMNS)
    absent = cosine.masked_fill(ignored, -1.0)
    parts = absent.split(torch.bincount(crop_of, minlength=batch).tolist(), dim=1)  # `used` is in ascending order
    best = torch.stack([part.amax(1) for part in parts if part.shape[1]], 1)
    same_root = roots[:, None] == roots[None, :]
    limit = torch.full((len(pool.words),), ABSENT_LIMIT)
    between = torch.full_like(same_root, ABSENT_LIMIT, dtype=torch.float32)
    for wrong_place, source in pool.misspelt:
        limit[wrong_place] = MISSPELT_LIMIT
        between[wrong_place, source] = between[source, wrong_place] = MISSPELT_LIMIT
    word_cosine = vectors @ vectors.T
    apart = F.relu(word_cosine.masked_fill(same_root, -1.0) - between).square().sum(1).mean()
    itself = torch.eye(len(pool.words), dtype=torch.bool)
    kin = same_root & ~itself
    inflected = F.relu(INFLECTED_FLOOR - word_cosine)[kin].square().sum() / len(pool.words)

    logits = SOFTMAX_SCALE * (cells[of_word] @ vectors.T)
    logits = logits.masked_fill(kin[target], -1e4)
    chosen = F.cross_entropy(logits, target, reduction="none")
    letters = F.cross_entropy(spelled[of_word].flatten(0, 1), spelling(crops.words).flatten(), reduction="none")
    letters = letters.view(len(target), -1).mean(1)
    found = {
        "right": (F.softplus(-SCALE * (right - THRESHOLD)) * share).sum(),
        "wrong": wrong,
        "pull": ((1 - right) * share).sum(),
        "absent": F.relu(best - limit[:, None]).square().mean(),
        "softmax": (chosen * share).sum(),
        "salience": F.binary_cross_entropy_with_logits(seen.salience, crops.salient),
        "apart": apart,
        "inflected": inflected,
        "spelling": (letters * share).sum(),
        "rarity": F.mse_loss(weights, torch.tensor([bank.rarity(word) for word in pool.words])),
    }
    log = {
        "read": (logits.argmax(1) == target).float().mean().item(),
        "cosine": right.mean().item(),
        "absent_max": best.mean().item(),
        "kin": word_cosine[kin].mean().item() if kin.any() else 0.0,
    }
    return found, log
