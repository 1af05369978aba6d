"""A server in a process of its own, and clients of it, for the measurements of the server.

The clients of one measurement are tasks of one thread, so that they take as little of the two cores as they can, and
none of them waits for another one's turn.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_ALONE = "from colpali_integrations.server import service; service._MOST_TOGETHER = 1; "
_COMMAND = "from colpali_integrations import cli; cli.main()"


class Address(NamedTuple):
    """Where a server answers."""

    host: str
    port: int


@contextmanager
def server(
    store: Path,
    *options: str,
    model: str = "coltiny",
    together: bool = True,
    program: Sequence[str] | None = None,
    folder: Path | None = None,
) -> Iterator[tuple[subprocess.Popen[str], Address]]:
    """The server's process and its address.

    Args:
        store: the folder of the index.
        options: of the command.
        model: its name or folder.
        together: whether questions that wait are answered together.
        program: another `colpali-integrations` than this one; `together` does not apply to it.
        folder: where the process runs.
    """
    program = program or [sys.executable, "-c", _COMMAND if together else _ALONE + _COMMAND]
    command = [*program, "serve", "--store", str(store), "--model", model, "--port", "0", *options]
    variables = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables, cwd=folder) as process:
        assert process.stderr is not None
        text = ""
        while "Ask: curl" not in text:
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server has not started:\n{text}")
            text += line
        threading.Thread(target=process.stderr.read, daemon=True).start()
        found = re.search(r"at http://(.*):(\d+);", text)
        assert found is not None
        try:
            yield process, Address(found[1], int(found[2]))
        finally:
            process.kill()


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """A request as bytes of HTTP."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if method == "POST":
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def post(path: str, body: Any) -> bytes:
    """A request with JSON."""
    return request("POST", path, json.dumps(body).encode())


def upload(content: bytes, name: str, **fields: str) -> bytes:
    """A request with a file."""
    mark = uuid.uuid4().hex
    parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{fields[key]}\r\n' for key in fields]
    parts.append(f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n')
    body = "".join(parts).encode() + content + f"\r\n--{mark}--\r\n".encode()
    return request("POST", "/v1/documents", body, f"multipart/form-data; boundary={mark}")


class Connection:
    """A connection of one client.

    Attributes:
        retries: how often an answer of 429 or 503 was waited for as it told.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self.retries = reader, writer, 0

    async def send(self, content: bytes) -> Answer:
        """Send a request and read its answer.

        Raises:
            ConnectionError: the server has ended the connection.
        """
        try:
            self._writer.write(content)
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the server has ended the connection") from error
        return Answer(int(lines[0].split()[1]), headers, body)

    async def ask(self, content: bytes) -> Answer:
        """Send a request, and again after the seconds that an answer of 429 or 503 tells."""
        while (answer := await self.send(content)).status in (429, 503):
            self.retries += 1
            await asyncio.sleep(float(answer.headers["retry-after"]))
        return answer


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Connection]:
    """A connection, which is closed in the end."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
