"""Copies of stores, between engines and from collections of other programs; and the check of a collection's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from colpali_integrations import ColPali, pdf_pages
from colpali_integrations.errors import FingerprintError, InputError, StoreError
from colpali_integrations.explain import PageGrid
from colpali_integrations.stores import Entry, Layout, MultiVectorStore, copy_store
from colpali_integrations.stores.limits import MAX_SERVER_NUMBERS
from tests.conftest import PAPER
from tests.stores.backends import BACKENDS, MODEL, entry, opening, page
from tests.stores.qdrant.collections import LAYOUTS, made
from tests.stores.qdrant.stand_in import stand_in
from tests.stores.stored_models import made_up

COUNT = 40


def filled(store: MultiVectorStore) -> MultiVectorStore:
    grid = PageGrid(1, 3, np.array([0, 1, 2]))
    store.add((entry(number, extra={"a": number}), page(number)) for number in range(COUNT - 1))
    store.add([(entry(COUNT - 1, grid=grid), page(COUNT - 1, rows=3))])
    return store


def everything(store: MultiVectorStore) -> dict[str, Entry]:
    return {one.id: one for one in store.scroll()}


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("target_kind", ["embedded", "server"])
def test_a_copy_has_every_entry_with_its_vectors(kind: str, target_kind: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    with opening(kind, tmp_path / "a") as source_of, opening(target_kind, tmp_path / "b") as target_of:
        source, target = filled(source_of()), target_of()
        report = copy_store(source, target, progress=lambda *numbers: steps.append(numbers))
        assert report.to_dict() == {"entries": COUNT, "copied": COUNT, "updated": 0, "present": 0, "without_vectors": 0}
        assert everything(target) == everything(source)
        ids = [*everything(source)]
        for ours, theirs in zip(target.vectors(ids), source.vectors(ids), strict=True):
            assert ours is not None
            assert theirs is not None
            np.testing.assert_array_equal(ours, theirs)
        query = page(99, rows=4)
        assert [hit.id for hit in target.search(query)] == [hit.id for hit in source.search(query)]
    assert steps == [(16, 40), (32, 40), (40, 40)]


def test_an_interrupted_copy_continues(tmp_path: Path) -> None:
    source = filled(MultiVectorStore.open(model=MODEL))
    target = MultiVectorStore.open(tmp_path / "store", model=MODEL)

    def interrupt(done: int, total: int) -> None:
        if done >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_store(source, target, progress=interrupt)
    assert len(target) == 32
    report = copy_store(source, target)
    assert (report.entries, report.copied, report.updated, report.present) == (40, 8, 0, 32)
    assert everything(target) == everything(source)


def test_changes_reach_the_copy(tmp_path: Path) -> None:
    source = filled(MultiVectorStore.open(model=MODEL))
    target = MultiVectorStore.open(tmp_path / "store", model=MODEL, pool_factor=3)
    copy_store(source, target)
    source.update_metadata("1.pdf", {"year": 2024})
    source.add([(entry(3, content_hash="another", text="another text"), page(77))])
    changed = len(source.hashes({"$document": "1.pdf"}))
    report = copy_store(source, target)
    assert (report.copied, report.updated, report.present) == (1, changed, COUNT - 1 - changed)
    assert target.count({"year": 2024}) == changed
    [held] = target.get([f"page {COUNT - 1}"])
    assert held is not None
    assert held.grid is not None
    assert held.grid.groups is not None  # it stays pooled
    assert copy_store(source, target).present == COUNT


def test_only_entries_that_fit_a_filter_are_copied() -> None:
    source, target = filled(MultiVectorStore.open(model=MODEL)), MultiVectorStore.open(model=MODEL)
    report = copy_store(source, target, where={"even": True, "page": {"$lt": 10}})
    assert (report.entries, report.copied) == (5, 5)
    assert {one.metadata["page"] for one in target.scroll()} == {0, 2, 4, 6, 8}


def test_a_target_of_another_model_is_refused_and_stays() -> None:
    source = filled(MultiVectorStore.open(model=MODEL))
    target = MultiVectorStore.open(model=made_up("other", dim=MODEL.dim, identity="another"))
    with pytest.raises(FingerprintError, match="was made by other"):
        copy_store(source, target)
    assert len(target) == 0


def test_a_page_that_a_server_refuses_costs_no_other() -> None:
    wide = made_up("wide", dim=128)
    source, small = MultiVectorStore.open(model=wide), np.ones((2, 128), np.float32)
    large = np.ones((MAX_SERVER_NUMBERS // 128 + 1, 128), np.float32)
    source.add([(entry(number), large if number in (3, 30) else small) for number in range(COUNT)])
    expected = r"page 3: .* are too many for .*1 more entry was refused: .*page 30\. 38 other entries are stored"
    with stand_in() as server, MultiVectorStore.open(url=server.url, model=wide) as target:
        for _ in range(2):
            with pytest.raises(StoreError, match=expected):
                copy_store(source, target)
            assert everything(target).keys() == everything(source).keys() - {"page 3", "page 30"}


def test_entries_without_vectors_are_counted_and_not_taken_for_present(caplog: pytest.LogCaptureFixture) -> None:
    client = QdrantClient(":memory:")
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    one = models.VectorParams(size=MODEL.dim, distance=models.Distance.DOT, multivector_config=multi)
    client.create_collection("docs", {"full": one})
    vectors: list[Any] = [{"full": page(number).tolist()} if number % 3 else {} for number in range(6)]
    points = [models.PointStruct(id=number, vector=each, payload={}) for number, each in enumerate(vectors)]
    client.upsert("docs", points)
    source = MultiVectorStore.open(client=client, collection_name="docs", model=MODEL, layout=Layout(full="full"))
    target = MultiVectorStore.open(model=MODEL)
    for copied, present in ((4, 0), (0, 4)):
        report = copy_store(source, target)
        assert (report.entries, report.copied, report.present, report.without_vectors) == (6, copied, present, 2)
        assert "entries without vectors, which are not copied: 2" in caplog.text
        caplog.clear()
    with pytest.raises(InputError, match="has no vectors of the entry '3'; name another one that get"):
        source.check_model("3", "page.png")
    client.close()


def test_an_entry_that_the_target_does_not_take_is_named() -> None:
    source = filled(MultiVectorStore.open(model=MODEL, pool_factor=2))
    with pytest.raises(StoreError, match="are means of 3, and the store in memory keeps all vectors of a page"):
        copy_store(source, MultiVectorStore.open(model=MODEL))


@pytest.mark.parametrize("kind", [*LAYOUTS])
def test_collections_of_other_programs_become_stores(kind: str, tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    making = made(client, kind, [page(number, seed=3, rows=12) for number in range(COUNT)])
    one = next(making)
    place: dict[str, Any] = {"client": client, "collection_name": one.name, "model": MODEL, "layout": one.layout}
    source = MultiVectorStore.open(**place)
    with MultiVectorStore.open(tmp_path / "store", model=source.model) as target:
        assert copy_store(source, target).copied == COUNT
        assert copy_store(source, target).present == COUNT
        assert everything(target) == everything(source)
        query = page(99, rows=4)
        found, expected = target.search(query, mode="exact"), source.search(query, mode="exact")
        assert [hit.id for hit in found] == [hit.id for hit in expected]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=5e-3)
        if kind == "fastembed":  # its texts are words now
            [best, *_] = target.search(query, hybrid=1.0, text="page 17")
            assert best.entry.text == "the text of page 17"
        client.set_payload(one.name, {"new": 1}, points=[[*one.payloads][2]])
        assert copy_store(source, target).copied == 1
        assert target.count({"new": 1}) == 1
    client.close()


def test_a_model_is_checked_by_a_page(coltiny: ColPali) -> None:
    first, second = pdf_pages(PAPER, pages=[1, 2])
    store = MultiVectorStore.open(model=coltiny)
    store.add(zip([Entry(id="1"), Entry(id="2")], coltiny.embed_images([first, second]), strict=True))
    check = store.check_model("1", first)
    assert (check.ok, check.entry, check.model) == (True, "1", "coltiny")
    assert check.similarity == pytest.approx(1, abs=1e-3)
    assert check.stored == check.encoded > 0
    smaller = next(iter(pdf_pages(PAPER, pages=[1], dpi=100)))
    assert store.check_model("1", smaller, model=coltiny).ok
    assert store.check_model("1", first, model="coltiny") == check
    random = np.random.default_rng(1).standard_normal((50, coltiny.description.dim)).astype(np.float32)
    store.add([(Entry(id="random"), random)], model=coltiny)
    other = store.check_model("random", first)
    assert not other.ok
    assert str(other).startswith("coltiny does not fit the entry random: similarity 0.")
    assert other.to_dict()["ok"] is False
    with pytest.raises(InputError, match="has no entry 'x'; name one that get"):
        store.check_model("x", first)


def test_a_check_names_other_lengths(coltiny: ColPali) -> None:
    store = filled(MultiVectorStore.open(model=MODEL))
    with pytest.raises(FingerprintError, match="have 8 numbers, and those of 'coltiny' have 128; pass the model"):
        store.check_model("page 1", next(iter(pdf_pages(PAPER, pages=[1]))), model=coltiny)
