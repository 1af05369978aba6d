"""Searches and pictures over HTTP: the answers of the store in the process."""

from __future__ import annotations

import http.client
import io
import json
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.explain import draw_regions
from colpali_integrations.pages import page_image
from colpali_integrations.server import checking
from colpali_integrations.stores import Entry, MultiVectorStore, index_documents
from tests.server.conftest import Running, Start

QUESTION = "diverging palettes"
SEARCHES: list[dict[str, Any]] = [
    {},
    {"k": 1},
    {"hybrid": "auto"},
    {"hybrid": None},
    {"hybrid": False},
    {"hybrid": True},
    {"hybrid": 0},
    {"hybrid": 0.5},
    {"hybrid": "rrf", "k": 1},
    {"filter": {"page": {"$gt": 1}}},
    {"filter": {"year": 2023}},
    {"mode": "exact", "min_relevance": 0.3},
    {"k": 3.0, "filter": None},
]


def test_an_answer_tells_whether_its_pages_seem_to_fit(served: Running) -> None:
    def doubtful(question: str) -> object:
        return served.client.post("/v1/search", json={"query": question}).json()["doubtful"]

    assert [doubtful(QUESTION), doubtful("flights from Berlin to Tokyo")] == [False, True]


@pytest.mark.parametrize("options", SEARCHES, ids=json.dumps)
def test_an_answer_is_that_of_the_store(options: dict[str, Any], served: Running) -> None:
    answer = served.client.post("/v1/search", json={"query": QUESTION, **options, "text": True}).json()
    given = {name: value for name, value in options.items() if value is not None}
    inside = {"where" if name == "filter" else name: value for name, value in given.items()}
    hits = served.store.search(QUESTION, **inside)
    assert answer["query"] == QUESTION
    assert answer["model"] == "coltiny"
    assert [
        (one["id"], one["score"], one["max_sim"], one["relevance"], one["bm25"], one["text"], one["metadata"])
        for one in answer["hits"]
    ] == [(hit.id, hit.score, hit.max_sim, hit.relevance, hit.bm25, hit.entry.text, hit.entry.metadata) for hit in hits]
    assert [one["name"] for one in answer["hits"]] == [hit.entry.name for hit in hits]


def test_words_count_unless_the_caller_forbids_it(served: Running) -> None:
    """The bundled model's description says that they pay, so without `hybrid` the scores are not MaxSim's."""

    def hits(**options: Any) -> Any:
        return served.client.post("/v1/search", json={"query": QUESTION, **options}).json()["hits"]

    assert hits() == hits(hybrid="auto") == hits(hybrid=None)
    assert hits()[0]["bm25"] > 0
    assert [one["bm25"] for one in hits(hybrid=False)] == [None, None]
    assert [one["halves"] for one in hits(hybrid=False)] == [None, None]
    for one in hits():
        halves = one["halves"]
        parts = (1 - halves["weight"]) * halves["sight"] + halves["weight"] * halves["words"]
        assert one["score"] == pytest.approx(parts)
    assert hits()[0]["score"] != hits(hybrid=False)[0]["score"]


def test_regions_are_those_of_the_store(served: Running) -> None:
    answer = served.client.post("/v1/search", json={"query": QUESTION, "regions": True}).json()
    hits = served.store.search(QUESTION)
    boxes = served.store.regions(hits.query, [hit.id for hit in hits], tokens=hits.tokens)  # type: ignore[arg-type]
    assert {one["id"]: one["regions"] for one in answer["hits"]} == json.loads(json.dumps(boxes))
    assert any("palettes" in [box["token"] for box in some] for some in boxes.values())
    assert "regions" not in served.client.post("/v1/search", json={"query": QUESTION}).json()["hits"][0]


def test_questions_of_equal_options_are_answered_together_and_others_apart(served: Running) -> None:
    """True and 1 are equal in Python, and different values in a filter."""
    searches: list[dict[str, Any]] = [{"filter": {"new": True}}, {"filter": {"new": 1}}, {}, {"k": 1}] * 8
    questions = [f"{QUESTION} {number % 5}" for number in range(len(searches))]
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        body = {"query": questions[number], **searches[number]}
        found[number] = served.client.post("/v1/search", json=body).json()["hits"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(searches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, search in enumerate(searches):
        hits = served.store.search(questions[number], search.get("k", 10), where=search.get("filter"))
        assert [one["id"] for one in found[number]] == [hit.id for hit in hits]
        np.testing.assert_allclose([one["score"] for one in found[number]], [hit.score for hit in hits], rtol=1e-5)
    assert [len(found[number]) for number in range(4)] == [2, 0, 2, 1]


HYBRID = 'hybrid must be "auto", "rrf", true, false, null or a number from 0 to 1'
WRONG: list[tuple[Any, str]] = [
    ({}, "query is missing"),
    ([], "the body must be an object"),
    ({"query": ""}, "query must have at least 1 characters"),
    ({"query": "   "}, "white space"),
    ({"query": 3}, "query must be a string, got 3"),
    ({"query": "a", "k": 0}, "k must be at least 1, got 0"),
    ({"query": "a", "k": 2.5}, "k must be a whole number, got 2.5"),
    ({"query": "a", "k": True}, "k must be a whole number, got True"),
    ({"query": "a", "hybrid": 2}, f"{HYBRID}, got 2"),
    ({"query": "a", "hybrid": "bm25"}, f"{HYBRID}, got 'bm25'"),
    ({"query": "a", "hybrid": []}, f"{HYBRID}, got []"),
    ({"query": "a", "k": 10**400}, "k must be a finite number, got 1000"),
    ({"query": "a", "hybrid": 10**400}, "hybrid must be"),
    ({"query": "a", "oversampling": 10**400}, "oversampling must be a finite number, got 1000"),
    ({"query": "a", "min_relevance": -(10**400)}, "min_relevance must be a finite number, got -1000"),
    ({"query": "a", "filter": {"page": {"$near": 3}}}, "near"),
    ({"query": "a", "where": {}}, "no field 'where'; its fields are query, k, filter"),
    ({"query": "a" * 40_000}, "query must have at most 32,768 characters, got 40,000"),
]


@pytest.mark.parametrize(("body", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_search_is_refused_with_the_reason(body: Any, message: str, served: Running) -> None:
    response = served.client.post("/v1/search", json=body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert response.json()["message"] == response.json()["error"]["message"]


RAW: list[tuple[bytes, str, int, str]] = [
    (b"{", "application/json", 400, "the body is not JSON"),
    (b"\xff\xfe", "application/json", 400, "the body is not JSON"),
    (b'{"query": NaN}', "application/json", 400, "NaN is not JSON"),
    (b'{"query": "a", "k": 1e999}', "application/json", 400, "k must be a whole number, got inf"),
    (b'{"query": "\\ud800"}', "application/json", 400, "lone surrogate"),
    (b'{"query": "a", "k": ' + b"9" * 5000 + b"}", "application/json", 400, "the body is not JSON"),
    (b"[" * 200_000, "application/json", 400, "too many levels"),
    (b'{"query": "a"}', "text/plain", 415, "application/json"),
]


@pytest.mark.parametrize(("body", "kind", "status", "message"), RAW, ids=lambda value: str(value)[:30])
def test_what_is_no_json_is_refused(body: bytes, kind: str, status: int, message: str, served: Running) -> None:
    response = served.client.post("/v1/search", content=body, headers={"Content-Type": kind})
    assert response.status_code == status
    assert message in response.json()["message"]


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(served: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(served.url).port, timeout=30)
    with closing(connection):
        connection.putrequest("POST", "/v1/search")
        connection.putheader("Content-Length", str(2**40))
        connection.endheaders()
        assert connection.getresponse().status == 413

    def pieces() -> Any:
        for _ in range(40):
            yield b" " * 2**20

    response = served.client.post("/v1/search", content=pieces(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert "1,048,576 bytes" in response.json()["message"]
    response = served.client.post("/v1/embeddings", content=pieces(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert "33,554,432 bytes" in response.json()["message"]


def test_health_answers_while_a_long_body_is_read(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go, read = threading.Event(), threading.Event(), checking.parsed

    def slow(text: bytes | str, name: str) -> Any:
        began.set()
        assert go.wait(30)
        return read(text, name)

    monkeypatch.setattr(checking, "parsed", slow)
    body = {"query": "a", "filter": {"page": {"$in": list(range(50_000))}}}
    answers: list[httpx.Response] = []
    with httpx.Client(base_url=served.url, timeout=60, trust_env=False) as other:
        thread = threading.Thread(target=lambda: answers.append(other.post("/v1/search", json=body)))
        thread.start()
        assert began.wait(30)
        try:
            assert served.client.get("/healthz", timeout=10).status_code == 200
        finally:
            go.set()
            thread.join(30)
    assert answers[0].status_code == 200


def picture(response: Any) -> Image.Image:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    return Image.open(io.BytesIO(response.content)).convert("RGB")


def test_a_picture_is_that_of_the_page(served: Running) -> None:
    [hit] = served.store.search(QUESTION, 1)
    path = f"/v1/pages/{hit.id}/image"
    first = served.client.get(path)
    assert picture(first).tobytes() == page_image(hit.entry.metadata).tobytes()
    small = page_image(hit.entry.metadata, dpi=50)
    assert picture(served.client.get(path, params={"dpi": 50})).tobytes() == small.tobytes()
    boxes: dict[str, str | int] = {"dpi": 50, "boxes": "0.1,0.2,0.5,0.3;0,0,1,1"}
    drawn = draw_regions(small, [{"box": [0.1, 0.2, 0.5, 0.3]}, {"box": [0, 0, 1, 1]}], labels=False)
    assert picture(served.client.get(path, params=boxes)).tobytes() == drawn.tobytes()
    again = served.client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert served.client.get(path, params=boxes, headers={"If-None-Match": first.headers["etag"]}).status_code == 200


@pytest.mark.parametrize(
    "query",
    ["dpi=5", "dpi=1e9", "dpi=nan", "dpi=x", "boxes=1,2,3", "boxes=0,0,2,1", "boxes=0.5,0,0.1,1", "boxes=a,b,c,d"],
)
def test_a_wrong_option_of_a_picture_is_refused(query: str, served: Running) -> None:
    [hit] = served.store.search(QUESTION, 1)
    response = served.client.get(f"/v1/pages/{hit.id}/image?{query}")
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json()["message"]


def test_a_page_has_its_text_and_metadata(served: Running) -> None:
    [hit] = served.store.search(QUESTION, 1)
    answer = served.client.get(f"/v1/pages/{hit.id}").json()
    assert (answer["text"], answer["metadata"]) == (hit.entry.text, hit.entry.metadata)
    assert served.client.get("/v1/pages/unknown").status_code == 404
    assert served.client.get("/v1/pages/unknown/image").status_code == 404
    assert served.client.get("/v1/pages/../../etc/passwd").status_code == 404


def test_only_pictures_of_known_files_below_a_root_are_shown(
    start: Start, papers: Path, tmp_path: Path, coltiny: ColPali
) -> None:
    shown, hidden = tmp_path / "shown", tmp_path / "hidden"
    for folder in (shown, hidden):
        folder.mkdir()
        (folder / "report.pdf").write_bytes((papers / "report.pdf").read_bytes())
    (shown / "link.pdf").symlink_to(hidden / "report.pdf")
    path = tmp_path / "index"
    with MultiVectorStore.open(path, model=coltiny) as store:
        index_documents([shown / "report.pdf", hidden / "report.pdf"], model=coltiny, store=store)
        entries = {entry.metadata["file_path"]: entry for entry in store.scroll({"page": 1})}
        whole = entries[str(shown / "report.pdf")]
        [vectors] = store.vectors([whole.id])
        assert vectors is not None
        link = {"source": str(shown / "link.pdf"), "file_path": str(shown / "link.pdf")}
        no_hash = {key: value for key, value in whole.metadata.items() if key != "content_hash"}
        store.add([(Entry(id="a link", metadata={**whole.metadata, **link}, grid=whole.grid), vectors)])
        store.add([(Entry(id="no hash", metadata=no_hash, grid=whole.grid), vectors)])
        store.add([(Entry(id="a/text", text="low tide"), vectors)])
    client = start(path, roots=[shown]).client

    def status(id_: str) -> tuple[int, str]:
        response = client.get(f"/v1/pages/{id_}/image", params={"dpi": 20})
        code = "" if response.status_code == 200 else response.json()["error"]["code"]
        return response.status_code, code

    assert status(whole.id) == (200, "")
    assert status(entries[str(hidden / "report.pdf")].id) == (403, "not_in_roots")
    assert status("a link") == (403, "not_in_roots")
    assert status("no hash") == (403, "no_content_hash")
    assert status("a/text") == (404, "no_picture")
    (shown / "report.pdf").write_bytes((shown / "report.pdf").read_bytes() + b" ")
    assert status(whole.id) == (410, "not_drawn")
    (shown / "report.pdf").unlink()
    assert status(whole.id) == (410, "not_drawn")
