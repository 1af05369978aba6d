"""Results of configurations: what each question found, means with intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.evaluation.configurations import Configuration
from colpali_integrations.evaluation.metrics import METRICS, Mean, bootstrap, decimal, rank_of_first
from colpali_integrations.evaluation.targets import Asked

__all__ = ["Outcome", "Result", "Unit", "first_places", "outcome", "require_unit", "results", "signed"]

DECIMALS = 5
"""Of scores, by which pages are ranked."""
Unit: TypeAlias = Literal["questions", "documents"]


@dataclass(frozen=True)
class Outcome:
    """What one configuration found for one question.

    Attributes:
        asked: the question, with its right pages.
        ranking: the best ids with their scores, the best first.
        rank: of the first right page, from 1; None if it is not among those that were compared.
        values: of the metrics, such as "ndcg@5".

    Example:
        >>> from colpali_integrations.evaluation import evaluate
        >>> result = evaluate([{"question": "palettes", "source": "report.pdf", "page": 2}], store="my-index")
        >>> [miss] = result.misses(k=1)
        >>> miss.rank, round(miss.values["ndcg@5"], 2), len(miss.ranking)
        (2, 0.63, 2)
    """

    asked: Asked
    ranking: Sequence[tuple[str, float]]
    rank: int | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """The results of one configuration.

    Attributes:
        configuration: the configuration.
        name: its name in tables.
        means: mean and interval per metric, such as "ndcg@5".
        differences: mean and paired interval per metric, minus the first configuration; empty for the first.
        better: number of questions with a higher value of the first metric than by the first configuration.
        worse: number of questions with a lower one.
        outcomes: per question.

    Example:
        >>> from colpali_integrations.evaluation import evaluate
        >>> questions = [{"question": "palettes", "source": "report.pdf", "page": 1}]
        >>> [plain, blend] = evaluate(questions, store="my-index", configurations=["plain:", "hybrid=0.2"]).results
        >>> blend.name, blend.differences["ndcg@5"].mean, (blend.better, blend.worse)
        ('hybrid=0.2', 0.0, (0, 0))
    """

    configuration: Configuration
    name: str
    means: Mapping[str, Mean]
    differences: Mapping[str, Mean]
    better: int
    worse: int
    outcomes: Sequence[Outcome] = field(repr=False)


def signed(change: Mean) -> str:
    """A difference with its interval.

    >>> signed(Mean(0.1, -0.02, 0.2))
    '+.100 [-.020, +.200]'
    """
    low, high = decimal(change.low, signed=True), decimal(change.high, signed=True)
    return f"{decimal(change.mean, signed=True)} [{low}, {high}]"


def first_places(k: int) -> str:
    """The ranks that count, in words.

    >>> first_places(1), first_places(5)
    ('in first place', 'among the first 5')
    """
    return "in first place" if k == 1 else f"among the first {k}"


def require_unit(over: str) -> None:
    """Refuse another unit of intervals than the known ones."""
    if over not in get_args(Unit):
        raise ConfigurationError(f"over must be 'questions' or 'documents', got {over!r}")


def outcome(asked: Asked, scores: Mapping[str, float], k: Sequence[int], kept: int) -> Outcome:
    """Judge the scores of one question. Of equal scores, the higher id comes first, as in trec_eval.

    Scores are equal up to their fifth decimal: float32 products of equal pages may differ in their last bits, by the
    place of a page among others.

    Args:
        asked: the question.
        scores: by id.
        k: the numbers of pages that count.
        kept: number of ids to keep in the ranking.
    """
    ranked = sorted(scores.items(), key=lambda item: (round(item[1], DECIMALS), item[0]), reverse=True)
    ids = [id_ for id_, _ in ranked]
    values = {f"{name}@{most}": metric(ids, asked.grades, most) for most in k for name, metric in METRICS.items()}
    return Outcome(asked, ranked[:kept], rank_of_first(ids, asked.grades), values)


def results(
    outcomes: Mapping[str, tuple[Configuration, Sequence[Outcome]]],
    *,
    over: Unit,
    resamples: int,
    seed: int,
) -> list[Result]:
    """The results of configurations by name, with their questions' outcomes, the first one as baseline.

    Args:
        outcomes: by the names of the configurations, in the same order of questions.
        over: the unit of the intervals.
        resamples: as of `bootstrap`.
        seed: as of `bootstrap`.
    """
    first = next(iter(outcomes.values()))[1]
    metrics = list(first[0].values)
    groups = [one.asked.document for one in first] if over == "documents" else None
    tables = [[[one.values[name] for name in metrics] for one in some] for _, some in outcomes.values()]
    changes = [_minus(table, tables[0]) for table in tables]
    columns = [[value for part in parts for value in part] for parts in zip(*tables, *changes, strict=True)]
    means = bootstrap(columns, groups=groups, resamples=resamples, seed=seed)
    found = []
    for place, (name, (configuration, some)) in enumerate(outcomes.items()):
        own = means[place * len(metrics) :][: len(metrics)]
        change = means[(len(tables) + place) * len(metrics) :][: len(metrics)] if place else []
        by_first = [row[0] for row in changes[place]]
        found.append(
            Result(
                configuration,
                name,
                dict(zip(metrics, own, strict=True)),
                dict(zip(metrics, change, strict=False)),
                sum(value > _EQUAL for value in by_first),
                sum(value < -_EQUAL for value in by_first),
                some,
            )
        )
    return found


_EQUAL = 1e-9


def _minus(table: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[a - b for a, b in zip(row, base, strict=True)] for row, base in zip(table, other, strict=True)]
