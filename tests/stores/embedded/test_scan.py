"""Searches of a folder's vectors: many at once give the scores of each alone, whatever they share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import max_sim
from colpali_integrations.errors import StoreError
from colpali_integrations.scoring._blocks import LIMITS
from colpali_integrations.scoring.bm25 import Bm25
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.embedded.blocks import BlockFiles, Layer
from colpali_integrations.stores.embedded.catalogue import Places
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.embedded.scan import max_sim_scores, vectors_matcher
from colpali_integrations.stores.engine import FIRST, FULL, WORDS, Point, Search, VectorSpec
from colpali_integrations.stores.filters import parse_filter
from tests.stores.backends import DIM, MODEL, entry, page

SCHEMA = {
    FULL: VectorSpec(dim=DIM, quantization="int8"),
    FIRST: VectorSpec(dim=DIM, coarse=True),
    "single": VectorSpec(dim=3, multi=False),
}


def point(number: int) -> Point:
    """A point; each fifth one lacks the vectors of the first stage, each third one the single vector."""
    half = page(number).astype(np.float16)
    vectors: dict[str, Any] = {FULL: half}
    if number % 5:
        vectors[FIRST] = half[:2]
    if number % 3:
        vectors["single"] = np.array([number, 1, -number], np.float32)
    words = Bm25().document(f"page {number} harbour" if number % 2 else f"page {number}")
    return Point(str(number), vectors, words, {"id": str(number), "metadata": {"even": number % 2 == 0}})


def searches() -> list[Search]:
    """Searches of many kinds; those of one kind share their filter, or have an equal one of their own."""
    even, odd = parse_filter({"even": True}), parse_filter({"even": False})
    made = []
    for number in range(4):
        query, rows = page(number, seed=8, rows=number + 1), Random(number).randint(1, 6)
        scan = Search(query=query[:1], using=FIRST, limit=9)
        single = np.array([number, 2, 1], np.float32)
        made += [
            Search(query=query, limit=7),
            Search(query=query, limit=rows, where=even),
            Search(query=query, limit=7, where=odd, scores_only=True),
            Search(query=query, limit=7, where=parse_filter({"even": True})),
            Search(query=query, limit=7, using=FIRST),
            Search(query=query, limit=7, ids=["3", "5", "30", "nowhere"]),
            Search(query=query, limit=7, prefetch=scan),
            Search(query=query, limit=7, prefetch=scan, where=even),
            Search(query=query, limit=3, oversampling=2.0),
            Search(query=query, limit=3, oversampling=50.0),
            Search(query=single, limit=7, using="single"),
            Search(query=query, limit=7, prefetch=Search(query=single, using="single", limit=8)),
            Search(query=Bm25().query("harbour 7"), using=WORDS, limit=7, where=odd),
            Search(query=query, limit=0),
        ]
    return made


@pytest.mark.parametrize("copies", ["int8", "int4", "int2", "binary", "centroids"])
def test_searches_of_all_kinds_answer_together_as_alone(tmp_path: Path, copies: str) -> None:
    schema = {**SCHEMA, FULL: VectorSpec(dim=DIM, quantization=copies)}
    engine = FolderEngine(tmp_path, schema=schema, manifest={"format": 4})
    assert engine.search(searches())[:3] == [[], [], []], "an empty store"
    engine.upsert([point(number) for number in range(60)])
    made = searches()
    Random(1).shuffle(made)
    together = engine.search(made)
    for search, found in zip(made, together, strict=True):
        [alone] = engine.search([search])
        assert [(one.id, one.payload) for one in found] == [(one.id, one.payload) for one in alone]
        assert [one.score for one in found] == pytest.approx([one.score for one in alone], rel=1e-6, abs=1e-6)
    assert sum(map(bool, together)) == len(made) - 4
    engine.close()


def test_scores_that_are_no_numbers_are_damage(tmp_path: Path) -> None:
    engine = FolderEngine(tmp_path, schema=SCHEMA, manifest={})
    engine.upsert([point(number) for number in range(4)])
    [block] = tmp_path.glob("full-0*.block")
    content = bytearray(block.read_bytes())
    content[:2] = np.float16(np.nan).tobytes()
    block.write_bytes(content)
    with pytest.raises(StoreError, match="a score is not a number; verify the store"):
        engine.search([Search(query=page(1, rows=3), limit=2)])
    engine.close()


@pytest.mark.parametrize("matches", [1, 40, 200, 2**24])
def test_the_bound_of_memory_changes_no_score(tmp_path: Path, matches: int) -> None:
    pages = [page(number).astype(np.float16) for number in range(30)]
    files, layer = BlockFiles(tmp_path), Layer(FULL, np.float16, DIM)
    written = files.append(layer, dict(enumerate(pages)), None, 1, 1 << 20)
    columns = np.array([tuple(written[number])[:3] for number in range(30)]).T
    queries = [page(number, seed=4, rows=rows) for number, rows in enumerate((1, 9, 2, 5))]
    positions = np.array([*range(29, 0, -2), 4])
    limits = LIMITS._replace(matches=matches)
    scores = max_sim_scores(queries, vectors_matcher(files, layer, Places(*columns)), positions, limits)
    truth = max_sim(queries, [pages[position] for position in positions])
    np.testing.assert_allclose(scores, truth, rtol=1e-6, atol=1e-6)


class Meanwhile:
    """A query before whose vectors are read something else happens, `times` times at most."""

    def __init__(self, act: Callable[[int], object], times: int) -> None:
        self.act, self.times, self.calls = act, times, 0

    def __len__(self) -> int:
        return 2

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls <= self.times:
            self.act(self.calls)
        return page(1, seed=8, rows=2)


@pytest.mark.parametrize("times", [0, 1, 10])
def test_hits_are_those_of_one_state_while_metadata_change(tmp_path: Path, times: int) -> None:
    """Another store changes metadata and adds an entry between the choice of the entries and the reading of theirs."""
    with MultiVectorStore.open(tmp_path, model=MODEL) as store, MultiVectorStore.open(tmp_path) as other:
        store.add((entry(number, metadata={"tag": 0}), page(number)) for number in range(9))

        def act(call: int) -> None:
            other.update_metadata("1.pdf", {"tag": call})
            other.add([(entry(10 * call, document_id="new", metadata={"tag": 0}), page(call))])

        query: Any = Meanwhile(act, times)
        [found] = store._engine.search([Search(query=query, limit=99, where=parse_filter({"tag": 0}))])
        assert query.calls == times + 1
        assert {one.payload["metadata"]["tag"] for one in found} == {0}
        known = {f"page {n}" for n in range(9) if not times or n % 3 != 1}
        assert {one.id for one in found} == known | {f"page {10 * n}" for n in range(1, times + 1)}
