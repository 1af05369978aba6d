"""What LlamaIndex's retriever found, as a report."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from llama_index.core.schema import BaseNode, ImageNode, NodeWithScore, TextNode

from colpali_integrations import ColPali
from colpali_integrations.llama_index import ColPaliRetriever, ColPaliVectorStore, to_html
from colpali_integrations.stores import MultiVectorStore
from tests.stores.documents import make_store

QUESTION = "prices of bananas"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, coltiny: ColPali) -> Iterator[MultiVectorStore]:
    with make_store(tmp_path_factory.mktemp("reports"), coltiny) as store:
        yield store


def test_nodes_are_shown_with_their_places(pages: MultiVectorStore) -> None:
    found = ColPaliRetriever(pages, similarity_top_k=3, regions=True).retrieve(QUESTION)
    report = to_html(found, QUESTION)
    assert report.count("<article") == 3
    assert report.count("<figure") == 3, "pages of a PDF and a picture"
    assert "fruit.pdf, page 2" in report
    assert f"score <b>{found[0].score:.2f}</b>" in report
    assert 'aria-label="bananas: ' in report
    assert 'class="heat' not in report
    with_heat = to_html(found, QUESTION, store=ColPaliVectorStore(store=pages))
    assert 'class="heat all"' in with_heat
    assert to_html(found, QUESTION, limit=1).count("<article") == 1


def test_nodes_of_others() -> None:
    nodes: list[NodeWithScore | BaseNode] = [
        NodeWithScore(node=TextNode(text="<script>x</script>"), score=None),
        TextNode(text="bare"),
        ImageNode(image_path="gone.png", metadata={"source": "gone.png", "page": 1}),
    ]
    report = to_html(nodes, "q")
    assert "<script" not in report
    assert "&lt;script&gt;" in report
    assert "<figure" not in report
    assert "No picture: " in report
