"""LlamaIndex's queries as searches of a store: modes, filters and options, and what a query adds to its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index_instrumentation import get_dispatcher

from colpali_integrations._options import checked_number, checked_whole, unknown_option
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.llama_index._filters import Scan, store_filter
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.stores import SearchOptions
from colpali_integrations.stores.filters import DOCUMENT, ID, And, Condition, Filter, Operator
from colpali_integrations.stores.search import Mode

__all__ = ["checked_query", "encode_question", "put_hidden", "query_filter", "take_hidden"]

dispatcher = get_dispatcher(__name__)

_MODES = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.MMR)
_OPTIONS = (
    *("search_mode", "oversampling", "min_relevance", "hybrid", "mmr_threshold", "mmr_prefetch_k", "regions"),
    *("halves", "embedding_strs"),
)
# Candidates of a diverse search, at least and as a multiple of the requested number.
_CANDIDATES, _FACTOR = 20, 4


def checked_query(
    query: VectorStoreQuery, options: Mapping[str, Any], *, search_mode: Mode, oversampling: float | None
) -> tuple[SearchOptions, int, float | None]:
    """Translate a query without its filters; see `ColPaliVectorStore.check_query`.

    Args:
        query: of LlamaIndex.
        options: of `ColPaliVectorStore.query`.
        search_mode: of the vector store, for queries without one.
        oversampling: likewise.

    Raises:
        ConfigurationError: the mode is none that a store answers, or an option is unknown or has an invalid value.
    """
    if options.keys() - _OPTIONS:
        raise unknown_option("query", options, _OPTIONS)
    mode, k, hybrid = query.mode, query.similarity_top_k, options.get("hybrid", False)
    # Modes are compared by value: a caller may write "hybrid".
    if mode not in _MODES:
        modes = ", ".join(repr(mode.value) for mode in _MODES)
        raise ConfigurationError(f"query mode {getattr(mode, 'value', mode)!r}: a ColPaliVectorStore answers {modes}")
    if mode != VectorStoreQueryMode.DEFAULT:
        if hybrid is not False and not (isinstance(hybrid, str) and hybrid == "auto"):
            raise ConfigurationError("hybrid= and a query mode: pass one of them")
        hybrid = False  # "auto" is the retriever's default, and the mode decides
    if mode == VectorStoreQueryMode.HYBRID:
        k = query.hybrid_top_k or k
        hybrid = True if query.alpha is None else 1 - checked_number(query.alpha, "alpha", 0, 1)
    k = checked_whole(k, "similarity_top_k")
    candidates, threshold = k, None
    if mode == VectorStoreQueryMode.MMR:
        thresholds = (query.mmr_threshold, options.get("mmr_threshold"), 0.5)
        threshold = next(value for value in thresholds if value is not None)
        threshold = checked_number(threshold, "mmr_threshold", 0, 1)
        prefetch = options.get("mmr_prefetch_k") or max(_CANDIDATES, _FACTOR * k)
        candidates = max(k, checked_whole(prefetch, "mmr_prefetch_k"))
    search = SearchOptions(
        k=candidates,
        mode=options.get("search_mode", search_mode),
        oversampling=options.get("oversampling", oversampling),
        min_relevance=options.get("min_relevance"),
        hybrid=hybrid,
    )
    return search, k, threshold


def query_filter(query: VectorStoreQuery, scan: Scan) -> Filter | None:
    """The filter of a query: its nodes, its source documents and its metadata filters.

    Args:
        query: of LlamaIndex.
        scan: lists stored entries; see `store_filter`.

    Raises:
        InputError: the metadata filters are invalid.
    """
    ids = {ID: query.node_ids, DOCUMENT: query.doc_ids}
    parts: list[Filter] = [Condition(field, Operator.IN, tuple(values)) for field, values in ids.items() if values]
    if (condition := store_filter(query.filters, scan)) is not None:
        parts.append(condition)
    return And(tuple(parts)) if parts else None


def encode_question(encoder: ColPaliEmbedding, texts: Sequence[str]) -> Float32:
    """Encode a question, (n, dim), and emit LlamaIndex's embedding events."""
    chunks = list(texts)
    model = encoder.to_payload()
    dispatcher.event(EmbeddingStartEvent(model_dict=model))
    with encoder.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: model}) as event:
        vectors: Float32 = np.concatenate(encoder.get_query_multi_vectors(chunks))
        # An event has room for one vector per text, so the multi-vectors are left out.
        event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: []})
    dispatcher.event(EmbeddingEndEvent(chunks=chunks, embeddings=[]))
    return vectors


def put_hidden(node: BaseNode, key: str, value: Any) -> None:
    """Put a value into a node's metadata that is neither for language models nor a part of its content."""
    node.metadata[key] = value
    for hidden in (node.excluded_llm_metadata_keys, node.excluded_embed_metadata_keys):
        if key not in hidden:
            hidden.append(key)


def take_hidden(node: BaseNode, key: str) -> None:
    """Undo `put_hidden`, which an answer may have done before the node was stored; values of the caller stay."""
    if key in node.metadata and key in node.excluded_llm_metadata_keys:
        del node.metadata[key]
        for hidden in (node.excluded_llm_metadata_keys, node.excluded_embed_metadata_keys):
            if key in hidden:
                hidden.remove(key)
