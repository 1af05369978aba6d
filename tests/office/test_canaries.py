"""Documents that refer to a local file and to a listening server, converted by LibreOffice with and without defences.

A control without any shows which of them reach their canary at all. Each of the two defences, taking out references and
confining the program, is then tested alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pypdfium2
import pytest

from colpali_integrations.office import confine
from colpali_integrations.office.cleaning import cleaned
from colpali_integrations.office.conversion import converted
from colpali_integrations.office.formats import FORMATS
from colpali_integrations.office.soffice import SOCKET_FOLDER, arguments, socket_path, write_profile
from tests.office.conftest import SECRET, Listener
from tests.office.documents import VECTORS, Canaries, Slide, cell, docx, field, paragraph, pptx, row, shape, xlsx

Documents = Mapping[str, tuple[str, bytes]]
# What LibreOffice 7.4 follows in a fresh profile; other versions may follow others.
FOLLOWED = {"docx-picture-url", "odt-picture", "odt-picture-file", "html-picture", "rtf-after-many-bytes"}


@contextmanager
def work_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="colpali-office-") as name:
        for folder in ("in", "out", "tmp", "home"):
            (Path(name) / folder).mkdir()
        yield Path(name)


def convert(
    soffice: str, documents: Documents, listener: Listener, *, settings: bool, confined: bool
) -> dict[str, set[str]]:
    """Convert documents of one format together; returns what of the canaries each has reached."""
    listener.requests.clear()
    [suffix] = {suffix for suffix, _ in documents.values()}
    format_ = FORMATS[suffix]
    with work_folder() as work:
        places = []
        for name, (_, content) in documents.items():
            places.append(work / "in" / f"{name}{suffix}")
            places[-1].write_bytes(content)
        if settings:
            write_profile(work / "profile")
        command = arguments(soffice, work, places[0], format_.reader, format_.program)
        command += map(str, places[1:])
        environment = {**os.environ, "HOME": str(work / "home"), "TMPDIR": str(work / "tmp")}
        job = {"command": command, "readable": [str(Path(command[0]).parents[1]), str(work / "in")], "required": True}
        job |= {"writable": [str(work / name) for name in ("profile", "out", "tmp", "home")]}
        job |= {"sockets": [SOCKET_FOLDER], "cpu_seconds": 100, "memory": 8_000_000_000, "file_bytes": 100_000_000}
        if confined:
            (work / "profile").mkdir(exist_ok=True)
            command = [sys.executable, "-I", "-S", confine.__file__, json.dumps(job)]
        for _ in range(3):
            ended = subprocess.run(command, env=environment, timeout=120, capture_output=True, check=False)
            if (socket := socket_path(work)) is not None:
                socket.unlink(missing_ok=True)
            if ended.returncode not in (79, 81):
                break
        found = {name: reached(work / "out" / f"{name}.pdf") for name in documents}
    for request in listener.requests:
        for name, (_, content) in documents.items():
            path = request.split()[1] if len(request.split()) > 1 else request
            if path.encode() in content or path in str(zip_texts(content)):
                found[name].add("network")
    if listener.requests and not any("network" in one for one in found.values()):
        found["?"] = {"network"}
    return found


def zip_texts(content: bytes) -> str:
    from tests.office.test_cleaning import everything

    return everything(content)


def reached(path: Path) -> set[str]:
    if not path.is_file():
        return {"no PDF"}
    with pypdfium2.PdfDocument(path) as pdf:
        pages = list(pdf)
        text = " ".join(page.get_textpage().get_text_range() for page in pages)
        pixels = np.concatenate([page.render(scale=0.5).to_numpy().reshape(-1, 3) for page in pages])
    magenta = (pixels[:, 0] > 200) & (pixels[:, 1] < 60) & (pixels[:, 2] > 200)
    return ({"text"} if SECRET in text else set()) | ({"picture"} if magenta.sum() > 20 else set())


def by_format(documents: Documents) -> Iterator[Documents]:
    for suffix in sorted({suffix for suffix, _ in documents.values()}):
        yield {name: one for name, one in documents.items() if one[0] == suffix}


def leaks(found: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    return {name: set(one) - {"no PDF"} for name, one in found.items() if set(one) - {"no PDF"}}


@pytest.fixture
def documents(canaries: Canaries) -> Documents:
    return {name: (suffix, make(canaries)) for name, (suffix, make) in VECTORS.items()}


@pytest.mark.slow  # it starts LibreOffice 24 times
@pytest.mark.usefixtures("confinement")
def test_each_defence_holds_alone(soffice: str, documents: Documents, listener: Listener) -> None:
    control: dict[str, set[str]] = {}
    for group in by_format(documents):
        control |= convert(soffice, group, listener, settings=False, confined=False)
        clean = {name: (suffix, cleaned(content, suffix).content) for name, (suffix, content) in group.items()}
        without = convert(soffice, clean, listener, settings=False, confined=False)
        assert leaks(without) == {}, "without references"
        assert [name for name, one in without.items() if "no PDF" in one] == []
        assert leaks(convert(soffice, group, listener, settings=True, confined=True)) == {}, "confined"
    assert leaks(control).keys() >= FOLLOWED, leaks(control)


@pytest.mark.slow  # it starts LibreOffice 25 times
@pytest.mark.usefixtures("confinement")
def test_confinement_alone_holds_for_the_binary_formats(
    soffice: str, documents: Documents, canaries: Canaries, listener: Listener, tmp_path: Path
) -> None:
    control: dict[str, set[str]] = {}
    for suffix, filter_name, names in (
        (".doc", "MS Word 97", ("docx-picture-url", "docx-picture-file", "docx-link")),
        (".xls", "MS Excel 97", ("xlsx-indirect", "xlsx-external", "ods-external")),
        (".ppt", "MS PowerPoint 97", ("pptx-picture", "pptx-picture-file", "odp-picture-file")),
    ):
        # Made while the canaries are not in their place, documents hold references alone.
        folder, away = canaries.text.parent, tmp_path / "away"
        folder.rename(away)
        group = {name: (suffix, saved_as(soffice, documents[name], f"{suffix[1:]}:{filter_name}")) for name in names}
        away.rename(folder)
        control |= convert(soffice, group, listener, settings=False, confined=False)
        assert leaks(convert(soffice, group, listener, settings=True, confined=True)) == {}
    assert leaks(control).keys() >= {"docx-picture-file", "xlsx-indirect", "pptx-picture-file"}, leaks(control)


def saved_as(soffice: str, document: tuple[str, bytes], kind: str) -> bytes:
    with work_folder() as work:
        source = work / "in" / f"document{document[0]}"
        source.write_bytes(document[1])
        command = [soffice, f"-env:UserInstallation={(work / 'profile').as_uri()}", "--headless", "--convert-to", kind]
        subprocess.run([*command, "--outdir", work / "out", source], capture_output=True, timeout=120, check=True)
        return next((work / "out").iterdir()).read_bytes()


def test_all_defences_together(soffice: str, documents: Documents, listener: Listener) -> None:
    for name in ("docx-picture-url", "odt-picture-file", "html-picture"):
        suffix, content = documents[name]
        found = converted(content, suffix)
        assert reached(found.path) == set()
    assert listener.requests == []


def test_texts_notes_and_sheets(soffice: str) -> None:
    text = converted(docx(paragraph("low tide at six") + field("PAGE", result="cached")), ".docx")
    with pypdfium2.PdfDocument(text.path) as pdf:
        shown = pdf[0].get_textpage().get_text_range()
    assert "low tide at six" in shown
    assert "cached" not in shown, "the number of the page"
    slides = (
        Slide(shape("ebb"), "a note"),
        Slide(shape("hidden"), "another", hidden=True),
        Slide(shape("flood"), "third"),
    )
    assert converted(pptx(*slides), ".pptx").texts == {1: "a note", 2: "third"}
    sheets = {"Tides": row(cell("A1", "six")), "Winds": row(cell("A1", "north", "1+1"))}
    book = converted(xlsx(sheets), ".xlsx")
    assert book.texts == {1: "Tides", 2: "Winds"}
    with pypdfium2.PdfDocument(book.path) as pdf:
        assert "north" in pdf[1].get_textpage().get_text_range()
