"""URLs, against a misbehaving server on this machine."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import ssl
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, ImageError
from colpali_integrations.pages import _addresses
from colpali_integrations.pages._addresses import is_public
from colpali_integrations.pages._fetch import fetch_url
from colpali_integrations.pages.identity import page_name
from colpali_integrations.pages.images import load_image
from colpali_integrations.stores import DocumentSource

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
            name = urlsplit(self.path).path.strip("/").replace("-", "_")  # a proxy gets whole URLs
            getattr(self, name, self.missing)()

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

    def slow_headers(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        while not self.server.released.wait(0.05):
            self.wfile.write(b"X: y\r\n")
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

    def to_private(self) -> None:
        self.redirect(f"http://127.0.0.2:{self.server.server_address[1]}/picture")

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
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy"):
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


def fetch(url: str, **options: Any) -> Image.Image:
    return load_image(url, allow_urls=True, allow_private_urls=True, **options)


@pytest.mark.parametrize("path", ["picture", "picture?size=big#top", "moved"])
def test_pictures_are_fetched_on_request(server: Server, path: str) -> None:
    image = fetch(f"{server.url}/{path}")
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


def test_without_permission_no_request_is_made(server: Server) -> None:
    with pytest.raises(ImageError, match="allow_urls=True"):
        load_image(f"{server.url}/picture")
    with ColPali.from_pretrained() as model, pytest.raises(ImageError, match="allow_urls=True"):
        list(model.embed_images([f"{server.url}/picture"]))
    assert server.requests == []


def test_a_model_fetches_pages_on_request(server: Server) -> None:
    with ColPali.from_pretrained(allow_urls=True, allow_private_urls=True, url_max_bytes=10_000) as model:
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
        ("page", "is an HTML page and no image"),
        ("empty", "is empty"),
        ("short", "the body was cut off"),
        ("cut-chunk", "the body was cut off"),
        ("nonsense", "cannot fetch"),
        ("loop", "redirect"),
        ("to-file", "redirect|not allowed"),
        ("to-ftp", "unknown url type"),
        ("to-data", "redirect|not allowed"),
    ],
)
def test_misbehaving_servers_are_errors(server: Server, path: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        fetch(f"{server.url}/{path}", timeout=5)


@pytest.mark.parametrize("path", ["hang", "drip", "slow-headers"])
def test_time_limit(server: Server, path: str) -> None:
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"timed out|not finished after 0\.4 s"):
        fetch(f"{server.url}/{path}", timeout=0.4)
    assert time.monotonic() - start < 3


def test_a_thread_ends_with_its_time(server: Server) -> None:
    with pytest.raises(ImageError):
        fetch(f"{server.url}/slow-headers", timeout=0.2)
    threads = [thread for thread in threading.enumerate() if thread.name == "colpali-fetch"]
    for thread in threads:
        thread.join(5)
    assert not [thread for thread in threads if thread.is_alive()]


def test_the_time_limit_covers_the_resolution_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: released.wait(30) and [])
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"not finished after 0\.2 s"):
        fetch("http://pictures.test/a.png", timeout=0.2)
    released.set()
    assert time.monotonic() - start < 3


def test_size_limit_stops_the_transfer(server: Server) -> None:
    with pytest.raises(ImageError, match="larger than 100000 bytes"):
        fetch(f"{server.url}/endless", max_bytes=100_000)
    assert server.sent < 50 * 2**20  # what fits into the sockets' buffers, not for ever


def test_size_limit_is_exact(server: Server) -> None:
    size = len(png())
    assert len(fetch_url(f"{server.url}/picture", timeout=5, max_bytes=size, allow_private=True)) == size
    with pytest.raises(ImageError, match="larger than"):
        fetch_url(f"{server.url}/picture", timeout=5, max_bytes=size - 1, allow_private=True)


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
        fetch(url, timeout=2)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/a.png", "gopher://127.0.0.1/"])
def test_only_http_is_fetched(url: str) -> None:
    with pytest.raises(ImageError, match="unknown url type"):
        fetch_url(url, timeout=2, max_bytes=1000)


# -- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *(("8.8.8.8", True), ("2606:4700::1111", True), ("64:ff9b::808:808", True), ("2002:808:808::", True)),
        *((f"{first}.0.0.1", False) for first in (0, 10, 127, 224, 239, 240, 255)),
        *(
            ("100.64.0.1", False),
            ("168.63.129.16", False),
            ("169.254.169.254", False),
            ("172.16.0.1", False),
            ("192.168.0.1", False),
        ),
        *(("192.0.0.9", False), ("192.0.2.1", False), ("198.18.0.1", False), ("203.0.113.1", False)),
        *(("::", False), ("::1", False), ("::7f00:1", False), ("::ffff:127.0.0.1", False), ("::ffff:10.0.0.1", False)),
        *(("64:ff9b::7f00:1", False), ("64:ff9b::a9fe:a9fe", False), ("64:ff9b:1::808:808", False)),
        *(("2002:7f00:1::", False), ("2001::1", False), ("2001:db8::1", False), ("fc00::1", False)),
        *(("fe80::1%eth0", False), ("fec0::1", False), ("ff02::1", False), ("3fff::1", False), ("100::1", False)),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]"])
def test_this_machine_is_refused_in_every_notation(server: Server, host: str) -> None:
    with pytest.raises(ImageError, match="not a public address; pass allow_private_urls=True"):
        load_image(f"http://{host}:{server.server_address[1]}/picture", allow_urls=True)
    assert server.requests == []


def test_permission_for_private_urls_alone_permits_none(server: Server) -> None:
    with pytest.raises(ImageError, match="allow_urls=True"):
        load_image(f"{server.url}/picture", allow_private_urls=True)
    with pytest.raises(ConfigurationError, match="allow_private_urls needs allow_urls=True"):
        ColPali.from_pretrained(allow_private_urls=True)


def test_redirects_to_private_addresses_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_addresses, "is_public", lambda address: address == "127.0.0.1")  # as if that were public
    np.testing.assert_array_equal(np.asarray(load_image(f"{server.url}/moved", allow_urls=True)), PIXELS)
    with pytest.raises(ImageError, match=r"127\.0\.0\.2, which is not a public address"):
        load_image(f"{server.url}/to-private", allow_urls=True)


def resolver(answers: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve names to the next of their answers."""
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        return real(answers[host].pop(0) if host in answers else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_the_checked_address_is_the_one_that_is_connected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_addresses, "is_public", lambda address: address == "127.0.0.1")
    answers = {"pictures.test": ["127.0.0.1", "127.0.0.2"]}
    resolver(answers, monkeypatch)
    port = server.server_address[1]
    assert load_image(f"http://pictures.test:{port}/picture", allow_urls=True).size == (6, 4)
    assert answers == {"pictures.test": ["127.0.0.2"]}, "the name was resolved once"
    with pytest.raises(ImageError, match="not a public address"):
        load_image(f"http://pictures.test:{port}/picture", allow_urls=True)


def test_the_certificate_is_that_of_the_name(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = Path(__file__).with_name("pictures_test.pem")  # self-signed, for pictures.test
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    resolver({"pictures.test": ["127.0.0.1"] * 2, "others.test": ["127.0.0.1"]}, monkeypatch)
    port = server.server_address[1]
    with pytest.raises(ImageError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(f"https://pictures.test:{port}/picture", timeout=5)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch(f"https://pictures.test:{port}/picture", timeout=5).size == (6, 4)
    with pytest.raises(ImageError, match="Hostname mismatch"):
        fetch(f"https://others.test:{port}/picture", timeout=5)


def test_behind_a_proxy_the_host_of_the_url_is_checked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{server.server_address[1]}")
    for host in ("10.0.0.1", "2130706433", "localhost"):
        with pytest.raises(ImageError, match="not a public address"):
            load_image(f"http://{host}/picture", allow_urls=True)
    assert server.requests == []
    assert load_image("http://203.0.114.1/picture", allow_urls=True).size == (6, 4)  # the proxy answers
    with pytest.raises(ImageError, match="not a public address"):
        load_image("http://203.0.114.1/to-private", allow_urls=True)


def test_a_name_that_only_the_proxy_resolves_is_left_to_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    assert load_image("http://pictures.invalid/picture", allow_urls=True).size == (6, 4)
    assert server.requests == ["http://pictures.invalid/picture"]


# -- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["nothing-here", "page", "empty", "short", "loop", "to-file", "to-private", "endless", "a b", "ü"]
)
def test_errors_and_logs_hide_queries_and_credentials(
    server: Server, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = uuid.uuid4().hex  # no line of this file has it, and a traceback shows lines
    url = f"{server.url}/{path}?signature={secret}#{secret}"
    with (
        caplog.at_level(logging.DEBUG),
        ColPali.from_pretrained(allow_urls=True, allow_private_urls=True, url_max_bytes=10_000, url_timeout=2) as model,
    ):
        with pytest.raises(ImageError) as raised:
            list(model.embed_images([url]))
        assert list(model.embed_images([url], on_error="skip")) == []
    shown = "".join(traceback.format_exception(raised.value))
    assert f"{server.url}/" in shown
    assert secret not in shown + (raised.value.item or "") + caplog.text


def test_credentials_in_a_url_are_refused_and_not_shown(server: Server) -> None:
    url = server.url.replace("http://", "http://user:SECRET@")
    with pytest.raises(ImageError, match="user and password") as raised:
        fetch(f"{url}/picture")
    assert "SECRET" not in str(raised.value)


def test_names_of_pages_have_no_query(server: Server) -> None:
    url = "https://shelf.test/scans/page%201.png?signature=SECRET"
    assert page_name(url, 1) == "page 1.png, page 1"
    assert DocumentSource(source=png(), name=url).label == "https://shelf.test/scans/page%201.png?..."
