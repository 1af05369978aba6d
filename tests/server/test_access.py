"""Who may call the server, and that its key shows itself nowhere."""

from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.server.access import host_name
from colpali_integrations.server.settings import KEY_VARIABLE, ApiKey, ServerSettings, is_loopback, key_of
from tests.server.conftest import KEY, Running, Start

CLOSED = ["/metrics", "/v1/pages/a", "/v1/pages/a/image", "/v1/search", "/no-such-address", "/healthz/"]


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("given", [None, "", "Bearer", f"Basic {KEY}", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", KEY])
def test_a_request_without_the_key_is_refused(path: str, given: str | None, locked: Running) -> None:
    headers = {} if given is None else {"Authorization": given}
    response = locked.client.get(path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert KEY not in response.text


def test_a_request_with_the_key_is_answered_and_health_needs_none(
    locked: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        headers = {"Authorization": f"bearer {KEY}"}
        assert locked.client.post("/v1/search", json={"query": "tide"}, headers=headers).json()["hits"] == []
        assert locked.client.get("/no-such-address", headers=headers).status_code == 404
        assert locked.client.get("/healthz").json()["status"] == "ok"
        text = locked.client.get("/metrics", headers=headers).text
    assert 'colpali_requests_total{method="POST",route="/v1/search",status="200"} 1.0' in text
    assert KEY not in caplog.text + text + repr(locked.service.settings) + repr(vars(locked.service))


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "a b", "u@localhost"]
)
def test_a_name_that_is_not_the_server_s_is_refused(host: str, served: Running) -> None:
    response = served.client.get("/healthz", headers={"Host": host})
    assert response.status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8765", "192.0.2.1"])
def test_addresses_and_localhost_are_answered(host: str, served: Running) -> None:
    assert served.client.get("/healthz", headers={"Host": host}).status_code == 200


def test_an_allowed_name_is_answered(start: Start) -> None:
    client = start(allowed_hosts=["Pages.Example"]).client
    assert client.get("/healthz", headers={"Host": "pages.example"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "other.example"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_origins_are_refused(headers: dict[str, str], served: Running) -> None:
    response = served.client.post("/v1/search", json={"query": "tide"}, headers=headers)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


def test_the_server_s_own_pages_are_answered(served: Running) -> None:
    headers = {"Origin": served.url, "Sec-Fetch-Site": "same-origin"}
    assert served.client.post("/v1/search", json={"query": "tide"}, headers=headers).status_code == 200


@example("%A")
@given(st.text())
def test_any_host_header_is_read_or_refused(header: str) -> None:
    name = host_name(header)
    assert name is None or (name == name.lower() and header.lower().strip("[").startswith(name))


@pytest.mark.parametrize("value", ["", "short", f"{KEY} {KEY}", f"{KEY}\n{KEY}", f"{KEY}é"])
def test_a_weak_or_broken_key_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(ConfigurationError, match="the API key in the test must be one line") as raised:
        ApiKey(value, where="the test")
    assert not value or value not in str(raised.value)


def test_a_key_can_neither_be_seen_nor_copied() -> None:
    key = ApiKey(KEY, where="the test")
    assert KEY not in f"{key} {key!r} {ServerSettings(key=key)!r} {ServerSettings(key=key)}"
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            way(key)
    assert key.matches(KEY)
    assert not key.matches(KEY + "é\ud800")


def test_a_key_is_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    variables = {KEY_VARIABLE: KEY + "-other"}
    of_file = key_of(file, environment=variables)
    assert of_file is not None
    assert of_file.matches(KEY)
    assert variables == {}  # the processes that read PDFs inherit the environment
    of_variable = key_of(None, environment={KEY_VARIABLE: KEY})
    assert of_variable is not None
    assert of_variable.matches(KEY)
    assert key_of(None, environment={}) is None
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        key_of(tmp_path / "none", environment={})
    file.write_bytes(b"\xff" * 40)
    with pytest.raises(ConfigurationError, match="it is not ASCII text"):
        key_of(file, environment={})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "no-such-host.invalid"])
def test_other_machines_need_a_key(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match="has no API key") as raised:
        ServerSettings(host=host)
    assert "--api-key-file" in (raised.value.command or "")
    assert ServerSettings(host=host, key=ApiKey(KEY, where="the test")).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    assert is_loopback(host)
    assert ServerSettings(host=host).key is None


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="port must be from 0 to 65535"):
        ServerSettings(port=65536)
    with pytest.raises(ConfigurationError, match="is not a folder"):
        ServerSettings(roots=[tmp_path / "none"])
    with pytest.raises(ConfigurationError, match="max_pages must be a whole number"):
        ServerSettings(max_pages=0)
