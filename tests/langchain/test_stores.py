"""The pooled vectors in the stores and caches that LangChain users have."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings
from langchain_chroma import Chroma
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from PIL import Image, ImageDraw, ImageFont

from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliVectorStore, PdfPageLoader, image_blocks

SLIDES = Path(__file__).parents[2] / "demo" / "pdfs" / "metropolis-slides.pdf"
TEXTS = ["a violin in the orchestra", "mitochondria are parts of a cell", "the invoice of march"]
WORDS = ["violin", "mitochondria", "invoice"]


@pytest.fixture(scope="module")
def embeddings() -> ColPaliEmbeddings:
    return ColPaliEmbeddings()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One PNG a word."""
    paths = []
    for word in WORDS:
        image = Image.new("RGB", (200, 150), "white")
        ImageDraw.Draw(image).text((20, 20), word, fill="black", font=ImageFont.load_default(14))
        path = tmp_path_factory.mktemp("pictures") / f"{word}.png"
        image.save(path)
        paths.append(str(path))
    return paths


def memory(embeddings: ColPaliEmbeddings, _: Path) -> VectorStore:
    return InMemoryVectorStore(embeddings)


def chroma(embeddings: ColPaliEmbeddings, folder: Path) -> Chroma:
    client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
    return Chroma(uuid.uuid4().hex, embedding_function=embeddings, client=client)


@pytest.mark.parametrize("make", [memory, chroma])
async def test_texts_and_pages_are_found(make: Any, embeddings: ColPaliEmbeddings, tmp_path: Path) -> None:
    store: VectorStore = make(embeddings, tmp_path)
    assert store.add_texts(TEXTS, ids=["v", "m", "i"]) == ["v", "m", "i"]
    pages = PdfPageLoader(SLIDES, pages=[2, 5]).load()
    store.add_documents(pages)
    for text, word in zip(TEXTS, WORDS, strict=True):
        assert [found.page_content for found in store.similarity_search(text, k=1)] == [text]
        assert [found.page_content for found in await store.asimilarity_search(word, k=1)] == [text]
    [found] = store.similarity_search(pages[1].page_content, k=1)
    assert found.metadata == pages[1].metadata
    assert image_blocks([found])[0]["type"] == "image"


def test_chroma_holds_images_and_finds_them_by_image_and_text(
    embeddings: ColPaliEmbeddings, pictures: list[str], tmp_path: Path
) -> None:
    store = chroma(embeddings, tmp_path)
    store.add_images(pictures, metadatas=[{"source": path, "page": 1} for path in pictures], ids=WORDS)
    for path, word in zip(pictures, WORDS, strict=True):
        assert store.similarity_search_by_image(path, k=1)[0].metadata["source"] == path
        assert store.similarity_search(word, k=1)[0].metadata["source"] == path


def test_pages_embedded_as_images_are_found_by_questions(embeddings: ColPaliEmbeddings, pictures: list[str]) -> None:
    """The way to put page images into a store that embeds only text by itself."""
    pages = PdfPageLoader(pictures).load()
    store = InMemoryVectorStore(embeddings)
    for page, vector in zip(pages, embeddings.embed_images(pages), strict=True):
        store.store[page.metadata["content_hash"]] = {
            "id": page.metadata["content_hash"],
            "vector": vector,
            "text": page.page_content,
            "metadata": page.metadata,
        }
    for path, word in zip(pictures, WORDS, strict=True):
        [found] = store.similarity_search(word, k=1)
        assert found.page_content == f"{word}.png, page 1"
        assert found.metadata["source"] == path


@pytest.mark.parametrize("make", [memory, chroma])
def test_a_blank_page_disturbs_no_search(
    make: Any, embeddings: ColPaliEmbeddings, pictures: list[str], tmp_path: Path
) -> None:
    """A small model may read nothing on a page; the mean of its vectors is then zero, which would rank first."""
    Image.new("RGB", (200, 150), "white").save(tmp_path / "blank.png")
    documents = PdfPageLoader([tmp_path / "blank.png", *pictures]).load()

    class Pictures(ColPaliEmbeddings):
        def embed_documents(self, texts: Any) -> list[list[float]]:
            return self.embed_images(documents)

    store: VectorStore = make(Pictures(), tmp_path / "store")
    store.add_documents(documents)
    found = store.similarity_search_with_score("mitochondria", k=4)
    assert len(found) == 4
    assert found[0][0].metadata["source"] == pictures[1]
    assert np.isfinite([score for _, score in found]).all()


def test_a_store_survives_dump_and_load(embeddings: ColPaliEmbeddings, tmp_path: Path) -> None:
    store = InMemoryVectorStore(embeddings)
    store.add_documents(PdfPageLoader(SLIDES, pages=[2, 3]).load())
    store.dump(str(tmp_path / "store.json"))
    json.loads((tmp_path / "store.json").read_text())
    again = InMemoryVectorStore.load(str(tmp_path / "store.json"), embeddings)
    assert again.similarity_search_with_score("figures", k=2) == store.similarity_search_with_score("figures", k=2)


class Uncalled(ColPaliEmbeddings):
    """Embeddings that must not be asked."""

    def embed_documents(self, texts: Any) -> list[list[float]]:
        raise AssertionError(f"asked for {list(texts)}")


async def test_a_cache_gives_back_the_same_floats_without_encoding(embeddings: ColPaliEmbeddings) -> None:
    store = InMemoryByteStore()

    def cached(underlying: ColPaliEmbeddings) -> CacheBackedEmbeddings:
        return CacheBackedEmbeddings.from_bytes_store(
            underlying,
            store,
            namespace=underlying.fingerprint,
            query_embedding_cache=True,
            key_encoder="sha256",
        )

    expected = embeddings.embed_documents(TEXTS)
    assert cached(embeddings).embed_documents(TEXTS) == expected
    assert cached(Uncalled()).embed_documents(TEXTS) == expected
    assert await cached(Uncalled()).aembed_documents(TEXTS) == expected
    assert cached(embeddings).embed_query("violin") == embeddings.embed_query("violin")
    with pytest.raises(AssertionError, match="asked for"):
        cached(Uncalled()).embed_documents(["something new"])


def test_the_fingerprint_tells_models_apart(embeddings: ColPaliEmbeddings) -> None:
    fixtures = Path(__file__).parents[1] / "parity" / "fixtures"
    other = ColPaliEmbeddings(model_name="Qdrant/colpali-v1.3-fp16", local_dir=fixtures / "paligemma")
    assert embeddings.fingerprint == ColPaliEmbeddings(batch_size=2).fingerprint
    assert other.fingerprint != embeddings.fingerprint


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # of SWIG, from Python 3.12 on
def test_faiss_ranks_as_the_dot_products_do(embeddings: ColPaliEmbeddings) -> None:
    """FAISS itself: its LangChain wrapper lives in langchain-community, which is sunset."""
    import faiss

    vectors = np.array(embeddings.embed_documents([*TEXTS, *WORDS]), dtype=np.float32)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    query = np.array([embeddings.embed_query("violin")], dtype=np.float32)
    scores, found = index.search(query, len(vectors))
    expected = (vectors @ query[0]).astype(float)
    assert found[0][0] == 3
    np.testing.assert_allclose(scores[0], np.sort(expected)[::-1], atol=1e-6)


def test_documents_round_trip_through_json() -> None:
    for page in PdfPageLoader(SLIDES, pages=[1, 2]).lazy_load():
        assert Document.model_validate_json(page.model_dump_json()) == page


def test_options_of_a_collection_need_no_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    """LangChain's store and LlamaIndex's pass them to the collection, and never to the client."""
    from qdrant_client import QdrantClient

    from colpali_integrations.llama_index import ColPaliVectorStore as LlamaStore
    from colpali_integrations.stores.qdrant import server

    made: list[dict[str, Any]] = []

    class Client(QdrantClient):
        def create_collection(self, *arguments: Any, **options: Any) -> bool:
            made.append(options)
            return super().create_collection(*arguments, **options)

    def connect(url: str, **options: Any) -> QdrantClient:
        assert options == {}
        return Client(":memory:")

    monkeypatch.setattr(server, "connect", connect)
    for store in (ColPaliVectorStore, LlamaStore):
        store(url="http://qdrant:6333", collection_options={"replication_factor": 2}).close()
    assert [options["replication_factor"] for options in made] == [2, 2]
