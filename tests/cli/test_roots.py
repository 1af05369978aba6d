"""What `index` records of the folders that it has read, and what `serve` may show by it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from colpali_integrations.cli.app import run
from colpali_integrations.cli.roots import record_roots, recorded_roots, roots_of
from tests.conftest import few_pages


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


def test_index_records_what_it_has_read_for_this_user_alone(tmp_path: Path, state: Path) -> None:
    (tmp_path / "reports").mkdir()
    few_pages(tmp_path / "reports" / "a.pdf", [3])
    few_pages(tmp_path / "b.pdf", [7])
    (tmp_path / "link").symlink_to(tmp_path / "reports")
    store = tmp_path / "index"
    assert run(["index", str(tmp_path / "link"), str(tmp_path / "b.pdf"), "--store", str(store), "--quiet"]) == 0
    assert recorded_roots(store) == [tmp_path / "b.pdf", tmp_path / "reports"]
    [file] = state.glob("colpali-integrations/roots/*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not any("reports" in path.name for path in store.rglob("*")), "nothing of it is in the store"
    assert recorded_roots(tmp_path / "other") == []


def test_places_are_added_and_simplified(tmp_path: Path) -> None:
    for number in range(25):
        path = tmp_path / "many" / f"{number}.pdf"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "a.pdf").touch()
    store = tmp_path / "index"
    record_roots(store, roots_of([tmp_path / "few" / "a.pdf"], []))
    record_roots(store, roots_of(sorted((tmp_path / "many").iterdir()), []))
    assert recorded_roots(store) == [tmp_path / "few" / "a.pdf", tmp_path / "many"]
    record_roots(store, [tmp_path])
    assert recorded_roots(store) == [tmp_path]


@pytest.mark.parametrize("content", ["{", "[]", '{"roots": 3}', '{"roots": [3]}', '{"roots": ["relative"]}'])
def test_a_damaged_record_shows_nothing(content: str, tmp_path: Path) -> None:
    store = tmp_path / "index"
    record_roots(store, [tmp_path])
    [file] = tmp_path.glob("state/*/roots/*.json")
    file.write_text(content)
    assert recorded_roots(store) == []


def test_a_record_that_others_can_write_shows_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = tmp_path / "index"
    record_roots(store, [tmp_path])
    [file] = tmp_path.glob("state/*/roots/*.json")
    file.chmod(0o666)
    assert recorded_roots(store) == []
    assert "another user can write it" in caplog.text


def test_an_index_without_a_state_folder_goes_on(tmp_path: Path, state: Path, caplog: pytest.LogCaptureFixture) -> None:
    state.write_text("a file in its place")
    record_roots(tmp_path / "index", [tmp_path])
    assert "pass --root" in caplog.text
    assert recorded_roots(tmp_path / "index") == []


def test_the_name_of_a_folder_in_another_encoding_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    record_roots(tmp_path / "index", [folder])
    assert recorded_roots(tmp_path / "index") == [folder]
    [file] = tmp_path.glob("state/*/roots/*.json")
    assert json.loads(file.read_text())["roots"] == [str(folder)]
