"""LangChain's own suite first, then what it does not ask: the right page, its reference, and nobody else's vectors."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError

from colpali_integrations import ColPali
from colpali_integrations.core.errors import ConfigurationError, FingerprintError, QueryError, StoreError
from colpali_integrations.langchain import ColPaliEmbeddings, image_blocks
from colpali_integrations.langchain.retrievers import ColPaliRetriever
from colpali_integrations.stores import Fingerprint, Page, PageStore
from tests.stores.documents import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageStore]:
    with ColPali.from_pretrained("coltiny") as model:
        yield make_store(tmp_path_factory.mktemp("langchain"), model)


class TestStandard(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _store(self, store: PageStore) -> None:
        self.store = store

    @property
    def retriever_constructor(self) -> type[ColPaliRetriever]:
        return ColPaliRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "prices of bananas"


def test_a_page_comes_with_its_reference(store: PageStore) -> None:
    [found] = ColPaliRetriever(store=str(store.folder), k=1).invoke("bananas in the market")
    assert found.page_content == "fruit.pdf, page 2", "it has no text layer"
    assert Path(found.metadata["source"]).name == "fruit.pdf"
    assert (found.metadata["page"], found.metadata["page_count"]) == (2, 2)
    [query] = ColPali.from_pretrained("coltiny").embed_queries("bananas in the market")
    assert found.metadata["score"] == pytest.approx(store.search(query, k=1)[0].score)
    assert json.loads(json.dumps(found.metadata)) == found.metadata
    [block] = image_blocks([found])
    assert HumanMessage(content_blocks=[block]).content_blocks[0]["type"] == "image"


def test_an_image_file_is_found(store: PageStore) -> None:
    [found] = ColPaliRetriever(store=store).invoke("railway timetable", k=1)
    assert found.page_content == "train.PNG, page 1"
    assert "dpi" not in found.metadata


def test_a_text_layer_becomes_the_content(tmp_path: Path) -> None:
    with ColPali.from_pretrained("coltiny") as model:
        store = PageStore(tmp_path, model=model.description)
        page = Page(source="a.pdf", page=3, width=1, height=1, content_hash="1", text="Words ", metadata={"year": 2024})
        store.add([(page, np.ones((2, model.dim)))])
    [found] = ColPaliRetriever(store=store).invoke("anything")
    assert found.page_content == "Words"
    assert found.metadata["year"] == 2024


def test_k_of_the_call_goes_before_k_of_the_retriever(store: PageStore) -> None:
    retriever = ColPaliRetriever(store=store, k=2)
    assert len(retriever.invoke("apples")) == 2
    assert len(retriever.invoke("apples", k=1)) == 1
    assert len(retriever.invoke("apples", k=99)) == 3
    with pytest.raises(ConfigurationError, match="k must be"):
        retriever.invoke("apples", k=0)


async def test_async_answers_the_same_and_does_not_block(store: PageStore) -> None:
    retriever = ColPaliRetriever(store=store, k=2)
    questions = ["apples", "bananas", "railway"] * 4
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    together = await retriever.abatch(questions)
    ticking.cancel()
    assert together == retriever.batch(questions)
    assert ticks > 1


def test_copies_find_the_same(store: PageStore) -> None:
    retriever = ColPaliRetriever(store=store, embeddings=ColPaliEmbeddings(threads=1), k=1)
    expected = retriever.invoke("apples")
    assert copy.deepcopy(retriever).invoke("apples") == expected
    assert pickle.loads(pickle.dumps(retriever)).invoke("apples") == expected


def test_configurable_fields(store: PageStore) -> None:
    field = ConfigurableField(id="pages", name="pages", description="how many")
    retriever = ColPaliRetriever(store=store).configurable_fields(k=field)
    assert len(retriever.with_config(configurable={"pages": 2}).invoke("apples")) == 2
    assert len(retriever.invoke("apples")) == 3


def test_another_model_is_refused(tmp_path: Path) -> None:
    other = Fingerprint(name="other", family="coltiny", dim=128, description="0" * 16)
    store = PageStore(tmp_path, model=other)
    with pytest.raises(FingerprintError, match="other"):
        ColPaliRetriever(store=store, embeddings=ColPaliEmbeddings()).invoke("apples")


def test_what_cannot_work_is_refused(store: PageStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store"):
        ColPaliRetriever(store=tmp_path)
    with pytest.raises(ValidationError, match="top_k"):
        ColPaliRetriever(store=store, top_k=3)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ColPaliRetriever(store=store, k=0)
    with pytest.raises(QueryError, match="white space"):
        ColPaliRetriever(store=store).invoke("  ")
