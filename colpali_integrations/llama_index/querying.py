"""LlamaIndex's `VectorStoreQuery` -> what the store is asked, and its answer -> `VectorStoreQueryResult`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode, VectorStoreQueryResult

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.llama_index.filters import store_filter
from colpali_integrations.llama_index.nodes import node_of
from colpali_integrations.llama_index.searching import diverse, encode_question, search
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.filters import GROUP, ID, And, Condition, Filter, Operator
from colpali_integrations.stores.fusion import Hybrid

__all__ = ["answer"]

_MODES = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.MMR)
_OPTIONS = frozenset({"mmr_threshold", "mmr_prefetch_k", "min_relevance", "oversampling", "search_mode"})
# Candidates of a diverse search, at least and as a multiple of what is wanted.
_CANDIDATES, _FACTOR = 20, 4


def answer(
    query: VectorStoreQuery,
    options: Mapping[str, Any],
    *,
    store: MultiVectorStore,
    embedding: ColPaliEmbedding,
    defaults: Mapping[str, Any],
) -> VectorStoreQueryResult:
    """Answer a query; see `ColPaliVectorStore.query`.

    Args:
        query: LlamaIndex's.
        options: what was passed beside it.
        store: what is searched.
        embedding: encodes the question.
        defaults: of the options.

    Raises:
        QueryError: the question is empty.
        InputError: a filter that cannot be read, or a query without `query_str`.
        ConfigurationError: a mode or an option that cannot be.
    """
    if unknown := options.keys() - _OPTIONS:
        raise ConfigurationError(f"query: unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(_OPTIONS))}")
    if query.query_str is None:
        raise InputError(
            "the query has no query_str. A ColPaliVectorStore compares all vectors of a question, which it encodes "
            "itself; a query_embedding (one vector) says too little"
        )
    given = {**defaults, **options}
    plan = _plan(query, given)
    found = search(
        store,
        encode_question(embedding, [query.query_str]),
        query.query_str,
        plan.candidates,
        where=_where(query, store),
        mode=given["search_mode"],
        oversampling=given["oversampling"],
        min_relevance=given.get("min_relevance"),
        hybrid=plan.hybrid,
    )
    if plan.threshold is not None:
        found = diverse(store, found, plan.k, threshold=plan.threshold)
    return VectorStoreQueryResult(
        nodes=[node_of(one.hit.entry) for one in found],
        similarities=[one.similarity for one in found],
        ids=[one.hit.id for one in found],
    )


@dataclass(frozen=True)
class _Plan:
    """How many are wanted, of how many candidates, fused with BM25 how, and how diverse (None: as they come)."""

    k: int
    candidates: int
    hybrid: Hybrid = False
    threshold: float | None = None


def _plan(query: VectorStoreQuery, options: Mapping[str, Any]) -> _Plan:
    k = query.similarity_top_k
    if query.mode not in _MODES:
        mode = getattr(query.mode, "value", query.mode)
        known = ", ".join(repr(one.value) for one in _MODES)
        raise ConfigurationError(f"query mode {mode!r}: a ColPaliVectorStore answers {known}")
    # Modes are compared by value: a query may have been made with "hybrid".
    if query.mode == VectorStoreQueryMode.HYBRID:
        k = query.hybrid_top_k or k
        return _Plan(k, k, True if query.alpha is None else 1 - _share("alpha", query.alpha))
    if query.mode == VectorStoreQueryMode.MMR:
        threshold = options.get("mmr_threshold") if query.mmr_threshold is None else query.mmr_threshold
        wanted = options.get("mmr_prefetch_k") or max(_CANDIDATES, _FACTOR * k)
        return _Plan(k, max(k, wanted), threshold=_share("mmr_threshold", 0.5 if threshold is None else threshold))
    return _Plan(k, k)


def _where(query: VectorStoreQuery, store: MultiVectorStore) -> Filter | None:
    parts: list[Filter] = []
    if (condition := store_filter(query.filters, store.scroll)) is not None:
        parts.append(condition)
    if query.node_ids:
        parts.append(Condition(ID, Operator.IN, tuple(query.node_ids)))
    if query.doc_ids:
        parts.append(Condition(GROUP, Operator.IN, tuple(query.doc_ids)))
    return None if not parts else parts[0] if len(parts) == 1 else And(tuple(parts))


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigurationError(f"{name} must be between 0 and 1, got {value}")
    return float(value)
