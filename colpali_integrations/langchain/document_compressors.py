"""`ColPaliReranker`: a reranker by late interaction for the results of any retriever."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr

from colpali_integrations._options import unknown_option
from colpali_integrations.langchain._documents import candidate_of
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore, open_vectorstore
from colpali_integrations.pages.access import PageAccess, root_folders
from colpali_integrations.runtime.threads import Lane, offload
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.hits import DOUBTFUL
from colpali_integrations.stores.rerank import Candidate, CandidateScorer

__all__ = ["ColPaliReranker"]

_GUESSES = {"store": "use vectorstore=", "k": "use top_n=", "model": "use embedding=ColPaliEmbeddings(model_name=...)"}


class ColPaliReranker(BaseDocumentCompressor):
    """Reranker of the Documents of any retriever, by late interaction.

    Documents whose content is in the store are scored by its vectors, without encoding. Others are encoded once, a page
    as an image and anything else as a text, and cached. Ids do not matter: an entry under a Document's id counts only
    if its content is that of the Document.

    The results are copies, the best first, with `metadata["relevance_score"]`: MaxSim as a share of the highest
    possible for the question, in [0, 1], and `metadata["doubtful"]`: whether no Document seems to answer it, as for
    `ColPaliRetriever`.

    Attributes:
        vectorstore: a `ColPaliVectorStore`, a `MultiVectorStore` or the folder of one; None to encode everything.
        embedding: encodes the question; None for that of the vector store, or ColTiny without one.
        top_n: maximum number of results; None for all.
        score_threshold: only documents of at least this relevance, in [0, 1].
        on_error: "raise" the error of a document that cannot be read or encoded, which names it, or "skip" it: it
            comes last, with relevance 0 and a log entry.
        password: for pages of encrypted PDFs that are not in the store. Neither `repr` nor `model_dump` shows it.
        roots: as for `pages.page_image`: draw files in these folders alone.
        cache_size: number of encoded documents in the cache.

    Raises:
        StoreError: the folder has no store.
        FingerprintError: a model of another space than that of the embeddings made the store.
        ConfigurationError: an unknown argument.
        pydantic.ValidationError: an argument has an invalid value.

    Example:
        >>> reranker = ColPaliReranker(top_n=1)
        >>> documents = [Document("rates of tax"), Document("the harbour at low tide")]
        >>> [best] = reranker.compress_documents(documents, "when is the tide low")
        >>> best.page_content, 0 < best.metadata["relevance_score"] <= 1
        ('the harbour at low tide', True)

        Behind another retriever, with the vectors of a store:

        >>> from langchain_classic.retrievers import ContextualCompressionRetriever
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> from colpali_integrations.langchain import PdfPageLoader
        >>> pooled = InMemoryVectorStore(ColPaliEmbeddings())
        >>> ids = pooled.add_documents(PdfPageLoader("report.pdf").load())
        >>> with ColPaliVectorStore(path="my-index") as store:
        ...     reranker = ColPaliReranker(vectorstore=store, top_n=1)
        ...     retriever = ContextualCompressionRetriever(
        ...         base_compressor=reranker, base_retriever=pooled.as_retriever()
        ...     )
        ...     [best] = retriever.invoke("diverging palettes")
        >>> best.metadata["page"]
        1
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    vectorstore: ColPaliVectorStore | None = None
    embedding: ColPaliEmbeddings
    top_n: int | None = Field(default=3, ge=1)
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    on_error: Literal["raise", "skip"] = "raise"
    password: str | None = Field(default=None, exclude=True, repr=False)
    roots: Annotated[list[str] | None, BeforeValidator(root_folders)] = None
    cache_size: int = Field(default=256, ge=0)

    _scorer: CandidateScorer = PrivateAttr()

    def __init__(
        self,
        *,
        vectorstore: ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str] | None = None,
        embedding: ColPaliEmbeddings | None = None,
        **fields: Any,
    ) -> None:
        if fields.keys() - type(self).model_fields:
            raise unknown_option(type(self).__name__, fields, type(self).model_fields, _GUESSES)
        opened = None if vectorstore is None else open_vectorstore(vectorstore, embedding)
        chosen = embedding or (ColPaliEmbeddings() if opened is None else opened.embeddings)
        super().__init__(**fields | {"vectorstore": opened, "embedding": chosen})

    def model_post_init(self, context: Any, /) -> None:
        """Make the scorer and its cache."""
        store = None if self.vectorstore is None else self.vectorstore.store
        self._scorer = CandidateScorer(lambda: self.embedding.model, store, cache_size=self.cache_size)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Order documents.

        Args:
            documents: pages and texts, which stay unchanged.
            query: the question.
            callbacks: not used.

        Returns:
            Copies of the best, with `relevance_score` and `doubtful` in their metadata.

        Raises:
            QueryError: the question is empty.
            ColPaliError: a document cannot be read or encoded, unless `on_error="skip"`.
        """
        scores = self._scorer.scores(query, self._candidates(documents), on_error=self.on_error)
        doubtful = self._scorer.doubtful(scores)
        ranked = sorted(zip(documents, scores, strict=True), key=lambda pair: -pair[1].max_sim)
        floor = self.score_threshold or 0.0
        return [
            _scored(document, score.relevance, doubtful=doubtful)
            for document, score in ranked
            if score.relevance >= floor
        ][: self.top_n]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """`compress_documents` in a thread."""
        candidates = self._candidates(documents)
        # Encoding pages is slow and must not block the threads of queries.
        encodes = await offload(lambda: self._scorer.needs_encoding(candidates), "queries")
        lane: Lane = "pages" if encodes else "queries"
        return await offload(lambda: self.compress_documents(documents, query, callbacks), lane)

    def _candidates(self, documents: Sequence[Document]) -> list[Candidate]:
        access = PageAccess(self.password, self.embedding.options.image_limits, root_folders(self.roots))
        return [candidate_of(document, access) for document in documents]

    # -- copies -------------------------------------------------------------------------------------------------

    def __copy__(self) -> ColPaliReranker:
        """Make a reranker with the same options and store, and a cache of its own."""
        return type(self)(**dict(self))

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ColPaliReranker:
        return self.__copy__()

    def __reduce__(self) -> Any:
        return partial(type(self), **dict(self)), ()


def _scored(document: Document, relevance: float, *, doubtful: bool) -> Document:
    metadata = {**document.metadata, "relevance_score": relevance, DOUBTFUL: doubtful}
    return document.model_copy(update={"metadata": metadata})
