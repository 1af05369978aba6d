"""The interface of a model family: queries and pages to the inputs of a graph, and its outputs to multi-vectors.

A family is one file or folder beside this one. It holds prompts, token ids and pixels; threads, batch sizes, sessions
and frameworks are not its concern. It has codecs of the same shape for queries, texts and pages:

    str   --prepare--> Prepared --feed--> graph inputs --(ONNX Runtime)--> graph outputs --vectors--> multi-vectors
    Image --prepare--> Prepared --feed--> ...

Items are batched only with items of the same `Prepared.key`, so no codec ever pads: the vectors of an item cannot
depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.explain.grid import PageEmbedding
from colpali_integrations.models.registry import ModelDescription
from colpali_integrations.runtime.arrays import Feed, Float32, GraphFiles, Outputs

__all__ = ["Codec", "Family", "PageCodec", "Prepared"]

Item = TypeVar("Item", contravariant=True)


@dataclass(frozen=True)
class Prepared:
    """One query or page, ready to be batched.

    Attributes:
        key: items with equal keys may share a run of the graph.
        arrays: the item's own part of each graph input, without the batch axis.
        extra: data that the codec needs again in `vectors` (a page's geometry, for instance).
    """

    key: Hashable
    arrays: Feed
    extra: Any = None

    @property
    def ids(self) -> NDArray[np.int64]:
        """Token ids (n_tokens,) as fed to the graph."""
        return self.arrays["input_ids"]

    @property
    def pixels(self) -> Float32:
        """Pixels as fed to the graph, without the batch axis."""
        return self.arrays["pixel_values"]


class Codec(Protocol[Item]):
    """One direction of a family: queries or pages."""

    def prepare(self, item: Item) -> Prepared:
        """Do the CPU work for one item. Called from several threads at once.

        Raises:
            InputError: the item cannot be encoded.
        """
        ...

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """Stack items of equal key into the graph's inputs."""
        ...

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """Cut the graph's outputs into one (n_vectors, dim) float32 array per item, without rows of padding."""
        ...


class PageCodec(Codec[Image.Image], Protocol):
    """The direction of pages, which also gives the grid of a page."""

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each page with its grid."""
        ...


class Family(Protocol):
    """A model family bound to the files of one model.

    Attributes:
        queries: the codec of queries.
        texts: the codec of texts that are searched beside pages; that of queries, where a model has no other.
        pages: the codec of pages.
    """

    queries: Codec[str]
    texts: Codec[str]
    pages: PageCodec

    def __init__(self, description: ModelDescription, directory: Path) -> None:
        """Read the small files (tokenizer, configurations) of `directory`; load no session.

        Raises:
            ModelLoadError: a file is missing or does not fit the family.
        """
        ...

    @property
    def graphs(self) -> GraphFiles:
        """The ONNX files to run."""
        ...

    def token_count(self, text: str, *, include_special: bool = True) -> int:
        """Number of tokens (= query vectors) of a query, after truncation."""
        ...

    def query_tokens(self, text: str) -> list[str | None]:
        """For each query vector the piece of the user's text that it stands for; None for those of the prompt."""
        ...
