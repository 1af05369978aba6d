"""Hybrid search over every engine: what the fusion promises, whatever an engine returns of equal scores."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from colpali_integrations.errors import InputError
from colpali_integrations.scoring.bm25 import Bm25, bm25_scores
from colpali_integrations.stores import Entry, Hits, MultiVectorStore, SearchOptions, Settings
from colpali_integrations.stores.engine import Scored, Search
from colpali_integrations.stores.memory import MemoryEngine
from tests.stores.backends import BACKENDS, DIM, MODEL, Open, opening

SEEDS = st.integers(0, 2**32 - 1)
LOOK = np.eye(DIM, dtype=np.float32)[:1]
WAYS: list[Any] = [True, "rrf", 0.4, 1.0]


class Pages:
    """Made-up pages, of which many are equally good by sight, by words or by both, and some have no text.

    Args:
        seed: decides all of it.

    Attributes:
        looks: MaxSim of each page for the question `LOOK`.
        texts: of each page; all have the word "page".
        question: in words.
    """

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        number = int(random.choice([3, 40, 130, 260]))
        self.looks = random.integers(0, random.choice([3, 40]), number) / 8
        rare = [*"abcdefgh", "crane", "quay", "ebb"]
        frequent = random.random() < 0.5
        texts = [" ".join(random.choice(rare, random.integers(0, 5))) for _ in range(number)]
        texts = [f"page {text} {'tide' if frequent and random.random() < 0.97 else ''}" for text in texts]
        self.texts = ["" if random.random() < 0.15 else text for text in texts]
        self.question = " ".join(random.choice([*rare, "tide"], 3))
        self.names = [f"{one:04}" for one in random.permutation(number)]

    def fill(self, store: MultiVectorStore) -> MultiVectorStore:
        pages = zip(self.names, self.looks, self.texts, strict=True)
        store.add((Entry(id=name, text=text), look * LOOK) for name, look, text in pages)
        return store

    def look(self, hit_id: str) -> float:
        return float(self.looks[self.names.index(hit_id)])


@contextmanager
def filled(backend: str, pages: Pages) -> Iterator[MultiVectorStore]:
    """A store of an engine with the pages."""
    with tempfile.TemporaryDirectory() as folder, opening(backend, Path(folder)) as open_:
        yield pages.fill(open_())


class AnyOrder(MemoryEngine):
    """The engine in memory, which returns equal scores in any order, and any of them at the end of a list."""

    random: np.random.Generator

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        whole = [Search(**{**vars(search), "limit": 10**6}) for search in searches]
        lists = [sorted(found, key=lambda one: (-one.score, self.random.random())) for found in super().search(whole)]
        return [found[: search.limit] for found, search in zip(lists, searches, strict=True)]


def any_order(pages: Pages) -> MultiVectorStore:
    options: dict[str, Any] = {"model": MODEL}
    engine = AnyOrder(schema=Settings(**options).schema, manifest=Settings(**options).to_dict())
    engine.random = np.random.default_rng(len(pages.texts))
    return pages.fill(MultiVectorStore(engine, Settings(**options)))


class Near(float):
    """As pytest.approx(rel=1e-4, abs=1e-6), which takes more time to make than the searches that give the scores."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and abs(self - other) <= max(1e-4 * abs(self), 1e-6)

    __hash__ = float.__hash__


def ranking(hits: Hits) -> list[tuple[str, Near]]:
    return [(hit.id, Near(hit.score)) for hit in hits]


def sure(pages: Pages) -> int:
    """Number of pages that the hundred best by sight are at least, without the group that their end cuts through."""
    looks = np.sort(pages.looks)[::-1]
    return len(looks) if len(looks) <= 100 else int((looks > looks[100]).sum())


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_the_order_of_equal_scores_and_the_number_of_results_decide_nothing(seed: int) -> None:
    pages = Pages(seed)
    store, chance = pages.fill(MultiVectorStore.open(model=MODEL)), any_order(pages)
    for hybrid in WAYS:
        [found] = store.search_batch([LOOK], SearchOptions(k=sure(pages) or 1, hybrid=hybrid), texts=[pages.question])
        found = Hits(found[: sure(pages)])
        for k, oversampling in ((1, None), (5, 1), (20, 3), (100, None), (130, 20)):
            for one in (store, chance):
                some = one.search(LOOK, k, hybrid=hybrid, text=pages.question, oversampling=oversampling)
                assert len(some) == min(k, len(pages.texts))
                assert ranking(some)[: len(found)] == [(hit.id, hit.score) for hit in found][:k]


@pytest.mark.parametrize("first_stage", ["exact", "ward"])
@given(seed=SEEDS)
@settings(max_examples=3, deadline=None)
def test_more_results_begin_with_those_of_fewer(first_stage: Any, seed: int) -> None:
    """To the end of the store, where no scores are equal; a first stage of all entries is an exact search."""
    random, texts = np.random.default_rng(seed), [*"abcdefghi", "tide", "quay", "ebb"]
    store = MultiVectorStore.open(model=MODEL, first_stage=first_stage)
    store.add(
        (Entry(id=f"{n}", text=" ".join(random.choice(texts, 1 + n % 40)) if n % 9 else ""), (5 + look) * LOOK)
        for n, look in enumerate(random.normal(size=1200))
    )
    for hybrid in WAYS:
        options: dict[str, Any] = {"hybrid": hybrid, "text": "ebb tide quay", "mode": "exact"}
        if first_stage != "exact":
            options |= {"mode": "two_stage", "oversampling": 1200}
        most = store.search(LOOK, 1300, **options)
        assert len(most) == 1200
        for k in (1, 100, 101, 201, 250, 400, 1199):
            assert ranking(store.search(LOOK, k, **options)) == [(hit.id, hit.score) for hit in most[:k]]


@pytest.mark.parametrize("backend", BACKENDS)
@given(seed=SEEDS)
@settings(max_examples=6, deadline=None)
def test_every_engine_ranks_alike(backend: str, seed: int) -> None:
    pages = Pages(seed)
    with filled(backend, pages) as store:
        for hybrid in WAYS:
            expected = pages.fill(MultiVectorStore.open(model=MODEL)).search(
                LOOK, sure(pages) or 1, hybrid=hybrid, text=pages.question
            )
            found = store.search(LOOK, sure(pages) or 1, hybrid=hybrid, text=pages.question)
            assert ranking(found)[: sure(pages)] == [(hit.id, hit.score) for hit in expected][: sure(pages)]


@pytest.mark.parametrize("backend", BACKENDS)
@given(seed=SEEDS)
@settings(max_examples=6, deadline=None)
def test_a_page_counts_with_its_own_words_wherever_it_was_found(backend: str, seed: int) -> None:
    """BM25 of all texts, computed without an engine; a word of all texts counts nothing."""
    pages = Pages(seed)
    pages.texts = [text and f"{text} ebb" for text in pages.texts[:-1]] + ["no tide"]
    bm25, question = Bm25(), f"{pages.question} ebb"  # the list of the words is cut off in larger stores
    having = [name for name, text in zip(pages.names, pages.texts, strict=True) if text]
    documents = [bm25.document(text) for text in pages.texts if text]
    scores = bm25_scores(bm25.query(question), documents, common_words=False)
    expected = dict(zip(having, scores.tolist(), strict=True))
    with filled(backend, pages) as store:
        for k in (10, 150):
            for hit in store.search(LOOK, k, hybrid=True, text=question):
                assert (hit.bm25 or 0.0) == pytest.approx(expected.get(hit.id, 0.0), rel=1e-3)
                assert hit.max_sim == pytest.approx(pages.look(hit.id))


@pytest.mark.parametrize("backend", BACKENDS)
@given(seed=SEEDS)
@settings(max_examples=6, deadline=None)
def test_a_word_that_every_text_has_changes_nothing(backend: str, seed: int) -> None:
    pages = Pages(seed)
    with filled(backend, pages) as store:
        for hybrid in WAYS:
            plain = store.search(LOOK, 30, hybrid=hybrid, text=pages.question)
            more = store.search(LOOK, 30, hybrid=hybrid, text=f"{pages.question} page pages")
            head = min(30, sure(pages))
            assert [(hit.id, hit.score) for hit in more][:head] == ranking(plain)[:head]
            by_sight = store.search(LOOK, 30, hybrid=hybrid, text="page")
            assert {hit.halves.weight for hit in by_sight if hit.halves} == {0.0}
            looks = [pages.look(hit.id) for hit in by_sight]
            assert looks == sorted(looks, reverse=True)


@pytest.mark.parametrize("backend", BACKENDS)
@given(seed=SEEDS)
@settings(max_examples=6, deadline=None)
def test_who_is_first_and_in_which_order_pages_without_text_come(backend: str, seed: int) -> None:
    pages = Pages(seed)
    rare = "heron heron kelp kelp lagoon lagoon"
    pages.looks[0], pages.texts[0] = pages.looks.max() + 1, f"page {pages.question} crane quay ebb tide {rare}"
    pages.question = pages.texts[0]
    with filled(backend, pages) as store:
        for hybrid in WAYS:
            hits = store.search(LOOK, 130, hybrid=hybrid, text=pages.question)
            assume(max(hits, key=lambda hit: hit.bm25 or 0.0).id == pages.names[0])  # a text may repeat words
            assert hits[0].score == 1.0
            if hybrid != 1.0:
                assert hits[0].id == pages.names[0]
            assert all(0 <= hit.score <= 1 for hit in hits)
            blank = [hit.max_sim for hit in hits if not hit.entry.has_text]
            assert blank == sorted(blank, reverse=True)


def test_a_page_with_words_that_all_texts_have_is_found_too(open_store: Open) -> None:
    """A store of one page, which its model cannot read: the words of its text are those of all texts."""
    store = open_store()
    store.add([(Entry(id="only", text="низкая вода"), -LOOK), (Entry(id="scan", text=""), -2 * LOOK)])
    found = store.search(LOOK, hybrid=True, text="вода")
    assert [(hit.id, hit.bm25, hit.matches) for hit in found] == [("only", 0.0, True), ("scan", None, False)]
    assert [hit.matches for hit in store.search(LOOK, hybrid=True, text="ветер")] == [False, False]


@pytest.mark.parametrize("layer", ["", "\f", "• | —"])
def test_a_text_layer_without_words_is_none(layer: str, open_store: Open) -> None:
    store = open_store()
    pages = [("scan", layer, 9), ("text", "tide harbour", 8.5), ("other", "tide", 4), ("third", "sail", 3)]
    store.add([(Entry(id=id_, text=text), look * LOOK) for id_, text, look in pages])
    for hybrid in WAYS:
        found = store.search(LOOK, hybrid=hybrid, text="tide")
        [scores] = store.rank_batch([LOOK], SearchOptions(hybrid=hybrid), texts=["tide"], textless=["scan"])
        assert ranking(found) == [*scores.items()]
    assert store.search(LOOK, hybrid=True, text="tide")[0].id == "scan"


def test_questions_whose_words_are_no_texts_are_refused() -> None:
    store = MultiVectorStore.open(model=MODEL)
    store.add([(Entry(id="only", text="tide"), LOOK)])
    for hybrid in (True, False):
        options = SearchOptions(hybrid=hybrid)
        assert store.search_batch([], options) == store.search_batch([], options, texts=[]) == []
        for texts in ([None], [3], [b"tide"]):
            with pytest.raises(InputError, match="the words of a question must be a string, got"):
                store.search_batch([LOOK], options, texts=texts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def numbered() -> list[tuple[Entry, Any]]:
    """Pages with nothing but their number; what sight finds has little to do with it."""
    random = np.random.default_rng(17)
    vectors = random.normal(size=(600, 4, DIM)).astype(np.float32)
    return [(Entry(id=f"{n}", text=f"page number {n}"), vectors[n]) for n in range(600)]


def test_page_number_17_is_found_by_its_number(numbered: list[tuple[Entry, Any]], open_store: Open) -> None:
    query = np.abs(np.random.default_rng(18).normal(size=(6, DIM))).astype(np.float32)
    memory, store = MultiVectorStore.open(model=MODEL), open_store()
    memory.add(numbered)
    store.add(numbered)
    by_sight = [hit.id for hit in store.search(query, 600, hybrid=False)]
    assert by_sight.index("17") > 100, "sight does not find it"
    for hybrid in (True, "rrf"):
        expected = memory.search(query, 20, hybrid=hybrid, text="page number 17")
        found = store.search(query, 20, hybrid=hybrid, text="page number 17")
        assert "17" in [hit.id for hit in found][:2]
        assert ranking(found) == [(hit.id, hit.score) for hit in expected]
        assert [hit.id for hit in found if hit.id != "17"] == by_sight[:19], "and no other page has a word of it"


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_evaluations_score_as_searches_do(seed: int) -> None:
    """From the exact scores of all pages too, of which most are no candidates of a search."""
    pages = Pages(seed)
    store = pages.fill(MultiVectorStore.open(model=MODEL))
    textless = [name for name, text in zip(pages.names, pages.texts, strict=True) if not text]
    [exact] = store.rank_batch([LOOK], SearchOptions(mode="exact", hybrid=False), depth=len(pages.texts))
    for hybrid in WAYS:
        options, k = SearchOptions(k=5, hybrid=hybrid), min(20, sure(pages))
        found = store.search(LOOK, k or 1, hybrid=hybrid, text=pages.question)
        for known in (None, [exact]):
            [scores] = store.rank_batch([LOOK], options, texts=[pages.question], textless=textless, exact=known)
            assert [*scores.items()][:k] == ranking(found)[:k]
