"""Identity of pages and nodes: nothing takes another document's place, picture or vectors."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from colpali_integrations import ColPali
from colpali_integrations.errors import InputError
from colpali_integrations.llama_index import (
    ColPaliRerank,
    ColPaliRetriever,
    ColPaliVectorStore,
    PageImagePostprocessor,
    PdfPageReader,
    image_blocks,
    to_html,
)
from colpali_integrations.llama_index._references import PageReference
from colpali_integrations.stores import index_documents
from tests.llama_index.suite import CountingModel, counting_store
from tests.stores.documents import DPI, draw, save_pdf


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return save_pdf(tmp_path / "report.pdf", draw("Harvest of apples"), draw("Prices of bananas"))


@pytest.fixture
def store() -> ColPaliVectorStore:
    return ColPaliVectorStore()


def read(path: Path | str, **metadata: str) -> list[ImageNode]:
    return PdfPageReader(dpi=DPI).load_data(path, metadata=metadata)


def only(key: str, value: str) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value)])


# -- documents ------------------------------------------------------------------------------------------------------


def test_all_paths_of_a_file_are_one_document(report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.pdf").symlink_to(report)
    paths = [str(report), "report.pdf", "~/report.pdf", "link.pdf", "./report.pdf"]
    ids = {tuple(node.node_id for node in read(path)) for path in paths}
    assert len(ids) == 1


def test_the_same_file_in_two_folders_is_two_documents(report: Path, tmp_path: Path, store: ColPaliVectorStore) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(report, tmp_path / "other")
    nodes = PdfPageReader(dpi=DPI).load_data(tmp_path)
    assert len({node.node_id for node in nodes}) == 4
    store.add(nodes)
    assert len(store.get_nodes()) == 4
    copy = str(tmp_path.resolve() / "other" / "report.pdf")
    for key, value, count in (("file_name", "report.pdf", 4), ("file_path", copy, 2), ("source", copy, 2)):
        assert len(store.get_nodes(filters=only(key, value))) == count
    stored = list(store.client.scroll())
    assert len({entry.content_hash for entry in stored}) == 2, "equal pages are copied"


def test_two_owners_of_a_file_keep_their_pages(report: Path, store: ColPaliVectorStore) -> None:
    for tenant in ("north", "south"):
        store.add(read(report, tenant=tenant))
    assert [len(store.get_nodes(filters=only("tenant", tenant))) for tenant in ("north", "south")] == [2, 2]
    store.delete_nodes(filters=only("tenant", "south"))
    assert len(store.get_nodes(filters=only("tenant", "north"))) == 2
    by_field = PdfPageReader(dpi=DPI, metadata={"tenant": "north"}).load_data(report)
    assert [node.node_id for node in by_field] == [
        node.node_id for node in store.get_nodes([n.node_id for n in by_field])
    ]


def test_metadata_of_readers_are_not_part_of_the_identity(report: Path) -> None:
    plain = read(report)
    described = PdfPageReader(dpi=DPI).load_data(report, {"file_size": 7, "last_modified_date": "today", "note": "x"})
    assert [node.node_id for node in described] == [node.node_id for node in plain]
    assert described[0].metadata["note"] == "x"


def test_pages_of_the_command_line_lend_their_vectors(
    report: Path, store: ColPaliVectorStore, coltiny: ColPali
) -> None:
    index_documents(report, model=coltiny, store=store.client, dpi=DPI)
    nodes = read(report)
    store.add(nodes)
    by_id = {entry.id: entry for entry in store.client.scroll()}
    assert len(by_id) == 4
    assert {by_id[node.node_id].content_hash for node in nodes} == {entry.content_hash for entry in by_id.values()}
    again = index_documents(report, model=coltiny, store=store.client, dpi=DPI)
    assert (again.present, again.removed, len(store.client)) == (2, 0, 4), "nodes are other documents"


def test_tags_change_without_the_nodes(report: Path, store: ColPaliVectorStore) -> None:
    [first, _] = nodes = read(report)
    store.add(nodes)
    assert store.client.update_metadata(first.ref_doc_id or "", {"year": 2024}) == 1
    [found] = store.get_nodes([first.node_id])
    assert found.metadata["year"] == 2024


# -- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pdf", ".png"])
def test_a_changed_file_is_not_shown(tmp_path: Path, store: ColPaliVectorStore, suffix: str) -> None:
    path = tmp_path / f"page{suffix}"
    draw("Prices of bananas").save(path)
    store.add(read(path))
    [found] = ColPaliRetriever(store, similarity_top_k=1).retrieve("bananas")
    assert isinstance(found.node, ImageNode)
    assert image_blocks([found])
    draw("The railway timetable").save(path)
    shown: list[Callable[[], object]] = [
        lambda: image_blocks([found]),
        lambda: found.node.get_content_blocks(MetadataMode.LLM),
        lambda: PageImagePostprocessor().postprocess_nodes([found]),
        lambda: image_blocks([TextNode(text="bananas", metadata=found.node.metadata)]),
        lambda: ColPaliRerank().postprocess_nodes([found], query_str="bananas"),
        lambda: ColPaliVectorStore().add([found.node]),
    ]
    for show in shown:
        with pytest.raises(InputError, match="has changed since it was indexed"):
            show()
    report = to_html([found], "bananas")
    assert "has changed since it was indexed" in report
    assert "<figure" not in report
    [best] = ColPaliRerank(store).postprocess_nodes([found], query_str="bananas")
    assert best.score == pytest.approx(found.score), "stored vectors are of the page that was indexed"
    store.add(read(path))
    [found] = ColPaliRetriever(store).retrieve("railway")
    assert image_blocks([found])
    assert len(store.get_nodes()) == 1


def test_a_reference_carries_its_hash(report: Path) -> None:
    [node, _] = read(report)
    reference = PageReference.parse(node.image_path or "")
    assert reference is not None
    assert reference.draw().size == (700, 300)
    save_pdf(report, draw("The railway timetable"))
    with pytest.raises(InputError, match="has changed"):
        reference.draw()
    report.unlink()
    with pytest.raises(InputError, match="no file at"):
        reference.draw()


# -- vectors --------------------------------------------------------------------------------------------------------


def test_a_reranker_uses_no_vectors_of_other_content(store: ColPaliVectorStore) -> None:
    store.add([TextNode(id_="a", text="low tide in the harbour"), TextNode(id_="b", text="tax return")])
    found = [
        NodeWithScore(node=TextNode(id_="a", text="tax return forms")),
        NodeWithScore(node=TextNode(id_="b", text="low tide at six in the harbour")),
    ]
    [best, _] = ColPaliRerank(store, top_n=2).postprocess_nodes(found, query_str="low tide harbour")
    assert best.node.node_id == "b"


def test_pictures_behind_urls_are_always_encoded(tmp_path: Path, store: ColPaliVectorStore) -> None:
    path = tmp_path / "page.png"
    for words in ("Harvest of apples", "Prices of bananas"):
        draw(words).save(path)
        store.add([ImageNode(id_="a", image_url=path.as_uri(), text="a page")])
        [found] = ColPaliRetriever(store).retrieve(words.rsplit(" ", 1)[1])
        assert (found.score or 0) > 0.1


# -- interruptions --------------------------------------------------------------------------------------------------


async def test_a_cancelled_task_stops_after_the_page_at_hand(tmp_path: Path, encoded: CountingModel) -> None:
    path = save_pdf(tmp_path / "long.pdf", *(draw(f"page {number}") for number in range(40)))
    store, nodes = counting_store(), read(path)
    task = asyncio.create_task(store.async_add(nodes))
    while not encoded.pages:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(6000):
        if len(store.client):  # the thread stores its pages when it ends
            break
        await asyncio.sleep(0.01)
    assert 0 < len(store.client) < 40
