"""A store in a folder: it survives kill -9, is shared by processes, and keeps its vectors once."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from colpali_integrations import max_sim
from colpali_integrations.errors import StoreError
from colpali_integrations.stores import MultiVectorStore, stored_settings
from colpali_integrations.stores.embedded import manifest
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.embedded.manifest import read_manifest
from tests.stores.backends import BACKENDS, DIM, MODEL, Open, entry, opening, page

QUERY = page(0, seed=7, rows=4)
ROOT = Path(__file__).parents[3]


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def test_a_store_that_appears_while_it_is_looked_for_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_it(folder: Path) -> None:  # between the look for the database and that for its blocks
        monkeypatch.setattr(manifest, "refuse_between", lambda folder: None)
        with MultiVectorStore.open(folder, model=MODEL) as store:
            store.add([(entry(0), page(0))])

    monkeypatch.setattr(manifest, "refuse_between", make_it)
    stored = read_manifest(tmp_path / "store")
    assert stored == read_manifest(tmp_path / "store") is not None


def test_entries_are_readable_in_another_process(tmp_path: Path) -> None:
    with MultiVectorStore.open(tmp_path, model=MODEL, first_stage="ward") as store:
        store.add((entry(number), page(number)) for number in range(70))
        expected = [(hit.id, hit.score) for hit in store.search(QUERY, 5)]
    process = start(
        """
        import json, sys
        from colpali_integrations.stores import MultiVectorStore
        from tests.stores.backends import page
        with MultiVectorStore.open(sys.argv[1]) as store:
            found = store.search(page(0, seed=7, rows=4), 5)
            print(json.dumps([len(store), store.settings.first_stage, [(hit.id, hit.score) for hit in found]]))
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out) == [70, "ward", [list(one) for one in expected]]


def test_a_garbage_collected_store_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[object] = [MultiVectorStore.open(tmp_path / "first", model=MODEL)]
    left.append(left)  # a cycle: nothing but the collector ends it
    del left

    def collect(*arguments: Any, **options: Any) -> str:
        gc.collect()
        return dumps(*arguments, **options)

    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", collect)  # in the middle of the opening
    opened: list[MultiVectorStore] = []
    thread = threading.Thread(
        target=lambda: opened.append(MultiVectorStore.open(tmp_path / "second", model=MODEL)), daemon=True
    )
    thread.start()
    thread.join(60)
    assert opened, "it waits for its own lock"
    opened[0].close()
    monkeypatch.undo()
    with MultiVectorStore.open(tmp_path / "first") as again:
        assert len(again) == 0


@pytest.mark.slow
def test_kill_9_loses_at_most_the_batch_in_flight(tmp_path: Path) -> None:
    process = start(
        """
        import sys
        from colpali_integrations.stores import MultiVectorStore
        from tests.stores.backends import MODEL, entry, page
        store = MultiVectorStore.open(sys.argv[1], model=MODEL, first_stage="ward", first_vectors=4)
        number = 0
        while True:
            number += store.add([(entry(n), page(n)) for n in range(number, number + 10)])
            print(number, flush=True)
        """,
        tmp_path,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 300:
            break
    process.kill()
    # What it said before it died, it had stored.
    said = [int(line) for line in process.stdout if line.endswith("\n")]
    process.communicate(timeout=60)
    stored = max([300, *said])
    with MultiVectorStore.open(tmp_path) as store:
        held = len(store)
        assert stored <= held <= stored + 10
        assert held % 10 == 0, "a batch is stored whole or not at all"
        assert set(store.hashes()) == {f"page {number}" for number in range(held)}
        found = store.search(QUERY, held)
        truth = max_sim(QUERY, [page(number) for number in range(held)])
        assert len(found) == held, "nothing half-written: each has its vectors"
        for hit in found:
            assert hit.score == pytest.approx(truth[int(hit.id.split()[1])], abs=5e-3)
            assert hit.entry == entry(int(hit.id.split()[1]))
        store.add([(entry(held), page(held))])
        assert len(store) == held + 1


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store in tmp_path open, and adds a page for each line of its input."""
    process = start(
        """
        import sys
        from colpali_integrations.stores import MultiVectorStore
        from tests.stores.backends import MODEL, entry, page
        with MultiVectorStore.open(sys.argv[1], model=MODEL) as store:
            print("open", flush=True)
            for line in sys.stdin:
                store.add([(entry(int(line)), page(int(line)))])
                print(len(store), flush=True)
        """,
        tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.communicate()


def add(owner: subprocess.Popen[str], number: int) -> int:
    assert owner.stdin is not None
    assert owner.stdout is not None
    owner.stdin.write(f"{number}\n")
    owner.stdin.flush()
    return int(owner.stdout.readline())


def test_processes_share_a_folder(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    with MultiVectorStore.open(tmp_path) as store:
        assert len(store) == 0
        assert store.search(QUERY) == []
        assert add(owner, 1) == 1
        assert [hit.id for hit in store.search(QUERY)] == ["page 1"]
        assert store.add([(entry(2), page(2))]) == 1
        assert add(owner, 3) == 3
        assert {hit.id for hit in store.search(QUERY)} == {"page 1", "page 2", "page 3"}
        assert store.delete(["page 1"]) == 1
        assert add(owner, 2) == 2
        assert {hit.id for hit in store.search(QUERY)} == {"page 2", "page 3"}


def test_stores_of_one_process_share_a_folder(tmp_path: Path) -> None:
    first = MultiVectorStore.open(tmp_path, model=MODEL)
    second = MultiVectorStore.open(str(tmp_path / ".." / tmp_path.name))
    first.add([(entry(1), page(1))])
    assert len(second) == 1
    first.close()
    first.close()
    assert len(second) == 1
    with pytest.raises(StoreError, match="closed"):
        len(first)
    second.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_opens_connections_of_its_own(tmp_path: Path) -> None:
    process = start(
        """
        import os, sys
        from colpali_integrations.stores import MultiVectorStore
        from tests.stores.backends import MODEL, entry, page
        store = MultiVectorStore.open(sys.argv[1], model=MODEL)
        store.add([(entry(1), page(1))])
        if os.fork() == 0:
            store.add([(entry(2), page(2))])
            print("child:", len(store), len(store.search(page(1))), flush=True)
            sys.exit(0)
        _, status = os.wait()
        store.add([(entry(3), page(3))])
        print("parent:", status, len(store), len(store.search(page(1))), flush=True)
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.splitlines() == ["child: 2 2", "parent: 0 3 3"]


def test_an_interrupted_creation_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()  # it exists before its first transaction
    assert stored_settings(tmp_path) is None
    with MultiVectorStore.open(tmp_path, model=MODEL) as store:
        store.add([(entry(2), page(2))])
        assert len(store) == 1


@pytest.mark.parametrize("how", ["removed", "renamed", "emptied"])
def test_a_store_without_its_database_is_refused(tmp_path: Path, how: str) -> None:
    with MultiVectorStore.open(tmp_path, model=MODEL) as store:
        store.add([(entry(1), page(1))])
    database = tmp_path / "store.db"
    content = database.read_bytes()
    if how == "emptied":
        database.write_bytes(b"")
    elif how == "renamed":
        database.rename(tmp_path / "elsewhere.db")
    else:
        database.unlink()
    before = sorted(path.name for path in tmp_path.iterdir())
    for model in (None, MODEL):
        with pytest.raises(StoreError, match=r"store.db is missing or empty; nothing was changed"):
            MultiVectorStore.open(tmp_path, model=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    database.write_bytes(content)
    with MultiVectorStore.open(tmp_path) as store:
        assert [hit.id for hit in store.search(QUERY)] == ["page 1"]


def test_a_store_of_the_former_engine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"format": 3}')
    (tmp_path / "shard").mkdir()
    for model in (None, MODEL):
        with pytest.raises(StoreError, match=r"earlier engine.*colpali-integrations index"):
            MultiVectorStore.open(tmp_path, model=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard", "store.json"]


def test_foreign_databases_are_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("no database at all, but long enough to have a header" * 40)
    with pytest.raises(StoreError, match="damaged"):
        MultiVectorStore.open(tmp_path, model=MODEL)
    (tmp_path / "store.db").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    with pytest.raises(StoreError, match="no database of this package"):
        MultiVectorStore.open(tmp_path, model=MODEL)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [({}, "format None"), ({"format": 3}, "has format 3, this version reads 4"), ({"format": 4}, "damaged")],
)
def test_stores_of_other_versions_are_refused(tmp_path: Path, manifest: dict[str, Any], message: str) -> None:
    FolderEngine(tmp_path, schema={}, manifest=manifest).close()
    assert read_manifest(tmp_path) == manifest
    for model in (None, MODEL):
        with pytest.raises(StoreError, match=message):
            MultiVectorStore.open(tmp_path, model=model)


def test_invalid_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="model="):
        MultiVectorStore.open(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file"):
        MultiVectorStore.open(tmp_path / "file", model=MODEL)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.name != "posix", reason="permissions of this kind are POSIX's")
def test_only_the_owner_may_read_a_new_store(tmp_path: Path) -> None:
    with MultiVectorStore.open(tmp_path / "new", model=MODEL) as store:
        store.add([(entry(1), page(1))])
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    tmp_path.chmod(0o755)
    with MultiVectorStore.open(tmp_path, model=MODEL):
        assert tmp_path.stat().st_mode & 0o777 == 0o755, "an existing folder keeps its mode"


def test_replaced_and_removed_pages_take_no_space(tmp_path: Path) -> None:
    """A store through which pages pass stays within twice the bytes of the pages that are there."""
    rows, kept = 400, 400
    pages = [page(number, rows=rows) for number in range(7)]
    with (
        MultiVectorStore.open(tmp_path, model=MODEL, first_stage="exact") as store,
        MultiVectorStore.open(tmp_path) as reader,
    ):
        for start in range(0, 3000, 100):
            store.add((entry(number), pages[number % 7]) for number in range(start, start + 100))
            store.delete([f"page {number}" for number in range(start - kept, start - kept + 100)])
            live = len(store) * rows * DIM * 2
            assert sum(path.stat().st_size for path in tmp_path.glob("*.block")) <= 2 * live + (1 << 20)
            assert len(reader.search(QUERY, 1000)) == len(store)
        store.optimize()
        assert sum(path.stat().st_size for path in tmp_path.glob("*.block")) == live
        found = {hit.id: hit.max_sim for hit in reader.search(QUERY, 1000)}
    assert found.keys() == {f"page {number}" for number in range(3000 - kept, 3000)}
    for id_, score in found.items():
        assert score == pytest.approx(float(max_sim(QUERY, pages[int(id_[5:]) % 7])), abs=5e-3)


def test_records_before_an_interruption_are_stored(open_store: Open) -> None:
    def failing() -> Iterator[tuple[object, object]]:
        yield from ((entry(number), page(number)) for number in range(70))
        raise KeyboardInterrupt

    store = open_store()
    with pytest.raises(KeyboardInterrupt):
        store.add(failing())  # type: ignore[arg-type]
    assert len(store) == 70


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of changes, against a dict."""

    backend = "memory"
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.opening = opening(self.backend, Path(self.folder.name))
        self.truth: dict[str, tuple[int, int]] = {}
        self.tags: dict[str, int] = {}

    @initialize()
    def open(self) -> None:
        self.open_store = self.opening.__enter__()
        self.store = self.open_store()

    @rule(target=ids, number=st.integers(0, 9))
    def name(self, number: int) -> int:
        return number

    @rule(numbers=st.lists(ids, max_size=4), seed=st.integers(0, 3))
    def add(self, numbers: list[int], seed: int) -> None:
        self.store.add((entry(number, text=f"seed {seed}"), page(number, seed=seed)) for number in numbers)
        self.truth.update({f"page {number}": (number, seed) for number in numbers})
        self.tags.update({f"page {number}": 0 for number in numbers})

    @rule(document=st.integers(0, 2), tag=st.integers(1, 3))
    def update_metadata(self, document: int, tag: int) -> None:
        changed = [id_ for id_, (number, _) in self.truth.items() if number % 3 == document]
        assert self.store.update_metadata(f"{document}.pdf", {"tag": tag}) == len(changed)
        self.tags.update(dict.fromkeys(changed, tag))

    @rule(numbers=st.lists(ids, max_size=3))
    def delete(self, numbers: list[int]) -> None:
        gone = {f"page {number}" for number in numbers} & self.truth.keys()
        assert self.store.delete([f"page {number}" for number in numbers]) == len(gone)
        for id_ in gone:
            del self.truth[id_]

    @rule(number=ids)
    def delete_above(self, number: int) -> None:
        gone = [id_ for id_, (one, _) in self.truth.items() if one > number]
        assert self.store.delete(where={"page": {"$gt": number}}) == len(gone)
        for id_ in gone:
            del self.truth[id_]

    @rule()
    def reopen(self) -> None:
        if self.backend == "embedded":
            self.store.close()
            self.store = self.open_store()

    @rule()
    def optimize(self) -> None:
        self.store.optimize()

    @invariant()
    def holds_what_it_should(self) -> None:
        if not hasattr(self, "store"):
            return
        assert len(self.store) == len(self.truth)
        assert {one.id: one.text for one in self.store.scroll()} == {
            id_: f"seed {seed}" for id_, (_, seed) in self.truth.items()
        }
        tags = {id_: self.tags[id_] for id_ in self.truth}
        assert {one.id: one.metadata.get("tag", 0) for one in self.store.scroll()} == tags
        tagged = {id_ for id_, tag in tags.items() if tag == 2}
        assert {hit.id for hit in self.store.search(QUERY, 20, where={"tag": 2})} == tagged
        found = {hit.id: hit.score for hit in self.store.search(QUERY, 20)}
        for id_, (number, seed) in self.truth.items():
            assert found[id_] == pytest.approx(float(max_sim(QUERY, page(number, seed=seed))), abs=5e-3)
        assert found.keys() == self.truth.keys()

    def teardown(self) -> None:
        self.opening.__exit__(None, None, None)
        self.folder.cleanup()


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_sequence_of_changes(backend: str) -> None:
    machine = type("Machine", (StoreMachine,), {"backend": backend})
    case = machine.TestCase  # type: ignore[attr-defined]
    case.settings = settings(
        max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case("runTest").runTest()
