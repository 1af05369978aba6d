"""The process that converts: its limits, its confinement, its end, and the results that are kept."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from colpali_integrations.cli.doctor import Check, Status, examine
from colpali_integrations.errors import ConfigurationError, OfficeError
from colpali_integrations.office import confine, worker
from colpali_integrations.office.conversion import converted
from colpali_integrations.office.kept import KeptPdfs
from colpali_integrations.office.limits import OfficeLimits
from tests.office.conftest import SECRET, FakeSoffice, Listener
from tests.office.documents import Canaries, Slide, docx, paragraph, pptx, shape

DOCUMENT = docx(paragraph("tides"))


def processes(mark: str) -> list[str]:
    """The processes with a mark in their command."""
    listed = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
        except OSError:
            continue
        if mark.encode() in command and b"pytest" not in command:
            listed.append(folder.name)
    return listed


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_document_is_converted_once(fake_soffice: FakeSoffice, cache: Path) -> None:
    fake_soffice()
    first = converted(DOCUMENT, ".docx")
    assert first.path.read_bytes().startswith(b"%PDF-")
    fake_soffice("exit 1")
    assert converted(DOCUMENT, ".docx") == first
    assert first.path.parent == cache
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in cache.iterdir()} == {0o600}
    with pytest.raises(OfficeError, match="cannot be converted by LibreOffice, code 1"):
        converted(docx(paragraph("ebb")), ".docx")
    cache.chmod(0o755)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        fake_soffice()
        converted(DOCUMENT, ".docx")


def test_a_script_elsewhere_opens_no_other_folder(fake_soffice: FakeSoffice, tmp_path: Path) -> None:
    assert worker._installation(str(fake_soffice())) == str(tmp_path / "office")
    assert worker._installation(str(tmp_path / "bin" / "soffice")) == str(tmp_path / "bin"), (
        "not the user's other files"
    )


def test_kept_files_have_a_limit(tmp_path: Path) -> None:
    kept = KeptPdfs(tmp_path / "kept", most_bytes=250)
    for number in range(3):
        kept.keep(f"{number}", bytes(100), {"1": "one"})
    assert len(list(kept.folder.glob("*.pdf"))) == 3, "none of the last hour is removed"
    for number in range(3):
        path = kept.folder / f"{number}.pdf"
        modified = path.stat().st_mtime_ns
        os.utime(path, ns=((time.time_ns() - (10 - number) * 10**12), modified))
    assert kept.find("0") is not None, "it is used"
    kept.keep("3", bytes(100), {})
    assert sorted(path.stem for path in kept.folder.glob("*.pdf")) == ["0", "3"]
    found = kept.find("0")
    assert found is not None
    assert found.texts == {1: "one"}
    assert kept.find("1") is None


def test_notes_become_texts_where_each_slide_is_a_page(fake_soffice: FakeSoffice) -> None:
    fake_soffice()
    slides = Slide(shape("a")), Slide(shape("b"), "low tide"), Slide(shape("c"), "hidden", hidden=True)
    assert converted(pptx(*slides), ".pptx").texts == {2: "low tide"}
    assert converted(pptx(*slides, Slide(shape("d"), "high tide")), ".pptx").texts == {}


def test_without_libreoffice_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        OfficeError, match=r"needs LibreOffice, which is not installed.*apt-get install libreoffice-writer"
    ):
        converted(DOCUMENT, ".docx")
    monkeypatch.setenv("COLPALI_SOFFICE", "/nowhere/soffice")
    with pytest.raises(OfficeError, match="COLPALI_SOFFICE=/nowhere/soffice is no program"):
        converted(DOCUMENT, ".docx")


def test_doctor_shows_the_version(fake_soffice: FakeSoffice, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> Check:
        return next(one for one in examine(models=[], embed=False) if one.name == "LibreOffice")

    fake_soffice("echo LibreOffice 7.4.7.2 40'(Build:2)'")
    assert (check().status, check().detail) == (Status.ok, "LibreOffice 7.4.7.2, for Office files")
    monkeypatch.setenv("COLPALI_SOFFICE", "nowhere")
    assert check().status is Status.note
    assert "apt-get install libreoffice-writer-nogui" in check().fix


def test_binary_formats_are_refused_where_nothing_is_closed_off(fake_soffice: FakeSoffice) -> None:
    fake_soffice(f"exit {confine.NOT_CONFINED}")
    with pytest.raises(OfficeError, match="is of a binary format, which is converted only where"):
        converted(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "WordDocument\0".encode("utf-16-le"), ".doc")


def test_time_is_limited_and_nothing_is_left(
    fake_soffice: FakeSoffice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mark = f"61.{uuid4().int}"
    fake_soffice(f"sleep {mark} & sleep {mark}")
    with pytest.raises(OfficeError, match=r"takes more than 1 s; convert it to PDF"):
        converted(DOCUMENT, ".docx", limits=OfficeLimits(seconds=1.0))
    assert processes(mark) == []
    assert list(tmp_path.glob("colpali-office-*")) == []
    fake_soffice("while :; do :; done")
    with pytest.raises(OfficeError, match="takes more than 1 s of processor time"):
        converted(DOCUMENT, ".docx", limits=OfficeLimits(cpu_seconds=1))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_memory_and_sizes_are_limited(fake_soffice: FakeSoffice) -> None:
    fake_soffice('head -c 2000000 /dev/zero > "$out/document.pdf"')
    with pytest.raises(OfficeError, match="cannot be converted"):
        converted(DOCUMENT, ".docx", limits=OfficeLimits(result_bytes=1_000_000))
    fake_soffice("sort --buffer-size=900M /dev/zero")
    with pytest.raises(OfficeError, match=r"needs more than 0\.3 GB of memory"):
        converted(DOCUMENT, ".docx", limits=OfficeLimits(memory=300_000_000))
    with pytest.raises(OfficeError, match="bytes; 10 are allowed"):
        converted(DOCUMENT, ".docx", limits=OfficeLimits(document_bytes=10))


@pytest.mark.parametrize("link", ["ln -s /etc/passwd", "mkfifo", "echo tides >"])
def test_a_result_that_is_no_pdf_is_not_read(fake_soffice: FakeSoffice, link: str) -> None:
    fake_soffice(f'{link} "$out/document.pdf"')
    with pytest.raises(OfficeError, match="cannot be converted"):
        converted(DOCUMENT, ".docx")


@pytest.mark.usefixtures("confinement")
def test_the_program_reads_no_other_file_and_reaches_no_network(
    fake_soffice: FakeSoffice, canaries: Canaries, listener: Listener, tmp_path: Path
) -> None:
    port = listener.url.rpartition(":")[2]
    connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
    written = tmp_path / "written"
    script = (
        f'cat {canaries.text} && echo file >> "$out/leaks"\n'
        f'cat /etc/passwd && echo passwd >> "$out/leaks"\n'
        f'cat /proc/$PPID/environ && echo environ >> "$out/leaks"\n'
        f'echo a > {written} && echo written >> "$out/leaks"\n'
        f'/usr/bin/env python3 -I -c "{connect}" && echo network >> "$out/leaks"\n'
        '[ -n "$SECRET" ] && echo variable >> "$out/leaks"\n'
        '[ ! -e "$out/leaks" ] && cp "$(dirname "$0")/../two.pdf" "$out/document.pdf"'
    )
    program = fake_soffice(script)
    os.environ["SECRET"] = SECRET
    try:
        converted(DOCUMENT, ".docx")
    finally:
        del os.environ["SECRET"]
    assert listener.connections == 0
    assert not written.exists()
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run([program, "--outdir", out], capture_output=True, env={**os.environ, "SECRET": "a"}, check=False)
    assert {"file", "passwd", "written", "variable"} <= set((out / "leaks").read_text().split()), "it could, without"


WITHOUT_NAMESPACES = """
import sys
sys.path.insert(0, sys.argv[1])
import confine
confine._leave_network = lambda libc: False
confine.main(sys.argv[2])
"""


@pytest.mark.usefixtures("confinement")
def test_without_namespaces_landlock_closes_the_network(listener: Listener) -> None:
    folder = Path(confine.__file__).parent
    port = listener.url.rpartition(":")[2]
    connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 7):
        pytest.skip("Landlock knows the network from Linux 6.7 on")
    command = ["/usr/bin/python3", "-I", "-c", connect]
    job = {"command": command, "readable": [], "writable": [], "sockets": [], "required": True}
    job |= {"cpu_seconds": 10, "memory": 2**33, "file_bytes": 2**20}
    if not Path(command[0]).exists():
        pytest.skip("the system has no Python in /usr")
    arguments = [sys.executable, "-I", "-S", "-c", WITHOUT_NAMESPACES, str(folder), json.dumps(job)]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=20, check=False)
    assert "PermissionError" in ended.stderr
    assert listener.connections == 0
    assert subprocess.run(command, timeout=20, check=False).returncode == 0
    assert listener.connections == 1, "it could, without"


CALLER = """
import signal
import sys
from pathlib import Path
from colpali_integrations.office.conversion import converted
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
try:
    converted(Path(sys.argv[1]).read_bytes(), ".docx")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are counted in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_libreoffice_ends_with_its_caller(number: signal.Signals, fake_soffice: FakeSoffice, tmp_path: Path) -> None:
    mark = f"62.{uuid4().int}"
    fake_soffice(f"sleep {mark} & sleep {mark}")
    (tmp_path / "a.docx").write_bytes(DOCUMENT)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path / "a.docx")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert wait_for(lambda: len(processes(mark)) >= 2)
    started = time.monotonic()
    caller.send_signal(number)
    output, _ = caller.communicate(timeout=10)
    assert (output == "interrupted\n") is (number == signal.SIGINT)
    assert wait_for(lambda: processes(mark) == [] and not list(tmp_path.glob("colpali-office-*")), 2.0)
    assert time.monotonic() - started < 2.0
