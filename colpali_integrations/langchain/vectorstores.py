"""`ColPaliVectorStore`: pages and texts in a LangChain vector store, found by late interaction."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.embeddings import Embeddings

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.langchain.adding import New, OnError, add_documents
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.intake import images_to_add, of_texts, paired, pdf_to_add, with_ids
from colpali_integrations.langchain.opening import embedding_by, embedding_of
from colpali_integrations.langchain.pages import document_of
from colpali_integrations.langchain.searching import Searches, Where
from colpali_integrations.langchain.sources import ImageInput
from colpali_integrations.pages.images import is_one_image
from colpali_integrations.pages.reference import DEFAULT_DPI
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.settings import FirstStage

if TYPE_CHECKING:
    from colpali_integrations.langchain.retrievers import ColPaliRetriever

__all__ = ["ColPaliVectorStore", "opened"]

T = TypeVar("T")

_IMAGES_AT_ONCE = 16


class ColPaliVectorStore(Searches):
    """Pages and texts, each with all its vectors, in a folder, on a Qdrant server or in memory.

    A Document is a page, and is encoded as an image, when `PdfPageLoader` or `PageImageBlobParser` made it (it has
    `content_hash`, `source` and `page`) or when it carries its picture as `image_base64`. Any other Document is a
    text, encoded as `ColPaliEmbeddings.embed_documents_multi_vector` does it. What comes out equals what went in, with
    its id; nothing is added to the metadata, which must be what JSON can hold. A text splitter copies a page's metadata
    to its chunks, and so makes them that page: split what a text loader gives.

    What the store holds already is not encoded again: a Document with its id and content, or a page with its content
    hash under any id. So adding the same pages twice costs nothing, and an interrupted run goes on where it was.

    The folder is the one that `colpali-integrations index` makes and the LlamaIndex adapter reads. Threads may share
    the object; a folder belongs to one process at a time. Copies share the store; a pickle opens it again.

    Args:
        embedding: what encodes; None for the registered model that the store was made by, ColTiny for a new one.
        store: a `MultiVectorStore` that is open already, instead of the places below.
        path: a folder, opened or made. Without a place the store is in memory, and gone with the object.
        url: of a Qdrant server or cluster.
        client: a ready `QdrantClient`.
        collection: on the server.
        first_stage: what a two-stage search scans first; see `stores.settings.Settings`.
        first_vectors: how many vectors a page has there.
        language: of the texts, for the hybrid search's BM25.
        **client_options: for `QdrantClient`, with `url`: `api_key`, `prefer_grpc`, `timeout` and so on.

    Raises:
        FingerprintError: the store was made by another model; both are shown.
        StoreError: it cannot be opened, or another process has it open.
        ConfigurationError: embeddings of single vectors, or arguments that contradict each other or the store.

    Example:
        >>> store = ColPaliVectorStore()
        >>> ids = store.add_texts(["the harbour at low tide", "rates of tax"], [{"year": 2023}, {"year": 2024}])
        >>> [found] = store.similarity_search("when is the tide low", k=1)
        >>> found.page_content, found.metadata
        ('the harbour at low tide', {'year': 2023})
        >>> store.similarity_search("tide", filter={"year": {"$gte": 2024}})[0].page_content
        'rates of tax'

        Pages of PDFs, in a folder:

        >>> with ColPaliVectorStore(path="my-index") as store:
        ...     ids = store.add_pdf("report.pdf")  # which is there already, so that nothing is encoded
        ...     retriever = store.as_retriever(search_kwargs={"k": 1, "hybrid": True})
        ...     [page] = retriever.invoke("diverging palettes")
        >>> page.metadata["source"], page.metadata["page"]
        ('...report.pdf', 1)
    """

    def __init__(
        self,
        embedding: ColPaliEmbeddings | None = None,
        *,
        store: MultiVectorStore | None = None,
        path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        client: Any = None,
        collection: str = "pages",
        first_stage: FirstStage | None = None,
        first_vectors: int | None = None,
        language: str | None = None,
        **client_options: Any,
    ) -> None:
        if embedding is not None and not isinstance(embedding, ColPaliEmbeddings):
            raise ConfigurationError(
                f"ColPaliVectorStore compares multi-vectors, which {type(embedding).__name__} does not give; pass "
                "ColPaliEmbeddings(), or nothing"
            )
        given: dict[str, Any] = {
            **{"path": path, "url": url, "client": client, "first_stage": first_stage},
            **{"first_vectors": first_vectors, "language": language, **client_options},
        }
        options = {name: value for name, value in given.items() if value is not None}
        if store is not None:
            if options:
                raise ConfigurationError(f"an open store= is taken as it is; it came with {', '.join(options)}")
            self._embedding = embedding or embedding_by(store.model.name, store.where)
            store.require(self._embedding.model)
            self.store = store
        else:
            self._embedding = embedding or embedding_of(path, url, client, collection, client_options)
            self.store = MultiVectorStore.open(model=self._embedding.model, collection=collection, **options)
        self._places = None if client is not None or not (path or url) else {"collection": collection, **options}

    @property
    def embeddings(self) -> ColPaliEmbeddings:
        """What encodes questions, texts and pages."""
        return self._embedding

    # -- adding -------------------------------------------------------------------------------------------------

    @classmethod
    def from_texts(  # type: ignore[override]
        cls,
        texts: Iterable[str],
        embedding: ColPaliEmbeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **options: Any,
    ) -> ColPaliVectorStore:
        """A store of some texts; `options` are those of the constructor and of `add_documents`."""
        made, adding = cls._made(embedding, options)
        made.add_texts(texts, metadatas, ids=ids, **adding)
        return made

    @classmethod
    def from_documents(  # type: ignore[override]
        cls, documents: Iterable[Document], embedding: ColPaliEmbeddings | None = None, **options: Any
    ) -> ColPaliVectorStore:
        """A store of some Documents; `options` are those of the constructor and of `add_documents`.

        Example:
            >>> from colpali_integrations.langchain import PdfPageLoader
            >>> pages = PdfPageLoader("report.pdf", pages=[1]).load()
            >>> store = ColPaliVectorStore.from_documents(pages)  # or path="my-index"
            >>> len(store.similarity_search("palettes", k=3))
            1
        """
        made, adding = cls._made(embedding, options, "ids")
        made.add_documents(documents, **adding)
        return made

    def add_documents(  # type: ignore[override]
        self,
        documents: Iterable[Document],
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        on_error: OnError = "raise",
    ) -> list[str]:
        """Store pages and texts, in place of those with the same ids.

        Args:
            documents: whatever came of a loader, a retriever or your own code; see the class for which are pages.
            ids: of each; None to take the Document's own, and where it has none a page's `content_hash@dpi`, a new id
                for a text.
            batch_size: how many are looked up and encoded as one group.
            on_error: "raise" the error of a Document that cannot be read or encoded, after storing those before it;
                or "skip" it with a log entry.

        Returns:
            The ids, in the order of the Documents; without those skipped.

        Raises:
            InputError: a page that cannot be drawn, an empty text, or another number of ids.
            StoreError: metadata that JSON cannot hold, or the store cannot be written.
        """
        return self._add(with_ids(documents, ids), batch_size, on_error)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **options: Any,
    ) -> list[str]:
        """Store texts; `options` are those of `add_documents`."""
        return self.add_documents(of_texts(texts, metadatas), ids=ids, **options)

    def add_images(
        self,
        images: Iterable[ImageInput] | ImageInput,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        include_image: bool = False,
        on_error: OnError = "raise",
    ) -> list[str]:
        """Store images as pages, with the metadata that `PdfPageLoader` gives an image file.

        Args:
            images: one or several of what `ColPaliEmbeddings.embed_images` takes: paths, bytes, PIL images, arrays,
                Blobs, URLs with `allow_urls`.
            metadatas: of each, beside what tells the image.
            ids: of each; None for its content hash.
            include_image: carry each picture as base64 in the metadata. Without it only images in files can be shown
                again, to a chat model for instance.
            on_error: as for `add_documents`.

        Returns:
            The ids, in the order of the images; without those skipped.

        Raises:
            ImageError: an image that cannot be read.
        """
        return self._add_images(images, metadatas, ids, include_image, on_error, None)

    def add_pdf(
        self,
        source: str | os.PathLike[str] | bytes | Blob,
        *,
        dpi: float = DEFAULT_DPI,
        pages: Iterable[int] | None = None,
        password: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        include_image: bool = False,
        on_error: OnError = "raise",
    ) -> list[str]:
        """Store the pages of a PDF. Those that are there already, by content hash and resolution, are not encoded.

        Pages are stored as they are encoded, so that an interrupted call goes on where it was.

        Args:
            source: a path, the bytes, or a Blob.
            dpi: resolution at which the pages are drawn.
            pages: 1-based numbers of those wanted; None for all.
            password: for an encrypted PDF; it is not stored.
            metadata: for every page, beside what tells the page.
            include_image: carry the picture of each page as base64 in the metadata.
            on_error: as for `add_documents`.

        Returns:
            The ids, `content_hash@dpi`, in the order of the pages.

        Raises:
            PdfError: it cannot be read.

        Example:
            >>> store = ColPaliVectorStore()
            >>> ids = store.add_pdf("report.pdf", pages=[2], metadata={"tenant": "north"})
            >>> store.similarity_search("seats", filter={"tenant": "north"})[0].metadata["page"]
            2
        """
        made = pdf_to_add(
            source, dpi=dpi, pages=pages, password=password, metadata=metadata, include_image=include_image
        )
        return self._add(made, None, on_error)

    # -- the rest -----------------------------------------------------------------------------------------------

    def delete(  # type: ignore[override]
        self, ids: Sequence[str] | None = None, *, filter: Where = None
    ) -> bool:
        """Remove Documents by id, by metadata, or those that have one of the ids and fit the filter.

        Args:
            ids: unknown ones are passed over.
            filter: as for `similarity_search`, but no function.

        Returns:
            True.

        Raises:
            InputError: neither was given. To remove everything: `filter={"$id": {"$exists": True}}`.
        """
        if callable(filter):
            raise InputError("delete: a filter must say in a dict what is removed, such as {'source': 'a.pdf'}")
        self.store.delete(ids, where=filter)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents in the order of `ids`; unknown ones are left out."""
        wanted = [ids] if isinstance(ids, str) else ids
        return [document_of(entry) for entry in self.store.get(wanted) if entry is not None]

    def as_colpali_retriever(self, **fields: Any) -> ColPaliRetriever:
        """A `ColPaliRetriever` of this store; `fields` are its own: `k`, `filter`, `hybrid`, `regions` and so on.

        What it gives over `as_retriever()`: scores and places in the metadata, options at every call, and `batch`
        that encodes all questions together.
        """
        from colpali_integrations.langchain.retrievers import ColPaliRetriever

        return ColPaliRetriever(store=self, **fields)

    def close(self) -> None:
        """Release the folder or the connection. A store in memory is gone then."""
        self.store.close()

    def __enter__(self) -> ColPaliVectorStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r})"

    # -- the same without blocking the event loop ---------------------------------------------------------------

    @classmethod
    async def afrom_texts(  # type: ignore[override]
        cls,
        texts: Iterable[str],
        embedding: ColPaliEmbeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **options: Any,
    ) -> ColPaliVectorStore:
        """`from_texts` in a thread."""
        made, adding = await offload(lambda: cls._made(embedding, options), "pages")
        await made.aadd_texts(texts, metadatas, ids=ids, **adding)
        return made

    @classmethod
    async def afrom_documents(  # type: ignore[override]
        cls, documents: Iterable[Document], embedding: ColPaliEmbeddings | None = None, **options: Any
    ) -> ColPaliVectorStore:
        """`from_documents` in a thread."""
        made, adding = await offload(lambda: cls._made(embedding, options, "ids"), "pages")
        await made.aadd_documents(documents, **adding)
        return made

    async def aadd_documents(  # type: ignore[override]
        self,
        documents: Iterable[Document],
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        on_error: OnError = "raise",
    ) -> list[str]:
        """`add_documents` in a thread. A cancelled call stops after the page at hand, and keeps what was done."""
        return await _stoppable(lambda stop: self._add(with_ids(documents, ids), batch_size, on_error, stop))

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **options: Any,
    ) -> list[str]:
        """`add_texts` in a thread."""
        return await self.aadd_documents(of_texts(texts, metadatas), ids=ids, **options)

    async def aadd_images(
        self,
        images: Iterable[ImageInput] | ImageInput,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        include_image: bool = False,
        on_error: OnError = "raise",
    ) -> list[str]:
        """`add_images` in a thread. A cancelled call stops after the image at hand, and keeps what was done."""
        return await _stoppable(lambda stop: self._add_images(images, metadatas, ids, include_image, on_error, stop))

    async def aadd_pdf(
        self,
        source: str | os.PathLike[str] | bytes | Blob,
        *,
        dpi: float = DEFAULT_DPI,
        pages: Iterable[int] | None = None,
        password: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        include_image: bool = False,
        on_error: OnError = "raise",
    ) -> list[str]:
        """`add_pdf` in a thread. A cancelled call stops after the page at hand, and keeps what was done."""

        def work(stop: Event) -> list[str]:
            made = pdf_to_add(
                source, dpi=dpi, pages=pages, password=password, metadata=metadata, include_image=include_image
            )
            return self._add(made, None, on_error, stop)

        return await _stoppable(work)

    async def adelete(  # type: ignore[override]
        self, ids: Sequence[str] | None = None, *, filter: Where = None
    ) -> bool:
        """`delete` in a thread."""
        return await offload(lambda: self.delete(ids, filter=filter), "queries")

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """`get_by_ids` in a thread."""
        return await offload(lambda: self.get_by_ids(ids), "queries")

    # -- copies -------------------------------------------------------------------------------------------------

    def __copy__(self) -> ColPaliVectorStore:
        """Another object on the same store, which is what a copy of a connection is."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> ColPaliVectorStore:
        return copy.copy(self)

    def __reduce__(self) -> Any:
        if self._places is None:
            raise TypeError(
                f"{self!r} cannot be pickled: it has no place from which it could be opened again. Make it with path= "
                "or url="
            )
        return _opened, (type(self), self._embedding, self._places)

    # -----------------------------------------------------------------------------------------------------------

    @classmethod
    def _made(
        cls, embedding: ColPaliEmbeddings | None, options: dict[str, Any], *more: str
    ) -> tuple[ColPaliVectorStore, dict[str, Any]]:
        adding = {name: options[name] for name in ("batch_size", "on_error", *more) if name in options}
        return cls(embedding, **{name: value for name, value in options.items() if name not in adding}), adding

    def _add(self, new: list[New], batch_size: int | None, on_error: OnError, stop: Event | None = None) -> list[str]:
        return add_documents(
            new, store=self.store, embeddings=self._embedding, together=batch_size, on_error=on_error, stop=stop
        )

    def _add_images(
        self,
        images: Iterable[ImageInput] | ImageInput,
        metadatas: Sequence[Mapping[str, Any]] | None,
        ids: Sequence[str | None] | None,
        include_image: bool,
        on_error: OnError,
        stop: Event | None,
    ) -> list[str]:
        one = isinstance(images, Blob | Document) or is_one_image(images)
        several: list[ImageInput] = [images] if one else list(images)  # type: ignore[list-item, arg-type]
        more = paired(metadatas, len(several), "metadatas")
        names = paired(ids, len(several), "ids")
        stored: list[str] = []
        # Images in memory and from the network are read to be told apart; a few at a time, or all would be held.
        for first in range(0, len(several), _IMAGES_AT_ONCE):
            part = slice(first, first + _IMAGES_AT_ONCE)
            found = images_to_add(
                several[part],
                more[part],
                names[part],
                embeddings=self._embedding,
                include_image=include_image,
                on_error=on_error,
                first=first,
            )
            stored += self._add(found, None, on_error, stop)
        return stored


def opened(
    store: ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str], embeddings: ColPaliEmbeddings | None
) -> ColPaliVectorStore:
    """A store that is there, however it was named; none is made.

    Raises:
        StoreError: no store in that folder.
        FingerprintError: it was made by another model than the embeddings'.
    """
    if isinstance(store, ColPaliVectorStore):
        if embeddings is not None:
            store.store.require(embeddings.model)
        return store
    if isinstance(store, MultiVectorStore):
        return ColPaliVectorStore(embeddings, store=store)
    with MultiVectorStore.open(store):  # raises where there is none
        return ColPaliVectorStore(embeddings, path=store)


async def _stoppable(call: Callable[[Event], T]) -> T:
    stop = Event()
    try:
        return await offload(lambda: call(stop), "pages")
    finally:
        stop.set()


def _opened(cls: type[ColPaliVectorStore], embedding: Embeddings, places: dict[str, Any]) -> ColPaliVectorStore:
    return cls(embedding, **places)  # type: ignore[arg-type]
