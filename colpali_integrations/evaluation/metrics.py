"""Quality of a ranking against graded pages, and bootstrap intervals of means over questions.

| metric | value for one question |
|---|---|
| `ndcg` | discounted grades of the first k over those of the best order (Jarvelin and Kekalainen 2002) |
| `recall` | share of the right pages that are among the first k |
| `mrr` | 1 over the rank of the first right page among the first k, else 0 |
| `hit` | 1 if a right page is among the first k, else 0 |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from colpali_integrations._options import checked_number, checked_whole
from colpali_integrations.errors import InputError

__all__ = ["METRICS", "Mean", "bootstrap", "decimal", "hit", "mrr", "ndcg", "rank_of_first", "recall"]

Grades = Mapping[str, float]
Float64 = NDArray[np.float64]


def ndcg(ranking: Sequence[str], grades: Grades, k: int) -> float:
    """Normalised discounted cumulative gain of the first `k` ids.

    Args:
        ranking: ids, the best first.
        grades: the gain per right id; ids without one, or with 0, gain nothing.
        k: how many ids count.

    Returns:
        A number in [0, 1]; 0 without a right id.

    Example:
        >>> round(ndcg(["b", "a"], {"a": 1}, 5), 4)  # 1 / log2(3)
        0.6309
    """
    gain = sum(grades.get(id_, 0.0) / math.log2(place + 2) for place, id_ in enumerate(ranking[:k]))
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k]
    ideal = sum(grade / math.log2(place + 2) for place, grade in enumerate(best))
    return gain / ideal if ideal else 0.0


def recall(ranking: Sequence[str], grades: Grades, k: int) -> float:
    """The share of the right ids that are among the first `k`.

    Args:
        ranking: ids, the best first.
        grades: a positive number per right id.
        k: how many ids count.

    Example:
        >>> recall(["b", "a"], {"a": 1, "c": 1}, 2)
        0.5
    """
    right = {id_ for id_, grade in grades.items() if grade > 0}
    return len(right.intersection(ranking[:k])) / len(right) if right else 0.0


def rank_of_first(ranking: Sequence[str], grades: Grades) -> int | None:
    """The rank, from 1, of the first right id; None if there is none.

    >>> rank_of_first(["b", "a"], {"a": 1}), rank_of_first(["b"], {"a": 1})
    (2, None)
    """
    return next((place for place, id_ in enumerate(ranking, 1) if grades.get(id_, 0.0) > 0), None)


def mrr(ranking: Sequence[str], grades: Grades, k: int) -> float:
    """1 over the rank of the first right id among the first `k`, else 0.

    Args:
        ranking: ids, the best first.
        grades: a positive number per right id.
        k: how many ids count.

    Example:
        >>> mrr(["b", "a"], {"a": 1}, 5), mrr(["b", "a"], {"a": 1}, 1)
        (0.5, 0.0)
    """
    rank = rank_of_first(ranking[:k], grades)
    return 0.0 if rank is None else 1 / rank


def hit(ranking: Sequence[str], grades: Grades, k: int) -> float:
    """1 if a right id is among the first `k`, else 0.

    Args:
        ranking: ids, the best first.
        grades: a positive number per right id.
        k: how many ids count.

    Example:
        >>> hit(["b", "a"], {"a": 1}, 2), hit(["b", "a"], {"a": 1}, 1)
        (1.0, 0.0)
    """
    return float(rank_of_first(ranking[:k], grades) is not None)


METRICS: Mapping[str, Callable[[Sequence[str], Grades, int], float]] = MappingProxyType(
    {"ndcg": ndcg, "recall": recall, "mrr": mrr, "hit": hit}
)
"""The metrics by name."""


class Mean(NamedTuple):
    """A mean with its bootstrap interval.

    Attributes:
        mean: the mean.
        low: the lower end of the interval.
        high: the upper end of the interval.

    Example:
        >>> print(Mean(0.5, 0.4, 0.6))
        .500 [.400, .600]
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """The numbers with three decimals."""
        return f"{decimal(self.mean)} [{decimal(self.low)}, {decimal(self.high)}]"


def decimal(value: float, *, signed: bool = False) -> str:
    """A number with three decimals, without the 0 before the point.

    >>> decimal(0.5), decimal(-0.0001), decimal(0.25, signed=True), decimal(1)
    ('.500', '.000', '+.250', '1.000')
    """
    rounded = round(value, 3) or 0.0
    sign = "-" if rounded < 0 else "+" if signed and rounded > 0 else ""
    return sign + f"{abs(rounded):.3f}".removeprefix("0")


def bootstrap(
    values: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 4000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Mean]:
    """Means of columns of values with percentile bootstrap intervals, by the same draws for all columns.

    The mean difference of two systems over the same questions is the mean of the column of their differences; so its
    interval is paired. With `groups`, whole groups are drawn: questions about one document are alike, and an interval
    over single questions would be too narrow for other documents.

    Args:
        values: (n, m): a row per question, a column per quantity.
        groups: the group of each row, such as its document; None draws rows.
        resamples: number of draws.
        seed: of the draws.
        confidence: of the interval, between 0 and 1.

    Returns:
        One `Mean` per column.

    Raises:
        InputError: there is no row, or `groups` has another length.
        ConfigurationError: `resamples` or `confidence` has an invalid value.

    Example:
        >>> [mean] = bootstrap([[0.0], [1.0]], seed=1)
        >>> tuple(mean)
        (0.5, 0.0, 1.0)
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or not len(table):
        raise InputError(f"bootstrap: expected values (n, m) with n > 0, got shape {table.shape}")
    if groups is not None and len(groups) != len(table):
        raise InputError(f"bootstrap: {len(table)} rows but {len(groups)} groups; pass one group per row")
    tail = (1 - checked_number(confidence, "confidence", 0, 1)) / 2
    sums, sizes = _grouped(table, groups)
    means = _drawn_means(sums, sizes, checked_whole(resamples, "resamples"), seed)
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return [Mean(*map(float, one)) for one in zip(table.mean(axis=0), low, high, strict=True)]


def _grouped(table: Float64, groups: Sequence[Hashable] | None) -> tuple[Float64, Float64]:
    """The sums of the rows of each group (g, m), and the numbers of rows (g,)."""
    if groups is None:
        return table, np.ones(len(table))
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    index = [places[group] for group in groups]
    sums = np.zeros((len(places), table.shape[1]))
    np.add.at(sums, index, table)
    return sums, np.bincount(index, minlength=len(places)).astype(np.float64)


def _drawn_means(sums: Float64, sizes: Float64, resamples: int, seed: int) -> Float64:
    """The means (resamples, m) of the rows in as many groups as there are, drawn with replacement."""
    random, count = np.random.default_rng(seed), len(sums)
    drawn: Any = random.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    means: Float64 = (drawn @ sums) / (drawn @ sizes)[:, None]
    return means
