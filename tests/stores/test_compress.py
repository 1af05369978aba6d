"""Compressed stores: what they keep, and that a compression that is killed leaves every store whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import max_sim
from colpali_integrations.errors import ColPaliError, ConfigurationError, StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.scoring.codes import VectorCode
from colpali_integrations.stores import (
    Entry,
    MultiVectorStore,
    Settings,
    compress_store,
    delete_old_store,
    repair_store,
    stored_settings,
    verify_store,
)
from colpali_integrations.stores.settings import BITS
from tests.stores.backends import DIM, MODEL, page
from tests.stores.stored_models import made_up

ROOT = Path(__file__).parents[2]
ROWS, PAGES = 12, 40
CODED = [name for name in BITS if name != "float16"]


def record(number: int, *, with_text: bool = True) -> tuple[Entry, NDArray[Any]]:
    grid = PageGrid(3, 4, np.arange(ROWS))
    metadata = {"source": f"{number % 3}.pdf", "page": number}
    text = f"words of page {number}" if with_text else ""
    return (
        Entry(id=str(number), text=text, metadata=metadata, document_id=f"{number % 3}.pdf", grid=grid),
        page(number, rows=ROWS),
    )


def fill(path: Path, count: int = PAGES, *, with_text: bool = True, **options: Any) -> None:
    with MultiVectorStore.open(path, model=MODEL, **options) as store:
        store.add(record(number, with_text=with_text) for number in range(count))


def contents(path: Path) -> dict[str, Entry]:
    with MultiVectorStore.open(path, read_only=True) as store:
        return {entry.id: replace(entry, grid=None) for entry in store.scroll()}


@pytest.mark.parametrize("datatype", CODED)
@pytest.mark.parametrize("first_stage", ["exact", "ward", "int8", "binary", "centroids", "muvera", "rows"])
def test_scores_are_those_of_the_stored_vectors(tmp_path: Path, datatype: str, first_stage: str) -> None:
    fill(tmp_path / "store", datatype=datatype, first_stage=first_stage)
    query = page(0, seed=7, rows=4)
    with MultiVectorStore.open(tmp_path / "store") as store:
        store.optimize()
        ids = [str(number) for number in range(PAGES)]
        kept = store.vectors(ids)
        code = VectorCode(DIM, BITS[datatype])  # type: ignore[index]
        for number, vectors in enumerate(kept):
            half = page(number, rows=ROWS).astype(np.float16)
            np.testing.assert_array_equal(vectors, code.decode(code.encode(half)))
        expected = dict(zip(ids, max_sim(query, [one for one in kept if one is not None]).tolist(), strict=True))
        hits = store.search(query, PAGES, mode="exact")
        assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-4)
        assert store.score(query, ["3"])["3"] == pytest.approx(expected["3"], abs=1e-4)
        if first_stage != "exact":
            assert len(store.search(query, 5, mode="two_stage", oversampling=8)) == 5
    assert verify_store(tmp_path / "store").ok


def test_texts_and_pages_of_unequal_lengths(tmp_path: Path) -> None:
    lengths = (1, 5, 2, 30, 1)
    with MultiVectorStore.open(tmp_path, model=MODEL, datatype="int4", pool_factor=2) as store:
        store.add((Entry(id=str(n), text="a text"), page(n, rows=n)) for n in lengths)
        found = store.search(page(0, seed=7, rows=4), 10)
        assert {hit.id for hit in found} == {str(n) for n in lengths}
        assert [len(one) for one in store.vectors([str(n) for n in lengths]) if one is not None] == list(lengths)


def test_pooled_pages_keep_their_regions(tmp_path: Path) -> None:
    fill(tmp_path / "all", 4)
    fill(tmp_path / "pooled", 4, pool_factor=3)
    query = page(0, seed=7, rows=2)
    with MultiVectorStore.open(tmp_path / "pooled") as store, MultiVectorStore.open(tmp_path / "all") as every:
        [vectors] = store.vectors(["1"])
        [entry] = store.get(["1"])
        assert vectors is not None and entry is not None and entry.grid is not None
        assert vectors.shape == (4, DIM)
        assert entry.is_page and len(entry.grid) == ROWS and entry.grid.n_stored == 4
        # The mean of each group, of length 1 as the model's vectors are.
        [whole] = every.vectors(["1"])
        assert whole is not None and entry.grid.groups is not None
        sums = np.stack([whole[entry.grid.groups == group].sum(axis=0) for group in range(4)])
        np.testing.assert_allclose(vectors, sums / np.linalg.norm(sums, axis=1, keepdims=True), atol=2e-3)
        maps = store.similarity_maps(query, ["1"])["1"].maps
        np.testing.assert_allclose(maps[0].reshape(-1), entry.grid.spread(vectors) @ query[0], atol=1e-3)
        assert store.regions(query, ["1"])["1"]
        # A second addition of the stored vectors does not pool them again.
        store.add([(replace(entry, id="copy", grid=entry.grid), vectors)])
        [copied] = store.vectors(["copy"])
        np.testing.assert_array_equal(copied, vectors)
        with pytest.raises(StoreError, match="are means of 12"):
            every.add([(entry, vectors)])
        assert len(every) == 4


def test_a_page_that_is_scored_without_the_store_gets_the_stored_score(tmp_path: Path) -> None:
    with MultiVectorStore.open(tmp_path, model=MODEL, datatype="int2", pool_factor=3) as store:
        store.add([record(1)])
        [kept] = store.vectors(["1"])
        assert kept is not None
        np.testing.assert_allclose(store._as_stored(record(1)[1].astype(np.float32), is_page=True), kept, atol=1e-6)


def test_zero_stays_the_lowest_match_where_lengths_are_weights(tmp_path: Path) -> None:
    model = made_up("weights", dim=DIM, unit_length=False)
    vectors = np.concatenate([page(0, rows=5), np.zeros((1, DIM), np.float32)])
    with MultiVectorStore.open(tmp_path, model=model, datatype="binary", pool_factor=2) as store:
        store.add([(Entry(id="1", grid=PageGrid(1, 6, np.arange(6))), vectors)])
        [hit] = store.search(-1e3 * page(0, rows=5).sum(axis=0, keepdims=True), 1)
        [kept] = store.vectors(["1"])
    assert kept is not None and (kept == 0).all(axis=1).any()
    assert hit.score >= 0


def test_settings_are_part_of_the_store(tmp_path: Path) -> None:
    fill(tmp_path / "store", 2, datatype="int4", pool_factor=2)
    made = stored_settings(tmp_path / "store")
    assert made is not None and (made.datatype, made.pool_factor, made.to_dict()["format"]) == ("int4", 2, 5)
    assert Settings(model=MODEL).to_dict()["format"] == 4
    with MultiVectorStore.open(tmp_path / "store") as store:
        facts = store.info().to_dict()
        assert (facts["datatype"], facts["pool_factor"], facts["format"]) == ("int4", 2, 5)
    wrongs: list[dict[str, Any]] = [{"datatype": "float16"}, {"pool_factor": 3}]
    for wrong in wrongs:
        with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))}="):
            MultiVectorStore.open(tmp_path / "store", **wrong)
    invalids: list[dict[str, Any]] = [{"datatype": "int3"}, {"pool_factor": 0}]
    for invalid in invalids:
        with pytest.raises(ConfigurationError, match=next(iter(invalid))):
            MultiVectorStore.open(tmp_path / "other", model=MODEL, **invalid)


def test_a_store_of_an_earlier_version_is_float16(tmp_path: Path) -> None:
    values = {
        key: one for key, one in Settings(model=MODEL).to_dict().items() if key not in ("datatype", "pool_factor")
    }
    read = Settings.from_dict(values, where="x")
    assert (read.datatype, read.pool_factor, read.code) == ("float16", 1, None)


def test_repair_of_a_coded_store(tmp_path: Path) -> None:
    fill(tmp_path, 8, datatype="int4", first_stage="ward", first_vectors=4, pool_factor=2)
    with MultiVectorStore.open(tmp_path) as store:
        before = store.vectors([str(number) for number in range(8)])
    [first] = tmp_path.glob("first-*.block")
    data = bytearray(first.read_bytes())
    data[40] ^= 1
    first.write_bytes(data)
    report = repair_store(tmp_path)
    assert len(report.rebuilt) == 1 and not report.lost and verify_store(tmp_path).ok
    with MultiVectorStore.open(tmp_path) as store:
        after = store.vectors([str(number) for number in range(8)])
    for one, other in zip(before, after, strict=True):
        assert one is not None
        np.testing.assert_array_equal(other, one)


# -- compress_store ----------------------------------------------------------------------------------------------------


def test_compress_makes_the_store_that_indexing_would_have_made(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, first_stage="ward", first_vectors=4)
    fill(tmp_path / "direct", first_stage="ward", first_vectors=4, datatype="int4", pool_factor=2)
    before = contents(store)
    counts: list[tuple[int, int]] = []
    report = compress_store(store, datatype="int4", pool_factor=2, progress=lambda *count: counts.append(count))
    assert (report.entries, report.not_pooled, report.old_path) == (PAGES, 0, tmp_path / "store.uncompressed")
    assert report.bytes_after < report.bytes_before and counts[-1] == (PAGES, PAGES)
    assert contents(store) == before == contents(tmp_path / "store.uncompressed")
    query = page(0, seed=7, rows=4)
    with MultiVectorStore.open(store) as made, MultiVectorStore.open(tmp_path / "direct") as direct:
        assert made.settings == direct.settings
        found, expected = (one.search(query, 10, hybrid=True, text="words page 7") for one in (made, direct))
        assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in expected]
    assert {path.name for path in tmp_path.iterdir()} == {"store", "store.uncompressed", "direct"}
    # Once more changes nothing; the old store stays until it is deleted.
    assert compress_store(store, datatype="int4", pool_factor=2).bytes_after == report.bytes_after
    assert delete_old_store(store) == report.bytes_before
    assert {path.name for path in tmp_path.iterdir()} == {"store", "direct"}
    assert delete_old_store(store) == 0


def test_the_old_store_is_deleted_on_request_and_permissions_stay(tmp_path: Path) -> None:
    fill(tmp_path / "store", file_mode=0o640)
    (tmp_path / "store").chmod(0o770)
    report = compress_store(tmp_path / "store", datatype="int8", delete_old=True)
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o770
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "store").iterdir() if path.name != "store.lock"} == {
        0o640
    }
    assert report.old_path is None and [path.name for path in tmp_path.iterdir()] == ["store"]


def test_what_cannot_be_compressed_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(StoreError, match="no store"):
        compress_store(store, datatype="int4")
    fill(store, 3)
    for options in ({}, {"datatype": "float16"}):
        with pytest.raises(ConfigurationError, match="nothing to compress"):
            compress_store(store, **options)  # type: ignore[arg-type]
    others: tuple[Any, ...] = ("int3", ["int8"], np.zeros(2), {})
    for invalid in others:
        with pytest.raises(ConfigurationError, match="datatype must be one of"):
            compress_store(store, datatype=invalid)
    for call in (lambda: compress_store(tmp_path.anchor, datatype="int8"), lambda: delete_old_store(tmp_path.anchor)):
        with pytest.raises(StoreError, match="the root of a disk"):
            call()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file; a store is a folder"):
        compress_store(tmp_path / "file", datatype="int4")
    (store / "report.pdf").write_text("a document")
    with pytest.raises(StoreError, match=r"holds other files \(report.pdf\)"):
        compress_store(store, datatype="int4")
    (store / "report.pdf").unlink()
    compress_store(store, datatype="int4", pool_factor=2)
    with pytest.raises(ConfigurationError, match="would not bring back"):
        compress_store(store, datatype="int8")
    with pytest.raises(ConfigurationError, match="means are not pooled again"):
        compress_store(store, pool_factor=4)
    with pytest.raises(StoreError, match="--delete-old"):
        compress_store(store, datatype="binary")
    delete_old_store(store)
    assert compress_store(store, datatype="binary").entries == 3


def test_an_open_store_is_told_of_the_exchange(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 3)
    with MultiVectorStore.open(store) as opened:
        compress_store(store, datatype="int4")
        for use in (lambda: len(opened), lambda: opened.add([record(9)]), lambda: opened.search(page(0), 1)):
            with pytest.raises(StoreError, match="removed, renamed or replaced since it was opened"):
                use()
    assert len(contents(store)) == 3


def test_changes_during_a_compression_are_in_the_new_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 70)

    def change(done: int, total: int) -> None:
        if (done, total) == (64, 70):
            with MultiVectorStore.open(store) as opened:
                opened.delete(["3", "69"])
                opened.add([(record(5)[0], page(500, rows=ROWS)), record(100)])
                opened.update_metadata("1.pdf", {"year": 2024})

    compress_store(store, datatype="int8", progress=change)
    found = contents(store)
    assert found == contents(tmp_path / "store.uncompressed")
    assert len(found) == 69 and "3" not in found and found["100"].page == 100 and found["4"].metadata["year"] == 2024
    with MultiVectorStore.open(store) as opened:
        [replaced] = opened.vectors(["5"])
        assert replaced is not None
        np.testing.assert_allclose(replaced, page(500, rows=ROWS), atol=0.02)


def test_a_copy_that_was_begun_with_other_settings_is_not_taken_for_the_former_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 3)
    compress_store(store, datatype="int4", delete_old=True)
    with MultiVectorStore.open(tmp_path / "store.compressing", model=MODEL, datatype="binary") as copy:
        copy.add([record(0)])
    (tmp_path / "store.compressing" / "store.db.copied").touch()
    assert compress_store(store, datatype="int4").old_path is None
    assert len(contents(tmp_path / "store.compressing")) == 1
    with pytest.raises(StoreError, match="another compression has begun"):
        compress_store(store, datatype="int2")
    assert compress_store(store, datatype="binary", delete_old=True).entries == 3
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def begin_a_copy(store: Path, *, done: int = 64, **options: Any) -> None:
    """Compress a store until so many entries are copied."""

    def stop(number: int, _: int) -> None:
        if number >= done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_store(store, **options, progress=stop)
    assert (store.with_name("store.compressing") / "store.db").exists()


def fill_otherwise(store: Path, count: int, model: Any = MODEL, **options: Any) -> list[NDArray[Any]]:
    """Index anew in place of a store: the same entries, with other vectors."""
    shutil.rmtree(store)
    others = [page(number, seed=99, rows=ROWS) for number in range(count)]
    with MultiVectorStore.open(store, model=model, **options) as opened:
        opened.add((record(number)[0], others[number]) for number in range(count))
    return others


@pytest.mark.parametrize("change", ["vectors", "page settings", "first stage"])
def test_a_copy_of_another_store_is_not_taken_up(tmp_path: Path, change: str) -> None:
    store, count = tmp_path / "store", 80
    fill(store, count)
    begin_a_copy(store, datatype="int8")
    model, options = MODEL, {}
    if change == "page settings":
        pages = replace(MODEL.fingerprint.pages, max_side=77)
        model = replace(MODEL, fingerprint=replace(MODEL.fingerprint, pages=pages))
    elif change == "first stage":
        options = {"first_stage": "exact"}
    expected = fill_otherwise(store, count, model, **options)
    made = stored_settings(store)
    assert made is not None and (made == Settings(model=MODEL, first_stage="ward")) == (change == "vectors")
    compress_store(store, datatype="int8", delete_old=True)
    assert stored_settings(store) == replace(made, datatype="int8")
    assert verify_store(store).ok
    with MultiVectorStore.open(store) as opened:
        for kept, vectors in zip(opened.vectors([str(n) for n in range(count)]), expected, strict=True):
            assert kept is not None
            np.testing.assert_allclose(kept, vectors, atol=0.03)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_copy_of_the_same_store_continues(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 80)
    begin_a_copy(store, datatype="int8")
    log = tmp_path / "store.compressing" / "store.db.copied"
    # Damage, and the beginning of a line.
    log.write_bytes(b"\xff\xfe\n" + b"[" * 100_000 + b"\n[[],1,2,3]\nnull\n" + log.read_bytes() + b'[65, "6')
    counts: list[int] = []
    compress_store(store, datatype="int8", progress=lambda done, _: counts.append(done))
    assert counts == [80]
    assert contents(store) == contents(tmp_path / "store.uncompressed") and len(contents(store)) == 80


def test_an_entry_that_is_copied_anew_is_not_taken_for_its_former_copy(tmp_path: Path) -> None:
    """A backup comes back after a copy of another store was begun over that of the backup."""
    store = tmp_path / "store"
    fill(store, 80)
    shutil.copytree(store, tmp_path / "backup")
    begin_a_copy(store, datatype="int8")
    fill_otherwise(store, 80, first_stage="ward")
    log = tmp_path / "store.compressing" / "store.db.copied"
    begin_a_copy(store, datatype="int8")
    # The process is killed before it writes its lines.
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-64]))
    shutil.rmtree(store)
    (tmp_path / "backup").rename(store)
    compress_store(store, datatype="int8")
    with MultiVectorStore.open(store) as opened:
        for number, kept in enumerate(opened.vectors([str(n) for n in range(80)])):
            assert kept is not None
            np.testing.assert_allclose(kept, page(number, rows=ROWS), atol=0.03)


def test_a_store_that_no_compression_has_begun_is_kept(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 3)
    fill(tmp_path / "store.compressing", 2, datatype="int8")
    with pytest.raises(StoreError, match=r"no compression of .* has begun; move that folder"):
        compress_store(store, datatype="int8")
    assert len(contents(tmp_path / "store.compressing")) == 2


def test_a_revision_that_is_learned_meanwhile_is_in_the_new_store(tmp_path: Path) -> None:
    from tests.stores.test_settings import LOADED, NAMED, stored

    store, learned = tmp_path / "store", stored(LOADED)
    vectors = np.eye(learned.dim, dtype=np.float32)[:2]
    with MultiVectorStore.open(store, model=stored(NAMED)) as opened:
        opened.add([(Entry(id="1"), vectors)], model=stored(NAMED))

    def learn(done: int, total: int) -> None:
        if total == 1:  # before the end, for which writers wait
            with MultiVectorStore.open(store) as opened:
                opened.add([(Entry(id="2"), vectors)], model=learned)

    compress_store(store, datatype="int8", progress=learn)
    made = stored_settings(store)
    assert made is not None and made.model.fingerprint == learned.fingerprint


def test_an_exchange_that_was_killed_between_two_renames_is_told_and_ended(tmp_path: Path) -> None:
    """Where a system cannot exchange two folders, there is none of the name for a moment."""
    store = tmp_path / "store"
    fill(tmp_path / "store.uncompressed", 3)
    (tmp_path / "store.uncompressed" / "store.db.former").touch()
    fill(tmp_path / "store.compressing", 3, datatype="int4")
    for read_only in (False, True):
        with pytest.raises(StoreError, match="its compression was interrupted; both stores are whole"):
            MultiVectorStore.open(store, model=MODEL, read_only=read_only)
    with pytest.raises(StoreError, match="interrupted"):
        stored_settings(store)
    assert not store.exists()
    report = compress_store(store, datatype="int4")
    assert (report.entries, report.old_path) == (3, tmp_path / "store.uncompressed")
    assert {path.name for path in tmp_path.iterdir()} == {"store", "store.uncompressed"}


def damage(store: Path) -> None:
    [block] = store.glob("full-*.block")
    data = bytearray(block.read_bytes())
    data[5] ^= 1
    block.write_bytes(data)


def test_the_old_store_of_a_damaged_one_is_kept(tmp_path: Path) -> None:
    store, old = tmp_path / "store", tmp_path / "store.uncompressed"
    fill(store, 3)
    compress_store(store, datatype="int8")
    damage(store)
    with pytest.raises(StoreError, match=r"full-.* so the former one in .*uncompressed is kept. Repair"):
        delete_old_store(store)
    with pytest.raises(StoreError, match="is kept"):
        compress_store(store, datatype="int8", delete_old=True)
    assert verify_store(old).ok and len(contents(old)) == 3
    # As the message says.
    shutil.rmtree(store)
    old.rename(store)
    assert compress_store(store, datatype="int8").entries == 3
    assert delete_old_store(store) > 0 and not old.exists()


def killed_after_the_exchange(place: Path) -> Path:
    """What is left of a compression that is killed before the former store gets its name."""
    fill(place / "store", 3, datatype="int8")
    (place / "store" / "store.db.copied").write_text("[1, 2]")
    fill(place / "store.compressing", 3)
    (place / "store.compressing" / "store.db.former").touch()
    return place / "store"


def test_a_former_store_that_has_not_its_name_yet_is_known(tmp_path: Path) -> None:
    store = killed_after_the_exchange(tmp_path)
    with pytest.raises(StoreError, match=r"uncompressed is there, the store before an earlier compression"):
        compress_store(store, datatype="int4")
    assert {path.name for path in tmp_path.iterdir()} == {"store", "store.uncompressed"}
    assert len(contents(tmp_path / "store.uncompressed")) == 3 and verify_store(store).leftovers == []
    assert delete_old_store(store) > 0
    assert compress_store(store, datatype="int4", delete_old=True).entries == 3
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_former_store_that_has_not_its_name_yet_is_deleted_on_request(tmp_path: Path) -> None:
    store = killed_after_the_exchange(tmp_path)
    assert delete_old_store(store) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_only_a_store_that_a_compression_has_left_is_deleted(tmp_path: Path) -> None:
    store, old = tmp_path / "store", tmp_path / "store.uncompressed"
    fill(store, 3, datatype="int8")
    fill(old, 3)
    for call in (
        lambda: delete_old_store(store),
        lambda: compress_store(store, datatype="int8", delete_old=True),
        lambda: compress_store(store, datatype="int4"),
    ):
        with pytest.raises(StoreError, match="is no store that a compression has left, and is kept"):
            call()
    assert len(contents(old)) == 3
    shutil.rmtree(old)
    compress_store(store, datatype="int4")
    (old / "store.db.txt").write_text("notes")
    with pytest.raises(StoreError, match=r"holds other files \(store\.db\.txt\), and is kept"):
        delete_old_store(store)
    assert len(contents(old)) == 3
    (old / "store.db.txt").unlink()
    assert delete_old_store(store) > 0 and not old.exists()


def test_another_store_in_the_place_of_copies_is_not_taken_for_the_former_one(tmp_path: Path) -> None:
    store, new = tmp_path / "store", tmp_path / "store.compressing"
    fill(store, 3, datatype="int8")
    fill(new, 2)  # it has more bits, as the former store has
    assert delete_old_store(store) == 0
    with pytest.raises(StoreError, match=r"no compression of .* has begun; move that folder"):
        compress_store(store, datatype="int4")
    assert len(contents(new)) == 2
    store.rename(tmp_path / "store.uncompressed")
    with pytest.raises(StoreError, match="there is no store in"):
        compress_store(store, datatype="int4")
    assert len(contents(new)) == 2


def test_a_copy_that_has_begun_is_not_deleted_as_the_former_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 80)
    begin_a_copy(store, datatype="int8")
    assert delete_old_store(store) == 0
    assert len(contents(tmp_path / "store.compressing")) == 64


def test_a_damaged_store_is_not_compressed(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 3)
    damage(store)
    with pytest.raises(StoreError, match="repair"):
        compress_store(store, datatype="int4")
    assert stored_settings(store) == Settings(model=MODEL, first_stage="ward")


EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "sqlite3.connect", "ctypes.dlsym")


def killed_at(path: Path, event: int) -> bool:
    """Compress a store in a process that kills itself before its event of this number; False if it ends before."""
    code = """
        import os, signal, sys
        from pathlib import Path
        import colpali_integrations.stores as stores
        import onnx, scipy.cluster.hierarchy
        folder, last, names = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
        seen = 0
        def hook(event, arguments):
            global seen
            if event in names and (event in ("ctypes.dlsym", "sqlite3.connect") or folder in str(arguments[0])):
                if seen == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1
        sys.addaudithook(hook)
        stores.compress_store(folder, datatype="int4", pool_factor=2, delete_old=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path), str(event), ",".join(EVENTS)]
    process = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert process.returncode in (0, -9), process.stderr
    return process.returncode != 0


def whole(path: Path, expected: dict[str, Entry]) -> bool:
    try:
        return verify_store(path).ok and contents(path) == expected
    except ColPaliError:
        return False


def every(steps: int, start: int = 0) -> Iterator[int]:
    number = start
    while True:
        yield number
        number += steps


@pytest.mark.slow
def test_a_compression_that_is_killed_leaves_every_store_whole(tmp_path: Path) -> None:
    check_kills(tmp_path, every(1))


def test_a_compression_that_is_killed_now_and_then_leaves_every_store_whole(tmp_path: Path) -> None:
    check_kills(tmp_path, every(23, 11))


def check_kills(tmp_path: Path, events: Iterator[int]) -> None:
    fill(tmp_path / "template", 5)
    expected = contents(tmp_path / "template")
    after = replace(Settings(model=MODEL, first_stage="ward"), datatype="int4", pool_factor=2)
    for event in events:
        place = tmp_path / str(event)
        shutil.copytree(tmp_path / "template", place / "store")
        killed = killed_at(place / "store", event)
        stores = [place / "store", place / "store.uncompressed", place / "store.compressing"]
        # There is a whole store under the name, the old or the new one; and the old one until the new one is there.
        assert whole(stores[0], expected), event
        if stored_settings(stores[0]) != after:
            assert stored_settings(stores[0]) == Settings(model=MODEL, first_stage="ward")
        # Another run ends what was begun.
        compress_store(stores[0], datatype="int4", pool_factor=2, delete_old=True)
        assert whole(stores[0], expected) and stored_settings(stores[0]) == after
        assert [path.name for path in place.iterdir()] == ["store"], event
        if not killed:
            return
