"""Pages on their way from one framework into the other and back: they stay pages, encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document as LangChainDocument
from langchain_core.documents.base import Blob
from llama_index.core.schema import Document, ImageNode, MetadataMode, TextNode

from colpali_integrations import ColPali
from colpali_integrations import langchain as in_langchain
from colpali_integrations import llama_index as in_llama_index
from colpali_integrations.errors import InputError
from colpali_integrations.llama_index.schema import PageNode
from colpali_integrations.pages.reference import encode_base64, encode_png
from colpali_integrations.stores import MultiVectorStore
from tests.stores.documents import DPI, draw, save_pdf


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    return save_pdf(tmp_path / "fruit.pdf", draw("Harvest of apples"), draw("Prices of bananas"))


@pytest.fixture
def store(coltiny: ColPali) -> MultiVectorStore:
    return MultiVectorStore.open(model=coltiny)


def are_pages(store: MultiVectorStore, number: int) -> bool:
    return [entry.is_page for entry in store.scroll()] == [True] * number


@pytest.mark.parametrize("include_image", [False, True])
def test_documents_of_langchain_are_pages_in_llama_index(
    pdf: Path, store: MultiVectorStore, include_image: bool
) -> None:
    pages = in_langchain.PdfPageLoader(pdf, dpi=DPI, include_image=include_image).load()
    chunk = LangChainDocument("a chunk", metadata=pages[0].metadata)
    documents = [Document.from_langchain_format(page) for page in [*pages, chunk]]
    vector_store = in_llama_index.ColPaliVectorStore(store)
    index = in_llama_index.ColPaliIndex.from_documents(documents, vector_store=vector_store)
    [found] = index.as_retriever(similarity_top_k=1).retrieve("bananas")
    assert isinstance(found.node, PageNode)
    assert found.node.node_id == documents[1].id_
    assert found.node.ref_doc_id == documents[1].id_
    assert found.node.text == pages[1].page_content
    assert "image_base64" not in found.node.metadata
    assert len(in_llama_index.image_blocks([found])) == 1
    kinds = {entry.id: entry.is_page for entry in store.scroll()}
    assert kinds == dict(zip([document.id_ for document in documents], [True, True, False], strict=True))
    again = in_langchain.ColPaliVectorStore(store=store).similarity_search("bananas", k=1)[0]
    assert again.page_content == pages[1].page_content
    assert again.metadata.items() >= {key: pages[1].metadata[key] for key in ("page", "content_hash")}.items()
    assert len(in_langchain.image_blocks([again])) == 1


def test_pages_of_llama_index_are_pages_in_langchain(pdf: Path, store: MultiVectorStore) -> None:
    nodes = in_llama_index.PdfPageReader(dpi=DPI).load_data(pdf)
    # As LlamaIndex's `to_langchain_format`, which needs the package langchain.
    documents = [LangChainDocument(id=node.id_, page_content=node.text, metadata=node.metadata) for node in nodes]
    target = in_langchain.ColPaliVectorStore(store=store)
    target.add_documents(documents)
    assert are_pages(store, 2)
    [found] = target.similarity_search("bananas", k=1)
    back = Document.from_langchain_format(found)
    other = in_llama_index.ColPaliVectorStore()
    other.add([back])
    assert are_pages(other.client, 1)
    assert other.get_nodes()[0].metadata == nodes[1].metadata
    reranked = in_langchain.ColPaliReranker(vectorstore=target, top_n=1).compress_documents(documents, "bananas")
    assert reranked[0].metadata["page"] == 2


def test_a_store_hands_pictures_from_one_framework_to_the_other(
    tmp_path: Path, store: MultiVectorStore, coltiny: ColPali
) -> None:
    draw("Harvest of apples").save(tmp_path / "apples.png")
    nodes = [
        ImageNode(id_="file", image_path=str(tmp_path / "apples.png"), text="a scan"),
        ImageNode(id_="embedded", image=encode_base64(draw("Prices of bananas")), image_mimetype="image/png"),
    ]
    in_llama_index.ColPaliVectorStore(store).add(nodes)
    found = in_langchain.ColPaliVectorStore(store=store).get_by_ids(["file", "embedded"])
    assert len(in_langchain.image_blocks(found)) == 2
    assert "No picture" not in store.search("bananas").to_html()
    other = MultiVectorStore.open(model=coltiny)
    in_langchain.ColPaliVectorStore(store=other).add_documents(found)
    assert are_pages(other, 2)
    hashes = {entry.id: entry.content_hash for entry in store.scroll()}
    assert {entry.id: entry.content_hash for entry in other.scroll()} == hashes
    target = in_llama_index.ColPaliVectorStore(other)
    again = target.get_nodes(["file", "embedded"])
    assert [node.class_name() for node in again] == ["ImageNode", "ImageNode"]
    assert isinstance(again[1], ImageNode)
    assert (again[1].image, again[1].metadata) == (nodes[1].image, {})
    target.add([node.model_copy(update={"id_": f"{node.node_id} again"}) for node in again])
    assert are_pages(other, 4)


def test_pictures_of_langchain_are_pictures_in_llama_index(store: MultiVectorStore) -> None:
    figure = LangChainDocument("a figure", metadata={"image_base64": encode_base64(draw("Prices of bananas"))})
    in_langchain.ColPaliVectorStore(store=store).add_documents([figure], ids=["figure"])
    in_llama_index.ColPaliVectorStore(store).add([Document.from_langchain_format(figure)])
    assert are_pages(store, 2)
    for node in in_llama_index.ColPaliVectorStore(store).get_nodes():
        assert isinstance(node, PageNode)
        assert (node.image, node.text, node.metadata) == (figure.metadata["image_base64"], "a figure", {})


def test_a_chunk_of_a_page_is_a_text(pdf: Path, store: MultiVectorStore) -> None:
    [node, _] = in_llama_index.PdfPageReader(dpi=DPI).load_data(pdf)
    chunk = TextNode(text=f"{node.text} of 2024", metadata=node.metadata)
    in_llama_index.ColPaliVectorStore(store).add([chunk])
    assert [entry.is_page for entry in store.scroll()] == [False]
    assert chunk.get_content(MetadataMode.NONE) == in_llama_index.ColPaliVectorStore(store).get_nodes()[0].text  # type: ignore[attr-defined]


def test_a_page_with_a_url_as_source_is_drawn_from_its_file(pdf: Path, tmp_path: Path, store: MultiVectorStore) -> None:
    draw("Harvest of apples").save(tmp_path / "apples.png")
    url, target = "https://example.org/", in_llama_index.ColPaliVectorStore(store)
    for path, name in ((pdf, "fruit.pdf"), (tmp_path / "apples.png", "apples.png")):
        [node, *_] = in_llama_index.PdfPageReader(dpi=DPI).load_data(path, name=url + name, pages=[1])
        blob = Blob.from_path(path, metadata={"source": url + name})
        [page, *_] = in_langchain.PageImageBlobParser(dpi=DPI, pages=[1]).parse(blob)
        assert node.metadata["source"] == page.metadata["source"] == url + name
        added = target.add([node, Document.from_langchain_format(page)])
        for block in in_llama_index.image_blocks(target.get_nodes(added)):
            assert block.image is not None
            assert block.url is None
    assert are_pages(store, 4)


def test_a_picture_that_changed_is_shown_in_no_framework(tmp_path: Path, store: MultiVectorStore) -> None:
    path = tmp_path / "apples.png"
    draw("Harvest of apples").save(path)
    vector_store = in_llama_index.ColPaliVectorStore(store)
    vector_store.add([ImageNode(id_="a", image_path=str(path)), ImageNode(id_="b", image_url=path.as_uri())])
    nodes = vector_store.get_nodes(["a", "b"])
    pages = in_langchain.ColPaliVectorStore(store=store).get_by_ids(["a", "b"])
    assert len(in_llama_index.image_blocks(nodes)) == len(in_langchain.image_blocks(pages)) == 2
    path.write_bytes(encode_png(draw("Prices of bananas")))
    shown: list[Any] = [
        *(lambda node=node: in_llama_index.image_blocks([node]) for node in nodes),
        *(lambda page=page: in_langchain.image_blocks([page]) for page in pages),
    ]
    for show in shown:
        with pytest.raises(InputError, match="has changed since it was indexed"):
            show()
    for report in (store.search("apples").to_html(), in_llama_index.to_html(nodes), in_langchain.to_html(pages)):
        assert report.count("has changed since it was indexed") == 2
        assert "<figure" not in report
