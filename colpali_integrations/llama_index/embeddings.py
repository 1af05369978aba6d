"""`ColPaliEmbedding`: pages, queries and texts to vectors, as LlamaIndex wants them and as late interaction does."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, closing
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.bridge.pydantic import BeforeValidator, ConfigDict, Field, model_validator
from llama_index.core.callbacks.base import CallbackManager, EventContext
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.utils import get_tqdm_iterable

from colpali_integrations.llama_index._images import ImageInput, image_label, image_sources, node_image, several
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.loading import check_name
from colpali_integrations.models.options import ModelOptions, nest_options
from colpali_integrations.models.shared import shared_model
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.threads import Lane, collect, offload, stream_in_chunks
from colpali_integrations.scoring.single_vector import Pooling, single_vector

__all__ = ["ColPaliEmbedding"]

T = TypeVar("T")


def _as_str(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class ColPaliEmbedding(MultiModalEmbedding):
    """Embeds page images, queries and texts with a ColPali-family model, without PyTorch.

    LlamaIndex's own methods (`get_query_embedding`, `get_text_embedding`, `get_image_embedding`, their batches and
    async twins) give one pooled vector of unit length (next to zero for a page with nothing on it) as Python floats,
    which any vector store holds. Late interaction needs every vector: `get_query_multi_vector`,
    `get_text_multi_vectors`, `get_image_multi_vectors` and their async twins give float32 arrays (n_vectors, dim) for
    `max_sim`, and rank better.

    An image may be a path, `data:` URI, URL (with `allow_urls=True`), bytes, an open file, a PIL image, an array, a
    `PdfPage`, an `ImageNode`, `ImageDocument` or `ImageBlock`, or "report.pdf#page=3". A text is encoded as a query
    is, and cut to the length of one: ColPali models have no other text encoder. Only ColTiny's multi-vectors of a text
    are those that a page which prints it would have (`ColPali.embed_texts`). An empty text is an error.

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
        model_name: a name of `list_supported_models()`, or a folder with a model's files.
        embed_batch_size: inputs per run: 1 suits page images on a CPU, 4 or more a GPU.
        num_workers: batches that are encoded at the same time by the async methods and by image batches, on one copy
            of the weights; None for 2 async calls and one image batch per device.
        pooling: how a multi-vector becomes one vector: "mean".
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

    model_config = ConfigDict(extra="forbid")

    model_name: Annotated[str, BeforeValidator(_as_str)] = Field(
        default="coltiny", description="A registered model, or a folder with its files."
    )
    embed_batch_size: int = Field(default=1, gt=0, le=2048, description="Inputs per run; 1 suits page images on a CPU.")
    num_workers: int | None = Field(default=None, gt=0, description="Batches encoded at the same time.")
    pooling: Pooling = Field(default="mean", description="How a multi-vector becomes one vector.")
    options: ModelOptions = Field(default=ModelOptions(), description="The model's other options.")

    if TYPE_CHECKING:  # pydantic's signature has no place for model options that are given directly

        def __init__(
            self,
            *,
            model_name: str | os.PathLike[str] = ...,
            embed_batch_size: int = ...,
            num_workers: int | None = ...,
            pooling: Pooling = ...,
            callback_manager: CallbackManager = ...,
            **options: Any,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _nest_options(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if data.get("class_name") == cls.class_name():  # LlamaIndex adds it to the result of `model_dump`
            data = {key: value for key, value in data.items() if key != "class_name"}
        return nest_options(data, where=cls.__name__, known=cls.model_fields)

    @model_validator(mode="after")
    def _check_model_name(self) -> ColPaliEmbedding:
        """Refuse an unknown model here, and not at the first page."""
        check_name(self.model_name, self.options.local_dir)
        return self

    @classmethod
    def class_name(cls) -> str:
        """The name under which this class is serialised."""
        return "ColPaliEmbedding"

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

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._get_text_embeddings([query])[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        # Not `embed_texts`: the mean of what ColTiny makes of a text as a page lies far from the mean of a query. Of 16
        # questions about 16 sentences 14 found theirs first by it, and all 16 by this.
        return [single_vector(vectors, self.pooling) for vectors in self.model.embed_queries(texts)]

    def _get_image_embedding(self, img_file_path: ImageInput) -> Embedding:
        return self._get_image_embeddings([img_file_path])[0]

    def _get_image_embeddings(self, img_file_paths: Sequence[ImageInput]) -> list[Embedding]:
        return list(self._pool_images(img_file_paths))

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await self._offload(lambda: self._get_query_embedding(query), "queries")

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await self._offload(lambda: self._get_text_embedding(text), "queries")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self._offload(lambda: self._get_text_embeddings(texts), "pages")

    async def _aget_image_embedding(self, img_file_path: ImageInput) -> Embedding:
        return await self._offload(lambda: self._get_image_embedding(img_file_path), "pages")

    async def _aget_image_embeddings(self, img_file_paths: Sequence[ImageInput]) -> list[Embedding]:
        return await self._offload(lambda: self._get_image_embeddings(img_file_paths), "pages")

    # -- batches of images --------------------------------------------------------------------------------------

    # LlamaIndex's own versions wait for each batch before they read the next one (the synchronous one), start every
    # batch at once (the asynchronous one), and hand the pictures themselves to every callback handler. Here one
    # pipeline reads ahead by a bounded number of images, and handlers get names.

    def get_image_embedding(self, img_file_path: ImageInput) -> Embedding:
        """One pooled vector of an image, of unit length.

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
        """One pooled vector per image, in order.

        Args:
            img_file_paths: images of any kind; see the class. `get_image_multi_vectors` takes a generator, such as
                `pdf_pages(...)`, without holding all its pages at once; this keeps a list.
            show_progress: a progress bar.

        Raises:
            ImageError: an image cannot be read; `index` and `item` name it.
        """
        images = list(several(img_file_paths))
        embeddings: list[Embedding] = []
        with closing(self._pool_images(images, show_progress)) as stream:
            for labels in self._batches_of_labels(images):
                with self._embedding_event() as event:
                    batch = list(itertools.islice(stream, len(labels)))
                    event.on_end(payload={EventPayload.CHUNKS: labels, EventPayload.EMBEDDINGS: batch})
                embeddings += batch
        return embeddings

    async def aget_image_embedding_batch(
        self, img_file_paths: Iterable[ImageInput], show_progress: bool = False
    ) -> list[Embedding]:
        """`get_image_embedding_batch` without blocking the event loop."""
        images = list(several(img_file_paths))
        embeddings: list[Embedding] = []
        stream = self._pool_images(images, show_progress)
        async with aclosing(stream_in_chunks(stream, self.embed_batch_size, workers=self.num_workers)) as batches:
            for labels in self._batches_of_labels(images):
                with self._embedding_event() as event:
                    batch = await anext(batches)
                    event.on_end(payload={EventPayload.CHUNKS: labels, EventPayload.EMBEDDINGS: batch})
                embeddings += batch
        return embeddings

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

    # -----------------------------------------------------------------------------------------------------------

    def to_payload(self) -> dict[str, Any]:
        """What observability tools see."""
        # Written out, because releases of llama-index-core before 0.14.23 have no such method to build on.
        return {
            "class_name": self.class_name(),
            "model_name": self.model_name,
            "embed_batch_size": self.embed_batch_size,
            "pooling": self.pooling,
        }

    def _encode_images(self, images: Iterable[ImageInput], show_progress: bool) -> Iterator[Float32]:
        watched = get_tqdm_iterable(images, show_progress, "Generating image embeddings")
        return self.model.embed_images(
            image_sources(watched), batch_size=self.embed_batch_size, parallel=self.num_workers
        )

    def _pool_images(self, images: Iterable[ImageInput], show_progress: bool = False) -> Generator[Embedding]:
        for vectors in self._encode_images(images, show_progress):
            yield single_vector(vectors, self.pooling)

    def _batches_of_labels(self, images: Sequence[ImageInput]) -> Iterator[list[str]]:
        for start in range(0, len(images), self.embed_batch_size):
            yield [image_label(image) for image in images[start : start + self.embed_batch_size]]

    def _embedding_event(self) -> AbstractContextManager[EventContext]:
        return self.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: self.to_payload()})

    async def _offload(self, call: Callable[[], T], lane: Lane) -> T:
        return await offload(call, lane, workers=self.num_workers)


def _split(
    nodes: Sequence[BaseNode],
) -> tuple[list[tuple[BaseNode, ImageSource]], list[tuple[BaseNode, str]]]:
    pages: list[tuple[BaseNode, ImageSource]] = []
    texts: list[tuple[BaseNode, str]] = []
    for node in nodes:
        image = node_image(node)
        if image is not None:
            pages.append((node, image))
        else:
            texts.append((node, node.get_content(metadata_mode=MetadataMode.EMBED)))
    return pages, texts


def _assign(pairs: Sequence[tuple[BaseNode, Any]], embeddings: Sequence[Embedding]) -> None:
    for (node, _), embedding in zip(pairs, embeddings, strict=True):
        node.embedding = embedding
