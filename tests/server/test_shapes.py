"""The shapes of other services: by their own clients where there is one, else by requests of their descriptions.

Requests and answers of vLLM are written from its public description. Those of Jina are written from the requests of
public clients and the beginning of its OpenAPI description; the rest of it was not seen.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
from PIL import Image, ImageDraw, ImageFont
from starlette.responses import JSONResponse

from colpali_integrations import ColPali, max_sim
from colpali_integrations.models.single import SingleVectors
from colpali_integrations.pages.reference import encode_base64
from colpali_integrations.server import writing
from colpali_integrations.server.writing import NumbersResponse
from colpali_integrations.stores.rerank import Candidate, CandidateScorer
from tests.server.conftest import KEY, Running

TEXTS = ["Low tide at six in the old harbour", "The tax office opens at nine", "Bread and butter"]
QUESTION = "when is low tide"


@pytest.fixture
def page() -> str:
    """A page with a few words, as a data URI."""
    image = Image.new("RGB", (600, 200), "white")
    ImageDraw.Draw(image).text((20, 60), "low tide in the harbour", "black", ImageFont.load_default(32))
    return f"data:image/png;base64,{encode_base64(image)}"


@pytest.fixture
def openai_client(served: Running) -> Any:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_s_client_gets_pooled_vectors(openai_client: openai.OpenAI, coltiny: ColPali) -> None:
    expected = list(SingleVectors(coltiny).texts(TEXTS))
    ways: list[Any] = [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}]
    for options in ways:
        answer = openai_client.embeddings.create(model="coltiny", input=TEXTS, **options)
        found: list[Any] = [one.embedding for one in answer.data]
        if options.get("encoding_format") == "base64":  # the client decodes its own default alone
            found = [np.frombuffer(base64.b64decode(one), "<f4").tolist() for one in found]
        assert found == expected
        assert [one.index for one in answer.data] == [0, 1, 2]
        assert answer.model == "coltiny"
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == coltiny.token_count(TEXTS)
    one = openai_client.embeddings.create(model="coltiny", input=QUESTION, extra_body={"input_type": "query"})
    assert one.data[0].embedding == SingleVectors(coltiny).query(QUESTION)
    assert [model.id for model in openai_client.models.list()] == ["coltiny"]


def test_openai_s_client_gets_its_errors(openai_client: openai.OpenAI, locked: Running) -> None:
    with pytest.raises(openai.NotFoundError, match="has the model 'coltiny', not 'text-embedding-3-small'") as unknown:
        openai_client.embeddings.create(model="text-embedding-3-small", input="tide")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="cannot be cut"):
        openai_client.embeddings.create(model="coltiny", input="tide", dimensions=64)
    with pytest.raises(openai.BadRequestError, match=r"input\[1\] must have at least 1 characters"):
        openai_client.embeddings.create(model="coltiny", input=["tide", ""])
    with pytest.raises(openai.BadRequestError, match=r"input\[0\] must be a string, got 5"):
        openai_client.embeddings.create(model="coltiny", input=[5, 6])
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="not that of this server"):
            client.embeddings.create(model="coltiny", input="tide")
        assert client.with_options(api_key=KEY).embeddings.create(model="coltiny", input="tide").data


def ranked(coltiny: ColPali, documents: list[str]) -> list[tuple[int, float]]:
    """The order and the relevances that the package's own scorer gives."""
    scores = CandidateScorer(lambda: coltiny).scores(QUESTION, [Candidate(None, text, text) for text in documents])
    return sorted(((index, one.relevance) for index, one in enumerate(scores)), key=lambda pair: -pair[1])


@pytest.fixture
def cohere_client() -> Iterator[Any]:
    """Makes clients of Cohere's package; their connections are closed in the end."""
    with httpx.Client(trust_env=False) as connections:

        def make(version: int, url: str, key: str) -> Any:
            kind: Any = cohere.Client if version == 1 else cohere.ClientV2
            return kind(api_key=key, base_url=url, httpx_client=connections)

        yield make


@pytest.mark.parametrize("version", [1, 2])
def test_cohere_s_client_reranks_texts(version: int, served: Running, coltiny: ColPali, cohere_client: Any) -> None:
    client = cohere_client(version, served.url, "none")
    answer = client.rerank(model="coltiny", query=QUESTION, documents=TEXTS)
    assert [(one.index, one.relevance_score) for one in answer.results] == ranked(coltiny, TEXTS)
    assert answer.results[0].index == 0
    assert answer.id
    assert answer.meta.api_version.version == str(version)
    first = client.rerank(model="coltiny", query=QUESTION, documents=TEXTS, top_n=1)
    assert [one.index for one in first.results] == [0]
    if version == 1:
        documents: Any = [{"text": text} for text in TEXTS]
        told = client.rerank(model="coltiny", query=QUESTION, documents=documents, return_documents=True)
        assert told.results[0].document.text == TEXTS[0]


def test_cohere_s_client_gets_its_errors(locked: Running, cohere_client: Any) -> None:
    client = cohere_client(2, locked.url, KEY)
    with pytest.raises(cohere.NotFoundError) as raised:
        client.rerank(model="rerank-v3.5", query=QUESTION, documents=TEXTS)
    assert "not 'rerank-v3.5'" in raised.value.body["message"]
    with pytest.raises(cohere.UnauthorizedError):
        cohere_client(2, locked.url, "wrong").rerank(model="coltiny", query="a", documents=["b"])


def test_jina_s_rerank_takes_pages(served: Running, page: str, coltiny: ColPali) -> None:
    """As public clients send it: documents as strings or {"text"} or {"image"}; `usage` in the answer."""
    request = {
        "model": "coltiny",
        "query": QUESTION,
        "documents": ["Bread and butter", {"image": page}, {"text": TEXTS[1]}],
        "top_n": 2,
        "return_documents": True,
    }
    answer = served.client.post("/v1/rerank", json=request).json()
    assert answer["results"][0]["index"] == 1
    assert answer["results"][0]["document"] == {"image": page}
    [vectors] = coltiny.embed_images([page])
    query = coltiny.embed_query(QUESTION)
    highest = CandidateScorer(lambda: coltiny).scores(QUESTION, [Candidate(None, "a", image=lambda: page)])
    assert answer["results"][0]["relevance_score"] == highest[0].relevance
    assert highest[0].max_sim == pytest.approx(float(max_sim(query, vectors)), rel=1e-3)
    assert answer["usage"]["total_tokens"] > 0


def test_jina_s_multi_vector(served: Running, page: str, coltiny: ColPali) -> None:
    """As public clients send it: `input`, `input_type`, `dimensions`, `embedding_type`; `embeddings` is (n, dim)."""
    request = {
        "model": "coltiny",
        "dimensions": 128,
        "input_type": "document",
        "embedding_type": "float",
        "input": [TEXTS[0], {"image": page}, {"text": TEXTS[1]}],
    }
    answer = served.client.post("/v1/multi-vector", json=request).json()
    texts, pages = list(coltiny.embed_texts([TEXTS[0], TEXTS[1]])), list(coltiny.embed_images([page]))
    for one, expected in zip(answer["data"], [texts[0], pages[0], texts[1]], strict=True):
        np.testing.assert_array_equal(np.array(one["embeddings"], np.float32), expected)
        assert one["object"] == "embeddings"
    assert (answer["object"], answer["model"]) == ("list", "coltiny")
    query = served.client.post("/v1/multi-vector", json={"input": [QUESTION], "input_type": "query"}).json()
    np.testing.assert_array_equal(np.float32(query["data"][0]["embeddings"]), coltiny.embed_query(QUESTION))
    wrong = served.client.post("/v1/multi-vector", json={"input": [QUESTION], "dimensions": 64})
    assert (wrong.status_code, "dimensions must be 128" in wrong.text) == (400, True)


def test_vllm_s_pooling(served: Running, page: str, coltiny: ColPali) -> None:
    """`PoolingRequest` and `PoolingResponse` of vLLM 0.18: a completion's `input`, or a chat's `messages`."""
    answer = served.client.post(
        "/pooling", json={"model": "coltiny", "input": [QUESTION], "task": "token_embed"}
    ).json()
    np.testing.assert_array_equal(np.float32(answer["data"][0]["data"]), coltiny.embed_query(QUESTION))
    assert answer["data"][0]["object"] == "pooling"
    assert answer["id"].startswith("pool-")
    assert answer["object"] == "list"
    assert answer["created"] > 1.7e9
    parts = [{"type": "image_url", "image_url": {"url": page}}, {"type": "text", "text": "Describe the image."}]
    chat = {"model": "coltiny", "messages": [{"role": "user", "content": parts}], "encoding_format": "base64"}
    packed = served.client.post("/pooling", json=chat).json()["data"][0]["data"]
    [expected] = coltiny.embed_images([page])
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed), "<f4").reshape(-1, 128), expected)


def test_vllm_s_score(served: Running, page: str, coltiny: ColPali) -> None:
    """`ScoreRequest` and `ScoreResponse` of vLLM 0.18: one to many, pairs, and content parts as documents."""
    parts = {"content": [{"type": "image_url", "image_url": {"url": page}}, {"type": "text", "text": TEXTS[1]}]}
    answer = served.client.post("/score", json={"model": "coltiny", "text_1": QUESTION, "text_2": parts}).json()
    query = coltiny.embed_query(QUESTION)
    vectors = [*coltiny.embed_images([page]), *coltiny.embed_texts([TEXTS[1]])]
    expected = [float(max_sim(query, one.astype(np.float16))) for one in vectors]
    assert [one["score"] for one in answer["data"]] == pytest.approx(expected, rel=1e-6)
    assert [(one["index"], one["object"]) for one in answer["data"]] == [(0, "score"), (1, "score")]
    pairs = {"queries": [QUESTION, "bread"], "documents": [TEXTS[0], TEXTS[2]]}
    scores = [one["score"] for one in served.client.post("/score", json=pairs).json()["data"]]
    for score, question, text in zip(scores, pairs["queries"], pairs["documents"], strict=True):
        [vector] = coltiny.embed_texts([text])
        expected_score = float(max_sim(coltiny.embed_query(question), vector.astype(np.float16)))
        assert score == pytest.approx(expected_score, rel=1e-6)


ADDRESSES = ["https://example.org/page.png", "http://127.0.0.1/", "file:///etc/passwd", "/etc/passwd", "page.png", ""]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_and_paths_of_images_are_refused(address: str, served: Running) -> None:
    part = {"type": "image_url", "image_url": {"url": address}}
    requests: list[tuple[str, Any]] = [
        ("/v1/rerank", {"query": "a", "documents": [{"image": address}]}),
        ("/v1/multi-vector", {"input": [{"image": address}]}),
        ("/pooling", {"messages": [{"role": "user", "content": [part]}]}),
        ("/score", {"text_1": "a", "text_2": [part]}),
    ]
    for path, body in requests:
        response = served.client.post(path, json=body)
        assert response.status_code == 400
        assert "must be a data URI" in response.json()["message"]


def test_an_image_that_cannot_be_read_is_named(served: Running, page: str) -> None:
    torn = page[:60]
    body = {"input": ["a text", {"image": page}, {"image": torn}]}
    response = served.client.post("/v1/multi-vector", json=body)
    assert response.status_code == 400
    assert response.json()["message"].startswith("item 2 ")
    body = {"input": [{"image": page}] * 33}
    assert "32 images, got 33" in served.client.post("/v1/multi-vector", json=body).json()["message"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/pooling", {}, "the body lacks input or messages"),
        ("/pooling", {"input": "a", "task": "classify"}, 'task must be one of "token_embed"'),
        (
            "/pooling",
            {"messages": [{"role": "user", "content": [{"type": "video", "text": "a"}]}]},
            "type must be one of",
        ),
        ("/score", {"text_1": "a"}, "the body lacks text_1 and text_2 or queries and documents"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "got 2 and 3"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents must have at least 1 items"),
        ("/v1/rerank", {"query": "a"}, "documents is missing"),
        ("/v1/rerank", {"query": "a", "documents": [{}]}, "text is missing"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(path: str, body: Any, message: str, served: Running) -> None:
    response = served.client.post(path, json=body)
    assert response.status_code == 400
    assert message in response.json()["message"]


def test_numbers_are_written_in_pieces_as_json_writes_them_at_once() -> None:
    vectors = np.random.default_rng(1).standard_normal((3, 4), "float32")
    content: Any = {"data": [{"index": 0, "embeddings": vectors}, {"embedding": [0.5], "name": 'é"'}], "usage": {}}
    listed: Any = {**content, "data": [{"index": 0, "embeddings": vectors.tolist()}, content["data"][1]], "none": []}
    written = NumbersResponse({**content, "none": []}).body
    assert written == JSONResponse(listed).body


def test_an_answer_with_very_many_numbers_is_refused(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_MOST_NUMBERS", 1000)
    for path in ("/v1/multi-vector", "/pooling"):
        answer = served.client.post(path, json={"input": [QUESTION] * 20})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_numbers")
        assert served.client.post(path, json={"input": ["tide"]}).status_code == 200
