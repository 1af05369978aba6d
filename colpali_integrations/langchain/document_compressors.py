"""`ColPaliReranker`: documents that any retriever found, ordered by late interaction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr

from colpali_integrations.langchain.adding import stored_content, stored_pages
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.pages import content_of, name_of
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore, opened
from colpali_integrations.pages.reference import page_image
from colpali_integrations.runtime.threads import Lane, offload
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.rerank import Candidate, CandidateScore, CandidateScorer

__all__ = ["ColPaliReranker"]


class ColPaliReranker(BaseDocumentCompressor):
    """Orders documents by how well they answer a question, all its vectors against all of theirs.

    Documents that the store holds, whoever found them, are scored by their stored vectors: no page is encoded. What
    it does not hold is encoded once, a page as an image and anything else as a text, and kept in a cache. A document
    of another store does not meet the vectors of another one here that happens to have its id.

    Documents come as copies, the best first, with `metadata["relevance_score"]`: MaxSim as a share of the highest
    possible for the question, in [0, 1].

    Attributes:
        store: a `ColPaliVectorStore`, a `MultiVectorStore` or the folder of one; None to encode everything.
        embeddings: what encodes the question; None for the store's own, ColTiny without a store.
        top_n: how many documents are kept; None for all.
        score_threshold: only documents of at least this relevance, in [0, 1].
        on_error: what becomes of a document that cannot be read or encoded: "raise" its error, which names it, or
            "skip": it comes last, with relevance 0, and the log says why.
        cache_size: how many encoded documents are kept.

    Raises:
        StoreError: no store in that folder.
        FingerprintError: the store was made by another model than the embeddings'.
        pydantic.ValidationError: an argument of the wrong kind, or an unknown one.

    Example:
        >>> reranker = ColPaliReranker(top_n=1)
        >>> found = [Document("rates of tax"), Document("the harbour at low tide")]
        >>> [best] = reranker.compress_documents(found, "when is the tide low")
        >>> best.page_content, 0 < best.metadata["relevance_score"] <= 1
        ('the harbour at low tide', True)

        Behind another retriever, with the vectors of a store:

        >>> from langchain_classic.retrievers import ContextualCompressionRetriever
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> from colpali_integrations.langchain import PdfPageLoader
        >>> pooled = InMemoryVectorStore(ColPaliEmbeddings())
        >>> ids = pooled.add_documents(PdfPageLoader("report.pdf").load())
        >>> with ColPaliVectorStore(path="my-index") as store:
        ...     reranker = ColPaliReranker(store=store, top_n=1)
        ...     retriever = ContextualCompressionRetriever(
        ...         base_compressor=reranker, base_retriever=pooled.as_retriever()
        ...     )
        ...     [best] = retriever.invoke("diverging palettes")
        >>> best.metadata["page"]
        1
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    store: ColPaliVectorStore | None = None
    embeddings: ColPaliEmbeddings
    top_n: int | None = Field(default=3, ge=1)
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    on_error: Literal["raise", "skip"] = "raise"
    cache_size: int = Field(default=256, ge=0)

    _scorer: CandidateScorer = PrivateAttr()

    def __init__(
        self,
        *,
        store: ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str] | None = None,
        embeddings: ColPaliEmbeddings | None = None,
        **fields: Any,
    ) -> None:
        there = None if store is None else opened(store, embeddings)
        chosen = embeddings or (ColPaliEmbeddings() if there is None else there.embeddings)
        super().__init__(**fields | {"store": there, "embeddings": chosen})

    def model_post_init(self, context: Any, /) -> None:
        """Make what scores and remembers."""
        known = None if self.store is None else self.store.store
        self._scorer = CandidateScorer(lambda: self.embeddings.model, known, cache_size=self.cache_size)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Order documents.

        Args:
            documents: pages and texts; they are not changed.
            query: the question.
            callbacks: not used.

        Returns:
            Copies of the best, with `relevance_score` in their metadata; [] for none.

        Raises:
            QueryError: the question is empty.
            ColPaliError: a document cannot be read or encoded, unless `on_error="skip"`.
        """
        candidates = self._candidates(documents)
        return self._best(documents, self._scores(query, candidates))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """`compress_documents` in a thread."""
        candidates = await offload(lambda: self._candidates(documents), "queries")
        # Encoding pages takes long, and must not stand in the way of questions.
        encodes = any(one.id is None and one.image is not None for one in candidates)
        lane: Lane = "pages" if encodes else "queries"
        return self._best(documents, await offload(lambda: self._scores(query, candidates), lane))

    # -- copies -------------------------------------------------------------------------------------------------

    def __copy__(self) -> ColPaliReranker:
        """Another one with the same options, on the same store; its cache is its own."""
        return type(self)(**self._fields())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ColPaliReranker:
        return self.__copy__()

    def __reduce__(self) -> Any:
        return _made, (type(self), self._fields())

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}

    # -----------------------------------------------------------------------------------------------------------

    def _scores(self, query: str, candidates: Sequence[Candidate]) -> list[CandidateScore]:
        return self._scorer.scores(query, candidates, on_error=self.on_error)

    def _candidates(self, documents: Sequence[Document]) -> list[Candidate]:
        several = list(documents)
        contents = [content_of(document) for document in several]
        ids: list[str | None] = [None] * len(several)
        if self.store is not None and several:
            store = self.store.store
            entries = store.get([one.id or content.key for one, content in zip(several, contents, strict=True)])
            under_id = [
                entry.id if entry is not None and stored_content(entry) == content else None
                for entry, content in zip(entries, contents, strict=True)
            ]
            others = [document for document, id_ in zip(several, under_id, strict=True) if id_ is None]
            elsewhere = {content: entry.id for content, entry in stored_pages(store, others).items()}
            ids = [id_ or elsewhere.get(content) for id_, content in zip(under_id, contents, strict=True)]
        return [
            Candidate(
                id=id_,
                key=f"{'page' if content.is_page else 'text'} {content.key}",
                text=document.page_content,
                image=partial(page_image, document.metadata) if content.is_page else None,
                name=name_of(document),
            )
            for id_, content, document in zip(ids, contents, several, strict=True)
        ]

    def _best(self, documents: Sequence[Document], scores: Sequence[CandidateScore]) -> list[Document]:
        ranked = sorted(zip(documents, scores, strict=True), key=lambda pair: -pair[1].max_sim)
        floor = 0.0 if self.score_threshold is None else self.score_threshold
        return [
            document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score.relevance}})
            for document, score in ranked
            if score.relevance >= floor
        ][: self.top_n]


def _made(cls: type[ColPaliReranker], fields: dict[str, Any]) -> ColPaliReranker:
    return cls(**fields)
