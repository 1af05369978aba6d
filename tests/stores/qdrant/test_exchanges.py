"""The stand-ins answer as a real server did: the recorded requests, made again from their shortened lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from tests.stores.qdrant.grpc_stand_in import GrpcStandIn, grpc_stand_in
from tests.stores.qdrant.refusals import MOST_NUMBERS, Access, Cluster
from tests.stores.qdrant.stand_in import StandIn, stand_in

LINES = [json.loads(line) for line in Path(__file__).with_name("exchanges.jsonl").read_text("utf-8").splitlines()[1:]]
VERSION = "1.18.3"
KEYS = {"admin": "admin", "read-only": "read", "token for one collection, read": "c", "expired token": "expired"}


def numbered(line: dict[str, Any]) -> str:
    return f"{LINES.index(line) + 2} {line['case']}"


def rest() -> list[dict[str, Any]]:
    return [line for line in LINES if line["transport"] == "REST"]


def rebuilt(value: Any) -> Any:
    """A shortened value in its full length."""
    if isinstance(value, dict):
        return {key: rebuilt(one) for key, one in value.items()}
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+) bytes", value)):
        return b'{"points":[],"' + b"x" * (int(found[1]) - 18) + b'":1}' if int(found[1]) > 1000 else RARE[found[1]]
    if not isinstance(value, list):
        return value
    last = value[-1] if value else None
    found = re.fullmatch(r"\.\.\. (\d+) (items|numbers)", last) if isinstance(last, str) else None
    if found is None:
        return [rebuilt(one) for one in value]
    kept = [rebuilt(one) for one in value[:-1]]
    more = [another(kept[-1], len(kept) + number) for number in range(int(found[1]) - len(kept))]
    return kept + more


RARE = {"71": {"vectors": {"size": 8, "distance": "Dot"}, "replication_factor": 5, "shard_number": 1}}


def another(value: Any, number: int) -> Any:
    """A further item of a list: another point, or the same vector, number or id."""
    return {**value, "id": number} if isinstance(value, dict) and "id" in value else value


def sent(client: httpx.Client, line: dict[str, Any]) -> httpx.Response:
    body = rebuilt(line.get("body"))
    name = line["case"].removeprefix("keys: ")
    key = next((one for one in ("wrong", *KEYS) if name.startswith(one)), None)
    headers = {} if key is None else {"api-key": key}
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    return client.request(line["method"], line["path"], content=content, headers=headers)


def error_of(answer: httpx.Response) -> str | None:
    if answer.status_code == 200:
        return None
    is_json = answer.headers.get("content-type") == "application/json"
    error: str = answer.json()["status"]["error"] if is_json else answer.text
    return without_columns(error)


def without_columns(text: str) -> str:
    """Columns depend on the digits of the numbers before them, which the recording has shortened."""
    return re.sub(r"column \d+", "column", text)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, tuple[StandIn, httpx.Client]]]:
    """One server, one with keys, one of a cluster."""
    with ExitStack() as opened:
        made = {}
        for kind in ("one", "keys", "cluster"):
            server = opened.enter_context(stand_in(VERSION, clock=lambda: 0.0))
            made[kind] = server, opened.enter_context(httpx.Client(base_url=server.url))
        made["keys"][0].access = Access(KEYS)
        made["cluster"][0].cluster = Cluster()
        yield made


@pytest.mark.parametrize("line", rest(), ids=numbered)
def test_rest(servers: dict[str, tuple[StandIn, httpx.Client]], line: dict[str, Any]) -> None:
    case = line["case"]
    kind = next((one for one in ("keys", "cluster") if case.startswith(one)), "one")
    server, client = servers[kind]
    if server.cluster is not None:
        server.cluster.lost = 2 if "two of three killed" in case else "a node killed" in case
    if case == "facet: limit 2 of 3 values":
        server.strict.indexes["s"]["group"] = "keyword"  # how it was made is not among the lines
    answer = sent(client, line)
    assert answer.status_code == line["status"]
    assert answer.headers.get("retry-after") == (str(line["retry_after"]) if "retry_after" in line else None)
    expected = line.get("error", line.get("text"))
    error = error_of(answer)
    if expected is not None and (shortened := re.fullmatch(r"(.*)\.\.\. (\d+) characters", expected, re.DOTALL)):
        assert error is not None
        assert error.startswith(shortened[1])
        assert len(error) == int(shortened[2])
    else:
        assert error == (None if expected is None else without_columns(expected))


ROW = [0.1] * 8


def points(count: int, rows: int = 2) -> list[models.PointStruct]:
    return [models.PointStruct(id=number, vector={"full": [ROW] * rows}, payload={}) for number in range(count)]


CALLS: dict[str, Callable[[QdrantClient], object]] = {
    "get: missing": lambda client: (client.delete_collection("c"), client.get_collection("c")),
    "create again": lambda client: create(client),
    "upsert: one multivector of 1,048,576 numbers": lambda client: client.upsert("c", points(1, MOST_NUMBERS // 8)),
    "facet": lambda client: client.facet("c", "group"),
    "cluster, a node killed: upsert, write consistency 2": lambda client: client.upsert("c", points(60)),
    "cluster, two of three killed: query": lambda client: client.query_points("c", [ROW, ROW], using="full", limit=1),
    "strict: batch": lambda client: client.upsert("c", points(6)),
    "rate: read": lambda client: [client.count("c") for _ in range(4)],
    "rate: write": lambda client: [client.upsert("c", points(1)) for _ in range(4)],
}
"""Requests over gRPC, of the REST lines of the same names."""


def create(client: QdrantClient) -> None:
    full = models.VectorParams(
        size=8,
        distance=models.Distance.DOT,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )
    client.create_collection("c", {"full": full}, write_consistency_factor=2)


@pytest.fixture
def grpc_server() -> Iterator[GrpcStandIn]:
    with grpc_stand_in() as running:
        yield running


@pytest.mark.parametrize(
    "line",
    [line for line in LINES if line["transport"] == "gRPC"],
    ids=numbered,
)
def test_grpc(grpc_server: GrpcStandIn, line: dict[str, Any]) -> None:
    url = f"http://127.0.0.1:{grpc_server.port}"
    client = QdrantClient(url, prefer_grpc=True, grpc_port=grpc_server.port, check_compatibility=False)
    create(client)
    client.create_payload_index("c", "group", models.PayloadSchemaType.KEYWORD)
    case = line["case"]
    grpc_server.cluster = Cluster()
    grpc_server.cluster.lost = 2 if "two of three killed" in case else "a node killed" in case
    if case.startswith("strict"):
        grpc_server.strict.made("c", models.StrictModeConfig(enabled=True, upsert_max_batchsize=5))
    elif case.startswith("rate"):
        grpc_server.strict.made("c", models.StrictModeConfig(enabled=True, read_rate_limit=3, write_rate_limit=3))
    if "raised_by_the_client" in line:
        with pytest.raises(ResourceExhaustedResponse) as refused:
            CALLS[case](client)
        assert type(refused.value).__name__ == line["raised_by_the_client"]
        assert str(refused.value) == line["text"]
        assert refused.value.retry_after_s == 20
    elif line["code"] == "OK":
        CALLS[case](client)
    else:
        with pytest.raises(grpc.RpcError) as caught:
            CALLS[case](client)
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code().name == line["code"]
        # A long text of the recording ends in the middle.
        assert str(caught.value.details()).startswith(line["details"])
    client.close()
