"""Agreement of boxes by area, against a count of cells, and the boxes of ViDoRe v3's format."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.explain.agreement import annotated_boxes, best_agreement, box_agreement
from colpali_integrations.explain.grid import Box

EDGES = st.integers(0, 12)
BOXES = st.lists(
    st.tuples(EDGES, EDGES, EDGES, EDGES).map(
        lambda one: (
            float(min(one[0], one[2])),
            float(min(one[1], one[3])),
            float(max(one[0], one[2])),
            float(max(one[1], one[3])),
        )
    ),
    max_size=5,
)


def cells(boxes: list[Box]) -> set[tuple[int, int]]:
    """The unit squares under boxes with whole numbers."""
    return {
        (x, y)
        for left, top, right, bottom in boxes
        for x in range(int(left), int(right))
        for y in range(int(top), int(bottom))
    }


@given(BOXES, BOXES)
def test_areas_are_those_of_counted_squares(found: list[Box], annotated: list[Box]) -> None:
    ours, theirs = cells(found), cells(annotated)
    agreement = box_agreement(found, annotated)
    assert agreement.precision == pytest.approx(len(ours & theirs) / len(ours) if ours else 0)
    assert agreement.recall == pytest.approx(len(ours & theirs) / len(theirs) if theirs else 0)
    both = len(ours) + len(theirs)
    assert agreement.f1 == pytest.approx(2 * len(ours & theirs) / both if both else 1)
    assert box_agreement(annotated, found).f1 == pytest.approx(agreement.f1)
    thirds: list[list[Box]] = [[(a / 3, b / 3, c / 3, d / 3) for a, b, c, d in boxes] for boxes in (found, annotated)]
    assert box_agreement(*thirds).f1 == pytest.approx(agreement.f1), "the unit does not count"


@given(BOXES.filter(cells), st.integers(1, 3))
def test_the_same_area_agrees_however_it_is_divided(boxes: list[Box], times: int) -> None:
    halves: list[Box] = [
        part
        for left, top, right, bottom in boxes
        for part in ((left, top, (left + right) / 2, bottom), ((left + right) / 2, top, right, bottom))
    ]
    agreement = box_agreement(halves * times, boxes)
    assert (agreement.precision, agreement.recall, agreement.f1) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    "boxes", [[(0, 0, 1)], [(0, 0, 1, math.nan)], [(1, 0, 0, 1)], ["abcd"], [None], [(0, 0, 1, 1), (0, 0, 1)], [3]]
)
def test_what_is_no_box_is_refused(boxes: Any) -> None:
    with pytest.raises(InputError, match="found: expected"):
        box_agreement(boxes, [])
    with pytest.raises(InputError, match="annotated: expected"):
        box_agreement([], boxes)


def test_the_annotator_who_agrees_best_counts() -> None:
    found, other = [(0.0, 0.0, 0.4, 1.0)], [(0.5, 0.0, 1.0, 1.0)]
    assert best_agreement(found, {1: other, 2: [(0.0, 0.0, 0.8, 1.0)]}).f1 == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="no annotator"):
        best_agreement(found, {})


def test_boxes_of_vidore_v3_become_fractions_by_annotator() -> None:
    entries = [
        {"annotator": 1, "x1": 100, "x2": 300, "y1": 0, "y2": 50},
        {"annotator": np.int64(1), "x1": np.int64(0), "x2": 500, "y1": 150, "y2": 200},
        {"annotator": 2, "x1": 10, "x2": 10, "y1": 20, "y2": 20},
    ]
    assert annotated_boxes(entries, 400, 200) == {1: [(0.25, 0.0, 0.75, 0.25), (0.0, 0.75, 1.0, 1.0)]}
    for wrong in ({"x1": 1}, {**entries[0], "x1": "left"}, {**entries[0], "y2": math.inf}, 3):
        with pytest.raises(InputError, match="entry 1"):
            annotated_boxes([entries[0], wrong], 400, 200)  # type: ignore[list-item]
    for side in (-1, "wide", math.nan):
        with pytest.raises(ConfigurationError, match="width must be"):
            annotated_boxes(entries, side, 200)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a width and a height"):
        annotated_boxes(entries, 0, 200)
