"""One search, as LlamaIndex's vector store and retriever both want it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index_instrumentation import get_dispatcher
from numpy.typing import NDArray

from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.stores import Hit, MultiVectorStore
from colpali_integrations.stores.fusion import Hybrid
from colpali_integrations.stores.mmr import mmr_select
from colpali_integrations.stores.store import Mode, Where

__all__ = ["Found", "diverse", "encode_question", "search"]

dispatcher = get_dispatcher(__name__)


class Found(NamedTuple):
    """A hit, and its score for LlamaIndex.

    Attributes:
        hit: what was found.
        similarity: in [0, 1], the higher the better: the relevance, or in a hybrid search the fused score, where 1 is
            the first of both rankings.
    """

    hit: Hit
    similarity: float


def encode_question(embedding: ColPaliEmbedding, texts: Sequence[str]) -> Float32:
    """The vectors of a question, told of by events as an embedding is.

    Args:
        embedding: what encodes.
        texts: the question, or several texts that stand for it.

    Returns:
        float32 (n_vectors, dim), of all texts.

    Raises:
        QueryError: a text is empty.
    """
    model = embedding.to_payload()
    dispatcher.event(EmbeddingStartEvent(model_dict=model))
    payload: dict[Any, Any] = {EventPayload.SERIALIZED: model}
    with embedding.callback_manager.event(CBEventType.EMBEDDING, payload=payload) as event:
        vectors: Float32 = np.concatenate(embedding.get_query_multi_vectors(texts))
        # Events have one vector a text; these have many, and are left out.
        event.on_end(payload={EventPayload.CHUNKS: list(texts), EventPayload.EMBEDDINGS: []})
    dispatcher.event(EmbeddingEndEvent(chunks=list(texts), embeddings=[]))
    return vectors


def search(
    store: MultiVectorStore,
    vectors: Float32,
    text: str | None,
    k: int,
    *,
    where: Where = None,
    mode: Mode = "auto",
    oversampling: float | None = None,
    min_relevance: float | None = None,
    hybrid: Hybrid = False,
) -> list[Found]:
    """`MultiVectorStore.search`, with scores in [0, 1]."""
    hits = store.search(
        vectors,
        k,
        where=where,
        mode=mode,
        oversampling=oversampling,
        min_relevance=min_relevance,
        hybrid=hybrid,
        text=text if hybrid is not False else None,
    )
    return [Found(hit, hit.relevance if hybrid is False else hit.score) for hit in hits]


def diverse(store: MultiVectorStore, found: Sequence[Found], k: int, *, threshold: float) -> list[Found]:
    """The `k` of what was found that are relevant and do not repeat each other, by maximal marginal relevance.

    Args:
        store: where they were found.
        found: the candidates.
        k: how many.
        threshold: from 0, only unlike each other, to 1, only relevant.
    """
    kept: list[tuple[Found, NDArray[Any]]] = [
        (one, vectors)
        for one, vectors in zip(found, store.vectors([one.hit.id for one in found]), strict=True)
        if vectors is not None  # removed meanwhile
    ]
    order = mmr_select([one.similarity for one, _ in kept], [vectors for _, vectors in kept], k, lambda_mult=threshold)
    return [kept[index][0] for index in order]
