"""`ColPali`: its documented behaviour, with the bundled model and with tiny ones of the real architectures."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from colpali_integrations import ColPali, max_sim, pdf_pages
from colpali_integrations.errors import (
    ColPaliError,
    ConfigurationError,
    EncodingError,
    ImageError,
    ModelNotFoundError,
    PdfError,
    ProviderError,
    QueryError,
)
from colpali_integrations.models import encoding
from colpali_integrations.runtime.arrays import Graphs
from colpali_integrations.runtime.graph_session import GraphSession, SessionConfig
from colpali_integrations.runtime.runs import Runs
from colpali_integrations.runtime.session import ModelSessions
from tests.runtime.threads import pipeline_threads

FIXTURES = Path(__file__).parent.parent / "parity" / "fixtures"
PAGED = FIXTURES / "paligemma"
SLIDES = Path(__file__).parents[2] / "demo" / "pdfs" / "metropolis-slides.pdf"
NAMES = ("coltiny", "paligemma", "idefics3")


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> ColPali:
    found: ColPali = request.getfixturevalue(request.param)
    return found


def page(text: str, size: tuple[int, int] = (300, 200)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).multiline_text((10, 20), text, fill="black", font=ImageFont.load_default(20))
    return image


PAGES = [page("harbour crane"), page("violin", (200, 300)), page("mitochondria"), page("tax return 1998", (320, 320))]
QUERIES = ["harbour", "how do I tune a violin?", "mitochondria", "the tax return of 1998", "violin harbour"]


def test_the_bundled_model_finds_words_on_pages(coltiny: ColPali) -> None:
    scores = max_sim(list(coltiny.embed_queries(QUERIES[:4])), list(coltiny.embed_images(PAGES)))
    assert scores.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_rows_are_float32_finite_and_of_length_one_where_promised(model: ColPali) -> None:
    arrays = [*model.embed_images(PAGES[:2]), *model.embed_queries(QUERIES[:2])]
    for array in arrays:
        assert array.dtype == np.float32
        assert array.ndim == 2
        assert array.shape[1] == model.dim == model.description.dim
        assert array.flags.c_contiguous
        assert array.base is None, "a view would keep the whole batch in memory"
        assert np.isfinite(array).all()
        if model.description.unit_length:
            np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, atol=1e-5)


def test_a_query_does_not_depend_on_its_batch(model: ColPali) -> None:
    alone = [next(model.embed_queries(text)) for text in QUERIES]
    for batch_size in (1, 2, 64):
        for order in (list(range(len(QUERIES))), [3, 0, 4, 2, 1]):
            together = list(model.embed_queries([QUERIES[i] for i in order], batch_size=batch_size))
            for i, vectors in zip(order, together, strict=True):
                assert vectors.shape == alone[i].shape
                np.testing.assert_allclose(vectors, alone[i], atol=2e-6)


@pytest.mark.slow
def test_a_page_does_not_depend_on_its_batch(model: ColPali) -> None:
    pages = PAGES[:3]
    alone = [next(model.embed_images(image)) for image in pages]
    for options in ({"batch_size": 3}, {"batch_size": 2, "parallel": 0}):
        for image_vectors, expected in zip(model.embed_images(pages, **options), alone, strict=True):  # type: ignore[arg-type]
            assert image_vectors.shape == expected.shape
            np.testing.assert_allclose(image_vectors, expected, atol=2e-5)


def test_queries_in_parallel_are_the_same_queries(model: ColPali) -> None:
    plain = list(model.embed_queries(QUERIES * 3))
    parallel = list(model.embed_queries(iter(QUERIES * 3), batch_size=2, parallel=3))
    for a, b in zip(plain, parallel, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_token_count_is_the_number_of_query_vectors(model: ColPali) -> None:
    vectors = list(model.embed_queries(QUERIES))
    assert model.token_count(QUERIES) == sum(len(array) for array in vectors)
    assert model.token_count(QUERIES[1]) == len(vectors[1])
    assert model.token_count(QUERIES, include_special=False) <= model.token_count(QUERIES)


@pytest.fixture
def session_log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """A function that lists the graphs of the sessions made in this test; each session logs its graph and provider."""
    caplog.set_level(logging.INFO, "colpali_integrations.runtime")
    return lambda: [record.message.split()[0] for record in caplog.records if " runs on " in record.message]


def test_token_count_and_lazy_load_make_no_session(session_log: Callable[[], list[str]]) -> None:
    lazy = ColPali.from_pretrained("Qdrant/colpali-v1.3-fp16", local_dir=FIXTURES / "paligemma", lazy_load=True)
    assert lazy.token_count("what is it") > 3
    assert session_log() == []
    next(lazy.embed_queries("what is it"))
    assert session_log() == ["model.onnx"], "a query needs the text half alone"
    next(lazy.embed_images(PAGES[0]))
    assert session_log() == ["model.onnx", "model.onnx"]


def test_many_threads_make_one_session(session_log: Callable[[], list[str]]) -> None:
    lazy = ColPali.from_pretrained(lazy_load=True)
    together = threading.Barrier(6)
    results: list[np.ndarray[Any, Any]] = []

    def ask() -> None:
        together.wait()
        results.extend(lazy.embed_queries("harbour"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(session_log()) == 1
    assert len(results) == 6
    for array in results[1:]:
        np.testing.assert_array_equal(array, results[0])


def test_generators_in_and_out(coltiny: ColPali) -> None:
    pulled: list[int] = []

    def endless() -> Iterator[Image.Image]:
        while True:
            pulled.append(1)
            yield PAGES[len(pulled) % 4]

    results = coltiny.embed_images(endless(), batch_size=2, parallel=2)
    assert [next(results).shape[1] for _ in range(3)] == [128] * 3
    results.close()
    assert len(pulled) <= 3 + 4 * 2 + 2
    assert not pipeline_threads()


@pytest.mark.parametrize("images", [[], (), iter([])])
def test_no_input_gives_no_output(model: ColPali, images: Any) -> None:
    assert list(model.embed_images(images)) == []
    assert list(model.embed_queries([])) == []


def test_one_item_may_come_without_a_list(coltiny: ColPali, tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    PAGES[0].save(path)
    expected = next(coltiny.embed_images([PAGES[0]]))
    for one in (PAGES[0], path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), np.asarray(PAGES[0])):
        [vectors] = coltiny.embed_images(one)
        np.testing.assert_array_equal(vectors, expected)
    with path.open("rb") as file:
        file.read(7)
        [vectors] = coltiny.embed_images(file)
    np.testing.assert_array_equal(vectors, expected)


def test_the_error_of_a_bad_page_comes_after_the_good_pages_and_has_its_position(coltiny: ColPali) -> None:
    done: list[Any] = []
    with pytest.raises(ImageError) as caught:
        for vectors in coltiny.embed_images([PAGES[0], PAGES[1], b"not an image", PAGES[2]], batch_size=2):
            done.append(vectors)
    assert len(done) == 2
    assert caught.value.index == 2
    assert str(caught.value).startswith("item 2 (12 bytes): ")


def test_bad_pages_are_skipped_or_collected_as_asked(coltiny: ColPali, caplog: pytest.LogCaptureFixture) -> None:
    images: list[Any] = [PAGES[0], "no/such/file.png", PAGES[1], b""]
    assert len(list(coltiny.embed_images(images, on_error="skip"))) == 2
    assert [record.message.split(":")[0] for record in caplog.records if record.message.startswith("skipped")] == [
        "skipped item 1 (no/such/file.png)",
        "skipped item 3 (0 bytes)",
    ]
    seen: list[Any] = []
    for vectors in coltiny.embed_images(images, on_error=seen.append):
        seen.append(vectors)
    good, missing, also_good, empty = seen
    assert isinstance(good, np.ndarray)
    assert isinstance(also_good, np.ndarray)
    assert isinstance(missing, ImageError)
    assert isinstance(empty, ColPaliError)
    assert (missing.index, empty.index) == (1, 3)


def test_an_error_raised_by_the_callers_function_ends_the_stream(coltiny: ColPali) -> None:
    def stop(error: ColPaliError) -> None:
        raise StopAsyncIteration(str(error))

    with pytest.raises(StopAsyncIteration, match="item 1"):
        list(coltiny.embed_images([PAGES[0], b"", PAGES[1]], on_error=stop))
    assert not pipeline_threads()


def test_one_query_and_one_pdf(coltiny: ColPali) -> None:
    np.testing.assert_array_equal(coltiny.embed_query(QUERIES[1]), next(coltiny.embed_queries(QUERIES[1])))
    with pytest.raises(QueryError):
        coltiny.embed_query(["a", "b"])  # type: ignore[arg-type]
    pages = list(coltiny.embed_pdf(SLIDES.read_bytes(), dpi=60, pages=[3, 1]))
    for mine, theirs in zip(pages, coltiny.embed_images(pdf_pages(SLIDES, dpi=60, pages=[3, 1])), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(PdfError, match="page 99"):
        list(coltiny.embed_pdf(SLIDES, pages=[99]))


@pytest.mark.parametrize("text", ["", "   ", "\n\t ", "\u3000"])
def test_an_empty_query_is_refused(model: ColPali, text: str) -> None:
    with pytest.raises(QueryError, match=r"item 1 .*white space"):
        list(model.embed_queries(["fine", text]))
    with pytest.raises(QueryError):
        model.token_count(text)


@pytest.mark.parametrize("text", [None, 3, b"bytes", "\ud800"])
def test_a_query_that_is_no_text_is_refused(model: ColPali, text: Any) -> None:
    with pytest.raises(QueryError):
        list(model.embed_queries([text]))


def test_a_long_query_keeps_its_augmentation_and_warns_once(paligemma: ColPali) -> None:
    long = "harbour " * 3000
    fresh = ColPali.from_pretrained("Qdrant/colpali-v1.3-fp16", local_dir=FIXTURES / "paligemma")
    with pytest.warns(UserWarning, match="is cut to 512"):
        ids = fresh.family.queries.prepare(long).ids
    again = fresh.family.queries.prepare(long).ids  # no second warning: warnings are errors here
    np.testing.assert_array_equal(ids, again)
    short = fresh.family.queries.prepare("harbour").ids
    np.testing.assert_array_equal(ids[-11:], short[-11:])
    lead = 3  # "Query", ":" and the space of the tiny tokenizer
    assert len(ids) == 1 + lead + 512 + 11
    assert fresh.token_count(long, include_special=False) == 512


@pytest.mark.parametrize("spelled", ["<image>", "<pad>", "<bos>", "<eos>", "find <image><image> here"])
def test_spelled_out_special_tokens_stay_text(paligemma: ColPali, spelled: str) -> None:
    plain = paligemma.family.queries.prepare("x").ids
    ids = paligemma.family.queries.prepare(spelled).ids
    special = {0, 1, 2, int(paligemma.family.pages.prepare(PAGES[0]).ids[0])}
    assert not special & set(ids[1:-11].tolist())
    assert ids[0] == plain[0]
    np.testing.assert_array_equal(ids[-11:], plain[-11:])


@pytest.mark.parametrize(
    "bad", [{"parallel": -1}, {"parallel": 10**30}, {"batch_size": 0}, {"batch_size": -3}, {"on_error": "ignore"}]
)
def test_invalid_options_are_refused(coltiny: ColPali, bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        list(coltiny.embed_images(PAGES, **bad))


@pytest.mark.parametrize("bad", [{"threads": 0}, {"device_ids": [0, 0]}, {"providers": []}, {"providers": "CPU"}])
def test_invalid_load_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ColPali.from_pretrained(**bad)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"device": "cuda"}, r'no option .device.; pass providers=\["CUDAExecutionProvider"\]'),
        ({"cuda": True}, "CUDAExecutionProvider"),
        ({"device_map": "auto"}, "CUDAExecutionProvider"),
        ({"dtype": "float16"}, "precision"),
        ({"torch_dtype": None}, "precision"),
        ({"thread": 2}, "did you mean 'threads'"),
        ({"lazyload": True}, "did you mean 'lazy_load'"),
    ],
)
def test_options_of_other_libraries_are_refused_with_the_right_option(wrong: dict[str, Any], advice: str) -> None:
    with pytest.raises(ConfigurationError, match=advice):
        ColPali.from_pretrained(**wrong)


def test_a_gpu_that_is_not_there_is_an_error_and_not_the_cpu() -> None:
    with pytest.raises(ProviderError, match="onnxruntime-gpu"):
        ColPali.from_pretrained(providers=["CUDAExecutionProvider"])
    with pytest.raises(ProviderError):
        ColPali.from_pretrained(device_ids=[0, 1])


def test_cpu_by_name_with_options_and_threads_gives_the_same(coltiny: ColPali) -> None:
    other = ColPali.from_pretrained(
        providers=[("CPUExecutionProvider", {})], threads=1, enable_cpu_mem_arena=False, split_graph=False
    )
    np.testing.assert_allclose(next(other.embed_images(PAGES[0])), next(coltiny.embed_images(PAGES[0])), atol=1e-5)


def test_an_unknown_name_suggests_a_known_one() -> None:
    with pytest.raises(ModelNotFoundError, match=r"Qdrant/colpali-v1\.3-fp16"):
        ColPali.from_pretrained("qdrant/colpali-v1.3")


def test_close_releases_and_the_next_use_loads_again() -> None:
    with ColPali.from_pretrained() as model:
        before = next(model.embed_queries("harbour"))
    assert not model._sessions[0]._queries._values
    np.testing.assert_array_equal(next(model.embed_queries("harbour")), before)


class NotFinite(ModelSessions):
    """Sessions whose vectors of queries have a NaN."""

    calls = 0

    def queries(self, feed: Any, runs: Any = None) -> Any:
        self.calls += 1
        outputs = dict(super().queries(feed, runs))
        outputs["vectors"] = outputs["vectors"].copy()
        outputs["vectors"][0, 0] = np.nan
        return outputs


def test_values_that_are_not_finite_are_an_error(coltiny: ColPali) -> None:
    sessions = NotFinite(coltiny.family.graphs, SessionConfig())
    with pytest.raises(EncodingError, match=r"item 0 \('harbour'\): .*not finite"):
        next(ColPali(coltiny.family, [sessions], coltiny.description).embed_queries("harbour"))
    assert sessions.calls == 1


async def test_async_twins_give_the_same_and_leave_the_loop_free(coltiny: ColPali) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticker = asyncio.create_task(tick())
    pages = [vectors async for vectors in coltiny.aembed_images(PAGES * 3)]
    queries = [vectors async for vectors in coltiny.aembed_queries(QUERIES)]
    ticker.cancel()
    assert ticks > 3
    for mine, theirs in zip(pages, list(coltiny.embed_images(PAGES)) * 3, strict=True):
        assert isinstance(mine, np.ndarray)
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
    for mine, theirs in zip(queries, coltiny.embed_queries(QUERIES), strict=True):
        np.testing.assert_array_equal(mine, theirs)


async def test_an_abandoned_async_iteration_leaves_nothing_behind(coltiny: ColPali) -> None:
    stream = coltiny.aembed_images(PAGES * 50, batch_size=1)
    async for _ in stream:
        break
    await stream.aclose()
    assert not pipeline_threads()


def test_progress_goes_to_stderr(coltiny: ColPali, capsys: pytest.CaptureFixture[str]) -> None:
    list(coltiny.embed_images(PAGES, show_progress=True))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pages" in captured.err


def test_a_run_can_be_ended_from_another_thread(coltiny: ColPali) -> None:
    codec = coltiny.family.pages
    feed = codec.feed([codec.prepare(page("harbour", (1152, 1152)))] * 16)
    runs, errors = Runs(), list[Exception]()

    def run() -> None:
        try:
            coltiny._sessions[0].pages(feed, runs)
        except EncodingError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not runs._active and thread.is_alive():
        time.sleep(0.001)
    runs.end()
    thread.join()
    assert "terminate" in str(errors[0])
    with pytest.raises(EncodingError, match="terminate"):  # and no other starts
        coltiny._sessions[0].pages(feed, runs)
    coltiny._sessions[0].pages(codec.feed([codec.prepare(PAGES[0])]))


async def test_a_cancelled_task_leaves_nothing_behind(coltiny: ColPali) -> None:
    async def read() -> None:
        async for _ in coltiny.aembed_images(PAGES * 50, batch_size=1):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(3000):
        if not pipeline_threads():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("threads are still at work")


class Meeting(ModelSessions):
    """Sessions whose page runs pass only if those of two devices are at work at the same time."""

    together = threading.Barrier(2, timeout=30)
    runs = 0

    def pages(self, feed: Any, runs: Any = None, *, at_once: int = 1) -> Any:
        self.runs += 1
        self.together.wait()
        return super().pages(feed, runs, at_once=at_once)


def test_each_device_has_a_session_and_gets_batches(coltiny: ColPali) -> None:
    with ColPali.from_pretrained(providers=["CPUExecutionProvider"], device_ids=[0, 1], lazy_load=True) as two:
        assert [sessions._config.device_id for sessions in two._sessions] == [0, 1]
    devices = [Meeting(coltiny.family.graphs, SessionConfig()) for _ in range(2)]
    results = list(ColPali(coltiny.family, devices, coltiny.description).embed_images(PAGES))
    assert [sessions.runs for sessions in devices] == [2, 2]
    for vectors, expected in zip(results, coltiny.embed_images(PAGES), strict=True):
        np.testing.assert_allclose(vectors, expected, atol=2e-5)


class Counted(ModelSessions):
    """Sessions on four cores that count the page runs at the same time when each begins, itself included."""

    def __init__(self, graphs: Graphs, config: SessionConfig, most: int) -> None:
        super().__init__(graphs, config, cores=4)
        self.counts: list[int] = []
        self.threads: list[int | None] = []  # of each session that was made
        self._lock, self._running = threading.Lock(), 0
        self._together = threading.Barrier(most, timeout=30)

    def _load(
        self, side: Literal["pages", "queries"], config: SessionConfig, *, half: Literal["pages", "text"] | None = None
    ) -> GraphSession:
        self.threads.append(config.threads)
        session = super()._load(side, config, half=half)
        return cast(GraphSession, CountedSession(session, self)) if half == "pages" else session

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
            self.counts.append(self._running)
        try:
            self._together.wait()  # fails if fewer than `most` ever run at once
            yield
        finally:
            with self._lock:
                self._running -= 1


class CountedSession:
    def __init__(self, session: GraphSession, sessions: Counted) -> None:
        self._session, self._sessions = session, sessions

    def run(self, feed: Any, runs: Runs | None = None) -> Any:
        with self._sessions.counted():
            return self._session.run(feed, runs)


@pytest.fixture(scope="module")
def expected(paligemma: ColPali) -> list[NDArray[np.float32]]:
    return list(paligemma.embed_images(PAGES))


@pytest.mark.parametrize(
    ("threads", "parallel", "most", "per_run"),
    [
        *((None, 6, 4, 1), (None, 0, 4, 1), (None, 4, 4, 1), (None, 2, 2, 2), (None, 1, 1, None)),
        *((None, None, 1, None), (3, 6, 1, 3), (2, 6, 2, 2), (1, 6, 4, 1), (5, 6, 1, 5), (2, None, 1, 2)),
    ],
)
def test_page_runs_at_once_have_cores_to_themselves(
    paligemma: ColPali,
    expected: list[NDArray[np.float32]],
    threads: int | None,
    parallel: int | None,
    most: int,
    per_run: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoding, "available_cores", lambda: 4)
    most = min(most, parallel or 4)
    sessions = Counted(paligemma.family.graphs, SessionConfig(threads=threads), most)
    with ColPali(paligemma.family, [sessions], paligemma.description) as model:
        found = list(model.embed_images(iter(PAGES * 2), parallel=parallel))
    assert len(sessions.counts) == 8
    assert max(sessions.counts) == most
    assert sessions.threads == [per_run] * 2  # a tower and a text half, and no other
    for vectors, other in zip(found, expected * 2, strict=True):
        np.testing.assert_allclose(vectors, other, atol=2e-5)


@pytest.mark.parametrize("images", [PAGES[0], PAGES[:1], iter(PAGES[:1]), []], ids=["one", "a list", "any", "none"])
def test_a_lone_page_has_all_cores(paligemma: ColPali, images: Any) -> None:
    sessions = Counted(paligemma.family.graphs, SessionConfig(), 1)
    with ColPali(paligemma.family, [sessions], paligemma.description) as model:
        found = list(model.embed_images(images, parallel=4))
        assert sessions.threads == [None] * 2 * len(found)
        list(model.embed_images(PAGES[:1], parallel=4, batch_size=2))
        assert sessions.threads == [None] * 2


def test_sessions_that_were_not_used_leave_with_the_first_pages_in_parallel(paligemma: ColPali) -> None:
    sessions = Counted(paligemma.family.graphs, SessionConfig(), 1)
    with ColPali(paligemma.family, [sessions], paligemma.description) as model:
        model.load()
        model.embed_query("low tide")
        list(model.embed_images(PAGES, parallel=4))
        assert sessions.threads == [None, None, 1, 1]
        model.embed_query("low tide")  # its session was used
        assert len(sessions.threads) == 4
        list(model.embed_images(PAGES[:1]))  # the tower was not
        assert sessions.threads == [None, None, 1, 1, None]


def test_pages_in_parallel_load_nothing_else(paligemma: ColPali) -> None:
    sessions = Counted(paligemma.family.graphs, SessionConfig(), 1)
    with ColPali(paligemma.family, [sessions], paligemma.description) as model:
        list(model.embed_images(PAGES, parallel=4))
        assert sessions.threads == [1, 1]
        list(model.embed_images(PAGES, parallel=2))  # two threads each, in the place of the others
        list(model.embed_images(PAGES, parallel=2))
        assert sessions.threads == [1, 1, 2, 2]


def test_an_error_of_the_source_comes_after_the_pages_before_it(paligemma: ColPali) -> None:
    def source(good: int) -> Iterator[Any]:
        yield from PAGES[:good]
        raise OSError("the source ended")

    for good in range(4):
        found: list[Any] = []
        with pytest.raises(OSError, match="the source ended"):
            found += (vectors for vectors in paligemma.embed_images(source(good), parallel=2))
        assert len(found) == good


def test_the_callers_generator_stays_open(paligemma: ColPali) -> None:
    generator = (page for page in PAGES * 3)
    results = paligemma.embed_images(generator, parallel=2)
    next(results)
    results.close()
    assert next(generator, None) is not None


def test_a_query_does_not_wait_for_a_page() -> None:
    with ColPali.from_pretrained(PAGED) as model:
        engine = model._sessions[0]
        with engine._cores.hold(10**6):  # as long as a page runs
            assert len(list(model.embed_queries(QUERIES[:1]))) == 1


def test_an_abandoned_iteration_does_not_keep_the_place_of_its_run() -> None:
    with ColPali.from_pretrained(PAGED) as model:
        pages = model.embed_images(PAGES * 8, parallel=4)
        next(pages)
        pages.close()
        assert len(list(model.embed_images(PAGES, parallel=2))) == len(PAGES)
