"""A life of a store: changes that a seed decides, the states between them, and the check of a folder against states.

A state maps the number of an entry to its version. Number and version decide an entry's vectors, words and metadata, so
that every state can be computed without the store. A version is that of the content, below `TAG`, plus `TAG` times a
number that only the metadata contain: a change of a document's metadata changes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.embedded.segments import Sizes
from colpali_integrations.stores.search import Mode
from colpali_integrations.stores.settings import FirstStage, Settings
from tests.stores.stored_models import made_up

__all__ = [
    "MODEL",
    "STAGES",
    "Change",
    "State",
    "answers",
    "apply",
    "check",
    "life",
    "open_store",
    "problems",
    "records",
    "right_answers",
    "state_of",
    "two_stages",
    "verified",
    "versions",
    "warm_up",
]

State: TypeAlias = "Mapping[int, int]"
DIM = 16
MODEL = made_up("faults", dim=DIM)
STAGES: tuple[FirstStage, ...] = ("rows", "int8", "exact", "muvera", "centroids")
# Small enough that a few changes lead to a compaction.
SMALLEST_BYTES = 8192
# So small that a few changes lead to segments of the index, and that a search in two stages needs them.
SEGMENT_SIZES = Sizes(least=60, most=400, scored=1)
TAG = 10**6
_DOCUMENTS = 3
_WORDS = ("harbour", "tide", "lamp", "rope", "anchor", "gull", "buoy", "mast", "keel", "cove", "reef", "sail")


class Change(NamedTuple):
    """Entries that are stored by number and version, numbers that are deleted, or a document and its new tag."""

    added: dict[int, int]
    deleted: list[int]
    tagged: tuple[int, int] | None = None

    def parts(self) -> list[Change]:
        """The changes that an exception in the middle leaves: the records before it are stored."""
        return [Change(dict(list(self.added.items())[:count]), []) for count in range(1, len(self.added))]

    def after(self, state: State) -> dict[int, int]:
        after = {number: version for number, version in {**state, **self.added}.items() if number not in self.deleted}
        if self.tagged is not None:
            document, tag = self.tagged
            after |= {one: after[one] % TAG + TAG * tag for one in after if one % _DOCUMENTS == document}
        return after


def life(state: State, seed: int, *, largest: int = 30) -> Iterator[Change]:
    """Changes without end, from a state on."""
    random = Random(seed)
    now = dict(state)
    while True:
        known = sorted(now)
        if len(known) > largest or (known and random.random() < 0.4):
            change = Change({}, random.sample(known, random.randint(1, max(1, len(known) * 2 // 3))))
        elif known and random.random() < 0.3:
            change = Change({}, [], (random.choice(known) % _DOCUMENTS, random.randrange(10**6)))
        else:
            old = random.sample(known, min(len(known), random.randint(0, 2)))
            numbers = [*old, *(random.randrange(10**6) for _ in range(random.randint(1, 4)))]
            change = Change({number: random.randrange(TAG) for number in numbers}, [])
        now = change.after(now)
        yield change


def open_store(folder: Path, stage: FirstStage = "rows") -> MultiVectorStore:
    """Open a store whose files are small, or make it."""
    settings = Settings(model=MODEL, first_stage=stage)
    engine = FolderEngine(
        folder,
        schema=settings.schema,
        manifest=settings.to_dict(),
        smallest_bytes=SMALLEST_BYTES,
        segment_sizes=SEGMENT_SIZES,
    )
    return MultiVectorStore(engine, Settings.from_dict(engine.manifest, where=engine.where))


def apply(store: MultiVectorStore, change: Change) -> None:
    if change.added:
        store.add(records(change.added))
    if change.deleted:
        store.delete([_id(number) for number in change.deleted])
    if change.tagged is not None:
        document, tag = change.tagged
        store.update_metadata(_document(document), {"tag": tag, "late": tag % 2 == 1})


def records(state: State) -> list[tuple[Entry, NDArray[np.float32]]]:
    return [(_entry(number, version), _vectors(number, version)) for number, version in state.items()]


def state_of(store: MultiVectorStore) -> dict[int, int]:
    """The state of a store according to its entries' metadata."""
    return versions(store.scroll())


def versions(entries: Iterable[Entry]) -> dict[int, int]:
    """The state of entries according to their metadata."""
    return {one.metadata["number"]: one.metadata["version"] + TAG * one.metadata["tag"] for one in entries}


def problems(store: MultiVectorStore, states: Sequence[State]) -> list[str]:
    """Compare all that a store answers with the first of the states that its entries fit."""
    found = state_of(store)
    if found not in states:
        nearest = min(states, key=lambda state: len(set(state.items()) ^ set(found.items())))
        lost = sorted(nearest.items() - found.items())
        risen = sorted(found.items() - nearest.items())
        return [f"lost {lost}, too many {risen}, of {len(nearest)} entries and {len(states)} states"]
    wrong = []
    if len(store) != len(found):
        wrong.append(f"count is {len(store)}, not {len(found)}")
    numbers = sorted(found)
    ids = [_id(number) for number in numbers]
    for number, entry, vectors in zip(numbers, store.get(ids), store.vectors(ids), strict=True):
        expected = _entry(number, found[number])
        if entry is None or (entry.metadata, entry.text) != (expected.metadata, expected.text):
            wrong.append(f"entry {number} is {entry}")
        if vectors is None or not np.array_equal(vectors, _vectors(number, found[number])):
            wrong.append(f"the vectors of entry {number} are others")
    for got, right in zip(answers(store), right_answers(frozenset(found.items())), strict=True):
        if got.keys() != right.keys():
            wrong.append(f"a search finds {len(got)} entries, not {len(right)}")
        elif any(abs(got[id_] - right[id_]) > 1e-3 for id_ in got):
            wrong.append("a search has other scores")
    right = right_answers(frozenset(found.items()))[0]
    if any(abs(right.get(id_, np.inf) - score) > 1e-3 for id_, score in two_stages(store).items()):
        wrong.append("a search in two stages has other scores")
    return wrong


@lru_cache(maxsize=256)
def right_answers(state: frozenset[tuple[int, int]]) -> list[dict[str, float]]:
    """The answers of the store in memory; a forked process has those that were computed before the fork."""
    with MultiVectorStore.open(model=MODEL) as memory:
        memory.add(records(dict(state)))
        return answers(memory)


def answers(store: MultiVectorStore) -> list[dict[str, float]]:
    """Scores by id of an exact search, of one by words and of two with a filter."""
    query = _vectors(-1, 7)[:3]
    words = {"hybrid": 1.0, "text": "harbour lamp"}
    searches: list[dict[str, Any]] = [{}, words, {"where": {"even": True}}, {"where": {"late": True}}]
    return [
        {hit.entry.id: hit.score for hit in store.search(query, 1000, mode="exact", **options)} for options in searches
    ]


def two_stages(store: MultiVectorStore) -> dict[str, float]:
    """Scores by id of a search in two stages, or in one for a store without a first stage."""
    mode: Mode = "exact" if store.settings.first_stage == "exact" else "two_stage"
    return {hit.entry.id: hit.score for hit in store.search(_vectors(-1, 7)[:3], 5, mode=mode, oversampling=1.0)}


def check(folder: Path, states: Sequence[State], stage: FirstStage = "rows") -> tuple[list[str], dict[int, int]]:
    """Open a folder, compare it with states, and change it once; the problems, and its state."""
    found: dict[int, int] = {}
    try:
        with open_store(folder, stage) as store:
            found = state_of(store)
            wrong = problems(store, states)
            wrong += [f"verify: {one}" for one in verified(store)]
            extra = Change({-5: 1}, [])
            apply(store, extra)
            wrong += problems(store, [extra.after(found)])
            apply(store, Change({}, [-5]))
        with open_store(folder, stage) as store:
            wrong += problems(store, [found])
    except Exception as error:
        return [f"{type(error).__name__}: {error}"], found
    return wrong, found


def verified(store: MultiVectorStore) -> list[str]:
    """The problems that `verify` finds."""
    return [str(one) for one in store.verify().problems]


def warm_up(folder: Path) -> None:
    """Import and prepare all that a search needs, so that forks of this process begin at once."""
    for store in (MultiVectorStore.open(model=MODEL), open_store(folder)):
        with store:
            store.add(records({1: 1}))
            answers(store)


def _id(number: int) -> str:
    return f"entry {number}"


def _document(number: int) -> str:
    return f"document {number}"


@lru_cache(maxsize=4096)
def _entry(number: int, version: int) -> Entry:
    tag, version = divmod(version, TAG)
    random = Random(f"{number} {version}")
    metadata = {"number": number, "version": version, "even": number % 2 == 0, "page": number, "source": "a.pdf"}
    return Entry(
        id=_id(number),
        text=" ".join(random.choices(_WORDS, k=random.randint(1, 30))),
        metadata={**metadata, "tag": tag, "late": tag % 2 == 1},
        document_id=_document(number % _DOCUMENTS),
        content_hash=f"{number} {version}",
    )


@lru_cache(maxsize=4096)
def _vectors(number: int, version: int) -> NDArray[np.float32]:
    random = np.random.default_rng((number & 0xFFFF_FFFF, version % TAG))
    vectors = random.standard_normal((int(random.integers(3, 40)), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16).astype(np.float32)
