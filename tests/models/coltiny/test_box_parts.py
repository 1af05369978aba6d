"""The parts of word boxes give what numpy's own functions give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from colpali_integrations.models.coltiny.word_boxes import _letter_gap, _median, _outside, _run

GREY = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 255))
INKED = arrays(np.bool_, st.integers(0, 30))


@given(GREY)
def test_the_median(grey: NDArray[np.uint8]) -> None:
    assert _median(grey) == np.median(grey)


@given(GREY, st.integers(0, 510), st.integers(0, 255))
def test_ink_is_outside_of_the_range_around_paper(grey: NDArray[np.uint8], twice: int, range_: int) -> None:
    paper, fainter = twice / 2, 0.25 * range_
    wide = grey.astype(np.float64)
    np.testing.assert_array_equal(_outside(grey, paper, fainter), (wide < paper - fainter) | (wide > paper + fainter))


@given(INKED, st.integers(0, 29), st.sampled_from([1, 0.4, 2.7]), st.integers(0, 12))
def test_runs(inked: NDArray[np.bool_], centre: int, gap: float, within: int) -> None:
    found, at = _run(np.flatnonzero(inked).tolist(), centre, gap=gap, within=within), np.flatnonzero(inked)
    if not at.size or np.abs(at - centre).min() > within:
        assert found is None
        return
    assert found is not None
    parts = np.split(at, np.flatnonzero(np.diff(at) > gap + 1) + 1)
    nearest = at[np.abs(at - centre).argmin()]
    assert found == next((part[0], part[-1] + 1) for part in parts if nearest in part)


@given(INKED, st.integers(1, 12))
def test_gaps_between_letters(inked: NDArray[np.bool_], height: int) -> None:
    widths = np.diff(np.flatnonzero(inked)) - 1
    gaps = np.unique(np.append(widths[widths > 0], max(2, round(0.7 * height))))
    below = np.append(0.5, gaps[:-1])
    likely = (gaps > 0.2 * height) & (below < 0.45 * height)
    expected = below[np.argmax(np.where(likely, (gaps + 1) / (below + 1), 0))] if likely.any() else 0.2 * height
    assert _letter_gap(np.flatnonzero(inked), height) == pytest.approx(expected, rel=0, abs=0)
