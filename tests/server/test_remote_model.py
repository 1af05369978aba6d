"""A model on a server, used from elsewhere: the vectors, stores and errors of the model in the process."""

from __future__ import annotations

import asyncio
import base64
import copy
import gzip
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery
from PIL import Image

from colpali_integrations import ColPali, pdf_pages
from colpali_integrations._keys import KEY_VARIABLE
from colpali_integrations.cli.app import run
from colpali_integrations.errors import (
    ConfigurationError,
    EncodingError,
    FingerprintError,
    ImageError,
    InputError,
    ModelLoadError,
    ModelNotFoundError,
    QueryError,
)
from colpali_integrations.langchain import ColPaliEmbeddings
from colpali_integrations.langchain import ColPaliVectorStore as LangChainStore
from colpali_integrations.llama_index import ColPaliEmbedding, PdfPageReader
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaIndexStore
from colpali_integrations.models import connection, remote
from colpali_integrations.models.connection import Connection, server_url
from colpali_integrations.models.loading import find_files
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.shared import release_shared_models, shared_model
from colpali_integrations.stores import MultiVectorStore, index_documents
from colpali_integrations.stores.settings import StoredModel
from tests.conftest import FIXTURES
from tests.server.conftest import KEY, Running, running, service_of

QUESTIONS = ["diverging palettes", "Who has a seat in the parliament?", "palettes"]


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """No shared model outlives the servers of these tests."""
    yield
    release_shared_models()


@pytest.fixture
def far(served: Running) -> Iterator[ColPali]:
    """The model of the server."""
    with ColPali.from_pretrained(served.url) as model:
        yield model


def pages_of_all_kinds(papers: Path) -> list[Any]:
    """Pages of a PDF, a picture with transparency, one with a profile of colours, grey values of 16 bits."""
    see_through = Image.new("RGBA", (60, 80), (200, 10, 10, 128))
    profiled = Image.effect_noise((50, 70), 90).convert("RGB")
    profiled.info["icc_profile"] = bytes(2_000_000)  # more than Pillow reads again
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    return [*pdf_pages(papers / "report.pdf", dpi=72), see_through, profiled, grey]


def test_vectors_grids_and_words_are_those_of_the_model_in_the_process(
    far: ColPali, coltiny: ColPali, papers: Path
) -> None:
    assert far.description == coltiny.description
    assert repr(far) == repr(coltiny)
    pages = pages_of_all_kinds(papers)
    for one, other in zip(far.embed_images(pages, batch_size=3), coltiny.embed_images(pages), strict=True):
        assert one.dtype == np.float32
        assert one.flags.writeable
        np.testing.assert_array_equal(one, other)
    here = list(coltiny.embed_pages(pages))
    for page, other_page in zip(far.embed_pages(pages, parallel=2), here, strict=True):
        np.testing.assert_array_equal(page.vectors, other_page.vectors)
        assert page.grid == other_page.grid
        assert far.reads_little(page) == coltiny.reads_little(other_page)
    for method in ("embed_queries", "embed_texts"):
        several = zip(getattr(far, method)(QUESTIONS), getattr(coltiny, method)(QUESTIONS), strict=True)
        for vectors, expected in several:
            np.testing.assert_array_equal(vectors, expected)
    for text in (*QUESTIONS, "a question whose vectors were never asked for"):
        assert far.query_tokens(text) == coltiny.query_tokens(text)
        for special in (True, False):
            assert far.token_count(text, include_special=special) == coltiny.token_count(text, include_special=special)
    with pytest.raises(InputError, match="needs a page as embed_pages gives it"):
        far.reads_little(here[0])


async def test_the_methods_of_coroutines_are_there_too(far: ColPali, coltiny: ColPali) -> None:
    page = Image.new("RGB", (40, 40), "white")
    queries, pages = await asyncio.gather(far.aembed_queries(QUESTIONS), far.aembed_images([page]))
    for vectors, expected in zip(queries, coltiny.embed_queries(QUESTIONS), strict=True):
        np.testing.assert_array_equal(vectors, expected)
    np.testing.assert_array_equal(pages[0], next(coltiny.embed_images([page])))


def test_bad_items_are_errors_of_these_items(far: ColPali, tmp_path: Path) -> None:
    errors: list[Any] = []
    good = Image.new("RGB", (40, 40), "white")
    assert len(list(far.embed_images([tmp_path / "none.png", good], on_error=errors.append))) == 1
    assert [(type(error), error.index) for error in errors] == [(ImageError, 0)]
    with pytest.raises(QueryError):
        list(far.embed_queries(["  "]))
    with pytest.raises(ConfigurationError, match="coltiny has no trained dense head"):
        far.check_dense()


def test_batches_keep_to_the_limits_of_the_server(far: ColPali, coltiny: ColPali) -> None:
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    family: Any = far.family
    served = family._server.served
    family._server.served = served._replace(max_pages=1, max_texts=2)
    several = zip(far.embed_queries(QUESTIONS), coltiny.embed_queries(QUESTIONS), strict=True)
    assert all(np.array_equal(one, other) for one, other in several)
    assert len(list(far.embed_images([noise, noise], batch_size=2))) == 2
    family._server.served = served._replace(max_bytes=50_000)
    with pytest.raises(EncodingError, match=r"item 0 .* 200 x 200 pixels has [\d,]+ bytes as PNG, and a request at mo"):
        list(far.embed_images([noise]))


def test_a_dense_head_and_the_model_of_a_folder(tmp_path: Path) -> None:
    page = Image.effect_noise((64, 48), 90).convert("RGB")
    here = ColPali.from_pretrained(FIXTURES / "neomme", precision="int8")
    with ExitStack() as stack:
        store = stack.enter_context(MultiVectorStore.open(tmp_path / "index", model=here))
        server = stack.enter_context(running(service_of(here, store, tmp_path / "index", port=0)))
        far = stack.enter_context(ColPali.from_pretrained(server.url, lazy_load=True))
        assert far.description == here.description
        np.testing.assert_array_equal(next(far.embed_images_dense([page])), next(here.embed_images_dense([page])))
        for method in ("embed_queries_dense", "embed_texts_dense"):
            [one], [other] = (getattr(model, method)(["tide"], dimensions=16) for model in (far, here))
            np.testing.assert_array_equal(one, other)
        assert not far.reads_little(next(far.embed_pages([page])))
        # The pages of the other store are those of float32: the model in int8 may ask, and not add.
        exact = ColPali.from_pretrained(FIXTURES / "neomme")
        with MultiVectorStore.open(model=exact) as other_store:
            assert other_store.encoder is exact
            other_store.require_space(far)
            with pytest.raises(FingerprintError, match=r"precision float32.*precision int8"):
                other_store.require_pages(far)


def stored_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def index(papers: Path, model: ColPali | str, store: Path) -> None:
    index_documents(papers / "report.pdf", model=model, store=store)


def test_a_store_of_either_opens_with_the_other(
    served: Running, coltiny: ColPali, papers: Path, tmp_path: Path
) -> None:
    with ColPali.from_pretrained(served.url) as far:
        index(papers, far, tmp_path / "far")
        index(papers, coltiny, tmp_path / "near")
        hits = []
        for folder in ("far", "near"):
            for model in (far, coltiny, served.url, "coltiny"):
                with MultiVectorStore.open(tmp_path / folder, model=model) as store:
                    found = store.search(QUESTIONS[0], 2, hybrid="auto")
                    assert found.query is not None
                    boxes = store.regions(found.query, [hit.id for hit in found], tokens=found.tokens)
                    hits.append(([(hit.entry.name, hit.score, hit.relevance) for hit in found], list(boxes.values())))
        assert all(one == hits[0] for one in hits)
        assert any(hits[0][1])
        report = index_documents(papers / "report.pdf", model=far, store=tmp_path / "near")
        assert (report.added, report.present) == (0, 2)
    port = served.url.rpartition(":")[2].encode()
    for folder in ("far", "near"):
        content = stored_bytes(tmp_path / folder)
        assert b"http://" not in content
        assert b"127.0.0.1:" + port not in content


def test_langchain_uses_it_by_its_url(served: Running, papers: Path, tmp_path: Path, coltiny: ColPali) -> None:
    far, near = ColPaliEmbeddings(model=served.url), ColPaliEmbeddings()
    assert far.embed_query("low tide") == near.embed_query("low tide")
    assert far.fingerprint == near.fingerprint
    assert copy.deepcopy(far).model is pickle.loads(pickle.dumps(far)).model is far.model
    assert ColPaliEmbeddings(model=f"{served.url}/").model is far.model
    for adding, asking in ((far, near), (near, far)):
        path = tmp_path / f"by {adding.model_name == served.url}"
        with LangChainStore(adding, path=path) as store:
            store.add_pdf(papers / "report.pdf")
        with LangChainStore(asking, path=path) as store:
            assert [one.metadata["page"] for one in store.similarity_search(QUESTIONS[0], k=1)] == [1]


def test_llama_index_uses_it_by_its_url(served: Running, papers: Path, tmp_path: Path) -> None:
    far, near = ColPaliEmbedding(model_name=served.url), ColPaliEmbedding()
    assert far.get_query_embedding("low tide") == near.get_query_embedding("low tide")
    assert pickle.loads(pickle.dumps(far)).model is far.model
    for name, adding, asking in (("far", far, near), ("near", near, far)):
        with closing(LlamaIndexStore(path=tmp_path / name, embed_model=adding).client) as store:
            LlamaIndexStore(store, embed_model=adding).add(PdfPageReader().load_data(papers / "report.pdf"))
        opened = LlamaIndexStore(path=tmp_path / name, embed_model=asking)
        [node] = opened.query(VectorStoreQuery(query_str=QUESTIONS[0], similarity_top_k=1)).nodes or []
        assert node.metadata["page"] == 1
        opened.client.close()


def test_the_command_line_takes_it_by_its_url(
    served: Running, papers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "index")]
    assert run(["index", str(papers / "report.pdf"), "--model", served.url, "--quiet", *store]) == 0
    answers = []
    for model in ([], ["--model", served.url]):
        capsys.readouterr()
        assert run(["search", QUESTIONS[0], "--json", *model, *store]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert run(["doctor", "--model", served.url]) in (0, 3)
    assert f"on the server {served.url}" in "".join(capsys.readouterr().out.split("\n"))
    assert run(["quantize", served.url, str(tmp_path / "out")]) == 1
    assert "is a server, and the files of a model are needed here" in " ".join(capsys.readouterr().err.split())


def test_options_of_the_model_are_the_server_s(served: Running, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"threads, precision: http://127.0.0.1:.* decides how its model is"):
        ColPali.from_pretrained(served.url, threads=2, precision="int8")
    with pytest.raises(ConfigurationError, match="its name or its folder"):
        find_files(served.url, ModelOptions())
    with pytest.raises(ConfigurationError, match="api_key_file: for a model on a server"):
        ColPali.from_pretrained(api_key_file=tmp_path / "key")
    with pytest.raises(ConfigurationError, match="pass api_key_file=, or set COLPALI_API_KEY"):
        ColPali.from_pretrained(served.url, api_key="secret")  # type: ignore[arg-type]
    small = ColPali.from_pretrained(served.url, max_pixels=100)
    with small, pytest.raises(ImageError, match="pixels"):
        list(small.embed_images([png(Image.new("RGB", (40, 40)))]))


def png(image: Image.Image) -> bytes:
    from colpali_integrations.pages.reference import encode_png

    return encode_png(image)


def test_a_key_reaches_its_server_and_nothing_else(
    locked: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=r"send the API key.* Set the environment variable COLPALI_API_KEY"):
        ColPali.from_pretrained(locked.url)
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    far = ColPaliEmbeddings(model=locked.url, api_key_file=file)
    assert len(far.embed_query("low tide")) == 128
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with ColPali.from_pretrained(locked.url) as model:
        assert len(model.embed_query("low tide")) == 3
        connection: Any = model.family._server._connection  # type: ignore[attr-defined]
        assert KEY not in repr(vars(connection))
        with pytest.raises(TypeError):
            pickle.dumps(connection._key)
    assert KEY.encode() not in pickle.dumps(far)
    assert KEY not in repr(far)
    monkeypatch.setenv(KEY_VARIABLE, "another-key-of-the-tests")
    with pytest.raises(ConfigurationError, match="not that of this server") as refused:
        ColPali.from_pretrained(locked.url)
    assert "another-key" not in str(refused.value)
    for url in ("http://example.org", "http://10.1.2.3:8765", "http://localhost.example.org"):
        with pytest.raises(ConfigurationError, match="would be sent in clear text"):
            ColPali.from_pretrained(url)
    for url in ("https://example.org", "http://localhost:1", "http://[::1]:1", "http://127.0.0.2"):
        Connection(url)


@pytest.mark.parametrize(
    ("url", "shortest"),
    [
        ("HTTP://LocalHost:8765/", "http://localhost:8765"),
        ("https://example.org/colpali/", "https://example.org/colpali"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_urls_have_one_form(url: str, shortest: str) -> None:
    assert server_url(url) == shortest


@pytest.mark.parametrize(
    "place", ["u:secret@host", "secret@host", "host?key=secret", "host#secret", "", "ho st", "h:x"]
)
def test_other_urls_are_refused_without_their_secrets(place: str) -> None:
    embeddings = lambda url: ColPaliEmbeddings(model=url)  # noqa: E731
    for open_ in (ColPali.from_pretrained, shared_model, MultiVectorStore.open, embeddings):
        with pytest.raises((ConfigurationError, ModelNotFoundError), match="URL of a server") as refused:
            open_(f"http://{place}")
        assert "secret" not in str(refused.value)


Answer = tuple[int, dict[str, str], Any]


@contextmanager
def answering(*answers: Answer, port: int = 0) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers, the last one again and again; its URL and the paths of the requests."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            paths.append(self.path)
            status, headers, body = answers[min(len(paths), len(answers)) - 1]
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", paths
        finally:
            server.shutdown()
            thread.join()


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    busy: Answer = (429, {"Retry-After": "0"}, {"message": "full"})
    stopping: Answer = (503, {"Retry-After": "1"}, {"message": "stopping"})
    with answering(busy, stopping, (200, {}, {"data": []})) as (url, paths):
        assert Connection(url).post("/v1/encode", {}, EncodingError) == {"data": []}
    assert paths == ["/v1/encode"] * 3
    gone: Answer = (503, {"Retry-After": "500"}, {"message": "the store is gone"})
    with answering(gone) as (url, paths), pytest.raises(EncodingError, match="answers 503: the store is gone"):
        Connection(url).get("/v1/encoder", EncodingError)
    assert len(paths) == 1  # it asks to wait for longer than a caller would


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, {"detail": "Not Found"}), "no server of this package, or an older one"),
        ((200, {}, b"<html>"), "no server of this package"),
        ((302, {"Location": "http://example.org"}, b""), "answers 302"),
        ((500, {}, {"message": "a fault"}), "answers 500: a fault"),
        ((500, {}, {"message": "a" * 10_000}), "answers 500: a{1000}$"),
        ((200, {}, b"[" * 200_000), "no server of this package"),
        ((200, {"Content-Encoding": "gzip"}, gzip.compress(b"{}")), "no server of this package"),
    ],
)
def test_other_servers_are_named_as_such(answer: Answer, message: str) -> None:
    with answering(answer) as (url, paths), pytest.raises(ModelNotFoundError, match=message):
        ColPali.from_pretrained(url)
    assert paths == ["/v1/encoder"]


def test_answers_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_MOST_BYTES", 1000)
    with answering((200, {}, {"data": "a" * 1000})) as (url, _), pytest.raises(EncodingError, match="without an end"):
        Connection(url).get("/v1/encoder", EncodingError)
    monkeypatch.setattr(connection, "_MOST_BYTES", 10_000)
    monkeypatch.setattr(connection, "_ALL_SECONDS", -1.0)
    with answering((200, {}, {"data": "a"})) as (url, _), pytest.raises(EncodingError, match="without an end"):
        Connection(url).get("/v1/encoder", EncodingError)


def test_a_server_that_is_started_anew_is_waited_for() -> None:
    answer: Answer = (200, {}, {"data": []})
    with answering(answer) as (url, _):
        far = Connection(url)
        far.get("/v1/encoder", EncodingError)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(far.get, "/v1/encoder", EncodingError)
        with pytest.raises(TimeoutError):
            asked.result(0.2)
        with answering(answer, port=int(url.rpartition(":")[2])):
            assert asked.result(30) == {"data": []}


def test_a_server_that_is_not_there_is_named_with_the_command_that_starts_it() -> None:
    with answering() as (url, _):
        pass
    with pytest.raises(ModelNotFoundError, match=rf"{url} cannot be reached .*colpali-integrations serve --store"):
        ColPali.from_pretrained(url)


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer["fingerprint"].update(space="0123456789abcdef@+"),
        lambda answer: answer["description"].update(family="of-tomorrow"),
        lambda answer: answer["description"].update(dim="128"),
        lambda answer: answer.pop("limits"),
        lambda answer: answer["limits"].update(texts="2048"),
        lambda answer: answer["limits"].update(bytes=0),
    ],
)
def test_another_version_s_vectors_are_refused(change: Callable[[Any], Any], served: Running) -> None:
    answer = served.client.get("/v1/encoder").json()
    change(answer)
    answer["version"] = "99.0"
    with answering((200, {}, answer)) as (url, _), pytest.raises(ModelLoadError, match=r"the server has 99\.0"):
        ColPali.from_pretrained(url)


def test_another_model_in_the_same_place_is_refused(far: ColPali, served: Running) -> None:
    server: Any = far.family._server  # type: ignore[attr-defined]
    server._fingerprint = "0123456789abcdef"
    with pytest.raises(EncodingError, match="answers 409: the server has another model now, 'coltiny'"):
        far.embed_query("low tide")
    with pytest.raises(EncodingError, match="another model now"):
        far.query_tokens("a question of its own")
    far.load()
    described = served.client.get("/v1/encoder").json()
    neomme = ColPali.from_pretrained(FIXTURES / "neomme", lazy_load=True).description
    other = {**described, "description": neomme.to_dict()}
    other["fingerprint"] = asdict(neomme.fingerprint)
    with answering((200, {}, described), (200, {}, other)) as (url, _):
        model = ColPali.from_pretrained(url)
        with model, pytest.raises(ModelLoadError, match="has another model now"):
            model.load()


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{}],
        [{"shape": [3, 128], "vectors": "AAAA"}],
        [{"shape": [1, 2], "vectors": "AAAAAAAAAAA="}],
        [{"shape": [1, 128], "vectors": "!"}],
        [{"shape": [0, 128], "vectors": ""}],
        [{"shape": [2**70, 128], "vectors": ""}],
        [3],
    ],
)
def test_answers_of_another_form_are_one_error(data: Any, served: Running) -> None:
    described = served.client.get("/v1/encoder").json()
    with answering((200, {}, described), (200, {}, {"data": data})) as (url, _):
        model = ColPali.from_pretrained(url)
        with model, pytest.raises(EncodingError, match="is not as expected"):
            next(model.embed_texts(["low tide"]))


def test_a_count_that_is_no_number_and_a_grid_of_another_page_are_the_same_error(served: Running) -> None:
    described = served.client.get("/v1/encoder").json()
    vectors = {"shape": [2, 128], "vectors": base64.b64encode(bytes(1024)).decode()}
    tokens = {"tokens": ["a"], "text_token_count": 1, "token_count": float("inf")}
    page = Image.new("RGB", (50, 50))
    grid = next(served.service.model.embed_pages([page])).grid
    with (
        answering((200, {}, described), (200, {}, {"data": [tokens]})) as (url, _),
        ColPali.from_pretrained(url) as model,
        pytest.raises(EncodingError, match="is not as expected"),
    ):
        model.token_count("low tide")
    answer = {**vectors, "grid": grid.to_json(), "reads_little": False}
    with (
        answering((200, {}, described), (200, {}, {"data": [answer]})) as (url, _),
        ColPali.from_pretrained(url) as model,
        pytest.raises(EncodingError, match="a grid of 1 positions came with 2 vectors"),
    ):
        next(iter(model.embed_pages([page])))


def test_the_server_s_own_checks(served: Running) -> None:
    def refusal(path: str, **body: Any) -> tuple[int, str]:
        answer = served.client.post(path, json=body)
        return answer.status_code, answer.json()["message"]

    assert refusal("/v1/encode") == (400, "the body lacks queries or texts or pages")
    assert refusal("/v1/encode", queries=["a"], texts=["b"]) == (
        400,
        "send one of queries, texts, pages, got queries and texts",
    )
    assert refusal("/v1/encode", pages=["http://example.org/a.png"])[0] == 400
    assert refusal("/v1/encode", queries=["a"], dense=True)[0] == 400
    assert refusal("/v1/tokens", texts=["a"], fingerprint="x")[0] == 409
    assert remote.Served.by(Connection(served.url)).max_bytes == 128 * 2**20


def test_an_encoder_of_ray_uses_it_by_its_url(served: Running, coltiny: ColPali) -> None:
    pytest.importorskip("ray")
    from colpali_integrations.ray.encoder import PageEncoder
    from colpali_integrations.ray.pipeline import _for_workers

    assert _for_workers(served.url, coltiny.description, {}) == served.url  # a URL, and not a model to load there
    encoder = PageEncoder(served.url, expected=StoredModel.of(coltiny.description), threads=2)
    with encoder.model as far:
        page = Image.new("RGB", (40, 40), "white")
        np.testing.assert_array_equal(next(far.embed_images([page])), next(coltiny.embed_images([page])))
