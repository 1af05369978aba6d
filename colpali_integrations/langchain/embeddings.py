"""`ColPaliEmbeddings`: single vectors for LangChain and multi-vectors for late interaction."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.embeddings import Embeddings
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from colpali_integrations.errors import InputError
from colpali_integrations.langchain._sources import ImageInput, image_sources
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.loading import check_name
from colpali_integrations.models.options import ModelOptions, nest_options
from colpali_integrations.models.shared import shared_model
from colpali_integrations.models.single import Pooling, SingleVectors
from colpali_integrations.pages.images import is_one_image
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.pipeline import OnError
from colpali_integrations.runtime.threads import collect, offload
from colpali_integrations.runtime.twins import offloaded_twin

__all__ = ["ColPaliEmbeddings"]


class ColPaliEmbeddings(BaseModel, Embeddings):
    """Embeddings of queries, texts and page images by a ColPali-family model, without PyTorch.

    LangChain's own methods (`embed_query`, `embed_documents`) and `embed_images` return one vector of unit length as
    Python floats, which any vector store and cache accepts: of the trained dense head where the model has one (NeoMME),
    else the mean of its vectors. Late interaction needs all vectors: the `..._multi_vector` methods return float32
    arrays (n_vectors, dim) for `max_sim`, and rank far better.

    ColTiny encodes a text as it encodes a page that prints the text, and NeoMME as a document, so that texts and pages
    share one ranking. Other models encode a text as a query and cut it to the length of one. The mean of a text always
    comes from its vectors as a query.

    An image may be anything that `colpali_integrations.pages.load_image` takes (a path, bytes, an open file, a PIL
    image, an array, a data URI, a URL with `allow_urls=True`), a `PdfPage`, a Blob of an image, or a page's Document
    from `PdfPageLoader`. `on_error` is that of `ColPali.embed_images`: "raise" the error of an image that cannot be
    read or encoded; "skip" it with a log entry; or a function that is called with the error. The result then has no
    entry for that image.

    The object holds options only. All objects with equal options in a process, copies and unpickled ones included,
    share one model. It is loaded at first use, by one thread, and stays loaded until
    `colpali_integrations.models.shared.release_shared_models()`.

    Args:
        options: keyword arguments of `ColPali.from_pretrained` beside the name; each may also be passed directly:
            `ColPaliEmbeddings(threads=4)`. An unknown argument is an error.

    Attributes:
        model_name: a name of `list_supported_models()`, a folder with a model's files, or the URL of a server. May be
            passed as `model`.
        batch_size: pages per run; None for the default of `ColPali.embed_images`.
        parallel: runs at the same time, on one copy of the weights. None: one per device; 0: one per core.
        show_progress: a progress bar on stderr.
        pooling: how one vector comes about: "dense" by the trained dense head, "mean" as the mean of all vectors; None
            for "dense" where the model has such a head.
        dimensions: how many numbers of a dense vector to keep; None for all.
        options: the model's other options.

    Raises:
        ModelNotFoundError: no model has that name.
        pydantic.ValidationError: an argument has an invalid value or is unknown.

    Example:
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> embeddings = ColPaliEmbeddings()
        >>> len(embeddings.embed_query("how tall is the tower"))
        128
        >>> embeddings.embed_query_multi_vector("how tall is the tower").shape[1]
        128
        >>> store = InMemoryVectorStore.from_texts(["the tower is 324 m tall"], embeddings)
        >>> store.similarity_search("how tall is the tower", k=1)[0].page_content
        'the tower is 324 m tall'
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True, validate_assignment=True)

    model_name: str | Path = Field(default="coltiny", validation_alias=AliasChoices("model_name", "model"))
    batch_size: int | None = Field(default=None, ge=1)
    parallel: int | None = Field(default=None, ge=0)
    show_progress: bool = False
    pooling: Pooling | None = None
    dimensions: int | None = Field(default=None, ge=1)
    options: ModelOptions = ModelOptions()

    if TYPE_CHECKING:  # pydantic's own signature has no model options

        def __init__(
            self,
            *,
            model_name: str | Path = ...,
            batch_size: int | None = ...,
            parallel: int | None = ...,
            show_progress: bool = ...,
            pooling: Pooling | None = ...,
            dimensions: int | None = ...,
            **options: Any,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _nest_options(cls, data: Any) -> Any:
        known = (*cls.model_fields, "model")
        return nest_options(data, where=cls.__name__, known=known) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _check_model_name(self) -> ColPaliEmbeddings:
        """Refuse an unknown model at once instead of at the first query."""
        check_name(self.model_name, self.options.local_dir)
        return self

    @property
    def model(self) -> ColPali:
        """The model, shared by all objects with equal options; its sessions load at first use."""
        return shared_model(self.model_name, self.options)

    @property
    def fingerprint(self) -> str:
        """A short identifier of this object's single vectors: a namespace for `CacheBackedEmbeddings`."""
        return self._single.namespace

    # -- one vector each ----------------------------------------------------------------------------------------

    def embed_query(self, text: str) -> list[float]:
        """Encode a query as one vector of Python floats.

        Raises:
            QueryError: the query is empty or not a string.
            ConfigurationError: the model has no dense head, or not as many `dimensions`.
        """
        return self._single.query(text)

    def embed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """Encode texts as one vector each: by the dense head as documents, by the mean in the way of queries.

        Raises:
            QueryError: a text is empty or not a string; `index` and `item` name it.
            ConfigurationError: as `embed_query`.
        """
        return list(self._single.texts(_several(texts), parallel=self.parallel, show_progress=self.show_progress))

    def embed_images(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: OnError = "raise"
    ) -> list[list[float]]:
        """Encode pages as one vector each.

        Args:
            images: one image, or any iterable of them.
            on_error: "raise", "skip" or a function of the error; see the class.

        Raises:
            ImageError: a page cannot be read; `index` and `item` name it.
            EncodingError: a page cannot be encoded.
            ConfigurationError: as `embed_query`.
        """
        return list(self._image_vectors(images, on_error))

    def embed_image(self, uris: list[str]) -> list[list[float]]:
        """Do `embed_images`, under the name and argument that Chroma's `add_images` uses."""
        return self.embed_images(uris)

    # -- all vectors --------------------------------------------------------------------------------------------

    def embed_query_multi_vector(self, text: str) -> Float32:
        """Encode a query as all its vectors, float32 (n_vectors, dim), for `max_sim`.

        Raises:
            QueryError: the query is empty or not a string.
        """
        return self.model.embed_query(text)

    def embed_queries_multi_vector(self, texts: Iterable[str]) -> list[Float32]:
        """Encode queries together as all their vectors, float32 (n_vectors, dim) each.

        Raises:
            QueryError: a query is empty or not a string; `index` and `item` name it.
        """
        return list(self.model.embed_queries(_several(texts), parallel=self.parallel))

    def embed_documents_multi_vector(self, texts: Iterable[str]) -> list[Float32]:
        """Encode texts to be searched as all their vectors, float32 (n_vectors, dim) each; see `ColPali.embed_texts`.

        Raises:
            QueryError: a text is empty or not a string; `index` and `item` name it.
        """
        return list(self.model.embed_texts(_several(texts), parallel=self.parallel, show_progress=self.show_progress))

    def embed_images_multi_vector(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: OnError = "raise"
    ) -> list[Float32]:
        """Encode pages as all their vectors, float32 (n_vectors, dim) each; arguments and errors as `embed_images`.

        A page of ColPali has about 1030 vectors, half a megabyte. For more pages than fit in memory, iterate over
        `model.embed_images(...)`, which yields them one by one.
        """
        return list(self._images(images, on_error))

    # -- without blocking the event loop ------------------------------------------------------------------------

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` in a thread, without blocking the event loop."""
        return await offload(partial(self.embed_query, text), "queries")

    async def aembed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """`embed_documents` in a thread, without blocking the event loop."""
        return await offload(partial(self.embed_documents, texts), "pages")

    aembed_query_multi_vector = offloaded_twin(embed_query_multi_vector)
    aembed_queries_multi_vector = offloaded_twin(embed_queries_multi_vector)
    aembed_documents_multi_vector = offloaded_twin(embed_documents_multi_vector, "pages")

    async def aembed_images(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: OnError = "raise"
    ) -> list[list[float]]:
        """`embed_images` in a thread. A cancelled call stops encoding after the page at hand."""
        return await collect(lambda: self._image_vectors(images, on_error))

    async def aembed_images_multi_vector(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: OnError = "raise"
    ) -> list[Float32]:
        """`embed_images_multi_vector` in a thread. A cancelled call stops encoding after the page at hand."""
        return await collect(lambda: self._images(images, on_error))

    @property
    def _single(self) -> SingleVectors:
        return SingleVectors(self.model, self.pooling, self.dimensions)

    def _images(self, images: Iterable[ImageInput] | ImageInput, on_error: OnError) -> Generator[Float32, None, None]:
        return self.model.embed_images(self._sources(images), **self._page_options(on_error))

    def _image_vectors(
        self, images: Iterable[ImageInput] | ImageInput, on_error: OnError
    ) -> Generator[list[float], None, None]:
        return self._single.images(self._sources(images), **self._page_options(on_error))

    def _sources(self, images: Iterable[ImageInput] | ImageInput) -> Iterable[Any]:
        single = isinstance(images, (Blob, Document)) or is_one_image(images)
        several: Iterable[ImageInput] = [images] if single else images  # type: ignore[list-item, assignment]
        return image_sources(several, self.options.image_limits)

    def _page_options(self, on_error: OnError) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "parallel": self.parallel,
            "on_error": on_error,
            "show_progress": self.show_progress,
        }


def _several(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):
        raise InputError(f"expected a list of texts, got one str; pass [{texts[:20]!r}]")
    return texts
