"""What passages and questions are about: near meanings count, words go first, and nothing mixes the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import colpali_integrations
from colpali_integrations import ColPali, max_sim
from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.coltiny.senses import Senses, page_rows, passages, query_row
from colpali_integrations.runtime.arrays import Float32

FOLDER = Path(colpali_integrations.__file__).parent / "models" / "coltiny" / "weights"
SPELT = np.eye(5, dtype=np.float32)[:4]
MEANT = np.array([[0, 0], [0.8, 0.6], [1, 0], [0, 1]], np.float32)
TABLE = Senses(["the", "cash", "money", "river"], SPELT, MEANT)


def test_the_sense_of_a_question_is_the_sum_of_its_words_at_length_one() -> None:
    np.testing.assert_allclose(TABLE.of_words(["money", "xyzzy"]), [[1, 0], [0, 0]])
    np.testing.assert_allclose(TABLE.of_question(["money", "river", "xyzzy"]), [0.5**0.5, 0.5**0.5], rtol=1e-6)
    assert not TABLE.of_question(["xyzzy", "the"]).any()
    assert TABLE.of_question(["money", "xyzzy"]).any()
    assert not TABLE.of_question(["money", "xyzzy", "quux"]).any(), "of a language that is not in the table"
    assert query_row(TABLE.of_question(["the"]), 8, 1.0).shape == (0, 8)
    assert query_row(TABLE.of_question([]), 8, 1.0).shape == (0, 8)


def test_passages_overlap_by_half_and_count_a_word_once() -> None:
    senses = TABLE.of_words(["money", "river", "the"])
    printed = np.array([0, 2] * 20 + [0, 1] * 5)  # 30 words with a sense: passages from 0 and from 10
    np.testing.assert_allclose(passages(senses, printed), [[1, 0], [0.5**0.5, 0.5**0.5]], rtol=1e-6)
    for without_sense in ([], [2] * 50):
        about = passages(senses, np.array(without_sense, np.intp))
        assert about.shape == (0, 2)
        assert page_rows(np.zeros((3, 8), np.float32), about).shape == (4, 8), "the words and the zero vector"


@given(st.integers(0, 400))
def test_every_word_is_in_a_passage_and_those_inside_in_two(count: int) -> None:
    words = np.eye(max(count, 1), dtype=np.float32)
    said = passages(words, np.arange(count)) > 0
    assert (said.sum(axis=1) == min(count, 20)).all()
    often = said.sum(axis=0)
    assert count == 0 or often.min() >= 1
    assert (often[10:-10] >= 2).all()
    assert len(said) == (0 if count == 0 else max(1, -(-count // 10) - 1))


def test_a_page_s_senses_are_those_of_the_words_that_its_vectors_spell() -> None:
    np.testing.assert_allclose(TABLE.of_spellings(SPELT[[2, 3]]), TABLE.of_words(["money", "river"]), rtol=1e-6)
    assert not TABLE.of_spellings(np.eye(5, dtype=np.float32)[4:]).any(), "far from every word"
    between = np.array([[0, 0, 1, 1, 0]], np.float32) / np.float32(2**0.5)
    assert not TABLE.of_spellings(between).any(), "as near to one as to another"
    assert not TABLE.of_spellings(np.zeros((0, 5), np.float32)).any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 600))
def test_the_number_of_vectors_that_are_compared_at_once_changes_nothing(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = SPELT[rng.integers(0, 4, count)] * np.float32(0.9)
    whole = TABLE.of_spellings(vectors)
    words = [TABLE.words[place] for place in vectors.argmax(axis=1)]
    np.testing.assert_allclose(whole, TABLE.of_words(words), atol=1e-5)


def test_a_small_change_of_a_vector_is_a_small_change_of_the_sense() -> None:
    rng = np.random.default_rng(1)
    for turn in np.linspace(0, np.pi / 2, 400, dtype=np.float32):
        one = np.array([[0, np.sin(turn), np.cos(turn), 0, 0], [0, 0, 0, 1, 0]], np.float32)
        moved = one + rng.normal(0, 1e-5, one.shape).astype(np.float32)
        np.testing.assert_allclose(TABLE.of_spellings(moved), TABLE.of_spellings(one), atol=5e-3)


def test_near_meanings_score_by_dot_product_and_words_do_not_interfere() -> None:
    query = query_row(TABLE.of_question(["cash"]), 8, 9.0)
    money = page_rows(np.zeros((0, 8), np.float32), TABLE.of_words(["money"]))[:1]
    np.testing.assert_allclose(query @ money.T, [[1.5 * (0.8 - 0.35 * 0.7)]], rtol=1e-6)
    few = query_row(TABLE.of_question(["cash"]), 8, 1.5)
    np.testing.assert_allclose(few, query * 0.4, rtol=1e-6)
    word = np.zeros((1, 8), np.float32)
    word[0, [0, -1]] = 1.5
    assert (query @ word.T).item() < 0
    assert (np.array([[1, 0, 0, 0, 0, 0, 0, -0.25]], np.float32) @ money.T).item() < 0


def test_the_shipped_table_knows_what_is_near_and_what_is_not() -> None:
    table = Senses.read(FOLDER / "senses.npz")

    def cosine(one: str, other: str) -> float:
        pair: list[Float32] = [table.of_question(text.split()) for text in (one, other)]
        return float(pair[0] @ pair[1])

    for one, near, far in (
        ("money", "cash payment", "river"),
        ("ship boat", "vessel sail", "kernel process"),
        ("doctor hospital", "physician patient", "printer paper"),
    ):
        assert cosine(one, near) > cosine(one, far) + 0.2


def test_a_question_in_other_words_finds_its_page() -> None:
    model = ColPali.from_pretrained("coltiny")
    texts = [
        "The physician examined patients at the clinic and prescribed medicine against fever",
        "The kernel schedules processes and allocates memory for every thread",
        "A vessel left the harbour with sailors and cargo on the ocean",
    ]
    pages = list(model.embed_texts(texts))
    for right, question in enumerate(["doctor hospital illness", "computer operating system", "ships boats sea"]):
        [query] = model.embed_queries(question)
        assert model.query_tokens(question)[-1] is None
        assert len(query) == model.token_count(question) == model.token_count(question, include_special=False) + 1
        assert max_sim(query, pages).argmax() == right


@pytest.mark.parametrize(
    "question",
    [
        "Wo steht, welche Drucker unterstützt werden?",
        "Quelles imprimantes fonctionnent sans aucun réglage ?",
        "¿Qué orden muestra el contenido de los ficheros comprimidos?",
    ],
)
def test_a_question_whose_words_the_table_mostly_lacks_is_its_words_alone(question: str) -> None:
    model = ColPali.from_pretrained("coltiny")
    assert None not in model.query_tokens(question)
    [query] = model.embed_queries(question)
    assert len(query) == len(model.query_tokens(question))


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "senses.npz"
    with pytest.raises(ModelLoadError, match=r"senses\.npz"):
        Senses.read(path)
    np.savez(path, words=np.frombuffer(b"cash\nriver", np.uint8))
    with pytest.raises(ModelLoadError, match=r"senses\.npz.*KeyError"):
        Senses.read(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ModelLoadError, match=r"senses\.npz"):
        Senses.read(path)
