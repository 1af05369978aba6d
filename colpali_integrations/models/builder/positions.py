"""What an attention layer needs to know about places, computed in numpy and fed to the graph.

Angles of rotary embeddings and plans of windows are inputs of a graph, not parts of it: one graph then serves texts,
pages of every shape and every rule of numbering, and the rules can be tested without a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.runtime.arrays import Float32

__all__ = [
    *("Angles", "Taps", "WindowPlan", "angles", "frequencies", "group_plan", "interleaved_axes", "merged_order"),
    *("mrope_positions", "sectioned_axes", "table_taps", "window_plan"),
]

# Added to a score that must not count. The largest float32 would overflow when a score is added to it.
_BLOCKED = np.float32(-3e38)
# Shorter blocks than this are too small for the matrix products of attention to be fast.
_SHORTEST_BLOCK = 64


class Angles(NamedTuple):
    """Rotary angles of the tokens of a sequence.

    Attributes:
        cos: float32 (n_tokens, n_frequencies).
        sin: float32 (n_tokens, n_frequencies).
    """

    cos: Float32
    sin: Float32


def frequencies(theta: float, size: int) -> Float32:
    """Angles per step of the pairs of a head (RoPE, arXiv:2104.09864): ``theta ** (-2 i / size)``.

    Args:
        theta: the base.
        size: how many numbers of a head are rotated, two per frequency.

    Returns:
        float32 (size // 2,), rounded as the reference rounds: the exponent, the power and its inverse to float32 each.

    Example:
        >>> frequencies(10_000.0, 8).tolist()
        [1.0, 0.10000000149011612, 0.009999999776482582, 0.0010000000474974513]
    """
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    steps: Float32 = np.float32(1) / np.power(np.float32(theta), exponents)
    return steps


def angles(positions: NDArray[np.integer], steps: Float32) -> Angles:
    """Turn positions into angles.

    Args:
        positions: (n_tokens, n_frequencies), the position that each frequency counts, or (n_tokens, 1).
        steps: float32 (n_frequencies,), from `frequencies`.
    """
    turned = positions.astype(np.float32) * steps
    return Angles(np.cos(turned), np.sin(turned))


class Taps(NamedTuple):
    """Rows of a table of learned positions that each patch interpolates between.

    Attributes:
        rows: int64 (n_patches, 4), rows of the table.
        shares: float32 (n_patches, 4), which add up to 1 per patch.
    """

    rows: NDArray[np.int64]
    shares: Float32


class WindowPlan(NamedTuple):
    """Which tokens attend to which: blocks of queries, each with its own keys.

    Attributes:
        queries: int64 (n_blocks, block), the tokens of each block; the last block repeats the last token to its length.
        keys: int64 (n_blocks, n_keys), the tokens that a block's queries may attend to.
        bias: float32 (batch * n_blocks, 1, folded * block, n_keys), 0 or a number that removes a key from a softmax.
        back: int64 (n_tokens,), the place of each token among the flattened blocks.
    """

    queries: NDArray[np.int64]
    keys: NDArray[np.int64]
    bias: Float32
    back: NDArray[np.int64]


def window_plan(n_tokens: int, reach: int, *, batch: int = 1, folded: int = 1) -> WindowPlan:
    """Plan attention to the tokens at most `reach` away.

    A sequence is cut into blocks of about half of `reach`, so that attention costs ``n_tokens * (block + 2 reach)``
    instead of ``n_tokens ** 2``. It stays one block where that saves less than a third.

    Args:
        n_tokens: length of the sequence.
        reach: the farthest distance, in tokens, on either side.
        batch: sequences per run; the bias is repeated for each.
        folded: rows of scores per query, as of `layers.folded_window_attention`; those of the bias are repeated.

    Example:
        >>> plan = window_plan(1000, reach=100)
        >>> plan.queries.shape, plan.keys.shape
        ((16, 63), (16, 263))
        >>> bool((plan.bias[3, 0, 0] == 0)[plan.keys[3] == plan.queries[3, 0] + 100].all())
        True
    """
    n_blocks = max(1, round(n_tokens / max(_SHORTEST_BLOCK, reach // 2)))
    block = -(-n_tokens // n_blocks)
    if block + 2 * reach > n_tokens * 2 / 3:
        n_blocks, block = 1, n_tokens
    n_keys = n_tokens if n_blocks == 1 else min(block + 2 * reach, n_tokens)
    starts = np.arange(n_blocks)[:, None] * block
    rows = starts + np.arange(block)
    keys = np.clip(starts - reach, 0, n_tokens - n_keys) + np.arange(n_keys)
    far = np.abs(rows[:, :, None] - keys[:, None, :]) > reach
    # A softmax of nothing is not a number; the rows after the last token are not read, but must be numbers.
    far &= (rows < n_tokens)[:, :, None]
    bias = np.where(far, _BLOCKED, np.float32(0))[:, None]
    if folded > 1:
        bias = np.repeat(bias, folded, axis=2)
    return WindowPlan(
        queries=np.minimum(rows, n_tokens - 1),
        keys=keys,
        bias=bias if batch == 1 else np.tile(bias, (batch, 1, 1, 1)),
        back=np.arange(n_tokens),
    )


def group_plan(groups: NDArray[np.integer], *, batch: int = 1) -> WindowPlan:
    """Plan attention within groups of tokens, such as the square windows of a page.

    Every group is a block. The smaller ones repeat their last token to the length of the largest; the bias removes it.

    Args:
        groups: integers (n_tokens,); tokens with equal numbers attend to each other.
        batch: sequences per run; the bias is repeated for each.

    Example:
        >>> plan = group_plan(np.array([7, 3, 7, 7]))
        >>> plan.queries.tolist(), plan.back.tolist()
        ([[1, 1, 1], [0, 2, 3]], [3, 0, 4, 5])
    """
    order = np.argsort(groups, kind="stable")
    _, counts = np.unique(groups, return_counts=True)
    starts = np.cumsum(counts) - counts
    inside = np.arange(counts.max())
    present = inside < counts[:, None]
    tokens = order[starts[:, None] + np.minimum(inside, counts[:, None] - 1)]
    bias = np.where(present, np.float32(0), _BLOCKED)[:, None, None, :]
    back = np.empty(len(groups), np.int64)
    back[tokens[present]] = np.flatnonzero(present)
    return WindowPlan(
        queries=tokens,
        keys=tokens,
        bias=np.tile(np.broadcast_to(bias, (*bias.shape[:2], *bias.shape[3:] * 2)), (batch, 1, 1, 1)),
        back=back,
    )


def merged_order(rows: int, columns: int, merge: int) -> NDArray[np.int64]:
    """Row and column of each patch of a page, where the patches that merge into one token stand together.

    Args:
        rows: rows of merged tokens.
        columns: columns of merged tokens.
        merge: patches per token along each edge.

    Returns:
        int64 (rows * columns * merge ** 2, 2).

    Example:
        >>> merged_order(1, 2, 2).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    """
    grid = np.indices((rows * merge, columns * merge)).reshape(2, rows, merge, columns, merge)
    order: NDArray[np.int64] = grid.transpose(1, 3, 2, 4, 0).reshape(-1, 2)
    return order


def mrope_positions(n_tokens: int, *, first: int = 0, rows: int = 0, columns: int = 0) -> NDArray[np.int64]:
    """Positions of M-RoPE (Qwen2-VL, arXiv:2409.12191): time, row and column of each token.

    The tokens of a text count up on all three axes. Those of an image have the time of its first token, and its rows
    and columns count from there; the text behind it goes on after the longer of them. (transformers `get_rope_index`.)

    Args:
        n_tokens: length of the sequence.
        first: the place of the image's first token.
        rows: rows of the image, in tokens; 0 for a text without one.
        columns: columns of the image, in tokens.

    Returns:
        int64 (3, n_tokens).

    Example: two tokens, an image of 1 x 3 tokens, and one token more.
        >>> mrope_positions(6, first=2, rows=1, columns=3).tolist()
        [[0, 1, 2, 2, 2, 5], [0, 1, 2, 2, 2, 5], [0, 1, 2, 3, 4, 5]]
    """
    places = np.tile(np.arange(n_tokens), (3, 1))
    end = first + rows * columns
    places[0, first:end] = first
    places[1:, first:end] = first + np.indices((rows, columns)).reshape(2, -1)
    places[:, end:] += max(rows, columns) - rows * columns
    return places


def sectioned_axes(sections: Sequence[int]) -> tuple[int, ...]:
    """The axis of M-RoPE that each frequency of Qwen2-VL counts: sections of them in a row.

    Args:
        sections: numbers of frequencies for time, row and column, from `mrope_section`.

    Example:
        >>> sectioned_axes([1, 2, 2])
        (0, 1, 1, 2, 2)
    """
    return tuple((np.repeat(np.arange(len(sections)), sections) % 3).tolist())


def interleaved_axes(sections: Sequence[int]) -> tuple[int, ...]:
    """The axis of M-RoPE that each frequency of Qwen3-VL counts: time, row and column in turn.

    What is left when rows and columns have as many frequencies as their sections say counts time.
    (Qwen3-VL, arXiv:2511.21631, section 2; transformers `Qwen3VLTextRotaryEmbedding.recomposition_frequencies`.)

    Args:
        sections: as for `sectioned_axes`.

    Example:
        >>> interleaved_axes([3, 2, 1])
        (0, 1, 2, 0, 1, 0)
    """
    axes = np.zeros(sum(sections), np.int64)
    for axis in (1, 2):
        axes[axis : 3 * sections[axis] : 3] = axis
    return tuple(axes.tolist())


def table_taps(rows: int, columns: int, merge: int, side: int) -> Taps:
    """Stretch a square table of learned positions over the patches of a page, corners on corners, bilinearly.

    (transformers `get_vision_interpolation_indices_and_weights` with aligned corners.)

    Args:
        rows: rows of merged tokens.
        columns: columns of merged tokens.
        merge: patches per token along each edge.
        side: edge of the table.

    Returns:
        Per patch in `merged_order`: its upper left, upper right, lower left and lower right row of the table.

    Example: the middle one of three rows of patches lies between the first and the second row of a table of 2 x 2.
        >>> taps = table_taps(3, 1, 1, 2)
        >>> taps.rows[1].tolist(), taps.shares[1].tolist()
        ([0, 1, 2, 3], [0.5, 0.0, 0.5, 0.0])
    """
    order = merged_order(rows, columns, merge)
    (row, row_share), (column, column_share) = (
        _axis_taps(order[:, axis], length * merge, side) for axis, length in enumerate((rows, columns))
    )
    return Taps(
        (row[:, :, None] * side + column[:, None, :]).reshape(-1, 4),
        (row_share[:, :, None] * column_share[:, None, :]).reshape(-1, 4),
    )


def _axis_taps(places: NDArray[np.int64], length: int, side: int) -> tuple[NDArray[np.int64], Float32]:
    """Two neighbours in a table's axis, and their shares, for places on an axis of `length`; (n, 2) each."""
    source = places.astype(np.float32) * np.float32(side - 1) / np.float32(max(length - 1, 1))
    low = np.floor(source)
    taps = np.stack([low, low + 1], axis=1).astype(np.int64).clip(0, side - 1)
    distances = np.abs((source - low)[:, None] - np.arange(2, dtype=np.float32))
    return taps, 1 - distances
