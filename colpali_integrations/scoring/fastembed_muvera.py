"""MUVERA as fastembed's `Muvera` computes it, for collections whose vectors it has made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.scoring.muvera import Muvera

__all__ = ["FastembedMuvera"]


class FastembedMuvera(Muvera):
    """The encoder of `fastembed.postprocess.Muvera`, by the names of its arguments.

    Its random numbers are those of `numpy.random.default_rng`, drawn in the same order: the encodings are equal but for
    rounding (fastembed 0.9.1). Both need the same arguments.

    Args:
        dim: length of a vector.
        k_sim: hyperplanes per partition, 0 to 8.
        dim_proj: numbers per bucket.
        r_reps: number of partitions.
        random_seed: seed of all random numbers.

    Raises:
        ConfigurationError: an argument has an invalid value.

    Example:
        >>> muvera = FastembedMuvera(128, k_sim=5, dim_proj=16, r_reps=20, random_seed=42)
        >>> muvera.size, muvera.query(np.eye(128)[:2]).shape
        (10240, (10240,))
    """

    _has_zeros = True

    def __init__(
        self, dim: int, *, k_sim: int = 5, dim_proj: int = 16, r_reps: int = 20, random_seed: int = 42
    ) -> None:
        try:
            super().__init__(dim, k_sim=k_sim, d_proj=dim_proj, repetitions=r_reps, seed=random_seed)
        except ConfigurationError as error:
            names = str(error).replace("d_proj", "dim_proj").replace("repetitions", "r_reps")
            raise ConfigurationError(names.replace("seed", "random_seed")) from error

    def query(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Encode a question; fastembed does not divide it by the repetitions."""
        return self._encode(vectors, page=False)

    def _draw(self) -> tuple[NDArray[Any], NDArray[Any]]:
        random, dim = np.random.default_rng(self.seed), self.dim
        planes = np.stack([random.normal(size=(dim, self.k_sim)) for _ in range(self.repetitions)])
        signs = random.choice([-1, 1], size=(self.repetitions, dim, self.d_proj))
        rows = planes.transpose(2, 0, 1).reshape(self.k_sim * self.repetitions, dim)
        matrix = signs.transpose(1, 0, 2).reshape(dim, -1) / math.sqrt(self.d_proj)
        return np.ascontiguousarray(rows), matrix.astype(np.float32)
