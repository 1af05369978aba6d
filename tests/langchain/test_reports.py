"""What LangChain's retriever found, as a report."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_core.documents import Document

from colpali_integrations import ColPali
from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliRetriever, ColPaliVectorStore, to_html
from tests.stores.documents import make_store

QUESTION = "prices of bananas"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, coltiny: ColPali) -> Iterator[ColPaliVectorStore]:
    with make_store(tmp_path_factory.mktemp("reports"), coltiny) as pages:
        yield ColPaliVectorStore(ColPaliEmbeddings(), store=pages)


def test_documents_are_shown_with_their_places(store: ColPaliVectorStore) -> None:
    found = ColPaliRetriever(store=store, k=2, regions=True).invoke(QUESTION)
    report = to_html(found, QUESTION)
    assert report.count("<article") == 2
    assert report.count("<figure") == 2
    assert "fruit.pdf, page 2" in report
    assert f"score <b>{found[0].metadata['score']:.2f}</b>" in report
    assert 'aria-label="bananas: ' in report
    assert 'class="heat' not in report
    with_heat = to_html(found, QUESTION, store=store)
    assert 'class="heat all"' in with_heat
    assert "coltiny" in with_heat
    bare = ColPaliRetriever(store=store, k=1).invoke(QUESTION)
    assert 'aria-label="bananas: ' in to_html(bare, QUESTION, store=store)
    assert to_html(found, QUESTION, limit=1).count("<article") == 1


def test_documents_of_others() -> None:
    report = to_html([Document("<script>x</script> a text", metadata={"source": "a.pdf", "page": 0})], "<b>")
    assert "<script" not in report
    assert "<b>&lt;" not in report
    assert "&lt;script&gt;x&lt;/script&gt; a text" in report
    assert "<figure" not in report
