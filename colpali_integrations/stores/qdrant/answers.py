"""Checks of a server's answers: a damaged one raises a StoreError instead of giving a wrong result.

The client checks the fields of an answer, but takes vectors and payloads as they come. A proxy that cuts answers, or a
server with damaged files, may return vectors of other lengths, infinite scores, or points that were not asked for.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from colpali_integrations._options import shown
from colpali_integrations.errors import StoreError
from colpali_integrations.runtime.arrays import Float32

__all__ = ["counted", "counts", "damaged", "following", "paired", "reading", "scored", "vectors"]

_T = TypeVar("_T")
_R = TypeVar("_R")

_MOST_POINTS = 2**63 - 1


def damaged(where: str, what: str) -> StoreError:
    """The error about an answer that is none."""
    return StoreError(
        f"{where}: the server's answer is damaged: {what}. Ask again; if that does not help, look at the log of the "
        "server, and at a proxy before it"
    )


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn the errors that reading a damaged answer meets into a StoreError.

    Args:
        where: the collection and its server, for messages.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise damaged(where, f"{type(error).__name__}: {error}") from error


def counted(count: Any, where: str) -> int:
    """A number of points.

    >>> counted(7, "the collection")
    7
    """
    if not isinstance(count, int) or not 0 <= count <= _MOST_POINTS:
        raise damaged(where, f"it counts {shown(count)} points")
    return count


def counts(values: Mapping[Any, Any], where: str) -> dict[str, int]:
    """The numbers of points by the text that they have in a field.

    >>> counts({"a.pdf": 2}, "the collection")
    {'a.pdf': 2}
    """
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise damaged(where, f"it counts the points of {shown(wrong[0])}, which is no text")
    return {value: counted(count, where) for value, count in values.items()}


def scored(score: Any, where: str) -> float:
    """The score of a point.

    >>> scored(0.5, "the collection")
    0.5
    """
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise damaged(where, f"a point has the score {shown(score)}")
    return score


def vectors(value: Any, dim: int, where: str, *, several: bool = True) -> Float32:
    """The vectors of a point, (n, dim); one vector, (dim,), where a point has one.

    Args:
        value: of the answer.
        dim: numbers per vector.
        where: the collection and its server, for messages.
        several: whether a point has several.

    Raises:
        StoreError: they have another shape, or numbers that are not finite.
    """
    with reading(where):
        array = np.array(value, np.float32)
    if array.ndim != 1 + several or array.shape[-1] != dim or not array.size:
        expected = f"(n, {dim})" if several else f"({dim},)"
        raise damaged(where, f"vectors have the shape {array.shape}, expected {expected}")
    if not np.isfinite(array).all():
        raise damaged(where, "vectors have numbers that are not finite")
    return array


def paired(asked: Sequence[_T], answers: Sequence[_R], where: str) -> Iterable[tuple[_T, _R]]:
    """Each question with its answer.

    Raises:
        StoreError: there are more or fewer answers.
    """
    if len(answers) != len(asked):
        raise damaged(where, f"there are {len(answers)} answers to {len(asked)} questions")
    return zip(asked, answers, strict=True)


def following(before: Any, after: Any, where: str) -> Any:
    """The place at which a listing goes on; a server lists numbers and then UUIDs, each in ascending order.

    Args:
        before: where the batch began; None for the first one.
        after: the next place, by the answer; None at the end.
        where: the collection and its server, for messages.

    Raises:
        StoreError: it does not go on, so that the listing would never end.
    """
    if after is None:
        return None
    with reading(where):
        if before is not None and _order(after) <= _order(before):
            raise damaged(where, f"a listing goes on at {after} after {before}")
    return after


def _order(id_: Any) -> tuple[bool, int]:
    is_number = isinstance(id_, int)
    return not is_number, id_ if is_number else uuid.UUID(str(id_)).int
