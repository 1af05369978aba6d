"""How outputs are put down in the goldens, shared by the generator and the tests (numpy only)."""

from __future__ import annotations

import hashlib
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 24
"""How many whole rows of a page's multi-vector are kept; every row is kept in projection."""


def directions(dim: int) -> np.ndarray:
    """Two fixed unit vectors on which every row of a page is projected.

    Args:
        dim: Length of a row.

    Returns:
        float32 (dim, 2).
    """
    position = np.arange(dim, dtype=np.float64)
    waves = np.stack([np.sin(1.7 * position + 0.3), np.cos(0.9 * position * position + 0.1)], axis=1)
    scaled: np.ndarray = (waves / np.linalg.norm(waves, axis=0)).astype(np.float32)
    return scaled


def kept_rows(count: int) -> np.ndarray:
    """Which rows of a page's multi-vector are kept whole.

    Args:
        count: Number of rows of the page.

    Returns:
        Increasing indices: spread evenly, and the last eight.
    """
    spread = np.linspace(0, count - 9, ROWS - 8).round().astype(np.int64)
    return np.unique(np.concatenate([spread, np.arange(count - 8, count)]))


def few_rows(count: int, kept: int = 8) -> np.ndarray:
    """Which rows of a multi-vector are kept whole in float64.

    Args:
        count: Number of rows.
        kept: How many of them.

    Returns:
        Increasing indices, at most `kept`, the first and the last among them.
    """
    return np.unique(np.linspace(0, count - 1, kept).round().astype(np.int64))


def runs(ids: list[int]) -> list[list[int]]:
    """Run-length codes ids.

    Args:
        ids: Token ids.

    Returns:
        Pairs of id and count.
    """
    return [[int(key), len(list(group))] for key, group in groupby(ids)]


def fingerprint(pixels: np.ndarray) -> dict[str, Any]:
    """Describes pixels exactly, and a little of them legibly for when they differ.

    Args:
        pixels: float32, one page.

    Returns:
        Shape, SHA-256 of the bytes in C order, and a few values with their flat positions.
    """
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    positions = np.linspace(0, pixels.size - 1, 8).round().astype(np.int64)
    return {
        "shape": list(pixels.shape),
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "samples": [[int(position), float(pixels.reshape(-1)[position])] for position in positions],
    }


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays to a compressed .npz file.

    Args:
        path: File to write.
        arrays: By name; a name may hold slashes.
    """
    anything: dict[str, Any] = dict(arrays)
    np.savez_compressed(path, **anything)
