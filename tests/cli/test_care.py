"""The commands that look after a store: their output, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colpali_integrations.cli.app import ExitCode, run
from colpali_integrations.models.registry import find_model
from colpali_integrations.stores import Entry, MultiVectorStore
from tests.stores.embedded.flips import ENTRIES, make
from tests.stores.embedded.test_care import PAGE_3, flip

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make(tmp_path / "store", "exact")
    return tmp_path / "store"


def test_info_and_list(store: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(["info", str(store), "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert {**facts, "bytes": 0} == {
        **{"model": "fake", "space": "0123456789abcdef", "first_stage": "exact", "datatype": "float16"},
        **{"pool_factor": 1, "language": "english", "format": 4},
        **{"entries": ENTRIES, "documents": 3, "bytes": 0},
    }
    assert run(["info", str(store)]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    expected = [["model", "fake"], ["space", "0123456789abcdef"], ["first", "stage", "exact"]]
    assert [line.split() for line in lines[:3]] == expected

    assert run(["list", str(store), "--json"]) == ExitCode.OK
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(documents, key=str) == [
        {"document_id": f"{number}.pdf", "pages": pages} for number, pages in enumerate((7, 7, 6))
    ]
    assert run(["list", str(store)]) == ExitCode.OK
    assert sorted(capsys.readouterr().out.splitlines())[0] == "     6  2.pdf"
    MultiVectorStore.open(tmp_path / "empty", model=find_model("coltiny")).close()
    assert run(["list", str(tmp_path / "empty")]) == ExitCode.INCOMPLETE
    assert capsys.readouterr().err == f"The index {tmp_path / 'empty'} has no documents.\n"


def test_delete(store: Path, capsys: Capture) -> None:
    assert run(["delete", str(store), "0.pdf", "2.pdf", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"removed": 13, "pages": 7}
    assert run(["delete", str(store), "nothing.pdf"]) == ExitCode.INCOMPLETE
    advice = "Name documents by their ids, as `list` prints them."
    assert capsys.readouterr() == ("", f"0 removed; 7 left.\nNot in the index: nothing.pdf. {advice}\n")
    assert run(["delete", str(store), "1.pdf", "--quiet"]) == ExitCode.OK
    assert capsys.readouterr() == ("", "")
    assert run(["delete", str(store)]) == ExitCode.USAGE


def test_prune(tmp_path: Path, capsys: Capture) -> None:
    root, store = tmp_path / "documents", tmp_path / "store"
    root.mkdir()
    (root / "kept.pdf").touch()
    names = [str(root / "kept.pdf"), str(root / "gone.pdf")]
    with MultiVectorStore.open(store, model=find_model("coltiny")) as opened:
        dim = opened.model.dim
        opened.add((Entry(id=name, document_id=name, metadata={"file_path": name}), [[1.0] * dim]) for name in names)
    arguments = ["prune", str(store), str(root)]
    assert run(arguments) == ExitCode.OK
    captured = capsys.readouterr()
    assert captured.out == f"     1  {names[1]}\n"
    assert captured.err == "1 document would be deleted; run it again with --yes.\n"
    assert run([*arguments, "--yes", "--json"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"document_id": names[1], "pages": 1}
    assert captured.err == "1 document deleted.\n"
    assert run(arguments) == ExitCode.OK
    assert capsys.readouterr() == ("", "0 documents gone.\n")
    (root / "kept.pdf").unlink()
    assert run([*arguments, "--yes"]) == ExitCode.ERROR
    assert "is an empty folder" in capsys.readouterr().err
    assert run([*arguments[:2], str(root / "nowhere"), "--yes"]) == ExitCode.ERROR
    with MultiVectorStore.open(store) as opened:
        assert len(opened) == 1


def test_verify_repair_and_backup(store: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(["verify", str(store)]) == ExitCode.OK
    assert capsys.readouterr() == ("", f"No problems in {ENTRIES} entries.\n")
    assert run(["repair", str(store)]) == ExitCode.OK
    assert capsys.readouterr() == ("", "No problems; nothing was changed.\n")
    assert run(["backup", str(store), str(tmp_path / "copy")]) == ExitCode.OK
    assert capsys.readouterr().err == f"{ENTRIES} entries copied to {tmp_path / 'copy'} and checked.\n"
    assert run(["backup", str(store), str(tmp_path / "copy")]) == ExitCode.ERROR
    assert "is not an empty folder" in capsys.readouterr().err

    flip(store / "full-00000001.block", PAGE_3)
    assert run(["verify", str(store)]) == ExitCode.INCOMPLETE
    captured = capsys.readouterr()
    assert captured.out == ("full-00000001.block: the vectors of an entry are damaged, or their place ('page 3')\n")
    assert captured.err == f"1 problem. Run: colpali-integrations repair {store}\n"
    assert run(["verify", str(store), "--json"]) == ExitCode.INCOMPLETE
    assert json.loads(capsys.readouterr().out)["problems"][0]["ids"] == ["page 3"]
    assert run(["repair", str(store)]) == ExitCode.INCOMPLETE
    captured = capsys.readouterr()
    assert captured.out.startswith("lost: 0.pdf, page 3 (0.pdf): full-00000001.block: ")
    assert captured.err.splitlines()[-1] == "Index the documents of the lost pages again."
    assert run(["verify", str(store), "--quiet"]) == ExitCode.OK
    assert capsys.readouterr() == ("", "")


def test_search_leaves_a_store_unchanged(tmp_path: Path, capsys: Capture) -> None:
    from tests.stores.documents import make_folder

    assert (
        run(["index", str(make_folder(tmp_path / "d")), "--store", str(tmp_path / "s"), "--dpi", "100"]) == ExitCode.OK
    )
    (tmp_path / "s" / "store.lock").unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    assert run(["search", "apples", "--store", str(tmp_path / "s")]) == ExitCode.OK
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before


@pytest.mark.parametrize("command", ["info", "list", "verify", "repair", "delete", "prune", "backup"])
def test_folders_without_a_store_are_refused(command: str, tmp_path: Path, capsys: Capture) -> None:
    other = {"delete": ["a.pdf"], "prune": [str(tmp_path)], "backup": [str(tmp_path / "copy")]}.get(command, [])
    assert run([command, str(tmp_path / "nowhere"), *other]) == ExitCode.ERROR
    assert "there is no store" in capsys.readouterr().err
    (tmp_path / "store.json").write_text('{"format": 3}')
    assert run([command, str(tmp_path), *other]) == ExitCode.ERROR
    captured = capsys.readouterr()
    assert "an earlier engine" in captured.err
    assert "colpali-integrations index DOCUMENTS --store NEW_FOLDER" in captured.err
    assert captured.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


@pytest.mark.parametrize("arguments", [["search", "x", "--store"], ["remove", "--document-id", "a", "--store"]])
def test_former_folders_are_refused_by_every_command(arguments: list[str], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "store.json").write_text('{"format": 3}')
    assert run([*arguments, str(tmp_path)]) == ExitCode.ERROR
    assert "colpali-integrations index DOCUMENTS --store NEW_FOLDER" in capsys.readouterr().err
