"""Two rankings of the same entries -> one: what the page shows (MaxSim) and what its text says (BM25).

- Reciprocal rank fusion: ``sum over rankings of 1 / (60 + rank)``, rank from 1 (Cormack, Clarke and Buettcher, SIGIR
  2009), as a share of what the first of both rankings has. It needs no common scale, and is what to take without a set
  of questions to tune a weight on.
- A weight w: ``(1 - w) relevance + w bm25 / best bm25``, both parts in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from colpali_integrations.core.errors import ConfigurationError

__all__ = ["Hybrid", "fuse", "text_weight"]

Hybrid: TypeAlias = "bool | Literal['rrf'] | float"
_K = 60


def text_weight(hybrid: Hybrid) -> float | None:
    """The weight of the text in a weighted fusion; None for reciprocal ranks.

    Raises:
        ConfigurationError: neither True, "rrf" nor a weight between 0 and 1.
    """
    if hybrid is True or hybrid == "rrf":
        return None
    if not isinstance(hybrid, (bool, str)) and 0 <= hybrid <= 1:
        return float(hybrid)
    raise ConfigurationError(
        f"hybrid must be True or 'rrf' for reciprocal rank fusion, or the weight of the text between 0 and 1, got "
        f"{hybrid!r}"
    )


def fuse(relevance: Mapping[str, float], bm25: Mapping[str, float], *, weight: float | None) -> dict[str, float]:
    """Fuse two rankings.

    Args:
        relevance: of each entry that MaxSim ranks.
        bm25: of each entry that shares a word with the query; a subset of the former.
        weight: of the text; None for reciprocal ranks.

    Returns:
        The fused score of every entry of `relevance`, in [0, 1], the best first; of equal scores, the higher relevance
        first.

    Example:
        >>> fuse({"a": 0.9, "b": 0.5}, {"b": 7.0}, weight=0.5)
        {'b': 0.75, 'a': 0.45}
    """
    seen = sorted(relevance, key=lambda id_: (-relevance[id_], id_))
    if weight is None:
        share = (_K + 1) / 2
        fused = {id_: share / (_K + rank) for rank, id_ in enumerate(seen, 1)}
        for rank, id_ in enumerate(sorted(bm25, key=lambda id_: (-bm25[id_], id_)), 1):
            fused[id_] += share / (_K + rank)
    else:
        best = max(bm25.values(), default=1.0)
        fused = {id_: (1 - weight) * relevance[id_] + weight * bm25.get(id_, 0.0) / best for id_ in seen}
    return dict(sorted(fused.items(), key=lambda item: -item[1]))
