"""A store from elsewhere names files of this machine: none is shown that its maker did not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import Document as LlamaIndexDocument
from llama_index.core.schema import ImageNode, MediaResource, MetadataMode, Node, NodeWithScore, TextNode
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.cli.app import run
from colpali_integrations.errors import InputError, StoreError
from colpali_integrations.explain import PageGrid
from colpali_integrations.langchain import ColPaliReranker, ColPaliVectorStore, PdfPageLoader
from colpali_integrations.langchain import image_blocks as langchain_blocks
from colpali_integrations.langchain import to_html as langchain_html
from colpali_integrations.llama_index import (
    ColPaliRerank,
    PageImagePostprocessor,
    PdfPageReader,
    image_blocks,
    page_message,
    to_html,
)
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaIndexStore
from colpali_integrations.pages import page_image
from colpali_integrations.pages.identity import file_digest, page_hash
from colpali_integrations.stores import Entry, MultiVectorStore

RED = (200, 30, 30)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A picture of the user, which no store was made of."""
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "private.png"
    Image.new("RGB", (64, 64), RED).save(path)
    return path


def foreign(folder: Path, model: ColPali, metadata: dict[str, Any], **fields: Any) -> MultiVectorStore:
    """A store whose one entry has hand-made metadata."""
    store = MultiVectorStore.open(folder, model=model)
    vectors = np.repeat(model.embed_query("tide")[:1], 4, axis=0)  # so that reports show it
    grid = PageGrid(rows=2, columns=2, cells=np.arange(4)) if "grid" not in fields else fields.pop("grid")
    store.add([(Entry(id="a", text="low tide", metadata=metadata, grid=grid, **fields), vectors)])
    return store


def claims(private: Path) -> list[dict[str, Any]]:
    link = private.parent.parent / "link.png"
    if not link.exists():
        link.symlink_to(private)
    return [
        {"source": str(private), "page": 1},
        {"source": str(link), "page": 1},
        {"source": "x", "file_path": str(private), "page": 1},
        {"source": str(private), "page": 1, "content_hash": ""},
        {"source": str(private), "page": 1, "content_hash": "x"},
        {"source": str(private), "page": 1, "content_hash": "0" * 16},
        {"source": str(private), "page": 1, "content_hash": "0" * 64},
        {"source": str(private), "page": 1, "content_hash": page_hash(file_digest(private), 2)},
        {"source": "home/../home/private.png", "page": 1},
    ]


def test_reports_and_messages_show_no_unknown_file(
    private: Path, tmp_path: Path, coltiny: ColPali, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, metadata in enumerate(claims(private)):
        with foreign(tmp_path / f"store {number}", coltiny, metadata) as store:
            for report in (store.search("tide").to_html(), store.search("tide")._repr_html_()):
                assert "<img" not in report
                assert "is not shown" in report
            vectorstore = ColPaliVectorStore(store=store)
            documents = vectorstore.similarity_search("tide")
            with pytest.raises(InputError, match="is not shown"):
                langchain_blocks(documents)
            assert "<img" not in langchain_html(documents)
            assert "<article" in langchain_html(documents)
            nodes = LlamaIndexStore(store).get_nodes()
            for present in (image_blocks, lambda nodes: page_message("tide", nodes)):
                with pytest.raises(InputError, match="is not shown"):
                    present(nodes)
            assert "<img" not in to_html(nodes)
        assert run(["search", "tide", "--store", f"store {number}", "--html", "report.html"]) == 0
        report = Path("report.html").read_text(encoding="utf-8")
        assert "<img" not in report
        assert "is not shown" in report


def test_a_known_file_is_shown_wherever_it_is(private: Path, tmp_path: Path, coltiny: ColPali) -> None:
    known = {"source": str(private), "page": 1, "content_hash": page_hash(file_digest(private), 1)}
    with foreign(tmp_path / "store", coltiny, known) as store:
        assert "<img" in store.search("tide").to_html()
        assert "<img" not in store.search("tide").to_html(roots=[tmp_path / "store"])
        assert "<img" in store.search("tide").to_html(roots=private.parent)
        documents = ColPaliVectorStore(store=store).similarity_search("tide")
        assert len(langchain_blocks(documents, roots=[private.parent])) == 1
        with pytest.raises(InputError, match="is in none of the folders of roots="):
            langchain_blocks(documents, roots=[tmp_path / "store"])
        nodes = LlamaIndexStore(store).get_nodes()
        assert len(image_blocks(nodes, roots=[private.parent])) == 1
        for present in (image_blocks, lambda nodes, **options: page_message("tide", nodes, **options)):
            with pytest.raises(InputError, match="is in none of the folders of roots="):
                present(nodes, roots=[tmp_path / "store"])
        assert "<img" not in to_html(nodes, roots=[tmp_path / "store"])


def test_roots_hold_against_links_and_dots(private: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    Image.new("RGB", (64, 64), "white").save(inside / "page.png")
    (inside / "link.png").symlink_to(private)
    (tmp_path / "alias").symlink_to(inside)
    for name in ("inside/page.png", "alias/page.png", "inside/../inside/page.png"):
        assert page_image({"source": str(tmp_path / name), "page": 1}, roots=[inside]).size == (64, 64)
        assert page_image({"source": str(tmp_path / name), "page": 1}, roots=tmp_path / "alias").size == (64, 64)
    for name in ("inside/link.png", "inside/../home/private.png", "inside\0", "insider/page.png"):
        with pytest.raises(InputError, match=r"in none of the folders|no file at"):
            page_image({"source": str(tmp_path / name), "page": 1}, roots=[inside])


@pytest.mark.parametrize("source", ["x" * 5000, "~nobody-of-this-name/a.png", "a\0b", "/dev/zero", "/", ""])
def test_sources_that_are_no_paths_are_errors(source: str) -> None:
    for options in ({}, {"roots": ["/"]}):
        with pytest.raises(InputError):
            page_image({"source": source, "page": 1, "content_hash": "0" * 64}, **options)  # type: ignore[arg-type]


def stored_nodes(private: Path) -> list[Any]:
    path = str(private)
    return [
        ImageNode(id_="a", image_path=path, text="tide"),
        ImageNode(id_="a", image_url=private.as_uri(), text="tide"),
        ImageNode(id_="a", image_path=f"{path}#page=1", text="tide"),
        Node(id_="a", image_resource=MediaResource(path=private), text_resource=MediaResource(text="tide")),
        Node(id_="a", audio_resource=MediaResource(path=private), text_resource=MediaResource(text="tide")),
        LlamaIndexDocument(id_="a", image_resource=MediaResource(path=private), text="tide"),
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_stored_node_names_no_unknown_file(number: int, private: Path, tmp_path: Path, coltiny: ColPali) -> None:
    node = stored_nodes(private)[number]
    extra = {"llama_index": {"type": node.class_name(), "node": json.dumps(node.to_dict(mode="json")), "media": {}}}
    store = foreign(tmp_path / "store", coltiny, {"page": 1, "content_hash": "0" * 64}, extra=extra)
    with store, pytest.raises(StoreError, match="names a file without the content hash"):
        LlamaIndexStore(store).get_nodes()


def test_a_text_with_the_metadata_of_a_page_shows_no_file(private: Path) -> None:
    node = TextNode(text="tide", metadata={"source": str(private), "page": 1})
    with pytest.raises(InputError, match="have no content_hash"):
        image_blocks([node])
    assert len(image_blocks([node], roots=[private.parent])) == 1


@pytest.mark.parametrize("metadata", [{}, {"page": 3, "source": "deck.pdf"}, {"content_hash": "own", "file_path": "x"}])
def test_own_nodes_come_back_and_are_shown(private: Path, metadata: dict[str, Any]) -> None:
    """Also where the caller's own metadata have the names of a page's."""
    for number in (0, 1, 2, 3, 5):
        node = stored_nodes(private)[number]
        node.metadata = dict(metadata)
        store = LlamaIndexStore()
        store.add([node])
        [again] = store.get_nodes()
        assert again.metadata.items() >= metadata.items()
        assert again.get_content(MetadataMode.EMBED) == node.get_content(MetadataMode.EMBED)
        assert len(image_blocks([again])) == 1
        Image.new("RGB", (64, 64), "white").save(private)
        with pytest.raises(InputError, match="has changed"):
            image_blocks([again])
        Image.new("RGB", (64, 64), RED).save(private)


def test_rerankers_pictures_and_stores_keep_to_the_folders(private: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    given = [
        NodeWithScore(node=ImageNode(image_path=str(private), text="tide")),
        NodeWithScore(node=PdfPageReader().load_data(private)[0]),
    ]
    documents = PdfPageLoader(private).load()
    doors: list[Callable[[Any], int]] = [
        lambda roots: len(ColPaliRerank(roots=roots).postprocess_nodes(given[:1], query_str="tide")),
        lambda roots: len(ColPaliRerank(roots=roots).postprocess_nodes(given[1:], query_str="tide")),
        lambda roots: len(LlamaIndexStore().add([given[0].node], roots=roots)),
        lambda roots: len(LlamaIndexStore().add([given[1].node], roots=roots)),
        lambda roots: len(PageImagePostprocessor(roots=roots).postprocess_nodes(given[:1])),
        lambda roots: len(PageImagePostprocessor(roots=roots).postprocess_nodes(given[1:])),
        lambda roots: len(ColPaliReranker(roots=roots).compress_documents(documents, "tide")),
        lambda roots: len(ColPaliVectorStore().add_documents(documents, roots=roots)),
    ]
    for door in doors:
        assert door(private.parent) == 1
        with pytest.raises(InputError, match=r"is in none of the folders of roots="):
            door([other])
    folder: Any = other  # a path, or one folder, becomes a list of strings
    assert PageImagePostprocessor(roots=folder).to_dict()["roots"] == [str(other)]
    kinds: tuple[Any, ...] = (ColPaliRerank, PageImagePostprocessor, ColPaliReranker)
    for kind in kinds:
        with pytest.raises(ValueError, match="roots must be folders"):
            kind(roots=5)


def test_the_command_line_keeps_to_the_folders(private: Path, tmp_path: Path, coltiny: ColPali) -> None:
    known = {"source": str(private), "page": 1, "content_hash": page_hash(file_digest(private), 1)}
    with foreign(tmp_path / "store", coltiny, known) as opened:
        opened.add([(Entry(id="b", text="zeppelin"), coltiny.embed_query("zeppelin"))])
    # It finds the other entry, so that the report shows this one as missing.
    question = {"question": "zeppelin", "answers": [{"id": "a"}]}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question), encoding="utf-8")
    report = tmp_path / "report.html"
    store = ["--store", str(tmp_path / "store"), "--html", str(report)]
    for command in (["search", "tide"], ["evaluate", str(tmp_path / "questions.jsonl"), "-k", "1"]):
        assert run([*command, *store, "--root", str(private.parent)]) == 0
        assert "<img" in report.read_text(encoding="utf-8")
        assert run([*command, *store, "--root", str(tmp_path / "store")]) == 0
        assert "<img" not in report.read_text(encoding="utf-8")
        assert "is in none of the folders of --root" in report.read_text(encoding="utf-8")
