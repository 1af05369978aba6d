"""A conformance suite for embedding classes; LlamaIndex itself ships none.

`MultiModalEmbeddingConformance` holds the contract of `BaseEmbedding` and `MultiModalEmbedding` (llama-index-core
0.14), read from its code and from the calls of its indexes and pipelines. A subclass says how to make
the class under test.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.embeddings import BaseEmbedding, MultiModalEmbedding
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import ImageNode, MetadataMode, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index_instrumentation import get_dispatcher
from PIL import Image, ImageDraw
from pydantic import PrivateAttr, ValidationError

from colpali_integrations.errors import ColPaliError
from colpali_integrations.llama_index import ColPaliEmbedding

TEXTS = ["harbour", "the tower is 80 metres tall", "invoice number", "who painted it?", "chapter one"]
FIXTURES = Path(__file__).parent.parent / "parity" / "fixtures"


def picture(text: str, size: tuple[int, int] = (96, 64)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((4, 4), text, fill="black")
    return image


def any_image(image: object) -> Any:
    """More kinds of image than `ImageType` names."""
    return image


class WaitingText(str):
    """A text that is encoded when `ticked` is set: the core strips it to see whether it is empty."""

    ticked: threading.Event

    def strip(self, chars: str | None = None, /) -> str:
        assert self.ticked.wait(30), "the event loop stood still"
        return super().strip(chars)


class WaitingImage:
    """A picture that can be decoded when `ticked` is set."""

    def __init__(self, ticked: threading.Event) -> None:
        self.ticked = ticked

    @property
    def image(self) -> Image.Image:
        assert self.ticked.wait(30), "the event loop stood still"
        return picture("slow", (32, 32))


class Recorder(BaseCallbackHandler):
    """Keeps the payloads of callback events."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.starts: list[tuple[CBEventType, dict[str, Any]]] = []
        self.ends: list[tuple[CBEventType, dict[str, Any]]] = []

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        self.starts.append((event_type, payload or {}))
        return event_id

    def on_event_end(
        self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **kwargs: Any
    ) -> None:
        self.ends.append((event_type, payload or {}))

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None: ...


class Listener(BaseEventHandler):
    """Keeps instrumentation events."""

    _events: list[Any] = PrivateAttr(default_factory=list)

    @property
    def events(self) -> list[Any]:
        return self._events

    @classmethod
    def class_name(cls) -> str:
        return "Listener"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self._events.append(event)


@pytest.fixture
def listener() -> Iterator[Listener]:
    dispatcher = get_dispatcher()
    made = Listener()
    dispatcher.add_event_handler(made)
    yield made
    dispatcher.event_handlers.remove(made)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("pages")
    paths = [str(folder / f"{index}.png") for index in range(3)]
    for path, text in zip(paths, TEXTS[:3], strict=True):
        picture(text).save(path)
    return paths


def assert_close(left: list[list[float]], right: list[list[float]]) -> None:
    """Equal but for the last bits of float32: another batch may add in another order."""
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


class MultiModalEmbeddingConformance:
    """The contract. Subclasses give `options`, the constructor's arguments."""

    options: ClassVar[dict[str, Any]]
    dim: int

    def make(self, **options: Any) -> MultiModalEmbedding:
        return ColPaliEmbedding(**{**self.options, **options})

    @pytest.fixture
    def embedding(self) -> MultiModalEmbedding:
        return self.make()

    # -- embeddings

    def test_bases(self) -> None:
        names = [base.__name__ for base in type(self.make()).__mro__]
        assert BaseEmbedding.__name__ in names
        assert MultiModalEmbedding.__name__ in names

    def test_embeddings_are_lists_of_python_floats(self, embedding: MultiModalEmbedding, pages: list[Any]) -> None:
        for vector in (
            embedding.get_query_embedding(TEXTS[0]),
            embedding.get_text_embedding(TEXTS[0]),
            embedding.get_image_embedding(pages[0]),
            *embedding.get_text_embedding_batch(TEXTS[:2]),
            *embedding.get_image_embedding_batch(pages[:2]),
        ):
            assert type(vector) is list
            assert len(vector) == self.dim
            assert {type(value) for value in vector} == {float}
            assert all(map(math.isfinite, vector))

    def test_a_node_takes_the_embedding(self, embedding: MultiModalEmbedding) -> None:
        node = TextNode(text=TEXTS[0], embedding=embedding.get_text_embedding(TEXTS[0]))
        assert json.loads(node.to_json())["embedding"] == node.embedding

    def test_different_inputs_differ(self, embedding: MultiModalEmbedding, pages: list[Any]) -> None:
        for vectors in (embedding.get_text_embedding_batch(TEXTS), embedding.get_image_embedding_batch(pages)):
            assert len({tuple(vector) for vector in vectors}) == len(vectors)

    def test_similarity_of_the_same_is_one(self, embedding: MultiModalEmbedding) -> None:
        vector = embedding.get_query_embedding(TEXTS[1])
        assert embedding.similarity(vector, vector) == pytest.approx(1)

    def test_aggregation_of_queries(self, embedding: MultiModalEmbedding) -> None:
        one = embedding.get_query_embedding(TEXTS[0])
        assert embedding.get_agg_embedding_from_queries([TEXTS[0], TEXTS[0]]) == pytest.approx(one)

    # -- batches

    def test_text_batch_is_single_in_order(self, embedding: MultiModalEmbedding) -> None:
        assert_close(embedding.get_text_embedding_batch(TEXTS), [embedding.get_text_embedding(text) for text in TEXTS])
        assert_close(embedding.get_text_embedding_batch(TEXTS[::-1]), embedding.get_text_embedding_batch(TEXTS)[::-1])

    def test_image_batch_is_single_in_order(self, embedding: MultiModalEmbedding, pages: list[Any]) -> None:
        batch = embedding.get_image_embedding_batch(pages)
        assert_close(batch, [embedding.get_image_embedding(page) for page in pages])
        assert_close(embedding.get_image_embedding_batch(pages[::-1]), batch[::-1])

    @pytest.mark.parametrize("size", [1, 2, 100])
    def test_the_size_of_a_batch_changes_nothing(
        self, embedding: MultiModalEmbedding, pages: list[Any], size: int
    ) -> None:
        other = self.make(embed_batch_size=size)
        assert_close(other.get_text_embedding_batch(TEXTS), embedding.get_text_embedding_batch(TEXTS))
        assert_close(other.get_image_embedding_batch(pages), embedding.get_image_embedding_batch(pages))

    async def test_nothing_gives_nothing(self, embedding: MultiModalEmbedding) -> None:
        assert embedding.get_text_embedding_batch([]) == []
        assert embedding.get_image_embedding_batch([]) == []
        assert await embedding.aget_text_embedding_batch([]) == []
        assert await embedding.aget_image_embedding_batch([]) == []
        assert embedding([]) == []

    @pytest.mark.parametrize("size", [0, -1, 2049])
    def test_an_impossible_batch_size_is_refused(self, size: int) -> None:
        with pytest.raises(ValidationError, match="embed_batch_size"):
            self.make(embed_batch_size=size)

    # -- async

    async def test_async_is_sync(self, embedding: MultiModalEmbedding, pages: list[Any]) -> None:
        assert_close([await embedding.aget_query_embedding(TEXTS[0])], [embedding.get_query_embedding(TEXTS[0])])
        assert_close([await embedding.aget_text_embedding(TEXTS[0])], [embedding.get_text_embedding(TEXTS[0])])
        assert_close([await embedding.aget_image_embedding(pages[0])], [embedding.get_image_embedding(pages[0])])
        assert_close(await embedding.aget_text_embedding_batch(TEXTS), embedding.get_text_embedding_batch(TEXTS))
        images = await embedding.aget_image_embedding_batch(pages)
        assert_close(images, embedding.get_image_embedding_batch(pages))
        aggregated = await embedding.aget_agg_embedding_from_queries(TEXTS[:2])
        assert aggregated == pytest.approx(embedding.get_agg_embedding_from_queries(TEXTS[:2]), abs=1e-6)

    @pytest.mark.parametrize("workers", [1, 2, 3])
    async def test_workers_change_nothing(self, embedding: MultiModalEmbedding, pages: list[Any], workers: int) -> None:
        other = self.make(num_workers=workers, embed_batch_size=2)
        assert_close(await other.aget_text_embedding_batch(TEXTS), embedding.get_text_embedding_batch(TEXTS))
        images = await other.aget_image_embedding_batch(pages)
        assert_close(images, embedding.get_image_embedding_batch(pages))

    @pytest.mark.parametrize("hook", ["query", "text", "texts", "image", "images"])
    async def test_the_event_loop_goes_on(self, embedding: MultiModalEmbedding, hook: str) -> None:
        ticked = threading.Event()
        text, image = WaitingText(TEXTS[0]), any_image(WaitingImage(ticked))
        text.ticked = ticked
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "query": lambda: embedding.aget_query_embedding(text),
            "text": lambda: embedding.aget_text_embedding(text),
            "texts": lambda: embedding.aget_text_embedding_batch([text]),
            "image": lambda: embedding.aget_image_embedding(image),
            "images": lambda: embedding.aget_image_embedding_batch([image]),
        }

        async def tick() -> None:
            await asyncio.sleep(0.05)
            ticked.set()

        await asyncio.gather(tick(), calls[hook]())

    async def test_concurrent_calls_do_not_mix(self, embedding: MultiModalEmbedding, pages: list[Any]) -> None:
        texts = await asyncio.gather(*(embedding.aget_query_embedding(text) for text in TEXTS * 4))
        assert_close(list(texts), [embedding.get_query_embedding(text) for text in TEXTS] * 4)
        images = await asyncio.gather(*(embedding.aget_image_embedding(page) for page in pages * 2))
        assert_close(list(images), embedding.get_image_embedding_batch(pages) * 2)

    async def test_batches_do_not_all_start_at_once(self) -> None:
        """Pictures that are open (decoded, not yet embedded) are bounded, however long the list."""
        size, count = 2, 20
        lock = threading.Lock()
        opened = 0
        most = 0

        class Ends(Recorder):
            @property
            def done(self) -> int:
                return size * len(self.ends)

        ends = Ends()

        class Watched:
            def __init__(self, number: int) -> None:
                self.number = number
                self.seen = False

            @property
            def image(self) -> Image.Image:
                nonlocal opened, most
                with lock:
                    if not self.seen:
                        self.seen = True
                        opened += 1
                        most = max(most, opened - ends.done)
                return picture(str(self.number), (32, 32))

        embedding = self.make(embed_batch_size=size, num_workers=1, callback_manager=CallbackManager([ends]))
        vectors = await embedding.aget_image_embedding_batch([any_image(Watched(number)) for number in range(count)])
        assert len(vectors) == count == opened
        assert most <= 4 * size

    # -- events

    @staticmethod
    def assert_events(recorder: Recorder, chunks: list[list[str]], embeddings: list[list[float]]) -> None:
        assert [kind for kind, _ in recorder.starts] == [CBEventType.EMBEDDING] * len(chunks)
        assert [kind for kind, _ in recorder.ends] == [CBEventType.EMBEDDING] * len(chunks)
        for _, payload in recorder.starts:
            assert payload[EventPayload.SERIALIZED]["class_name"] == "ColPaliEmbedding"
            json.dumps(payload[EventPayload.SERIALIZED])
        assert [payload[EventPayload.CHUNKS] for _, payload in recorder.ends] == chunks
        told = [vector for _, payload in recorder.ends for vector in payload[EventPayload.EMBEDDINGS]]
        assert told == embeddings

    async def test_callback_events(self, pages: list[Any]) -> None:
        def recorded() -> tuple[MultiModalEmbedding, Recorder]:
            recorder = Recorder()
            return self.make(embed_batch_size=2, callback_manager=CallbackManager([recorder])), recorder

        embedding, recorder = recorded()
        vector = embedding.get_query_embedding(TEXTS[0])
        self.assert_events(recorder, [[TEXTS[0]]], [vector])
        embedding, recorder = recorded()
        vectors = embedding.get_text_embedding_batch(TEXTS)
        self.assert_events(recorder, [TEXTS[:2], TEXTS[2:4], TEXTS[4:]], vectors)
        for images in (pages[:1], pages):
            chunks = [images[start : start + 2] for start in range(0, len(images), 2)]
            embedding, recorder = recorded()
            vectors = embedding.get_image_embedding_batch(images)
            self.assert_events(recorder, chunks, vectors)
            embedding, recorder = recorded()
            vectors = await embedding.aget_image_embedding_batch(images)
            self.assert_events(recorder, chunks, vectors)
        embedding, recorder = recorded()
        self.assert_events(recorder, [], [])
        vector = embedding.get_image_embedding(pages[0])
        self.assert_events(recorder, [pages[:1]], [vector])
        embedding, recorder = recorded()
        vector = await embedding.aget_image_embedding(pages[0])
        self.assert_events(recorder, [pages[:1]], [vector])

    async def test_a_failure_ends_its_event(self) -> None:
        recorder = Recorder()
        embedding = self.make(callback_manager=CallbackManager([recorder]))
        with pytest.raises(ColPaliError):
            embedding.get_image_embedding("missing.png")
        with pytest.raises(ColPaliError):
            await embedding.aget_image_embedding_batch(["missing.png"])
        assert len(recorder.starts) == len(recorder.ends) == 2
        assert all(isinstance(payload[EventPayload.EXCEPTION], ColPaliError) for _, payload in recorder.ends)

    async def test_instrumentation_events(self, listener: Listener) -> None:
        embedding = self.make(embed_batch_size=3)
        calls: list[tuple[Any, list[str]]] = [
            (lambda: asyncio.to_thread(embedding.get_query_embedding, TEXTS[0]), TEXTS[:1]),
            (lambda: asyncio.to_thread(embedding.get_text_embedding, TEXTS[0]), TEXTS[:1]),
            (lambda: embedding.aget_query_embedding(TEXTS[0]), TEXTS[:1]),
            (lambda: embedding.aget_text_embedding(TEXTS[0]), TEXTS[:1]),
            (lambda: embedding.aget_text_embedding_batch(TEXTS[:3]), TEXTS[:3]),
        ]
        for call, chunks in calls:
            listener.events.clear()
            result = await call()
            starts = [event for event in listener.events if isinstance(event, EmbeddingStartEvent)]
            ends = [event for event in listener.events if isinstance(event, EmbeddingEndEvent)]
            assert [event.model_dict["class_name"] for event in starts] == ["ColPaliEmbedding"]
            assert [event.chunks for event in ends] == [chunks]
            assert ends[0].embeddings == (result if isinstance(result[0], list) else [result])

    # -- the cache of the base class

    async def test_the_embeddings_cache_is_used(self) -> None:
        cache = SimpleKVStore()
        embedding = self.make(embeddings_cache=cache)
        vector = embedding.get_text_embedding(TEXTS[0])
        kept = cache.get(TEXTS[0], collection="embeddings")
        assert kept is not None
        assert list(kept.values()) == [vector]
        marker = [1.0] * self.dim
        cache.put(TEXTS[0], {"any": marker}, collection="embeddings")
        assert embedding.get_text_embedding(TEXTS[0]) == marker
        assert (await embedding.aget_text_embedding_batch(TEXTS[:2]))[0] == marker

    # -- as a transformation

    async def test_a_transformation_sets_embeddings(self, embedding: MultiModalEmbedding, pages: list[Any]) -> None:
        def nodes() -> list[TextNode]:
            return [
                TextNode(text=TEXTS[0], metadata={"kept": "yes"}),
                ImageNode(image_path=pages[1], text=TEXTS[2]),
                TextNode(text=TEXTS[3]),
                ImageNode(image_path=pages[2]),
            ]

        given = nodes()
        expected = [
            embedding.get_text_embedding(given[0].get_content(metadata_mode=MetadataMode.EMBED)),
            embedding.get_image_embedding(pages[1]),
            embedding.get_text_embedding(TEXTS[3]),
            embedding.get_image_embedding(pages[2]),
        ]
        assert embedding(given) == given
        assert_close([node.get_embedding() for node in given], expected)
        others = nodes()
        assert await embedding.acall(others) == others
        assert_close([node.get_embedding() for node in others], expected)

    # -- copies

    def test_class_name_and_dict(self) -> None:
        embedding = self.make(embed_batch_size=3)
        data = embedding.to_dict()
        assert data["class_name"] == type(embedding).class_name() == "ColPaliEmbedding"
        assert json.loads(embedding.to_json()) == json.loads(json.dumps(data))
        for again in (type(embedding).from_dict(data), type(embedding).from_json(embedding.to_json())):
            assert again.to_dict() == data
        assert type(embedding).model_validate(embedding.model_dump()).to_dict() == data

    @pytest.mark.parametrize(
        "copied",
        [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), lambda one: one.model_copy(deep=True)],
        ids=["copy", "deepcopy", "pickle", "model_copy"],
    )
    def test_copies(self, copied: Callable[[Any], Any]) -> None:
        embedding = self.make(embed_batch_size=3)
        before = embedding.get_query_embedding(TEXTS[0])
        again = copied(embedding)
        assert type(again) is type(embedding)
        assert again.to_dict() == embedding.to_dict()
        assert again.get_query_embedding(TEXTS[0]) == before

    def test_unknown_arguments_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="batch_size_"):
            self.make(batch_size_=3)

    # -- threads and errors

    def test_threads(self, embedding: MultiModalEmbedding, pages: list[Any]) -> None:
        expected = embedding.get_text_embedding_batch(TEXTS), embedding.get_image_embedding_batch(pages)
        fresh = self.make()
        with ThreadPoolExecutor(6) as threads:
            texts = [threads.submit(fresh.get_text_embedding_batch, TEXTS) for _ in range(6)]
            images = [threads.submit(fresh.get_image_embedding_batch, pages) for _ in range(3)]
            for future in texts:
                assert_close(future.result(), expected[0])
            for future in images:
                assert_close(future.result(), expected[1])

    async def test_a_bad_item_is_named(self, embedding: MultiModalEmbedding, pages: list[Any]) -> None:
        mixed = [*pages, "missing.png"]
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: asyncio.to_thread(embedding.get_image_embedding_batch, mixed),
            lambda: embedding.aget_image_embedding_batch(mixed),
        ]
        for call in calls:
            with pytest.raises(ColPaliError, match=r"missing\.png") as caught:
                await call()
            assert caught.value.index == len(pages)

    @pytest.mark.parametrize("text", ["", "  \n"])
    def test_an_empty_text_is_refused(self, embedding: MultiModalEmbedding, text: str) -> None:
        with pytest.raises(ColPaliError, match="white space"):
            embedding.get_query_embedding(text)
        with pytest.raises(ColPaliError, match="white space"):
            embedding.get_text_embedding(text)


class TestColTiny(MultiModalEmbeddingConformance):
    options: ClassVar[dict[str, Any]] = {}
    dim = 128


class TestColPali(MultiModalEmbeddingConformance):
    """A PaliGemma of a few layers with random weights, in the layout of the Hub's repositories."""

    options: ClassVar[dict[str, Any]] = {"model_name": "Qdrant/colpali-v1.3-fp16", "local_dir": FIXTURES / "paligemma"}
    dim = 128
