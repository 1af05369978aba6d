"""Points in requests: the numbers that arrive, and the bytes that they take."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from colpali_integrations.scoring.bm25 import Bm25
from colpali_integrations.stores.engine import FIRST, FULL, WORDS, Point
from colpali_integrations.stores.qdrant.sending import point_json, point_message, point_size, point_struct

EVERY = np.arange(65536, dtype=np.uint16).view(np.float16)
EVERY = EVERY[np.isfinite(EVERY)]
PAYLOAD = {"id": "1", "text": 'é "東京" \\ \n' * 9, "metadata": {"page": 3, "ratio": 0.1, "open": True, "none": None}}


def as_read(point: models.PointStruct) -> models.PointStruct:
    return models.PointStruct.model_validate_json(point.model_dump_json())


def test_every_float16_survives_the_wire_and_the_size_is_a_bound() -> None:
    vectors: dict[str, NDArray[Any]] = {FULL: EVERY.reshape(-1, 8), "single": EVERY[:512].astype(np.float32)}
    point = Point("1", vectors, None, PAYLOAD)
    sent = point_json(point, {FULL})
    read = models.PointStruct.model_validate_json(sent)
    assert isinstance(read.vector, dict)
    # As the server reads it: decimals to float32, then to float16.
    kept = np.array(read.vector[FULL], np.float32).astype(np.float16)
    np.testing.assert_array_equal(kept.ravel().view(np.uint16), EVERY.view(np.uint16))
    np.testing.assert_array_equal(np.array(read.vector["single"], np.float32), point.vectors["single"])
    assert read.payload == PAYLOAD
    assert len(sent) <= point_size(point, {FULL})


def test_decimals_have_the_digits_that_tell_a_number_from_its_neighbours() -> None:
    point = Point("1", {FULL: np.array([[0.5, -0.1, 0.0883, 2048]], np.float16)}, None, {})
    assert json.loads(point_json(point, {FULL}))["vector"] == {FULL: [[0.5, -0.1, 0.0883, 2048.0]]}
    assert b"[[0.5,-0.1,0.0883,2" in point_json(point, {FULL})


@given(
    full=arrays(
        np.float16,
        st.tuples(st.integers(1, 5), st.sampled_from([1, 8, 31, 32, 200])),
        elements=st.floats(-8, 8, width=16),
    ),
    single=arrays(np.float32, st.integers(1, 300), elements=st.floats(-8, 8, width=32)),
    text=st.text(max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_both_transports_send_what_the_client_would(full: NDArray[Any], single: NDArray[Any], text: str) -> None:
    words = Bm25().document(text)
    vectors = {FULL: full, FIRST: full[:1].astype(np.float32), "single": single}
    point = Point("ü", vectors, words if len(words) else None, {**PAYLOAD, "note": "a" + text.replace("\x00", "")})
    half = {FULL, FIRST}
    expected = point_struct(point, half)
    assert point_message(point, half) == RestToGrpc.convert_point_struct(expected)
    read = models.PointStruct.model_validate_json(point_json(point, half))
    assert isinstance(read.vector, dict)
    for name, kind in ((FULL, np.float16), (FIRST, np.float16), ("single", np.float32)):
        sent = np.array(read.vector.pop(name), np.float32).astype(kind)
        np.testing.assert_array_equal(sent, vectors[name].astype(kind))
        del expected.vector[name]  # type: ignore[union-attr, arg-type]
    assert read == as_read(expected)


def test_points_without_vectors_or_with_words_alone() -> None:
    words = Bm25().document("low tide")
    for point in (Point("1", {}, None, {}), Point("1", {}, words, {"id": "1"})):
        expected = point_struct(point, ())
        assert models.PointStruct.model_validate_json(point_json(point, ())) == as_read(expected)
        assert point_message(point, ()) == RestToGrpc.convert_point_struct(expected)
        assert isinstance(expected.vector, dict) and expected.vector.keys() <= {WORDS}


def test_half_of_a_surrogate_pair_is_an_error() -> None:
    with pytest.raises(UnicodeEncodeError):
        point_json(Point("1", {}, None, {"id": "\ud800"}), ())
