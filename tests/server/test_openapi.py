"""The OpenAPI description, and the server's answers to what it permits and forbids."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations.server import checking
from colpali_integrations.server.checking import check, parsed
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.openapi import described
from colpali_integrations.server.routes import TABLE
from tests.server.conftest import KEY, Running, Start

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def test_every_address_is_described(served: Running, locked: Running) -> None:
    description = served.client.get("/openapi.json").json()
    operations = {(method.upper(), path) for path, some in description["paths"].items() for method in some}
    assert operations == {(one.method, one.path.replace(":path", "")) for one in TABLE}
    assert all(one["summary"] for some in description["paths"].values() for one in some.values())
    assert "securitySchemes" not in description["components"]
    assert locked.client.get("/openapi.json").status_code == 401
    closed = locked.client.get("/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json()
    assert closed["paths"]["/v1/search"]["post"]["security"] == [{"key": []}]
    assert "security" not in closed["paths"]["/healthz"]["get"]


def test_the_choice_of_hybrid_is_described(served: Running) -> None:
    paths = served.client.get("/openapi.json").json()["paths"]
    body = paths["/v1/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    hybrid = body["properties"]["hybrid"]
    assert hybrid["default"] == "auto"
    assert hybrid["anyOf"] == [
        {"type": "boolean"},
        {"type": "string", "enum": ["auto", "rrf"]},
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "null"},
    ]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/search", "POST"),
        ("PUT", "/v1/documents", "GET, HEAD, POST"),
        ("POST", "/v1/pages/a/image", "GET, HEAD"),
        ("PUT", "/v1/documents/a", "DELETE"),
    ],
)
def test_another_method_is_refused_with_those_that_are_allowed(
    method: str, path: str, allowed: str, served: Running
) -> None:
    answer = served.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["message"] == f"{path} does not take {method}; it takes {allowed}"


def test_calls_that_the_description_permits_and_forbids_are_answered(start: Start, papers: Any) -> None:
    """A few calls per address; `python -m tests.server.fuzz` makes thousands."""
    from tests.server.fuzz import fuzz  # schemathesis takes a second to import, which one process needs

    statuses = fuzz(start(roots=[papers]).url, 6)
    assert sum(statuses.values()) > 60
    assert statuses[200] > 10
    assert statuses[400] > 10


@given(VALUES)
def test_any_value_fits_a_schema_or_is_refused(value: Any) -> None:
    bodies = described(TABLE, needs_key=False)["paths"]
    assert bodies
    for schema in ({"type": "integer", "minimum": 1}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, {"enum": [1]}):
        try:
            check(value, schema, "the value")
        except RequestError as error:
            assert error.status == 400
            assert str(error).startswith("the value ")
        else:
            assert schema.get("type") != "integer" or (value >= 1 and value == int(value))
            assert "anyOf" not in schema or value is None or isinstance(value, str)
            assert "enum" not in schema or value == 1


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_any_text_is_json_or_refused(text: bytes | str) -> None:
    try:
        parsed(text, "the text")
    except RequestError as error:
        assert error.status == 400


def test_a_body_of_very_many_values_is_refused_before_it_is_read(served: Running, monkeypatch: Any) -> None:
    monkeypatch.setattr(checking, "parsed", None)
    body = b'{"input": [' + b"1," * 500_000 + b"1]}"
    answer = served.client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_values")


def test_a_long_body_of_few_values_is_read(served: Running) -> None:
    image = "data:image/png;base64," + "A" * 2**23
    answer = served.client.post("/v1/multi-vector", json={"input": [{"image": image}]})
    assert answer.status_code == 400
    assert "image" in answer.json()["message"]


def test_many_levels_end_soon() -> None:
    began = time.monotonic()
    with pytest.raises(RequestError, match="too many levels"):
        parsed(b'{"a":' * 500_000, "the text")
    assert time.monotonic() - began < 30
