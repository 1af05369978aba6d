"""Whether a model made the vectors of a store: a page that the caller has is encoded and compared with them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from colpali_integrations.errors import FingerprintError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.runtime.arrays import Float32

__all__ = ["ModelCheck", "compare_page"]

# ColTiny's vectors of a page at 60 to 300 dpi have .92 to .98 with those at 150 dpi; those turned to another space .16.
_SAME = 0.8
_SHORT = 1e-3


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """How a page that a model has encoded compares with the vectors that a store has of it.

    Attributes:
        entry: the id of the stored page.
        model: the model's name.
        similarity: the mean over the stored vectors of the best cosine with an encoded one, in [-1, 1]; without those
            of nearly no length.
        stored: number of stored vectors.
        encoded: number of encoded vectors.

    Example:
        >>> check = ModelCheck(entry="7", model="coltiny", similarity=0.99, stored=300, encoded=302)
        >>> check.ok
        True
    """

    entry: str
    model: str
    similarity: float
    stored: int
    encoded: int

    @property
    def ok(self) -> bool:
        """Whether the model can have made the stored vectors: a similarity of at least 0.8."""
        return self.similarity >= _SAME

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        outcome = "fits" if self.ok else "does not fit"
        return (
            f"{self.model} {outcome} the entry {self.entry}: similarity {self.similarity:.3f} of {self.stored} stored "
            f"and {self.encoded} encoded vectors"
        )


def compare_page(entry: str, stored: Float32, image: ImageSource, model: ColPali) -> ModelCheck:
    """Encode a page and compare it with stored vectors; see `MultiVectorStore.check_model`."""
    name = model.description.name
    if model.description.dim != stored.shape[1]:
        raise FingerprintError(
            f"the stored vectors of the entry {entry!r} have {stored.shape[1]} numbers, and those of {name!r} have "
            f"{model.description.dim}; pass the model that made them"
        )
    [encoded] = model.embed_images([image])
    lengths = np.linalg.norm(stored, axis=1)
    directed = stored[lengths >= _SHORT * lengths.max()]  # of the others, rounding has changed the direction
    similarity = (_unit(directed) @ _unit(encoded).T).max(axis=1).mean()
    return ModelCheck(entry=entry, model=name, similarity=float(similarity), stored=len(stored), encoded=len(encoded))


def _unit(vectors: Float32) -> Float32:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)
