"""`ColPaliEmbedding` beyond the contract: kinds of images, multi-vectors, and its places in indexes and pipelines."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.indices.multi_modal import MultiModalVectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.schema import Document, ImageDocument, ImageNode, MediaResource, Node, NodeWithScore, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from PIL import Image, ImageDraw
from pydantic import ValidationError

import colpali_integrations.llama_index as adapter
from colpali_integrations import ColPali, max_sim, pdf_pages
from colpali_integrations.errors import ColPaliError, ImageError, ModelNotFoundError, QueryError
from colpali_integrations.llama_index import ColPaliEmbedding, PdfPageReader
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.shared import shared_model
from colpali_integrations.runtime.threads import offload
from colpali_integrations.scoring import mean_pool

PDFS = Path(__file__).parent.parent.parent / "demo" / "pdfs"
SLIDES = PDFS / "metropolis-slides.pdf"
SCAN = PDFS / "cfitsio-guide-rasterised.pdf"


def picture(text: str) -> Image.Image:
    image = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(image).text((4, 4), text, fill="black")
    return image


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def embedding() -> ColPaliEmbedding:
    return ColPaliEmbedding()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "page.png"
    path.write_bytes(png(picture("harbour")))
    return path


@pytest.fixture
def no_other_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No other embedding model is resolved: not OpenAI's by Settings, not CLIP by the multimodal index."""
    before = set(sys.modules)  # other tests call the server by OpenAI's client
    monkeypatch.setattr(Settings, "_embed_model", None)
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.delenv("IS_TESTING", raising=False)
    yield
    assert Settings._embed_model is None
    assert not {"openai", "clip", "torch", "llama_index.embeddings"} & (sys.modules.keys() - before)


# -- kinds of images ------------------------------------------------------------------------------------------------


class TestImages:
    @pytest.mark.parametrize(
        "kind",
        [
            lambda path: str(path),
            lambda path: path,
            lambda path: path.as_uri(),
            lambda path: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(),
            lambda path: path.read_bytes(),
            lambda path: io.BytesIO(path.read_bytes()),
            lambda path: path.open("rb"),
            lambda path: Image.open(path),
            lambda path: np.asarray(Image.open(path)),
            lambda path: ImageNode(image_path=str(path)),
            lambda path: ImageNode(image=base64.b64encode(path.read_bytes()).decode()),
            lambda path: ImageNode(image="data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()),
            lambda path: ImageNode(image_url="data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()),
            lambda path: ImageDocument(image_path=str(path)),
            lambda path: ImageDocument(image=base64.b64encode(path.read_bytes()).decode()),
            lambda path: Node(image_resource=MediaResource(path=path)),
            lambda path: NodeWithScore(node=ImageNode(image_path=str(path)), score=1.0),
            lambda path: ImageBlock(path=path),
            lambda path: ImageBlock(image=path.read_bytes()),
            lambda path: ImageBlock(image=io.BytesIO(path.read_bytes())),
        ],
        ids=[
            *("str", "path", "file-uri", "data-uri", "bytes", "bytesio", "file", "pil", "array"),
            *("node-path", "node-base64", "node-data-uri", "node-url", "document-path", "document-base64"),
            *("node-resource", "node-with-score", "block-path", "block-bytes", "block-stream"),
        ],
    )
    async def test_every_kind(self, embedding: ColPaliEmbedding, file: Path, kind: Callable[[Path], Any]) -> None:
        expected = embedding.get_image_embedding(str(file))
        image = kind(file)
        try:
            assert embedding.get_image_embedding(image) == expected
            # Again, from the same object: files are rewound.
            assert (await embedding.aget_image_embedding_batch([image, picture("other")]))[0] == pytest.approx(
                expected, abs=1e-6
            )
            np.testing.assert_allclose(mean_pool(embedding.get_image_multi_vector(image)), expected, atol=1e-6)
        finally:
            getattr(image, "close", lambda: None)()

    def test_pages_of_a_pdf_by_page_object_and_by_reference(self, embedding: ColPaliEmbedding) -> None:
        [page] = pdf_pages(SLIDES, dpi=60, pages=[3])
        expected = embedding.get_image_embedding(page)
        reference = f"{SLIDES}#page=3&dpi=60"
        images: list[Any] = [
            reference,
            ImageNode(image_path=reference),
            Node(image_resource=MediaResource(path=Path(reference))),
        ]
        for vector in embedding.get_image_embedding_batch(images):
            assert vector == pytest.approx(expected, abs=1e-6)

    def test_a_file_that_is_called_like_a_reference(self, embedding: ColPaliEmbedding, tmp_path: Path) -> None:
        path = tmp_path / "scan#page=2"
        path.write_bytes(png(picture("harbour")))
        assert embedding.get_image_embedding(str(path)) == embedding.get_image_embedding(picture("harbour"))

    def test_one_image_where_several_may_stand(self, embedding: ColPaliEmbedding, file: Path) -> None:
        expected = [embedding.get_image_embedding(file)]
        ones: list[Any] = [
            *(str(file), file, file.read_bytes(), picture("harbour"), np.asarray(picture("harbour"))),
            *(ImageNode(image_path=str(file)), io.BytesIO(file.read_bytes())),
        ]
        for one in ones:
            assert embedding.get_image_embedding_batch(one) == expected

    def test_urls_are_off_unless_allowed(self, embedding: ColPaliEmbedding) -> None:
        nodes: list[Any] = ["http://127.0.0.1:9/a.png", ImageNode(image_url="http://127.0.0.1:9/a.png")]
        for image in nodes:
            with pytest.raises(ImageError, match="allow_urls=True"):
                embedding.get_image_embedding(image)
        # Allowed, it is the connection that fails: the discard port refuses it.
        allowed = ColPaliEmbedding(allow_urls=True, url_timeout=2)
        with pytest.raises(ImageError, match=r"127\.0\.0\.1") as caught:
            allowed.get_image_embedding("http://127.0.0.1:9/a.png")
        assert "allow_urls" not in str(caught.value)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (ImageNode(text="nothing to see", id_="n1"), r"\(ImageNode n1\): has no image"),
            (ImageNode(image="not base64!", id_="n2"), "must be base64"),
            (ImageBlock(), r"\(ImageBlock\): has no image"),
            (TextNode(text="text", id_="n3"), r"\(TextNode n3\): has no image"),
            (f"{SLIDES}#page=99", "page 99 was requested"),
            ("missing.pdf#page=1", r"missing\.pdf"),
            (3, "int"),
        ],
    )
    async def test_errors_name_unreadable_images(self, embedding: ColPaliEmbedding, image: Any, message: str) -> None:
        images: list[Any] = [picture("first"), image]
        with pytest.raises(ColPaliError, match=message) as caught:
            embedding.get_image_embedding_batch(images)
        assert caught.value.index == 1
        with pytest.raises(ColPaliError, match=message):
            await embedding.aget_image_multi_vectors(images)


async def test_traces_get_names_and_not_pictures(file: Path) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    embedding = ColPaliEmbedding(callback_manager=CallbackManager([debug]))
    [page] = PdfPageReader(dpi=30).load_data(SLIDES, pages=[3])
    images: list[Any] = [str(file), file.read_bytes(), picture("a"), page, ImageNode(image_path=str(file), id_="n1")]
    embedding.get_image_embedding_batch(images)
    await embedding.aget_image_embedding_batch(images)
    chunks = [pair[1].payload[EventPayload.CHUNKS] for pair in debug.get_event_pairs(CBEventType.EMBEDDING)]  # type: ignore[index]
    size = file.stat().st_size
    names = [str(file), f"{size} bytes", "RGB image of 96x64", "metropolis-slides.pdf, page 3", "ImageNode n1"]
    assert chunks == [[name] for name in names] * 2


class Slow:
    """A picture that takes its time; the class counts those alive and those looked at."""

    alive: ClassVar[weakref.WeakSet[Slow]] = weakref.WeakSet()
    looked_at: ClassVar[int] = 0
    most_alive: ClassVar[int] = 0

    def __init__(self) -> None:
        Slow.alive.add(self)
        Slow.most_alive = max(Slow.most_alive, len(Slow.alive))

    @property
    def image(self) -> Image.Image:
        Slow.looked_at += 1
        time.sleep(0.01)
        return picture("slow")


async def test_a_generator_is_read_as_the_work_goes_on() -> None:
    embedding = ColPaliEmbedding(embed_batch_size=2, num_workers=1)
    for count in range(2):
        Slow.most_alive = 0
        pages: Any = (Slow() for _ in range(24))
        made = embedding.get_image_multi_vectors(pages) if count else await embedding.aget_image_multi_vectors(pages)
        assert len(made) == 24
        assert 0 < Slow.most_alive <= 10


async def test_a_cancelled_batch_stops() -> None:
    embedding = ColPaliEmbedding(embed_batch_size=2)
    pages: list[Any] = [Slow() for _ in range(400)]
    Slow.looked_at = 0
    task = asyncio.create_task(embedding.aget_image_embedding_batch(pages))
    while not Slow.looked_at:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = -1
    while before != Slow.looked_at:  # until it stands still, at the end of all at the latest
        before = Slow.looked_at
        await asyncio.sleep(0.5)
    assert Slow.looked_at < 200


# -- multi-vectors --------------------------------------------------------------------------------------------------


async def test_multi_vectors_are_the_models(embedding: ColPaliEmbedding) -> None:
    model = ColPali.from_pretrained()
    texts, pages = ["harbour at night", "tower"], [picture("harbour"), picture("tower")]
    expected_queries, expected_texts = list(model.embed_queries(texts)), list(model.embed_texts(texts))
    expected_pages = list(model.embed_images(pages))

    def same(left: Any, right: Any) -> None:
        assert [array.dtype for array in left] == [np.float32] * len(right)
        for one, other in zip(left, right, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)

    same(embedding.get_query_multi_vectors(texts), expected_queries)
    same(embedding.get_text_multi_vectors(texts), expected_texts)
    same(embedding.get_image_multi_vectors(pages), expected_pages)
    same([embedding.get_query_multi_vector(texts[1])], expected_queries[1:])
    same([embedding.get_text_multi_vector(texts[1])], expected_texts[1:])
    same([embedding.get_image_multi_vector(pages[1])], expected_pages[1:])
    same(await embedding.aget_query_multi_vectors(texts), expected_queries)
    same(await embedding.aget_text_multi_vectors(texts), expected_texts)
    same(await embedding.aget_image_multi_vectors(iter(pages)), expected_pages)
    same([await embedding.aget_query_multi_vector(texts[1])], expected_queries[1:])
    same([await embedding.aget_text_multi_vector(texts[1])], expected_texts[1:])
    same([await embedding.aget_image_multi_vector(pages[1])], expected_pages[1:])
    assert max_sim(embedding.get_query_multi_vectors(texts), embedding.get_image_multi_vectors(pages)).shape == (2, 2)
    assert embedding.get_image_multi_vectors([]) == embedding.get_query_multi_vectors([]) == []
    assert await embedding.aget_image_multi_vectors([]) == []


def test_pooled_vectors_are_the_mean_of_multi_vectors(embedding: ColPaliEmbedding) -> None:
    text = "harbour at night"
    pooled = mean_pool(embedding.get_query_multi_vector(text)).tolist()
    assert embedding.get_query_embedding(text) == embedding.get_text_embedding(text) == pooled
    assert np.linalg.norm(pooled) == pytest.approx(1)
    assert embedding.get_image_embedding(picture(text)) == pytest.approx(
        mean_pool(embedding.get_image_multi_vector(picture(text))).tolist(), abs=1e-6
    )


# -- options --------------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_core() -> None:
    assert ColPaliEmbedding().model is shared_model("coltiny")
    assert ColPaliEmbedding().embed_batch_size == 1


def test_equal_options_share_one_model() -> None:
    embedding = ColPaliEmbedding(threads=1)
    for again in (
        ColPaliEmbedding(threads=1, embed_batch_size=8, num_workers=2),
        copy.deepcopy(embedding),
        pickle.loads(pickle.dumps(embedding)),
        ColPaliEmbedding.from_json(embedding.to_json()),
    ):
        assert again.model is embedding.model
    assert ColPaliEmbedding(threads=2).model is not embedding.model
    assert ColPaliEmbedding(threads=1, allow_urls=True).model is not embedding.model


def test_a_provider_with_options_survives_json() -> None:
    providers: list[Any] = [("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})]
    embedding = ColPaliEmbedding(providers=providers)
    again = ColPaliEmbedding.from_json(embedding.to_json())
    assert again.options == embedding.options == ModelOptions(providers=providers)
    assert again.model is embedding.model


def test_a_model_from_a_folder() -> None:
    files = Path(__file__).parent.parent / "parity" / "fixtures" / "paligemma"
    by_path = ColPaliEmbedding(model_name=files)
    by_name = ColPaliEmbedding(model_name=str(files))
    assert by_path.to_dict() == by_name.to_dict()
    assert by_path.model is by_name.model
    assert len(by_path.get_query_embedding("harbour")) == by_path.model.dim


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads"),
        ({"num_workers": 0}, "num_workers"),
        ({"url_timeout": -1}, "url_timeout"),
        ({"model": "coltiny"}, "model"),
        ({"device": "cuda"}, "CUDAExecutionProvider"),
    ],
)
def test_impossible_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ColPaliEmbedding(**options)


def test_an_unknown_model_is_refused_at_once() -> None:
    with pytest.raises(ModelNotFoundError, match="Did you mean 'coltiny'"):
        ColPaliEmbedding(model_name="coltinny")


def test_the_constructor_loads_nothing(tmp_path: Path) -> None:
    embedding = ColPaliEmbedding(model_name="Qdrant/colpali-v1.3-fp16", local_files_only=True, cache_dir=tmp_path)
    with pytest.raises(ModelNotFoundError, match="local_files_only"):
        embedding.get_query_embedding("harbour")


def test_the_public_surface() -> None:
    assert sorted(adapter.__all__) == adapter.__all__
    for name in adapter.__all__:
        assert (getattr(adapter, name).__doc__ or "").strip()
        assert getattr(adapter, name).__module__.startswith("colpali_integrations.llama_index")


def test_a_missing_llama_index_names_the_command() -> None:
    code = "import sys; sys.modules['llama_index'] = None\nimport colpali_integrations.llama_index"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "MissingExtraError: colpali_integrations.llama_index needs llama-index-core" in result.stderr
    assert 'pip install "colpali-integrations[llama-index]"' in result.stderr


# -- threads behind the event loop -----------------------------------------------------------------------------------


async def test_offload_bounds_the_number_of_running_calls() -> None:
    lock, together = threading.Lock(), threading.Barrier(3, timeout=30)
    running, most = 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1

    await asyncio.gather(*(offload(work, "pages", workers=3) for _ in range(21)))
    assert most == 3


# -- in LlamaIndex --------------------------------------------------------------------------------------------------


def pages(numbers: list[int]) -> list[ImageNode]:
    return PdfPageReader(dpi=72).load_data(SLIDES, pages=numbers)


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.usefixtures("no_other_model")
async def test_multi_modal_vector_store_index(embedding: ColPaliEmbedding, use_async: bool) -> None:
    nodes = pages([2, 4])
    index = (
        MultiModalVectorStoreIndex(nodes=nodes, embed_model=embedding, image_embed_model=embedding, use_async=use_async)
        if not use_async
        else await asyncio.to_thread(
            MultiModalVectorStoreIndex, nodes=nodes, embed_model=embedding, image_embed_model=embedding, use_async=True
        )
    )
    vectors = index.image_vector_store.data.embedding_dict  # type: ignore[attr-defined]
    by_page = embedding.get_image_embedding_batch(nodes)
    assert {tuple(vector) for vector in vectors.values()} == {tuple(vector) for vector in by_page}
    retriever = index.as_retriever(similarity_top_k=2, image_similarity_top_k=2)
    for found in (retriever.text_to_image_retrieve("fonts"), await retriever.atext_to_image_retrieve("fonts")):
        assert {node.metadata["page"] for node in found} == {2, 4}
        assert all(isinstance(node.node, ImageNode) for node in found)
        query = embedding.get_query_embedding("fonts")
        for node in found:
            assert node.score == pytest.approx(np.dot(query, vectors[node.node_id]), abs=1e-5)
    [best, _] = retriever.image_to_image_retrieve(nodes[1].image_path or "")
    assert best.metadata["page"] == 4
    assert best.score == pytest.approx(1)


@pytest.mark.usefixtures("no_other_model")
def test_multi_modal_vector_store_index_takes_plain_image_nodes(embedding: ColPaliEmbedding, tmp_path: Path) -> None:
    path = tmp_path / "harbour.png"
    picture("harbour").save(path)
    node = ImageNode(image_path=str(path), metadata={"name": "harbour"})
    index = MultiModalVectorStoreIndex(nodes=[node], embed_model=embedding, image_embed_model=embedding)
    [found] = index.as_retriever().text_to_image_retrieve("harbour")
    assert found.node_id == node.node_id
    index.insert_nodes([ImageNode(image=base64.b64encode(png(picture("tower"))).decode(), text="tower.png, page 1")])
    assert len(index.as_retriever().text_to_image_retrieve("harbour")) == 2


@pytest.mark.usefixtures("no_other_model")
def test_an_empty_page_has_a_score(embedding: ColPaliEmbedding) -> None:
    """A vector of zeros would have no cosine: SimpleVectorStore warns, and puts NaN first."""
    empty, words = Image.new("RGB", (96, 64), "white"), picture("harbour")
    nodes = [ImageNode(image=base64.b64encode(png(image)).decode(), text="a page") for image in (empty, words)]
    index = VectorStoreIndex(list(embedding(nodes)), embed_model=embedding)
    found = index.as_retriever(similarity_top_k=2).retrieve("harbour")
    assert len(found) == 2
    assert all(-1 <= node.get_score() <= 1 for node in found)
    assert [node.node.node_id for node in found] == [nodes[1].node_id, nodes[0].node_id]


@pytest.mark.usefixtures("no_other_model")
def test_vector_store_index_of_embedded_pages(embedding: ColPaliEmbedding) -> None:
    nodes = pages([2, 4])
    index = VectorStoreIndex(list(embedding(nodes)), embed_model=embedding)
    found = index.as_retriever(similarity_top_k=2).retrieve("fonts")
    assert {node.node_id for node in found} == {node.node_id for node in nodes}
    query = embedding.get_query_embedding("fonts")
    for node in found:
        image = embedding.get_image_embedding(node.node)
        assert node.score == pytest.approx(np.dot(query, image), abs=1e-5)


@pytest.mark.usefixtures("no_other_model")
def test_vector_store_index_of_texts(embedding: ColPaliEmbedding) -> None:
    documents = [Document(text="the tower is 80 metres tall"), Document(text="bread and butter")]
    index = VectorStoreIndex.from_documents(documents, embed_model=embedding, transformations=[])
    [best, _] = index.as_retriever(similarity_top_k=2).retrieve("the tower is 80 metres tall")
    assert best.text == documents[0].text
    assert best.score == pytest.approx(1)


@pytest.mark.usefixtures("no_other_model")
async def test_ingestion_pipeline_embeds_pages_as_images(embedding: ColPaliEmbedding) -> None:
    nodes = [*pages([2, 4]), TextNode(text="bread and butter")]
    images = embedding.get_image_embedding_batch(nodes[:2])
    text = embedding.get_text_embedding("bread and butter")
    store = SimpleVectorStore()
    pipeline = IngestionPipeline(transformations=[embedding], vector_store=store)
    made = pipeline.run(nodes=copy.deepcopy(nodes))
    for node, vector in zip(made, [*images, text], strict=True):
        assert node.get_embedding() == pytest.approx(vector, abs=1e-6)
        assert store.get(node.node_id) == node.embedding
    other = IngestionPipeline(transformations=[embedding])
    for node, again in zip(await other.arun(nodes=copy.deepcopy(nodes)), made, strict=True):
        assert node.get_embedding() == pytest.approx(again.get_embedding(), abs=1e-6)


@pytest.mark.usefixtures("no_other_model")
def test_the_pipelines_cache_tells_pages_apart(embedding: ColPaliEmbedding) -> None:
    """Pages of a scan have no text layer; the cache's key is made of the reader's text."""
    pipeline = IngestionPipeline(transformations=[embedding])
    reader = PdfPageReader(dpi=40)
    first = pipeline.run(nodes=reader.load_data(SCAN, pages=[1]))
    second = pipeline.run(nodes=reader.load_data(SCAN, pages=[2]))
    assert first[0].embedding != second[0].embedding
    assert second[0].metadata["page"] == 2
    # And it is a cache: the same page again is not encoded again, but comes from there, marked.
    kept = next(iter(pipeline.cache.cache.get_all(pipeline.cache.collection).values()))
    kept["nodes"][0]["__data__"]["embedding"] = [1.0] * 128
    key = next(iter(pipeline.cache.cache.get_all(pipeline.cache.collection)))
    pipeline.cache.cache.put(key, kept, collection=pipeline.cache.collection)
    assert pipeline.run(nodes=reader.load_data(SCAN, pages=[1]))[0].embedding == [1.0] * 128


@pytest.mark.usefixtures("no_other_model")
def test_an_upserting_pipeline_replaces_changed_pages(embedding: ColPaliEmbedding, tmp_path: Path) -> None:
    pdf = tmp_path / "pages.pdf"
    reader = PdfPageReader(dpi=150)

    def write(*texts: str) -> None:
        first, *rest = [Image.new("RGB", (400, 300), "white") for _ in texts]
        for image, text in zip([first, *rest], texts, strict=True):
            ImageDraw.Draw(image).text((20, 60), text, fill="black")
        first.save(pdf, save_all=True, append_images=rest, resolution=reader.dpi)

    store, docstore = SimpleVectorStore(), SimpleDocumentStore()
    pipeline = IngestionPipeline(
        transformations=[embedding],
        vector_store=store,
        docstore=docstore,
        docstore_strategy=DocstoreStrategy.UPSERTS,
    )
    write("the first of many pages", "bread and butter")
    assert len(pipeline.run(nodes=reader.load_data(pdf))) == 2
    assert len(pipeline.run(nodes=reader.load_data(pdf))) == 0
    before = dict(store.data.embedding_dict)
    write("the first of many pages", "harbour at night")
    assert len(pipeline.run(nodes=reader.load_data(pdf))) == 2
    assert store.data.embedding_dict.keys() == before.keys()
    second = reader.load_data(pdf)[1]
    assert store.get(second.node_id) == pytest.approx(embedding.get_image_embedding(second), abs=1e-6)
    assert store.get(second.node_id) != before[second.node_id]
    store.delete(second.ref_doc_id or "")
    assert store.data.embedding_dict.keys() == before.keys() - {second.node_id}


def test_a_node_without_anything_is_an_error(embedding: ColPaliEmbedding) -> None:
    with pytest.raises(QueryError, match="white space"):
        embedding([TextNode(text="")])


def test_progress_bars(embedding: ColPaliEmbedding, capsys: pytest.CaptureFixture[str]) -> None:
    embedding.get_image_embedding_batch([picture("a")], show_progress=True)
    embedding([TextNode(text="b"), ImageNode(image=base64.b64encode(png(picture("c"))).decode())], show_progress=True)
    shown = capsys.readouterr().err
    assert shown.count("Generating image embeddings") >= 2
    assert "Generating embeddings" in shown


def test_a_trained_dense_head_gives_the_single_vectors() -> None:
    folder = Path(__file__).parent.parent / "parity" / "fixtures" / "neomme"
    embedding, mean = (ColPaliEmbedding(model_name=folder, threads=1, pooling=pooling) for pooling in (None, "mean"))
    model, text = embedding.model, "the revenue"
    assert embedding.get_query_embedding(text) == next(model.embed_queries_dense(text)).tolist()
    assert embedding.get_text_embedding(text) == next(model.embed_texts_dense(text)).tolist()
    page = picture("violin")
    assert embedding.get_image_embedding(page) == next(model.embed_images_dense([page])).tolist()
    assert len(mean.get_query_embedding(text)) == 128
    assert len(ColPaliEmbedding(model_name=folder, threads=1, dimensions=8).get_text_embedding(text)) == 8
