"""Damage to closed stores: each byte of a step is flipped, and the store is read, verified and repaired.

Run `python -m tests.stores.embedded.flips [STEP]` for the figures; the tests use a larger step.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colpali_integrations.errors import StoreError
from colpali_integrations.stores import MultiVectorStore, SearchOptions, repair_store, verify_store
from tests.stores.backends import MODEL, entry, page

QUERY = page(0, seed=7, rows=4)
ENTRIES = 20


def make(folder: Path, first_stage: Any = "ward") -> None:
    """A store of `ENTRIES` pages of three documents, in which pages were replaced and removed."""
    with MultiVectorStore.open(folder, model=MODEL, first_stage=first_stage, first_vectors=4) as store:
        store.add((entry(number), page(number)) for number in range(ENTRIES + 2))
        store.delete([f"page {ENTRIES}", f"page {ENTRIES + 1}"])
        store.add((entry(number), page(number)) for number in range(3))
        if first_stage == "centroids":
            store.optimize()


def answers(folder: Path) -> dict[str, Any]:
    """Everything that can be asked, by kind."""
    with MultiVectorStore.open(folder) as store:
        entries = {one.id: one for one in store.scroll()}
        found: dict[str, Any] = {
            "length": len(store),
            "entries": entries,
            "hashes": store.hashes(),
            "documents": store.documents(),
            "vectors": {id_: one.tobytes() for id_ in entries for one in store.vectors([id_]) if one is not None},
            "filtered": sorted(one.id for one in store.scroll({"$document": "1.pdf"})),
            "got": store.get([f"page {number}" for number in range(ENTRIES + 2)]),
        }
        for name, options in (
            ("exact", SearchOptions(k=30, mode="exact")),
            ("two stages", SearchOptions(k=5, mode="two_stage")),
            ("hybrid", SearchOptions(k=30, hybrid=True)),
        ):
            [hits] = store.search_batch([QUERY], options, texts=["text of page 7"])
            found[name] = {hit.id: (round(hit.score, 4), hit.bm25 and round(hit.bm25, 4)) for hit in hits}
    return found


def damaged(folder: Path, step: int) -> Iterator[tuple[str, int, Path]]:
    """Copies of a store with one byte flipped each: file name, position and folder of the copy, made anew each time."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "store"
        for path in sorted(folder.iterdir()):
            for position in range(0, path.stat().st_size, step):
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(folder, copy)
                data = bytearray(path.read_bytes())
                data[position] ^= 0xFF
                (copy / path.name).write_bytes(data)
                yield path.name, position, copy


def outcome(folder: Path, expected: dict[str, Any]) -> str:
    """The effect of damage on reads, and whether `verify` reports it; "SILENT" if only the answers show it."""
    try:
        same = answers(folder) == expected
        read = "same" if same else "differs"
    except StoreError:
        read = "error"
    report = verify_store(folder)
    if read == "differs" and report.ok:
        return "SILENT"
    return f"{read}, {'sound' if report.ok else 'reported'}"


def repaired(folder: Path, expected: dict[str, Any]) -> int:
    """Repair a store, check that it is sound and lacks the reported entries only, and return their number."""
    report = repair_store(folder)
    after = verify_store(folder)
    assert after.ok, after.problems
    lost = {one.id for one in report.lost}
    found = answers(folder)
    assert found["length"] == report.kept
    assert found["entries"] == {id_: one for id_, one in expected["entries"].items() if id_ in found["entries"]}
    unreported = expected["entries"].keys() - found["entries"].keys() - lost
    assert len(unreported) <= sum(one.id is None for one in report.lost), (unreported, report)
    assert found["vectors"] == {id_: one for id_, one in expected["vectors"].items() if id_ in found["vectors"]}
    assert found["exact"] == {id_: one for id_, one in expected["exact"].items() if id_ in found["entries"]}
    with MultiVectorStore.open(folder) as store:
        store.add((entry(number), page(number)) for number in range(ENTRIES))
    assert verify_store(folder).ok
    assert {key: value for key, value in answers(folder).items() if key != "got"} == {
        key: value for key, value in expected.items() if key != "got"
    }
    return len(report.lost)


def main(step: int = 37) -> None:
    for first_stage in ("ward", "int8", "centroids"):
        counts: Counter[str] = Counter()
        losses: Counter[int] = Counter()
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "store"
            make(folder, first_stage)
            expected = answers(folder)
            for name, position, copy in damaged(folder, step):
                try:
                    result = outcome(copy, expected)
                    counts[f"{name.partition('-0')[0]}: {result}"] += 1
                    if not result.endswith("sound"):
                        losses[repaired(copy, expected)] += 1
                except Exception as error:
                    print(name, position, type(error).__name__, str(error)[:300], flush=True)  # noqa: T201
                    counts["FAILED"] += 1
        print(first_stage, *sorted(counts.items()), "lost:", *sorted(losses.items()), sep="\n")  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
