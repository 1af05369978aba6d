"""`ColPaliEmbeddings`: pages, queries and texts to vectors, as LangChain wants them and as late interaction does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, overload

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.embeddings import Embeddings
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from colpali_integrations.errors import ColPaliError, InputError
from colpali_integrations.langchain._documents import ImageInput, image_sources
from colpali_integrations.models.colpali import ColPali, OnError
from colpali_integrations.models.family import Float32
from colpali_integrations.models.registry import find_model
from colpali_integrations.models.shared import shared_model
from colpali_integrations.pages.images import is_one_image
from colpali_integrations.runtime.threads import collect, offload
from colpali_integrations.scoring.single_vector import Pooling, single_vector

__all__ = ["ColPaliEmbeddings"]

# Fields that say how to use a model, not which model.
_USE = frozenset({"model_name", "pooling", "batch_size", "parallel", "show_progress"})


class ColPaliEmbeddings(BaseModel, Embeddings):
    """Embeds queries, texts and page images with a ColPali-family model, without PyTorch.

    LangChain's own methods (`embed_query`, `embed_documents`) and `embed_images` give one pooled vector of unit
    length as Python floats, which any vector store and cache can hold. Late interaction needs all vectors: the
    `..._multi_vector` methods give float32 arrays (n_vectors, dim) for `max_sim`, and rank far better.

    All vectors of a text are those that a page which prints it would have, where the model can tell (ColTiny), so that
    texts and pages stand in one ranking; other models have no text encoder but that of queries, and cut a text to the
    length of one. The one pooled vector of a text is always made of its vectors as a query.

    An image may be whatever `colpali_integrations.load_image` takes (a path, bytes, an open file, a PIL image, an
    array, a data URI, a URL with `allow_urls=True`), a `PdfPage`, a Blob of an image, or a page's Document from
    `PdfPageLoader`. `on_error` says what becomes of one that cannot be read or encoded: "raise" the error, which names
    it; "skip" it with a log entry, so that the result is shorter than the input; "collect" the error in its place.

    The object holds options only. Objects of equal options, copies and unpickled ones included, share one model a
    process. It is loaded at first use, by one thread, and kept until
    `colpali_integrations.models.shared.release_shared_models()`. An unknown argument is an error, at once.

    Attributes:
        model_name: a name of `list_supported_models()`, or a folder with a model's files. May be passed as `model`.
        pooling: how a multi-vector becomes one vector: "mean", the mean of all vectors, scaled to length 1.
        batch_size: pages a run; None for the core's choice.
        parallel: runs at the same time, on one copy of the weights: None for one a device, 0 for one a core.
        show_progress: a progress bar on stderr.
        local_dir: a folder with the files of the model named; nothing is downloaded.
        revision: commit, tag or branch on the Hub, instead of the description's.
        cache_dir: instead of huggingface_hub's cache.
        local_files_only: never touch the network.
        threads: threads inside one run; None for all cores.
        providers: ONNX Runtime execution providers, names or (name, options).
        device_ids: GPUs to use.
        enable_cpu_mem_arena: let onnxruntime take the memory of a run from an arena, which shrinks after it.
        split_graph: cut a merged export so that queries skip the vision tower.
        allow_urls: let images be http(s) URLs.
        url_timeout: seconds, for those.
        url_max_bytes: the largest image fetched.

    Raises:
        ModelNotFoundError: no model of that name.
        pydantic.ValidationError: an argument of the wrong kind, or an unknown one.

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
    pooling: Pooling = "mean"
    batch_size: int | None = Field(default=None, ge=1)
    parallel: int | None = Field(default=None, ge=0)
    show_progress: bool = False
    local_dir: str | Path | None = None
    revision: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    threads: int | None = Field(default=None, ge=1)
    providers: list[str | tuple[str, dict[str, Any]]] | None = None
    device_ids: list[int] | None = None
    enable_cpu_mem_arena: bool = True
    split_graph: bool = True
    allow_urls: bool = False
    url_timeout: float = Field(default=10.0, gt=0)
    url_max_bytes: int = Field(default=64 * 2**20, gt=0)

    @model_validator(mode="after")
    def _check_model_name(self) -> ColPaliEmbeddings:
        """Refuse an unknown model here, and not at the first query."""
        if self.local_dir is not None or not Path(self.model_name).is_dir():
            find_model(str(self.model_name))
        return self

    @property
    def client(self) -> ColPali:
        """The model, shared by all objects with equal options; its sessions load at first use."""
        options = {name: getattr(self, name) for name in type(self).model_fields if name not in _USE}
        return shared_model(self.model_name, **options)

    @property
    def fingerprint(self) -> str:
        """What decides this object's pooled vectors, as a short word: a namespace for `CacheBackedEmbeddings`."""
        return f"{self.client.description.fingerprint}-{self.pooling}"

    # -- one vector each ----------------------------------------------------------------------------------------

    def embed_query(self, text: str) -> list[float]:
        """One pooled vector of a query: `dim` Python floats.

        Raises:
            QueryError: the query is empty or not a string.
        """
        return self._pool(self.embed_query_multi_vector(text))

    def embed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """One pooled vector of each text, encoded as a query is.

        Raises:
            QueryError: a text is empty or not a string; `index` and `item` name it.
        """
        # Not `embed_texts`: the mean of what ColTiny makes of a text as a page lies far from the mean of a query.
        vectors = self.client.embed_queries(_several(texts), parallel=self.parallel, show_progress=self.show_progress)
        return [self._pool(one) for one in vectors]

    @overload
    def embed_images(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: Literal["raise", "skip"] = ...
    ) -> list[list[float]]: ...

    @overload
    def embed_images(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: Literal["collect"]
    ) -> list[list[float] | ColPaliError]: ...

    def embed_images(self, images: Iterable[ImageInput] | ImageInput, *, on_error: OnError = "raise") -> list[Any]:
        """One pooled vector of each page.

        Args:
            images: one image, or any iterable of them.
            on_error: "raise", "skip" or "collect"; see the class.

        Raises:
            ImageError: a page that cannot be read; `index` and `item` name it.
            EncodingError: a page that cannot be encoded.
        """
        return [self._pooled(result) for result in self._images(images, on_error)]

    def embed_image(self, uris: list[str]) -> list[list[float]]:
        """`embed_images`, under the name and argument by which Chroma's `add_images` calls it."""
        return self.embed_images(uris)

    # -- all vectors --------------------------------------------------------------------------------------------

    def embed_query_multi_vector(self, text: str) -> Float32:
        """All vectors of a query, float32 (n_vectors, dim), for `max_sim`.

        Raises:
            QueryError: the query is empty or not a string.
        """
        [vectors] = self.client.embed_queries([text])
        return vectors

    def embed_queries_multi_vector(self, texts: Iterable[str]) -> list[Float32]:
        """All vectors of each query, encoded together: float32 (n_vectors, dim) each.

        Raises:
            QueryError: a query is empty or not a string; `index` and `item` name it.
        """
        return list(self.client.embed_queries(_several(texts), parallel=self.parallel))

    def embed_documents_multi_vector(self, texts: Iterable[str]) -> list[Float32]:
        """All vectors of each text that is to be found: float32 (n_vectors, dim) each; see `ColPali.embed_texts`.

        Raises:
            QueryError: a text is empty or not a string; `index` and `item` name it.
        """
        return list(self.client.embed_texts(_several(texts), parallel=self.parallel, show_progress=self.show_progress))

    @overload
    def embed_images_multi_vector(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: Literal["raise", "skip"] = ...
    ) -> list[Float32]: ...

    @overload
    def embed_images_multi_vector(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: Literal["collect"]
    ) -> list[Float32 | ColPaliError]: ...

    def embed_images_multi_vector(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: OnError = "raise"
    ) -> list[Any]:
        """All vectors of each page: float32 (n_vectors, dim) each. Arguments and errors as `embed_images`.

        A page of ColPali has about 1030 vectors, half a megabyte. For more pages than memory holds, iterate over
        `client.embed_images(...)`, which gives them one by one.
        """
        return list(self._images(images, on_error))

    # -- the same without blocking the event loop ---------------------------------------------------------------

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` in a thread."""
        return await offload(lambda: self.embed_query(text), "queries")

    async def aembed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """`embed_documents` in a thread."""
        return await offload(lambda: self.embed_documents(texts), "pages")

    @overload
    async def aembed_images(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: Literal["raise", "skip"] = ...
    ) -> list[list[float]]: ...

    @overload
    async def aembed_images(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: Literal["collect"]
    ) -> list[list[float] | ColPaliError]: ...

    async def aembed_images(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: OnError = "raise"
    ) -> list[Any]:
        """`embed_images` in a thread. A cancelled call stops encoding after the page at hand."""
        return await collect(lambda: (self._pooled(result) for result in self._images(images, on_error)))

    async def aembed_query_multi_vector(self, text: str) -> Float32:
        """`embed_query_multi_vector` in a thread."""
        return await offload(lambda: self.embed_query_multi_vector(text), "queries")

    async def aembed_queries_multi_vector(self, texts: Iterable[str]) -> list[Float32]:
        """`embed_queries_multi_vector` in a thread."""
        return await offload(lambda: self.embed_queries_multi_vector(texts), "queries")

    async def aembed_documents_multi_vector(self, texts: Iterable[str]) -> list[Float32]:
        """`embed_documents_multi_vector` in a thread."""
        return await offload(lambda: self.embed_documents_multi_vector(texts), "pages")

    @overload
    async def aembed_images_multi_vector(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: Literal["raise", "skip"] = ...
    ) -> list[Float32]: ...

    @overload
    async def aembed_images_multi_vector(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: Literal["collect"]
    ) -> list[Float32 | ColPaliError]: ...

    async def aembed_images_multi_vector(
        self, images: Iterable[ImageInput] | ImageInput, *, on_error: OnError = "raise"
    ) -> list[Any]:
        """`embed_images_multi_vector` in a thread. A cancelled call stops encoding after the page at hand."""
        return await collect(lambda: self._images(images, on_error))

    def _images(self, images: Iterable[ImageInput] | ImageInput, on_error: OnError) -> Iterator[Any]:
        one = isinstance(images, (Blob, Document)) or is_one_image(images)
        several: Iterable[ImageInput] = [images] if one else images  # type: ignore[list-item, assignment]
        return self.client.embed_images(
            image_sources(several),
            batch_size=self.batch_size,
            parallel=self.parallel,
            on_error=on_error,
            show_progress=self.show_progress,
        )

    def _pooled(self, result: Float32 | ColPaliError) -> list[float] | ColPaliError:
        return result if isinstance(result, ColPaliError) else self._pool(result)

    def _pool(self, vectors: Float32) -> list[float]:
        return single_vector(vectors, self.pooling)


def _several(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):
        raise InputError(f"expected a list of texts, got one str; pass [{texts[:20]!r}]")
    return texts
