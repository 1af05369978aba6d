"""The note on a search whose pages seem not to answer the question; its limit is measured on the demo's pages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import TextBlock
from llama_index.core.schema import MetadataMode, NodeWithScore

import colpali_integrations.langchain as langchain
import colpali_integrations.llama_index as llama_index
from colpali_integrations import ColPali
from colpali_integrations.agents.found import SEEMS_UNANSWERED, Images
from colpali_integrations.cli.app import run
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.explain.report import DOUBTFUL, HtmlReport
from colpali_integrations.models import find_model, list_supported_models
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.stores import MultiVectorStore, index_documents
from colpali_integrations.stores.hits import marked_doubtful

DEMO = Path(__file__).parents[1] / "demo"
ANSWERED, DOUBTED = "diverging palettes", "flights from Berlin to Tokyo"  # about the pages of the examples
OTHER_SUBJECTS = [
    "How do I reset my wifi router password?",
    "best pizza recipe with mozzarella",
    "quarterly revenue of the automotive division 2023",
    "who won the football world cup in 1998",
    "symptoms of vitamin D deficiency",
    "flight times from Berlin to Tokyo",
    "kubernetes ingress controller timeout",
    "the tax office opening hours",
    "how to knit a scarf",
    "tenancy deposit protection scheme",
    "blockchain consensus algorithm energy consumption",
    "photosynthesis in desert plants",
    "mortgage interest rates forecast",
    "guitar chords for beginners",
    "train timetable to Edinburgh",
    "cat food allergies",
    "what is the meaning of life",
    "inflation in the euro area",
    "how many calories does an apple have",
    "installation of a heat pump",
    "Mozart's year of birth",
    "asdf qwer zxcv",
    "xyzzy plugh frobnicate",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "index"
    with ColPali.from_pretrained("coltiny") as model, MultiVectorStore.open(path, model=model) as store:
        assert index_documents(DEMO / "pdfs", model=model, store=store).added == 77
    return path


@pytest.mark.slow
def test_questions_of_other_subjects_are_doubtful_and_those_of_the_demo_are_not(demo: Path) -> None:
    asked = [one["question"] for one in json.loads((DEMO / "questions.json").read_text())["questions"]]
    with MultiVectorStore.open(demo) as store:
        assert [question for question in asked if store.search(question, 5).doubtful] == []
        doubtful = [question for question in OTHER_SUBJECTS if store.search(question, 5).doubtful]
        assert len(doubtful) >= 20  # of 23
        hits = store.search(doubtful[0], 5)
        assert hits.matching().doubtful
        assert hits[:1].doubtful
        assert not hits[:0].doubtful


def test_only_where_it_was_measured(coltiny: ColPali) -> None:
    assert [model.name for model in list_supported_models() if model.low_relevance] == ["coltiny"]
    description = find_model("coltiny")
    assert replace(description, low_relevance=0.0).fingerprint == description.fingerprint, "indexes stay valid"
    assert ModelDescription.from_dict(json.loads(json.dumps(description.to_dict()))) == description
    wrongs: list[Any] = [-0.1, 1.1, True, "a"]
    for wrong in wrongs:
        with pytest.raises(ConfigurationError, match="low_relevance must be from 0 to 1"):
            replace(description, low_relevance=wrong)


@pytest.fixture
def index(examples_folder: Path) -> str:
    return str(examples_folder / "my-index")


def test_the_command_line_says_so_and_shows_no_score_that_seems_perfect(
    index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", DOUBTED, "--store", index]) == 0
    out, err = capsys.readouterr()
    header, *rows = out.splitlines()[1:]
    assert header.split()[:2] == ["#", "Relevance"]
    assert [int(row.split()[1].removesuffix("%")) < 15 for row in rows if row.split()[0].isdigit()] == [True, True]
    assert "1.00" not in out
    assert DOUBTFUL in err
    assert run(["search", ANSWERED, "--store", index]) == 0
    assert "seems" not in capsys.readouterr().err


def test_each_line_of_json_says_so(index: str, capsys: pytest.CaptureFixture[str]) -> None:
    for question, doubtful in ((DOUBTED, True), (ANSWERED, False)):
        assert run(["search", question, "--store", index, "--json"]) == 0
        hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {hit["doubtful"] for hit in hits} == {doubtful}
        assert hits[0]["score"] > 0.9, "data keep the fused score"


def test_a_store_without_a_model_knows_that_of_its_own(index: str, coltiny: ColPali) -> None:
    for question, doubtful in ((DOUBTED, True), (ANSWERED, False)):
        with MultiVectorStore.open(index) as store:
            hits = store.search(coltiny.embed_query(question), 2)
        assert hits.doubtful is doubtful
        assert (", doubtful" in repr(hits)) is doubtful


@pytest.mark.parametrize("search_type", ["similarity", "mmr"])
def test_documents_of_langchain_carry_it(index: str, search_type: str) -> None:
    with langchain.ColPaliVectorStore(path=index) as store:
        retriever = store.as_retriever(search_type=search_type)
        doubted, answered = retriever.batch([DOUBTED, ANSWERED])
        assert [one.metadata["doubtful"] for one in (*doubted, *answered)] == [True, True, False, False]
        report, other = (langchain.to_html(*given) for given in ((doubted, DOUBTED), (answered, ANSWERED)))
    assert_says_so(report)
    assert DOUBTFUL not in other and "score <b>" in other


@pytest.mark.parametrize("options", [{}, {"vector_store_query_mode": "mmr"}, {"hybrid": False}], ids=json.dumps)
def test_nodes_of_llama_index_carry_it(index: str, options: dict[str, Any]) -> None:
    with MultiVectorStore.open(index) as store:
        retriever = llama_index.ColPaliRetriever(store, **options)
        doubted, answered = retriever.retrieve(DOUBTED), retriever.retrieve(ANSWERED)
        report, other = (llama_index.to_html(*given) for given in ((doubted, DOUBTED), (answered, ANSWERED)))
    assert [one.metadata["doubtful"] for one in doubted] == [True, True]
    assert all("doubtful" not in one.node.get_content(MetadataMode.LLM) for one in doubted)
    assert not any("doubtful" in one.metadata for one in answered), "as they were added"
    assert_says_so(report)
    assert DOUBTFUL not in other and "score <b>" in other


def test_nodes_of_a_doubtful_answer_do_not_carry_it_into_another_store(index: str) -> None:
    with MultiVectorStore.open(index) as store:
        doubted = [one.node for one in llama_index.ColPaliRetriever(store).retrieve(DOUBTED)]
    other = llama_index.ColPaliVectorStore()
    other.add(doubted)
    retriever = llama_index.ColPaliRetriever(other)
    assert not any("doubtful" in one.metadata for one in retriever.retrieve(ANSWERED))
    assert all(one.metadata["doubtful"] for one in retriever.retrieve(DOUBTED))


def test_reports_say_so(index: str, coltiny: ColPali) -> None:
    with MultiVectorStore.open(index, model=coltiny) as store:
        assert_says_so(store.search(DOUBTED, 2).to_html())
        assert DOUBTFUL not in store.search(ANSWERED, 2).to_html()


def assert_says_so(report: HtmlReport) -> None:
    assert f'<p class="note">{DOUBTFUL}</p>' in report
    assert report.count("<article") == 2
    assert "score <b>" not in report, "the best fused score is near 1 for any question"


@pytest.mark.parametrize("images", ["tool", "user", False])
def test_tools_of_agents_tell_what_to_try(index: str, images: Images) -> None:
    with MultiVectorStore.open(index) as store:
        ours = langchain.PageSearchTool(store, images=images)
        theirs = llama_index.PageSearchTool(store, images=images)
        for question, doubtful in ((DOUBTED, True), (ANSWERED, False)):
            call = {"type": "tool_call", "id": "1", "name": ours.name, "args": {"question": question}}
            content = ours.invoke(call).content
            first = content if isinstance(content, str) else content[0]["text"]
            assert first.startswith(SEEMS_UNANSWERED) is doubtful
            assert (theirs(question).blocks[0] == TextBlock(text=SEEMS_UNANSWERED)) is doubtful


def test_rerankers_have_the_last_word(index: str) -> None:
    loaded = langchain.PdfPageLoader("report.pdf").load()
    nodes = [NodeWithScore(node=node) for node in llama_index.PdfPageReader().load_data("report.pdf")]
    ours, theirs = langchain.ColPaliReranker(vectorstore=index), llama_index.ColPaliRerank(index)
    for question, doubtful in ((DOUBTED, True), (ANSWERED, False)):
        documents = ours.compress_documents(loaded, question)
        assert [one.metadata["doubtful"] for one in documents] == [doubtful, doubtful]
        loaded = documents  # of the search before
        nodes = theirs.postprocess_nodes(nodes, query_str=question)
        assert [one.metadata.get("doubtful", False) for one in nodes] == [doubtful, doubtful]
        assert not any("doubtful" in one.node.get_content(MetadataMode.LLM) for one in nodes)


def test_results_of_other_searches_are_in_no_doubt(index: str) -> None:
    with langchain.ColPaliVectorStore(path=index) as store:
        found = store.as_retriever().invoke(DOUBTED)
    assert marked_doubtful(one.metadata for one in found)
    assert not marked_doubtful([*(one.metadata for one in found), {"source": "of another retriever"}])
    assert not marked_doubtful([])
