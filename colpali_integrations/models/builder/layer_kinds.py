"""Encoders whose layers attend to a window or to all tokens, each kind with its own rotary angles.

ModernBERT (arXiv:2412.13663) and UltraBERT (transformers 5.24 `UltrabertModel`) are such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import (
    AngleInputs,
    PlanInputs,
    angle_feed,
    angle_inputs,
    attention,
    plan_feed,
    plan_inputs,
    rotary,
    window_attention,
)
from colpali_integrations.models.builder.positions import angles, frequencies, window_plan
from colpali_integrations.runtime.arrays import Feed

__all__ = ["FULL", "LOCAL", "KindInputs", "LayerKinds"]

FULL, LOCAL = "full_attention", "sliding_attention"
"""The kinds of layers, as config.json names them."""


class KindInputs(NamedTuple):
    """The graph inputs of a `LayerKinds`.

    Attributes:
        ids: int64 (batch, tokens).
        positions: int64 (batch, tokens).
        turns: the angles of each kind.
        plan: the windows; None where no layer has one.
    """

    ids: str
    positions: str
    turns: Mapping[str, AngleInputs]
    plan: PlanInputs | None


class LayerKinds:
    """The kind of each layer, with its inputs and its attention.

    Args:
        kinds: `FULL` or `LOCAL` for each layer.
        thetas: base of the rotary frequencies of each kind.
        reach: how many tokens on either side a `LOCAL` layer attends to.
        heads: number of heads.
        size: numbers of a head.

    Attributes:
        kinds: as given.

    Raises:
        ModelLoadError: a layer is of another kind.
    """

    def __init__(self, kinds: Sequence[str], thetas: Mapping[str, float], *, reach: int, heads: int, size: int) -> None:
        if unknown := sorted(set(kinds) - {FULL, LOCAL}):
            raise ModelLoadError(f"config.json: layer_types has {unknown[0]!r}; supported are {FULL!r} and {LOCAL!r}")
        self.kinds = tuple(kinds)
        self._reach, self._heads, self._size = reach, heads, size
        self._steps = {kind: frequencies(thetas[kind], size) for kind in dict.fromkeys(kinds)}

    def feed(self, ids: NDArray[np.int64]) -> Feed:
        """The arrays of `inputs` for sequences that count their tokens, int64 (batch, n_tokens)."""
        batch, n_tokens = ids.shape
        places = np.arange(n_tokens)
        feed: Feed = {"input_ids": ids, "position_ids": np.broadcast_to(places, ids.shape)}
        for kind, steps in self._steps.items():
            feed |= angle_feed(kind, angles(places[:, None], steps))
        if LOCAL in self._steps:
            feed |= plan_feed("window", window_plan(n_tokens, self._reach, batch=batch))
        return feed

    def inputs(self, g: GraphBuilder) -> KindInputs:
        """Declare ids, positions, angles and windows."""
        ids, positions = (g.input(name, np.int64, ["batch", "tokens"]) for name in ("input_ids", "position_ids"))
        turns = {kind: angle_inputs(g, kind, self._size // 2) for kind in self._steps}
        return KindInputs(ids, positions, turns, plan_inputs(g, "window") if LOCAL in self._steps else None)

    def turn(self, g: GraphBuilder, x: str, kind: str, inputs: KindInputs, *, heads: int) -> str:
        """Rotate the heads of queries or keys by the angles of a kind."""
        return rotary(g, x, inputs.turns[kind], inputs.positions, heads=heads, rotated=self._size, size=self._size)

    def attend(self, g: GraphBuilder, q: str, k: str, v: str, kind: str, inputs: KindInputs) -> str:
        """Attention of a layer of a kind, over (batch, tokens, heads * size) each, queries and keys turned."""
        if kind == FULL or inputs.plan is None:
            return attention(g, q, k, v, heads=self._heads, size=self._size)
        return window_attention(g, q, k, v, inputs.plan, heads=self._heads, size=self._size)
