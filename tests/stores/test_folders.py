"""The search through folders takes each document once, counts the rest by reason, and ends in circles of links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from colpali_integrations.errors import InputError
from colpali_integrations.stores import find_documents
from colpali_integrations.stores.folders import FoundDocuments


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def names(found: FoundDocuments, folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    fill(tmp_path / "outside", "far.pdf", "deep/farther.png")
    return fill(
        tmp_path / "shelf",
        *("b.pdf", "a/c.TIF", "a.pdf", "a/notes.txt", "README", ".hidden.pdf", ".git/x.pdf", "a/draft.pdf"),
    )


def test_all_that_is_passed_over_is_counted_by_reason(shelf: Path) -> None:
    (shelf / "link").symlink_to(shelf.parent / "outside", target_is_directory=True)
    (shelf / "linked.pdf").symlink_to(shelf.parent / "outside" / "far.pdf")
    (shelf / "broken.pdf").symlink_to(shelf / "nowhere")
    (shelf / "self.pdf").symlink_to(shelf / "self.pdf")
    if hasattr(os, "mkfifo"):
        os.mkfifo(shelf / "pipe.pdf")
    found = find_documents(shelf, exclude="draft*")
    assert names(found, shelf) == ["a/c.TIF", "a.pdf", "b.pdf", "linked.pdf"]
    assert found.passed_over == {
        **{"other_suffix": 2, "hidden": 2, "excluded": 1, "linked_folder": 1},
        "not_a_file": 2 + hasattr(os, "mkfifo"),
    }
    assert found.examples["other_suffix"] == [str(shelf / "README"), str(shelf / "a" / "notes.txt")]
    fill(shelf, *(f"note {number}.txt" for number in range(9)))
    many = find_documents(shelf)
    assert (many.passed_over["other_suffix"], len(many.examples["other_suffix"])) == (11, 3)
    assert find_documents([shelf / "README"]).passed_over == {}, "a named file is always tried"


def test_linked_folders_are_searched_on_request_and_once(shelf: Path) -> None:
    outside = shelf.parent / "outside"
    (shelf / "link").symlink_to(outside)
    (shelf / "other").symlink_to(outside)
    (shelf / "a" / "up").symlink_to(shelf)
    (outside / "back").symlink_to(shelf)
    (outside / "self").symlink_to(outside / "self")
    found = find_documents(shelf, follow_symlinks=True)
    taken = ["a/c.TIF", "a/draft.pdf", "a.pdf", "b.pdf", "link/deep/farther.png", "link/far.pdf"]
    assert names(found, shelf) == taken
    assert found.passed_over == {"other_suffix": 2, "hidden": 2, "not_a_file": 1}
    assert find_documents([shelf, outside], follow_symlinks=True) == found, "the second is a part of the first"
    assert len(find_documents([shelf / "link"])) == 2, "a link that the caller names is followed"


def test_folders_that_cannot_be_read_are_counted_or_named(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refusing(path: str | Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)  # the user may be root, who can read everything
    found = find_documents(shelf)
    assert names(found, shelf) == ["a.pdf", "b.pdf"]
    assert found.passed_over["unreadable_folder"] == 1
    with pytest.raises(InputError, match=r"cannot read the folder .*a: Permission denied"):
        find_documents([shelf / "b.pdf", shelf / "a"])


def test_folders_may_be_as_deep_as_the_system_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        os.mkdir("d")  # noqa: PTH102
        os.chdir("d")
    Path("a.pdf").touch()
    os.chdir(tmp_path)
    assert len(find_documents("d")) == 1
    Path("/".join(["d"] * 1200), "a.pdf").unlink()
    os.chdir("/".join(["d"] * 1200))
    for _ in range(1200):  # it is too deep for pytest, and takes long by its whole path
        os.chdir("..")
        os.rmdir("d")  # noqa: PTH106


def test_folders_in_each_other_are_counted_once(shelf: Path) -> None:
    (shelf / "a" / "link").symlink_to(shelf.parent / "outside")
    expected = {"other_suffix": 2, "hidden": 2, "linked_folder": 1}
    for folders in ([shelf], [shelf, shelf / "a"], [shelf / "a", shelf], [shelf, shelf / "a" / ".." / "a", shelf]):
        found = find_documents(folders)
        assert (len(found), found.passed_over) == (4, expected), folders


def test_what_one_search_takes_is_not_passed_over_in_another(shelf: Path) -> None:
    (shelf / "link").symlink_to(shelf.parent / "outside")
    everything = [shelf, shelf / ".git", shelf / "link", shelf / "README", shelf / ".hidden.pdf"]
    assert find_documents(everything).passed_over == {"other_suffix": 1}, "a/notes.txt"
    # A pattern is compared with the path below each root: "draft*" of `a` is not excluded from `shelf`.
    found = find_documents([shelf, shelf / "a"], exclude="draft.pdf")
    assert found.passed_over == {"other_suffix": 2, "hidden": 2, "excluded": 1, "linked_folder": 1}
    found = find_documents([shelf / "a", shelf], exclude="a/draft.pdf")
    assert "draft.pdf" in {path.name for path in found}
    assert "excluded" not in found.passed_over
