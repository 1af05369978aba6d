from __future__ import annotations

import asyncio
import base64
import io
import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from colpali_integrations import ColPali, max_sim, pdf_pages
from colpali_integrations.errors import (
    ColPaliError,
    ConfigurationError,
    ImageError,
    InputError,
    ModelNotFoundError,
    PdfError,
    QueryError,
)
from colpali_integrations.langchain import ColPaliEmbeddings, PdfPageLoader
from colpali_integrations.models.hub import bundled_folder
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.registry import find_model
from colpali_integrations.models.shared import release_shared_models
from colpali_integrations.scoring import mean_pool

PDFS = Path(__file__).parents[2] / "demo" / "pdfs"
FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
SLIDES = PDFS / "metropolis-slides.pdf"


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return ColPaliEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "coltiny"}


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return ColPaliEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model_name": "coltiny", "batch_size": 2}


class TestIntegrationOfATinyPaliGemma(TestIntegration):
    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model_name": "Qdrant/colpali-v1.3-fp16", "local_dir": FIXTURES / "paligemma"}


@pytest.fixture(scope="module")
def embeddings() -> ColPaliEmbeddings:
    return ColPaliEmbeddings()


@pytest.fixture(scope="module")
def core() -> Iterator[ColPali]:
    with ColPali.from_pretrained() as model:
        yield model


def picture(text: str) -> Image.Image:
    image = Image.new("RGB", (200, 150), "white")
    ImageDraw.Draw(image).text((20, 20), text, fill="black", font=ImageFont.load_default(14))
    return image


def png(text: str) -> bytes:
    buffer = io.BytesIO()
    picture(text).save(buffer, "PNG")
    return buffer.getvalue()


# -- results --------------------------------------------------------------------------------------------------------


def test_pooled_vectors_are_unit_means_as_python_floats(embeddings: ColPaliEmbeddings, core: ColPali) -> None:
    query = embeddings.embed_query("annual report")
    [text] = embeddings.embed_documents(["annual report"])
    [image] = embeddings.embed_images([picture("invoice")])
    for vector in (query, text, image):
        assert len(vector) == core.dim
        assert {type(value) for value in vector} == {float}
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert query == text
    assert query == mean_pool(next(core.embed_queries(["annual report"]))).tolist()
    assert image == mean_pool(next(core.embed_images([picture("invoice")]))).tolist()


def test_multi_vectors_are_those_of_the_core_and_rank_pages(embeddings: ColPaliEmbeddings, core: ColPali) -> None:
    words = ["violin", "garden", "invoice"]
    pages = embeddings.embed_images_multi_vector([picture(word) for word in words])
    for vectors, expected in zip(pages, core.embed_images([picture(word) for word in words]), strict=True):
        np.testing.assert_array_equal(vectors, expected)
    assert {page.dtype for page in pages} == {np.dtype(np.float32)}
    for row, word in enumerate(words):
        query = embeddings.embed_query_multi_vector(word)
        assert query.ndim == 2
        np.testing.assert_array_equal(query, next(core.embed_queries([word])))
        assert int(max_sim(query, pages).argmax()) == row
        assert int(max_sim(query, embeddings.embed_documents_multi_vector(words)).argmax()) == row
    for several, core_s in (
        (embeddings.embed_queries_multi_vector(words), core.embed_queries(words)),
        (embeddings.embed_documents_multi_vector(words), core.embed_texts(words)),
    ):
        for vectors, expected in zip(several, core_s, strict=True):
            np.testing.assert_array_equal(vectors, expected)


def test_empty_input_gives_empty_output(embeddings: ColPaliEmbeddings) -> None:
    assert embeddings.embed_documents([]) == []
    assert embeddings.embed_images([]) == []
    assert embeddings.embed_documents_multi_vector([]) == []
    assert embeddings.embed_images_multi_vector([]) == []


# -- inputs ---------------------------------------------------------------------------------------------------------


def test_every_kind_of_image_gives_the_same_vectors(embeddings: ColPaliEmbeddings, tmp_path: Path) -> None:
    content, path = png("violin"), tmp_path / "violin.png"
    path.write_bytes(content)
    encoded = base64.b64encode(content).decode()
    kinds: list[Any] = [
        *(picture("violin"), np.asarray(picture("violin")), content, io.BytesIO(content)),
        *(path, str(path), f"data:image/png;base64,{encoded}"),
        *(Blob.from_path(path), Blob.from_data(content, mime_type="image/png")),
        Document("a page", metadata={"source": str(path), "page": 1}),
        Document("a page", metadata={"image_base64": encoded}),
    ]
    first, *others = embeddings.embed_images_multi_vector(kinds)
    assert len(others) == len(kinds) - 1
    for vectors in others:
        np.testing.assert_array_equal(vectors, first)


def test_a_single_image_equals_a_list_of_one(embeddings: ColPaliEmbeddings, tmp_path: Path) -> None:
    path = tmp_path / "violin.png"
    path.write_bytes(png("violin"))
    expected = embeddings.embed_images([path])
    for single in (path, str(path), picture("violin"), Blob.from_path(path), path.read_bytes()):
        assert embeddings.embed_images(single) == expected
    with path.open("rb") as file:
        assert embeddings.embed_images(file) == expected
    assert embeddings.embed_image(uris=[str(path)]) == expected


def test_pages_and_their_documents_are_images(embeddings: ColPaliEmbeddings) -> None:
    pages = embeddings.embed_images_multi_vector(pdf_pages(SLIDES, pages=[2, 3]))
    documents = embeddings.embed_images_multi_vector(PdfPageLoader(SLIDES, pages=[2, 3]).lazy_load())
    for page, document in zip(pages, documents, strict=True):
        np.testing.assert_array_equal(page, document)


def test_a_pdf_in_the_place_of_an_image_is_refused_with_a_remedy(embeddings: ColPaliEmbeddings) -> None:
    with pytest.raises(ImageError, match="is a PDF; pass its pages"):
        embeddings.embed_images([Blob.from_path(SLIDES)])


def test_a_text_longer_than_a_query_is_cut_with_a_warning() -> None:
    release_shared_models()  # a model warns once
    embeddings = ColPaliEmbeddings(model_name="Qdrant/colpali-v1.3-fp16", local_dir=FIXTURES / "paligemma")
    with pytest.warns(UserWarning, match="is cut to"):
        [long] = embeddings.embed_documents_multi_vector(["violin " * 3000])
    [longer] = embeddings.embed_documents_multi_vector(["violin " * 4000])
    np.testing.assert_array_equal(long, longer)


@pytest.mark.parametrize("text", ["", "  \n", None, 7])
def test_invalid_queries_are_refused(embeddings: ColPaliEmbeddings, text: Any) -> None:
    with pytest.raises(QueryError):
        embeddings.embed_query(text)
    with pytest.raises(QueryError, match="item 1 "):
        embeddings.embed_documents(["fine", text])


def test_a_string_is_not_a_list_of_texts(embeddings: ColPaliEmbeddings) -> None:
    with pytest.raises(InputError, match="expected a list of texts"):
        embeddings.embed_documents("violin")


# -- errors of single pages ---------------------------------------------------------------------------------------


@pytest.fixture
def good_bad_good(tmp_path: Path) -> list[Any]:
    gone = Document("", metadata={"source": str(tmp_path / "gone.pdf"), "page": 3})
    return [picture("violin"), Blob.from_data(b"no image", path="broken.png"), gone, picture("garden")]


def test_on_error_raise_names_the_page(embeddings: ColPaliEmbeddings, good_bad_good: list[Any]) -> None:
    with pytest.raises(ImageError, match=r"item 1 \(broken.png\)") as caught:
        embeddings.embed_images(good_bad_good)
    assert caught.value.index == 1


def test_on_error_skip_leaves_pages_out_and_logs(
    embeddings: ColPaliEmbeddings, good_bad_good: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        vectors = embeddings.embed_images(good_bad_good, on_error="skip")
    assert vectors == embeddings.embed_images([picture("violin"), picture("garden")])
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "skipped item 1 (broken.png)",
        "skipped item 2 (gone.pdf, page 3)",
    ]


async def test_on_error_takes_a_function_that_gets_the_errors(
    embeddings: ColPaliEmbeddings, good_bad_good: list[Any]
) -> None:
    errors: list[ColPaliError] = []
    for results in (
        embeddings.embed_images(good_bad_good, on_error=errors.append),
        await embeddings.aembed_images(good_bad_good, on_error=errors.append),
        embeddings.embed_images_multi_vector(good_bad_good, on_error=errors.append),
        await embeddings.aembed_images_multi_vector(good_bad_good, on_error=errors.append),
    ):
        assert len(results) == 2
    assert [error.index for error in errors] == [1, 2] * 4
    assert {type(error) for error in errors} == {ImageError}
    assert "no file at" in str(errors[-1])


def test_a_generator_that_breaks_is_the_callers_error(embeddings: ColPaliEmbeddings, tmp_path: Path) -> None:
    with pytest.raises(PdfError, match="no PDF at"):
        embeddings.embed_images(pdf_pages(tmp_path / "gone.pdf"), on_error="skip")


# -- arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"modelname": "coltiny"},
        {"batch_size": 0},
        {"parallel": -1},
        {"threads": 0},
        {"url_timeout": 0},
        {"model": "coltiny", "model_kwargs": {}},
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ColPaliEmbeddings(**arguments)


def test_model_options_are_one_value() -> None:
    embeddings = ColPaliEmbeddings(model="coltiny", threads=4, options={"url_timeout": 3})
    assert embeddings.options == ModelOptions(threads=4, url_timeout=3)
    assert ColPaliEmbeddings(options=embeddings.options).options == embeddings.options
    with pytest.raises(ValidationError, match=r"ColPaliEmbeddings has no option 'device'; pass providers="):
        ColPaliEmbeddings(device="cuda")


def test_an_attribute_is_checked_like_an_argument() -> None:
    embeddings = ColPaliEmbeddings()
    with pytest.raises(ValidationError):
        embeddings.batch_size = 0


def test_an_unknown_model_is_refused_at_once_with_close_names(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="'coltiny'"):
        ColPaliEmbeddings(model_name="coltini")
    with pytest.raises(ModelNotFoundError):
        ColPaliEmbeddings(model_name=tmp_path / "missing")


def test_a_folder_is_a_model() -> None:
    folder = bundled_folder(find_model("coltiny"))
    vector = ColPaliEmbeddings().embed_query("violin")
    assert ColPaliEmbeddings(model_name="coltiny", local_dir=folder).embed_query("violin") == vector
    tiny = ColPaliEmbeddings(model_name=FIXTURES / "paligemma")
    [expected] = ColPali.from_pretrained(FIXTURES / "paligemma").embed_queries(["violin"])
    np.testing.assert_array_equal(tiny.embed_query_multi_vector("violin"), expected)


def test_urls_are_off_by_default(embeddings: ColPaliEmbeddings) -> None:
    with pytest.raises(ImageError, match="allow_urls=True"):
        embeddings.embed_images(["https://example.invalid/page.png"])


def test_a_progress_bar_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    ColPaliEmbeddings(show_progress=True).embed_images([picture("violin")])
    assert "1 pages" in capsys.readouterr().err
    ColPaliEmbeddings().embed_images([picture("violin")])
    assert capsys.readouterr().err == ""


def test_batches_and_parallel_runs_change_nothing(embeddings: ColPaliEmbeddings) -> None:
    pages = [picture(word) for word in ("violin", "garden", "invoice")]
    expected = embeddings.embed_images(pages)
    assert ColPaliEmbeddings(batch_size=1, parallel=2).embed_images(iter(pages)) == expected
    assert ColPaliEmbeddings(batch_size=3, parallel=0).embed_images(iter(pages)) == expected


# -- async --------------------------------------------------------------------------------------------------------


class Spy(str):
    """A text that remembers which threads looked at it."""

    threads: set[int]

    def strip(self, chars: str | None = None, /) -> str:
        self.threads.add(threading.get_ident())
        return super().strip(chars)


async def test_texts_are_encoded_off_the_loop_with_equal_results(embeddings: ColPaliEmbeddings) -> None:
    async def watched(method: Any, *, many: bool) -> Any:
        text = Spy("annual report")
        text.threads = set()
        result = await method([text] if many else text)
        assert text.threads
        assert threading.get_ident() not in text.threads
        return result

    pooled, multi = embeddings.embed_query("annual report"), embeddings.embed_query_multi_vector("annual report")
    assert await watched(embeddings.aembed_query, many=False) == pooled
    assert await watched(embeddings.aembed_documents, many=True) == [pooled]
    np.testing.assert_array_equal(await watched(embeddings.aembed_query_multi_vector, many=False), multi)
    np.testing.assert_array_equal(await watched(embeddings.aembed_queries_multi_vector, many=True), [multi])
    expected = embeddings.embed_documents_multi_vector(["annual report"])
    np.testing.assert_array_equal(await watched(embeddings.aembed_documents_multi_vector, many=True), expected)


@pytest.mark.parametrize("method", ["aembed_images", "aembed_images_multi_vector"])
async def test_the_loop_runs_on_while_images_are_encoded(embeddings: ColPaliEmbeddings, method: str) -> None:
    ticked = threading.Event()

    def pages() -> Iterator[Image.Image]:
        yield picture("violin")
        # Were the loop blocked, the ticker could not run, and this would give up.
        if not ticked.wait(timeout=30):
            raise TimeoutError("the event loop stood still")
        yield picture("garden")

    async def ticker() -> None:
        for _ in range(5):
            await asyncio.sleep(0.001)
        ticked.set()

    results, _ = await asyncio.gather(getattr(embeddings, method)(pages()), ticker())
    expected = getattr(embeddings, method[1:])([picture("violin"), picture("garden")])
    np.testing.assert_array_equal(np.concatenate(results), np.concatenate(expected))


async def test_a_cancelled_call_stops_encoding(embeddings: ColPaliEmbeddings) -> None:
    started, closed = threading.Event(), threading.Event()

    def endless() -> Iterator[Image.Image]:
        try:
            while True:
                yield picture("again")
                started.set()
        finally:
            closed.set()

    task = asyncio.create_task(embeddings.aembed_images(endless()))
    await asyncio.to_thread(started.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task  # in Python 3.10 it holds its CancelledError, whose traceback holds the caller's generator
    assert await asyncio.to_thread(closed.wait, 30)


async def test_questions_do_not_wait_for_pages_and_pages_are_few_at_a_time(embeddings: ColPaliEmbeddings) -> None:
    answered, lock = threading.Event(), threading.Lock()
    at_work = most = 0

    def pages() -> Iterator[Image.Image]:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        if not answered.wait(timeout=30):
            raise TimeoutError("the question waited for the pages")
        yield picture("violin")
        with lock:
            at_work -= 1

    tasks = [asyncio.create_task(embeddings.aembed_images(pages())) for _ in range(6)]
    while most < 2:
        await asyncio.sleep(0.001)
    assert await embeddings.aembed_query("violin") == embeddings.embed_query("violin")
    answered.set()
    expected = embeddings.embed_images([picture("violin")])
    assert await asyncio.gather(*tasks) == [expected] * 6
    assert most == 2


async def test_context_variables_reach_the_thread(embeddings: ColPaliEmbeddings) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="lost")
    variable.set("kept")
    seen: list[str] = []

    def pages() -> Iterator[Image.Image]:
        seen.append(variable.get())
        yield picture("violin")

    await embeddings.aembed_images(pages())
    assert seen == ["kept"]


async def test_many_at_once_agree(embeddings: ColPaliEmbeddings) -> None:
    texts = [f"question number {number}" for number in range(12)]
    results = await asyncio.gather(*(embeddings.aembed_query(text) for text in texts))
    assert list(results) == [embeddings.embed_query(text) for text in texts]


def test_a_trained_dense_head_gives_the_single_vectors() -> None:
    folder = FIXTURES / "neomme"
    embeddings, mean = (ColPaliEmbeddings(model=folder, threads=1, pooling=pooling) for pooling in (None, "mean"))
    model, text = embeddings.model, "the revenue"
    assert embeddings.embed_query(text) == next(model.embed_queries_dense(text)).tolist()
    assert embeddings.embed_documents([text]) == [next(model.embed_texts_dense(text)).tolist()]
    assert (
        embeddings.embed_images([picture("violin")])[0] == next(model.embed_images_dense([picture("violin")])).tolist()
    )
    assert mean.embed_query(text) == mean_pool(model.embed_query(text)).tolist()
    assert len(ColPaliEmbeddings(model=folder, threads=1, dimensions=8).embed_query(text)) == 8
    assert embeddings.fingerprint != mean.fingerprint
    with pytest.raises(ConfigurationError, match="from 1 to 32"):
        ColPaliEmbeddings(model=folder, threads=1, dimensions=64).embed_query(text)
    with pytest.raises(ConfigurationError, match="no trained dense head"):
        ColPaliEmbeddings(pooling="dense").embed_query(text)
