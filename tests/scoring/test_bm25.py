"""BM25 by sparse vectors: against bm25s on the same words, and which words are found by which."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.scoring.bm25 import Bm25, SparseVector, _clean, bm25_scores, has_words

WORDS = [f"w{number}x" for number in range(40)]
DOCUMENT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join)


def shared(bm25: Bm25, query: str, page: str) -> int:
    return len(np.intersect1d(bm25.query(query).indices, bm25.document(page).indices))


@given(documents=st.lists(DOCUMENT, min_size=1, max_size=12), query=DOCUMENT)
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_bm25s_on_the_same_words(documents: list[str], query: str) -> None:
    bm25 = Bm25(language=None, k1=1.5, b=0.6)
    tokens = [bm25.words(text) for text in documents]
    bm25 = Bm25(language=None, k1=1.5, b=0.6, average_length=float(np.mean([len(words) for words in tokens])))
    scores = bm25_scores(bm25.query(query), [bm25.document(text) for text in documents])

    # bm25s counts a query's word once and leaves the constant k1 + 1 out.
    peer = bm25s.BM25(method="lucene", k1=1.5, b=0.6)
    peer.index(tokens, show_progress=False)
    known = {word for words in tokens for word in words}
    asked = [word for word in bm25.words(query) if word in known]
    expected = np.zeros(len(documents)) if not asked else peer.get_scores(asked) * 2.5
    np.testing.assert_allclose(scores, expected, rtol=2e-5, atol=1e-6)


def test_the_example_computed_by_hand() -> None:
    bm25 = Bm25(language=None, k1=1.0, b=0.5, average_length=4)
    pages = [bm25.document("red red fox"), bm25.document("blue"), bm25.document("")]
    # L = 3: norm = 0.5 + 0.5 * 3 / 4 = 0.875; n = 2: 2 * 2 / 2.875; idf = ln(1 + 2.5 / 1.5); asked twice
    expected = 2 * np.log(1 + 2.5 / 1.5) * 4 / 2.875
    np.testing.assert_allclose(bm25_scores(bm25.query("red, red!"), pages), [expected, 0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("fork_exec", "calls fork_exec() twice"),
        ("exec", "calls fork_exec() twice"),
        ("E-1042", "error E-1042: paper jam"),
        ("1042", "error E-1042: paper jam"),
        ("e1042", "error E-1042: paper jam"),
        ("3.14", "pi is 3.14."),
        ("14", "pi is 3.14."),
        ("1,024", "of 1,024 bytes"),
        ("os.path", "import os.path"),
        ("__init__", "def __init__(self)"),
        ("pageCount", "the pageCount of"),
        ("pagecount", "the pageCount of"),
        ("page", "the pageCount of"),
        ("C++", "in C++, not in C#"),
        ("x86-64", "for x86-64 only"),
        ("retrieval", "document retrie-\nval by"),
        ("retrieval", "document retrie-\r\nval by"),
        ("retrieval", "document retrie\ufffe\nval by"),
        ("retrieval", "document retrie\xadval by"),
        ("multivector", "a multi-vector store"),
        ("multi-vector", "a multivector store"),
        ("offices", "the oﬃce"),
        ("Ünïcode", "unicode"),
        ("don't", "we don’t know"),
        ("user", "the user's page"),
        ("東京", "東京都に住む"),
        ("ประเทศไทย", "ในประเทศไทยมี"),
        ("हिन्दी", "यह हिन्दी है"),
        ("школа", "Школа №5"),
    ],
)
def test_a_page_is_found_by(query: str, page: str) -> None:
    bm25 = Bm25()
    assert shared(bm25, query, page) > 0
    assert shared(bm25, query, "entirely other matters") == 0


def test_an_identifier_ranks_the_page_that_has_it_whole_first() -> None:
    bm25 = Bm25()
    pages = ["exec and fork, fork and exec", "see fork_exec for more", "1042 errors, class E", "code E-1042 was seen"]
    vectors = [bm25.document(page) for page in pages]
    assert bm25_scores(bm25.query("fork_exec"), vectors).argmax() == 1
    assert bm25_scores(bm25.query("E-1042"), vectors).argmax() == 3


@pytest.mark.parametrize(
    ("language", "query", "page"),
    [
        ("german", "Häuser", "ein großes Haus"),
        ("german", "Grösse", "die Größe"),
        ("german", "uberblick", "im Überblick"),
        ("french", "été", "l'ÉTÉ indien"),
        ("french", "prévisions", "la prevision"),
        ("french", "eau", "l’eau"),
        ("english", "Überblick", "Der überblick."),
        ("english", "l'année", "une année"),
    ],
)
def test_other_languages(language: str, query: str, page: str) -> None:
    assert shared(Bm25(language=language), query, page) > 0


def test_english_inflections_share_a_stem_and_numbers_stay() -> None:
    bm25 = Bm25()
    assert shared(bm25, "indexing", "it indexes") == 1
    assert shared(Bm25(language=None), "indexing", "it indexes") == 0
    assert bm25.words("v2s E1042s") == ["v2s", "e1042s"]


@given(text=st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_a_sorted_finite_vector_with_values_below_k1_plus_1(text: str) -> None:
    bm25 = Bm25()
    page, query = bm25.document(text), bm25.query(text)
    assert page.indices.dtype == query.indices.dtype == np.uint32
    assert page.values.dtype == query.values.dtype == np.float32
    assert (np.diff(page.indices.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(page.indices, query.indices)
    assert ((page.values > 0) & (page.values < 2.2)).all()
    assert query.values.sum() == len(bm25.words(text))
    # What letters and digits a text has is found by themselves.
    assert len(query) > 0 or not any(character.isalnum() for character in text)


@given(st.one_of(st.text(max_size=3), st.text("•¨´㈱⅓\u0e31\u0302\u00ad_'-.²€\f ", max_size=6)))
@settings(max_examples=400, deadline=None)
def test_a_text_has_words_if_its_vector_has_any(text: str) -> None:
    assert has_words(text) is (len(Bm25().document(text)) > 0)


def test_indices_are_the_same_on_every_machine_and_in_every_version() -> None:
    # python -c "from hashlib import blake2b; print(int.from_bytes(blake2b(b'page', digest_size=4).digest(), 'little'))"
    page = Bm25(language=None).document("page Page seite")
    assert page.indices.tolist() == [2732039421, 3772422609]


def test_no_documents_no_words() -> None:
    bm25 = Bm25()
    assert len(bm25.document("")) == len(bm25.query("?!")) == len(bm25.document("______ ... --")) == 0
    assert bm25_scores(bm25.query("page"), []).shape == (0,)
    assert bm25_scores(bm25.query(""), [bm25.document("page")]).tolist() == [0]
    assert bm25_scores(bm25.query("page"), [bm25.document("")]).tolist() == [0]
    empty = SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))
    assert bm25_scores(empty, [empty, empty]).tolist() == [0, 0]


def test_threads_can_share_an_encoder() -> None:
    texts = [f"stemming{letter}ing of relational{letter}ities and {letter}_{letter}" for letter in "abcdefgh" * 40]
    alone, together = Bm25(), Bm25()
    expected = [alone.document(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(together.document, texts))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.values, other.values)


def test_words_are_cached_in_bounded_number_but_long_words_are_not() -> None:
    bm25 = Bm25()
    bm25.document(f"word word {'long' * 40}")
    cache = bm25._cached_indices.cache_info()
    assert (cache.currsize, cache.hits, cache.maxsize) == (1, 1, 100_000)


@pytest.mark.parametrize(
    "options",
    [{"language": "klingon"}, {"k1": -1}, {"b": 1.5}, {"average_length": 0}, {"k1": float("nan")}],
)
def test_constants_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Bm25(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["1,234,567", "1.234.567", "1'234'567", "12,34,567", "1234567"])
def test_numbers_are_found_with_and_without_separators_of_thousands(written: str) -> None:
    bm25 = Bm25()
    page = bm25.document(f"It cost {written} in 2024.")
    assert bm25_scores(bm25.query("1234567"), [page, bm25.document("nothing")])[0] > 0
    assert bm25_scores(bm25.query(written), [page, bm25.document("nothing")])[0] > 0


@pytest.mark.parametrize(
    "written",
    [
        *("$1,000.00", "1.000,00", "1'000.5", "1,000kg", "1,000-2,000", "500-1,000"),
        *("1\u00a0000", "1\u202f000", "1\u2009000", "1\u00a0000,50", "1\u00a0000.50"),
    ],
)
def test_numbers_with_decimals_units_and_spaces_are_found_by_their_whole_part(written: str) -> None:
    assert "1000" in Bm25().words(f"It cost {written}, then.")
    assert "1000" not in Bm25(tokenizer=1).words(written)


def test_longer_numbers_are_whole() -> None:
    assert Bm25().words("1,234,567.89")[0] == "1234567"
    assert Bm25().words("1\u00a0234\u00a0567")[0] == "1234567"
    assert Bm25().words("12,34,567.89")[0] == "1234567"


@pytest.mark.parametrize(
    "written", ["192.168.1.10", "192.168.1", "1,000,00", "1.0000", "1\u00a0000\u00a00001", "1 000", "1,000_a"]
)
def test_addresses_and_other_groups_are_no_numbers(written: str) -> None:
    assert not {"192168", "1000", "10000001"} & set(Bm25().words(written))


def test_many_groups_take_linear_time() -> None:
    before = time.process_time()
    for separator in ("\u00a0", ",", "."):
        Bm25().document("1" + f"{separator}000" * 50_000 + "1")
    assert time.process_time() - before < 5


def test_numbers_of_other_forms_are_not_joined() -> None:
    bm25 = Bm25()
    assert bm25.words("3.14 1,00 12,345,67 2024-01") == [
        *("3.14", "3", "14", "1,00", "1", "00", "12,345,67", "12", "345", "67", "202401", "2024", "01")
    ]


def test_an_earlier_tokenizer_splits_as_it_did() -> None:
    assert Bm25(tokenizer=1).words("1,000") == ["1,000", "1", "000"]
    assert Bm25().words("1,000") == ["1000", "1,000", "1", "000"]
    with pytest.raises(ConfigurationError, match="tokenizer must be from 1 to 3, got 4"):
        Bm25(tokenizer=4)


@pytest.mark.parametrize("language", ["french", "german", "english", None])
@pytest.mark.parametrize(
    ("written", "meant"),
    [("R´esistances parall`eles", "Résistances parallèles"), ("mˆeme fa¸con", "même façon"), ("Gr¨oße", "Größe")],
)
def test_words_with_accents_apart_are_those_with_accents(language: str | None, written: str, meant: str) -> None:
    assert Bm25(language=language).words(written) == Bm25(language=language).words(meant)
    assert Bm25(language=language, tokenizer=2).words(written) != Bm25(language=language, tokenizer=2).words(meant)


@given(text=st.text(st.characters(exclude_characters="`´ˆ˜¯˘˙¨˚˝ˇ¸"), max_size=80))
@settings(max_examples=200, deadline=None)
def test_text_without_accents_apart_has_the_words_of_the_tokenizer_before(text: str) -> None:
    assert Bm25().words(text) == Bm25(tokenizer=2).words(text)


@given(st.text(st.sampled_from("ab1_-‐ \n\r\t\x85"), max_size=40))
def test_hyphens_at_the_end_of_a_line_join_as_by_the_simple_rule(text: str) -> None:
    assert _clean(text) == re.sub(r"[-‐](?<=[^\W\d_][-‐])\s*\n\s*(?=[^\W\d_])", "-", text)
