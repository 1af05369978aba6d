"""A store in a folder: it survives kill -9 and belongs to one process at a time."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
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
from colpali_integrations.stores.qdrant import shards
from tests.stores.backends import BACKENDS, MODEL, Open, entry, opening, page

QUERY = page(0, seed=7, rows=4)
ROOT = Path(__file__).parents[3]


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


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
@pytest.mark.parametrize("sealed", [16 << 20, 16384], ids=["in one segment", "while segments are sealed and merged"])
def test_kill_9_loses_at_most_the_batch_in_flight(tmp_path: Path, sealed: int) -> None:
    process = start(
        """
        import sys
        from colpali_integrations.stores import MultiVectorStore
        from colpali_integrations.stores.qdrant import shards
        shards.SEALED_BYTES = int(sys.argv[2])
        from tests.stores.backends import MODEL, entry, page
        store = MultiVectorStore.open(sys.argv[1], model=MODEL, first_stage="ward", first_vectors=4)
        number = 0
        while True:
            number += store.add([(entry(n), page(n)) for n in range(number, number + 10)])
            print(number, flush=True)
        """,
        tmp_path,
        sealed,
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
    """Another process that has the store in tmp_path open."""
    process = start(
        """
        import sys, time
        from colpali_integrations.stores import MultiVectorStore
        from tests.stores.backends import MODEL, entry, page
        with MultiVectorStore.open(sys.argv[1], model=MODEL) as store:
            store.add([(entry(1), page(1))])
            print("open", flush=True)
            time.sleep(600)
        """,
        tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_gets_an_error(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    settings = stored_settings(tmp_path)
    assert settings is not None
    assert settings.model == MODEL, "who made it can be read meanwhile"
    for model in (None, MODEL):
        with pytest.raises(StoreError, match="open in another process") as caught:
            MultiVectorStore.open(tmp_path, model=model)
        assert str(tmp_path) in str(caught.value)
        assert "url=" in str(caught.value)
    owner.kill()
    owner.wait()
    for _ in range(50):  # the system takes its time to release the files of a killed process
        try:
            store = MultiVectorStore.open(tmp_path)
        except StoreError:
            time.sleep(0.1)
        else:
            break
    with store:
        assert len(store) == 1


def test_one_process_may_open_a_folder_twice(tmp_path: Path) -> None:
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
    third = MultiVectorStore.open(tmp_path)
    del third  # forgotten without being closed
    process = start(
        "import sys; from colpali_integrations.stores import MultiVectorStore as S; print(len(S.open(sys.argv[1])))",
        tmp_path,
    )
    assert process.communicate(timeout=60)[0] == "1\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_gets_an_error(tmp_path: Path) -> None:
    process = start(
        """
        import os, sys
        from colpali_integrations.errors import StoreError
        from colpali_integrations.stores import MultiVectorStore
        from tests.stores.backends import MODEL, entry, page
        store = MultiVectorStore.open(sys.argv[1], model=MODEL)
        store.add([(entry(1), page(1))])
        if os.fork() == 0:
            for use in (lambda: len(store), lambda: len(MultiVectorStore.open(sys.argv[1]))):
                try:
                    print("child used it", use(), flush=True)
                except StoreError as error:
                    print("child:", error, flush=True)
            os._exit(0)
        os.wait()
        print("parent:", len(store), flush=True)
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    first, second, third = out.splitlines()
    assert "forked" in first
    assert "another process" in second or "forked" in second
    assert third == "parent: 1"


def test_an_interrupted_creation_is_repeated(tmp_path: Path) -> None:
    with MultiVectorStore.open(tmp_path, model=MODEL) as store:
        store.add([(entry(1), page(1))])
    (tmp_path / "store.json").unlink()  # it is written last
    assert stored_settings(tmp_path) is None
    with MultiVectorStore.open(tmp_path, model=MODEL) as store:
        assert len(store) == 0
        store.add([(entry(2), page(2))])
        assert len(store) == 1


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "cannot read"),
        ("[]", "format None"),
        ('{"format": 1}', "index its documents anew"),
        ('{"format": 2}', "has format 2, this version reads 3"),
        ('{"format": 3}', "damaged"),
    ],
)
def test_foreign_folders_are_refused(tmp_path: Path, manifest: str, message: str) -> None:
    (tmp_path / "store.json").write_text(manifest)
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
        found = {hit.id: hit.score for hit in self.store.search(QUERY, 20)}
        for id_, (number, seed) in self.truth.items():
            assert found[id_] == pytest.approx(float(max_sim(QUERY, page(number, seed=seed))), abs=5e-3)
        assert found.keys() == self.truth.keys()

    def teardown(self) -> None:
        self.opening.__exit__(None, None, None)
        self.folder.cleanup()


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_sequence_of_changes(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SEALED_BYTES", 2048)  # some pages, so that segments are sealed and merged
    machine = type("Machine", (StoreMachine,), {"backend": backend})
    case = machine.TestCase  # type: ignore[attr-defined]
    case.settings = settings(
        max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case("runTest").runTest()
