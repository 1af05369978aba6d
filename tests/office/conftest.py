"""LibreOffice, programs in its place, and canaries."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pypdfium2
import pytest
from PIL import Image

from colpali_integrations.office import confine
from tests.office.documents import Canaries, cell, row, xlsx

SECRET = "gibraltar"


class FakeSoffice(Protocol):
    """Puts a script of a shell in LibreOffice's place, in which $out is the folder of the result."""

    def __call__(self, script: str = ...) -> Path: ...


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of converted files, for each test its own."""
    folder = tmp_path / "converted"
    monkeypatch.setenv("COLPALI_OFFICE_CACHE", str(folder))
    return folder


@pytest.fixture
def soffice() -> str:
    found = shutil.which("soffice")
    if found is None:
        pytest.skip("LibreOffice is not installed")
    return found


@pytest.fixture
def fake_soffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSoffice:
    """LibreOffice's place; without a script, the result is a PDF of two pages."""
    folder = tmp_path / "office"
    (folder / "program").mkdir(parents=True)
    pdf = pypdfium2.PdfDocument.new()
    for _ in range(2):
        pdf.new_page(300, 200)
    pdf.save(folder / "two.pdf")
    pdf.close()

    def put(script: str = f'cp "{folder}/two.pdf" "$out/document.pdf"') -> Path:
        program = folder / "program" / "soffice"
        find = 'while [ $# -gt 0 ]; do [ "$1" = --outdir ] && out="$2"; shift; done\n'
        program.write_text(f"#!/bin/sh\n{find}{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("COLPALI_SOFFICE", str(program))
        return program

    return put


@pytest.fixture(scope="session")
def confinement() -> None:
    """Skip a test where the system cannot keep a program from files."""
    job = {"command": ["/bin/true"], "readable": [], "writable": [], "sockets": [], "required": True}
    job |= {"cpu_seconds": 10, "memory": 2**33, "file_bytes": 2**20}
    command = [sys.executable, "-I", "-S", confine.__file__, json.dumps(job)]
    if sys.platform != "linux" or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("this system has no Landlock")


class Listener:
    """A server on this machine that answers nothing.

    Attributes:
        url: its address.
        connections: number of connections.
        requests: the first line of each.
    """

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.connections = 0
        self.requests: list[str] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            request = connection.recv(4096)
            connection.close()
            if request == b"end":
                return
            self.connections += 1
            self.requests.append(request.partition(b"\r\n")[0].decode("latin-1"))

    def close(self) -> None:
        with socket.create_connection(self._socket.getsockname()) as last:
            last.sendall(b"end")
        self._thread.join()
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    opened = Listener()
    yield opened
    opened.close()


@pytest.fixture
def canaries(tmp_path: Path, listener: Listener) -> Canaries:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "secret.txt").write_text(f"{SECRET}\n")
    Image.new("RGB", (40, 40), (255, 0, 255)).save(folder / "secret.png")
    (folder / "secret.xlsx").write_bytes(xlsx({"one": row(cell("A1", SECRET))}))
    return Canaries(folder / "secret.txt", folder / "secret.png", folder / "secret.xlsx", listener.url)
