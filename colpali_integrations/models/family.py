"""The interface of a model family: queries and pages to the inputs of a graph, and its outputs to multi-vectors.

A new family is one file or one folder beside this one, plus one line in `families.py`; nothing else names it. It holds
prompts, token ids and pixels; threads, batch sizes, sessions and frameworks are not its concern. A family of one
merged transformer graph derives from `transformer.TransformerFamily`. Files beside the graph (tables, adapters) are
read by the family's constructor from the model's folder; `graphs` may return any paths, so a graph that is built
instead of downloaded is written there first.

A family has codecs of the same shape for queries, texts and pages:

    str   --prepare--> Prepared --feed--> graph inputs --(ONNX Runtime)--> graph outputs --vectors--> multi-vectors
    Image --prepare--> Prepared --feed--> ...

Items are batched only with items of the same `Prepared.key`, so no codec ever pads: the vectors of an item cannot
depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.explain.grid import PageEmbedding
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.runtime.arrays import Feed, Float32, Graphs, Outputs

__all__ = ["Codec", "DenseCodec", "Family", "PageCodec", "Prepared", "ReadingCodec", "family_class"]

Item = TypeVar("Item", contravariant=True)


@dataclass(frozen=True)
class Prepared:
    """One query or page, ready to be batched.

    Attributes:
        key: items with equal keys may share a run of the graph.
        arrays: the item's own part of each graph input, without the batch axis.
        extra: data that the codec needs again in `vectors` (a page's geometry, for instance).
        ink: of a page, for `paper.InkedPages`.
    """

    key: Hashable
    arrays: Feed
    extra: Any = None
    ink: Any = None

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

        A text has passed `colpali.check_query` before.
        """

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """Stack items of equal key into the graph's inputs."""

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """Cut the graph's outputs into one (n_vectors, dim) float32 array per item, without rows of padding."""


class PageCodec(Codec[Image.Image], Protocol):
    """The direction of pages, which also gives the grid of a page."""

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each page with its grid."""


@runtime_checkable
class ReadingCodec(PageCodec, Protocol):
    """The direction of pages of a family that reads words, and hence can tell print that it cannot read."""

    def reads_little(self, page: PageEmbedding) -> bool:
        """Whether the page has print of which the family recognised little."""


class DenseCodec(Codec[Item], Protocol[Item]):
    """A codec of a family with a trained dense head, which every run computes too."""

    def dense(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One (dense_dim,) float32 vector of unit length per item."""


class Family(Protocol):
    """A model family bound to the files of one model.

    Attributes:
        queries: the codec of queries.
        texts: the codec of texts that are searched beside pages; that of queries, where a model has no other.
        pages: the codec of pages; a `ReadingCodec` where it can tell pages that it cannot read.

    Each is a `DenseCodec` where the description has a `dense_dim`.
    """

    queries: Codec[str]
    texts: Codec[str]
    pages: PageCodec

    def __init__(self, description: ModelDescription, directory: Path, *, base: Path | None = None) -> None:
        """Read the small files (tokenizer, configurations) of `directory`; load no session.

        Args:
            description: the model.
            directory: the folder of its files.
            base: the folder of the checkpoint that an adapter adapts, with its config.json. A family whose checkpoints
                do not run from safetensors (no `settings` in `families.FAMILIES`) need not take it.

        Raises:
            ModelLoadError: a file is missing or does not fit the family.
        """

    @staticmethod
    def adapt(
        base: ModelDescription, config: Mapping[str, Any], processor: Mapping[str, Any], hints: str
    ) -> ModelDescription:
        """Adapt the description of a registered model to a folder of the family without a description of its own.

        Args:
            base: the description to start from.
            config: the folder's config.json.
            processor: the folder's processor_config.json; empty without one.
            hints: type and class names of all its configuration files, in lower case.
        """

    @property
    def graphs(self) -> Graphs:
        """The ONNX files to run, or the graph or graphs to build."""

    def token_count(self, text: str, *, include_special: bool = True) -> int:
        """Number of tokens (= query vectors) of a query, after truncation."""

    def query_tokens(self, text: str) -> list[str | None]:
        """The piece of the user's text that each query vector stands for; None for tokens of the prompt."""


def family_class(name: str) -> type[Family]:
    """Import the module of a family and return the family's class.

    Args:
        name: a key of `families.FAMILIES`.
    """
    reference = FAMILIES[name]
    module = import_module(f"colpali_integrations.models.{reference.module}")
    return cast("type[Family]", getattr(module, reference.class_name))
