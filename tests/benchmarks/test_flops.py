"""Operations counted from a graph are those that its sizes give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.costs import QUESTION, counted
from benchmarks.flops import count
from colpali_integrations import ColPali
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import attention
from colpali_integrations.models.builder.weights import Checkpoint
from colpali_integrations.models.loading import find_files
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.runtime.graph import Graph
from tests.models.builder.checkpoints import save

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"


def built(folder: Path) -> Graph:
    """A product, attention to all tokens, and another product."""
    weights = {"first.weight": np.ones((24, 16), np.float32), "second.weight": np.ones((5, 8), np.float32)}
    save(folder / "model.safetensors", weights)
    g = GraphBuilder(Checkpoint(folder))
    x = g.input("x", np.float32, ["batch", "tokens", 16])
    q, k, v = g.split(g.product(x, "first.weight"), 3)
    y = attention(g, q, k, v, heads=2, size=4)
    g.output(g.product(y, "second.weight"), "y", ["batch", "tokens", 5])
    return g.build(g.stored)


def test_products_and_attention(tmp_path: Path) -> None:
    found = count(built(tmp_path).model, {"x": (2, 7, 16)})
    assert found == {"FusedMatMul": 2 * 2 * 7 * (16 * 24 + 8 * 5), "MultiHeadAttention": 2 * 2 * 2 * 7 * 7 * 8}


def test_a_shape_that_follows_from_values_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="follows from values"):
        count(built(tmp_path).model, {"x": (2, "unknown", 16)})  # type: ignore[dict-item]


def test_a_page_of_a_checkpoint_is_counted_as_its_layers_say() -> None:
    found = counted(FIXTURES / "colqwen2", {})
    graphs: Any = find_files(FIXTURES / "colqwen2", ModelOptions()).family().graphs
    matrices = [one for one in graphs.text.read().model.graph.initializer if one.external_data and len(one.dims) == 2]
    per_token = sum(math.prod(one.dims) for one in matrices if "embed_tokens" not in one.name)
    patches = 4 * (found.vectors - 13)  # a token of the page has 2 x 2 patches, and 13 tokens are the prompt
    assert found.page["GroupQueryAttention"] == 12 * 4 * found.vectors**2 * 32 // 2
    assert found.page["MultiHeadAttention"] == 12 * 4 * patches**2 * 16
    n = ColPali.from_pretrained(FIXTURES / "colqwen2", lazy_load=True).token_count(QUESTION)
    assert found.question == 2 * n * per_token + 12 * (4 * n**2 * 32 // 2)
    assert found.page["FusedMatMul"] > 2 * found.vectors * per_token
