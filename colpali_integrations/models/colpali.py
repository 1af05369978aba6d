"""`ColPali`: encode pages and queries to multi-vectors, with any registered model."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from typing import IO, Any, NoReturn, cast

from colpali_integrations._options import unknown_option
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.explain.grid import PageEmbedding
from colpali_integrations.models.builder.quantization import Precision
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.encoding import Encoder, check_query, cut, several_texts
from colpali_integrations.models.family import Codec, DenseCodec, Family, PageCodec, ReadingCodec
from colpali_integrations.models.loading import load_parts
from colpali_integrations.models.opened import Opened
from colpali_integrations.models.options import OPTION_NAMES, WRONG_GUESSES, ModelOptions
from colpali_integrations.models.paper import InkedPages
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.pdf import pages_and_failures
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.pipeline import OnError
from colpali_integrations.runtime.providers import Provider
from colpali_integrations.runtime.session import ModelSessions
from colpali_integrations.runtime.threads import AsyncResults, in_thread

__all__ = ["ColPali"]


class ColPali:
    """A late-interaction model: pages and queries become multi-vectors that `max_sim` compares.

    Make one with `from_pretrained`. It may be shared by any number of threads; all of them use one copy of the
    weights. It is a context manager, and `close()` releases the weights.

    Args:
        family: the model's codecs.
        sessions: its sessions, one per device.
        description: the model's description, also an attribute.
        image_options: keyword arguments for `load_image`.
        opened: how it was opened, for advice in errors, also an attribute; None where it is unknown.

    Example:
        >>> from colpali_integrations import max_sim
        >>> with ColPali.from_pretrained() as model:
        ...     pages = list(model.embed_pdf("report.pdf"))
        ...     query = model.embed_query("diverging palettes")
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
        image_options: dict[str, Any] | None = None,
        opened: Opened | None = None,
    ) -> None:
        self.family, self.description, self.opened = family, description, opened
        self._sessions = list(sessions)
        self._encoder = Encoder(self._sessions, image_options or {})

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
        precision: Precision | None = None,
        max_side: int | None = None,
        max_num_visual_tokens: int | None = None,
        drop_blank: bool = False,
        dim: int | None = None,
        base: str | os.PathLike[str] | None = None,
        allow_unused: Sequence[str] | None = None,
        allow_urls: bool = False,
        allow_private_urls: bool = False,
        url_timeout: float = 10.0,
        url_max_bytes: int = 64 * 2**20,
        max_pixels: int = MAX_PIXELS,
        image_formats: Sequence[str] | None = None,
        api_key_file: str | os.PathLike[str] | None = None,
        **unknown: NoReturn,
    ) -> ColPali:
        """Load a model by its registered name or from a folder, or use the one of a server.

        Args:
            name_or_path: a name of `list_supported_models()`, or a folder whose config.json names the family. A string
                that is both is the name; write "./name" for the folder. Or the URL of a server, "http://localhost:8765",
                which `colpali-integrations serve` has started: it encodes, and of the options only those of images and
                `api_key_file` apply.
            local_dir: a folder with the files of the named model; nothing is downloaded.
            revision: commit, tag or branch on the Hub, instead of the description's.
            cache_dir: instead of huggingface_hub's cache, and for quantized weights.
            local_files_only: never touch the network; HF_HUB_OFFLINE=1 does the same.
            threads: threads inside one run; None for all cores that this process may use.
            providers: ONNX Runtime execution providers, names or (name, options); each must start. None chooses
                CUDA where onnxruntime-gpu is installed and works, otherwise the CPU, and logs which.
            device_ids: GPUs to use, one session each; batches alternate. Implies the CUDA provider unless `providers`
                says otherwise.
            lazy_load: make the sessions at first use. Queries alone then never load the vision tower.
            enable_cpu_mem_arena: let onnxruntime take the memory of a run from an arena, which shrinks after it.
            split_graph: cut a merged export so that queries skip the vision tower.
            precision: how a checkpoint in safetensors computes: "float32"; "int8", faster in a third of the memory;
                "int8-dynamic", faster again on CPUs and less exact; "float16", for GPUs; or "int4", not proven on
                trained weights. None for that of the description, else float16 with the CUDA provider and float32
                elsewhere. `colpali-integrations doctor` measures which is fast on a CPU. Quantized weights are made
                once and kept below `cache_dir`, or in the folder of the environment variable
                COLPALI_INTEGRATIONS_CACHE, or beside huggingface_hub's cache. An ONNX export has the precision of its
                files.
            max_side: the longest edge in pixels to which NeoMME reduces a page; None for that of its files (2048). At
                1440 a page has half as many vectors as at 2048, and takes 44% of the work.
            max_num_visual_tokens: the most tokens that ColQwen2, ColQwen3 and their kin make of a page, of 28 x 28 or
                32 x 32 pixels each; None for the limit of the description, else of the files, 768 in most of ColQwen2.
            drop_blank: leave out the vectors of plain paper: of the cells of a page all of whose pixels have its
                median colour. So a page takes less space and time; what it costs in quality is not measured. ColTiny
                has no such vectors.
            dim: the length of the vectors of a Qwen3-VL checkpoint, where its files do not say it; or a smaller one, to
                which those of Ops-ColQwen3 and ColUltraVBERT may be cut. None for that of the description.
            base: the checkpoint that a LoRA adapter adapts, a folder or a repository; None for the repository that its
                adapter_config.json names.
            allow_unused: beginnings of the names of tensors that a checkpoint holds and retrieval does not need; other
                unread tensors are an error.
            allow_urls: let images be http(s) URLs of public addresses.
            allow_private_urls: with `allow_urls`, also of this machine and private networks.
            url_timeout: seconds for each, with its redirects.
            url_max_bytes: the largest image fetched.
            max_pixels: the most pixels of an image; see `load_image`.
            image_formats: further formats of images, such as "HEIF"; see `load_image`.
            api_key_file: a file with the API key of the server that `name_or_path` names, on one line; None for the
                environment variable COLPALI_API_KEY. With a key the URL is https://, or one of this machine.
            unknown: refused, with a suggestion of the right option.

        Raises:
            ModelNotFoundError: the name is unknown, files are missing and cannot be fetched, or the server cannot be
                reached.
            ModelLoadError: a file is damaged or does not fit the family, or the server has another version.
            ProviderError: a requested provider failed to start.
            ConfigurationError: an option is unknown or has an invalid value, or the server refuses the API key.

        Example:
            >>> model = ColPali.from_pretrained()  # ColTiny, inside the package
            >>> model.embed_query("how tall is the tower").shape[1] == model.dim
            True
        """
        arguments = locals()
        if unknown:
            raise unknown_option("ColPali.from_pretrained", unknown, OPTION_NAMES | {"lazy_load"}, WRONG_GUESSES)
        options = ModelOptions(**{name: arguments[name] for name in OPTION_NAMES})
        return cls(*load_parts(name_or_path, options, lazy_load=lazy_load))

    @property
    def dim(self) -> int:
        """Length of one vector."""
        return self.description.dim

    @property
    def image_limits(self) -> ImageLimits:
        """Size and formats of images, for `index_documents` and others that decode them for this model."""
        return self._encoder.image_limits

    @property
    def splits_graph(self) -> bool:
        """Whether a text query skips the vision tower."""
        return all(sessions.splits for sessions in self._sessions)

    @property
    def reads_print(self) -> bool:
        """Whether it can tell pages of which it recognises little; see `reads_little`."""
        return isinstance(self.family.pages, ReadingCodec)

    def embed_images(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        on_error: OnError = "raise",
        show_progress: bool = False,
    ) -> Generator[Float32, None, None]:
        """Encode pages, in order, one by one.

        Decoding and resizing run ahead in threads. `images` may be a generator (such as `pdf_pages(...)`): it is read
        a bounded number of batches ahead, by the thread that iterates the result.

        Args:
            images: one image or any iterable of them; see `load_image` for what an image may be.
            batch_size: pages per run; None for 1 on a CPU, where more is no faster, and 4 on a GPU.
            parallel: batches in flight, on one copy of the weights. None: one per device; 0: one per core. On a CPU
                they share the cores: each run has cores // parallel threads, or the `threads` of `from_pretrained`, and
                waits until as many cores are free. Two or more encode more pages per second, and the first page takes
                longer. A lone page has all cores, and so has a query: a process that encodes these too has the weights
                in memory twice. Each concurrent run needs memory of its own.
            on_error: how to treat a page that cannot be read or encoded. "raise" its error after the results before
                it; "skip" the page, with a log entry; or a function, which is called with the error (its `index` is
                the page's position) when the page's turn comes. Only good results are yielded.
            show_progress: a progress bar on stderr.

        Yields:
            float32 (n_vectors, dim), one per page; n_vectors may differ between pages.

        Raises:
            ImageError: a page that cannot be read; `index` and `item` name it.
            EncodingError: a page that cannot be encoded.
            ConfigurationError: batch_size, parallel or on_error has an invalid value.

        Example:
            >>> from colpali_integrations import pdf_pages
            >>> model = ColPali.from_pretrained()
            >>> for vectors in model.embed_images(pdf_pages("report.pdf", pages=[2])):
            ...     print(vectors.ndim, vectors.shape[1], vectors.dtype)
            2 128 float32
            >>> errors = []
            >>> list(model.embed_images(["no such file.png"], on_error=errors.append))
            []
            >>> type(errors[0]).__name__, errors[0].index
            ('ImageError', 0)
        """
        codec = self._pages
        return self._encoder.images(codec, codec.vectors, images, batch_size, parallel, on_error, show_progress)

    def embed_images_dense(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        dimensions: int | None = None,
        batch_size: int | None = None,
        parallel: int | None = None,
        on_error: OnError = "raise",
        show_progress: bool = False,
    ) -> Generator[Float32, None, None]:
        """Encode pages as one vector each, by the model's trained dense head (NeoMME).

        The vectors of a page and of a query are compared by their cosine. They rank worse than multi-vectors, and fit
        any vector store.

        Args:
            images: as for `embed_images`.
            dimensions: how many of the first numbers to keep, which are scaled to length 1 again; None for all.
                NeoMME is trained for 128, 256, 512, 1024 (and 1792) of them.
            batch_size: as for `embed_images`.
            parallel: as for `embed_images`.
            on_error: as for `embed_images`.
            show_progress: as for `embed_images`.

        Yields:
            float32 (dimensions,) of unit length, one per page.

        Raises:
            ConfigurationError: the model has no dense head, or fewer dimensions; or as `embed_images`.
            ImageError: as `embed_images`.
            EncodingError: as `embed_images`.
        """
        self.check_dense(dimensions)
        codec = self.family.pages
        decode = cast("DenseCodec[Any]", codec).dense
        vectors = self._encoder.images(codec, decode, images, batch_size, parallel, on_error, show_progress)
        return cut(vectors, dimensions)

    def embed_pages(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        on_error: OnError = "raise",
        show_progress: bool = False,
    ) -> Generator[PageEmbedding, None, None]:
        """`embed_images` with the grid of each page, from which `regions` computes the boxes of an answer.

        Args:
            images: as for `embed_images`.
            batch_size: as for `embed_images`.
            parallel: as for `embed_images`.
            on_error: as for `embed_images`.
            show_progress: as for `embed_images`.

        Yields:
            `PageEmbedding(vectors, grid)`, one per page; the vectors are those of `embed_images`.

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
        codec = self._pages
        return self._encoder.images(codec, codec.embeddings, images, batch_size, parallel, on_error, show_progress)

    def reads_little(self, page: PageEmbedding) -> bool:
        """Whether the model recognised little of the print on a page, such as print in another script.

        Only ColTiny can tell; the result is False for the other models.

        Args:
            page: of `embed_pages`.

        Example:
            >>> from colpali_integrations import pdf_pages
            >>> model = ColPali.from_pretrained()
            >>> [model.reads_little(page) for page in model.embed_pages(pdf_pages("report.pdf"))]
            [False, False]
        """
        codec = self.family.pages
        return isinstance(codec, ReadingCodec) and codec.reads_little(page)

    def embed_pdf(
        self,
        source: str | os.PathLike[str] | bytes | IO[bytes],
        *,
        dpi: float = 150,
        pages: Iterable[int] | None = None,
        password: str | None = None,
        isolate: bool = True,
        batch_size: int | None = None,
        parallel: int | None = None,
        on_error: OnError = "raise",
        show_progress: bool = False,
    ) -> Generator[Float32, None, None]:
        """Encode the pages of a PDF: `embed_images(pdf_pages(source, ...))`, which `on_error` applies to as well.

        Args:
            source: a path, the bytes, or an open binary file.
            dpi: resolution of the rendered pages.
            pages: 1-based numbers, in any order; None for all.
            password: for an encrypted document.
            isolate: False to read a document that you trust in this process, without limits; see `pages.open_pdf`.
            batch_size: as for `embed_images`.
            parallel: as for `embed_images`.
            on_error: as for `embed_images`; a document that cannot be opened always raises.
            show_progress: a progress bar on stderr.

        Yields:
            float32 (n_vectors, dim), one per page. For grids too call `embed_pages(pdf_pages(source, ...))`.

        Raises:
            PdfError: not a PDF, damaged, encrypted without the right password, or without a requested page.
            EncodingError: as `embed_images`.
            ConfigurationError: as `embed_images`.
            MissingExtraError: pypdfium2 is not installed.

        Example:
            >>> pages = list(ColPali.from_pretrained().embed_pdf("report.pdf", pages=[2], dpi=100))
            >>> len(pages), pages[0].shape[1]
            (1, 128)
        """
        images = pages_and_failures(source, dpi=dpi, pages=pages, password=password, isolate=isolate)
        return self.embed_images(
            images, batch_size=batch_size, parallel=parallel, on_error=on_error, show_progress=show_progress
        )

    def embed_query(self, text: str) -> Float32:
        """Encode one query. The vision tower does not run.

        Args:
            text: the query.

        Returns:
            float32 (n_vectors, dim): about 20 to 30 vectors for ColPali.

        Raises:
            QueryError: the query is empty or not a string.
            EncodingError: the query cannot be encoded.

        Example:
            >>> ColPali.from_pretrained().embed_query("low tide").shape
            (3, 128)
        """
        [vectors] = self.embed_queries([text])
        return vectors

    def embed_queries(
        self,
        texts: Iterable[str] | str,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Generator[Float32, None, None]:
        """Encode queries, in order. The vision tower does not run. For one query call `embed_query`.

        Concurrent calls share runs: calls that arrive during a run wait for its end and are then run as one batch. A
        call that finds the model idle runs immediately.

        Args:
            texts: any iterable of queries; a string is one query, and still gives a generator.
            batch_size: queries per batch; queries of equal length share a run. None for 64.
            parallel: runs at the same time. None: one, shared by concurrent calls; 0: one per core. Given a number, a
                call has its runs to itself.
            show_progress: a progress bar on stderr.

        Yields:
            float32 (n_vectors, dim), one per query.

        Raises:
            QueryError: a query that is empty or not a string; `index` and `item` name it.
            EncodingError: a query that cannot be encoded.

        Example:
            >>> model = ColPali.from_pretrained()
            >>> [short, long] = model.embed_queries(["low tide", "when is the tide low in the old harbour"])
            >>> len(short) < len(long)
            True
        """
        return self._encoder.texts(self.family.queries, texts, batch_size, parallel, show_progress, unit="queries")

    def embed_texts(
        self,
        texts: Iterable[str] | str,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Generator[Float32, None, None]:
        """Encode texts that are searched beside pages, in order. The vision tower does not run.

        ColTiny encodes a text as a page that prints it, NeoMME and pplx-embed-v2-late as a document, so that the scores
        of texts and pages are comparable. The other families encode texts as queries: a text is cut to the length of a
        query, and its scores and those of pages are on different scales. Give them pages where you can.

        Args:
            texts: one text or any iterable of them.
            batch_size: as `embed_queries`.
            parallel: as `embed_queries`.
            show_progress: a progress bar on stderr.

        Yields:
            float32 (n_vectors, dim), one per text.

        Raises:
            QueryError: a text that is empty or not a string; `index` and `item` name it.
            EncodingError: a text that cannot be encoded.

        Example:
            >>> from colpali_integrations import max_sim
            >>> model = ColPali.from_pretrained()
            >>> texts = list(model.embed_texts(["The tower is 324 m tall.", "Bread and butter"]))
            >>> int(max_sim(model.embed_query("How tall is the tower?"), texts).argmax())
            0
        """
        return self._encoder.texts(self.family.texts, texts, batch_size, parallel, show_progress, unit="texts")

    def embed_queries_dense(
        self,
        texts: Iterable[str] | str,
        *,
        dimensions: int | None = None,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Generator[Float32, None, None]:
        """Encode queries as one vector each, by the model's trained dense head; see `embed_images_dense`.

        Args:
            texts: as for `embed_queries`.
            dimensions: as for `embed_images_dense`.
            batch_size: as for `embed_queries`.
            parallel: as for `embed_queries`.
            show_progress: as for `embed_queries`.

        Yields:
            float32 (dimensions,) of unit length, one per query.

        Raises:
            ConfigurationError: the model has no dense head, or fewer dimensions.
            QueryError: as `embed_queries`.
            EncodingError: as `embed_queries`.
        """
        return self._encode_dense(self.family.queries, texts, dimensions, batch_size, parallel, show_progress)

    def embed_texts_dense(
        self,
        texts: Iterable[str] | str,
        *,
        dimensions: int | None = None,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Generator[Float32, None, None]:
        """Encode texts that are searched beside pages as one vector each; arguments as `embed_queries_dense`.

        Yields:
            float32 (dimensions,) of unit length, one per text.

        Raises:
            ConfigurationError: as `embed_queries_dense`.
            QueryError: as `embed_texts`.
            EncodingError: as `embed_texts`.
        """
        return self._encode_dense(self.family.texts, texts, dimensions, batch_size, parallel, show_progress)

    def check_dense(self, dimensions: int | None = None) -> None:
        """Refuse a model without a trained dense head, or with fewer dimensions.

        Raises:
            ConfigurationError: it is one.

        Example:
            >>> ColPali.from_pretrained().check_dense()
            Traceback (most recent call last):
            colpali_integrations.errors.ConfigurationError: coltiny has no trained dense head; NeoMME has one. Pool ...
        """
        size = self.description.dense_dim
        if size is None:
            raise ConfigurationError(
                f"{self.description.name} has no trained dense head; NeoMME has one. Pool the multi-vectors instead: "
                "`mean_pool`, or pooling='mean'"
            )
        if dimensions is not None and not 1 <= dimensions <= size:
            raise ConfigurationError(
                f"dimensions must be from 1 to {size} for {self.description.name}, got {dimensions!r}"
            )

    @property
    def _pages(self) -> PageCodec:
        return InkedPages(self.family.pages) if self.description.drop_blank else self.family.pages

    def _encode_dense(
        self,
        codec: Codec[str],
        texts: Iterable[str] | str,
        dimensions: int | None,
        batch_size: int | None,
        parallel: int | None,
        show_progress: bool,
    ) -> Generator[Float32, None, None]:
        self.check_dense(dimensions)
        decode = cast("DenseCodec[str]", codec).dense
        vectors = self._encoder.texts(codec, texts, batch_size, parallel, show_progress, unit="texts", decode=decode)
        return cut(vectors, dimensions)

    def aembed_images(
        self,
        images: Iterable[ImageSource] | ImageSource,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        on_error: OnError = "raise",
        show_progress: bool = False,
    ) -> AsyncResults[Float32]:
        """`embed_images` without blocking the event loop.

        `async for vectors in model.aembed_images(pages)` has one page after the other in memory; `await
        model.aembed_images(pages)` returns a list. The result is a coroutine of that list, so that
        `asyncio.create_task` and `asyncio.gather` take it. As every coroutine it is awaited once; a task may be awaited
        again.
        """
        return in_thread(
            self.embed_images(
                images, batch_size=batch_size, parallel=parallel, on_error=on_error, show_progress=show_progress
            ),
            "pages",
        )

    def aembed_queries(
        self,
        texts: Iterable[str] | str,
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> AsyncResults[Float32]:
        """`embed_queries` without blocking the event loop, by `async for` or by `await`; see `aembed_images`."""
        return in_thread(
            self.embed_queries(texts, batch_size=batch_size, parallel=parallel, show_progress=show_progress), "queries"
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
            >>> model.token_count("low tide") == len(model.embed_query("low tide"))
            True
        """
        several = map(check_query, several_texts(texts))
        return sum(self.family.token_count(text, include_special=include_special) for text in several)

    def query_tokens(self, text: str) -> list[str | None]:
        """The piece of the text that each vector of a query stands for. Loads no session.

        Args:
            text: one query.

        Returns:
            One entry per vector of `embed_query(text)`, in its order: a word (ColTiny) or a token of a word (other
            families); None for the prompt, augmentation and white space, and for ColTiny's vector of the whole query.

        Raises:
            QueryError: the query is empty or not a string.

        Example:
            >>> ColPali.from_pretrained().query_tokens("how tall is the tower")
            ['tall', 'tower', None]
        """
        return self.family.query_tokens(check_query(text))

    def load(self) -> None:
        """Load the weights now instead of at first use; see `lazy_load`.

        Raises:
            ModelError: they cannot be loaded.
            ProviderError: a requested provider failed to start.

        Example:
            >>> ColPali.from_pretrained(lazy_load=True).load()
        """
        for sessions in self._sessions:
            sessions.load()

    def close(self) -> None:
        """Release the weights. The model stays usable: the next call loads them again."""
        for sessions in self._sessions:
            sessions.close()

    def __enter__(self) -> ColPali:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ColPali({self.description.name!r}, family={self.description.family!r}, dim={self.dim})"
