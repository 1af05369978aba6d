"""The index of centroids of a store in a folder: what it holds, what a search finds by it, and its damage."""

from __future__ import annotations

import contextlib
import sqlite3
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores import MultiVectorStore, SearchOptions, verify_store
from colpali_integrations.stores.embedded.catalogue import Segment, segments_of
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.embedded.segments import Sizes
from colpali_integrations.stores.settings import Settings
from tests.scoring.test_centroids import words
from tests.stores.backends import DIM, MODEL, entry, page

SIZES = Sizes(least=100, most=800, scored=300)
QUERY = page(0, seed=7, rows=4)


def opened(folder: Path, sizes: Sizes = SIZES, *, read_only: bool = False) -> MultiVectorStore:
    settings = Settings(model=MODEL, first_stage="centroids")
    engine = FolderEngine(
        folder, schema=settings.schema, manifest=settings.to_dict(), segment_sizes=sizes, read_only=read_only
    )
    return MultiVectorStore(engine, settings)


def segments(folder: Path) -> list[Segment]:
    with contextlib.closing(sqlite3.connect(folder / "store.db")) as connection:
        return segments_of(connection)


def places(folder: Path) -> dict[int, int]:
    """Number of vectors by number of the entry."""
    with contextlib.closing(sqlite3.connect(folder / "store.db")) as connection:
        return dict(connection.execute("SELECT entry, length FROM places WHERE layer = 0"))


def add(store: MultiVectorStore, numbers: range) -> None:
    store.add((entry(number), page(number)) for number in numbers)


def exact(store: MultiVectorStore, k: int = 10) -> dict[str, float]:
    return {hit.id: hit.score for hit in store.search(QUERY, k, mode="exact")}


def staged(store: MultiVectorStore, k: int = 10, **options: object) -> dict[str, float]:
    hits = store.search(QUERY, k, mode="two_stage", oversampling=1.0, **options)  # type: ignore[arg-type]
    return {hit.id: hit.score for hit in hits}


def test_a_search_in_two_stages_finds_most_of_the_best_with_exact_scores(tmp_path: Path) -> None:
    pages = words(400, 1, dim=DIM, kinds=100)
    with opened(tmp_path, Sizes(least=1000, most=8000, scored=1000)) as store:
        store.add((entry(number), vectors.astype(np.float32)) for number, vectors in enumerate(pages))
        assert segments(tmp_path)
        shares = []
        for vectors in pages[::40]:
            query = vectors[:4].astype(np.float32)
            scores = {hit.id: hit.score for hit in store.search(query, 400, mode="exact")}
            found = store.search(query, 10, mode="two_stage", oversampling=1.0)
            shares.append(len({hit.id for hit in found} & set(list(scores)[:10])) / 10)
            assert all(abs(scores[hit.id] - hit.score) < 1e-5 for hit in found)
        assert np.mean(shares) >= 0.9


def test_estimates_decide_between_indexed_entries_only(tmp_path: Path) -> None:
    sizes = Sizes(least=10**6, most=10**7, scored=1)
    with opened(tmp_path, sizes) as store:
        add(store, range(100))
        store.optimize()
        worst = min(exact(store, 100), key=exact(store, 100).__getitem__)
        add(store, range(100, 130))
        late = {f"page {number}" for number in range(100, 130)}
        found = staged(store, 40)
        # All entries behind the last segment are scored, beside as many of the others as were asked for.
        assert {id_: one for id_, one in exact(store, 130).items() if id_ in late}.items() >= {
            id_: one for id_, one in found.items() if id_ in late
        }.items()
        assert len(found) == 40
        assert worst not in found


def test_indexed_entries_are_not_all_read(tmp_path: Path) -> None:
    with opened(tmp_path, Sizes(least=10**6, most=10**7, scored=1)) as store:
        add(store, range(300))
        store.optimize()
        assert len(segments(tmp_path)) == 1
        best = [staged(store, k) for k in (1, 5, 20)]
        assert [len(one) for one in best] == [1, 5, 20]
        assert exact(store, 5) != best[1], "two stages of five candidates find the five best by chance only"


def test_filters_and_ids_hold_in_both_stages(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        add(store, range(400))
        found = staged(store, 10, where={"even": True})
        assert len(found) == 10
        assert all(int(id_.split()[1]) % 2 == 0 for id_ in found)
        assert len(staged(store, 10, where={"page": 7})) == 1


@pytest.mark.parametrize("seed", range(4))
def test_segments_follow_the_entries(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    number = 0
    with opened(tmp_path) as store:
        for _ in range(40):
            ids = [one.id for one in store.scroll()]
            if ids and random.random() < 0.5:
                # First in, first out, or at random, as the seed decides.
                count = random.randint(1, max(1, len(ids) // 2))
                store.delete(ids[:count] if seed % 2 else random.sample(ids, count))
            added = random.randint(1, 40)
            add(store, range(number, number + added))
            number += added
            made, vectors = segments(tmp_path), places(tmp_path)
            last = made[-1].last if made else 0
            assert sum(length for one, length in vectors.items() if one > last) < SIZES.least
            assert all(one.last < two.first for one, two in pairwise(made))
            assert all(one.vectors <= SIZES.most for one in made)
            covered = {one for one in vectors if any(two.first <= one <= two.last for two in made)}
            assert covered == {one for one in vectors if one <= last}
            # A large segment may have lost half of its vectors, and few small ones lie between two large ones.
            assert len(made) <= 5 + 6 * (1 + sum(vectors.values()) // (SIZES.most // 4))
            everything = exact(store, 1000)
            assert staged(store, 1000) == everything
            assert all(abs(everything[id_] - score) < 1e-5 for id_, score in staged(store).items())
        assert store.verify().ok
        store.delete([one.id for one in store.scroll()])
        add(store, range(number, number + 30))
        assert len(segments(tmp_path)) == 1, "segments without entries are given up"


def test_other_processes_and_read_only_stores_see_the_index(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        add(store, range(200))
        with opened(tmp_path, read_only=True) as reader:
            assert staged(reader) == staged(store)
            add(store, range(200, 500))
            store.delete([f"page {number}" for number in range(150)])
            add(store, range(500, 700))
            assert staged(reader) == staged(store)
            assert len(reader) == 550


def test_a_reader_gives_up_the_maps_of_removed_files(tmp_path: Path) -> None:
    with opened(tmp_path) as store, opened(tmp_path, read_only=True) as reader:
        for start in range(0, 1200, 50):
            add(store, range(start, start + 50))
            store.delete([f"page {number}" for number in range(start)])
            assert len(staged(reader, 50)) == 50
        maps = Path("/proc/self/maps")
        if maps.exists():
            lines = maps.read_text(encoding="utf-8").splitlines()
            removed = [line for line in lines if str(tmp_path) in line and "deleted" in line]
            assert len(removed) <= 3, removed


def test_a_small_store_has_no_segments(tmp_path: Path) -> None:
    with MultiVectorStore.open(tmp_path, model=MODEL, first_stage="centroids") as store:
        add(store, range(100))
        assert segments(tmp_path) == []
        assert staged(store) == exact(store)
        store.optimize()
        assert len(segments(tmp_path)) == 1
        assert staged(store) == exact(store), "as many vectors are scored as there are"
    with MultiVectorStore.open(tmp_path) as again:
        assert again.settings.first_stage == "centroids"
        assert staged(again) == exact(again)


def test_damage_is_found_and_repaired(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        add(store, range(300))
        truth = exact(store, 300)
    made = segments(tmp_path)
    assert len(made) >= 3
    for number, one in enumerate(made):
        path = tmp_path / f"centroids-{one.file:08d}.block"
        whole = path.read_bytes()
        random = np.random.default_rng(number)
        for position in [0, 9, *random.integers(0, len(whole), 12).tolist()]:
            data = bytearray(whole)
            data[position] ^= 0xFF
            path.write_bytes(data)
            [problem] = verify_store(tmp_path).problems
            assert problem.file == path.name
            with opened(tmp_path, SIZES._replace(scored=1)) as store, contextlib.suppress(StoreError):
                assert staged(store).items() <= truth.items()
            path.write_bytes(whole)
    middle = tmp_path / f"centroids-{made[1].file:08d}.block"
    middle.unlink()
    with opened(tmp_path, SIZES._replace(scored=1)) as store:
        with pytest.raises(StoreError, match=f"{made[1].file}"):
            staged(store)
        assert exact(store, 300) == truth
        report = store.repair()
        assert report.lost == []
        assert segments(tmp_path) == made[:1]
        assert exact(store, 300) == truth
        assert staged(store, 300) == truth
        add(store, range(300, 302))
        assert segments(tmp_path)[-1].last > made[-1].last, "the other segments are made again"
        assert store.verify().ok


def test_a_backup_has_the_index(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        add(store, range(300))
        store.backup(tmp_path / "copy")
        with opened(tmp_path / "copy") as copy:
            assert staged(copy) == staged(store)
    assert segments(tmp_path / "copy") == segments(tmp_path / "store") != []


def test_batches_answer_as_single_searches(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        add(store, range(400))
        queries = [page(number, seed=9, rows=3) for number in range(5)]
        options = SearchOptions(k=5, mode="two_stage", oversampling=1.0)
        batch = store.search_batch(queries, options)
        for query, hits in zip(queries, batch, strict=True):
            single = store.search(query, 5, mode="two_stage", oversampling=1.0)
            assert [hit.id for hit in hits] == [hit.id for hit in single]


@pytest.mark.parametrize("place", ["memory", "server"])
def test_other_engines_refuse_it(place: str) -> None:
    options: dict[str, Any] = {} if place == "memory" else {"url": ":memory:"}
    with pytest.raises(ConfigurationError, match="'centroids'"):
        MultiVectorStore.open(model=MODEL, first_stage="centroids", **options)
