"""LangChain's classes over a store of another precision, and of another model of its space; names in stores."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from langchain_core.documents import Document
from PIL import Image

from colpali_integrations.errors import ConfigurationError, FingerprintError
from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliReranker, ColPaliRetriever, ColPaliVectorStore
from colpali_integrations.langchain._opening import embedding_for
from colpali_integrations.models import find_model
from colpali_integrations.stores import MultiVectorStore, Settings, StoredModel
from tests.stores.stored_models import made_up

QUESTION = "what is the revenue"
PAGES = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (80, 60, 3), np.uint8)) for seed in range(2)]


@pytest.fixture
def exact(one_space: tuple[Path, Path]) -> ColPaliEmbeddings:
    return ColPaliEmbeddings(model_name=one_space[0], threads=1)


@pytest.fixture(params=["int8", "small"])
def other(request: pytest.FixtureRequest, one_space: tuple[Path, Path], tmp_path: Path) -> ColPaliEmbeddings:
    if request.param == "small":
        return ColPaliEmbeddings(model_name=one_space[1], threads=1)
    return ColPaliEmbeddings(model_name=one_space[0], threads=1, precision="int8", cache_dir=tmp_path)


@pytest.fixture
def folder(exact: ColPaliEmbeddings, tmp_path: Path) -> Path:
    place = tmp_path / uuid4().hex  # a process warns of a place once
    with ColPaliVectorStore(exact, path=place) as store:
        store.add_images(PAGES, ids=["a", "b"])
    return place


def test_a_store_is_asked_in_other_settings_and_says_so_once(
    folder: Path, other: ColPaliEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), ColPaliVectorStore(other, path=folder) as store:
        assert len(store.similarity_search(QUESTION)) == 2
        assert len(store.as_retriever().invoke(QUESTION)) == 2
        assert len(ColPaliRetriever(vectorstore=store, search_kwargs={"k": 1}).invoke(QUESTION)) == 1
    [record] = [record for record in caplog.records if "holds pages made by" in record.getMessage()]
    assert str(folder) in record.getMessage()


def test_nothing_is_added_in_other_settings(folder: Path, other: ColPaliEmbeddings, exact: ColPaliEmbeddings) -> None:
    with ColPaliVectorStore(other, path=folder) as store:
        refused = pytest.raises(FingerprintError, match="takes questions of both, and pages of one")
        with refused:
            store.add_images(PAGES)
        with refused:
            store.add_texts(["a text"])
        with refused:
            store.add_documents([Document("a text")])
        assert len(store.store) == 2
    with ColPaliVectorStore(exact, path=folder) as store:
        assert store.add_texts(["a text"], ids=["t"]) == ["t"]


def test_a_reranker_asks_in_other_settings(folder: Path, other: ColPaliEmbeddings) -> None:
    with ColPaliVectorStore(other, path=folder) as store:
        found = store.similarity_search_with_score(QUESTION)
    reranker = ColPaliReranker(vectorstore=folder, embedding=other)
    ranked = reranker.compress_documents([document for document, _ in reversed(found)], QUESTION)
    assert [document.id for document in ranked] == [document.id for document, _ in found]


def test_another_space_is_refused(folder: Path) -> None:
    with pytest.raises(FingerprintError, match="cannot be compared"):
        ColPaliVectorStore(ColPaliEmbeddings(), path=folder)


def test_another_revision_than_that_of_the_first_writer_is_refused(
    two_revisions: list[dict[str, Any]], tmp_path: Path
) -> None:
    MultiVectorStore.open(tmp_path / "store", model="me/mine").close()
    first, other = (ColPaliEmbeddings(**options) for options in two_revisions)
    with ColPaliVectorStore(first, path=tmp_path / "store") as store, ColPaliVectorStore(other, store=store.store):
        store.add_texts(["a text"])  # until then both may ask
    for open_ in (
        lambda: ColPaliVectorStore(other, path=tmp_path / "store"),
        lambda: ColPaliReranker(vectorstore=tmp_path / "store", embedding=other).compress_documents([], QUESTION),
    ):
        with pytest.raises(FingerprintError, match="'me/mine' has changed"):
            open_()


def test_caches_of_single_vectors_keep_settings_apart(exact: ColPaliEmbeddings, other: ColPaliEmbeddings) -> None:
    assert exact.fingerprint != other.fingerprint


@pytest.mark.parametrize("place", ["path", "store", "client"])
def test_a_name_that_merely_stands_in_a_store_is_not_opened(place: str, tmp_path: Path) -> None:
    """The name has the form of a repository of the Hub, from which it would be downloaded."""
    if place == "client":
        from qdrant_client import QdrantClient

        options: dict[str, Any] = {"client": QdrantClient(":memory:")}
    else:
        options = {"path": tmp_path / "store"}
    store = MultiVectorStore.open(model=made_up("somebody/pages"), **options)
    with pytest.raises(ConfigurationError, match="'somebody/pages', which is not registered here; pass embedding="):
        ColPaliVectorStore(**({"store": store} if place == "store" else options))
    with pytest.raises(ConfigurationError, match="not registered"):
        ColPaliReranker(vectorstore=store)


def test_a_registered_model_is_opened_with_the_settings_of_the_pages() -> None:
    made = replace(find_model("Hcompany/NeoMME-260M-Retriever"), precision="int8", max_side=1024)
    embeddings = embedding_for(None, Settings(model=StoredModel.of(made)), "the store x")
    assert embeddings.model_name == made.name
    assert (embeddings.options.precision, embeddings.options.max_side) == ("int8", 1024)


def test_embeddings_go_on_with_the_settings_of_the_store(exact: ColPaliEmbeddings, tmp_path: Path) -> None:
    int8 = exact.model_copy(update={"options": replace(exact.options, precision="int8", cache_dir=tmp_path)})
    with ColPaliVectorStore(int8, path=tmp_path / "store") as store:
        store.add_images(PAGES[:1], ids=["a"])
    with ColPaliVectorStore(exact, path=tmp_path / "store") as store:
        assert store.embeddings.options == replace(exact.options, precision="int8")
        assert store.add_images(PAGES[1:], ids=["b"]) == ["b"]
        assert ColPaliReranker(vectorstore=tmp_path / "store", embedding=exact).vectorstore is not None
    assert exact.options.precision is None  # the caller's object stays
    asked = exact.model_copy(update={"options": replace(exact.options, precision="float32")})
    with ColPaliVectorStore(asked, path=tmp_path / "store") as store:
        with pytest.raises(FingerprintError, match="pages of one"):
            store.add_images(PAGES)
        assert store.embeddings is asked


def test_another_registered_model_is_refused_before_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a download would be an error of another kind
    other = ColPaliEmbeddings(model_name="Hcompany/NeoMME-260M-Retriever", precision="int8")
    with ColPaliVectorStore(path=tmp_path / "store") as store:
        for open_ in (
            lambda: ColPaliVectorStore(other, path=tmp_path / "store"),
            lambda: ColPaliVectorStore(other, store=store.store),
            lambda: ColPaliReranker(vectorstore=store, embedding=other),
            lambda: ColPaliReranker(vectorstore=tmp_path / "store", embedding=other),
        ):
            with pytest.raises(FingerprintError, match="was made by coltiny"):
                open_()
