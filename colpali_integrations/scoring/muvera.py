"""MUVERA: one long vector per page whose dot product estimates MaxSim (Dhulipala et al. 2024, arXiv 2405.19504).

A first stage for stores of single vectors: rank pages by the dot product of their fixed dimensional encodings, then
rank the best pages again by exact MaxSim. Each of `repetitions` random partitions divides space into 2^k_sim buckets by
the signs of k_sim products with random hyperplanes (SimHash). A query's bucket is the sum of its vectors in it, a
page's bucket the mean of its own, both reduced to d_proj numbers by a random matrix of +-1 / sqrt(d_proj). A page's
empty bucket takes a vector from the nearest bucket that has some, so that every query vector has a counterpart. The
encoding concatenates the buckets of all repetitions; a count sketch may fold it to `final_dim` numbers.
"""

from __future__ import annotations

import math
from hashlib import shake_256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.scoring.maxsim import as_multi_vector

__all__ = ["Muvera"]

_MOST_PLANES = 8  # 256 buckets; the paper stops at 6


class Muvera:
    """Encoder of pages and queries, which must come from encoders with the same arguments.

    Random numbers come from SHAKE-256 of the seed by exact arithmetic, so they are the same on every machine and with
    every version of numpy. Threads can share an encoder.

    Vectors need not be of unit length. Zero vectors are left out: they have no direction that selects a bucket, and
    their products are zero.

    Args:
        dim: length of a vector.
        k_sim: hyperplanes per partition, 0 to 8.
        d_proj: numbers per bucket; with `dim`, vectors are not reduced by a random matrix.
        repetitions: number of partitions.
        final_dim: length of the encoding after a count sketch; None leaves it at repetitions x 2^k_sim x d_proj.
        seed: seed of all random numbers, 0 to 2^64 - 1.

    Raises:
        ConfigurationError: an argument has an invalid value.

    Example:
        >>> muvera = Muvera(128)
        >>> page, query = np.eye(128)[:40], np.eye(128)[:2]
        >>> muvera.size, muvera.document(page).shape
        (10240, (10240,))
        >>> bool(muvera.query(query) @ muvera.document(page) > muvera.query(query) @ muvera.document(page[20:]))
        True
    """

    _has_zeros = False  # whether zero vectors count

    def __init__(
        self,
        dim: int,
        *,
        k_sim: int = 5,
        d_proj: int = 16,
        repetitions: int = 20,
        final_dim: int | None = None,
        seed: int = 42,
    ) -> None:
        if not (dim >= 1 and 0 <= k_sim <= _MOST_PLANES and 1 <= d_proj <= dim and repetitions >= 1):
            raise ConfigurationError(
                f"Muvera: dim and repetitions must be positive, k_sim 0 to {_MOST_PLANES} and d_proj 1 to dim, got "
                f"dim={dim}, k_sim={k_sim}, d_proj={d_proj}, repetitions={repetitions}"
            )
        full = repetitions * 2**k_sim * d_proj
        if final_dim is not None and not 1 <= final_dim <= full:
            raise ConfigurationError(f"Muvera: final_dim must be 1 to {full} (the full length), got {final_dim}")
        if not 0 <= seed < 2**64:
            raise ConfigurationError(f"Muvera: seed must be 0 to 2^64 - 1, got {seed}")
        self.dim, self.k_sim, self.d_proj, self.repetitions = dim, k_sim, d_proj, repetitions
        self.final_dim, self.seed = final_dim, seed
        self._buckets = 2**k_sim
        self._planes, matrix = self._draw()
        self._matrix = matrix if d_proj < dim else None
        # (buckets, buckets): Hamming distances between bucket numbers
        differing = np.bitwise_xor.outer(np.arange(self._buckets), np.arange(self._buckets)).astype(np.uint8)
        self._distance = np.unpackbits(differing[:, :, None], axis=2).sum(axis=2, dtype=np.uint8)
        self._one_hot = np.eye(self._buckets, dtype=np.float32)
        if final_dim is not None:
            hashes = np.frombuffer(_bytes(f"sketch {seed}", 8 * full), "<u8")
            self._sketch_index = (hashes % np.uint64(final_dim)).astype(np.intp)
            self._sketch_sign = _signs(f"sketch signs {seed}", (full,))

    @property
    def size(self) -> int:
        """Length of an encoding."""
        return self.final_dim or self.repetitions * self._buckets * self.d_proj

    @property
    def longest(self) -> float:
        """A length that hardly any page's encoding exceeds, where the page's vectors have length 1.

        A bucket holds a mean, of length 1 at most before the random matrix, which keeps squared lengths on average.
        """
        return math.sqrt(2 * self.repetitions * self._buckets)

    def document(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Encode a page.

        Args:
            vectors: (n_vectors, dim) of floats.

        Returns:
            float32 (size,); zeros for a page of zero vectors.

        Raises:
            InputError: `vectors` is not a multi-vector of `dim`.
        """
        return self._encode(vectors, page=True)

    def query(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Encode a query, divided by the repetitions, so that its product with a page's encoding estimates MaxSim.

        Args:
            vectors: (n_vectors, dim) of floats.

        Returns:
            float32 (size,).

        Raises:
            InputError: `vectors` is not a multi-vector of `dim`.
        """
        encoding = self._encode(vectors, page=False)
        encoding /= self.repetitions
        return encoding

    def _draw(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The hyperplanes (k_sim x repetitions, dim) and the random matrices side by side (dim, repetitions x d_proj).

        Row i repetitions + r is hyperplane i of repetition r.
        """
        planes = _normals(f"planes {self.seed}", (self.k_sim * self.repetitions, self.dim))
        signs = _signs(f"matrices {self.seed}", (self.dim, self.repetitions * self.d_proj))
        return planes, signs / np.float32(math.sqrt(self.d_proj))

    def _encode(self, vectors: NDArray[Any], *, page: bool) -> NDArray[np.float32]:
        rows = as_multi_vector(vectors).astype(np.float32, copy=False)
        if rows.shape[1] != self.dim:
            raise InputError(f"Muvera: expected vectors of dim {self.dim}, got {rows.shape[1]}")
        directed = rows.any(axis=1)
        if not self._has_zeros and not directed.all():
            rows = rows[directed]
        buckets = self._page(rows) if page and len(rows) else self._sums(rows)[0]
        encoding = buckets.reshape(-1)
        if self.final_dim is not None:
            folded = np.bincount(self._sketch_index, encoding * self._sketch_sign, minlength=self.final_dim)
            encoding = folded.astype(np.float32)
        return encoding

    def _page(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Average each bucket and fill the empty ones: (repetitions, buckets, d_proj)."""
        sums, projected, numbers = self._sums(rows)
        # Each repetition's vectors sorted by bucket, in the page's order within a bucket.
        order = np.argsort(numbers, axis=1, kind="stable")
        offsets = np.arange(self.repetitions)[:, None] * self._buckets
        count = np.bincount((numbers + offsets).reshape(-1), minlength=offsets.size * self._buckets)
        count = count.reshape(self.repetitions, self._buckets)
        start = count.cumsum(axis=1) - count
        sums /= np.maximum(count, 1)[:, :, None].astype(np.float32)
        # The paper takes any vector of a nearest bucket; here it is the first vector of the first such bucket.
        repetition, empty = np.nonzero(count == 0)
        away = np.where(count[repetition] > 0, self._distance[empty], np.uint8(255))
        nearest = away.argmin(axis=1)
        sums[repetition, empty] = projected[repetition, order[repetition, start[repetition, nearest]]]
        return sums

    def _sums(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
        """Sum buckets (repetitions, buckets, d_proj); also return the reduced vectors and their bucket numbers."""
        signs = (self._planes @ rows.T > 0).view(np.uint8).reshape(self.k_sim, self.repetitions, len(rows))
        numbers = np.zeros((self.repetitions, len(rows)), np.uint8)
        for plane, sign in enumerate(signs):
            numbers |= sign << np.uint8(plane)
        if self._matrix is None:
            projected = np.broadcast_to(rows, (self.repetitions, *rows.shape))
        else:
            projected = (rows @ self._matrix).reshape(len(rows), self.repetitions, self.d_proj).transpose(1, 0, 2)
        # Membership of vectors in buckets as a matrix: the sums are a matrix product, which numpy computes fastest.
        member = self._one_hot.take(numbers, axis=0).transpose(0, 2, 1)
        return member @ projected, projected, numbers


def _bytes(purpose: str, count: int) -> bytes:
    return shake_256(f"muvera {purpose}".encode()).digest(count)


def _signs(purpose: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw independent +1 and -1."""
    count = math.prod(shape)
    bits = np.unpackbits(np.frombuffer(_bytes(purpose, -(-count // 8)), np.uint8), count=count)
    return (bits.astype(np.float32) * 2 - 1).reshape(shape)


def _normals(purpose: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw nearly normal numbers as sums of eight uniform ones: C libraries round logarithms differently."""
    count = math.prod(shape)
    uniform = np.frombuffer(_bytes(purpose, 16 * count), "<u2").reshape(count, 8)
    centred = uniform.sum(axis=1, dtype=np.int64) * 2 - 8 * 65535
    # The variance of a uniform number of 0 to 65535, doubled and centred, is (65536^2 - 1) / 3.
    normals: NDArray[np.float32] = (centred / math.sqrt(8 * (65536**2 - 1) / 3)).astype(np.float32)
    return normals.reshape(shape)
