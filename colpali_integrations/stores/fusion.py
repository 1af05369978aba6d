"""Fusion of two rankings of the same entries: MaxSim, by the look of a page, and BM25, by its text.

- Reciprocal rank fusion: ``sum over rankings of 1 / (60 + rank)``, rank from 1 (Cormack, Clarke and Buettcher, SIGIR
  2009), as a share of the score of an entry that leads both rankings. It needs no common scale, and suits a user
  without a set of questions to tune a weight on.
- A weight w: ``(1 - w) sight + w bm25 / best bm25``, where ``sight`` is MaxSim scaled from the lowest (0) to the
  highest (1) of the candidates, because the spread of scores differs between models.

Pages without a text layer are not penalised: BM25 cannot rank them, so their MaxSim part counts for both. nDCG@5 of
ColTiny on manuals (benchmarks/results/hybrid.md; the weight chosen on one half of the documents, these figures from the
other): MaxSim .948, BM25 .946, reciprocal ranks .952, weight 0.2 .958; without the text layers of every second document
.948, .928, .948 and .952.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Literal, TypeAlias

from colpali_integrations._options import checked_number, shown
from colpali_integrations.errors import ConfigurationError

__all__ = ["Hybrid", "fuse", "text_weight"]

Hybrid: TypeAlias = "bool | Literal['auto', 'rrf'] | float"
_K = 60


def text_weight(hybrid: Hybrid) -> float | None:
    """The weight of the text in a weighted fusion; None for reciprocal ranks.

    Raises:
        ConfigurationError: neither True, "rrf" nor a weight between 0 and 1. False and "auto" are no ways to fuse,
            and are decided before.
    """
    if hybrid is True or hybrid == "rrf":
        return None
    with suppress(ConfigurationError):
        return checked_number(hybrid, "hybrid", 0, 1)
    raise ConfigurationError(
        f"hybrid must be True or 'rrf' for reciprocal rank fusion, the weight of the text between 0 and 1, 'auto' or "
        f"False, got {shown(hybrid)}"
    )


def fuse(
    sight: Mapping[str, float], text: Mapping[str, float], *, weight: float | None, textless: Collection[str] = ()
) -> dict[str, float]:
    """Fuse two rankings.

    Args:
        sight: MaxSim of each entry.
        text: BM25 of each entry that shares a word with the query; a subset of the former.
        weight: of the text; None for reciprocal ranks.
        textless: entries that have no text.

    Returns:
        The fused score of every entry of `sight`, in [0, 1], the best first; of equal scores, the higher MaxSim first.

    Example:
        >>> fuse({"a": 8.0, "b": 6.0, "c": 4.0}, {"b": 7.0}, weight=0.5)
        {'b': 0.75, 'a': 0.5, 'c': 0.0}
        >>> fuse({"a": 8.0, "b": 6.0, "c": 4.0}, {"b": 7.0}, weight=0.5, textless=["a"])
        {'a': 1.0, 'b': 0.75, 'c': 0.0}
    """
    order = sorted(sight, key=lambda id_: (-sight[id_], id_))
    if weight is None:
        by_sight = _ranks(order)
        by_text = _ranks(sorted(text, key=lambda id_: (-text[id_], id_)))
        weight = 0.5
    else:
        by_sight = _shares(sight, lowest=min(sight.values(), default=0.0))
        by_text = _shares(text, lowest=0.0)
    if not text:
        weight = 0.0  # no entry holds a word of the query, so all would lose the same part
    blank = frozenset(textless)
    fused = {
        id_: (1 - weight) * by_sight[id_] + weight * (by_sight[id_] if id_ in blank else by_text.get(id_, 0.0))
        for id_ in order
    }
    return dict(sorted(fused.items(), key=lambda item: -item[1]))


def _ranks(order: Sequence[str]) -> dict[str, float]:
    return {id_: (_K + 1) / (_K + rank) for rank, id_ in enumerate(order, 1)}


def _shares(scores: Mapping[str, float], *, lowest: float) -> dict[str, float]:
    """Scale scores so that `lowest` is 0 and the best is 1."""
    span = max(scores.values(), default=lowest) - lowest
    return {id_: (score - lowest) / span if span > 0 else 1.0 for id_, score in scores.items()}
