"""`ColPaliVectorStore` in the suite, over every engine, and its own features."""

from __future__ import annotations

import base64
import copy
import io
import json
import pickle
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest
from llama_index.core import StorageContext
from llama_index.core.schema import BaseNode, ImageDocument, ImageNode, MediaResource, MetadataMode, Node, TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from PIL import Image
from pydantic import ValidationError
from qdrant_client import QdrantClient

from colpali_integrations import ColPali
from colpali_integrations.errors import (
    ConfigurationError,
    FingerprintError,
    InputError,
    QueryError,
    StoreError,
)
from colpali_integrations.llama_index import (
    ColPaliEmbedding,
    ColPaliIndex,
    ColPaliRerank,
    ColPaliVectorStore,
    PdfPageReader,
    image_blocks,
)
from colpali_integrations.llama_index._persistence import copied_records
from colpali_integrations.stores import Entry, MultiVectorStore, Progress
from tests.llama_index.suite import CountingModel, VectorStoreConformance, counting_store, sample
from tests.stores.documents import DPI, draw, make_store
from tests.stores.qdrant.real import client_options, server_url
from tests.stores.stored_models import made_up


class TestInMemory(VectorStoreConformance):
    @pytest.fixture
    def vector_store(self) -> Iterator[ColPaliVectorStore]:
        yield ColPaliVectorStore()


class TestEmbedded(VectorStoreConformance):
    @pytest.fixture
    def vector_store(self, tmp_path: Path) -> Iterator[ColPaliVectorStore]:
        store = ColPaliVectorStore(path=tmp_path / "store")
        yield store
        store.close()


class TestOnAServer(VectorStoreConformance):
    """qdrant-client's own imitation, in this process, unless QDRANT_URL names a real server."""

    @pytest.fixture
    def vector_store(self) -> Iterator[ColPaliVectorStore]:
        url, collection = server_url(), f"test-{uuid.uuid4().hex}"
        client = QdrantClient(url=url, **client_options()) if url else QdrantClient(":memory:")
        yield ColPaliVectorStore(
            store=MultiVectorStore.open(client=client, collection_name=collection, model="coltiny")
        )
        client.delete_collection(collection)
        client.close()


# -- pages ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def commanded(root: Path, coltiny: ColPali) -> Iterator[MultiVectorStore]:
    """As the command line makes it: two pages of fruit.pdf and an image."""
    with make_store(root, coltiny) as made:
        yield made


@pytest.fixture
def own(commanded: MultiVectorStore) -> ColPaliVectorStore:
    """A copy of it in memory."""
    made = counting_store()
    made.client.add(copied_records(commanded))
    return made


def ask(store: ColPaliVectorStore, question: str, k: int = 1, **options: Any) -> list[BaseNode]:
    return list(store.query(VectorStoreQuery(query_str=question, similarity_top_k=k), **options).nodes or [])


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def test_pages_of_every_kind_are_encoded_and_come_back(
    root: Path, commanded: MultiVectorStore, encoded: CountingModel
) -> None:
    picture, pdf = root / "documents" / "deep" / "er" / "train.PNG", root / "documents" / "fruit.pdf"
    data = picture.read_bytes()
    nodes: list[BaseNode] = [
        PdfPageReader(dpi=DPI).load_data(pdf)[1],
        ImageNode(id_="path", image_path=str(picture)),
        ImageNode(id_="base64", image=base64_of(picture), image_mimetype="image/png", text="a scan"),
        Node(id_="resource", image_resource=MediaResource(data=data)),
        ImageDocument(id_="document", image_path=str(picture), text="a document"),
        ImageNode(id_="reference", image_path=f"{pdf}#page=1&dpi={DPI}"),
    ]
    before = [node.to_json() for node in nodes]
    store = counting_store()
    store.add(nodes)
    assert encoded.pages == 3, "the picture is one, by its file and by its bytes"
    assert encoded.texts == 0
    assert [node.to_json() for node in nodes] == before
    found = store.get_nodes([node.node_id for node in nodes])
    for node, original in zip(found, nodes, strict=True):
        # A picture in a file is found with the metadata of its page, which models do not read.
        added = node.metadata.keys() - original.metadata.keys()
        in_file = original.node_id in ("path", "document", "reference")
        more = {"dpi"} if original.node_id == "reference" else set()
        assert added == ({"source", "file_path", "page", "content_hash", "text_hash"} | more if in_file else set())
        assert node.get_content(MetadataMode.EMBED) == original.get_content(MetadataMode.EMBED)
        assert "content_hash" not in node.get_metadata_str(MetadataMode.LLM)
        hidden = ("metadata", "excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
        assert node.model_dump(exclude={*hidden}) == original.model_dump(exclude={*hidden})
        assert (node == original) is not in_file
    assert ask(store, "bananas")[0] == nodes[0]
    assert {node.node_id for node in ask(store, "railway timetable", 4)} == {"path", "base64", "resource", "document"}
    assert image_blocks([found[3]])[0].resolve_image().read() == data


def test_nothing_is_encoded_twice(root: Path, own: ColPaliVectorStore, encoded: CountingModel) -> None:
    pages = PdfPageReader(dpi=DPI).load_data(root / "documents" / "fruit.pdf")
    own.add(pages)
    assert encoded.pages == 0, "the command line had encoded these pages"
    pages[0].metadata["reviewed"] = "yes"
    own.add(pages)
    assert encoded.pages == 0
    reviewed = MetadataFilters(filters=[MetadataFilter(key="reviewed", value="yes")])
    assert own.get_nodes(filters=reviewed) == pages[:1]
    own.add([page.model_copy(update={"id_": f"again {page.metadata['page']}"}) for page in pages])
    assert encoded.pages == 0
    assert len(own.get_nodes()) == 7
    finer = PdfPageReader(dpi=DPI + 20).load_data(root / "documents" / "fruit.pdf")
    own.add(finer[:1])
    assert encoded.pages == 1, "at another resolution it is another picture"


def test_a_picture_that_changed_is_encoded(root: Path, tmp_path: Path, encoded: CountingModel) -> None:
    path, store = tmp_path / "page.png", counting_store()
    for number, words in enumerate(["Harvest of apples", "Harvest of apples", "Prices of bananas"]):
        draw(words).save(path)
        store.add([ImageNode(id_="a", image_path=str(path), text="same")])
        assert encoded.pages == (1, 1, 2)[number]
    cut = PdfPageReader(dpi=DPI).load_data(root / "documents" / "fruit.pdf")[0]
    cut.image = base64_of(path)  # with the metadata of the page that it was
    store.add([cut])
    assert encoded.pages == 2, "it is not the page of its metadata but the picture of the other node, which is copied"
    assert {node.node_id for node in ask(store, "bananas", 2)} == {"a", cut.node_id}


def test_regions_come_with_pages(root: Path, own: ColPaliVectorStore) -> None:
    own.add(PdfPageReader(dpi=DPI).load_data(root / "documents" / "fruit.pdf"))
    [page] = ask(own, "bananas")
    query = ColPaliEmbedding().get_query_multi_vector("bananas")
    assert own.client.regions(query, [page.node_id])[page.node_id]


def test_pages_of_the_command_line_can_be_opened(root: Path, own: ColPaliVectorStore) -> None:
    [page] = ask(own, "bananas")
    assert isinstance(page, ImageNode)
    assert (page.metadata["page"], page.text) == (2, "fruit.pdf, page 2")
    assert own.get_nodes([page.node_id]) == [page]
    assert ask(own, "railway")[0].class_name() == "ImageNode"
    own.client.add(
        [(Entry(id="text", text="a note on pears", metadata={"k": 1}, document_id="pears.txt"), np.ones((1, 128)))]
    )
    [note] = own.get_nodes(["text"])
    assert isinstance(note, TextNode)
    assert not isinstance(note, ImageNode)
    assert (note.text, note.metadata, note.ref_doc_id) == ("a note on pears", {"k": 1}, "pears.txt")
    own.delete(page.ref_doc_id or "")
    assert len(own.get_nodes()) == 2, "both pages of fruit.pdf are gone"
    own.delete_nodes(["text"])
    assert len(own.get_nodes()) == 1


def test_errors_name_the_node(root: Path, tmp_path: Path) -> None:
    store = ColPaliVectorStore()
    good = TextNode(text="a note")
    bad = [
        ImageNode(id_="bad", image_path=str(tmp_path / "gone.png")),
        ImageNode(id_="bad", image="not base64!"),
        ImageNode(id_="bad", image=base64.b64encode(b"no picture").decode("ascii")),
        TextNode(id_="bad", text="  "),
    ]
    for node in bad:
        with pytest.raises(InputError, match="bad") as caught:
            store.add([good, good, node])
        assert caught.value.index == 2
    for wrong in ("report.pdf", good):
        with pytest.raises(InputError, match="expected a list of nodes"):
            store.add(wrong)  # type: ignore[arg-type]
    for value in (float("nan"), object()):
        with pytest.raises(StoreError, match="JSON"):
            store.add([TextNode(text="a note", metadata={"value": value})])
    assert store.get_nodes() == [good], "nodes before an unreadable picture are stored"


# -- how it is made -------------------------------------------------------------------------------------------------


def test_bad_nodes_can_be_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "torn.png").write_bytes(b"no image")
    nodes = [
        TextNode(id_="tide", text="low tide"),
        TextNode(id_="empty", text=""),
        ImageNode(id_="torn", image_path=str(tmp_path / "torn.png")),
        ImageNode(id_="gone", image_path=str(tmp_path / "gone.png")),
        TextNode(id_="nan", text="a number", metadata={"x": float("nan")}),
        TextNode(id_="tax", text="tax return"),
    ]
    seen: list[Progress] = []
    store = ColPaliVectorStore()
    assert store.add(nodes, on_error="skip", progress=seen.append) == ["tide", "tax"]
    assert sorted(node.node_id for node in store.get_nodes()) == ["tax", "tide"]
    assert [state.done for state in seen] == list(range(7))
    assert sum(state.failure is not None for state in seen) == 4
    assert caplog.text.count("skipped ") == 4
    with pytest.raises(ConfigurationError, match="on_error must be"):
        store.add(nodes, on_error="collect")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="use progress=True"):
        store.add(nodes, show_progress=True)


def test_an_event_ends_an_addition_after_the_page_at_hand() -> None:
    pictures = [Image.new("RGB", (8 + number, 8), "white") for number in range(30)]
    nodes = []
    for number, picture in enumerate(pictures):
        picture.save(file := io.BytesIO(), "PNG")
        nodes.append(ImageNode(id_=str(number), image=base64.b64encode(file.getvalue()).decode()))
    stop, store = threading.Event(), ColPaliVectorStore()

    def watch(state: Progress) -> None:
        if state.done:
            stop.set()

    ids = store.add(nodes, progress=watch, stop=stop)
    assert 0 < len(ids) == len(store.client) < 30
    assert store.add(nodes[-1:], stop=stop) == []


def test_a_folder_is_kept(tmp_path: Path) -> None:
    with_texts = ColPaliVectorStore(path=tmp_path / "store")
    with_texts.add(sample())
    with_texts.close()
    for again in (ColPaliVectorStore(tmp_path / "store"), ColPaliVectorStore(path=str(tmp_path / "store"))):
        assert {node.node_id for node in again.get_nodes()} == {"apples", "bananas", "train", "loose"}
        assert again.embed_model is not None
        assert again.embed_model.model_name == "coltiny", "by which model it was made"
        again.close()


def test_copies_look_into_the_same_store(tmp_path: Path) -> None:
    store = ColPaliVectorStore(path=tmp_path / "store", search_mode="exact", oversampling=3)
    store.add(sample())
    fields = json.loads(json.dumps(store.to_dict()))
    copies = [
        pickle.loads(pickle.dumps(store)),
        copy.deepcopy(store),
        copy.copy(store),
        store.model_copy(),
        ColPaliVectorStore.from_dict(fields),
        ColPaliVectorStore(**fields),
    ]
    for other in copies:
        assert other.to_dict() == store.to_dict()
        assert ask(other, "apples") == ask(store, "apples")
    memory = ColPaliVectorStore()
    memory.add(sample())
    assert ask(copy.deepcopy(memory), "apples") == ask(memory, "apples")
    with pytest.raises(ConfigurationError, match="path"):
        pickle.dumps(memory)


def test_secrets_stay_out_of_the_fields() -> None:
    fields = ColPaliVectorStore.model_fields["client_options"]
    assert fields.exclude
    assert not fields.repr


@pytest.mark.parametrize(
    "options", [{"pth": "x"}, {"search_mode": "fast"}, {"oversampling": 0.5}, {"first_vectors": 0}]
)
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ColPaliVectorStore(**options)


@pytest.mark.parametrize(
    ("option", "right"),
    [("collection", "collection_name"), ("persist_dir", "path"), ("persist_directory", "path"), ("location", "path"),
     ("embedding", "embed_model"), ("serach_mode", "search_mode")],
)  # fmt: skip
def test_wrong_guesses_name_the_right_option(option: str, right: str) -> None:
    for kind in (ColPaliVectorStore, ColPaliRerank):
        if kind is ColPaliVectorStore or right in kind.model_fields:
            with pytest.raises(ValidationError, match=rf"'{option}'.*\b{right}\b"):
                kind(**{option: "x"})


def test_invalid_arguments_are_refused(tmp_path: Path) -> None:
    ready = MultiVectorStore.open(model="coltiny")
    for given in ({"store": ready, "path": tmp_path}, {"store": str(tmp_path), "path": tmp_path}):
        with pytest.raises(ConfigurationError, match="one place"):
            ColPaliVectorStore(**given)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is_embedding_query"):
        ColPaliVectorStore(is_embedding_query=True)
    other = made_up("other", identity="0" * 16)
    with pytest.raises(FingerprintError, match="other"):
        ColPaliVectorStore(store=MultiVectorStore.open(model=other), embed_model=ColPaliEmbedding())
    MultiVectorStore.open(tmp_path / "other", model=other).close()
    with pytest.raises(FingerprintError, match="other"):
        ColPaliVectorStore(path=tmp_path / "other", embed_model=ColPaliEmbedding())
    with pytest.raises(InputError, match="clear"):
        ColPaliVectorStore().delete_nodes()


def test_invalid_queries_are_refused() -> None:
    store = ColPaliVectorStore()
    with pytest.raises(InputError, match="query_str"):
        store.query(VectorStoreQuery(query_embedding=[0.0] * 128))
    for mode in set(VectorStoreQueryMode) - {"default", "hybrid", "mmr"}:
        with pytest.raises(ConfigurationError, match=mode.value):
            store.query(VectorStoreQuery(query_str="apples", mode=mode))
    with pytest.raises(ConfigurationError, match="alpha"):
        store.query(VectorStoreQuery(query_str="apples", mode=VectorStoreQueryMode.HYBRID, alpha=2))
    with pytest.raises(ConfigurationError, match="no option 'nprobe'"):
        store.query(VectorStoreQuery(query_str="apples"), nprobe=3)
    with pytest.raises(QueryError):
        store.query(VectorStoreQuery(query_str=" "))


def test_options_of_a_query(own: ColPaliVectorStore) -> None:
    assert len(ask(own, "bananas", 3, search_mode="exact")) == 3
    assert len(ask(own, "bananas", 3, min_relevance=0.05)) == 1
    with pytest.raises(ConfigurationError, match="first_stage"):
        ask(own, "bananas", search_mode="two_stage")


# -- persistence ----------------------------------------------------------------------------------------------------


def test_a_storage_context_persists_a_store_in_memory(tmp_path: Path, own: ColPaliVectorStore) -> None:
    own.add(sample())
    index = ColPaliIndex.from_vector_store(own)
    index.storage_context.persist(persist_dir=tmp_path)
    assert not (tmp_path / "default__vector_store.json").exists(), "LlamaIndex would take it for its own"
    again = ColPaliVectorStore.from_persist_dir(str(tmp_path))
    assert {node.node_id for node in again.get_nodes()} == {node.node_id for node in own.get_nodes()}
    assert ask(again, "bananas", 2) == ask(own, "bananas", 2)
    context = StorageContext.from_defaults(persist_dir=str(tmp_path), vector_store=again)
    loaded = ColPaliIndex.from_vector_store(again, storage_context=context)
    assert loaded.as_retriever(similarity_top_k=1).retrieve("apples")[0].node.node_id == "apples"
    own.delete_nodes(["apples"])
    index.storage_context.persist(persist_dir=tmp_path)
    assert len(ColPaliVectorStore.from_persist_dir(str(tmp_path)).get_nodes()) == 6, "the copy follows"


def test_a_datatype_in_memory_is_persisted(tmp_path: Path, commanded: MultiVectorStore) -> None:
    store = ColPaliVectorStore(datatype="int8")
    store.client.add(copied_records(commanded))
    assert store.client.settings.datatype == "int8"
    StorageContext.from_defaults(vector_store=store).persist(persist_dir=tmp_path)
    again = ColPaliVectorStore.from_persist_dir(str(tmp_path))
    assert again.client.settings.datatype == "int8"
    assert ask(again, "bananas") == ask(store, "bananas")


def test_a_folder_s_place_is_persisted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = ColPaliVectorStore(path="store", search_mode="exact")
    store.add(sample())
    StorageContext.from_defaults(vector_store=store).persist(persist_dir=tmp_path / "context")
    store.close()
    monkeypatch.chdir("/")
    again = ColPaliVectorStore.from_persist_dir(str(tmp_path / "context"))
    assert again.search_mode == "exact"
    assert len(again.get_nodes()) == 4
    again.close()


def test_a_missing_or_damaged_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="persisted"):
        ColPaliVectorStore.from_persist_dir(str(tmp_path))
    (tmp_path / "default__colpali_store.json").write_text("[")
    with pytest.raises(StoreError, match="damaged"):
        ColPaliVectorStore.from_persist_dir(str(tmp_path))
    with pytest.raises(ConfigurationError, match="local"):
        ColPaliVectorStore().persist("default__vector_store.json", fsspec.filesystem("memory"))


def test_changing_a_node_does_not_change_the_store(own: ColPaliVectorStore) -> None:
    added = TextNode(id_="changed", text="low tide", metadata={"tags": ["a"], "deep": {"key": [1]}})
    own.add([added])
    added.metadata["tags"].append("of the caller")
    for found in (own.get_nodes(["changed"])[0], ask(own, "low tide")[0]):
        assert found.metadata == {"tags": ["a"], "deep": {"key": [1]}}
        found.metadata["tags"].append("b")
        found.metadata["deep"]["key"].clear()
    assert own.get_nodes(["changed"])[0].metadata == {"tags": ["a"], "deep": {"key": [1]}}


def test_neither_a_pickle_nor_a_persisted_file_holds_an_api_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    store = ColPaliVectorStore(url=":memory:", client_options={"api_key": "SECRET"})
    pickled = pickle.dumps(store)
    store.persist(str(tmp_path / "store.json"))
    assert "SECRET" not in str(store.to_dict()) + repr(store) + (tmp_path / "store.json").read_text()
    assert b"SECRET" not in pickled
    with pytest.raises(ConfigurationError, match="set QDRANT_API_KEY where it is unpickled"):
        pickle.loads(pickled)
    monkeypatch.setenv("QDRANT_API_KEY", "ANOTHER")
    assert pickle.loads(pickled).client_options == {"api_key": "ANOTHER"}


def test_a_persisted_file_makes_no_folder(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"path": str(tmp_path / "new")}))
    with pytest.raises(StoreError, match="where there is none; pass path= if it moved"):
        ColPaliVectorStore.from_persist_path(str(tmp_path / "store.json"))
    assert not (tmp_path / "new").exists()
