"""Pages, queries and texts as single vectors for LlamaIndex and as multi-vectors for late interaction."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field, model_validator
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.utils import get_tqdm_iterable

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.llama_index._components import PathString, StrictComponent
from colpali_integrations.llama_index._pictures import ImageInput, image_label, image_sources, node_image, several
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.loading import check_name
from colpali_integrations.models.options import ModelOptions, nest_options
from colpali_integrations.models.shared import shared_model
from colpali_integrations.models.single import Pooling, SingleVectors
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.threads import Lane, collect, offload
from colpali_integrations.stores import MultiVectorStore, Settings
from colpali_integrations.stores.model_choice import continued, registered_options

__all__ = ["ColPaliEmbedding", "DeferredEmbedding", "embedding_for", "stored_embedding"]

T = TypeVar("T")


class ColPaliEmbedding(StrictComponent, MultiModalEmbedding):
    """Embeds page images, queries and texts with a ColPali-family model, without PyTorch.

    LlamaIndex's own methods (`get_query_embedding`, `get_text_embedding`, `get_image_embedding`, their batches and
    async twins) give one vector of unit length as Python floats, which any vector store holds: of the trained dense
    head where the model has one (NeoMME), else the mean of its vectors. Late interaction needs every vector:
    `get_query_multi_vector`, `get_text_multi_vectors`, `get_image_multi_vectors` and their async twins give float32
    arrays (n_vectors, dim) for `max_sim`, and rank better.

    An image may be a path, `data:` URI, URL (with `allow_urls=True`), bytes, an open file, a PIL image, an array, a
    `PdfPage`, an `ImageNode`, `ImageDocument` or `ImageBlock`, or "report.pdf#page=3". A text is encoded as a query
    is, and cut to the length of one: ColPali models have no other text encoder. NeoMME encodes a text as a document,
    and ColTiny's multi-vectors of a text are those of a page that prints it (`ColPali.embed_texts`). An empty text is
    an error.

    As a transformation (`embedding(nodes)`, or in an `IngestionPipeline`) it embeds nodes that have an image as
    images, and others as texts. `MultiModalVectorStoreIndex` wants it twice, as `embed_model` and as
    `image_embed_model`; without the second it looks for CLIP. A plain `VectorStoreIndex` embeds every node as text,
    so hand it nodes that have been through `embedding(nodes)`.

    Copies, unpickled ones included, share one model in memory if their options are equal; it is loaded at first use,
    by one thread.

    Args:
        options: keyword arguments of `ColPali.from_pretrained` beside the name, each of which may also be given
            directly: `ColPaliEmbedding(threads=4)`. An unknown argument is an error.

    Attributes:
        model_name: a name of `list_supported_models()`, a folder with a model's files, or the URL of a server.
        embed_batch_size: inputs per run: 1 suits page images on a CPU, 4 or more a GPU.
        num_workers: batches that are encoded at the same time by the async methods and by image batches, on one copy
            of the weights; None for 2 async calls and one image batch per device.
        pooling: how one vector comes about: "dense" by the trained dense head, "mean" as the mean of all vectors; None
            for "dense" where the model has such a head.
        dimensions: how many numbers of a dense vector to keep; None for all.
        options: the model's other options.

    Example:
        >>> from PIL import Image
        >>> embedding = ColPaliEmbedding()
        >>> len(embedding.get_query_embedding("how tall is the tower"))
        128
        >>> len(embedding.get_image_embedding(Image.new("RGB", (64, 64), "white")))
        128
        >>> embedding.get_query_multi_vector("how tall is the tower").shape[1]
        128
    """

    model_name: PathString = Field(default="coltiny", description="A registered model, a folder or a server's URL.")
    embed_batch_size: int = Field(default=1, gt=0, le=2048, description="Inputs per run; 1 suits page images on a CPU.")
    num_workers: int | None = Field(default=None, gt=0, description="Batches encoded at the same time.")
    pooling: Pooling | None = Field(default=None, description="How one vector comes about; None: dense if trained.")
    dimensions: int | None = Field(default=None, gt=0, description="Numbers of a dense vector to keep; None for all.")
    options: ModelOptions = Field(default=ModelOptions(), description="The model's other options.")

    if TYPE_CHECKING:  # pydantic's signature has no place for model options that are given directly

        def __init__(
            self,
            *,
            model_name: str | os.PathLike[str] = ...,
            embed_batch_size: int = ...,
            num_workers: int | None = ...,
            callback_manager: CallbackManager = ...,
            pooling: Pooling | None = ...,
            dimensions: int | None = ...,
            **options: Any,
        ) -> None: ...

    @classmethod
    def _checked(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        return nest_options(arguments, where=cls.__name__, known=cls.model_fields)

    @model_validator(mode="after")
    def _check_model_name(self) -> ColPaliEmbedding:
        """Refuse an unknown model now, not at the first page."""
        check_name(self.model_name, self.options.local_dir)
        return self

    @property
    def model(self) -> ColPali:
        """The model, shared by all embeddings of equal options; its sessions load at first use."""
        return shared_model(self.model_name, self.options)

    # -- multi-vectors ------------------------------------------------------------------------------------------

    def get_query_multi_vector(self, query: str) -> Float32:
        """All vectors of a query: float32 (n_vectors, dim), for `max_sim`.

        Raises:
            QueryError: the query is empty or not a string.
        """
        return self.get_query_multi_vectors([query])[0]

    def get_query_multi_vectors(self, queries: Iterable[str]) -> list[Float32]:
        """All vectors of each query, in order: float32 (n_vectors, dim)."""
        return list(self.model.embed_queries(queries))

    def get_text_multi_vector(self, text: str) -> Float32:
        """All vectors of a text that is to be found: float32 (n_vectors, dim)."""
        return self.get_text_multi_vectors([text])[0]

    def get_text_multi_vectors(self, texts: Iterable[str]) -> list[Float32]:
        """All vectors of each text that is to be found, in order: float32 (n_vectors, dim); see `embed_texts`."""
        return list(self.model.embed_texts(texts))

    def get_image_multi_vector(self, image: ImageInput) -> Float32:
        """All vectors of a page: float32 (n_vectors, dim), for `max_sim`.

        Raises:
            ImageError: the image cannot be read.
        """
        return self.get_image_multi_vectors([image])[0]

    def get_image_multi_vectors(self, images: Iterable[ImageInput], *, show_progress: bool = False) -> list[Float32]:
        """All vectors of each page, in order: float32 (n_vectors, dim). A generator is read as the work goes on.

        Raises:
            ImageError: an image cannot be read; `index` and `item` name it.
        """
        return list(self._encode_images(several(images), show_progress))

    async def aget_query_multi_vector(self, query: str) -> Float32:
        """`get_query_multi_vector` without blocking the event loop."""
        return await self._offload(lambda: self.get_query_multi_vector(query), "queries")

    async def aget_query_multi_vectors(self, queries: Iterable[str]) -> list[Float32]:
        """`get_query_multi_vectors` without blocking the event loop."""
        return await self._offload(lambda: self.get_query_multi_vectors(queries), "pages")

    async def aget_text_multi_vector(self, text: str) -> Float32:
        """`get_text_multi_vector` without blocking the event loop."""
        return await self._offload(lambda: self.get_text_multi_vector(text), "queries")

    async def aget_text_multi_vectors(self, texts: Iterable[str]) -> list[Float32]:
        """`get_text_multi_vectors` without blocking the event loop."""
        return await self._offload(lambda: self.get_text_multi_vectors(texts), "pages")

    async def aget_image_multi_vector(self, image: ImageInput) -> Float32:
        """`get_image_multi_vector` without blocking the event loop."""
        return (await self.aget_image_multi_vectors([image]))[0]

    async def aget_image_multi_vectors(
        self, images: Iterable[ImageInput], *, show_progress: bool = False
    ) -> list[Float32]:
        """`get_image_multi_vectors` without blocking the event loop."""
        return await collect(lambda: self._encode_images(several(images), show_progress), workers=self.num_workers)

    # -- LlamaIndex's hooks -------------------------------------------------------------------------------------

    @property
    def _single(self) -> SingleVectors:
        return SingleVectors(self.model, self.pooling, self.dimensions)

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._single.query(query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return list(self._single.texts(texts))

    def _get_image_embedding(self, img_file_path: ImageInput) -> Embedding:
        return next(self._image_vectors([img_file_path]))

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await self._offload(lambda: self._get_query_embedding(query), "queries")

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await self._offload(lambda: self._get_text_embedding(text), "queries")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self._offload(lambda: self._get_text_embeddings(texts), "pages")

    async def _aget_image_embedding(self, img_file_path: ImageInput) -> Embedding:
        return await self._offload(lambda: self._get_image_embedding(img_file_path), "pages")

    # -- batches of images --------------------------------------------------------------------------------------

    # LlamaIndex's own versions wait for each batch before they read the next one (the synchronous one), start every
    # batch at once (the asynchronous one), and hand the pictures themselves to every callback handler. Here one
    # pipeline reads ahead by a bounded number of images, and handlers get names.

    def get_image_embedding(self, img_file_path: ImageInput) -> Embedding:
        """One vector of an image, of unit length.

        Args:
            img_file_path: a path, or any other kind of image; see the class.

        Raises:
            ImageError: the image cannot be read.
        """
        return self.get_image_embedding_batch([img_file_path])[0]

    async def aget_image_embedding(self, img_file_path: ImageInput) -> Embedding:
        """`get_image_embedding` without blocking the event loop."""
        return (await self.aget_image_embedding_batch([img_file_path]))[0]

    def get_image_embedding_batch(
        self, img_file_paths: Iterable[ImageInput], show_progress: bool = False
    ) -> list[Embedding]:
        """One vector per image, in order.

        Args:
            img_file_paths: images of any kind; see the class. `get_image_multi_vectors` takes a generator, such as
                `pdf_pages(...)`, without holding all its pages at once; this keeps a list.
            show_progress: a progress bar.

        Raises:
            ImageError: an image cannot be read; `index` and `item` name it.
        """
        return list(self._with_events(list(several(img_file_paths)), show_progress))

    async def aget_image_embedding_batch(
        self, img_file_paths: Iterable[ImageInput], show_progress: bool = False
    ) -> list[Embedding]:
        """`get_image_embedding_batch` without blocking the event loop."""
        images = list(several(img_file_paths))
        return await collect(lambda: self._with_events(images, show_progress), workers=self.num_workers)

    # -- as a transformation ------------------------------------------------------------------------------------

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of each node: of its image where it has one, of its text otherwise.

        Args:
            nodes: changed in place.
            kwargs: `show_progress`; others are for text embedding.

        Returns:
            The same nodes.

        Raises:
            ImageError: an image cannot be read.
            QueryError: a node has neither image nor text.
        """
        pages, texts = _split(nodes)
        shown = bool(kwargs.get("show_progress", False))
        _assign(pages, self.get_image_embedding_batch([image for _, image in pages], show_progress=shown))
        _assign(texts, self.get_text_embedding_batch([text for _, text in texts], **kwargs))
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """`__call__` without blocking the event loop."""
        pages, texts = _split(nodes)
        shown = bool(kwargs.get("show_progress", False))
        _assign(pages, await self.aget_image_embedding_batch([image for _, image in pages], show_progress=shown))
        _assign(texts, await self.aget_text_embedding_batch([text for _, text in texts], **kwargs))
        return nodes

    def _encode_images(self, images: Iterable[ImageInput], show_progress: bool) -> Generator[Float32, None, None]:
        return self.model.embed_images(self._watched(images, show_progress), **self._page_options)

    def _image_vectors(self, images: Iterable[ImageInput], show_progress: bool = False) -> Generator[Embedding]:
        return self._single.images(self._watched(images, show_progress), **self._page_options)

    def _watched(self, images: Iterable[ImageInput], show_progress: bool) -> Iterable[ImageSource]:
        watched = get_tqdm_iterable(images, show_progress, "Generating image embeddings")
        return image_sources(watched, self.options.image_limits)

    @property
    def _page_options(self) -> dict[str, Any]:
        return {"batch_size": self.embed_batch_size, "parallel": self.num_workers}

    def _with_events(self, images: Sequence[ImageInput], show_progress: bool) -> Generator[Embedding, None, None]:
        """One vector per image, with one event of LlamaIndex per batch."""
        payload: dict[Any, Any] = {EventPayload.SERIALIZED: self.to_payload()}
        with closing(self._image_vectors(images, show_progress)) as stream:
            for start in range(0, len(images), self.embed_batch_size):
                labels = [image_label(image) for image in images[start : start + self.embed_batch_size]]
                with self.callback_manager.event(CBEventType.EMBEDDING, payload=payload) as event:
                    batch = list(itertools.islice(stream, len(labels)))
                    event.on_end(payload={EventPayload.CHUNKS: labels, EventPayload.EMBEDDINGS: batch})
                yield from batch

    async def _offload(self, call: Callable[[], T], lane: Lane) -> T:
        return await offload(call, lane, workers=self.num_workers)


class DeferredEmbedding(StrictComponent, BaseEmbedding):
    """A stand-in for LlamaIndex classes that require an embedding model although the vector store encodes.

    `VectorStoreIndex` resolves OpenAI's model if it gets none, and `IngestionPipeline` drops nodes without an
    embedding. A `ColPaliVectorStore` encodes nodes and ignores the embeddings that they bring. This class gives every
    node the embedding `[0.0]`, at no cost; it refuses to embed a question, which another vector store would compare.
    `ColPaliVectorStore.deferred_embedding` returns one.

    Example:
        >>> DeferredEmbedding().get_text_embedding("low tide")
        [0.0]
    """

    model_name: str = "deferred to ColPaliVectorStore"
    embed_batch_size: int = 2048

    def _get_text_embedding(self, text: str) -> Embedding:
        return [0.0]

    def _get_query_embedding(self, query: str) -> Embedding:
        raise ConfigurationError(
            "a DeferredEmbedding embeds no questions: a ColPaliVectorStore encodes them itself. For another vector "
            "store use ColPaliEmbedding"
        )

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return self._get_query_embedding(query)

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Mark the nodes as embedded without reading them, because a page may have no text."""
        for node in nodes:
            node.embedding = [0.0]
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """`__call__`, which does not block."""
        return self(nodes, **kwargs)


def stored_embedding(store: MultiVectorStore) -> ColPaliEmbedding:
    """The embedding of the registered model that made a store, with the settings of the store's pages.

    Raises:
        ConfigurationError: no model is registered by the name that the store records.
    """
    advice = "pass embed_model=ColPaliEmbedding(model_name=<folder of the model>)"
    options = registered_options(store.model, where=store.where, advice=advice)
    return ColPaliEmbedding(model_name=store.model.name, **options)


def embedding_for(embedding: ColPaliEmbedding, settings: Settings | None, *, where: str) -> ColPaliEmbedding:
    """The embedding for a store: it goes on with the store's settings where it has none of its own.

    Args:
        embedding: of the caller; it stays unchanged.
        settings: of the store; None where there is none yet.
        where: the store, for messages.

    Raises:
        FingerprintError: a registered model of another space; it is refused before it is loaded, which may download it.
        ColPaliError: as `ColPali.from_pretrained`, of a name or folder that cannot be described.
    """
    if settings is None:
        return embedding
    options = continued(settings.model, embedding.model_name, embedding.options, where=where)
    return embedding if options == embedding.options else embedding.model_copy(update={"options": options})


def _split(
    nodes: Sequence[BaseNode],
) -> tuple[list[tuple[BaseNode, ImageSource]], list[tuple[BaseNode, str]]]:
    """Nodes that have a picture, with the pictures, and the other nodes with their texts."""
    images = [(node, node_image(node)) for node in nodes]
    pages = [(node, image) for node, image in images if image is not None]
    texts = [(node, node.get_content(metadata_mode=MetadataMode.EMBED)) for node, image in images if image is None]
    return pages, texts


def _assign(pairs: Sequence[tuple[BaseNode, Any]], embeddings: Sequence[Embedding]) -> None:
    for (node, _), embedding in zip(pairs, embeddings, strict=True):
        node.embedding = embedding
