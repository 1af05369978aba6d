"""How the files of pages are opened, as one value."""

from __future__ import annotations

from pathlib import Path

from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess


def test_it_does_not_show_the_password() -> None:
    access = PageAccess.of(password="open sesame")
    assert access.password == "open sesame"
    assert "sesame" not in repr(access)


def test_an_override_replaces_only_the_given_values(tmp_path: Path) -> None:
    first = PageAccess.of(password="old", max_pixels=9, image_formats="psd", roots=tmp_path)
    assert first.override() == first
    other = first.override(password="new", image_formats=())
    assert other.options == {"password": "new", "roots": (str(tmp_path),), "max_pixels": 9, "image_formats": ()}
    assert PageAccess.of(**other.options) == other


def test_an_empty_list_of_folders_permits_no_file(tmp_path: Path) -> None:
    file = str(tmp_path / "report.pdf")
    assert DEFAULT_ACCESS.permits(file)
    assert PageAccess.of(roots=[tmp_path]).permits(file)
    assert not PageAccess.of(roots=[]).permits(file)
