from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, ModelNotFoundError
from colpali_integrations.models.hub import bundled_folder
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.registry import find_model, register_model
from colpali_integrations.models.shared import release_shared_models, shared_model


@pytest.fixture(autouse=True)
def none_shared() -> Iterator[None]:
    release_shared_models()
    yield
    release_shared_models()


def shared(name: str = "coltiny", **options: Any) -> ColPali:
    return shared_model(name, ModelOptions(**options))


@pytest.fixture
def folder() -> Path:
    return bundled_folder(find_model("coltiny"))


def test_equal_options_share_one_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared_model()
    assert shared_model("coltiny") is model
    assert shared("ColTiny", threads=None) is model
    assert shared(providers=["CPUExecutionProvider"]) is shared(providers=("CPUExecutionProvider",))
    assert shared(providers=[("CPUExecutionProvider", {"a": "1", "b": "2"})]) is shared(
        providers=[("CPUExecutionProvider", {"b": "2", "a": "1"})]
    )
    local = shared("coltiny", local_dir=folder)
    assert shared("coltiny", local_dir=str(folder)) is local
    monkeypatch.chdir(folder.parent)
    assert shared("coltiny", local_dir=folder.name) is local


def test_other_options_make_another_model(folder: Path) -> None:
    different = [
        shared_model(),
        shared(threads=1),
        shared(split_graph=False),
        shared(url_timeout=1.0),
        shared(providers=["CPUExecutionProvider"]),
        shared(local_dir=folder),
    ]
    assert len({id(model) for model in different}) == len(different)


def test_a_path_means_a_folder_even_if_a_model_has_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shared_model("coltiny")
    with pytest.raises(ModelNotFoundError, match="no folder at coltiny"):
        shared_model(Path("coltiny"))


def test_a_relative_folder_means_the_one_in_the_present_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").symlink_to(folder)
        monkeypatch.chdir(tmp_path / name)
        found.append(shared("coltiny", local_dir="model"))
    assert found[0] is not found[1]


@pytest.mark.usefixtures("own_registry")
def test_a_model_registered_anew_is_another_model(folder: Path) -> None:
    first = register_model(replace(find_model("coltiny"), name="mine"))
    before = shared("mine", local_dir=folder)
    register_model(replace(first, max_query_tokens=2), replace=True)
    after = shared("mine", local_dir=folder)
    assert (before.description.max_query_tokens, after.description.max_query_tokens) == (512, 2)


def test_an_error_of_from_pretrained_is_raised_at_every_call() -> None:
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            shared(threads=0)
        with pytest.raises(ModelNotFoundError):
            shared_model("no-such-model")


def test_many_threads_make_one_model() -> None:
    barrier = threading.Barrier(8)

    def work(_: int) -> int:
        barrier.wait(timeout=30)
        return id(shared(threads=1))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(work, range(8)))) == 1


def test_a_released_model_stays_usable_for_its_callers() -> None:
    model = shared_model()
    before = next(model.embed_queries("violin"))
    release_shared_models()
    assert shared_model() is not model
    assert (next(model.embed_queries("violin")) == before).all()


def test_asking_is_cheap_enough_for_every_call() -> None:
    shared_model()
    started = time.thread_time()
    for _ in range(100):
        shared("coltiny", threads=None)
    # About 15 us per call; loading takes hundreds of milliseconds, so this only fails if a model is loaded or hashed.
    assert (time.thread_time() - started) / 100 < 0.01


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_makes_its_own_sessions_and_can_release_them() -> None:
    """Threads of a session do not survive a fork: a child that destroys its parent's session waits for ever."""
    code = """
import os, sys, warnings
warnings.simplefilter("ignore")  # newer Pythons warn of any fork beside threads
from PIL import Image
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.shared import release_shared_models, shared_model
picture = Image.new("RGB", (200, 150), "white")
def work():
    model = shared_model(options=ModelOptions(threads=2))
    return [next(model.embed_images(picture)).tolist(), next(model.embed_queries("violin")).tolist()]
before = work()
child = os.fork()
if child == 0:
    same = work() == before
    release_shared_models()
    sys.exit(0 if same else 1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        assert process.wait(timeout=40) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a child that hangs would outlive its parent
        process.wait()
