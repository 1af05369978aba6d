"""LlamaIndex's and LangSmith's own evaluators over our retrievers: the values of `evaluate`."""

from __future__ import annotations

import warnings
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from langsmith import Client
from langsmith.schemas import Example
from llama_index.core.evaluation import RetrieverEvaluator

from colpali_integrations import MultiVectorStore
from colpali_integrations.errors import ColPaliError
from colpali_integrations.evaluation import evaluate, read_questions, wanted_ids
from colpali_integrations.langchain import ColPaliRetriever as LangChainRetriever
from colpali_integrations.langchain import page_evaluator, page_examples
from colpali_integrations.llama_index import ColPaliRetriever
from tests.evaluation.test_compare import LINES

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "ast.Str is deprecated", DeprecationWarning)  # Python 3.12 and 3.13
    from langsmith.evaluation import evaluate as langsmith_evaluate

QUESTIONS = [*LINES, {"question": "timetable", "source": "train.PNG", "page": 1}]


def test_llama_index_s_retriever_evaluator_agrees(store: MultiVectorStore) -> None:
    questions = read_questions(QUESTIONS)
    with store:
        [ours] = evaluate(questions, store=store, k=2).results
        evaluator = RetrieverEvaluator.from_metric_names(
            ["hit_rate", "mrr", "recall", "ndcg"], retriever=ColPaliRetriever(store, similarity_top_k=2)
        )
        for question, ids, outcome in zip(questions, wanted_ids(questions, store), ours.outcomes, strict=True):
            theirs = evaluator.evaluate(question.text, list(ids)).metric_vals_dict
            assert theirs["hit_rate"] == outcome.values["hit@2"]
            assert theirs["mrr"] == pytest.approx(outcome.values["mrr@2"])
            assert theirs["recall"] == pytest.approx(outcome.values["recall@2"])
            assert theirs["ndcg"] == pytest.approx(outcome.values["ndcg@2"])


@pytest.mark.filterwarnings("ignore:'upload_(runs|results)' parameter is in beta")
def test_langsmith_s_evaluate_agrees(store: MultiVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    with store:
        retriever = LangChainRetriever(vectorstore=store, search_kwargs={"k": 2})
        rows = page_examples(QUESTIONS, store)
        examples = [Example(id=UUID(int=n), dataset_id=UUID(int=99), **row) for n, row in enumerate(rows)]
        results = langsmith_evaluate(
            lambda inputs: {"documents": retriever.invoke(inputs["question"])},
            data=examples,
            evaluators=[page_evaluator(k=2)],
            upload_results=False,
            client=offline(),
        )
        [ours] = evaluate(QUESTIONS, store=store, k=2).results
        theirs: dict[str, dict[str, Any]] = {}
        for row in results:
            found = row["evaluation_results"]["results"]
            theirs[(row["example"].inputs or {})["question"]] = {one.key: one.score for one in found}
    assert theirs == {one.asked.question.text: pytest.approx(dict(one.values)) for one in ours.outcomes}


def test_questions_of_missing_pages_may_be_skipped(store: MultiVectorStore) -> None:
    missing = {"question": "x", "source": "x.pdf", "page": 1}
    lines = [missing, *QUESTIONS, {**missing, "question": "y"}]
    with store:
        expected = wanted_ids(read_questions(QUESTIONS), store)
        assert wanted_ids(read_questions(lines), store, on_error="skip") == [{}, *expected, {}]
        examples = page_examples(lines, store, on_error="skip")
        assert examples == page_examples(QUESTIONS, store)
        doors: list[Any] = [
            lambda **options: wanted_ids(read_questions(lines), store, **options),
            lambda **options: page_examples(lines, store, **options),
        ]
        for door in doors:
            with pytest.raises(ColPaliError, match="pass on_error='skip'"):
                door()
            with pytest.raises(ColPaliError, match="on_error must be 'raise' or 'skip'"):
                door(on_error="ignore")


def offline() -> Client:
    """A client of LangSmith whose server takes everything."""
    answer = Mock(status_code=200, text="{}", content=b"{}", ok=True)
    answer.json.return_value = {}
    session = Mock()
    session.request.return_value = session.get.return_value = session.post.return_value = answer
    return Client(api_url="http://localhost:1", api_key="none", auto_batch_tracing=False, session=session)


def test_documents_may_have_been_serialised() -> None:
    judge = page_evaluator(k=1)
    found = {"answer": "x", "documents": [{"id": "a", "page_content": ""}]}
    assert {one["key"]: one["score"] for one in judge(found, {"ids": ["a"]})["results"]}["hit@1"] == 1.0
    for outputs, reference, message in (
        ({"answer": "x"}, {"ids": ["a"]}, "expected a list of Documents with ids"),
        (found, {"pages": [1]}, "need the ids of its right pages in 'ids'"),
    ):
        with pytest.raises(ColPaliError, match=message):
            judge(outputs, reference)
