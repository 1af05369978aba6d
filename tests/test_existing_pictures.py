"""Pictures in the payloads of other programs' collections, at every door that shows pages."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from qdrant_client import QdrantClient, models

from colpali_integrations import ColPali
from colpali_integrations.agents.tools import PageTools
from colpali_integrations.errors import ImageError, InputError, StoreError
from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliVectorStore
from colpali_integrations.langchain import PageSearchTool as LangChainTool
from colpali_integrations.langchain.utils import image_blocks
from colpali_integrations.langchain.utils import to_html as langchain_html
from colpali_integrations.llama_index import ColPaliEmbedding, ColPaliRetriever
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaIndexStore
from colpali_integrations.llama_index import PageSearchTool as LlamaIndexTool
from colpali_integrations.llama_index.utils import to_html as llama_index_html
from colpali_integrations.pages import page_image
from colpali_integrations.pages.access import PageAccess
from colpali_integrations.stores import Entry, Layout, MultiVectorStore, copy_store
from colpali_integrations.stores.current import CurrentStore
from tests.cli.test_serve import serving, url_in
from tests.stores.qdrant.stand_in import StandIn, stand_in

QUESTION = "the tide in the harbour"
LAYOUT = Layout(source="document", page="page", image="image")
SHOWN = {1: (41, 30), 2: (42, 30), 3: (43, 30), 4: (44, 30)}  # sizes by page
REASONS = {
    5: "is at https://example.org/5.png, and addresses in a store are not fetched",
    6: "base64",
    7: "is in none of the folders of roots=",
    8: "no file at 'pages/8.png'",
}


def encoded(size: tuple[int, int], kind: str = "PNG") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 90)).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def pictures(folder: Path) -> dict[int, Any]:
    """The value of `image` by page."""
    Image.new("RGB", SHOWN[3]).save(folder / "pages" / "3.png")
    Image.new("RGB", SHOWN[4]).save(folder / "pages" / "4.png")
    Image.new("RGB", (9, 9)).save(folder.parent / "secret.png")
    return {
        1: encoded(SHOWN[1]),
        2: f"data:image/jpeg;base64,{encoded(SHOWN[2], 'JPEG')}",
        3: "pages/3.png",
        4: str(folder / "pages" / "4.png"),
        5: "https://example.org/5.png",
        6: encoded((60, 60))[:100] + "!" * 30,
        7: "../secret.png",
        8: "pages/8.png",
        9: {"url": "https://example.org/9.png"},
        10: None,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("above") / "data"
    (made / "pages").mkdir(parents=True)
    return made


@pytest.fixture(scope="module")
def server(folder: Path, coltiny: ColPali) -> Iterator[StandIn]:
    with stand_in() as running:
        client = QdrantClient(url=running.url, check_compatibility=False)
        multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        params = models.VectorParams(size=coltiny.dim, distance=models.Distance.DOT, multivector_config=multi)
        client.create_collection("docs", params)
        values = pictures(folder)
        vectors = coltiny.embed_texts([f"{QUESTION} on page {number}" for number in values])
        client.upsert(
            "docs",
            [
                models.PointStruct(
                    id=number,
                    vector=one.tolist(),
                    payload={"document": "a.pdf", "page": number, "image": value, "tag": "x"},
                )
                for (number, value), one in zip(values.items(), vectors, strict=True)
            ],
        )
        client.close()
        yield running


@pytest.fixture
def place(server: StandIn) -> dict[str, Any]:
    return {"url": server.url, "collection_name": "docs", "layout": LAYOUT}


def check_notes(notes: str) -> None:
    for reason in REASONS.values():
        assert reason in notes


def test_entries_have_their_picture_where_all_adapters_look_for_it(
    place: dict[str, Any], coltiny: ColPali, folder: Path
) -> None:
    with MultiVectorStore.open(**place, model=coltiny) as store:
        entries = {one.page: one for one in store.scroll()}
        for number, size in SHOWN.items():
            assert page_image(entries[number].metadata, roots=[folder]).size == size
            assert entries[number].has_picture
            assert not entries[number].is_page
        assert (entries[1].metadata["image_mime_type"], entries[2].metadata["image_mime_type"]) == (
            "image/png",
            "image/jpeg",
        )
        assert "image" not in entries[1].metadata
        assert entries[3].metadata["image"] == "pages/3.png"
        for number, reason in REASONS.items():
            with pytest.raises(InputError, match=reason.partition("=")[0]):
                page_image(entries[number].metadata, roots=[folder])
        with pytest.raises(ImageError, match="malformed base64"):
            page_image(entries[6].metadata)
        for number in (3, 4):  # without roots no file is opened, wherever it is
            with pytest.raises(InputError, match=r"of which no content_hash is known; pass roots=\[folder\]"):
                page_image(entries[number].metadata)
        for number in (9, 10):
            assert not entries[number].has_picture
        assert {one.page for one in store.scroll({"image": {"$exists": True}})} == set(range(1, 10))
        assert [one.page for one in store.scroll({"image": "pages/3.png"})] == [3]


def test_a_report_shows_them(place: dict[str, Any], coltiny: ColPali, folder: Path) -> None:
    with MultiVectorStore.open(**place, model=coltiny) as store:
        report = store.search(QUESTION, 10).to_html(roots=[folder])
        assert report.count("<img") == len(SHOWN)
        assert len(report.missing) == len(REASONS)
        check_notes(" ".join(report.missing))


def test_langchain_shows_them(place: dict[str, Any], folder: Path) -> None:
    store = ColPaliVectorStore(ColPaliEmbeddings(), **place)
    found = store.similarity_search(QUESTION, k=10)
    report = langchain_html(found, QUESTION, roots=[folder])
    assert (report.count("<img"), len(report.missing)) == (len(SHOWN), len(REASONS))
    check_notes(" ".join(report.missing))
    tool = LangChainTool(store, k=10, roots=[folder])
    message = tool.invoke({"type": "tool_call", "id": "1", "name": tool.name, "args": {"question": QUESTION}})
    kinds = [block["type"] for block in message.content]
    assert kinds.count("image") == len(SHOWN)
    check_notes(" ".join(block.get("text", "") for block in message.content))
    [first] = [one for one in found if one.metadata["page"] == 3]
    assert "image" in [block["type"] for block in image_blocks([first], roots=[folder])]
    store.close()


def test_llama_index_shows_them(place: dict[str, Any], folder: Path) -> None:
    store = LlamaIndexStore(embed_model=ColPaliEmbedding(), **place)
    nodes = ColPaliRetriever(store, similarity_top_k=10).retrieve(QUESTION)
    assert len(nodes) == 10
    report = llama_index_html(nodes, QUESTION, roots=[folder])
    assert (report.count("<img"), len(report.missing)) == (len(SHOWN), len(REASONS))
    check_notes(" ".join(report.missing))
    output = LlamaIndexTool(store, similarity_top_k=10, roots=[folder])(QUESTION)
    assert [block.block_type for block in output.blocks].count("image") == len(SHOWN)
    check_notes(" ".join(getattr(block, "text", "") for block in output.blocks))
    store.close()


def test_tools_of_agents_show_them(place: dict[str, Any], coltiny: ColPali, folder: Path) -> None:
    with MultiVectorStore.open(**place, model=coltiny) as store:
        tools = PageTools(CurrentStore(store), access=lambda: PageAccess.of(roots=[folder]))
        for name, arguments in (
            ("search_pages", {"question": QUESTION, "k": 10}),
            ("read_page", {"document": "a.pdf", "page": 1, "last_page": 10}),
        ):
            answer = tools.shown(tools.call(name, arguments))
            assert sum(part.picture is not None for part in answer.parts) == len(SHOWN)
            texts = " ".join(part.text for part in answer.parts)
            assert "its picture is at an address, which is not fetched" in texts
            assert "its file is in none of the folders whose pages are shown" in texts
            assert "malformed base64" in texts


def test_a_server_shows_them(place: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "docs.json"
    values = {**place, "layout": LAYOUT.to_dict(), "model": "coltiny"}
    file.write_text(json.dumps(values))
    options: dict[str, Any] = {"trust_env": False, "timeout": 60}
    with serving(file, "--root", str(folder)) as (_, lines):
        url = url_in(lines)
        hits = httpx.post(f"{url}/v1/search", json={"query": QUESTION, "k": 10, "pictures": True}, **options).json()
        errors = {one["page"]: one["picture_error"] for one in hits["hits"]}
        assert not any("image_base64" in one["metadata"] for one in hits["hits"])
        for number, size in SHOWN.items():
            assert errors[number] is None
            answer = httpx.get(f"{url}/v1/pages/{number}/image", **options)
            assert Image.open(io.BytesIO(answer.content)).size == size
            tag = answer.headers.get("etag")
            assert (tag is None) == (number in (3, 4))  # a file may change
            if tag is not None:
                again = httpx.get(f"{url}/v1/pages/{number}/image", headers={"if-none-match": tag}, **options)
                assert again.status_code == 304
        tags = {httpx.get(f"{url}/v1/pages/{number}/image", **options).headers["etag"] for number in (1, 2)}
        assert len(tags) == 2
        for number, status in ((5, 403), (6, 410), (7, 403), (8, 410), (9, 404), (10, 404)):
            answer = httpx.get(f"{url}/v1/pages/{number}/image", **options)
            assert answer.status_code == status, (number, answer.text)
        assert "not fetched" in errors[5]
        assert "in none of the server's folders" in errors[7]
        heatmap = httpx.get(f"{url}/v1/pages/1/image", params={"heatmap": QUESTION}, **options)
        assert (heatmap.status_code, heatmap.json()["error"]["code"]) == (404, "no_heatmap")
        with MultiVectorStore.open(url) as remote:
            [entry] = [one for one in remote.scroll({"page": 2}) if one.has_picture]
            assert page_image(entry.metadata).size == SHOWN[2]


def test_changes_leave_pictures_as_they_are(place: dict[str, Any], server: StandIn, coltiny: ColPali) -> None:
    before = {record.id: (record.payload or {})["image"] for record in server.client.scroll("docs", limit=99)[0]}
    with MultiVectorStore.open(**place, model=coltiny, writable=True) as store:
        assert store.update_metadata("a.pdf", {"year": 2024}) == len(before)
        after = {record.id: record.payload or {} for record in server.client.scroll("docs", limit=99)[0]}
        assert {id_: payload["image"] for id_, payload in after.items()} == before
        for payload in after.values():
            assert {*payload} == {"document", "page", "image", "tag", "year", "colpali_integrations"}
        with pytest.raises(InputError, match="image describes the page"):
            store.update_metadata("a.pdf", {"image": "another"})
        vectors = coltiny.embed_query("another page")
        metadata = {"source": "b.pdf", "page": 1, "image_base64": encoded((50, 50)), "image_mime_type": "image/png"}
        store.add([(Entry(id="1000", metadata=metadata), vectors)])
        [record] = server.client.retrieve("docs", [1000])
        assert (record.payload or {})["image"] == encoded((50, 50))  # as the first page has it
        [entry] = store.get(["1000"])
        assert entry is not None
        assert page_image(entry.metadata).size == (50, 50)
        store.delete(["1000"])
        store.update_metadata("a.pdf", {"year": None})


def test_a_copy_shows_them_too(place: dict[str, Any], coltiny: ColPali, folder: Path, tmp_path: Path) -> None:
    with (
        MultiVectorStore.open(**place, model=coltiny) as store,
        MultiVectorStore.open(tmp_path / "index", model=coltiny) as target,
    ):
        assert copy_store(store, target).copied == 10
        report = target.search(QUESTION, 10, hybrid=False).to_html(roots=[folder])
    assert report.count("<img") == len(SHOWN)


def test_the_error_without_a_layout_names_the_key(place: dict[str, Any], coltiny: ColPali) -> None:
    with pytest.raises(StoreError) as raised:
        MultiVectorStore.open(**{**place, "layout": None}, model=coltiny)
    assert f"layout={LAYOUT!r}" in str(raised.value)
