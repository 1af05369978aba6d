"""A store takes questions of every model of its space, and pages of one: on every engine, by every way of adding."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError
from colpali_integrations.models import find_model
from colpali_integrations.stores import (
    DocumentSource,
    Entry,
    Item,
    MultiVectorStore,
    StoredModel,
    index_documents,
    ingest,
    repair_store,
    stored_settings,
)
from colpali_integrations.stores.model_choice import registered_options
from colpali_integrations.stores.rerank import Candidate, CandidateScorer
from tests.stores.backends import BACKENDS, Open, in_memory, opening
from tests.stores.documents import draw
from tests.stores.stored_models import made_up

QUESTION = "what is the revenue"
NEOMME = find_model("Hcompany/NeoMME-260M-Retriever")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for number, text in enumerate(("the revenue of the year", "the price of bananas", "low tide in the harbour")):
        draw(text).resize((80, 100)).save(folder / f"{number}.png")
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="module")
def exact(one_space: tuple[Path, Path]) -> Iterator[ColPali]:
    with ColPali.from_pretrained(one_space[0], threads=1) as model:
        yield model


@pytest.fixture(scope="module", params=["int8", "small"])
def other(
    request: pytest.FixtureRequest, one_space: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ColPali]:
    """A model of the space of `exact` that makes other pages: by its precision, or by its weights."""
    name = one_space[0] if request.param == "int8" else one_space[1]
    options: dict[str, Any] = {"precision": "int8"} if request.param == "int8" else {}
    with ColPali.from_pretrained(name, threads=1, cache_dir=tmp_path_factory.mktemp("cache"), **options) as model:
        yield model


@pytest.fixture(params=BACKENDS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with opening(request.param, tmp_path) as open_:
        yield open_


def again(open_store: Open, store: MultiVectorStore, model: ColPali) -> MultiVectorStore:
    """Open a store again with another model; a store in memory can only be passed on."""
    if in_memory(store):
        store.require_space(model)
        return store
    return open_store(model=model)


def test_questions_of_every_model_of_the_space_and_pages_of_one(
    open_store: Open, exact: ColPali, other: ColPali, pictures: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(model=exact)
    assert index_documents(pictures[:2], model=exact, store=store).added == 2
    with caplog.at_level(logging.WARNING):
        store.search(exact.embed_query(QUESTION))
        assert not caplog.records
        asked = again(open_store, store, other)
        assert not caplog.records, "opening is not asking"
        for _ in range(2):
            hits = asked.search(other.embed_query(QUESTION), 1)
            assert asked.score(other.embed_query(QUESTION), [hits[0].id])[hits[0].id] == pytest.approx(hits[0].score)
    [record] = caplog.records
    for model in (exact, other):
        assert f"{model.description.name} ({model.description.fingerprint.pages}" in record.getMessage()
    page = next(other.embed_images([pictures[2]]))
    text = Item(id="a", key="a", name="a", entry=lambda: Entry(id="a", text="x"))
    for add in (
        lambda: index_documents(pictures, model=other, store=asked),
        lambda: ingest([DocumentSource(source=pictures[2])], store=asked, model=other),
        lambda: ingest([text], store=asked, model=other),
        lambda: asked.add([(Entry(id="a"), page)], model=other),
        lambda: asked.add([(Entry(id="a"), page)], model=StoredModel.of(other.description)),
    ):
        with pytest.raises(FingerprintError, match=r"holds pages made by large \(.*takes questions of both, and pages"):
            add()
    assert len(asked) == 2
    assert index_documents(pictures, model=exact, store=asked).added == 1


@pytest.mark.parametrize("kind", ["model", "record"])
def test_vectors_without_a_model_are_those_of_the_model_that_opened_the_store(
    kind: str, tmp_path: Path, exact: ColPali, other: ColPali, pictures: list[Path]
) -> None:
    MultiVectorStore.open(tmp_path / "store", model=exact).close()
    page = next(other.embed_images([pictures[0]]))
    opened = other if kind == "model" else StoredModel.of(other.description)
    with MultiVectorStore.open(tmp_path / "store", model=opened) as store:
        with pytest.raises(FingerprintError, match="holds pages made by"):
            store.add([(Entry(id="a"), page)])
        assert store.add([(Entry(id="a"), page)], model=exact) == 1


def test_a_folder_is_not_indexed_into_by_another_precision(
    tmp_path: Path, exact: ColPali, other: ColPali, pictures: list[Path], one_space: tuple[Path, Path]
) -> None:
    index_documents(pictures, model=exact, store=tmp_path / "store")
    same = other.description.name == "large"
    folder = repr(str(one_space[0])) if same else "<the folder of 'large'>"
    advice = f"open the model with ColPali.from_pretrained({folder}, precision='float32'), or"
    with pytest.raises(FingerprintError, match=re.escape(advice)):
        index_documents(pictures, model=other, store=tmp_path / "store")


def test_a_reranker_scores_stored_vectors_by_questions_of_other_settings(
    tmp_path: Path, exact: ColPali, other: ColPali, pictures: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with MultiVectorStore.open(tmp_path / "store", model=exact) as store:
        index_documents(pictures[:2], model=exact, store=store)
        [(id_, key), *_] = store.hashes().items()
        scorer = CandidateScorer(lambda: other, store)
        candidates = [Candidate(id_, key), Candidate(None, "b", "a text that is not stored")]
        with caplog.at_level(logging.WARNING):
            stored, encoded = scorer.scores(QUESTION, candidates)
            scorer.scores(QUESTION, candidates)
        [vectors] = store.vectors([id_])
    assert vectors is not None
    expected = float((other.embed_query(QUESTION) @ vectors.T).max(axis=1).sum())
    assert stored.max_sim == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(encoded.max_sim)
    assert sum("holds pages made by" in record.getMessage() for record in caplog.records) == 1


def test_copies_keep_the_settings_of_the_pages(
    tmp_path: Path, exact: ColPali, other: ColPali, pictures: list[Path]
) -> None:
    index_documents(pictures[:1], model=exact, store=tmp_path / "store")
    with MultiVectorStore.open(tmp_path / "store", model=other) as store:
        assert store.backup(tmp_path / "copy").ok
        assert store.repair().problems == []
        facts = store.info().to_dict()
    assert (facts["model"], facts["space"], facts["precision"]) == ("large", "tests/one-space (128)", "float32")
    assert repair_store(tmp_path / "copy").problems == []
    settings = stored_settings(tmp_path / "copy")
    assert settings is not None
    assert settings.model.fingerprint == exact.description.fingerprint


def test_the_name_of_a_model_tells_nothing_of_its_settings(tmp_path: Path) -> None:
    made = StoredModel.of(replace(NEOMME, precision="int8", max_side=1024, revision="a" * 40))
    vectors = np.eye(2, NEOMME.dim, dtype=np.float32)
    with MultiVectorStore.open(tmp_path / "store", model=made) as store:
        store.add([(Entry(id="a"), vectors)])
    for name in (NEOMME.name, NEOMME):
        with MultiVectorStore.open(tmp_path / "store", model=name) as store:
            assert store.add([(Entry(id="b"), vectors)]) == 1
            with pytest.raises(FingerprintError, match="precision int8, max_side 1024"):
                store.add([(Entry(id="b"), vectors)], model=name)


def test_a_registered_model_is_opened_with_the_settings_of_the_pages() -> None:
    made = StoredModel.of(replace(NEOMME, precision="int8", max_side=1024))
    assert registered_options(made, where="x", advice="y") == {"precision": "int8", "max_side": 1024}
    coltiny = StoredModel.of(find_model("coltiny"))
    assert registered_options(coltiny, where="x", advice="y") == {}


def test_only_a_registered_name_is_opened(tmp_path: Path) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=made_up("somebody/pages"))
    with store, pytest.raises(ConfigurationError, match="'somebody/pages', which is not registered here; open it with"):
        store.search("a question")
    with pytest.raises(ConfigurationError, match=r"the store x was made by the model 'me/mine'.*; name it"):
        registered_options(made_up("me/mine"), where="the store x", advice="name it")


def test_pages_of_another_space_are_refused(tmp_path: Path, exact: ColPali, coltiny: ColPali) -> None:
    MultiVectorStore.open(tmp_path / "store", model=exact).close()
    for model in (coltiny, "coltiny", find_model("coltiny")):
        with pytest.raises(FingerprintError, match="cannot be compared"):
            MultiVectorStore.open(tmp_path / "store", model=model)
