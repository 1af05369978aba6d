"""URLs, against a misbehaving server on this machine."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.errors import ImageError
from colpali_integrations.pages._fetch import fetch_url
from colpali_integrations.pages.images import load_image

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
            getattr(self, self.path.strip("/").split("?")[0].replace("-", "_"), self.missing)()

    def missing(self) -> None:
        self.send_error(404)

    def picture(self, status: int = 200) -> None:
        self.reply(png(), status=status)

    def reply(self, body: bytes, *, status: int = 200, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def page(self) -> None:
        self.reply(b"<html>Please log in</html>")

    def broken(self) -> None:
        self.send_error(500)

    def empty(self) -> None:
        self.reply(b"")

    def short(self) -> None:
        self.reply(png()[:-30], length=len(png()))

    def cut_chunk(self) -> None:
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"1000\r\n" + png())
        self.close_connection = True

    def nonsense(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")

    def hang(self) -> None:
        self.server.released.wait(30)

    def drip(self) -> None:
        """A drop well within every time limit for a read, for ever."""
        self.send_response(200)
        self.end_headers()
        while not self.server.released.wait(0.05):
            self.wfile.write(b"x")
            self.wfile.flush()

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.released.is_set():
            self.server.sent += self.wfile.write(bytes(2**16))

    def redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def moved(self) -> None:
        self.redirect("/picture")

    def loop(self) -> None:
        self.redirect("/loop?" + str(time.monotonic()))

    def to_file(self) -> None:
        self.redirect(self.server.secret.as_uri())

    def to_ftp(self) -> None:
        self.redirect("ftp://127.0.0.1/picture.png")

    def to_data(self) -> None:
        self.redirect("data:image/png;base64,AAAA")

    def log_message(self, format: str, *args: object) -> None:
        self.server.requests.append(self.path)


class Server(ThreadingHTTPServer):
    block_on_close = False

    def __init__(self, secret: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.secret = secret
        self.released = threading.Event()
        self.sent = 0
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are the point here


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    with Server(secret) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["picture", "picture?size=big#top", "moved"])
def test_pictures_are_fetched_on_request(server: Server, path: str) -> None:
    image = load_image(f"{server.url}/{path}", allow_urls=True)
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


def test_without_permission_no_request_is_made(server: Server) -> None:
    with pytest.raises(ImageError, match="allow_urls=True"):
        load_image(f"{server.url}/picture")
    with ColPali.from_pretrained() as model, pytest.raises(ImageError, match="allow_urls=True"):
        list(model.embed_images([f"{server.url}/picture"]))
    assert server.requests == []


def test_a_model_fetches_pages_on_request(server: Server) -> None:
    with ColPali.from_pretrained(allow_urls=True, url_max_bytes=10_000) as model:
        [from_url] = model.embed_images(f"{server.url}/picture")
        [from_array] = model.embed_images(PIXELS)
        np.testing.assert_array_equal(from_url, from_array)
        with pytest.raises(ImageError, match="larger than 10000 bytes"):
            list(model.embed_images([f"{server.url}/endless"]))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nothing-here", "HTTP 404"),
        ("broken", "HTTP 500"),
        ("page", "is not an image"),
        ("empty", "is empty"),
        ("short", "damaged, cut off"),
        ("cut-chunk", "IncompleteRead|damaged, cut off"),
        ("nonsense", "cannot fetch"),
        ("loop", "redirect"),
        ("to-file", "redirect|not allowed"),
        ("to-ftp", "unknown url type"),
        ("to-data", "redirect|not allowed"),
    ],
)
def test_misbehaving_servers_are_errors(server: Server, path: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        load_image(f"{server.url}/{path}", allow_urls=True, timeout=5)


@pytest.mark.parametrize("path", ["hang", "drip"])
def test_time_limit(server: Server, path: str) -> None:
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"timed out|not finished after 0\.4 s"):
        load_image(f"{server.url}/{path}", allow_urls=True, timeout=0.4)
    assert time.monotonic() - start < 3


def test_size_limit_stops_the_transfer(server: Server) -> None:
    with pytest.raises(ImageError, match="larger than 100000 bytes"):
        load_image(f"{server.url}/endless", allow_urls=True, max_bytes=100_000)
    assert server.sent < 50 * 2**20  # what fits into the sockets' buffers, not for ever


def test_size_limit_is_exact(server: Server) -> None:
    size = len(png())
    assert len(fetch_url(f"{server.url}/picture", timeout=5, max_bytes=size)) == size
    with pytest.raises(ImageError, match="larger than"):
        fetch_url(f"{server.url}/picture", timeout=5, max_bytes=size - 1)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/refused.png",
        "http://127.0.0.1:99999/no-such-port.png",
        "http://",
        "http://[broken/a.png",
        "http://127.0.0.1:9/a b.png",
        "http://127.0.0.1:9/ü.png",
        "http://127.0.0.1:9/\r\nX-Injected: 1",
        "https://127.0.0.1:9/a.png",
    ],
)
def test_unreachable_urls_are_errors(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ImageError, match="cannot fetch"):
        load_image(url, allow_urls=True, timeout=2)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/a.png", "gopher://127.0.0.1/"])
def test_only_http_is_fetched(url: str) -> None:
    with pytest.raises(ImageError, match="unknown url type"):
        fetch_url(url, timeout=2, max_bytes=1000)
