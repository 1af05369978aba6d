"""The searches of a LangChain vector store, over multi-vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from numpy.typing import ArrayLike, NDArray

from colpali_integrations.errors import InputError
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.pages import document_of
from colpali_integrations.langchain.sources import ImageInput
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import Filter, Hit, Hits, MultiVectorStore
from colpali_integrations.stores.filters import ID, Condition, Operator
from colpali_integrations.stores.fusion import Hybrid
from colpali_integrations.stores.mmr import mmr_select
from colpali_integrations.stores.store import Mode

__all__ = ["Searches", "Where", "find"]

Where: TypeAlias = "Mapping[str, Any] | Filter | Callable[[Document], bool] | None"
_Scored: TypeAlias = "list[tuple[Document, float]]"


def find(
    store: MultiVectorStore,
    queries: Sequence[ArrayLike],
    k: int,
    *,
    texts: Sequence[str] | None = None,
    filter: Where = None,
    score_threshold: float | None = None,
    mode: Mode = "auto",
    oversampling: float | None = None,
    hybrid: Hybrid = False,
) -> list[Hits]:
    """`MultiVectorStore.search_batch` in LangChain's words.

    Args:
        store: where.
        queries: vectors (n, dim) of each query.
        k: hits a query.
        texts: the words of the queries; needed for `hybrid`.
        filter: a dict such as `{"source": "a.pdf", "page": {"$gte": 3}}`, a `Filter`, or a function of a Document. The
            engine does not know functions: every Document of the store is read and asked, which is for small stores.
        score_threshold: the lowest relevance, in [0, 1].
        mode: "auto", "exact" or "two_stage".
        oversampling: how many times `k` the first stage of a two-stage search hands on.
        hybrid: fuse with BM25 over the Documents' texts: True, "rrf" or the weight of the text.
    """
    where: Any = filter
    if callable(filter):
        fitting = [entry.id for entry in store.scroll() if filter(document_of(entry))]
        where = Condition(ID, Operator.IN, fitting)
    return store.search_batch(
        queries,
        k,
        where=where,
        mode=mode,
        oversampling=oversampling,
        min_relevance=score_threshold,
        hybrid=hybrid,
        texts=None if hybrid is False else texts,
    )


class Searches(VectorStore):
    """What `ColPaliVectorStore` can be asked. All searches take the options of `find` by name, and refuse others."""

    store: MultiVectorStore
    _embedding: ColPaliEmbeddings

    # -- by the words of a question -----------------------------------------------------------------------------

    def similarity_search(self, query: str, k: int = 4, filter: Where = None, **options: Any) -> list[Document]:
        """The Documents that answer a question best.

        Args:
            query: the question.
            k: how many at most.
            filter: only Documents whose metadata fit: `{"source": "a.pdf", "page": {"$gte": 3}}`, with `$and`, `$or`,
                `$not`, `$in` and so on (see `stores.filters`); or a function of a Document, for small stores.
            **options: `score_threshold`, the lowest relevance in [0, 1]; `hybrid=True` to fuse with BM25 over the
                Documents' texts ("rrf", or a number as the weight of the text); `mode` and `oversampling` of a
                two-stage search, see `MultiVectorStore.search`.

        Returns:
            Documents as they were added, with their ids; [] from an empty store.

        Raises:
            QueryError: the question is empty.
            InputError: a filter that cannot be read.
            ConfigurationError: an option that cannot be.
        """
        return _documents(self._hits(query, k, filter=filter, **options))

    def similarity_search_with_score(self, query: str, k: int = 4, filter: Where = None, **options: Any) -> _Scored:
        """`similarity_search` with what ranks the Documents, the higher the better.

        The score is MaxSim, or in a hybrid search the fused score. MaxSim grows with the number of the question's
        words: it ranks the answers to one question, and a fixed threshold on it means nothing. See
        `similarity_search_with_relevance_scores` for that.
        """
        return _with_scores(self._hits(query, k, filter=filter, **options))

    def _similarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> _Scored:
        """MaxSim as a share of the highest possible for this question.

        What is a good threshold differs between models; see `scoring.maxsim.relevance`.
        """
        return [(document_of(hit.entry), hit.relevance) for hit in self._hits(query, k, **kwargs)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where = None,
        **options: Any,
    ) -> list[Document]:
        """Documents that answer a question and do not repeat each other.

        Args:
            query: the question.
            k: how many at most.
            fetch_k: among how many of the best they are chosen.
            lambda_mult: from 0, only unlike each other, to 1, only relevant.
            filter: as for `similarity_search`.
            **options: as for `similarity_search`.

        Returns:
            Documents in the order in which they were chosen; the first is the most relevant. How like two pages are is
            measured over all their vectors; see `stores.mmr`.
        """
        hits = self._hits(query, max(fetch_k, k), filter=filter, **options)
        return self._diverse(hits, k, lambda_mult)

    # -- by vectors and images ----------------------------------------------------------------------------------

    def similarity_search_by_multi_vector(
        self, vectors: ArrayLike, k: int = 4, filter: Where = None, **options: Any
    ) -> list[Document]:
        """`similarity_search` for vectors (n_vectors, dim), such as `embed_query_multi_vector` gives."""
        return _documents(self._hits_by_vectors(vectors, k, filter=filter, **options))

    def similarity_search_by_multi_vector_with_score(
        self, vectors: ArrayLike, k: int = 4, filter: Where = None, **options: Any
    ) -> _Scored:
        """`similarity_search_by_multi_vector` with MaxSim."""
        return _with_scores(self._hits_by_vectors(vectors, k, filter=filter, **options))

    def similarity_search_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Where = None, **options: Any
    ) -> list[Document]:
        """The same as `similarity_search_by_multi_vector`, under LangChain's name.

        Raises:
            InputError: a single pooled vector: those are not what this store compares.
        """
        return self.similarity_search_by_multi_vector(embedding, k, filter, **options)

    def similarity_search_by_image(
        self, image: ImageInput, k: int = 4, filter: Where = None, **options: Any
    ) -> list[Document]:
        """The Documents most like an image: whatever `ColPaliEmbeddings.embed_images` takes.

        Raises:
            ImageError: it cannot be read.
        """
        return _documents(self._hits_by_image(image, k, filter=filter, **options))

    def similarity_search_by_image_with_score(
        self, image: ImageInput, k: int = 4, filter: Where = None, **options: Any
    ) -> _Scored:
        """`similarity_search_by_image` with MaxSim."""
        return _with_scores(self._hits_by_image(image, k, filter=filter, **options))

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: ArrayLike,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where = None,
        **options: Any,
    ) -> list[Document]:
        """`max_marginal_relevance_search` for vectors (n_vectors, dim)."""
        hits = self._hits_by_vectors(embedding, max(fetch_k, k), filter=filter, **options)
        return self._diverse(hits, k, lambda_mult)

    # -- the same without blocking the event loop ---------------------------------------------------------------

    async def asimilarity_search(self, query: str, k: int = 4, filter: Where = None, **options: Any) -> list[Document]:
        """`similarity_search` in a thread."""
        return await offload(lambda: self.similarity_search(query, k, filter, **options), "queries")

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Where = None, **options: Any
    ) -> _Scored:
        """`similarity_search_with_score` in a thread."""
        return await offload(lambda: self.similarity_search_with_score(query, k, filter, **options), "queries")

    async def _asimilarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> _Scored:
        return await offload(lambda: self._similarity_search_with_relevance_scores(query, k, **kwargs), "queries")

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where = None,
        **options: Any,
    ) -> list[Document]:
        """`max_marginal_relevance_search` in a thread."""
        return await offload(
            lambda: self.max_marginal_relevance_search(query, k, fetch_k, lambda_mult, filter, **options), "queries"
        )

    async def asimilarity_search_by_multi_vector(
        self, vectors: ArrayLike, k: int = 4, filter: Where = None, **options: Any
    ) -> list[Document]:
        """`similarity_search_by_multi_vector` in a thread."""
        return await offload(lambda: self.similarity_search_by_multi_vector(vectors, k, filter, **options), "queries")

    async def asimilarity_search_by_multi_vector_with_score(
        self, vectors: ArrayLike, k: int = 4, filter: Where = None, **options: Any
    ) -> _Scored:
        """`similarity_search_by_multi_vector_with_score` in a thread."""
        return await offload(
            lambda: self.similarity_search_by_multi_vector_with_score(vectors, k, filter, **options), "queries"
        )

    async def asimilarity_search_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Where = None, **options: Any
    ) -> list[Document]:
        """`similarity_search_by_vector` in a thread."""
        return await self.asimilarity_search_by_multi_vector(embedding, k, filter, **options)

    async def asimilarity_search_by_image(
        self, image: ImageInput, k: int = 4, filter: Where = None, **options: Any
    ) -> list[Document]:
        """`similarity_search_by_image` in a thread."""
        return await offload(lambda: self.similarity_search_by_image(image, k, filter, **options), "queries")

    async def asimilarity_search_by_image_with_score(
        self, image: ImageInput, k: int = 4, filter: Where = None, **options: Any
    ) -> _Scored:
        """`similarity_search_by_image_with_score` in a thread."""
        return await offload(lambda: self.similarity_search_by_image_with_score(image, k, filter, **options), "queries")

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: ArrayLike,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where = None,
        **options: Any,
    ) -> list[Document]:
        """`max_marginal_relevance_search_by_vector` in a thread."""
        return await offload(
            lambda: self.max_marginal_relevance_search_by_vector(embedding, k, fetch_k, lambda_mult, filter, **options),
            "queries",
        )

    # -----------------------------------------------------------------------------------------------------------

    def _hits(self, query: str, k: int, **options: Any) -> list[Hit]:
        vectors = self._embedding.embed_query_multi_vector(query)
        return find(self.store, [vectors], k, texts=[query], **options)[0]

    def _hits_by_vectors(self, vectors: ArrayLike, k: int, **options: Any) -> list[Hit]:
        return find(self.store, [_several(vectors)], k, **options)[0]

    def _hits_by_image(self, image: ImageInput, k: int, **options: Any) -> list[Hit]:
        [vectors] = self._embedding.embed_images_multi_vector([image])
        return find(self.store, [vectors], k, **options)[0]

    def _diverse(self, hits: list[Hit], k: int, lambda_mult: float) -> list[Document]:
        vectors = self.store.vectors([hit.id for hit in hits])
        # What was removed since it was found has no vectors.
        there = [(hit, array) for hit, array in zip(hits, vectors, strict=True) if array is not None]
        relevance = [hit.relevance for hit, _ in there]
        chosen = mmr_select(relevance, [array for _, array in there], k, lambda_mult=lambda_mult)
        return _documents([there[index][0] for index in chosen])


def _several(vectors: ArrayLike) -> NDArray[Any]:
    array = np.asarray(vectors)
    if array.ndim == 1 and array.dtype.kind in "fiu":
        raise InputError(
            f"this store compares multi-vectors (n_vectors, dim), and got one vector of length {len(array)}. Pass what "
            "embed_query_multi_vector gives, or the question itself to similarity_search"
        )
    return array


def _documents(hits: list[Hit]) -> list[Document]:
    return [document_of(hit.entry) for hit in hits]


def _with_scores(hits: list[Hit]) -> _Scored:
    return [(document_of(hit.entry), hit.score) for hit in hits]
