"""Targets that open, search, change and copy collections on a Qdrant server whose answers may be damaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np

from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.stores import Entry, MultiVectorStore, SearchOptions, copy_store
from colpali_integrations.stores.qdrant import retries
from tests.fuzz.choices import Choices
from tests.fuzz.engine import Target
from tests.fuzz.servers import Damaged, Faithful
from tests.stores.backends import DIM, MODEL, entry, page
from tests.stores.qdrant.clocks import FakeClock
from tests.stores.qdrant.collections import LAYOUTS, made
from tests.stores.qdrant.profiles import StrictModes
from tests.stores.qdrant.stand_in import StandIn

_PAGES = 5
_QUERY = page(0, rows=2)


@cache
def qdrant_server() -> StandIn:
    server = StandIn()
    server.server_close()
    with MultiVectorStore.open(**place_on(Faithful(server), "pages"), model=MODEL, first_vectors=2) as store:
        store.add((entry(number), page(number, rows=3)) for number in range(_PAGES))
    return server


@cache
def _foreign() -> dict[str, str]:
    """The names of the collections of other programs, by their kind."""
    pages = [page(number, rows=6) for number in range(_PAGES)]
    kept = [(kind, made(qdrant_server().client, kind, pages)) for kind in LAYOUTS]
    _KEPT.extend(one for _, one in kept)
    return {kind: next(one).name for kind, one in kept}


_KEPT: list[Iterator[Any]] = []  # they remove the collections at their end
_ANSWERS: dict[Any, tuple[int, dict[str, str], bytes]] = {}


def place_on(transport: Faithful, name: str, **options: Any) -> dict[str, Any]:
    url = options.pop("url", "http://qdrant:6333")
    return {"url": url, "collection_name": name, "transport": transport, "retry_seconds": (1, 3), **options}


@contextmanager
def _unhurried() -> Iterator[None]:
    """Waits take no time."""
    with patch.object(retries, "CLOCK", FakeClock()):
        yield


def _all(actions: Sequence[Callable[[], object]]) -> None:
    """Call all, and raise the first of the errors of this package in the end."""
    errors: list[ColPaliError] = []
    for action in actions:
        try:
            action()
        except ColPaliError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def answers(data: bytes) -> None:
    """A store whose server's answers are damaged: all its methods; whole answers give the right results."""
    choices = Choices(data)
    qdrant_server()
    transport = Damaged(qdrant_server(), choices, _ANSWERS)
    with _unhurried():
        options: dict[str, Any] = choices.pick(
            ({}, {"model": MODEL}, {"indexes": {"year": "number"}}, {"url": ["http://a", "http://b"]})
        )
        with MultiVectorStore.open(**place_on(transport, "pages", **options)) as store:
            _all([*_readings(store, transport), *_writings(store)])
    transport.check_end()


def foreign(data: bytes) -> None:
    """A collection of another program whose server's answers are damaged: its layout is suggested, read and copied."""
    choices = Choices(data)
    kind = choices.pick([*LAYOUTS])
    transport = Damaged(qdrant_server(), choices, _ANSWERS)
    layout = None if choices.byte() % 4 == 1 else LAYOUTS[kind]
    place = place_on(transport, _foreign()[kind], model=MODEL, layout=layout, writable=layout is not None)
    with _unhurried(), MultiVectorStore.open(**place) as store:

        def copied() -> None:
            with MultiVectorStore.open(model=store.model) as target:
                copy_store(store, target)
                _check_entries([*target.scroll()])

        _all([*_readings(store, transport, foreign=True), *_writings(store), copied])
    transport.check_end()


def _readings(store: MultiVectorStore, transport: Damaged, *, foreign: bool = False) -> list[Callable[[], object]]:
    """What reads a store. Whole answers are right, and damaged ones are refused or give results of the right kinds."""
    hybrid: Any = {} if foreign else {"hybrid": True}

    def listed() -> None:
        entries = [*store.scroll()]
        _check_entries(entries)
        assert transport.damaged or len(entries) == _PAGES

    def read() -> None:
        ids = ["page 1", "page 4", "1", "10", "00000000-0000-0000-0000-000000000002", "none"]
        for vectors in store.vectors(ids):
            assert vectors is None or (vectors.ndim == 2 and vectors.shape[1] == DIM and np.isfinite(vectors).all())
        _check_entries([one for one in store.get(ids) if one is not None])

    def counted() -> None:
        info, number = store.info(), store.count({"page": {"$gte": 1}})
        assert number >= 0 and info.entries >= 0 and all(count >= 0 for count in store.documents().values())
        assert transport.damaged or (info.entries == _PAGES and number in (3, 4, 5))

    def searched() -> None:
        for options in (
            SearchOptions(k=3, **hybrid),
            SearchOptions(k=2, where={"source": "1.pdf"}, mode="two_stage"),
            SearchOptions(k=9, where={"$not": {"page": {"$in": [1, 2]}}}, min_relevance=0.1),
        ):
            [hits] = store.search_batch([_QUERY], options, texts=["the text of page 1"])
            _check_entries([hit.entry for hit in hits])
            assert len(hits) <= options.k
            scores = [hit.score for hit in hits]
            assert all(map(math.isfinite, scores)) and scores == sorted(scores, reverse=True)
            if options.k == 3:
                best = _best(store, hits)
                assert transport.damaged or [hit.entry.id for hit in hits][:1] == best
        store.score(_QUERY, ["page 1", "10"])

    return [listed, read, counted, searched]


def _best(store: MultiVectorStore, hits: Any) -> list[str]:
    """The id of the best hit, from the vectors that the store keeps; of those of a hybrid search any may be it."""
    if hits and hits[0].halves is not None:
        return [hits[0].entry.id]
    ids = [one.id for one in store.scroll()]
    scores = {id_: _max_sim(one) for id_, one in zip(ids, store.vectors(ids), strict=True) if one is not None}
    return sorted(scores, key=lambda id_: -scores[id_])[:1]


def _max_sim(vectors: Any) -> float:
    return float((_QUERY @ vectors.T).max(axis=1).sum())


def _writings(store: MultiVectorStore) -> list[Callable[[], object]]:
    return [
        lambda: store.add([(entry(number), page(number, rows=3)) for number in (1, 7)]),
        lambda: store.update_metadata("1.pdf", {"year": 2024}),
        lambda: store.delete(["page 1", "10"], document_id="1.pdf"),
        lambda: store.delete(where={"page": {"$gt": 3}}),
    ]


def _check_entries(entries: Sequence[Entry]) -> None:
    for one in entries:
        kinds: list[Any] = [one.id, one.text]
        assert all(isinstance(value, str) for value in kinds)
        _ = one.name, one.page, one.source, one.has_text, one.is_page, one.grid
        one.to_payload()


_FILTERS = (None, {"page": {"$gte": 2}}, {"source": "1.pdf", "even": True}, {"$id": {"$in": ["page 1"]}})
_LIMITS = (
    *("max_query_limit", "upsert_max_batchsize", "search_max_batchsize", "read_rate_limit", "write_rate_limit"),
    *("search_max_hnsw_ef", "condition_max_size", "max_payload_index_count"),
)
_FLAGS = ("enabled", "unindexed_filtering_retrieve", "unindexed_filtering_update", "search_allow_exact")


def strict(data: bytes) -> None:
    """A collection in a strict mode of any limits, over its whole life: what is answered is what others answer."""
    choices = Choices(data)
    profile: dict[str, Any] = {"enabled": True}
    for name in _FLAGS[1:]:
        if choices.flag():
            profile[name] = choices.flag()
    for name in _LIMITS:
        if choices.byte() % 3 == 0:
            profile[name] = choices.pick((1, 2, 3, 7, 64, 1000, 2**31 - 1, 2**53 + 1))
    if choices.byte() % 3 == 0:
        profile["search_max_oversampling"] = choices.pick((1.0, 1.5, 0.5, 64.0, 1e308, 0.0))
    server, clock = qdrant_server(), FakeClock()
    server.strict, before = StrictModes(profile, clock.now), server.strict
    transport = Faithful(server)
    try:
        with patch.object(retries, "CLOCK", clock):
            _whole_life(transport, choices, exact=profile.get("search_allow_exact") is not False)
    finally:
        server.strict = before
        if server.client.collection_exists("strict"):
            server.client.delete_collection("strict")
    transport.check_end()


def _whole_life(transport: Faithful, choices: Choices, *, exact: bool) -> None:
    """Compare a store with one in memory."""
    stage: Any = choices.pick(("ward", "exact", "muvera"))
    kinds: Any = choices.pick((None, {"even": "bool"}, {"page": "number", "source": "text"}))
    records = [(entry(number), page(number, rows=3)) for number in range(6)]
    number = choices.pick((1, 3, 10))
    where: Any = choices.pick(_FILTERS)
    place = place_on(transport, "strict", model=MODEL, first_stage=stage, indexes=kinds)
    with MultiVectorStore.open(model=MODEL, first_stage=stage) as right, MultiVectorStore.open(**place) as store:
        assert store.add(records) == right.add(records)
        assert sorted(one.id for one in store.scroll(where)) == sorted(one.id for one in right.scroll(where))
        assert store.count(where) == right.count(where)
        assert store.documents(where) == right.documents(where)
        assert store.update_metadata("1.pdf", {"year": 1}) == right.update_metadata("1.pdf", {"year": 1})
        hybrid = choices.flag() and exact
        options = SearchOptions(k=number, where=where, mode="exact" if exact else "two_stage", hybrid=hybrid)
        texts = ["text of page 4"]
        if stage == "exact" and not exact:
            try:
                store.search_batch([_QUERY], options, texts=texts)
            except ConfigurationError:
                return
            raise AssertionError("an exact search, which is forbidden")
        [found], [wanted] = (one.search_batch([_QUERY], options, texts=texts) for one in (store, right))
        assert [hit.entry for hit in found] == [hit.entry for hit in wanted]
        assert np.allclose([hit.score for hit in found], [hit.score for hit in wanted], atol=1e-5)
        ids = ["page 1", "page 4", "none"]
        assert [one is None for one in store.get(ids)] == [False, False, True]
        assert store.delete(document_id="2.pdf") == right.delete(document_id="2.pdf")
        assert len(store) == len(right)


TARGETS = [
    Target("answers", answers),
    Target("foreign", foreign),
    Target("strict", strict),
]
