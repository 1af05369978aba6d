"""A Hugging Face Hub on this machine: as much of its protocol as `snapshot_download` needs."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["COMMIT", "Hub", "serve"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves a repository or two. What it was asked for stands in `requests`, as "GET /path".

    Args:
        repository: "owner/name".
        files: name in the repository -> content.
        revisions: what may be asked for beside the commit.
        silent: accept requests and never answer.
        gated: refuse the files, not the list of them.
        others: further repositories and their files.
    """

    block_on_close = False
    daemon_threads = True

    def __init__(
        self,
        repository: str,
        files: dict[str, bytes],
        *,
        revisions: tuple[str, ...] = ("main",),
        silent: bool = False,
        gated: bool = False,
        others: dict[str, dict[str, bytes]] | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.revisions = files, (*revisions, COMMIT)
        self.repositories = {repository: files, **(others or {})}
        self.silent, self.gated = silent, gated
        self.requests: list[str] = []
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloaded(self) -> set[str]:
        """Names of the files whose content was sent."""
        return {
            path.split(f"/{COMMIT}/", 1)[1] for path in self.requests if path.startswith("GET") and "/resolve/" in path
        }

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._serve(with_body=False)

    def do_GET(self) -> None:
        self._serve(with_body=True)

    def _serve(self, *, with_body: bool) -> None:
        hub, path = self.server, urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        if hub.silent:
            hub.stopped.wait(60)
            return
        named = path.removeprefix("/api/models/").strip("/").split("/")
        repository = "/".join(named[:2])
        files = hub.repositories.get(repository)
        if files is None:
            self._refuse(404, "RepoNotFound")
            return
        api = f"/api/models/{repository}"
        if path in (api, *(f"{api}/revision/{revision}" for revision in hub.revisions)):
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": repository, "sha": COMMIT, "private": False, "siblings": siblings})
        elif path.startswith(f"{api}/revision/"):
            self._refuse(404, "RevisionNotFound")
        elif path == f"{api}/tree/{COMMIT}":
            self._json([
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ])  # fmt: skip
        elif path.startswith(f"/{repository}/resolve/"):
            revision, _, name = path.removeprefix(f"/{repository}/resolve/").partition("/")
            if hub.gated:
                self._refuse(403, "GatedRepo")
            elif revision not in hub.revisions or name not in files:
                self._refuse(404, "EntryNotFound")
            else:
                self._file(files[name], with_body=with_body)
        else:
            self._refuse(404, "RepoNotFound")

    def _file(self, content: bytes, *, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", f"refused: {code}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """`requests` is the log."""


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Run a Hub for a while."""
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stopped.set()
        hub.shutdown()
        hub.server_close()
        thread.join()
