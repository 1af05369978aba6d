"""The files of the search page, and signing in to it: what is open, what the cookie is, and what it may do."""

from __future__ import annotations

import re
from http.cookies import SimpleCookie
from importlib.resources import files
from typing import Any

import httpx
import pytest

from colpali_integrations.server.search_page import POLICY
from colpali_integrations.server.sessions import SECONDS, Sessions
from tests.server.conftest import KEY, Running, cookie_of

PAGE = files("colpali_integrations.server").joinpath("page")
SIGNED_IN = {"needs_key": True, "signed_in": True, "may_change": True, "chat": None}
TEXTS = {entry.name: entry.read_text(encoding="utf-8") for entry in PAGE.iterdir()}


def test_the_page_and_its_files_are_sent_with_a_policy_and_without_a_key(locked: Running) -> None:
    paths = ["/", *(f"/page/{name}" for name in TEXTS)]
    assert len(paths) > 10
    for path in paths:
        answer = locked.client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        again = locked.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert locked.client.get("/page/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    for name in ("none.js", "..%2f..%2fservice.py", "%2e%2e/service.py", "search_page.py", ""):
        assert locked.client.get(f"/page/{name}").status_code == 404


def test_the_policy_permits_nothing_inline_and_no_other_host() -> None:
    assert POLICY.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert "http" not in POLICY


def test_the_page_fetches_only_files_that_are_there() -> None:
    html, script = TEXTS["index.html"], "".join(text for name, text in TEXTS.items() if name.endswith(".js"))
    named = re.findall(r'(?:href|src)="page/([^"]+)"', html) + re.findall(r'from "\./([^"]+)"', script)
    named += re.findall(r'url\("([^"]+)"\)', TEXTS["style.css"])
    assert {*named, "index.html"} == TEXTS.keys()
    assert set(re.findall(r"https?://[^\s\"']+", "".join(TEXTS.values()))) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script)


def test_a_link_of_another_page_may_open_the_page_and_nothing_else(served: Running) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert served.client.get("/", headers=link).status_code == 200
    assert served.client.get("/v1/documents", headers=link).status_code == 403
    assert served.client.post("/", headers=link).status_code == 403
    assert served.client.get("/", headers={**link, "Sec-Fetch-Mode": "no-cors"}).status_code == 403


def sign_in(server: Running, **headers: str) -> tuple[httpx.Response, Any]:
    answer = server.client.post("/session", json={"key": KEY}, headers=headers)
    server.client.cookies.clear()  # each request of a test says itself what it carries
    cookie = SimpleCookie(answer.headers.get("set-cookie", "")).get(cookie_of(server))
    return answer, cookie


def test_the_key_is_traded_for_a_cookie_that_is_not_the_key(locked: Running) -> None:
    answer, cookie = sign_in(locked, Origin=locked.url)
    assert answer.json() == SIGNED_IN
    assert (cookie["httponly"], cookie["samesite"].lower(), cookie["path"]) == (True, "strict", "/")
    assert (int(cookie["max-age"]), cookie["secure"]) == (SECONDS, "")
    assert KEY not in str(answer.headers) + answer.text
    assert len(cookie.value) == 43
    assert cookie.value not in repr(vars(locked.service))
    assert sign_in(locked)[1].value != cookie.value
    secure = sign_in(locked, Host="127.0.0.1", Origin="https://127.0.0.1")[1]
    assert secure["secure"] is True  # a proxy speaks TLS


@pytest.mark.parametrize("key", [KEY[:-1], f"{KEY}x", "é" * 20])
def test_another_key_is_refused(key: str, locked: Running) -> None:
    answer = locked.client.post("/session", json={"key": key})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "set-cookie" not in answer.headers
    assert KEY not in answer.text


def test_a_session_counts_as_the_key_and_changes_things_from_the_page_alone(locked: Running) -> None:
    client, cookie = locked.client, {"Cookie": f"{cookie_of(locked)}={sign_in(locked)[1].value}"}
    own, search = {**cookie, "Origin": locked.url}, {"query": "tide"}
    assert client.get("/session", headers=cookie).json() == SIGNED_IN
    assert client.get("/v1/documents", headers=cookie).status_code == 200
    assert client.post("/v1/search", json=search, headers=own).status_code == 200
    assert client.delete("/v1/documents/none", headers=own).status_code == 404
    for headers in (cookie, {**cookie, "Origin": "http://127.0.0.1:1"}, {**cookie, "Origin": "null"}):
        assert client.post("/v1/search", json=search, headers=headers).status_code == 403
        assert client.delete("/v1/documents/none", headers=headers).status_code == 403
    assert client.get("/v1/documents", headers={**cookie, "Authorization": "Bearer another-key"}).status_code == 401
    assert client.delete("/session", headers=own).json() == {**SIGNED_IN, "signed_in": False, "may_change": False}
    assert client.get("/v1/documents", headers=cookie).status_code == 401
    for made_up in ("", "x" * 43, KEY):
        assert client.get("/v1/documents", headers={"Cookie": f"{cookie_of(locked)}={made_up}"}).status_code == 401


def test_a_server_without_a_key_has_nothing_to_sign_in_to(served: Running) -> None:
    assert served.client.get("/session").json() == {**SIGNED_IN, "needs_key": False, "signed_in": False}
    answer = served.client.post("/session", json={"key": KEY})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_api_key")


def test_sessions_end_by_time_and_are_bounded() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    first = sessions.begin()
    now = SECONDS - 1.0
    assert sessions.has(first)
    second = sessions.begin()
    now += 1.0
    assert (sessions.has(first), sessions.has(second), sessions.has(None)) == (False, True, False)
    reading = sessions.begin(may_change=False)
    assert [sessions.may_change(one) for one in (second, reading, first, "", None)] == [True, False, None, None, None]
    tokens = [sessions.begin() for _ in range(1000)]
    assert not sessions.has(second)
    assert all(map(sessions.has, tokens))
    assert tokens[0] not in repr(sessions)
