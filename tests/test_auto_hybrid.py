"""`hybrid="auto"`, the default: which doors rank by the words of the pages too, and when."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from colpali_integrations import ColPali
from colpali_integrations.cli.app import ExitCode, run
from colpali_integrations.langchain import ColPaliRetriever as LangChainRetriever
from colpali_integrations.langchain import ColPaliVectorStore as LangChainStore
from colpali_integrations.llama_index import ColPaliIndex, ColPaliRetriever, ColPaliVectorStore
from colpali_integrations.models import find_model, list_supported_models
from colpali_integrations.models.shared import shared_model
from colpali_integrations.stores import Entry, MultiVectorStore, SearchOptions
from colpali_integrations.stores.fusion import Hybrid

# Sight slightly prefers the first entry, words the second one; nothing speaks for the third.
QUESTION, SEEN, SAID, NEITHER = "violin serenade", "seen", "said", "neither"
SIGHT, BOTH = [SEEN, SAID, NEITHER], [SAID, SEEN, NEITHER]
PICTURES = {SEEN: "a violin", SAID: "a violin, a flute", NEITHER: "an invoice"}
TEXTS = {SEEN: "a quartet", SAID: "a serenade for strings", NEITHER: "a bill"}


def fill(store: MultiVectorStore, model: ColPali, *, words: bool = True) -> MultiVectorStore:
    vectors = model.embed_texts(list(PICTURES.values()))
    store.add(
        (Entry(id=id_, text=TEXTS[id_] if words else ""), one) for id_, one in zip(PICTURES, vectors, strict=True)
    )
    return store


def made(model: ColPali, *, words: bool = True) -> MultiVectorStore:
    return fill(MultiVectorStore.open(model=model), model, words=words)


def core(store: MultiVectorStore, **options: Any) -> list[str]:
    return [hit.id for hit in store.search(QUESTION, **options)]


def batch(store: MultiVectorStore, **options: Any) -> list[str]:
    [_, found] = store.search_batch(["tide", QUESTION], SearchOptions(**options))
    return [hit.id for hit in found]


def similarity_search(store: MultiVectorStore, **options: Any) -> list[str]:
    return [str(found.id) for found in LangChainStore(store=store).similarity_search(QUESTION, **options)]


def langchain_retriever(store: MultiVectorStore, **options: Any) -> list[str]:
    retriever = LangChainRetriever(vectorstore=store, search_kwargs=options)
    [found] = retriever.batch([QUESTION])
    assert [one.id for one in retriever.invoke(QUESTION)] == [one.id for one in found]
    return [str(one.id) for one in found]


def llama_index_retriever(store: MultiVectorStore, **options: Any) -> list[str]:
    return [found.node.node_id for found in ColPaliRetriever(store, **options).retrieve(QUESTION)]


def llama_index_index(store: MultiVectorStore, **options: Any) -> list[str]:
    index = ColPaliIndex.from_vector_store(ColPaliVectorStore(store))
    return [found.node.node_id for found in index.as_retriever(**options).retrieve(QUESTION)]


DOORS: dict[str, Callable[..., list[str]]] = {
    "search": core,
    "search_batch": batch,
    "similarity_search": similarity_search,
    "LangChain's retriever": langchain_retriever,
    "LlamaIndex's retriever": llama_index_retriever,
    "LlamaIndex's index": llama_index_index,
}


@pytest.mark.parametrize("door", DOORS)
def test_a_question_in_words_is_ranked_by_words_too(door: str, coltiny: ColPali) -> None:
    search, store = DOORS[door], made(coltiny)
    assert search(store) == search(store, hybrid="auto") == search(store, hybrid=True) == BOTH
    assert search(store, hybrid=False) == SIGHT


@pytest.mark.parametrize("door", DOORS)
def test_a_model_that_words_do_not_help_ranks_by_sight(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared_model("coltiny")  # the adapters' too
    monkeypatch.setattr(model, "description", replace(model.description, auto_hybrid=False))
    store = made(model)
    assert DOORS[door](store) == DOORS[door](store, hybrid="auto") == SIGHT
    assert DOORS[door](store, hybrid=True) == BOTH


@pytest.mark.parametrize("door", DOORS)
def test_a_store_without_words_ranks_by_sight_and_scores_by_max_sim(door: str, coltiny: ColPali) -> None:
    store = made(coltiny, words=False)
    assert DOORS[door](store) == SIGHT
    assert [hit.score for hit in store.search(QUESTION)] == [hit.max_sim for hit in store.search(QUESTION)]


def test_coltiny_gains_by_words_and_nothing_is_claimed_for_the_others() -> None:
    assert [model.name for model in list_supported_models() if model.auto_hybrid is not False] == ["coltiny"]
    coltiny = find_model("coltiny")
    assert replace(coltiny, auto_hybrid=False).fingerprint == coltiny.fingerprint, "indexes stay valid"


def test_vectors_are_compared_by_sight_alone(coltiny: ColPali) -> None:
    store, query = made(coltiny), coltiny.embed_query(QUESTION)
    for options in ({}, {"text": QUESTION}, {"text": QUESTION, "hybrid": "auto"}):
        found = store.search(query, **options)  # type: ignore[arg-type]
        assert [hit.id for hit in found] == SIGHT
        assert [hit.score for hit in found] == [hit.max_sim for hit in found]
    in_langchain = LangChainStore(store=store)
    assert [one.id for one in in_langchain.similarity_search_by_vector(query)] == SIGHT
    assert [one.id for one in in_langchain.similarity_search_by_vector(query, hybrid="auto")] == SIGHT
    assert [hit.id for hit in in_langchain.find([query])[0]] == SIGHT
    assert [hit.id for hit in in_langchain.find([query], texts=[QUESTION])[0]] == BOTH


def test_scores_of_both_rankings_and_their_cutoff(coltiny: ColPali) -> None:
    """A fused score is in [0, 1], and MaxSim grows with the question; the cutoff is MaxSim's relevance in both."""
    store = made(coltiny)
    fused, sight = store.search(QUESTION), store.search(QUESTION, hybrid=False)
    assert [hit.score for hit in fused] == [hit.score for hit in store.search(QUESTION, hybrid=True)]
    assert 1 >= fused[0].score > fused[1].score > fused[2].score > 0
    assert {hit.id: (hit.max_sim, hit.relevance) for hit in fused} == {
        hit.id: (hit.max_sim, hit.relevance) for hit in sight
    }
    between = (sight[0].relevance + sight[1].relevance) / 2
    for hybrid in ("auto", False):
        found = store.search(QUESTION, min_relevance=between, hybrid=hybrid)
        assert [hit.id for hit in found] == [SEEN]
    in_langchain = LangChainStore(store=store)
    scored = in_langchain.similarity_search_with_score(QUESTION)
    assert [score for _, score in scored] == [hit.score for hit in fused]
    relevances = in_langchain.similarity_search_with_relevance_scores(QUESTION)
    assert [score for _, score in relevances] == [hit.relevance for hit in fused]
    assert [one.id for one in in_langchain.similarity_search(QUESTION, score_threshold=between)] == [SEEN]
    nodes = ColPaliRetriever(store).retrieve(QUESTION)
    assert [node.score for node in nodes] == [hit.score for hit in fused]
    nodes = ColPaliRetriever(store, hybrid=False).retrieve(QUESTION)
    assert [node.score for node in nodes] == [hit.relevance for hit in sight]
    assert [node.node.node_id for node in ColPaliRetriever(store, min_relevance=between).retrieve(QUESTION)] == [SEEN]


def test_diversity_chooses_among_the_fused_candidates_in_langchain(coltiny: ColPali) -> None:
    in_langchain = LangChainStore(store=made(coltiny))
    [candidate] = in_langchain.max_marginal_relevance_search(QUESTION, k=1, fetch_k=1)
    assert candidate.id == SAID
    [candidate] = in_langchain.max_marginal_relevance_search(QUESTION, k=1, fetch_k=1, hybrid=False)
    assert candidate.id == SEEN


def test_llama_index_s_own_query_modes_stay(coltiny: ColPali) -> None:
    """DEFAULT of the vector store is sight alone; the retriever's "auto" leaves the other modes as they are."""
    store = made(coltiny)
    vector_store = ColPaliVectorStore(store)
    relevances = [hit.relevance for hit in store.search(QUESTION, hybrid=False)]
    result = vector_store.query(VectorStoreQuery(query_str=QUESTION, similarity_top_k=3))
    assert (result.ids, result.similarities) == (SIGHT, relevances)
    assert vector_store.query(VectorStoreQuery(query_str=QUESTION, similarity_top_k=3), hybrid="auto").ids == BOTH
    index = VectorStoreIndex.from_vector_store(vector_store, embed_model=vector_store.deferred_embedding)
    assert [found.node.node_id for found in index.as_retriever(similarity_top_k=3).retrieve(QUESTION)] == SIGHT
    diverse = ColPaliRetriever(store, vector_store_query_mode=VectorStoreQueryMode.MMR).retrieve(QUESTION)
    assert [(one.node.node_id, one.score) for one in diverse] == list(zip(SIGHT, relevances, strict=True))
    hybrid = ColPaliRetriever(store, vector_store_query_mode="hybrid", alpha=1.0).retrieve(QUESTION)
    assert [found.node.node_id for found in hybrid] == SIGHT


def test_the_command_line(coltiny: ColPali, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "store")
    with MultiVectorStore.open(folder, model=coltiny) as store:
        fill(store, coltiny)
        ways: dict[str, Hybrid] = {"auto": "auto", "--no-hybrid": False, "--hybrid": True}
        expected = {
            way: [round(hit.score, 4) for hit in store.search(QUESTION, hybrid=hybrid).matching()]
            for way, hybrid in ways.items()
        }

    def scores(*options: str) -> list[float]:
        assert run(["search", QUESTION, "--store", folder, "--json", *options]) == ExitCode.OK
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for one in found:
            assert ("halves" in one) == ("--no-hybrid" not in options)
            if halves := one.get("halves"):
                parts = (1 - halves["weight"]) * halves["sight"] + halves["weight"] * halves["words"]
                assert one["score"] == pytest.approx(parts, abs=2e-4)
        return [one["score"] for one in found]

    assert scores() == expected["auto"]
    assert scores("--hybrid") == expected["--hybrid"]
    assert scores("--no-hybrid") == expected["--no-hybrid"]
    assert expected["auto"] == expected["--hybrid"] != expected["--no-hybrid"]
