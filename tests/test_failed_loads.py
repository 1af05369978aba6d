"""A model that cannot be loaded, or is not the store's, leaves nothing: no folder, no collection, no download."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from colpali_integrations import ColPali
from colpali_integrations.cli.app import run
from colpali_integrations.errors import FingerprintError, ModelError
from colpali_integrations.langchain import ColPaliEmbeddings
from colpali_integrations.langchain import ColPaliVectorStore as LangChainStore
from colpali_integrations.llama_index import ColPaliEmbedding
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaStore
from colpali_integrations.models.shared import release_shared_models
from colpali_integrations.stores import MultiVectorStore, index_documents
from colpali_integrations.stores.qdrant import server
from tests.conftest import FIXTURES, PAPER

Opening = Callable[[Any, dict[str, Any]], Any]

DOORS: dict[str, Opening] = {
    "core": lambda model, place: MultiVectorStore.open(model=ColPali.from_pretrained(model, lazy_load=True), **place),
    "LangChain": lambda model, place: LangChainStore(ColPaliEmbeddings(model_name=model), **place),
    "LangChain, with texts": lambda model, place: LangChainStore.from_texts(
        ["ebb"], ColPaliEmbeddings(model_name=model), **place
    ),
    "LlamaIndex": lambda model, place: LlamaStore(embed_model=ColPaliEmbedding(model_name=model), **place),
}


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A checkpoint whose weights are found to be cut off only when they are loaded."""
    folder = shutil.copytree(FIXTURES / "neomme-float32", tmp_path / "damaged")
    [weights] = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:20_000])
    return folder


@pytest.fixture
def qdrant(monkeypatch: pytest.MonkeyPatch) -> QdrantClient:
    """A server at every URL, which keeps its collections from one connection to the next."""
    client = QdrantClient(":memory:")
    monkeypatch.setattr(server, "connect", lambda url, **options: client)
    monkeypatch.setattr(client, "close", lambda *arguments, **options: None)
    return client


@pytest.mark.parametrize("door", DOORS)
def test_a_model_that_cannot_be_loaded_leaves_no_folder(door: str, damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cut off or damaged"):
        DOORS[door](damaged, {"path": tmp_path / "store"})
    assert not (tmp_path / "store").exists()
    DOORS[door]("coltiny", {"path": tmp_path / "store"}).close()
    assert (tmp_path / "store").is_dir()


@pytest.mark.parametrize("door", DOORS)
def test_a_model_that_cannot_be_loaded_leaves_no_collection(door: str, damaged: Path, qdrant: QdrantClient) -> None:
    with pytest.raises(ModelError, match="cut off or damaged"):
        DOORS[door](damaged, {"url": "http://qdrant:6333"})
    assert qdrant.get_collections().collections == []
    DOORS[door]("coltiny", {"url": "http://qdrant:6333"})
    assert [one.name for one in qdrant.get_collections().collections] == ["pages"]


def test_the_other_ways_to_a_store_leave_none_either(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cut off or damaged"):
        index_documents(PAPER, model=damaged, store=tmp_path / "store")
    assert run(["index", str(PAPER), "--store", str(tmp_path / "store"), "--model", str(damaged)]) == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("door", DOORS)
def test_an_existing_store_is_opened_without_its_model(door: str, tmp_path: Path, monkeypatch: Any) -> None:
    MultiVectorStore.open(tmp_path / "store", model="coltiny").close()
    release_shared_models()
    monkeypatch.setattr(ColPali, "load", lambda model: pytest.fail("it is loaded"))
    if "texts" not in door:
        DOORS[door]("coltiny", {"path": tmp_path / "store"}).close()


@pytest.mark.parametrize("door", ["LangChain", "LlamaIndex"])
def test_another_registered_model_is_refused_before_a_download(
    door: str, qdrant: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a download would be an error of another kind
    MultiVectorStore.open(client=qdrant, model="coltiny")
    with pytest.raises(FingerprintError, match="was made by coltiny"):
        DOORS[door]("Hcompany/NeoMME-260M-Retriever", {"url": "http://qdrant:6333"})
