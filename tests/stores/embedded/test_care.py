"""Care for a store in a folder: verify, repair, backup, read-only use, permissions, and what is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores import MultiVectorStore, repair_store, verify_store
from colpali_integrations.stores.embedded.lock import locked, write_lock
from tests.stores.backends import MODEL, entry, page
from tests.stores.embedded.flips import ENTRIES, QUERY, answers, damaged, make, outcome, repaired

# A byte of the vectors of page 3: the first three pages have been replaced since.
PAGE_3 = 1 + 2 * sum(page(number).size for number in range(3))
ROOT = Path(__file__).parents[3]
STAGES = ["ward", "rows", "muvera", "int8", "int4", "binary", "exact", "centroids"]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("first_stage", STAGES)
def test_a_sound_store_stays_as_it_is(tmp_path: Path, first_stage: str) -> None:
    make(tmp_path, first_stage)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    report = verify_store(tmp_path)
    assert (report.problems, report.ok, report.entries, report.leftovers) == ([], True, ENTRIES, [])
    repair = repair_store(tmp_path)
    assert (repair.kept, repair.problems, repair.lost, repair.rebuilt, repair.set_aside) == (ENTRIES, [], [], [], [])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_flipped_bytes_are_reported_and_repaired(tmp_path: Path) -> None:
    make(tmp_path)
    expected = answers(tmp_path)
    outcomes = []
    for _, _, copy in damaged(tmp_path, 1499):
        outcomes.append(outcome(copy, expected))
        if outcomes[-1].endswith("reported"):
            repaired(copy, expected)
    assert "SILENT" not in outcomes
    assert len(outcomes) > 30


@pytest.mark.parametrize("first_stage", ["ward", "rows", "muvera", "int8", "int2", "binary"])
@pytest.mark.parametrize("how", ["flipped", "truncated", "removed"])
def test_first_stages_are_made_again(tmp_path: Path, first_stage: str, how: str) -> None:
    make(tmp_path, first_stage)
    expected = answers(tmp_path)
    for path in tmp_path.glob("f*-*.block"):
        if path.stem.count("-") > 1 or path.stem.startswith("first"):
            if how == "flipped":
                flip(path, path.stat().st_size // 2)
            elif how == "truncated":
                path.write_bytes(path.read_bytes()[:10])
            else:
                path.unlink()
    report = verify_store(tmp_path)
    assert {problem.file[-6:] for problem in report.problems} == {".block"}
    assert repaired(tmp_path, expected) == 0


def test_entries_with_damaged_vectors_are_lost_by_name(tmp_path: Path) -> None:
    make(tmp_path, "exact")
    flip(tmp_path / "full-00000001.block", PAGE_3)
    [problem] = verify_store(tmp_path).problems
    assert (problem.file, problem.ids) == ("full-00000001.block", ("page 3",))
    with MultiVectorStore.open(tmp_path) as store:
        with pytest.raises(StoreError, match="'page 3' are damaged"):
            store.vectors(["page 3"])
        report = store.repair()
        [lost] = report.lost
        assert (lost.id, lost.name, lost.document_id) == ("page 3", "0.pdf, page 3", "0.pdf")
        assert "full-00000001.block" in lost.reason
        assert (report.kept, report.set_aside) == (ENTRIES - 1, [])
        assert len(store) == ENTRIES - 1, "the open store goes on"
        assert store.add([(entry(3), page(3))]) == 1
        assert store.verify().ok


@pytest.mark.parametrize("how", ["truncated", "removed"])
def test_a_missing_or_short_file_loses_its_entries_only(tmp_path: Path, how: str) -> None:
    make(tmp_path, "exact")
    path = tmp_path / "full-00000001.block"
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    problems = verify_store(tmp_path).problems
    assert {problem.file for problem in problems} == {path.name}
    report = repair_store(tmp_path)
    assert report.kept + len(report.lost) == ENTRIES
    assert report.kept == 0 if how == "removed" else 0 < report.kept < ENTRIES
    assert verify_store(tmp_path).ok
    with MultiVectorStore.open(tmp_path) as store:
        assert len(store.search(QUERY, ENTRIES)) == report.kept


def test_a_malformed_database_is_kept_under_another_name(tmp_path: Path) -> None:
    make(tmp_path)
    expected = answers(tmp_path)
    database = tmp_path / "store.db"
    broken = bytes(100) + database.read_bytes()[100:]
    database.write_bytes(broken)
    with pytest.raises(StoreError, match="repair"):
        MultiVectorStore.open(tmp_path)
    (tmp_path / "full-00000077.block").write_bytes(b"of an unknown origin")
    report = repair_store(tmp_path)
    assert report.set_aside == ["store.db.damaged-1", "full-00000077.block.unknown"]
    assert (tmp_path / "store.db.damaged-1").read_bytes() == broken
    assert (tmp_path / "full-00000077.block.unknown").read_bytes() == b"of an unknown origin"
    assert (report.kept, report.lost) == (ENTRIES, [])
    assert answers(tmp_path) == expected
    assert verify_store(tmp_path).leftovers == ["full-00000077.block.unknown", "store.db.damaged-1"]


def test_files_of_a_killed_process_are_leftovers_and_no_problem(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "full-00000077.block").write_bytes(b"of a batch that was not committed")
    report = verify_store(tmp_path)
    assert (report.ok, report.leftovers) == (True, ["full-00000077.block"])


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        for action in (verify_store, repair_store):
            with pytest.raises(StoreError, match="there is no store in"):
                action(path)
    make(tmp_path / "store")
    (tmp_path / "store" / "store.db").unlink()
    with pytest.raises(StoreError, match="is missing or empty"):
        repair_store(tmp_path / "store")
    (tmp_path / "store.json").write_text("{}")
    with pytest.raises(StoreError, match=r"earlier engine.*colpali-integrations index"):
        verify_store(tmp_path)


def test_other_engines_have_no_files_to_care_for(tmp_path: Path) -> None:
    with MultiVectorStore.open(model=MODEL) as store:
        for action in (store.verify, store.repair, lambda: store.backup(tmp_path)):
            with pytest.raises(ConfigurationError, match="for a store in a folder"):
                action()
        assert store.info().bytes is None
    for option in ({"read_only": True}, {"file_mode": 0o640}):
        with pytest.raises(ConfigurationError, match="for a store in a folder"):
            MultiVectorStore.open(model=MODEL, **option)


def test_a_backup_is_a_store_of_its_own(tmp_path: Path) -> None:
    make(tmp_path / "store")
    expected = answers(tmp_path / "store")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with MultiVectorStore.open(tmp_path / "store") as store:
        with pytest.raises(StoreError, match="not an empty folder"):
            store.backup(tmp_path / "full")
        assert store.backup(tmp_path / "backup").entries == ENTRIES
        store.delete(where={"page": {"$gte": 0}})
        store.optimize()
    assert answers(tmp_path / "backup") == expected
    if os.name == "posix":
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "backup").iterdir()} == {0o600}


def test_a_backup_of_a_damaged_store_is_an_error(tmp_path: Path) -> None:
    make(tmp_path / "store")
    flip(tmp_path / "store" / "full-00000001.block", PAGE_3)
    with MultiVectorStore.open(tmp_path / "store") as store, pytest.raises(StoreError, match=r"the backup in .*repair"):
        store.backup(tmp_path / "backup")


def test_a_backup_while_another_process_writes_is_one_of_its_states(tmp_path: Path) -> None:
    code = """
        import sys
        from colpali_integrations.stores import MultiVectorStore
        from tests.stores.backends import MODEL, entry, page
        with MultiVectorStore.open(sys.argv[1], model=MODEL, first_stage="ward") as store:
            for first in range(0, 100_000, 5):
                store.add((entry(number), page(number)) for number in range(first, first + 5))
                store.delete([f"page {number}" for number in range(first - 50, first - 45)])
                print(first, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            for number in range(3):
                for _ in range(7):
                    process.stdout.readline()
                with MultiVectorStore.open(tmp_path / "store") as store:
                    assert store.backup(tmp_path / f"backup {number}").entries % 5 == 0
        finally:
            process.kill()


WRITERS = {
    "adds": "store.add((entry(number), page(number)) for number in range(100, 130))",
    "compacts": "store.delete([f'page {n}' for n in range(5, 20)]); store.optimize(); store.add([(entry(3), page(3))])",
}
ACTIONS = {
    "verify": "print(verify_store(folder).ok)",
    "repair": "print(repair_store(folder).problems == [])",
    "backup": "print(backup_store(folder, folder.parent / 'copy').ok)",
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("action", ACTIONS)
def test_care_keeps_no_writer_waiting_while_it_reads_vectors(tmp_path: Path, action: str, writer: str) -> None:
    """A process writes at the moment when the first file of vectors is opened; it gives up before its own patience."""
    make(tmp_path / "store", "centroids")
    code = f"""
        import subprocess, sys
        from pathlib import Path
        from colpali_integrations.stores import repair_store, verify_store
        from colpali_integrations.stores.upkeep import backup_store
        folder = Path(sys.argv[1])
        written = []
        def write(event, arguments):
            if event == "open" and str(arguments[0]).endswith(".block") and not written:
                written.append(True)
                subprocess.run([sys.executable, "-c", sys.argv[2], folder], timeout=50, check=True)
        sys.addaudithook(write)
        {ACTIONS[action]}
        print(len(written))
    """
    child = f"""
        import sys
        from colpali_integrations.stores import MultiVectorStore
        from tests.stores.backends import entry, page
        with MultiVectorStore.open(sys.argv[1]) as store:
            {WRITERS[writer]}
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "store"), textwrap.dedent(child)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.stdout.split() == ["True", "1"], result.stderr
    with MultiVectorStore.open(tmp_path / "store") as store:
        assert len(store) == {"adds": ENTRIES + 30, "compacts": 5}[writer]
    if action == "backup":
        assert answers(tmp_path / "copy") == answers(tmp_path / "store")
        assert verify_store(tmp_path / "copy").leftovers == []


def test_the_error_about_a_locked_store_says_what_to_do(tmp_path: Path) -> None:
    make(tmp_path)
    with locked(write_lock(tmp_path, 0o600), tmp_path), pytest.raises(StoreError) as caught:
        impatient = write_lock(tmp_path, 0o600)
        impatient.timeout = 0.1
        with locked(impatient, tmp_path):
            pass
    for words in (str(tmp_path), "nothing was changed", "optimizing or repairing", "Try again"):
        assert words in str(caught.value)


def test_a_store_can_be_opened_for_reading_only(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        MultiVectorStore.open(tmp_path / "store", model=MODEL, read_only=True)
    assert not (tmp_path / "store").exists()
    make(tmp_path / "store")
    with MultiVectorStore.open(tmp_path / "store", read_only=True) as store:
        assert len(store.search(QUERY, 100)) == ENTRIES
        assert store.verify().ok
        actions = (
            lambda: store.add([(entry(1), page(1))]),
            lambda: store.delete(["page 1"]),
            store.optimize,
            store.repair,
        )
        for action in actions:
            with pytest.raises(StoreError, match="read_only=True"):
                action()
        with MultiVectorStore.open(tmp_path / "store") as writer:
            writer.delete(["page 1"])
        assert len(store) == ENTRIES - 1, "it follows the writer"


def test_a_store_without_write_permission_is_read(tmp_path: Path) -> None:
    make(tmp_path / "store")
    for path in (*(tmp_path / "store").rglob("*"), tmp_path / "store"):
        path.chmod(path.stat().st_mode & ~0o222)
    for read_only in (False, True):
        with MultiVectorStore.open(tmp_path / "store", read_only=read_only) as store:
            assert len(store.search(QUERY, 100)) == ENTRIES
            assert store.verify().ok


def can_mount() -> bool:
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode
    )


@pytest.mark.skipif(sys.platform != "linux" or not can_mount(), reason="mounting is not allowed here")
@pytest.mark.parametrize("option", ["", ", read_only=True"])
def test_a_store_on_a_read_only_disk_is_read(tmp_path: Path, option: str) -> None:
    make(tmp_path / "store")
    (tmp_path / "disk").mkdir()
    code = f"""
        from colpali_integrations.errors import StoreError
        from colpali_integrations.stores import MultiVectorStore
        from tests.stores.backends import MODEL, entry, page
        from tests.stores.embedded.flips import QUERY
        with MultiVectorStore.open({str(tmp_path / "disk" / "store")!r}{option}) as store:
            print(len(store), len(store.search(QUERY, 100)), store.verify().ok)
            try:
                store.add([(entry(1), page(1))])
            except StoreError as error:
                print("refused:", error)
    """
    script = f"""
        mount -t tmpfs tmpfs {tmp_path}/disk && cp -r {tmp_path}/store {tmp_path}/disk/
        mount -o remount,ro {tmp_path}/disk && exec "$0" -c "$1"
    """
    command = ["unshare", "--mount", "sh", "-ec", textwrap.dedent(script), sys.executable, textwrap.dedent(code)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    first, second = result.stdout.splitlines()
    assert first == f"{ENTRIES} {ENTRIES} True", result.stderr
    assert second.startswith("refused: the store")


@pytest.mark.skipif(os.name != "posix", reason="permissions of this kind are POSIX's")
def test_the_permissions_of_new_files_can_be_chosen(tmp_path: Path) -> None:
    with MultiVectorStore.open(tmp_path / "store", model=MODEL, file_mode=0o660) as store:
        store.add([(entry(1), page(1))])
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o770
    with MultiVectorStore.open(tmp_path / "store") as store:
        store.add((entry(number), page(number, rows=9)) for number in range(9))
        store.optimize()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "store").iterdir()}
    assert set(modes.values()) == {0o660}, modes


def test_documents_whose_files_are_gone_are_pruned(tmp_path: Path) -> None:
    root = tmp_path / "documents"
    (root / "deep").mkdir(parents=True)
    paths = [root / "kept.pdf", root / "deep" / "gone.pdf", tmp_path / "elsewhere.pdf"]
    paths[0].touch()
    with MultiVectorStore.open(tmp_path / "store", model=MODEL) as store:
        for number, path in enumerate(paths):
            store.add(
                (entry(one, document_id=str(path), metadata={"file_path": str(path)}), page(one))
                for one in (2 * number, 2 * number + 1)
            )
        store.add([(entry(9, document_id="a text without a file"), page(9))])
        assert store.prune(root) == {str(paths[1]): 2}
        assert len(store) == 7, "nothing is removed unasked"
        assert store.prune(root, delete=True) == {str(paths[1]): 2}
        assert (len(store), store.prune(root)) == (5, {})
        paths[0].rename(tmp_path / "moved.pdf")
        (root / "deep").rmdir()
        for wrong in (root, root / "nowhere", tmp_path / "moved.pdf"):
            with pytest.raises(StoreError, match="nothing was removed"):
                store.prune(wrong, delete=True)
        assert len(store) == 5


def test_info(tmp_path: Path) -> None:
    make(tmp_path)
    with MultiVectorStore.open(tmp_path) as store:
        info = store.info()
    assert info.to_dict() == {
        **{"model": "fake", "space": "0123456789abcdef", "first_stage": "ward", "datatype": "float16"},
        **{"pool_factor": 1, "language": "english", "format": 4},
        **{"entries": ENTRIES, "documents": 3, "bytes": sum(path.stat().st_size for path in tmp_path.iterdir())},
    }


def test_a_store_that_was_repaired_elsewhere_must_be_opened_again(tmp_path: Path) -> None:
    make(tmp_path, "exact")
    with MultiVectorStore.open(tmp_path) as store:
        flip(tmp_path / "full-00000001.block", PAGE_3)
        assert [one.id for one in repair_store(tmp_path).lost] == ["page 3"]
        with pytest.raises(StoreError, match="Open it again"):
            len(store)
        with pytest.raises(StoreError, match="Open it again"):
            store.add([(entry(3), page(3))])
    with MultiVectorStore.open(tmp_path) as store:
        assert len(store) == ENTRIES - 1


@pytest.mark.parametrize("pages", [2, 3, 4, 5])
def test_a_database_that_was_cut_off_is_repaired(pages: int, tmp_path: Path) -> None:
    with MultiVectorStore.open(tmp_path / "store", model=MODEL) as store:
        store.add([(entry(number), page(number)) for number in range(3)])
    os.truncate(tmp_path / "store" / "store.db", 4096 * pages)
    assert not verify_store(tmp_path / "store").ok
    report = repair_store(tmp_path / "store")
    assert report.kept == 0
    assert any(name.startswith("store.db.damaged") for name in report.set_aside)
    assert verify_store(tmp_path / "store").ok
    with MultiVectorStore.open(tmp_path / "store", model=MODEL) as store:
        assert store.add([(entry(1), page(1))]) == 1
