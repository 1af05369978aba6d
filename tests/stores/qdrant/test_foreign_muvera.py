"""Layouts whose first stage is a vector that fastembed's Muvera has made, as in Qdrant's tutorials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastembed.postprocess.muvera import Muvera
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores import Entry, Layout, MultiVectorStore, SearchOptions
from colpali_integrations.stores.qdrant.collection import connect
from tests.stores.backends import DIM, MODEL, page
from tests.stores.qdrant.stand_in import StandIn, stand_in

ARGUMENTS = {"k_sim": 3, "dim_proj": 4, "r_reps": 5, "random_seed": 11}
LAYOUT = Layout(full="original", first=["muvera_fde"], muvera=ARGUMENTS)
QUERIES = [page(number, seed=7, rows=4) for number in range(6)]


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture(scope="module", params=["local", "REST"])
def client(request: pytest.FixtureRequest, server: StandIn) -> Iterator[QdrantClient]:
    one = connect(":memory:" if request.param == "local" else server.url)
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    cosine = models.Distance.COSINE
    peer = Muvera(DIM, **ARGUMENTS)
    one.create_collection(
        "docs",
        {
            "original": models.VectorParams(size=DIM, distance=cosine, multivector_config=multi),
            "muvera_fde": models.VectorParams(size=peer.embedding_size, distance=cosine),
        },
    )
    pages = [page(number, seed=3, rows=12) for number in range(30)]
    one.upsert("docs", [point(at, full, peer) for at, full in enumerate(pages)])
    yield one
    one.delete_collection("docs")
    one.close()


def point(at: int, full: NDArray[np.float32], peer: Muvera) -> models.PointStruct:
    vectors: Any = {"original": full.tolist(), "muvera_fde": peer.process_document(full).tolist()}
    return models.PointStruct(id=at, vector=vectors, payload={"document": "a.pdf", "page": at + 1})


def opened(client: QdrantClient, layout: Layout = LAYOUT, **options: Any) -> MultiVectorStore:
    return MultiVectorStore.open(client=client, collection_name="docs", model=MODEL, layout=layout, **options)


def test_candidates_are_those_of_a_direct_query(client: QdrantClient) -> None:
    store, peer = opened(client), Muvera(DIM, **ARGUMENTS)
    differing = 0
    for query in QUERIES:
        asked: Any = query.tolist()
        fde = peer.process_query(query).tolist()
        prefetch = models.Prefetch(query=fde, using="muvera_fde", limit=4)
        direct = client.query_points("docs", asked, using="original", prefetch=prefetch, limit=3).points
        found = store.search(query, 3, mode="two_stage", oversampling=4 / 3)
        assert [hit.id for hit in found] == [str(one.id) for one in direct]
        assert [hit.score for hit in found] == pytest.approx([one.score for one in direct], rel=1e-5)
        differing += [hit.id for hit in store.search(query, 3, mode="exact")] != [hit.id for hit in found]
    assert differing  # the first stage decides


def test_pages_are_added_with_their_encoding(client: QdrantClient) -> None:
    store, vectors = opened(client, writable=True), page(90, rows=9)
    store.add([(Entry(id="900"), vectors)])
    [record] = client.retrieve("docs", [900], with_vectors=True)
    assert isinstance(record.vector, dict)
    expected = Muvera(DIM, **ARGUMENTS).process_document(vectors)
    assert np.asarray(record.vector["muvera_fde"]) == pytest.approx(expected / np.linalg.norm(expected), abs=2e-3)
    assert store.search(vectors, 1, mode="two_stage", oversampling=1)[0].id == "900"
    store.delete(["900"])


def test_many_searches_are_divided_by_the_size_of_their_encodings(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(client)
    sizes: list[int] = []
    ask = QdrantClient.query_batch_points

    def counted(self: QdrantClient, name: str, requests: Any, **options: Any) -> Any:
        sizes.append(sum(np.size(one.query) + sum(np.size(part.query) for part in one.prefetch) for one in requests))
        return ask(self, name, requests, **options)

    monkeypatch.setattr(QdrantClient, "query_batch_points", counted)
    monkeypatch.setattr("colpali_integrations.stores.qdrant.foreign._REQUEST_NUMBERS", 800)
    found = store.rank_batch(QUERIES, SearchOptions(k=2, mode="two_stage"))
    assert len(found) == len(QUERIES)
    assert len(sizes) > 1
    assert max(sizes) <= 800 < sum(sizes)


@pytest.mark.parametrize(
    ("muvera", "message"),
    [
        (None, r"'muvera_fde' has 160 numbers.*If fastembed's Muvera made them, pass its arguments in the layout, muv"),
        ({}, "Muvera: .*dim_proj 1 to dim"),  # the defaults are for longer vectors
        ({**ARGUMENTS, "r_reps": 4}, r"has 160 numbers, and muvera=\{.*\} makes 128 \(r_reps x 2\^k_sim x dim_proj\)"),
        ({**ARGUMENTS, "random_seed": 42}, r"are not those that muvera=.* makes of 'original' \(cosine .* pass the k_"),
    ],
)
def test_other_arguments_are_refused_at_the_opening(client: QdrantClient, muvera: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        opened(client, Layout(full="original", first=["muvera_fde"], muvera=muvera))


def test_the_error_without_a_layout_tells_of_it(client: QdrantClient) -> None:
    with pytest.raises(StoreError, match="add 'muvera_fde' to its first, and muvera= with the arguments of fast"):
        MultiVectorStore.open(client=client, collection_name="docs", model=MODEL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": 3}, "muvera has no option 'seed'"),
        ({"k_sim": "5"}, "k_sim must be a whole number"),
        (5, "muvera must be a dict of arguments, such as"),
    ],
)
def test_what_are_no_arguments_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Layout(muvera=wrong)
    assert eval(repr(LAYOUT)) == LAYOUT


def test_arguments_that_are_left_out_are_those_of_fastembed() -> None:
    layout = Layout.of({"first": ["muvera_fde"], "muvera": {"r_reps": 10}})
    assert layout.to_dict()["muvera"] == {"k_sim": 5, "dim_proj": 16, "r_reps": 10, "random_seed": 42}


def test_arguments_without_a_vector_that_they_made_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="muvera says how a vector of first was made, and first has none; add"):
        Layout(full="original", muvera=ARGUMENTS)
