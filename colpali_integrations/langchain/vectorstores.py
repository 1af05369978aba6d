"""`ColPaliVectorStore`: a LangChain vector store of pages and texts, searched by late interaction."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from threading import Event
from typing import Any, ClassVar

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from numpy.typing import ArrayLike

from colpali_integrations._options import checked_several, checked_whole, unknown_option
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.langchain._documents import checked_documents, document_of, item_of, per_item, text_documents
from colpali_integrations.langchain._opening import check_constructor, embedding_for, open_store
from colpali_integrations.langchain._searching import (
    OPTION_GUESSES,
    SEARCH_OPTIONS,
    FilterInput,
    Scored,
    documents_of,
    multi_vector,
    parsed_filter,
    search_options,
    with_scores,
)
from colpali_integrations.langchain._sources import DocumentInput, ImageInput, document_sources, image_source
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.pages.access import PageAccess, Roots, root_folders
from colpali_integrations.pages.arguments import page_numbers
from colpali_integrations.pages.document import DEFAULT_DPI
from colpali_integrations.pages.images import is_one_image, load_image
from colpali_integrations.pages.metadata import storable_metadata
from colpali_integrations.runtime.threads import cancellable, offload
from colpali_integrations.runtime.twins import cancellable_twin, offloaded_twin
from colpali_integrations.stores import (
    CollectionOptions,
    DocumentSource,
    Filter,
    Hits,
    Item,
    Layout,
    MultiVectorStore,
    ingest,
)
from colpali_integrations.stores.ingestion.failures import OnError
from colpali_integrations.stores.ingestion.progress import ProgressCallback
from colpali_integrations.stores.layout import LayoutLike
from colpali_integrations.stores.mmr import diverse
from colpali_integrations.stores.place import with_secrets, without_secrets
from colpali_integrations.stores.qdrant.index_kinds import IndexKind
from colpali_integrations.stores.settings import Datatype, FirstStage

__all__ = ["ColPaliVectorStore", "open_vectorstore"]

# Images in memory and from the network stay in memory from their identification to their encoding; this many at a time.
_IMAGES_TOGETHER = 16
# Options of `add_documents`.
_ADDING = ("ids", "batch_size", "password", "roots", "on_error", "progress", "stop")


class ColPaliVectorStore(VectorStore):
    """Vector store of pages and texts with all their vectors, in a folder, on a Qdrant server or in memory.

    A Document is a page, and is encoded as an image, if `PdfPageLoader` or `PageImageBlobParser` made it, or if its
    metadata contain its picture as `image_base64`. Any other Document is a text, and so is a page's Document with a
    changed text, such as a splitter's chunk. (To replace a page's text, by that of an OCR for instance, add
    `image_base64` to its metadata and remove `text_hash`.) Searches return Documents as they were added, with their
    ids. Metadata must be JSON-safe.

    A page is identified by its document (`document_id` in the metadata: the file's real path together with the caller's
    `metadata=`) and its number. Adding a document again is idempotent, and replaces it if the file has changed. Pages
    and texts of equal content are encoded once; other documents get copies of their vectors. An interrupted run
    continues with the missing pages.

    `colpali-integrations index` and the LlamaIndex adapter use the same folders. Threads may share the object, and
    processes a folder: one writes at a time. Copies share the store; unpickling opens it again. A pickle holds no API
    key: unpickling takes that of the environment variable QDRANT_API_KEY.

    Args:
        embedding: the encoder; None for the registered model that made the store, ColTiny for a new one. Options that
            it leaves out, such as `precision`, are those of the store's pages.
        store: an open `MultiVectorStore`, instead of `path`, `url` or `client`.
        path: a folder, which is made if it is missing, once the model is loaded. Without a place the store is in
            memory. Or the URL of a server, whose store is used; see `MultiVectorStore.open`.
        url: of a Qdrant server or cluster; several are the nodes of one cluster, see `MultiVectorStore.open`.
        client: a ready `QdrantClient`.
        collection_name: on the server.
        first_stage: the vectors that a two-stage search scans first; see `stores.settings.Settings`.
        first_vectors: number of first-stage vectors per page.
        datatype: of the stored vectors; see `stores.settings.Settings`.
        pool_factor: number of similar vectors of a page per stored mean; 1 by default.
        language: of the texts, for the hybrid search's BM25; see `MultiVectorStore.open`.
        read_only: for a folder: neither make nor change anything.
        file_mode: for a new folder: the permissions of its files; 0o600 by default.
        collection_options: for a collection on a server; see `CollectionOptions`.
        indexes: for a collection on a server: the metadata fields that get an index, and its kind, such as
            {"year": "number", "title": "text"}; see `MultiVectorStore.open`.
        auto_index: for a collection on a server; see `MultiVectorStore.open`.
        layout: for a collection that another program has made, see `stores.Layout`; it needs `embedding`.
        writable: with `layout`: Documents may be added, changed and removed.
        **client_options: for `QdrantClient`, with `url`: `api_key`, `prefer_grpc`, `timeout` and so on; and
            `retry_seconds`, see `MultiVectorStore.open`.

    Attributes:
        store: the `MultiVectorStore`.
        model: the `ColPali` that encodes.

    Raises:
        FingerprintError: a model of another space made the store; the message names both. Adding pages also raises it
            where they are made with other settings, such as another precision.
        StoreError: the store cannot be opened.
        ModelError: the model of a new store cannot be loaded; no folder or collection is made then.
        ConfigurationError: embeddings of single vectors, or arguments that contradict each other or the store.

    Example:
        >>> store = ColPaliVectorStore()
        >>> ids = store.add_texts(["the harbour at low tide", "rates of tax"], [{"year": 2023}, {"year": 2024}])
        >>> [best] = store.similarity_search("when is the tide low", k=1)
        >>> best.page_content, best.metadata
        ('the harbour at low tide', {'year': 2023})
        >>> store.similarity_search("tide", filter={"year": {"$gte": 2024}})[0].page_content
        'rates of tax'

        Pages of PDFs, in a folder:

        >>> with ColPaliVectorStore(path="my-index") as store:
        ...     ids = store.add_pdf("report.pdf")  # it is stored already, so nothing is encoded
        ...     retriever = store.as_retriever(search_kwargs={"k": 1, "hybrid": True})
        ...     [page] = retriever.invoke("diverging palettes")
        >>> page.metadata["file_name"], page.metadata["page"]
        ('report.pdf', 1)
    """

    # Set by `retrievers`, which imports this module.
    _retriever: ClassVar[type[VectorStoreRetriever]] = VectorStoreRetriever

    def __init__(
        self,
        embedding: ColPaliEmbeddings | None = None,
        *,
        store: MultiVectorStore | None = None,
        path: str | os.PathLike[str] | None = None,
        url: str | Sequence[str] | None = None,
        client: Any = None,
        collection_name: str = "pages",
        first_stage: FirstStage | None = None,
        first_vectors: int | None = None,
        datatype: Datatype | None = None,
        pool_factor: int | None = None,
        language: str | None = None,
        read_only: bool = False,
        file_mode: int | None = None,
        collection_options: CollectionOptions | Mapping[str, Any] | None = None,
        indexes: Mapping[str, IndexKind] | None = None,
        auto_index: bool | None = None,
        layout: LayoutLike | None = None,
        writable: bool = False,
        **client_options: Any,
    ) -> None:
        check_constructor(embedding, client_options)
        places: dict[str, Any] = {"path": path, "url": url, "client": client}
        ways: dict[str, Any] = {"first_stage": first_stage, "first_vectors": first_vectors, "language": language}
        ways |= {"datatype": datatype, "pool_factor": pool_factor}
        ways |= {"read_only": read_only or None, "file_mode": file_mode, "collection_options": collection_options}
        ways |= {"indexes": indexes, "auto_index": auto_index}
        ways |= {"layout": None if layout is None else Layout.of(layout), "writable": writable or None}
        options = {name: one for name, one in {**places, **ways, **client_options}.items() if one is not None}
        if store is None:
            self._embedding, self.store = open_store(embedding, options, collection_name=collection_name)
        elif options:
            raise ConfigurationError(f"store= is open already and cannot be combined with {', '.join(options)}")
        else:
            self._embedding, self.store = embedding_for(embedding, store.settings, store.where), store
            store.require_space(self.model)
        place = {"collection_name": collection_name, **options}
        self._place = None if client is not None or not (path or url) else place

    @property
    def embeddings(self) -> ColPaliEmbeddings:
        """The encoder and its options."""
        return self._embedding

    @property
    def model(self) -> ColPali:
        """The model of the embeddings."""
        return self._embedding.model

    # -- adding -------------------------------------------------------------------------------------------------

    @classmethod
    def from_texts(  # type: ignore[override]
        cls,
        texts: Iterable[str],
        embedding: ColPaliEmbeddings | None = None,
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **kwargs: Any,
    ) -> ColPaliVectorStore:
        """Make a store of texts; `kwargs` are those of the constructor and of `add_documents`."""
        return cls.from_documents(text_documents(texts, metadatas), embedding, ids=ids, **kwargs)

    @classmethod
    def from_documents(  # type: ignore[override]
        cls, documents: Iterable[Document], embedding: ColPaliEmbeddings | None = None, **kwargs: Any
    ) -> ColPaliVectorStore:
        """Make a store of Documents; `kwargs` are those of the constructor and of `add_documents`.

        Example:
            >>> from colpali_integrations.langchain import PdfPageLoader
            >>> pages = PdfPageLoader("report.pdf", pages=[1]).load()
            >>> store = ColPaliVectorStore.from_documents(pages)  # or path="my-index"
            >>> len(store.similarity_search("palettes", k=3))
            1
        """
        adding = {name: kwargs.pop(name) for name in _ADDING if name in kwargs}
        store = cls(embedding, **kwargs)
        store.add_documents(documents, **adding)
        return store

    def add_documents(  # type: ignore[override]
        self,
        documents: Iterable[Document],
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int | None = None,
        password: str | None = None,
        roots: Roots = None,
        on_error: OnError = "raise",
        progress: ProgressCallback | bool = False,
        stop: Event | None = None,
    ) -> list[str]:
        """Store pages and texts; they replace those with the same ids.

        A Document with an id of its own is a separate document: neither `add_pdf` nor `index_documents` of the file in
        its `source` removes it.

        Args:
            documents: from a loader, a retriever or the caller's code; the class explains which are pages.
            ids: one per Document; None for the Document's own, else that of the page in its document, or a new id for
                a text.
            batch_size: passed by LangChain's `index`, without effect: `embedding.batch_size` counts.
            password: for pages of encrypted PDFs; it is not stored.
            roots: as for `pages.page_image`: draw files in these folders alone.
            on_error: "raise" the error of a Document that cannot be read or encoded, after storing those before it;
                or "skip" it with a log entry.
            progress: a function that is called after each encoded Document, or True for a progress bar on stderr.
            stop: an event; once it is set, the call ends after the page at hand, and the stored pages stay. A cancelled
                task does the same.

        Returns:
            The ids, in the order of the Documents, without those skipped.

        Raises:
            InputError: a page cannot be drawn, a text is empty, or the number of ids is wrong.
            StoreError: metadata are not JSON-safe, or the store cannot be written.
        """
        several = checked_documents(documents)
        access = PageAccess(password, self._embedding.options.image_limits, root_folders(roots))
        make = partial(item_of, access=access)
        items = map(make, several, range(len(several)), per_item(ids, len(several), "ids"))
        return self._ingest(items, on_error=on_error, progress=progress, stop=stop)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts; `kwargs` are those of `add_documents`."""
        return self.add_documents(text_documents(texts, metadatas), ids=ids, **kwargs)

    def add_images(
        self,
        images: Iterable[ImageInput] | ImageInput,
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        include_image: bool = False,
        on_error: OnError = "raise",
        progress: ProgressCallback | bool = False,
        stop: Event | None = None,
    ) -> list[str]:
        """Store images as pages, with the metadata that `PdfPageLoader` gives an image file.

        Args:
            images: one or several of the inputs of `ColPaliEmbeddings.embed_images`: paths, bytes, PIL images, arrays,
                Blobs, URLs with `allow_urls`.
            metadatas: one per image; they identify an image together with its path, URL or content.
            ids: one per image; None derives it from that identity.
            include_image: whether to store each picture as base64 in the metadata. Without it only images in files can
                be shown again, to a chat model for instance.
            on_error: as for `add_documents`.
            progress: as for `add_documents`.
            stop: as for `add_documents`.

        Returns:
            The ids, in the order of the images, without those skipped.

        Raises:
            ImageError: an image cannot be read.
            InputError: a PDF, a Document that is a text, or a wrong number of metadatas or ids.
        """
        one = isinstance(images, Blob | Document) or is_one_image(images)
        several: list[ImageInput] = [images] if one else list(checked_several(images, "an image or several"))  # type: ignore[list-item]
        more, names = per_item(metadatas, len(several), "metadatas"), per_item(ids, len(several), "ids")
        options = self._embedding.options
        load, limits = partial(load_image, **options.image_options), options.image_limits
        sources = [
            image_source(image, load, limits, metadata=more[at], id_=names[at], index=at, include_image=include_image)
            for at, image in enumerate(several)
        ]
        return self._ingest(sources, on_error=on_error, progress=progress, stop=stop, together=_IMAGES_TOGETHER)

    def add_pdf(
        self,
        source: DocumentInput,
        *,
        dpi: float = DEFAULT_DPI,
        pages: Iterable[int] | None = None,
        password: str | None = None,
        isolate: bool = True,
        max_pixels: int | None = None,
        image_formats: Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        document_id: str | None = None,
        include_image: bool = False,
        exclude: Iterable[str] = (),
        follow_symlinks: bool = False,
        force: bool = False,
        on_error: OnError = "raise",
        progress: ProgressCallback | bool = False,
        stop: Event | None = None,
    ) -> list[str]:
        """Store the pages of a PDF or an Office file, or of all PDFs, Office files and images of a folder.

        Stored pages are not encoded again; a changed document is replaced. Pages are stored while others are encoded,
        so a repeated call continues an interrupted one.

        Args:
            source: a path, the bytes, a Blob, or a folder.
            dpi: resolution at which the pages are drawn.
            pages: 1-based numbers of the requested pages; None for all. Of a folder, those beyond the end of a document
                are passed over.
            password: for an encrypted PDF; it is not stored.
            isolate: False to read a PDF that you trust in this process, without limits; see `pages.open_pdf`.
            max_pixels: of an image, see `pages.load_image`; None for that of the embeddings.
            image_formats: further formats of images, see `pages.load_image`; None for those of the embeddings.
            metadata: the caller's own values, for every page. They are part of the identity: the same file with other
                metadata is another document.
            document_id: identity of a single document, instead of the one derived from its path or name and `metadata`.
            include_image: whether to store the picture of each page as base64 in the metadata.
            exclude: patterns of files in a folder to leave out, such as "drafts/*".
            follow_symlinks: search folders behind symbolic links too; see `stores.find_documents`.
            force: draw and encode pages that are stored already; see `stores.ingest`.
            on_error: as for `add_documents`; a document that cannot be read in full keeps its earlier pages.
            progress: as for `add_documents`.
            stop: as for `add_documents`.

        Returns:
            The ids of the pages, in order.

        Raises:
            PdfError: a PDF cannot be read.
            ConfigurationError: an option has an invalid value.

        Example:
            >>> store = ColPaliVectorStore()
            >>> ids = store.add_pdf("report.pdf", pages=[2], metadata={"tenant": "north"})
            >>> store.similarity_search("seats", filter={"tenant": "north"})[0].metadata["page"]
            2
        """
        options: dict[str, Any] = {"dpi": dpi, "password": password, "include_image": include_image}
        options |= {"isolate": isolate, "metadata": metadata, "document_id": document_id, "pages": page_numbers(pages)}
        storable_metadata(metadata)
        options |= self._embedding.options.image_limits.override(max_pixels, image_formats).options
        sources = document_sources([source], exclude=exclude, follow_symlinks=follow_symlinks, **options)
        return self._ingest(sources, force=force, on_error=on_error, progress=progress, stop=stop)

    def delete(  # type: ignore[override]
        self, ids: Iterable[str] | None = None, *, filter: FilterInput = None
    ) -> bool:
        """Remove the Documents that have one of the ids and fit the filter; either criterion may be missing.

        Args:
            ids: unknown ones are ignored.
            filter: as for `similarity_search`, but not a function; `{"document_id": ...}` removes a document.

        Returns:
            True.

        Raises:
            InputError: no criterion, or a filter that every Document fits. To remove everything, pass
                `filter={"$id": {"$exists": True}}`.
        """
        if callable(filter):
            raise InputError("delete: pass the filter as a dict, such as {'file_name': 'a.pdf'}, not as a function")
        self.store.delete(ids, where=filter)
        return True

    def get_by_ids(self, ids: Iterable[str], /) -> list[Document]:
        """Return Documents in the order of `ids`, without unknown ones."""
        return [document_of(entry) for entry in self.store.get(ids) if entry is not None]

    # -- searching by the words of a question -------------------------------------------------------------------

    def similarity_search(self, query: str, k: int = 4, filter: FilterInput = None, **kwargs: Any) -> list[Document]:
        """Find the Documents that answer a question best.

        Args:
            query: the question.
            k: maximum number of Documents.
            filter: only Documents whose metadata fit: `{"source": "a.pdf", "page": {"$gte": 3}}`, with `$and`, `$or`,
                `$not`, `$in` and so on (see `stores.filters`); or a function of a Document, which is called with every
                stored Document and suits small stores.
            **kwargs: `score_threshold`, the lowest relevance in [0, 1], which is MaxSim's in a hybrid search too;
                `hybrid=True` to fuse with BM25 over the Documents' texts by a weight that each question decides (a
                number as the weight of the text, or "rrf"), False for MaxSim alone, and "auto" by default: on where the
                model's description says that it pays and any Document has a text; `mode` and `oversampling` of a
                two-stage search, see `SearchOptions`.

        Returns:
            Documents as they were added, with their ids; [] from an empty store.

        Raises:
            QueryError: the question is empty.
            InputError: the filter is invalid.
            ConfigurationError: an option is unknown or has an invalid value.
        """
        return documents_of(self._hits(query, k=k, filter=filter, **kwargs))

    def similarity_search_with_score(self, query: str, k: int = 4, filter: FilterInput = None, **kwargs: Any) -> Scored:
        """Do `similarity_search` and return the ranking scores too, the higher the better.

        The score is the fused score, in [0, 1], of a hybrid search, which with ColTiny is the default, and else MaxSim.
        MaxSim grows with the number of words in the
        question, so it ranks the answers to one question, and a fixed threshold on it has no meaning. For thresholds
        use `similarity_search_with_relevance_scores`.
        """
        return with_scores(self._hits(query, k=k, filter=filter, **kwargs))

    def _similarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        """Score by MaxSim as a share of the highest possible for the question; see `scoring.maxsim.relevance`."""
        return [(document_of(hit.entry), hit.relevance) for hit in self._hits(query, k=k, **kwargs)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Find Documents that answer a question and do not repeat each other.

        Args:
            query: the question.
            k: maximum number of Documents.
            fetch_k: number of the best Documents to choose from.
            lambda_mult: weight of relevance against diversity, from 0 (diversity alone) to 1 (relevance alone).
            **kwargs: as for `similarity_search`, with `filter`.

        Returns:
            Documents in the order of choice; the first is the most relevant. The similarity of two pages is measured
            over all their vectors; see `stores.mmr`.
        """
        hits = self._hits(query, k=max(checked_whole(fetch_k, "fetch_k"), checked_whole(k, "k")), **kwargs)
        return documents_of(diverse(self.store, hits, k, lambda_mult=lambda_mult))

    # -- searching by vectors and images ------------------------------------------------------------------------

    def similarity_search_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: FilterInput = None, **kwargs: Any
    ) -> list[Document]:
        """Do `similarity_search` for vectors (n_vectors, dim), the result of `embed_query_multi_vector`.

        Raises:
            InputError: a single pooled vector, which this store does not compare.
        """
        return documents_of(self.find([multi_vector(embedding)], k=k, filter=filter, **kwargs)[0])

    def similarity_search_by_vector_with_score(
        self, embedding: ArrayLike, k: int = 4, filter: FilterInput = None, **kwargs: Any
    ) -> Scored:
        """Do `similarity_search_by_vector` with MaxSim as the score."""
        return with_scores(self.find([multi_vector(embedding)], k=k, filter=filter, **kwargs)[0])

    def similarity_search_by_image(
        self, image: ImageInput, k: int = 4, filter: FilterInput = None, **kwargs: Any
    ) -> list[Document]:
        """Find the Documents most like an image, which may be any input of `ColPaliEmbeddings.embed_images`.

        Raises:
            ImageError: the image cannot be read.
        """
        return [document for document, _ in self.similarity_search_by_image_with_score(image, k, filter, **kwargs)]

    def similarity_search_by_image_with_score(
        self, image: ImageInput, k: int = 4, filter: FilterInput = None, **kwargs: Any
    ) -> Scored:
        """Do `similarity_search_by_image` with MaxSim as the score."""
        [vectors] = self._embedding.embed_images_multi_vector([image])
        return self.similarity_search_by_vector_with_score(vectors, k, filter, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: ArrayLike, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Do `max_marginal_relevance_search` for vectors (n_vectors, dim)."""
        most = max(checked_whole(fetch_k, "fetch_k"), checked_whole(k, "k"))
        [hits] = self.find([multi_vector(embedding)], k=most, **kwargs)
        return documents_of(diverse(self.store, hits, k, lambda_mult=lambda_mult))

    def find(
        self,
        vectors: Sequence[ArrayLike],
        *,
        texts: Sequence[str] | None = None,
        filter: FilterInput = None,
        **options: Any,
    ) -> list[Hits]:
        """Search for several questions in one pass, with the scores and entries of the store.

        Args:
            vectors: (n_vectors, dim) per question.
            texts: the questions' words; needed for `hybrid`. Without them "auto" ranks by MaxSim alone.
            filter: as for `similarity_search`.
            **options: `k` (4 by default) and the options of `similarity_search`.

        Returns:
            Hits per question.
        """
        if options.keys() - SEARCH_OPTIONS.keys():
            raise unknown_option("a search", options, SEARCH_OPTIONS, OPTION_GUESSES)
        search = search_options({**options, "filter": self.parsed_filter(filter) if callable(filter) else filter})
        if texts is not None:
            search = self.store.decide_hybrid(search, self.model)
        return self.store.search_batch(vectors, search, texts=texts if search.ranks_by_words else None)

    def parsed_filter(self, *conditions: FilterInput) -> Filter:
        """Make one filter that holds where all `conditions` hold; a function is called with every stored Document."""
        return parsed_filter(self.store, *conditions)

    def as_retriever(self, **fields: Any) -> VectorStoreRetriever:
        """Make a `ColPaliRetriever` of this store.

        Args:
            **fields: `search_type`: "similarity", "similarity_score_threshold" or "mmr"; `search_kwargs`: options of
                the search, such as `{"k": 3, "hybrid": True}`, see `ColPaliRetriever`; and other fields of LangChain's
                retrievers, such as `tags` and `metadata`.

        Raises:
            ConfigurationError: an unknown field or option, or an invalid value.
        """
        fields["tags"] = fields.get("tags") or self._get_retriever_tags()
        return self._retriever(vectorstore=self, **fields)

    # -- without blocking the event loop; LangChain supplies the others -----------------------------------------

    # A cancelled addition stops after the page at hand, and the stored pages stay.

    async def aadd_documents(  # type: ignore[override]
        self,
        documents: Iterable[Document],
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int | None = None,
        password: str | None = None,
        roots: Roots = None,
        on_error: OnError = "raise",
        progress: ProgressCallback | bool = False,
        stop: Event | None = None,
    ) -> list[str]:
        """`add_documents` in a thread, without blocking the event loop."""
        options: dict[str, Any] = {"ids": ids, "password": password, "roots": roots}
        options |= {"on_error": on_error, "progress": progress}
        return await cancellable(lambda either: self.add_documents(documents, stop=either, **options), stop)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """`add_texts` in a thread, without blocking the event loop; LangChain's own loses the texts of a generator."""
        stop = kwargs.pop("stop", None)
        return await cancellable(lambda either: self.add_texts(texts, metadatas, ids=ids, stop=either, **kwargs), stop)

    aadd_images = cancellable_twin(add_images)
    aadd_pdf = cancellable_twin(add_pdf)
    asimilarity_search_by_vector_with_score = offloaded_twin(similarity_search_by_vector_with_score)
    asimilarity_search_by_image = offloaded_twin(similarity_search_by_image)
    asimilarity_search_by_image_with_score = offloaded_twin(similarity_search_by_image_with_score)

    async def _asimilarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        return await offload(partial(self._similarity_search_with_relevance_scores, query, k, **kwargs), "queries")

    # -- copies, and the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the folder or the connection; a store in memory is lost."""
        self.store.close()

    def __enter__(self) -> ColPaliVectorStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r})"

    def __copy__(self) -> ColPaliVectorStore:
        """Make another object on the same store, like a copy of a connection."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> ColPaliVectorStore:
        return copy.copy(self)

    def __reduce__(self) -> Any:
        if self._place is None:
            raise TypeError(
                f"{self!r} cannot be pickled, because it has no place from which it could be opened again; make it "
                "with path= or url="
            )
        return _reopened, (type(self), self._embedding, without_secrets(self._place))

    # -----------------------------------------------------------------------------------------------------------

    def _ingest(self, sources: Iterable[DocumentSource | Item], **options: Any) -> list[str]:
        """Encode and store; return the ids."""
        encoder = self._embedding
        options["progress"] = options.get("progress") or encoder.show_progress
        options |= {"batch_size": encoder.batch_size, "parallel": encoder.parallel}
        return ingest(sources, store=self.store, model=encoder.model, **options).ids

    def _hits(self, query: str, **options: Any) -> Hits:
        return self.find([self._embedding.embed_query_multi_vector(query)], texts=[query], **options)[0]


def _reopened(
    kind: type[ColPaliVectorStore], embedding: ColPaliEmbeddings, place: Mapping[str, Any]
) -> ColPaliVectorStore:
    """Open a pickled store again."""
    return kind(embedding, **with_secrets(place))


def open_vectorstore(
    store: ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str], embedding: ColPaliEmbeddings | None = None
) -> ColPaliVectorStore:
    """Open an existing store; never make one.

    Args:
        store: the vector store, the store in it, or its folder.
        embedding: the encoder; None for the store's own.

    Raises:
        StoreError: the folder has no store.
        FingerprintError: a model of another space than that of the embeddings made the store.
    """
    if isinstance(store, ColPaliVectorStore):
        if embedding is not None:
            encoder = embedding_for(embedding, store.store.settings, store.store.where)
            store.store.require_space(encoder.model)
        return store
    if isinstance(store, MultiVectorStore):
        return ColPaliVectorStore(embedding, store=store)
    with MultiVectorStore.open(store):  # raises where there is none
        return ColPaliVectorStore(embedding, path=store)
