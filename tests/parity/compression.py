"""Goldens of colpali-engine's hierarchical pooling and of its score for unpadded pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from colpali_engine.compression import HierarchicalTokenPooler
from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

from .measures import save

SIZES = (2, 3, 4, 5, 9, 40, 257)
FACTORS = (1, 2, 3, 5, 64)
DIM = 24


def unit_rows(count: int, seed: int) -> np.ndarray:
    """Makes unit rows in a few clusters, some of them equal, as neighbouring patches of a page are.

    Args:
        count: Number of rows.
        seed: Seeds a generator of its own.

    Returns:
        float32 (count, DIM).
    """
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(count // 6, 1), DIM))
    rows = centres[random.integers(len(centres), size=count)] + 0.35 * random.normal(size=(count, DIM))
    if count >= 9:
        rows[count // 2] = rows[1]  # a tie
    unit: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def write(root: Path) -> None:
    """Writes ``compression/golden.npz`` and ``compression/scores.json``.

    Args:
        root: Folder of the fixtures.
    """
    folder = root / "compression"
    folder.mkdir(parents=True, exist_ok=True)
    pooler = HierarchicalTokenPooler()
    arrays: dict[str, np.ndarray] = {}
    for size in SIZES:
        rows = unit_rows(size, size)
        arrays[f"input/{size}"] = rows
        for factor in FACTORS:
            pooled = pooler.pool_embeddings([torch.tensor(rows)], pool_factor=factor)
            arrays[f"pooled/{size}/{factor}"] = pooled[0].numpy()
    save(folder / "golden.npz", arrays)
    scores = {}
    for query in (4, 9):
        for page in SIZES:
            made = BaseVisualRetrieverProcessor.score_multi_vector(
                [torch.tensor(unit_rows(query, 1000 + query))], [torch.tensor(arrays[f"input/{page}"])], device="cpu"
            )
            scores[f"{query}/{page}"] = float(made[0, 0])
    arrays = {f"query/{query}": unit_rows(query, 1000 + query) for query in (4, 9)}
    # One vector against its opposite: alone a page scores below zero, where zero padding would lift it to 0.
    one = unit_rows(2, 7)[:1]
    made = BaseVisualRetrieverProcessor.score_multi_vector([torch.tensor(one)], [torch.tensor(-one)], device="cpu")
    scores["opposite"] = float(made[0, 0])
    arrays["query/opposite"] = one
    save(folder / "queries.npz", arrays)
    (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
