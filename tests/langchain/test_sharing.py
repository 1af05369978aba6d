"""One model per process, whatever LangChain does with the object: copies, pickles, rebuilt runnables, threads."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.runnables import ConfigurableField, RunnableConfig
from langchain_core.runnables.base import RunnableSerializable
from PIL import Image

from colpali_integrations.langchain import ColPaliEmbeddings
from colpali_integrations.models.shared import release_shared_models


@pytest.fixture(autouse=True)
def none_loaded() -> Iterator[None]:
    release_shared_models()
    yield
    release_shared_models()


@pytest.fixture
def loaded(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """Names of the graphs that were loaded into sessions so far."""
    with caplog.at_level(logging.INFO, "colpali_integrations"):
        yield lambda: sorted(
            record.getMessage().split()[0] for record in caplog.records if " runs on " in record.getMessage()
        )


def test_making_one_loads_nothing_and_a_query_only_its_half(loaded: Any) -> None:
    embeddings = ColPaliEmbeddings()
    assert loaded() == []
    embeddings.embed_query("violin")
    assert loaded() == ["text.onnx"]


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda one: pickle.loads(pickle.dumps(one)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "model_copy": lambda one: one.model_copy(deep=True),
    "validate": lambda one: ColPaliEmbeddings.model_validate(one.model_dump()),
    "json": lambda one: ColPaliEmbeddings.model_validate_json(one.model_dump_json()),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("used_before", [False, True])
def test_a_copy_is_equal_and_shares_the_model(how: str, used_before: bool, loaded: Any) -> None:
    embeddings = ColPaliEmbeddings(batch_size=3, providers=[("CPUExecutionProvider", {})])
    if used_before:
        embeddings.embed_query("violin")
    twin = COPIES[how](embeddings)
    assert twin == embeddings
    assert twin is not embeddings
    assert twin.embed_query("violin") == embeddings.embed_query("violin")
    assert twin.model is embeddings.model
    assert loaded() == ["text.onnx"]


def test_batch_options_do_not_load_another_model() -> None:
    plain = ColPaliEmbeddings()
    assert ColPaliEmbeddings(batch_size=7, parallel=2, show_progress=True).model is plain.model
    assert ColPaliEmbeddings(threads=1).model is not plain.model


def test_a_pickle_works_in_another_process() -> None:
    embeddings = ColPaliEmbeddings()
    code = "import pickle, sys; print(repr(pickle.load(sys.stdin.buffer).embed_query('violin')))"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(embeddings), capture_output=True, check=True)
    # The same machine and the same files: not one bit differs.
    assert done.stdout.decode().strip() == repr(embeddings.embed_query("violin"))


def test_six_threads_at_once_load_once_and_agree(loaded: Any) -> None:
    barrier = threading.Barrier(6)
    image = Image.new("RGB", (64, 48), "white")

    def work(number: int) -> tuple[list[float], list[list[float]]]:
        embeddings = ColPaliEmbeddings(batch_size=1 + number)
        barrier.wait(timeout=30)
        return embeddings.embed_query("violin"), embeddings.embed_images([image])

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(work, range(6)))
    assert all(result == results[0] for result in results)
    assert loaded() == ["image.onnx", "text.onnx"]


class EmbedQuery(RunnableSerializable[str, list[float]]):
    """A component that makes its embeddings in its constructor, as users' components do."""

    batch_size: int = 1
    embeddings: ColPaliEmbeddings | None = None

    def model_post_init(self, context: Any, /) -> None:
        self.embeddings = ColPaliEmbeddings(batch_size=self.batch_size)

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[float]:
        assert self.embeddings is not None
        return self.embeddings.embed_query(input)


def test_configurable_fields_rebuild_the_component_and_not_the_model(loaded: Any) -> None:
    runnable = EmbedQuery().configurable_fields(batch_size=ConfigurableField(id="batch_size"))
    expected = ColPaliEmbeddings().embed_query("violin")
    for size in (1, 2, 3):
        assert runnable.invoke("violin", {"configurable": {"batch_size": size}}) == expected
    many = runnable.batch(["violin"] * 12, {"configurable": {"batch_size": 4}, "max_concurrency": 6})
    assert many == [expected] * 12
    assert loaded() == ["text.onnx"]


def test_released_models_load_again_when_needed(loaded: Any) -> None:
    embeddings = ColPaliEmbeddings()
    before = embeddings.embed_query("violin")
    release_shared_models()
    assert embeddings.embed_query("violin") == before
    assert loaded() == ["text.onnx", "text.onnx"]
