"""LlamaIndex's `VectorStoreQuery` and the options beside it, checked and as options of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from colpali_integrations._options import unknown_option
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.stores import SearchOptions

__all__ = ["QueryRequest"]

_MODES = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.MMR)
_OPTIONS = (
    *("search_mode", "oversampling", "min_relevance", "hybrid", "mmr_threshold", "mmr_prefetch_k", "regions"),
    "embedding_strs",
)
# Candidates of a diverse search, at least and as a multiple of the requested number.
_CANDIDATES, _FACTOR = 20, 4


@dataclass(frozen=True, kw_only=True)
class QueryRequest:
    """A query of LlamaIndex and the options beside it, checked.

    Attributes:
        options: of the search, without filter; `k` is the number of candidates.
        k: number of nodes at most.
        threshold: of a diverse search, from 0 (only unlike each other) to 1 (only relevant); None otherwise.
        regions: whether nodes get the boxes of the answer.
        texts: encoded instead of the question, if there are any.
    """

    options: SearchOptions
    k: int
    threshold: float | None = None
    regions: bool = False
    texts: Sequence[str] | None = None

    @classmethod
    def of(cls, query: VectorStoreQuery, given: Mapping[str, Any]) -> QueryRequest:
        """Check a query.

        Args:
            query: LlamaIndex's; its filters are not read.
            given: options by name; see `ColPaliVectorStore.query`.

        Raises:
            ConfigurationError: an unknown mode or option, or an invalid value.
        """
        if given.keys() - _OPTIONS:
            raise unknown_option("query", given, _OPTIONS)
        mode, k, threshold = query.mode, query.similarity_top_k, None
        hybrid = given.get("hybrid", False)
        if mode not in _MODES:
            known = ", ".join(repr(one.value) for one in _MODES)
            raise ConfigurationError(
                f"query mode {getattr(mode, 'value', mode)!r}: a ColPaliVectorStore answers {known}"
            )
        if hybrid is not False and mode != VectorStoreQueryMode.DEFAULT:
            raise ConfigurationError("hybrid= and a query mode: pass one of them")
        # Modes are compared by value: a query may have been made with "hybrid".
        if mode == VectorStoreQueryMode.HYBRID:
            k = query.hybrid_top_k or k
            hybrid = True if query.alpha is None else 1 - _share("alpha", query.alpha)
        if k < 1:
            raise ConfigurationError(f"similarity_top_k must be at least 1, got {k}")
        candidates = k
        if mode == VectorStoreQueryMode.MMR:
            asked = given.get("mmr_threshold") if query.mmr_threshold is None else query.mmr_threshold
            threshold = _share("mmr_threshold", 0.5 if asked is None else asked)
            candidates = max(k, given.get("mmr_prefetch_k") or max(_CANDIDATES, _FACTOR * k))
        options = SearchOptions(
            k=candidates,
            mode=given.get("search_mode", "auto"),
            oversampling=given.get("oversampling"),
            min_relevance=given.get("min_relevance"),
            hybrid=hybrid,
        )
        return cls(
            options=options,
            k=k,
            threshold=threshold,
            regions=bool(given.get("regions")),
            texts=given.get("embedding_strs"),
        )


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigurationError(f"{name} must be between 0 and 1, got {value}")
    return float(value)
