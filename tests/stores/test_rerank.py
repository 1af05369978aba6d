"""Candidates get the scores of a store's pages, and only content that is new is encoded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, ImageError, InputError, QueryError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.rerank import Candidate, CandidateScorer
from colpali_integrations.stores.store import MultiVectorStore
from tests.stores.stored_models import made_up

WORDS = ["apples", "bananas", "railway"]


def draw(line: str) -> Image.Image:
    page = Image.new("RGB", (700, 300), "white")
    ImageDraw.Draw(page).text((40, 40), line, fill="black", font=ImageFont.load_default(size=26))
    return page


class Encoder(ColPali):
    """A loaded model that counts the pages and texts that it encodes, and returns itself when called."""

    def __init__(self, model: ColPali) -> None:
        self.__dict__.update(vars(model))
        self.pages = self.texts = 0

    def __call__(self) -> ColPali:
        return self

    def embed_images(self, images: Any, **options: Any) -> Generator[Float32, None, None]:
        def counted() -> Iterator[Any]:
            for image in images:
                self.pages += 1
                yield image

        return super().embed_images(counted(), **options)

    def embed_queries(self, texts: Any, **options: Any) -> Generator[Float32, None, None]:
        self.texts += len(texts)
        return super().embed_queries(texts, **options)

    def embed_texts(self, texts: Any, **options: Any) -> Generator[Float32, None, None]:
        texts = list(texts)
        self.texts += len(texts)
        return super().embed_texts(texts, **options)


@pytest.fixture
def encoder(coltiny: ColPali) -> Encoder:
    return Encoder(coltiny)


@pytest.fixture(scope="module")
def pages(coltiny: ColPali) -> dict[str, Any]:
    return dict(zip(WORDS, coltiny.embed_images([draw(word) for word in WORDS]), strict=True))


@pytest.fixture
def store(coltiny: ColPali, pages: dict[str, Any]) -> MultiVectorStore:
    made = MultiVectorStore.open(model=coltiny)
    made.add((Entry(id=word, content_hash=f"key of {word}"), vectors) for word, vectors in pages.items())
    return made


def page(word: str, *, id_: str | None = None, image: Callable[[], Any] | None = None) -> Candidate:
    return Candidate(id_, f"key of {word}", word, image or (lambda: draw(word)))


def test_stored_candidates_are_scored_without_encoding(store: MultiVectorStore, encoder: Encoder) -> None:
    def forbidden() -> Image.Image:
        raise AssertionError("drawn")

    candidates = [page(word, id_=word, image=forbidden) for word in WORDS]
    found = CandidateScorer(encoder, store).scores("bananas", candidates)
    assert (encoder.pages, encoder.texts) == (0, 1)
    hits = {hit.id: hit for hit in store.search(next(encoder.embed_queries(["bananas"])), 3)}
    assert [one.max_sim for one in found] == pytest.approx([hits[word].max_sim for word in WORDS])
    assert [one.relevance for one in found] == pytest.approx([hits[word].relevance for word in WORDS])
    assert max(found, key=lambda one: one.max_sim) is found[1]


def test_others_are_encoded_once_and_score_as_if_stored(store: MultiVectorStore, encoder: Encoder) -> None:
    scorer = CandidateScorer(encoder)
    candidates = [page(word, id_=word) for word in [*WORDS, "apples"]]
    first = scorer.scores("bananas", candidates)
    assert encoder.pages == 3, "equal keys are one page"
    assert first == scorer.scores("bananas", candidates)
    assert scorer.scores("apples", candidates)[0].relevance > first[0].relevance
    assert encoder.pages == 3
    stored = CandidateScorer(encoder, store).scores("bananas", candidates)
    assert [one.max_sim for one in first] == pytest.approx([one.max_sim for one in stored], rel=1e-6)
    assert first[0] == first[3]


def test_stored_and_new_and_texts_come_together(store: MultiVectorStore, encoder: Encoder) -> None:
    candidates = [Candidate(None, "t", "prices of bananas"), page("apples", id_="apples"), page("pears", id_="unknown")]
    found = CandidateScorer(encoder, store).scores("bananas", candidates)
    assert (encoder.pages, encoder.texts) == (1, 2)
    [query] = encoder.embed_queries(["bananas"])
    [text] = encoder.embed_texts(["prices of bananas"])
    assert found[0].max_sim == pytest.approx(float(max_sim(query, text.astype(np.float16))))
    assert found[0].max_sim == max(one.max_sim for one in found)


def test_the_cache_holds_the_most_recently_used_pages(encoder: Encoder) -> None:
    scorer = CandidateScorer(encoder, cache_size=2)
    scorer.scores("x ray", [page("apples"), page("bananas")])
    scorer.scores("x ray", [page("apples")])
    scorer.scores("x ray", [page("railway")])
    assert encoder.pages == 3
    scorer.scores("x ray", [page("apples")])
    assert encoder.pages == 3, "bananas had to go"
    scorer.scores("x ray", [page("bananas")])
    assert encoder.pages == 4
    assert len(CandidateScorer(encoder, cache_size=0).scores("x ray", [page(word) for word in WORDS])) == 3


def test_threads_encode_a_page_once(encoder: Encoder) -> None:
    scorer, start = CandidateScorer(encoder), threading.Barrier(4)

    def ask(word: str) -> list[float]:
        start.wait()
        return [one.max_sim for one in scorer.scores(word, [page("apples"), page("bananas")])]

    with ThreadPoolExecutor(4) as executor:
        first, second, third, fourth = executor.map(ask, ["apples", "bananas", "apples", "bananas"])
    assert encoder.pages == 2
    # Questions that share a run of the model may differ in the last bit.
    assert first == pytest.approx(third)
    assert second == pytest.approx(fourth)
    assert first != pytest.approx(second)


def test_a_bad_candidate_is_named_or_comes_last(encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    def gone() -> Image.Image:
        raise InputError("no file")

    bad = [
        Candidate(None, "gone", "", gone, name="report.pdf, page 2"),
        Candidate(None, "broken", "", lambda: b"not an image"),
        Candidate(None, "empty", "  "),
    ]
    good = page("bananas")
    for wrong, error in zip(bad, (InputError, ImageError, QueryError), strict=True):
        with pytest.raises(error) as caught:
            CandidateScorer(encoder).scores("bananas", [good, wrong])
        assert (caught.value.index, caught.value.item) == (1, wrong.name or wrong.key)
    scorer = CandidateScorer(encoder)
    with caplog.at_level(logging.WARNING):
        found = scorer.scores("bananas", [*bad, good], on_error="skip")
    assert [one.error is None for one in found] == [False, False, False, True]
    assert sorted(found, key=lambda one: -one.max_sim)[0] is found[3]
    assert all(one.relevance == 0.0 for one in found[:3])
    assert "report.pdf, page 2" in caplog.text


def test_without_candidates_the_model_encodes_nothing(encoder: Encoder, store: MultiVectorStore) -> None:
    assert CandidateScorer(encoder, store).scores("bananas", []) == []
    assert (encoder.pages, encoder.texts) == (0, 0)


def test_invalid_arguments_are_refused(encoder: Encoder) -> None:
    with pytest.raises(ConfigurationError, match="cache_size"):
        CandidateScorer(encoder, cache_size=-1)
    with pytest.raises(ConfigurationError, match="on_error"):
        CandidateScorer(encoder).scores("x", [], on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(QueryError):
        CandidateScorer(encoder).scores(" ", [page("apples")])
    other = made_up("other", identity="0" * 16)
    with pytest.raises(FingerprintError, match="other"):
        CandidateScorer(encoder, MultiVectorStore.open(model=other)).scores("x ray", [page("apples")])
