"""Senses of passages: what they are made of, and that plain MaxSim keeps them apart from words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from colpali_integrations.core.errors import ModelLoadError
from training.sense_rows import Senses, SenseScale, page_rows, query_row, read_words

SCALE = SenseScale()
TABLE = Senses(["the", "cash", "money", "river"], np.array([[0, 0], [0.8, 0.6], [1, 0], [0, 1]], np.float32))


def test_a_passage_is_the_sum_of_its_known_words_at_length_one() -> None:
    sense = TABLE.passage(["money", "river", "xyzzy"])
    np.testing.assert_allclose(sense, [0.5**0.5, 0.5**0.5], rtol=1e-6)
    assert not TABLE.passage(["xyzzy", "the"]).any()
    assert query_row(TABLE.passage(["the"]), 8, SCALE).shape == (0, 8)


def test_near_meanings_score_by_dot_product_and_words_do_not_interfere() -> None:
    query = query_row(TABLE.passage(["cash"]), 8, SCALE)
    places = np.array([[3, 1]], np.int32)
    money = page_rows(np.array([2]), places, TABLE, 8, SCALE)
    floor = SCALE.query_floor * SCALE.page_floor
    np.testing.assert_allclose(query @ money.T, [[SCALE.weight * (0.8 - floor)]], rtol=1e-6)
    word = np.zeros((1, 8), np.float32)
    word[0, [0, -1]] = 1.5
    assert (query @ word.T).item() < 0
    assert (np.array([[1, 0, 0, 0, 0, 0, 0, -0.25]], np.float32) @ money.T).item() < 0


def test_passages_follow_the_lines_of_the_page() -> None:
    places = np.array([[5, 0], [1, 9], [1, 2]], np.int32)
    rows = page_rows(np.array([3, 2, -1]), places, TABLE, 8, SenseScale(passage=2))
    np.testing.assert_allclose(rows[:, 5:7], [[1, 0], [0, 1]])
    assert page_rows(np.array([-1]), places[:1], TABLE, 8, SCALE).shape == (0, 8)


def test_a_vector_is_read_only_when_one_word_is_clearly_nearest() -> None:
    vocabulary = np.eye(3, dtype=np.float32)
    vectors = np.array([[0.9, 0.1, 0], [0.7, 0.7, 0], [0.3, 0, 0]], np.float32)
    assert read_words(vectors, vocabulary, SCALE).tolist() == [0, -1, -1]


def test_a_table_is_read_back_and_another_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "senses.npz"
    words = np.frombuffer(b"cash\nriver", np.uint8)
    np.savez(path, words=words, codes=np.array([[127, 0], [0, 127]], np.int8), scales=np.full(2, 1 / 128, np.float16))
    assert Senses.read(path).words == ("cash", "river")
    np.testing.assert_allclose(Senses.read(path).vectors[1], [0, 127 / 128])
    np.savez(path, words=words)
    with pytest.raises(ModelLoadError, match=r"senses\.npz"):
        Senses.read(path)
