"""A collection whose documents are numbers, as notebooks of colpali-engine make it: its pages are named by them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from colpali_integrations import ColPali
from colpali_integrations.cli.app import ExitCode, run
from colpali_integrations.langchain import ColPaliEmbeddings
from colpali_integrations.langchain import ColPaliVectorStore as LangChainStore
from colpali_integrations.langchain import PageSearchTool as LangChainTool
from colpali_integrations.langchain.utils import image_blocks
from colpali_integrations.llama_index import ColPaliEmbedding, ColPaliRetriever
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaIndexStore
from colpali_integrations.llama_index import PageSearchTool as LlamaIndexTool
from colpali_integrations.stores import Layout, MultiVectorStore, copy_store
from tests.stores.qdrant.stand_in import StandIn, stand_in
from tests.test_existing_pictures import encoded

QUESTION = "the tide in the harbour"
LAYOUT = Layout(source="doc_id", page="page_idx", page_base=0, image="image")
NAMES = ["7, page 1", "7, page 2", "7, page 3"]


@pytest.fixture(scope="module")
def server(coltiny: ColPali) -> Iterator[StandIn]:
    with stand_in() as running:
        client = QdrantClient(url=running.url, check_compatibility=False)
        multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        params = models.VectorParams(size=coltiny.dim, distance=models.Distance.COSINE, multivector_config=multi)
        client.create_collection("docs", params)
        vectors = coltiny.embed_texts([f"{QUESTION} on day {number}" for number in range(3)])
        points = [
            models.PointStruct(
                id=100 + number,
                vector=vector.tolist(),
                payload={"doc_id": 7, "page_idx": number, "image": encoded((30, 40))},
            )
            for number, vector in enumerate(vectors)
        ]
        client.upsert("docs", points)
        client.close()
        yield running


@pytest.fixture
def place(server: StandIn) -> dict[str, Any]:
    return {"url": server.url, "collection_name": "docs", "layout": LAYOUT}


def test_entries_and_reports(place: dict[str, Any], coltiny: ColPali, tmp_path: Path) -> None:
    with MultiVectorStore.open(**place, model=coltiny) as store:
        hits = store.search(QUESTION, 3)
        assert sorted(hit.entry.name for hit in hits) == NAMES
        assert {(hit.entry.source, hit.entry.document_id, hit.entry.has_text) for hit in hits} == {("7", "7", False)}
        assert all(name in hits.to_html() for name in NAMES)
        assert {entry.name for entry in store.scroll({"source": 7})} == {*NAMES}  # filters are on the stored value
        assert {entry.name for entry in store.scroll({"$document": "7"})} == {*NAMES}
        with MultiVectorStore.open(tmp_path / "copied", model=coltiny) as target:
            copy_store(store, target)
            assert sorted(entry.name for entry in target.scroll()) == NAMES


def test_langchain(place: dict[str, Any]) -> None:
    store = LangChainStore(ColPaliEmbeddings(), **place)
    found = store.similarity_search(QUESTION, k=3)
    assert sorted(one.page_content for one in found) == NAMES
    captions = [block["text"] for block in image_blocks(found, captions=True) if block["type"] == "text"]
    assert sorted(captions) == NAMES
    tool = LangChainTool(store, k=3)
    message = tool.invoke({"type": "tool_call", "id": "1", "name": tool.name, "args": {"question": QUESTION}})
    assert all(name in str(message.content) for name in NAMES)
    store.close()


def test_llama_index(place: dict[str, Any]) -> None:
    store = LlamaIndexStore(embed_model=ColPaliEmbedding(), **place)
    nodes = ColPaliRetriever(store, similarity_top_k=3).retrieve(QUESTION)
    assert sorted(node.node.get_content() for node in nodes) == NAMES
    shown = " ".join(getattr(block, "text", "") for block in LlamaIndexTool(store, similarity_top_k=3)(QUESTION).blocks)
    assert all(name in shown for name in NAMES)
    store.close()


def test_the_command_line(server: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "docs.json"
    place = {"url": server.url, "collection_name": "docs", "layout": LAYOUT.to_dict(), "model": "coltiny"}
    file.write_text(json.dumps(place))
    assert run(["search", QUESTION, "--store", str(file), "--json"]) == ExitCode.OK
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted((one["source"], one["page"]) for one in found) == [("7", 1), ("7", 2), ("7", 3)]
    assert run(["search", QUESTION, "--store", str(file)]) == ExitCode.OK
    [_, *rows] = capsys.readouterr().out.splitlines()
    assert {row.split()[2] for row in rows} == {"7"}
