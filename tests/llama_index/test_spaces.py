"""LlamaIndex's classes over a store of another precision, and of another model of its space; names in stores."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from llama_index.core.schema import ImageNode, NodeWithScore, TextNode
from PIL import Image

from colpali_integrations.errors import ConfigurationError, FingerprintError
from colpali_integrations.llama_index import (
    ColPaliEmbedding,
    ColPaliIndex,
    ColPaliRerank,
    ColPaliRetriever,
    ColPaliVectorStore,
)
from colpali_integrations.llama_index.embeddings import stored_embedding
from colpali_integrations.models import find_model
from colpali_integrations.stores import MultiVectorStore, StoredModel
from tests.stores.stored_models import made_up

QUESTION = "what is the revenue"


@pytest.fixture
def exact(one_space: tuple[Path, Path]) -> ColPaliEmbedding:
    return ColPaliEmbedding(model_name=one_space[0], threads=1)


@pytest.fixture(params=["int8", "small"])
def other(request: pytest.FixtureRequest, one_space: tuple[Path, Path], tmp_path: Path) -> ColPaliEmbedding:
    if request.param == "small":
        return ColPaliEmbedding(model_name=one_space[1], threads=1)
    return ColPaliEmbedding(model_name=one_space[0], threads=1, precision="int8", cache_dir=tmp_path)


def in_float32(embedding: ColPaliEmbedding) -> ColPaliEmbedding:
    """An embedding that does not go on with a store's precision."""
    return embedding.model_copy(update={"options": replace(embedding.options, precision="float32")})


@pytest.fixture
def nodes(tmp_path: Path) -> list[ImageNode]:
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (80, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
    return [ImageNode(id_=str(seed), image_path=str(tmp_path / f"{seed}.png")) for seed in range(2)]


@pytest.fixture
def folder(exact: ColPaliEmbedding, nodes: list[ImageNode], tmp_path: Path) -> Path:
    place = tmp_path / uuid4().hex  # a process warns of a place once
    store = ColPaliVectorStore(path=place, embed_model=exact)
    store.add(nodes)
    store.close()
    return place


def test_a_store_is_asked_in_other_settings_and_says_so_once(
    folder: Path, other: ColPaliEmbedding, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        store = ColPaliVectorStore(path=folder, embed_model=other)
        retrievers = [
            ColPaliRetriever(store),
            ColPaliRetriever(folder, embed_model=other),
            ColPaliIndex.from_vector_store(store).as_retriever(),
        ]
        for retriever in retrievers:
            assert len(retriever.retrieve(QUESTION)) == 2
    assert sum("holds pages made by" in record.getMessage() for record in caplog.records) == 1
    store.close()


def test_nothing_is_added_in_other_settings(
    folder: Path, other: ColPaliEmbedding, exact: ColPaliEmbedding, nodes: list[ImageNode]
) -> None:
    store = ColPaliVectorStore(path=folder, embed_model=other)
    for several in (nodes, [TextNode(text="a text")]):
        with pytest.raises(FingerprintError, match="takes questions of both, and pages of one"):
            store.add(several)
        with pytest.raises(FingerprintError):
            ColPaliIndex.from_vector_store(store).insert_nodes(several)
    assert len(store.client) == 2
    store.close()
    assert ColPaliVectorStore(path=folder, embed_model=exact).add([TextNode(id_="t", text="a text")]) == ["t"]


def test_a_reranker_asks_in_other_settings(folder: Path, other: ColPaliEmbedding, nodes: list[ImageNode]) -> None:
    found = ColPaliRetriever(folder, embed_model=other).retrieve(QUESTION)
    reranker = ColPaliRerank(path=folder, embed_model=other)
    given = [NodeWithScore(node=node) for node in nodes]
    ranked = reranker.postprocess_nodes(given, query_str=QUESTION)
    assert [one.node.node_id for one in ranked] == [one.node.node_id for one in found]


def test_another_space_is_refused(folder: Path) -> None:
    for open_ in (ColPaliVectorStore, ColPaliRetriever):
        with pytest.raises(FingerprintError, match="cannot be compared"):
            open_(folder, embed_model=ColPaliEmbedding())


def test_another_revision_than_that_of_the_first_writer_is_refused(
    two_revisions: list[dict[str, Any]], tmp_path: Path
) -> None:
    first, other = (ColPaliEmbedding(**options) for options in two_revisions)
    memory = MultiVectorStore.open(model="me/mine")
    stores = [ColPaliVectorStore(memory, embed_model=model) for model in (first, other)]
    stores[0].add([TextNode(text="a text")])
    stores[0].persist(str(tmp_path / "saved" / "default__vector_store.json"))
    for refused in (
        lambda: stores[1].add([TextNode(text="another")]),
        lambda: ColPaliRetriever(stores[1]).retrieve(QUESTION),
        lambda: ColPaliVectorStore.from_persist_dir(str(tmp_path / "saved"), embed_model=other),
    ):
        with pytest.raises(FingerprintError, match="'me/mine' has changed"):
            refused()
    assert len(ColPaliRetriever(stores[0]).retrieve(QUESTION)) == 1


def test_a_persisted_store_in_memory_keeps_the_settings_of_its_pages(
    exact: ColPaliEmbedding, other: ColPaliEmbedding, nodes: list[ImageNode], tmp_path: Path
) -> None:
    store = ColPaliVectorStore(embed_model=other)
    store.add(nodes)
    store.persist(str(tmp_path / "saved" / "default__vector_store.json"))
    loaded = ColPaliVectorStore.from_persist_dir(str(tmp_path / "saved"), embed_model=in_float32(exact))
    assert loaded.client.model == store.client.model
    assert len(ColPaliRetriever(loaded).retrieve(QUESTION)) == 2
    with pytest.raises(FingerprintError, match="pages of one"):
        loaded.add(nodes[:1])
    with pytest.raises(FingerprintError, match="cannot be compared"):
        ColPaliVectorStore.from_persist_dir(str(tmp_path / "saved"), embed_model=ColPaliEmbedding())
    with pytest.raises(FingerprintError, match="pages of one"):
        ColPaliVectorStore.from_persist_dir(str(tmp_path / "saved"), embed_model=exact, path=tmp_path / "elsewhere")
    again = ColPaliVectorStore.from_persist_dir(str(tmp_path / "saved"))
    assert again.client.model == store.client.model


OPENERS: list[Callable[[Any], Any]] = [ColPaliVectorStore, ColPaliRetriever, ColPaliRerank]


@pytest.mark.parametrize("open_", OPENERS)
def test_a_name_that_merely_stands_in_a_store_is_not_opened(open_: Callable[[Any], Any], tmp_path: Path) -> None:
    """The name has the form of a repository of the Hub, from which it would be downloaded."""
    store = MultiVectorStore.open(tmp_path / "store", model=made_up("somebody/pages"))
    for place in (store, tmp_path / "store"):
        with pytest.raises(
            ConfigurationError, match="'somebody/pages', which is not registered here; pass embed_model="
        ):
            open_(place)


@pytest.mark.parametrize("place", ["memory", "folder"])
@pytest.mark.parametrize("field", ["model_name", "base"])
def test_a_name_that_merely_stands_in_a_persisted_file_is_not_opened(place: str, field: str, tmp_path: Path) -> None:
    store = ColPaliVectorStore(**({} if place == "memory" else {"path": tmp_path / "store"}))
    store.persist(str(tmp_path / "saved" / "default__vector_store.json"))
    file = tmp_path / "saved" / "default__colpali_store.json"
    saved = json.loads(file.read_text())
    (saved["embed_model"] if field == "model_name" else saved["embed_model"]["options"])[field] = "somebody/pages"
    file.write_text(json.dumps(saved))
    with pytest.raises(ConfigurationError, match="'somebody/pages', which is neither registered here nor a folder"):
        ColPaliVectorStore.from_persist_dir(str(tmp_path / "saved"))
    assert (
        ColPaliVectorStore.from_persist_dir(str(tmp_path / "saved"), embed_model=ColPaliEmbedding()).client is not None
    )


@pytest.mark.parametrize(
    ("option", "value"), [("allow_urls", True), ("allow_private_urls", True), ("max_pixels", 10**12)]
)
def test_a_persisted_file_permits_nothing(option: str, value: object, tmp_path: Path) -> None:
    ColPaliVectorStore(path=tmp_path / "store").persist(str(tmp_path / "saved" / "default__vector_store.json"))
    file = tmp_path / "saved" / "default__colpali_store.json"
    saved = json.loads(file.read_text())
    saved["embed_model"]["options"] |= {"allow_urls": True} if option == "allow_private_urls" else {}
    saved["embed_model"]["options"][option] = value
    file.write_text(json.dumps(saved))
    with pytest.raises(ConfigurationError, match=f"{option}.*, which only the caller may"):
        ColPaliVectorStore.from_persist_dir(str(tmp_path / "saved"))


def test_a_registered_model_is_opened_with_the_settings_of_the_pages() -> None:
    made = replace(find_model("Hcompany/NeoMME-260M-Retriever"), precision="int8", max_side=1024)
    embedding = stored_embedding(MultiVectorStore.open(model=StoredModel.of(made)))
    assert embedding.model_name == made.name
    assert (embedding.options.precision, embedding.options.max_side) == ("int8", 1024)


def test_an_embedding_goes_on_with_the_settings_of_the_store(
    exact: ColPaliEmbedding, nodes: list[ImageNode], tmp_path: Path
) -> None:
    int8 = exact.model_copy(update={"options": replace(exact.options, precision="int8", cache_dir=tmp_path)})
    made = ColPaliVectorStore(path=tmp_path / "store", embed_model=int8)
    made.add(nodes[:1])
    made.close()
    store = ColPaliVectorStore(path=tmp_path / "store", embed_model=exact)
    assert store.embed_model is not None
    assert store.embed_model.options == replace(exact.options, precision="int8")
    assert store.add(nodes[1:]) == ["1"]
    assert ColPaliVectorStore(store.client, embed_model=exact).embed_model == store.embed_model
    assert ColPaliRetriever(store, embed_model=exact).vector_store.embed_model == store.embed_model
    assert exact.options.precision is None  # the caller's object stays
    with pytest.raises(FingerprintError, match="pages of one"):
        ColPaliVectorStore(store.client, embed_model=in_float32(exact)).add([TextNode(text="a text")])


def test_another_registered_model_is_refused_before_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a download would be an error of another kind
    other = ColPaliEmbedding(model_name="Hcompany/NeoMME-260M-Retriever", precision="int8")
    store = ColPaliVectorStore(path=tmp_path / "store")
    for open_ in (
        lambda: ColPaliVectorStore(path=tmp_path / "store", embed_model=other),
        lambda: ColPaliVectorStore(store.client, embed_model=other),
        lambda: ColPaliRetriever(store, embed_model=other),
        lambda: ColPaliRetriever(tmp_path / "store", embed_model=other),
    ):
        with pytest.raises(FingerprintError, match="was made by coltiny"):
            open_()
