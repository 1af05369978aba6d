"""`ColPali`: pages and queries to multi-vectors, with any registered model.

name --registry--> description --hub--> files --+--family---> codecs  --+
                                                +--session--> sessions --+--pipeline--> embed_images, embed_queries
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

import numpy as np

from colpali_integrations.errors import ColPaliError, ConfigurationError, EncodingError
from colpali_integrations.explain.grid import PageEmbedding
from colpali_integrations.models.family import Codec, Family, Prepared
from colpali_integrations.models.folder import describe_folder, revision_at
from colpali_integrations.models.hub import resolve_files
from colpali_integrations.models.loading import family_class
from colpali_integrations.models.prompt import check_query
from colpali_integrations.models.registry import ModelDescription, find_model
from colpali_integrations.pages.images import ImageSource, image_name, is_one_image, load_image
from colpali_integrations.runtime.allocator import release_freed_memory
from colpali_integrations.runtime.arrays import Feed, Float32, Outputs
from colpali_integrations.runtime.batching import Coalescer
from colpali_integrations.runtime.cores import available_cores
from colpali_integrations.runtime.pipeline import Stage, run_in_order, run_inline
from colpali_integrations.runtime.session import (
    ModelSessions,
    Provider,
    Runs,
    SessionConfig,
    resolve_providers,
)
from colpali_integrations.runtime.streams import OnError, handle_failures, in_thread, with_progress

__all__ = ["ColPali", "OnError", "describe"]

# On a CPU a batch of 4 was no faster than 1, and took two and a half times its memory, on a ColPali of a quarter of the
# real width (python -m benchmarks.encode images --batches 1 4). A GPU wants more to do at a time.
_IMAGE_BATCH_CPU, _IMAGE_BATCH_GPU = 1, 4
_QUERY_BATCH = 64

Encoded = TypeVar("Encoded", Float32, PageEmbedding)


class ColPali:
    """A late-interaction model: pages and queries become multi-vectors that `max_sim` compares.

    Make one with `from_pretrained`. It may be shared by any number of threads; all of them use one copy of the
    weights. It is a context manager, and `close()` releases the weights.

    Args:
        family: the model's codecs.
        sessions: its sessions, one a device.
        description: what it is.
        image_options: passed to `load_image`.

    Example:
        >>> from colpali_integrations import max_sim, pdf_pages
        >>> with ColPali.from_pretrained() as model:
        ...     pages = list(model.embed_images(pdf_pages("report.pdf")))
        ...     [query] = model.embed_queries("diverging palettes")
        >>> [page.dtype.name for page in pages], {page.shape[1] for page in pages}
        (['float32', 'float32'], {128})
        >>> max_sim(query, pages).shape
        (2,)
    """

    def __init__(
        self,
        family: Family,
        sessions: Sequence[ModelSessions],
        description: ModelDescription,
        *,
        image_options: dict[str, Any] | None = None,
    ) -> None:
        self.family = family
        self._sessions = list(sessions)
        self._meetings: list[Coalescer[Prepared, Float32]] = [Coalescer() for _ in self._sessions]
        self._description = description
        self._image_options = image_options or {}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "coltiny",
        *,
        local_dir: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        enable_cpu_mem_arena: bool = True,
        split_graph: bool = True,
        allow_urls: bool = False,
        url_timeout: float = 10.0,
        url_max_bytes: int = 64 * 2**20,
    ) -> ColPali:
        """Load a model by its registered name, or from a folder.

        Args:
            name_or_path: a name of `list_supported_models()`, or a folder whose config.json tells the family.
            local_dir: a folder with the files of the model named; nothing is downloaded.
            revision: commit, tag or branch on the Hub, instead of the description's.
            cache_dir: instead of huggingface_hub's cache.
            local_files_only: never touch the network; HF_HUB_OFFLINE=1 does the same.
            threads: threads inside one run; None for all cores that this process may use.
            providers: ONNX Runtime execution providers, names or (name, options); each must come up. None chooses
                CUDA where onnxruntime-gpu is installed and works, otherwise the CPU, and logs which.
            device_ids: GPUs to use, one session each; batches go round. Implies the CUDA provider unless `providers`
                says otherwise.
            lazy_load: make the sessions at first use. Queries alone then never load the vision tower.
            enable_cpu_mem_arena: let onnxruntime take the memory of a run from an arena, which shrinks after it.
            split_graph: cut a merged export so that queries skip the vision tower.
            allow_urls: let images be http(s) URLs.
            url_timeout: seconds, for those.
            url_max_bytes: the largest image fetched.

        Raises:
            ModelNotFoundError: the name is unknown, or files are missing and cannot be fetched.
            ModelLoadError: the files do not make a model of the family.
            ProviderError: a provider that was asked for did not come up.
            ConfigurationError: an argument that cannot work.

        Example:
            >>> model = ColPali.from_pretrained()  # ColTiny, inside the package
            >>> [query] = model.embed_queries(["how tall is the tower"])
            >>> query.shape[1] == model.dim
            True
        """
        if threads is not None and threads < 1:
            raise ConfigurationError(f"threads must be at least 1, got {threads}")
        if device_ids is not None and len(set(device_ids)) != len(device_ids):
            raise ConfigurationError(f"device_ids must be different, got {list(device_ids)}")
        description, folder = describe(name_or_path, local_dir)
        if revision is not None:
            description = replace(description, revision=revision)
        directory = resolve_files(description, local_dir=folder, cache_dir=cache_dir, local_files_only=local_files_only)
        description = replace(description, revision=revision_at(description, directory))
        if providers is None and device_ids:
            providers = ["CUDAExecutionProvider"]
        if providers is not None:
            resolve_providers(providers)  # before any work: a provider that cannot be is an error at once
        config = SessionConfig(
            providers=None if providers is None else tuple(providers),
            threads=threads,
            enable_cpu_mem_arena=enable_cpu_mem_arena,
            split=split_graph,
        )
        family = family_class(description.family)(description, directory)
        devices: list[int | None] = list(device_ids or []) or [None]
        sessions = [ModelSessions(family.graphs, replace(config, device_id=device)) for device in devices]
        if not lazy_load:
            for engine in sessions:
                engine.load()
        options = {"allow_urls": allow_urls, "timeout": url_timeout, "max_bytes": url_max_bytes}
        return cls(family, sessions, description, image_options=options)

    @property
    def description(self) -> ModelDescription:
        """What this model is."""
        return self._description

    @property
    def dim(self) -> int:
        """Length of one vector."""
        return self._description.dim

    @property
    def splits_graph(self) -> bool:
        """Whether a text query skips the vision tower."""
        return all(engine.splits for engine in self._sessions)

    @overload
    def embed_images(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        batch_size: int | None = ...,
        parallel: int | None = ...,
        on_error: Literal["raise", "skip"] = ...,
        show_progress: bool = ...,
    ) -> Generator[Float32, None, None]: ...

    @overload
    def embed_images(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        batch_size: int | None = ...,
        parallel: int | None = ...,
        on_error: OnError,
        show_progress: bool = ...,
    ) -> Generator[Float32 | ColPaliError, None, None]: ...

    def embed_images(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        on_error: OnError = "raise",
        show_progress: bool = False,
    ) -> Generator[Float32 | ColPaliError, None, None]:
        """Encode pages, in order, as they come.

        Decoding and resizing run ahead in threads. `images` may be a generator (such as `pdf_pages(...)`): it is read
        a bounded number of batches ahead, by the thread that iterates the result.

        Args:
            images: one image or any iterable of them; see `load_image` for what an image may be.
            batch_size: pages a run; None for 1 on a CPU, where more is no faster, and 4 on a GPU.
            parallel: batches at the same time, on one copy of the weights: None for one a device, 0 for one a core. On
                a CPU as many of them run at once as have cores, cores // threads: with the default threads, which is
                all cores, one after the other, while the others are prepared and decoded. Each run at once has memory
                of its own. For long work on many cores give both, such as `from_pretrained(..., threads=4)` and
                parallel=4.
            on_error: what becomes of a page that cannot be read or encoded: "raise" its error after the results
                before it; "skip" it, with a log entry; "collect" its error in the place of its result.
            show_progress: a progress bar on stderr.

        Yields:
            float32 (n_vectors, dim), one a page; n_vectors may differ between pages.

        Raises:
            ImageError: a page that cannot be read; `index` and `item` name it.
            EncodingError: a page that cannot be encoded.
            ConfigurationError: batch_size or parallel below the allowed.

        Example:
            >>> from colpali_integrations import pdf_pages
            >>> model = ColPali.from_pretrained()
            >>> for vectors in model.embed_images(pdf_pages("report.pdf", pages=[2])):
            ...     print(vectors.ndim, vectors.shape[1], vectors.dtype)
            2 128 float32
            >>> [found] = model.embed_images(["no such file.png"], on_error="collect")
            >>> type(found).__name__, found.index
            ('ImageError', 0)
        """
        decode = self.family.pages.vectors
        return self._encode_images(decode, images, batch_size, parallel, on_error, show_progress)

    @overload
    def embed_pages(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        batch_size: int | None = ...,
        parallel: int | None = ...,
        on_error: Literal["raise", "skip"] = ...,
        show_progress: bool = ...,
    ) -> Generator[PageEmbedding, None, None]: ...

    @overload
    def embed_pages(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        batch_size: int | None = ...,
        parallel: int | None = ...,
        on_error: OnError,
        show_progress: bool = ...,
    ) -> Generator[PageEmbedding | ColPaliError, None, None]: ...

    def embed_pages(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        on_error: OnError = "raise",
        show_progress: bool = False,
    ) -> Generator[PageEmbedding | ColPaliError, None, None]:
        """`embed_images` with the place of every vector on its page, from which `regions` tells where answers are.

        Args:
            images: as for `embed_images`.
            batch_size: as for `embed_images`.
            parallel: as for `embed_images`.
            on_error: as for `embed_images`.
            show_progress: as for `embed_images`.

        Yields:
            `PageEmbedding(vectors, grid)`, one a page; the vectors are those of `embed_images`.

        Raises:
            ImageError: as `embed_images`.
            EncodingError: as `embed_images`.
            ConfigurationError: as `embed_images`.

        Example:
            >>> import numpy as np
            >>> model = ColPali.from_pretrained()
            >>> [page] = model.embed_pages([np.full((64, 64), 255, np.uint8)])
            >>> len(page.vectors) == len(page.grid)
            True
        """
        decode = self.family.pages.embeddings
        return self._encode_images(decode, images, batch_size, parallel, on_error, show_progress)

    def embed_queries(
        self,
        texts: Iterable[str] | str,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Generator[Float32, None, None]:
        """Encode queries, in order. The vision tower does not run.

        Calls from several threads or tasks at the same time share runs: while one runs, the others wait for its end
        and then go together. A call that comes alone runs at once.

        Args:
            texts: one query or any iterable of them.
            batch_size: queries that are looked at together; those of equal length share a run. None for 64.
            parallel: runs at the same time: None for one, shared by the calls that meet; 0 for one a core. Given a
                number, a call has its runs to itself.
            show_progress: a progress bar on stderr.

        Yields:
            float32 (n_vectors, dim), one a query: about 20 to 30 vectors for ColPali.

        Raises:
            QueryError: a query that is empty or not a string; `index` and `item` name it.
            EncodingError: a query that cannot be encoded.

        Example:
            >>> model = ColPali.from_pretrained()
            >>> [short, long] = model.embed_queries(["low tide", "when is the tide low in the old harbour"])
            >>> len(short) < len(long)
            True
        """
        return self._encode_texts(self.family.queries, texts, batch_size, parallel, show_progress, unit="queries")

    def embed_texts(
        self,
        texts: Iterable[str] | str,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Generator[Float32, None, None]:
        """Encode texts that are to be found beside pages, in order. The vision tower does not run.

        ColTiny makes of a text what it would make of a page that prints it, so that texts and pages compare. The other
        families have no encoder of text but that of queries: a text is then cut to a query's length, and its scores
        and those of pages are on different scales. Show them pages where you can.

        Args:
            texts: one text or any iterable of them.
            batch_size: as `embed_queries`.
            parallel: as `embed_queries`.
            show_progress: a progress bar on stderr.

        Yields:
            float32 (n_vectors, dim), one a text.

        Raises:
            QueryError: a text that is empty or not a string; `index` and `item` name it.
            EncodingError: a text that cannot be encoded.

        Example:
            >>> from colpali_integrations import max_sim
            >>> model = ColPali.from_pretrained()
            >>> texts = list(model.embed_texts(["The tower is 324 m tall.", "Bread and butter"]))
            >>> [query] = model.embed_queries("How tall is the tower?")
            >>> int(max_sim(query, texts).argmax())
            0
        """
        return self._encode_texts(self.family.texts, texts, batch_size, parallel, show_progress, unit="texts")

    def _encode_texts(
        self,
        codec: Codec[str],
        texts: Iterable[str] | str,
        batch_size: int | None,
        parallel: int | None,
        show_progress: bool,
        *,
        unit: str,
    ) -> Generator[Float32, None, None]:
        runs = Runs()
        size = _positive(batch_size, _QUERY_BATCH, "batch_size")
        workers = self._workers(parallel)
        run = self._runner(codec, codec.vectors, lambda engine, feed: engine.queries(feed, runs))
        stage: Stage[str, Prepared, Float32] = Stage(
            prepare=lambda text: codec.prepare(check_query(text)),
            key=lambda ready: ready.key,
            run=self._meeting(codec, run, size) if parallel is None else run,
            name=lambda text: repr(text if len(str(text)) <= 60 else f"{text[:57]}..."),
            abort=runs.end,
        )
        source = [texts] if isinstance(texts, str) else texts
        watched = with_progress(source, show_progress, unit)
        results: Iterator[Any] = (
            run_inline(watched, stage, batch_size=size)
            if workers == 1
            else run_in_order(watched, stage, batch_size=size, workers=workers, preparers=1)
        )
        return handle_failures(results, "raise")

    def aembed_images(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        on_error: OnError = "raise",
        show_progress: bool = False,
    ) -> AsyncGenerator[Float32 | ColPaliError, None]:
        """`embed_images` without blocking the event loop: `async for vectors in model.aembed_images(pages)`."""
        return in_thread(
            self.embed_images(
                images, batch_size=batch_size, parallel=parallel, on_error=on_error, show_progress=show_progress
            )
        )

    def aembed_queries(
        self,
        texts: Iterable[str] | str,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> AsyncGenerator[Float32, None]:
        """`embed_queries` without blocking the event loop: `async for vectors in model.aembed_queries(texts)`."""
        return in_thread(
            self.embed_queries(texts, batch_size=batch_size, parallel=parallel, show_progress=show_progress)
        )

    def token_count(self, texts: Iterable[str] | str, *, include_special: bool = True) -> int:
        """Number of tokens of all queries together, after truncation. Loads no session.

        Args:
            texts: one query or any iterable of them.
            include_special: count the prompt's own tokens too, which makes it the number of query vectors.

        Raises:
            QueryError: a query is empty or not a string.

        Example:
            >>> model = ColPali.from_pretrained()
            >>> [query] = model.embed_queries("low tide")
            >>> model.token_count("low tide") == len(query)
            True
        """
        source = [texts] if isinstance(texts, str) else texts
        return sum(self.family.token_count(check_query(text), include_special=include_special) for text in source)

    def query_tokens(self, text: str) -> list[str | None]:
        """What each vector of a query stands for. Loads no session.

        Args:
            text: one query.

        Returns:
            One entry a vector of `embed_queries(text)`, in its order: the piece of the text (a word of ColTiny's, a
            word or a part of one of a tokenizer's), or None for tokens of the prompt, augmentation and white space, and
            for what a query of ColTiny is about as a whole.

        Raises:
            QueryError: the query is empty or not a string.

        Example:
            >>> ColPali.from_pretrained().query_tokens("how tall is the tower")
            ['tall', 'tower', None]
        """
        return self.family.query_tokens(check_query(text))

    def close(self) -> None:
        """Release the weights. The model stays usable: the next call loads them again."""
        for engine in self._sessions:
            engine.close()

    def __enter__(self) -> ColPali:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ColPali({self._description.name!r}, family={self._description.family!r}, dim={self.dim})"

    def _prepare_image(self, source: ImageSource) -> Prepared:
        return self.family.pages.prepare(load_image(source, **self._image_options))

    def _encode_images(
        self,
        decode: Callable[[Outputs, Sequence[Prepared]], list[Encoded]],
        images: Iterable[ImageSource] | ImageSource,
        batch_size: int | None,
        parallel: int | None,
        on_error: OnError,
        show_progress: bool,
    ) -> Generator[Encoded | ColPaliError, None, None]:
        runs = Runs()
        run = self._runner(self.family.pages, decode, lambda engine, feed: engine.pages(feed, runs))
        stage: Stage[Any, Prepared, Encoded] = Stage(
            prepare=self._prepare_image,
            key=lambda ready: ready.key,
            run=_releasing(run),
            name=_source_name,
            abort=runs.end,
        )
        source: Iterable[Any] = [images] if is_one_image(images) else images  # type: ignore[assignment]
        workers = self._workers(parallel)
        default = _IMAGE_BATCH_CPU if self._sessions[0].on_cpu else _IMAGE_BATCH_GPU
        size = _positive(batch_size, default, "batch_size")
        results = run_in_order(
            with_progress(source, show_progress, "pages"),
            stage,
            batch_size=size,
            workers=workers,
            preparers=min(max(available_cores(), 2), 2 * workers),
        )
        return handle_failures(results, on_error)

    def _runner(
        self,
        codec: Codec[Any],
        decode: Callable[[Outputs, Sequence[Prepared]], list[Encoded]],
        run: Callable[[ModelSessions, Feed], Outputs],
    ) -> Callable[[Sequence[Prepared], int], list[Encoded]]:
        def encode(batch: Sequence[Prepared], worker: int) -> list[Encoded]:
            engine = self._sessions[worker % len(self._sessions)]
            found = decode(run(engine, codec.feed(batch)), batch)
            for item in found:
                if not np.isfinite(_vectors(item)).all():
                    raise EncodingError(
                        "the model gave values that are not finite (half precision overflows on some CPUs, "
                        "microsoft/onnxruntime#32600); use another execution provider or a float32 export"
                    )
            return found

        return encode

    def _meeting(
        self, codec: Codec[str], alone: Callable[[Sequence[Prepared], int], list[Float32]], most: int
    ) -> Callable[[Sequence[Prepared], int], list[Float32]]:
        """`alone`, and where calls of several threads meet, one run for all of them."""
        # A run for others too must not end with one caller's.
        together = self._runner(codec, codec.vectors, lambda engine, feed: engine.queries(feed))

        def encode(batch: Sequence[Prepared], worker: int) -> list[Float32]:
            return self._meetings[worker % len(self._sessions)].run(
                (id(codec), batch[0].key),
                batch,
                alone=lambda items: alone(items, worker),
                together=lambda items: together(items, worker),
                most=most,
            )

        return encode

    def _workers(self, parallel: int | None) -> int:
        if parallel is None:
            return len(self._sessions)
        if isinstance(parallel, bool) or parallel < 0:
            raise ConfigurationError(f"parallel must be None, 0 (all cores) or positive, got {parallel}")
        return max(parallel or available_cores(), len(self._sessions))


def describe(
    name_or_path: str | os.PathLike[str], local_dir: str | os.PathLike[str] | None
) -> tuple[ModelDescription, str | os.PathLike[str] | None]:
    """The description of a name or folder, and the folder if there is one."""
    if local_dir is not None:
        return find_model(os.fspath(name_or_path)), local_dir
    folder = Path(name_or_path).expanduser()
    if isinstance(name_or_path, os.PathLike) or folder.is_dir():
        return describe_folder(folder), folder
    return find_model(name_or_path), None


def _releasing(run: Callable[[Sequence[Prepared], int], list[Encoded]]) -> Callable[..., list[Encoded]]:
    def encode(batch: Sequence[Prepared], worker: int) -> list[Encoded]:
        try:
            return run(batch, worker)
        finally:
            release_freed_memory()

    return encode


def _vectors(item: Float32 | PageEmbedding) -> Float32:
    return item.vectors if isinstance(item, PageEmbedding) else item


def _source_name(source: object) -> str:
    # A page of a PDF has a name; that of a Path is not all of it.
    name = None if isinstance(source, os.PathLike) else getattr(source, "name", None)
    return name if isinstance(name, str) and name else image_name(source)


def _positive(value: int | None, default: int, name: str) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} must be at least 1, got {value}")
    return value
