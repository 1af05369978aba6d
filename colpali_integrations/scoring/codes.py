"""Vectors of few bits per number: integers after a rotation, with a scale per vector.

    x = centre + scale x (R^T level)     level: odd integers of `bits` bits; R: a fixed rotation; centre: of the page

A rotation makes the numbers of a vector alike, so one scale suits all of them, and a sign of each tells the direction.
The scale is the one at which the coded vector has the product |x|^2 with x itself: a product with a question is then
neither too high nor too low on average. This is RaBitQ (Gao and Long 2024, arXiv 2405.12497) with its extension to
several bits (Gao et al. 2024, arXiv 2409.09913), and with a Hadamard rotation.

Questions stay floats: they are rotated, and multiplied by the integers. So MaxSim over coded pages is that of the
restored vectors, up to the order of adding.

An entry's rows are bytes::

    head rows    the scale of the entry (float32) and its centre (float16), filled up with zeros
    one row per vector    the integers, and the vector's share of the scale (16 bits)

Bytes hold integers of several parts of a vector: with four bits, the first half of its numbers are in the high halves
of the bytes, and the second half in the low ones. So they are unpacked by a few operations over whole arrays.

The centre is the mean of an entry's vectors, which have much in common. Vectors of zero, by which ColTiny keeps every
best match at 0 or more, are restored exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import InputError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring._blocks import LIMITS, Limits, blocks
from colpali_integrations.scoring._kernels import (
    Buffers,
    between,
    products,
    query_slices,
    run,
    share_out,
    shared_session,
    single_threaded,
)

__all__ = ["VectorCode"]

# The highest share, and the number in its place that stands for a vector of zero.
_SHARE_BYTES, _SHARES, _ZERO = 2, 65534, 65535
_SCALE_BYTES, _LARGEST = 4, 65504.0
# Units of the integers that are tried for a vector, as shares of the one that reaches its largest number.
_UNITS = tuple(float(share) for share in np.linspace(0.4, 1.1, 8))
# The process's sessions by the number of integers per byte.
_KEYS: dict[int, type[np.generic]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
# Numbers that are coded at a time, 16 MB of floats in each of several arrays.
_NUMBERS = 1 << 22


@dataclass(frozen=True)
class VectorCode:
    """A way to write vectors in few bytes.

    Args:
        dim: numbers per vector.
        bits: per number: 1, 2, 4 or 8.

    Example:
        >>> code = VectorCode(4, 4)
        >>> page = np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
        >>> rows = code.encode(page)
        >>> rows.shape, code.decode(rows).tolist()
        ((5, 4), [[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
        >>> code.best_matches(page[:1], [rows], np.array([5])).tolist()
        [[4.0]]
    """

    dim: int
    bits: int

    @property
    def width(self) -> int:
        """Bytes per row."""
        return -(-self.dim * self.bits // 8) + _SHARE_BYTES

    @property
    def head_rows(self) -> int:
        """Rows before those of an entry's vectors."""
        return -(-(_SCALE_BYTES + 2 * self.dim) // self.width)

    def encode(self, vectors: NDArray[Any]) -> NDArray[np.uint8]:
        """Code the vectors (n, dim) of an entry, n > 0: uint8 (head_rows + n, width).

        Raises:
            InputError: a number is not finite.
        """
        floats = np.asarray(vectors, np.float32)
        if not np.isfinite(floats).all():
            raise InputError("vectors: NaN or infinity cannot be coded")
        zero = ~floats.any(axis=1)
        centre = floats[~zero].mean(axis=0, dtype=np.float64) if not zero.all() else np.zeros(self.dim)
        centre = np.clip(centre, -_LARGEST, _LARGEST).astype(np.float16)
        step = max(1, _NUMBERS // self.dim)
        parts = [
            self._fitted(_rotated(floats[first : first + step] - centre.astype(np.float32)))
            for first in range(0, len(floats), step)
        ]
        scales = np.concatenate([scale for _, scale in parts])
        scales[zero] = 0
        largest = scales.max()
        exact = scales.astype(np.float64) * (_SHARES / float(largest) if largest > 0 else 0.0)
        shares = np.rint(exact).astype("<u2")
        shares[zero] = _ZERO
        rows = np.zeros((self.head_rows + len(floats), self.width), np.uint8)
        head = largest.astype("<f4").tobytes() + centre.astype("<f2").tobytes()
        rows[: self.head_rows].reshape(-1)[: len(head)] = np.frombuffer(head, np.uint8)
        rows[self.head_rows :, :-_SHARE_BYTES] = np.concatenate([_packed(units, self.bits) for units, _ in parts])
        rows[self.head_rows :, -_SHARE_BYTES:] = shares.view(np.uint8).reshape(-1, _SHARE_BYTES)
        return rows

    def decode(self, rows: NDArray[np.uint8]) -> Float32:
        """Restore the vectors of an entry, float32 (n, dim), from its rows."""
        scales, centres = self._heads(rows[None, : self.head_rows])
        coded = rows[self.head_rows :]
        units = np.concatenate(self._planes(coded), axis=1)[:, : self.dim]
        levels = units.astype(np.float32) * np.float32(2) - np.float32((1 << self.bits) - 1)
        shares = _shares(coded)
        levels *= (shares * (scales[0] / np.float32(_SHARES)))[:, None]
        restored: Float32 = _restored(levels) + centres[0]
        restored[shares == _ZERO] = 0
        return restored

    def best_matches(
        self,
        queries: Float32,
        runs: Sequence[NDArray[np.uint8]],
        lengths: NDArray[np.int64],
        *,
        threads: int | None = None,
        limits: Limits = LIMITS,
    ) -> NDArray[np.float32]:
        """Compute the highest product of each query vector with a restored vector of each entry.

        Args:
            queries: (n_vectors, dim), at least one.
            runs: (n, width) arrays, each with the rows of one or more whole entries.
            lengths: (n_entries,), the number of rows per entry over all runs, head rows included; each entry has
                a vector.
            threads: blocks in work at the same time; None for one per core that this process may use.
            limits: the sizes of blocks.

        Returns:
            float32 (n_vectors, n_entries).
        """
        limits = limits.for_dim(self.dim)
        floats = np.asarray(queries, np.float32)
        turned = _rotated(floats)
        # Levels are 2 u - top for the integers u from 0 to top.
        excess = np.float32(((1 << self.bits) - 1) / 2) * turned.sum(axis=1, keepdims=True)
        best = np.empty((len(queries), len(lengths)), np.float32)
        ends, run_ends = np.cumsum(lengths), np.cumsum([len(run_) for run_ in runs])
        each = 8 // self.bits
        padded = np.pad(turned, ((0, 0), (0, -self.dim % each)))
        session = shared_session(_KEYS[each], lambda: single_threaded(_graph(each)))
        head = np.arange(self.head_rows)

        def score(block: tuple[int, int], _: Buffers) -> None:
            first, last = block
            begin = int(ends[first] - lengths[first])
            rows = np.concatenate(between(runs, run_ends, begin, int(ends[last - 1])))
            starts = ends[first:last] - lengths[first:last] - begin
            no_vectors = (starts[:, None] + head).reshape(-1)
            scales, centres = self._heads(rows[no_vectors].reshape(last - first, self.head_rows, self.width))
            of_centres = products(floats, centres)
            entries = np.repeat(np.arange(last - first), lengths[first:last])
            shares = _shares(rows)
            zero = np.flatnonzero(shares == _ZERO)
            factors = shares * (scales * np.float32(2 / _SHARES))[entries]
            planes = {f"plane{number}": plane for number, plane in enumerate(self._planes(rows))}
            for part in query_slices(len(queries), len(rows), limits):
                matches = run(session, {"queries": padded[part], **planes})
                matches -= excess[part]
                matches *= factors
                matches[:, zero] = -of_centres[part][:, entries[zero]]  # the sum of both is 0
                matches[:, no_vectors] = -np.inf
                few = np.maximum.reduceat(matches, starts, axis=1)
                best[part, first:last] = few + of_centres[part]

        if best.size:
            share_out(blocks(lengths.tolist(), limits.rows), score, threads=threads)
        return best

    def _fitted(self, turned: Float32) -> tuple[NDArray[np.uint8], Float32]:
        """The integers that point nearest to each vector, as 0 to 2^bits - 1, and the scales."""
        top = (1 << self.bits) - 1
        peaks = np.abs(turned).max(axis=1, keepdims=True) / np.float32(top)
        nearest = np.full(len(turned), -np.inf, np.float32)
        levels = np.ones_like(turned)
        for share in _UNITS if self.bits > 1 else (1.0,):
            unit = np.where(peaks > 0, np.float32(2 * share) * peaks, np.float32(1))
            tried = np.clip(2 * np.floor(turned / unit) + 1, -top, top).astype(np.float32)
            cosine = (turned * tried).sum(axis=1) / np.linalg.norm(tried, axis=1)
            better = cosine > nearest
            nearest = np.where(better, cosine, nearest)
            levels = np.where(better[:, None], tried, levels)
        along = (turned * levels).sum(axis=1, dtype=np.float64)
        lengths = (turned.astype(np.float64) ** 2).sum(axis=1)
        scales = np.divide(lengths, along, out=np.zeros(len(turned)), where=along > 0)
        return ((levels + top) / 2).astype(np.uint8), scales.astype(np.float32)

    def _planes(self, rows: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """The integers of rows, as 0 to 2^bits - 1, by the parts of a vector: (n, bytes of integers per row) each."""
        packed = np.ascontiguousarray(rows[:, :-_SHARE_BYTES])
        mask = np.uint8((1 << self.bits) - 1)
        return [packed >> np.uint8(shift) & mask for shift in range(8 - self.bits, -1, -self.bits)]

    def _heads(self, heads: NDArray[np.uint8]) -> tuple[Float32, Float32]:
        """The scales (n,) and centres (n, dim) in head rows (n, head_rows, width)."""
        flat = np.ascontiguousarray(heads).reshape(len(heads), -1)
        scales = np.ascontiguousarray(flat[:, :_SCALE_BYTES]).view("<f4")[:, 0].astype(np.float32)
        centres = np.ascontiguousarray(flat[:, _SCALE_BYTES : _SCALE_BYTES + 2 * self.dim]).view("<f2")
        return scales, centres.astype(np.float32)


def _shares(rows: NDArray[np.uint8]) -> Float32:
    return np.ascontiguousarray(rows[:, -_SHARE_BYTES:]).view("<u2")[:, 0].astype(np.float32)


def _packed(units: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Several integers per byte: the first part of a vector in the highest bits; the last part is filled with zeros."""
    each = 8 // bits
    width = -(-units.shape[1] // each)
    packed = np.zeros((len(units), width), np.uint8)
    for number in range(each):
        part = units[:, number * width : (number + 1) * width]
        packed[:, : part.shape[1]] |= part << np.uint8(8 - bits * (number + 1))
    return packed


@cache
def _signs(dim: int) -> Float32:
    """A sign per number: the lowest bit of splitmix64 of its place."""
    mixed = (np.arange(dim, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray(np.where(mixed & np.uint64(1), -1, 1), np.float32)


def _rotated(rows: Float32) -> Float32:
    """Rows times the rotation: signs, then Hadamard transforms of the first and the last numbers, of a power of two.

    Both cover all numbers; where dim is a power of two, they are the same, and there is one.
    """
    turned: Float32 = rows * _signs(rows.shape[1])
    size = 1 << (turned.shape[1].bit_length() - 1)
    _transform(turned[:, :size])
    if size < turned.shape[1]:
        _transform(turned[:, -size:])
    return turned


def _restored(turned: Float32) -> Float32:
    """The inverse of `_rotated`, which may change its argument."""
    size = 1 << (turned.shape[1].bit_length() - 1)
    if size < turned.shape[1]:
        _transform(turned[:, -size:])
    _transform(turned[:, :size])
    restored: Float32 = turned * _signs(turned.shape[1])
    return restored


def _transform(rows: Float32) -> None:
    """Hadamard's transform of rows (n, size) in place, scaled to keep lengths; it is its own inverse."""
    size, half = rows.shape[1], 1
    work = rows.copy()
    while half < size:
        pairs = work.reshape(len(rows), -1, 2, half)
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        total = left + right
        np.subtract(left, right, out=right)
        left[:] = total
        half *= 2
    np.multiply(work, np.float32(size**-0.5), out=rows)


def _graph(each: int) -> Any:
    """Make the graph of questions by the `each` parts of pages."""
    from onnx import parser

    names = [f"plane{number}" for number in range(each)]
    inputs = ", ".join(f"uint8[n, width] {name}" for name in names)
    return parser.parse_graph(
        f"max_sim_codes (float[m, dim] queries, {inputs}) => (float[m, n] products) {{"
        f"units = Concat <axis = 1> ({', '.join(names)}) floats = Cast <to = 1> (units) "
        "products = Gemm <transB = 1> (queries, floats)}"
    )
