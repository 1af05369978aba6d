"""One vector per query, text and page, for frameworks and stores that hold single vectors."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any, Literal, TypeAlias

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.pooling import single_vector

__all__ = ["Pooling", "SingleVectors"]

Pooling: TypeAlias = Literal["dense", "mean"]
"""How a single vector comes about: by the model's trained dense head, or as the mean of its multi-vector."""


class SingleVectors:
    """A model as an encoder to single vectors of unit length, as lists of Python floats.

    Args:
        model: the model.
        pooling: "dense" or "mean"; None for "dense" where the model has a trained dense head, else "mean".
        dimensions: numbers of a dense vector; None for all.

    Attributes:
        pooling: which of the two.

    Raises:
        ConfigurationError: the model has no dense head, or not that many dimensions.
    """

    def __init__(self, model: ColPali, pooling: Pooling | None = None, dimensions: int | None = None) -> None:
        self._model = model
        self.pooling: Pooling = pooling or ("dense" if model.description.dense_dim else "mean")
        self._dimensions = dimensions
        if self.pooling == "dense":
            model.check_dense(dimensions)
        elif dimensions is not None:
            raise ConfigurationError(
                f"dimensions={dimensions} is for dense vectors, whose first numbers are trained to stand alone; the "
                f"mean of {model.description.name}'s vectors cannot be cut"
            )

    @property
    def namespace(self) -> str:
        """A short identifier of these vectors, for caches."""
        cut = "" if self._dimensions is None else f"-{self._dimensions}"
        return f"{self._model.description.fingerprint.key}-{self.pooling}{cut}"

    def query(self, text: str) -> list[float]:
        """Encode one query."""
        return next(self.queries([text]))

    def queries(self, texts: Iterable[str], **options: Any) -> Iterator[list[float]]:
        """Encode queries; options are those of `ColPali.embed_queries`."""
        if self.pooling == "dense":
            return _lists(self._model.embed_queries_dense(texts, dimensions=self._dimensions, **options))
        return map(single_vector, self._model.embed_queries(texts, **options))

    def texts(self, texts: Iterable[str], **options: Any) -> Iterator[list[float]]:
        """Encode texts to be found; options are those of `ColPali.embed_texts`.

        By "mean" they are encoded as queries: the mean of ColTiny's vectors of a text as a page lies far from the mean
        of a query's. (Of 16 questions about 16 sentences 14 found theirs first by it, and all 16 by this.)
        """
        if self.pooling == "dense":
            return _lists(self._model.embed_texts_dense(texts, dimensions=self._dimensions, **options))
        return self.queries(texts, **options)

    def images(self, images: Iterable[Any], **options: Any) -> Generator[list[float], None, None]:
        """Encode pages; options are those of `ColPali.embed_images`."""
        if self.pooling == "dense":
            yield from _lists(self._model.embed_images_dense(images, dimensions=self._dimensions, **options))
        else:
            yield from map(single_vector, self._model.embed_images(images, **options))


def _lists(vectors: Iterable[Float32]) -> Iterator[list[float]]:
    return (vector.tolist() for vector in vectors)
