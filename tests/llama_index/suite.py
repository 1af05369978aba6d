"""A conformance suite for vector stores; LlamaIndex itself ships none.

`VectorStoreConformance` holds the contract of `BasePydanticVectorStore` (llama-index-core 0.14), read from its code and
from the calls of indexes, retrievers and pipelines. A subclass makes the store under test. Every test runs by
the synchronous methods and by their asynchronous twins.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from colpali_integrations import ColPali
from colpali_integrations.llama_index import ColPaliEmbedding, ColPaliVectorStore

FRUIT = RelatedNodeInfo(node_id="fruit.txt", node_type=ObjectType.DOCUMENT, hash="abc", metadata={"k": "v"})
TRAIN = RelatedNodeInfo(node_id="train.txt", node_type=ObjectType.DOCUMENT)


def sample() -> list[BaseNode]:
    """Texts of two documents and of none, with metadata of every kind."""
    apples = TextNode(
        id_="apples",
        text="harvest of apples",
        metadata={"page": 1, "kind": "fruit", "tags": ["red", "round"], "ratio": 0.5, "draft": True, "empty": None},
        relationships={
            NodeRelationship.SOURCE: FRUIT,
            NodeRelationship.NEXT: RelatedNodeInfo(node_id="bananas"),
            NodeRelationship.CHILD: [RelatedNodeInfo(node_id="one"), RelatedNodeInfo(node_id="two")],
        },
        excluded_embed_metadata_keys=["page", "kind", "tags", "ratio", "draft", "empty"],
        excluded_llm_metadata_keys=["page"],
        start_char_idx=3,
        end_char_idx=20,
        metadata_template="{key}={value}",
        text_template="{content}",
    )
    bananas = TextNode(
        id_="bananas",
        text="prices of bananas in the market",
        metadata={"page": 2, "kind": "fruit", "tags": ["yellow"]},
        relationships={NodeRelationship.SOURCE: FRUIT},
        excluded_embed_metadata_keys=["page", "kind", "tags"],
    )
    train = TextNode(
        id_="train",
        text="railway timetable",
        metadata={"page": 3, "kind": "travel", "draft": False},
        relationships={NodeRelationship.SOURCE: TRAIN},
        excluded_embed_metadata_keys=["page", "kind", "draft"],
    )
    loose = TextNode(id_="loose", text="weather forecast")
    return [apples, bananas, train, loose]


def filters(*parts: tuple[str, FilterOperator, Any], condition: FilterCondition | None = None) -> MetadataFilters:
    made = [MetadataFilter(key=key, operator=operator, value=value) for key, operator, value in parts]
    return MetadataFilters(filters=list(made), condition=condition or FilterCondition.AND)


class Driver:
    """A store's methods, called the synchronous or the asynchronous way."""

    def __init__(self, store: BasePydanticVectorStore, asynchronous: bool) -> None:
        self.store, self.asynchronous = store, asynchronous

    def _call(self, call: Callable[[], Any], twin: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await twin()

        return asyncio.run(run()) if self.asynchronous else call()

    def add(self, nodes: Sequence[BaseNode]) -> list[str]:
        found: list[str] = self._call(lambda: self.store.add(nodes), lambda: self.store.async_add(nodes))
        return found

    def query(self, text: str, k: int = 10, **fields: Any) -> VectorStoreQueryResult:
        query = VectorStoreQuery(query_str=text, similarity_top_k=k, **fields)
        found: VectorStoreQueryResult = self._call(lambda: self.store.query(query), lambda: self.store.aquery(query))
        return found

    def ids(self, text: str, k: int = 10, **fields: Any) -> list[str]:
        return list(self.query(text, k, **fields).ids or [])

    def get(self, ids: list[str] | None = None, where: MetadataFilters | None = None) -> list[BaseNode]:
        found: list[BaseNode] = self._call(
            lambda: self.store.get_nodes(ids, where), lambda: self.store.aget_nodes(ids, where)
        )
        return found

    def stored(self, where: MetadataFilters | None = None) -> set[str]:
        return {node.node_id for node in self.get(None, where)}

    def delete(self, ref_doc_id: str) -> None:
        self._call(lambda: self.store.delete(ref_doc_id), lambda: self.store.adelete(ref_doc_id))

    def delete_nodes(self, ids: list[str] | None = None, where: MetadataFilters | None = None) -> None:
        self._call(lambda: self.store.delete_nodes(ids, where), lambda: self.store.adelete_nodes(ids, where))

    def clear(self) -> None:
        self._call(self.store.clear, self.store.aclear)


class CountingModel(ColPali):
    """ColTiny, with the numbers of pages and texts (questions included) that it was asked to encode."""

    pages = texts = 0

    def reset(self) -> None:
        self.pages = self.texts = 0

    def _counted(self, items: Any, kind: str) -> Iterator[Any]:
        for item in [items] if isinstance(items, str) else items:
            setattr(self, kind, getattr(self, kind) + 1)
            yield item

    def embed_images(self, images: Any, **options: Any) -> Any:
        return super().embed_images(self._counted(images, "pages"), **options)

    def embed_pages(self, images: Any, **options: Any) -> Any:
        return super().embed_pages(self._counted(images, "pages"), **options)

    def embed_queries(self, texts: Any, **options: Any) -> Any:
        return super().embed_queries(self._counted(texts, "texts"), **options)

    def embed_texts(self, texts: Any, **options: Any) -> Any:
        return super().embed_texts(self._counted(texts, "texts"), **options)


@cache
def counting_model() -> CountingModel:
    """The one that all `CountingEmbedding`s share."""
    model = CountingModel.from_pretrained()
    assert isinstance(model, CountingModel)
    return model


class CountingEmbedding(ColPaliEmbedding):
    """Encodes with `counting_model()`."""

    @classmethod
    def class_name(cls) -> str:
        return ColPaliEmbedding.class_name()

    @property
    def model(self) -> CountingModel:
        return counting_model()


def counting_store() -> ColPaliVectorStore:
    """An empty store in memory that encodes with `counting_model()`."""
    return ColPaliVectorStore(embed_model=CountingEmbedding())


class VectorStoreConformance:
    """Subclass it with a fixture `vector_store` that gives an empty store."""

    @pytest.fixture
    def vector_store(self) -> Iterator[BasePydanticVectorStore]:
        raise NotImplementedError

    @pytest.fixture(params=["sync", "async"])
    def store(self, request: pytest.FixtureRequest, vector_store: BasePydanticVectorStore) -> Driver:
        return Driver(vector_store, request.param == "async")

    # -- class and fields ---------------------------------------------------------------------------------------------

    def test_is_a_vector_store(self, vector_store: BasePydanticVectorStore) -> None:
        assert "BasePydanticVectorStore" in [base.__name__ for base in type(vector_store).__mro__]
        assert vector_store.stores_text
        assert vector_store.client is not None
        # Indexes ask `if vector_store:`; an empty store must not be taken for none.
        assert bool(vector_store)
        assert type(vector_store).class_name() == type(vector_store).__name__

    def test_its_fields_are_json(self, vector_store: BasePydanticVectorStore) -> None:
        fields = vector_store.to_dict()
        assert json.loads(json.dumps(fields)) == fields
        assert fields["class_name"] == type(vector_store).class_name()

    # -- nothing in it ------------------------------------------------------------------------------------------

    def test_empty_answers_empty(self, store: Driver) -> None:
        found = store.query("apples")
        assert (found.nodes, found.similarities, found.ids) == ([], [], [])
        assert store.get() == store.get(["apples"]) == store.get([]) == []
        assert store.ids("apples", filters=filters(("page", FilterOperator.EQ, 1))) == []
        assert store.ids("apples", mode=VectorStoreQueryMode.HYBRID) == []
        assert store.ids("apples", mode=VectorStoreQueryMode.MMR) == []

    def test_nothing_to_add_is_nothing(self, store: Driver) -> None:
        assert store.add([]) == []
        assert store.get() == []

    def test_unknown_ids_do_not_raise(self, store: Driver) -> None:
        store.add(sample()[:1])
        store.delete("unknown")
        store.delete_nodes(["unknown"])
        store.delete_nodes([])
        store.delete_nodes(None, filters(("unknown", FilterOperator.EQ, "x")))
        assert store.get(["unknown"]) == []
        assert [node.node_id for node in store.get(["unknown", "apples"])] == ["apples"]
        assert store.ids("apples", node_ids=["unknown"]) == store.ids("apples", doc_ids=["unknown"]) == []
        assert store.stored() == {"apples"}

    # -- adding -------------------------------------------------------------------------------------------------

    def test_stored_nodes_equal_the_added_nodes(self, store: Driver) -> None:
        nodes = sample()
        assert store.add(nodes) == [node.node_id for node in nodes]
        ids = [node.node_id for node in reversed(nodes)]
        assert store.get(ids) == list(reversed(nodes))
        found = store.query("apples", k=1)
        assert list(found.nodes or []) == nodes[:1]
        assert (found.nodes or [])[0].ref_doc_id == "fruit.txt"

    def test_every_kind_of_node_comes_back(self, store: Driver) -> None:
        nodes: list[BaseNode] = [
            TextNode(text="a text"),
            Node(text_resource=MediaResource(text="a text in a resource"), extra_info={"k": [1, {"deep": None}]}),
            Document(text="a whole document", metadata={"file_name": "näme.txt"}),
            IndexNode(text="a reference", index_id="elsewhere"),
            ImageNode(text="a text of an image node without an image"),
        ]
        store.add(nodes)
        found = store.get([node.node_id for node in nodes])
        assert found == nodes
        assert [node.class_name() for node in found] == [node.class_name() for node in nodes]

    def test_nodes_of_the_caller_stay_unchanged(self, store: Driver) -> None:
        nodes = sample()
        nodes[0].embedding = [0.5, 0.5]
        before = [node.to_json() for node in nodes]
        store.add(nodes)
        assert [node.to_json() for node in nodes] == before
        found = store.get(["apples"])[0]
        assert found.embedding is None
        found.metadata["page"] = 99
        found.set_content("changed")
        assert store.get(["apples"])[0].metadata["page"] == 1, "the store returns copies"
        assert store.get(["apples"])[0].get_content() == "harvest of apples"

    def test_adding_again_changes_nothing(self, store: Driver) -> None:
        store.add(sample())
        first = store.query("bananas")
        store.add(sample())
        assert store.query("bananas") == first
        assert len(store.get()) == 4

    def test_an_id_is_overwritten(self, store: Driver) -> None:
        store.add(sample())
        store.add([TextNode(id_="train", text="pears and plums", metadata={"kind": "fruit"})])
        assert store.stored() == {"apples", "bananas", "train", "loose"}
        assert store.ids("pears", k=1) == ["train"]
        assert store.get(["train"])[0].metadata == {"kind": "fruit"}
        store.delete("train.txt")
        assert "train" in store.stored(), "the new node is of no document"

    def test_metadata_alone_can_change(self, store: Driver) -> None:
        nodes = sample()
        store.add(nodes)
        nodes[3].metadata["reviewed"] = "yes"
        nodes[3].excluded_embed_metadata_keys.append("reviewed")
        store.add([nodes[3]])
        assert store.stored(filters(("reviewed", FilterOperator.EQ, "yes"))) == {"loose"}
        assert store.get(["loose"]) == [nodes[3]]

    def test_of_one_id_twice_the_last_counts(self, store: Driver) -> None:
        assert store.add([TextNode(id_="a", text="first"), TextNode(id_="a", text="second")]) == ["a", "a"]
        assert [node.get_content() for node in store.get()] == ["second"]

    def test_any_string_is_an_id(self, store: Driver) -> None:
        ids = ["a b/c?d#e", "äöü 你好", "00000000-0000-0000-0000-000000000000", "x" * 500, "$id", '"quoted\\"']
        store.add([TextNode(id_=id_, text=f"text {number}") for number, id_ in enumerate(ids)])
        assert [node.node_id for node in store.get(ids)] == ids
        store.delete_nodes(ids[:3])
        assert store.stored() == set(ids[3:])

    def test_unicode_and_numbers_survive(self, store: Driver) -> None:
        metadata = {"emoji": "🍌", "newline": "a\nb", "big": 2**53 - 1, "small": 1e-9, "negative": -3, "whole": 3.0}
        node = TextNode(text="Ünïcödé “quotes” \u200d 你好", metadata=metadata)
        store.add([node])
        [found] = store.get([node.node_id])
        assert found == node
        assert {key: type(value) for key, value in found.metadata.items()} == {
            key: type(value) for key, value in metadata.items()
        }

    # -- removing -----------------------------------------------------------------------------------------------

    def test_delete_removes_the_nodes_of_a_document(self, store: Driver) -> None:
        store.add(sample())
        store.delete("fruit.txt")
        assert store.stored() == {"train", "loose"}
        assert "apples" not in store.ids("apples")
        store.delete("train.txt")
        assert store.stored() == {"loose"}
        store.delete("loose")
        assert store.get() == [], "a node without a source is its own, as for pipelines without a splitter"

    def test_delete_nodes(self, store: Driver) -> None:
        store.add(sample())
        store.delete_nodes(["apples", "unknown"])
        assert store.stored() == {"bananas", "train", "loose"}
        store.delete_nodes(["bananas", "train"], filters(("kind", FilterOperator.EQ, "travel")))
        assert store.stored() == {"bananas", "loose"}
        store.delete_nodes(None, filters(("kind", FilterOperator.EQ, "fruit")))
        assert store.stored() == {"loose"}

    def test_clear_removes_everything(self, store: Driver) -> None:
        store.add(sample())
        store.clear()
        assert store.get() == []
        assert store.ids("apples") == []
        store.add(sample()[:1])
        assert store.ids("apples") == ["apples"]

    # -- asking -------------------------------------------------------------------------------------------------

    def test_the_right_node_comes_first(self, store: Driver) -> None:
        store.add(sample())
        for words, id_ in [("apples", "apples"), ("price of bananas", "bananas"), ("railway", "train")]:
            assert store.ids(words)[0] == id_

    def test_results_are_sorted_and_bounded(self, store: Driver) -> None:
        store.add(sample())
        found = store.query("bananas in the market", k=3)
        similarities = found.similarities or []
        assert len(similarities) == len(found.nodes or []) == len(found.ids or []) == 3
        assert similarities == sorted(similarities, reverse=True)
        assert all(0 <= one <= 1 for one in similarities)
        assert [node.node_id for node in found.nodes or []] == found.ids
        assert len(store.ids("bananas", k=99)) == 4

    def test_filters_restrict(self, store: Driver) -> None:
        store.add(sample())
        fruit = filters(("kind", FilterOperator.EQ, "fruit"))
        assert set(store.ids("railway", filters=fruit)) == {"apples", "bananas"}
        assert store.ids("railway", k=1, filters=filters(("page", FilterOperator.GT, 1), ("kind", FilterOperator.EQ, "fruit"))) == ["bananas"]  # fmt: skip  # noqa: E501
        assert {node.node_id for node in store.get(["apples", "train"], fruit)} == {"apples"}

    def test_ids_and_documents_restrict(self, store: Driver) -> None:
        store.add(sample())
        assert set(store.ids("apples", node_ids=["train", "loose"])) == {"train", "loose"}
        assert set(store.ids("railway", doc_ids=["fruit.txt"])) == {"apples", "bananas"}
        assert store.ids("railway", doc_ids=["fruit.txt"], node_ids=["bananas", "train"]) == ["bananas"]
        assert len(store.ids("railway", doc_ids=[], node_ids=[])) == 4, "an index without ids of its own passes none"

    def test_every_operator(self, store: Driver) -> None:
        nodes = sample()
        store.add(nodes)
        by_id = {node.node_id: node.metadata for node in nodes}
        cases: list[MetadataFilters] = [
            filters(("page", FilterOperator.EQ, 2)),
            filters(("page", FilterOperator.NE, 2)),
            filters(("page", FilterOperator.GT, 1.5)),
            filters(("page", FilterOperator.GTE, 2)),
            filters(("page", FilterOperator.LT, 3)),
            filters(("page", FilterOperator.LTE, 1)),
            filters(("kind", FilterOperator.IN, ["fruit", "x"])),
            filters(("kind", FilterOperator.NIN, ["fruit"])),
            filters(("tags", FilterOperator.ANY, ["red", "yellow"])),
            filters(("tags", FilterOperator.ALL, ["red", "round"])),
            filters(("tags", FilterOperator.CONTAINS, "red")),
            filters(("kind", FilterOperator.TEXT_MATCH, "rui")),
            filters(("kind", FilterOperator.TEXT_MATCH_INSENSITIVE, "TRAV")),
            filters(("tags", FilterOperator.IS_EMPTY, None)),
            filters(("draft", FilterOperator.EQ, 1)),
            filters(("ratio", FilterOperator.EQ, 0.5)),
            filters(("page", FilterOperator.EQ, 1), ("page", FilterOperator.EQ, 3), condition=FilterCondition.OR),
            filters(
                ("page", FilterOperator.EQ, 1), ("kind", FilterOperator.EQ, "travel"), condition=FilterCondition.NOT
            ),
        ]
        for where in cases:
            fits = build_metadata_filter_fn(lambda id_: by_id[id_], where)
            expected = {id_ for id_ in by_id if fits(id_)}
            assert expected not in (set(), set(by_id)), f"{where} distinguishes no entries"
            assert store.stored(where) == set(store.ids("apples", filters=where)) == expected, where

    def test_filters_nest(self, store: Driver) -> None:
        store.add(sample())
        either = filters(("page", FilterOperator.EQ, 1), ("page", FilterOperator.EQ, 3), condition=FilterCondition.OR)
        not_travel = filters(("kind", FilterOperator.EQ, "travel"), condition=FilterCondition.NOT)
        assert store.stored(MetadataFilters(filters=[either, not_travel])) == {"apples"}

    def test_hybrid_weighs_words(self, store: Driver) -> None:
        store.add(sample())
        for alpha in (None, 0.0, 0.5, 1.0):
            found = store.query("market", mode=VectorStoreQueryMode.HYBRID, alpha=alpha)
            assert (found.ids or [])[0] == "bananas"
            similarities = found.similarities or []
            assert similarities == sorted(similarities, reverse=True)
            assert all(0 <= one <= 1 for one in similarities)
        by_value: Any = "hybrid"
        assert store.query("market", mode=by_value) == store.query("market", mode=VectorStoreQueryMode.HYBRID)
        fruit = filters(("page", FilterOperator.EQ, 1))
        assert store.ids("market", mode=VectorStoreQueryMode.HYBRID, filters=fruit) == ["apples"]
        assert len(store.ids("market", k=1, mode=VectorStoreQueryMode.HYBRID, hybrid_top_k=3)) == 3

    def test_mmr_does_not_repeat_itself(self, store: Driver) -> None:
        same = [TextNode(id_=f"same{number}", text="prices of bananas") for number in range(3)]
        store.add([*same, TextNode(id_="other", text="bananas on a boat")])
        assert "other" not in store.ids("prices of bananas", k=2)
        assert store.ids("prices of bananas", k=2, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.3)[1] == "other"
        assert "other" not in store.ids("prices of bananas", k=2, mode=VectorStoreQueryMode.MMR, mmr_threshold=1.0)

    # -- several at once ----------------------------------------------------------------------------------------

    def test_concurrent_questions_answer_the_same(self, vector_store: BasePydanticVectorStore) -> None:
        vector_store.add(sample())
        questions = ["apples", "bananas", "railway", "weather"] * 3
        queries = [VectorStoreQuery(query_str=one, similarity_top_k=2) for one in questions]
        alone = [vector_store.query(one) for one in queries]

        async def together() -> list[VectorStoreQueryResult]:
            return list(await asyncio.gather(*(vector_store.aquery(one) for one in queries)))

        assert asyncio.run(together()) == alone
        with ThreadPoolExecutor(4) as executor:
            assert list(executor.map(vector_store.query, queries)) == alone

    def test_concurrent_changes_are_all_made(self, vector_store: BasePydanticVectorStore) -> None:
        async def together() -> None:
            batches = [[TextNode(id_=f"{a} {b}", text=f"text {a} {b}") for b in range(3)] for a in range(6)]
            await asyncio.gather(*(vector_store.async_add(batch) for batch in batches))
            await asyncio.gather(*(vector_store.adelete_nodes([f"{a} 0"]) for a in range(6)))

        asyncio.run(together())
        assert {node.node_id for node in vector_store.get_nodes()} == {f"{a} {b}" for a in range(6) for b in (1, 2)}
        start = threading.Barrier(4)

        def change(number: int) -> None:
            start.wait()
            vector_store.add([TextNode(id_=f"thread {number}", text=f"text {number}")])
            vector_store.delete_nodes([f"{number} 1"])

        with ThreadPoolExecutor(4) as executor:
            list(executor.map(change, range(4)))
        ids = {node.node_id for node in vector_store.get_nodes()}
        assert {f"thread {number}" for number in range(4)} < ids
        assert not ids & {f"{number} 1" for number in range(4)}

    def test_the_event_loop_is_not_blocked(self, vector_store: BasePydanticVectorStore) -> None:
        async def run() -> int:
            ticks = 0
            done = asyncio.Event()

            async def tick() -> None:
                nonlocal ticks
                while not done.is_set():
                    await asyncio.sleep(0)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            await vector_store.async_add([TextNode(text=f"text {number}") for number in range(20)])
            await vector_store.aquery(VectorStoreQuery(query_str="text", similarity_top_k=2))
            done.set()
            await ticking
            return ticks

        assert asyncio.run(run()) > 10
