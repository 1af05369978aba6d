"""Two rankings become one by the published formula, whatever their scales."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.stores.fusion import fuse, text_weight

IDS = st.sampled_from("abcdefgh")
SEEN = st.dictionaries(IDS, st.floats(-1, 30), min_size=1)


def test_reciprocal_ranks_by_hand() -> None:
    fused = fuse({"a": 0.9, "b": 0.8, "c": 0.1}, {"c": 3.0, "b": 2.0}, weight=None)
    assert fused == pytest.approx({"b": 61 / 62, "c": (61 / 63 + 1) / 2, "a": 1 / 2})
    assert list(fused) == ["c", "b", "a"]


@given(seen=SEEN, data=st.data(), weight=st.none() | st.floats(0, 1))
def test_fused_scores_are_bounded_and_ordered(
    seen: dict[str, float], data: st.DataObject, weight: float | None
) -> None:
    some = st.sampled_from(sorted(seen))
    read = data.draw(st.dictionaries(some, st.floats(0.01, 50)))
    textless = data.draw(st.sets(some)) - read.keys()
    fused = fuse(seen, read, weight=weight, textless=textless)
    assert fused.keys() == seen.keys()
    assert list(fused.values()) == sorted(fused.values(), reverse=True)
    assert all(0 <= score <= 1 + 1e-9 for score in fused.values())
    for one in seen.keys() - textless:
        for other in seen.keys() - textless:
            if seen[one] > seen[other] and read.get(one, 0) > read.get(other, 0):
                assert fused[one] >= fused[other], "better by both is better"
    ranked = list(fused)
    blank = [id_ for id_ in ranked if id_ in textless]
    assert [seen[id_] for id_ in blank] == sorted((seen[id_] for id_ in blank), reverse=True)


@given(seen=SEEN)
def test_without_words_max_sim_decides(seen: dict[str, float]) -> None:
    ranked = sorted(seen, key=lambda id_: (-seen[id_], id_))
    assert list(fuse(seen, {}, weight=None)) == ranked
    assert list(fuse(seen, {}, weight=0.0)) == ranked
    assert list(fuse(seen, {}, weight=0.4)) == ranked


def test_pages_without_text_neither_fall_behind_nor_get_ahead() -> None:
    seen = {"scan": 9.0, "text": 8.0, "other": 4.0}
    for weight in (None, 0.5):
        assert list(fuse(seen, {}, weight=weight, textless=["scan"])) == ["scan", "text", "other"]
        assert next(iter(fuse(seen, {"text": 5.0, "other": 2.5}, weight=weight, textless=["scan"]))) == "scan"
        assert next(iter(fuse(seen, {"text": 5.0, "other": 2.5}, weight=weight))) == "text"


def test_weights() -> None:
    assert text_weight(True) is text_weight("rrf") is None
    assert [text_weight(weight) for weight in (0, 0.25, 1)] == [0.0, 0.25, 1.0]
    for wrong in (False, "sum", -0.1, 1.1, math.nan):
        with pytest.raises(ConfigurationError, match="hybrid"):
            text_weight(wrong)  # type: ignore[arg-type]
