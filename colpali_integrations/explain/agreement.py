"""How well boxes on a page agree with those that people drew: precision, recall and F1 of the area that they cover.

Benchmarks of grounding, such as ViDoRe v3 (arXiv:2601.08620), keep the boxes of each annotator for each pair of a
question and a page. Boxes of one side may overlap, and their number does not count: what is compared is the area under
all boxes of a side.

>>> half, page = (0.0, 0.0, 0.5, 1.0), (0.0, 0.0, 1.0, 1.0)
>>> box_agreement([half], [page])
BoxAgreement(precision=1.0, recall=0.5, f1=0.6666666666666666)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._options import checked_number, shown
from colpali_integrations.errors import InputError
from colpali_integrations.explain.grid import Box

__all__ = ["BoxAgreement", "annotated_boxes", "best_agreement", "box_agreement"]


@dataclass(frozen=True)
class BoxAgreement:
    """Agreement of two sets of boxes by area.

    Attributes:
        precision: share of the found area that is annotated, from 0 to 1; 0 without a found area.
        recall: share of the annotated area that is found, from 0 to 1; 0 without an annotated area.
        f1: harmonic mean of both (Dice's coefficient of the areas); 1 where neither side has an area.

    Example:
        >>> box_agreement([(0.0, 0.0, 0.5, 1.0)], [(0.25, 0.0, 0.5, 1.0)]).precision
        0.5
    """

    precision: float
    recall: float
    f1: float


def box_agreement(found: Iterable[Box], annotated: Iterable[Box]) -> BoxAgreement:
    """Compare the area of the boxes that were found with that of annotated ones.

    Args:
        found: boxes (left, top, right, bottom), such as `Region.box` of `regions`.
        annotated: boxes in the same unit.

    Returns:
        Exact values, whatever the unit; overlaps within a side count once, and empty boxes not at all.

    Raises:
        InputError: a box has other than four finite numbers, or ends before it begins.

    Example:
        >>> word, line = (0.1, 0.1, 0.2, 0.2), (0.1, 0.1, 0.5, 0.2)
        >>> agreement = box_agreement([word, word], [line])
        >>> round(agreement.precision, 6), round(agreement.recall, 6), round(agreement.f1, 6)
        (1.0, 0.25, 0.4)
    """
    ours, theirs = _array(found, "found"), _array(annotated, "annotated")
    edges = np.concatenate([ours, theirs])
    if not len(edges):
        return BoxAgreement(0.0, 0.0, 1.0)
    columns, rows = np.unique(edges[:, [0, 2]]), np.unique(edges[:, [1, 3]])
    areas = np.diff(rows)[:, None] * np.diff(columns)
    mine, given = _covered(ours, columns, rows), _covered(theirs, columns, rows)
    both, of_mine, of_given = (float(areas[mask].sum()) for mask in (mine & given, mine, given))
    if of_mine + of_given == 0:
        return BoxAgreement(0.0, 0.0, 1.0)
    precision, recall = (both / area if area else 0.0 for area in (of_mine, of_given))
    return BoxAgreement(min(precision, 1.0), min(recall, 1.0), min(2 * both / (of_mine + of_given), 1.0))


def best_agreement(found: Iterable[Box], annotators: Mapping[Any, Sequence[Box]]) -> BoxAgreement:
    """The agreement with the annotator who agrees best, by F1, where several people drew boxes.

    Args:
        found: boxes, as for `box_agreement`.
        annotators: the boxes of each, by any key.

    Raises:
        InputError: no annotator, or as `box_agreement`.

    Example:
        >>> left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
        >>> best_agreement([left], {1: [right], 2: [left]}).f1
        1.0
    """
    if not annotators:
        raise InputError("best_agreement: no annotator; pass the boxes of each, such as annotated_boxes(...) makes")
    boxes = list(found)
    return max((box_agreement(boxes, drawn) for drawn in annotators.values()), key=lambda one: one.f1)


def annotated_boxes(entries: Iterable[Mapping[str, Any]], width: float, height: float) -> dict[int, list[Box]]:
    """Read the boxes of a question and a page as ViDoRe v3 has them, in the column `bounding_boxes` of its `qrels`.

    Args:
        entries: `{"annotator": 0, "x1": 120, "y1": 80, "x2": 400, "y2": 160}` each, in pixels of the page's image.
        width: of that image in pixels.
        height: of that image in pixels.

    Returns:
        By annotator, boxes as fractions of the page. A box without an area is left out, as its annotator may have
        clicked once by accident; parts beyond the page are cut off.

    Raises:
        InputError: an entry lacks a key, or has another value than a finite number.
        ConfigurationError: width or height is not a positive number.

    Example:
        >>> annotated_boxes([{"annotator": 7, "x1": 0, "y1": 50, "x2": 100, "y2": 100}], 100, 200)
        {7: [(0.0, 0.25, 1.0, 0.5)]}
    """
    size = np.array([checked_number(width, "width", 0), checked_number(height, "height", 0)] * 2)
    if not size.all():
        raise InputError(f"annotated_boxes: a page has a width and a height, got {shown(width)} x {shown(height)}")
    boxes: dict[int, list[Box]] = defaultdict(list)
    for number, entry in enumerate(entries):
        try:
            edges = np.array([float(entry[key]) for key in ("x1", "y1", "x2", "y2")])
            annotator = int(entry["annotator"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"annotated_boxes: entry {number}: expected annotator, x1, y1, x2 and y2 as numbers, got {shown(entry)}"
            ) from error
        if not np.isfinite(edges).all():
            raise InputError(f"annotated_boxes: entry {number}: expected finite numbers, got {shown(entry)}")
        left, top, right, bottom = np.clip(edges / size, 0, 1).tolist()
        if left < right and top < bottom:
            boxes[annotator].append((left, top, right, bottom))
    return dict(boxes)


def _array(boxes: Iterable[Box], name: str) -> NDArray[np.float64]:
    given = list(boxes)
    try:
        array = np.array(given, np.float64).reshape(len(given), 4)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected boxes (left, top, right, bottom), got {shown(given)}") from error
    if not np.isfinite(array).all() or (array[:, :2] > array[:, 2:]).any():
        raise InputError(f"{name}: expected finite boxes with left <= right and top <= bottom, got {shown(given)}")
    return array


def _covered(boxes: NDArray[np.float64], columns: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which cells between the lines at `columns` and `rows` lie under a box: (n_rows - 1, n_columns - 1)."""
    covered = np.zeros((len(rows) - 1, len(columns) - 1), bool)
    for left, top, right, bottom in boxes:
        first, last = np.searchsorted(rows, (top, bottom))
        covered[first:last, slice(*np.searchsorted(columns, (left, right)))] = True
    return covered
