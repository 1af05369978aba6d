"""Encoding for `ColPali`: batches, runs of several callers as one, and the check of what the model gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from colpali_integrations._options import checked_several
from colpali_integrations.errors import ConfigurationError, EncodingError, ImageError, QueryError
from colpali_integrations.explain.grid import PageEmbedding
from colpali_integrations.models.family import Codec, Prepared
from colpali_integrations.pages.formats import ImageLimits
from colpali_integrations.pages.images import ImageSource, borrow_image, image_name, is_one_image
from colpali_integrations.runtime.arrays import Float32, Outputs
from colpali_integrations.runtime.machine import available_cores, release_freed_memory
from colpali_integrations.runtime.pipeline import OnError, Stage, checked_batching, run_stage
from colpali_integrations.runtime.runs import Runs
from colpali_integrations.runtime.session import ModelSessions
from colpali_integrations.scoring.pooling import matryoshka

__all__ = ["Encoder", "check_query", "cut", "several_texts"]

# On a CPU a batch of 4 was no faster than 1 and took two and a half times its memory, on a ColPali of a quarter of the
# real width (python -m benchmarks.encode images --batches 1 4). A GPU needs more work per run.
_IMAGE_BATCH_CPU, _IMAGE_BATCH_GPU = 1, 4
_QUERY_BATCH = 64

Encoded = TypeVar("Encoded", Float32, PageEmbedding)


class Encoder:
    """Runs pages and texts through the sessions of a model.

    Args:
        sessions: one per device.
        image_options: keyword arguments for `load_image`.
    """

    def __init__(self, sessions: Sequence[ModelSessions], image_options: dict[str, Any]) -> None:
        self._sessions = list(sessions)
        self._image_options = image_options

    @property
    def image_limits(self) -> ImageLimits:
        """Size and formats of the images that are read."""
        return ImageLimits().override(self._image_options.get("max_pixels"), self._image_options.get("image_formats"))

    def texts(
        self,
        codec: Codec[str],
        texts: Iterable[str] | str,
        batch_size: int | None,
        parallel: int | None,
        show_progress: bool,
        *,
        unit: str,
        decode: Callable[[Outputs, Sequence[Prepared]], list[Float32]] | None = None,
    ) -> Generator[Float32, None, None]:
        """Encode texts; arguments as `ColPali.embed_queries`.

        Args:
            codec: of queries, or of texts that are searched.
            texts: as there.
            batch_size: as there.
            parallel: as there.
            show_progress: as there.
            unit: of the progress bar.
            decode: the method of the codec that makes the results; None for `vectors`.
        """
        decode = decode or codec.vectors
        size, workers = self._batching(batch_size, _QUERY_BATCH, parallel)
        runs = Runs()

        def encode(batch: Sequence[Prepared], worker: int, runs: Runs | None = runs) -> list[Float32]:
            outputs = self._sessions[worker % len(self._sessions)].queries(codec.feed(batch), runs)
            return _finite(decode(outputs, batch))

        def coalesce(batch: Sequence[Prepared], worker: int) -> list[Float32]:
            return self._sessions[worker % len(self._sessions)].coalescer.submit(
                (id(codec), decode.__name__, batch[0].key),
                batch,
                run=lambda items: encode(items, worker),
                # A run for several callers must not end when one of them stops.
                run_batch=lambda items: encode(items, worker, None),
                most=size,
            )

        stage: Stage[str, Prepared, Float32] = Stage(
            prepare=lambda text: codec.prepare(check_query(text)),
            key=lambda ready: ready.key,
            run=coalesce if parallel is None else encode,
            name=lambda text: repr(text if len(str(text)) <= 60 else f"{text[:57]}..."),
            abort=runs.end,
        )
        return run_stage(
            several_texts(texts),
            stage,
            batch_size=size,
            workers=workers,
            preparers=int(workers > 1),
            progress=unit if show_progress else None,
        )

    def images(
        self,
        codec: Codec[Any],
        decode: Callable[[Outputs, Sequence[Prepared]], list[Encoded]],
        images: Iterable[ImageSource] | ImageSource,
        batch_size: int | None,
        parallel: int | None,
        on_error: OnError,
        show_progress: bool,
    ) -> Generator[Encoded, None, None]:
        """Encode pages; arguments as `ColPali.embed_images`.

        Args:
            codec: of pages.
            decode: its method that makes the results.
            images: as there.
            batch_size: as there.
            parallel: as there.
            on_error: as there.
            show_progress: as there.
        """
        if not callable(on_error) and on_error not in ("raise", "skip"):
            raise ConfigurationError(f"on_error must be 'raise', 'skip' or a function of the error, got {on_error!r}")
        default = _IMAGE_BATCH_CPU if self._sessions[0].on_cpu else _IMAGE_BATCH_GPU
        size, workers = self._batching(batch_size, default, parallel)
        expected = "an image (a path, bytes, a PIL image, an array) or several"
        source: Iterable[Any] = [images] if is_one_image(images) else checked_several(images, expected, ImageError)
        return self._encoded_images(codec, decode, source, size, workers, on_error, show_progress)

    def _encoded_images(
        self,
        codec: Codec[Any],
        decode: Callable[[Outputs, Sequence[Prepared]], list[Encoded]],
        source: Iterable[Any],
        size: int,
        workers: int,
        on_error: OnError,
        show_progress: bool,
    ) -> Generator[Encoded, None, None]:
        runs, at_once = Runs(), self._at_once(workers)
        if at_once > 1:
            is_one_batch, source = _is_short(source, size)
            at_once = 1 if is_one_batch else at_once  # a lone run has all cores

        def encode(batch: Sequence[Prepared], worker: int) -> list[Encoded]:
            try:
                sessions = self._sessions[worker % len(self._sessions)]
                outputs = sessions.pages(codec.feed(batch), runs, at_once=at_once)
                return _finite(decode(outputs, batch))
            finally:
                release_freed_memory()

        stage: Stage[Any, Prepared, Encoded] = Stage(
            prepare=lambda source: codec.prepare(borrow_image(source, **self._image_options)),
            key=lambda ready: ready.key,
            run=encode,
            name=image_name,
            abort=runs.end,
        )
        yield from run_stage(
            source,
            stage,
            batch_size=size,
            workers=workers,
            preparers=min(max(available_cores(), 2), 2 * workers),
            on_error=on_error,
            progress="pages" if show_progress else None,
        )

    def _at_once(self, workers: int) -> int:
        """Runs at the same time per device."""
        return max(1, workers // len(self._sessions))

    def _batching(self, batch_size: int | None, default: int, parallel: int | None) -> tuple[int, int]:
        """Items per batch, and batches in flight.

        Raises:
            ConfigurationError: an option has an invalid value.
        """
        batch_size, parallel = checked_batching(batch_size, parallel)
        workers = available_cores() if parallel == 0 else parallel or 1
        return batch_size or default, max(workers, len(self._sessions))


def _is_short(source: Iterable[Any], most: int) -> tuple[bool, Iterable[Any]]:
    """Whether a source has at most so many items, and the same items; an error of the source comes in its place."""
    items, first = iter(source), []
    try:
        for item in itertools.islice(items, most + 1):
            first.append(item)
    except Exception as error:
        return len(first) <= most, itertools.chain(first, _raising(error))
    return len(first) <= most, itertools.chain(first, items)


def _raising(error: Exception) -> Iterator[Any]:
    raise error
    yield


def cut(vectors: Generator[Float32, None, None], dimensions: int | None) -> Generator[Float32, None, None]:
    """Keep the first numbers of unit vectors, scaled to length 1 again (Matryoshka, arXiv:2205.13147)."""
    if dimensions is None:
        return vectors
    return (matryoshka(vector, dimensions) for vector in vectors)


def several_texts(texts: Iterable[str] | str) -> Iterable[str]:
    """One or several texts, to iterate over.

    Raises:
        QueryError: something else.
    """
    return [texts] if isinstance(texts, str) else checked_several(texts, "a text or several", QueryError)


def check_query(text: object) -> str:
    """Return a query that can be encoded.

    Raises:
        QueryError: not a string, empty, only white space, or not encodable as UTF-8.
    """
    if not isinstance(text, str):
        raise QueryError(f"a query must be a str, got {type(text).__name__}")
    if not text.strip():
        raise QueryError(f"a query must contain more than white space, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryError(f"a query must be valid Unicode: {error}") from error
    return text


def _finite(encoded: list[Encoded]) -> list[Encoded]:
    arrays: list[Any] = list(encoded)
    for array in arrays:
        if not np.isfinite(getattr(array, "vectors", array)).all():
            raise EncodingError(
                "the model gave values that are not finite (float16 overflows in some models, and half precision on "
                "some CPUs, microsoft/onnxruntime#32600); pass precision='float32' for a checkpoint, or use another "
                "execution provider or a float32 export"
            )
    return encoded
