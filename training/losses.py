"""The losses: what a cell says must be the right word, near 1; what it does not say must stay below the hinge.

A softmax alone only orders words, and unrelated ones end at cosines of .5 to .7; then frequent neighbours win in
MaxSim. So most of the weight lies on absolute similarities: a sigmoid at a fixed scale and threshold over all pairs
of cells and candidate words, a pull towards 1 for the right pair, and hinges on absent words.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.batches import COLUMNS, ROWS, Crops
from training.lexicon import Lexicon, WordSet
from training.model import PageEncoder, Seen, WordEncoder

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


MINED = 160
"""Printed words of which the two that their cells are nearest to, and are not, join the batch's words."""


class WordBank:
    """Known words as negatives: their vectors are kept, slightly stale, to mine what is confused with what."""

    def __init__(self, lexicon: Lexicon, device: torch.device, precision: torch.dtype = torch.float32) -> None:
        self.words = lexicon.set_of(lexicon.known).to(device)
        self._precision = precision
        self.vectors = torch.empty(0)

    @torch.no_grad()
    def refresh(self, encoder: WordEncoder) -> None:
        """Encode the bank with the weights of now."""
        self.vectors = encoder(*self.words.features())[0].to(self._precision)

    @torch.no_grad()
    def confusable(self, cells: Tensor, own: Tensor, known: Tensor) -> WordSet:
        """The nearest two wrong words of each cell, once.

        Args:
            cells: vectors (n, dim).
            own: int64 (n,), the number of the stem that each one shows, -1 for none.
            known: int64, numbers of words to leave out.
        """
        nearest = (cells.to(self._precision) @ self.vectors.T).topk(4, dim=1).indices
        wrong = self.words.roots[nearest] != own[:, None]
        chosen = torch.unique(nearest[wrong & (wrong.cumsum(1) <= 2)])
        return self.words.at(chosen[~torch.isin(self.words.words[chosen], known)])


SURE, CHANCE = 20, 8
"""Cells of a tile without a word that are read in training: those that look most like one, and random ones."""


@torch.no_grad()
def read_cells(salience: Tensor, crops: Crops) -> Tensor:
    """The cells to read, in ascending order: those of words, and others that the model may have to refuse."""
    noise = torch.rand(salience.numel(), device=salience.device).clamp(1e-6, 1 - 1e-6)
    score = salience.reshape(-1) - 2 * noise.log().neg().log()
    score[crops.cells] = -torch.inf
    sure = score.topk(SURE * len(salience)).indices
    return torch.unique(torch.cat([crops.cells, sure, noise.topk(CHANCE * len(salience)).indices]))


def losses(
    page: PageEncoder, seen: Seen, crops: Crops, encoder: WordEncoder, bank: WordBank
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All losses of one batch, unweighted, and what to log.

    Args:
        page: the page encoder.
        seen: what its trunk sees of the batch.
        crops: the labels.
        encoder: the word encoder.
        bank: source of negatives.
    """
    batch, device, target = len(crops.pixels), crops.pixels.device, crops.target
    used = read_cells(seen.salience, crops)
    place = torch.full((batch * ROWS * COLUMNS,), -1, device=device)
    place[used] = torch.arange(len(used), device=device)
    cells, spelled = page(page.windows(seen, used))
    of_word = place[crops.cells]
    pick = torch.randperm(len(target), device=device)[: MINED * batch // 4]
    elsewhere = torch.randint(len(cells), (15 * batch,), device=device)
    own = torch.cat([crops.pool.roots[target[pick]], torch.full_like(elsewhere, -1)])
    mined = bank.confusable(torch.cat([cells[of_word[pick]], cells[elsewhere]]).detach(), own, crops.pool.words)
    pool = crops.pool + mined
    vectors, weights = encoder(*pool.features())
    stems, roots = torch.unique(pool.roots, return_inverse=True)

    # Cells that touch a printed word say something of it: they are no negatives for any word of its stem.
    root = torch.searchsorted(stems, crops.touched[:, 0].contiguous()).clamp(max=len(stems) - 1)
    cell = place[crops.touched[:, 1]]
    known = (stems[root] == crops.touched[:, 0]) & (cell >= 0)
    touched = torch.zeros((len(stems), len(used)), dtype=torch.bool, device=device)
    touched[root[known], cell[known]] = True
    ignored = touched[roots]

    cosine = vectors @ cells.T
    # A word printed n times counts as sqrt(n) words.
    share = torch.bincount(target, minlength=len(pool)).float()[target] ** -0.5
    share = share / share.sum()
    right = cosine[target, of_word]
    # Per four tiles, so that the cells of a large batch do not outweigh its words.
    wrong = F.softplus((SCALE * (cosine - THRESHOLD)).masked_fill(ignored, -50.0)).sum() / len(pool) * 4 / batch

    crop_of = (used // (ROWS * COLUMNS)).expand(len(pool), -1)
    best = torch.full((len(pool), batch), -1.0, device=device).scatter_reduce(
        1, crop_of, cosine.masked_fill(ignored, -1.0), "amax"
    )
    same_root = roots[:, None] == roots[None, :]
    limit = torch.full((len(pool),), ABSENT_LIMIT, device=device)
    between = torch.full(same_root.shape, ABSENT_LIMIT, device=device)
    misspelling, source = crops.misspelt.T
    limit[misspelling] = MISSPELT_LIMIT
    between[misspelling, source] = between[source, misspelling] = MISSPELT_LIMIT
    word_cosine = vectors @ vectors.T
    apart = F.relu(word_cosine.masked_fill(same_root, -1.0) - between).square().sum(1).mean()
    kin = same_root & ~torch.eye(len(pool), dtype=torch.bool, device=device)
    inflected = (F.relu(INFLECTED_FLOOR - word_cosine).square() * kin).sum() / len(pool)

    logits = SOFTMAX_SCALE * (cells[of_word] @ vectors.T)
    logits = logits.masked_fill(kin[target], -1e4)
    chosen = F.cross_entropy(logits, target, reduction="none")
    letters = F.cross_entropy(spelled[of_word].flatten(0, 1), crops.letters.flatten(), reduction="none")
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
        "rarity": F.mse_loss(weights, pool.rarity),
    }
    log = {
        "read": (logits.argmax(1) == target).float().mean(),
        "cosine": right.detach().mean(),
        "absent_max": best.detach().mean(),
        "kin": (word_cosine.detach() * kin).sum() / kin.sum().clamp(min=1),
    }
    return found, log
