"""Ctrl-C and SIGTERM while a run waits for a server: processes of their own, which end at once and are gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from colpali_integrations.errors import StoreError
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.qdrant import retries
from colpali_integrations.stores.runs import Run, running
from tests.cli.test_serve import serving, url_in
from tests.stores.backends import MODEL, entry, page
from tests.stores.qdrant.clocks import FakeClock
from tests.stores.qdrant.stand_in import StandIn, stand_in

COUNT = 200
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell may have it ignored
COMMAND = f"{HEED}; from colpali_integrations.cli import main; main()"
ADDING = f"""{HEED}
import sys
from colpali_integrations.stores import MultiVectorStore
from tests.stores.backends import MODEL, entry, page

store = MultiVectorStore.open(url=sys.argv[1], model=MODEL)
store.add((entry(number), page(number)) for number in range({COUNT}))
"""
# Of the 60 seconds that a run waits; an idle machine takes a few tenths, and two seconds to come up.
SECONDS = 10


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def target(server: StandIn, tmp_path: Path) -> Path:
    file = tmp_path / "server.json"
    file.write_text(json.dumps({"url": server.url, "model": "coltiny"}))
    return file


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "COLUMNS": "500"}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def stopped_once(server: StandIn, is_time: Callable[[str, str], bool]) -> None:
    """Stop a server once it has answered such a request."""
    until = time.monotonic() + 60
    while not any(is_time(method, path) for method, path, _ in [*server.asked]):
        assert time.monotonic() < until
        time.sleep(0.005)
    server.stop()


def stores_points(method: str, path: str) -> bool:
    return method == "PUT" and path.endswith("/points")


def ended(child: subprocess.Popen[str], number: signal.Signals) -> tuple[str, float]:
    """Interrupt a process that waits for its server, and return what it said, and how long it took."""
    assert child.stderr is not None
    said = ""
    while "trying again" not in said:
        said += (line := child.stderr.readline())
        assert line, said
    since = time.monotonic()
    child.send_signal(number)
    _, rest = child.communicate(timeout=30)
    return said + rest, time.monotonic() - since


def ids_of(server: StandIn) -> list[str]:
    with MultiVectorStore.open(url=server.url) as store:
        return [one.id for one in store.scroll()]


def command(*arguments: object) -> Sequence[str]:
    return [sys.executable, "-c", COMMAND, *map(str, arguments)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_copy_ends_at_once_and_goes_on(server: StandIn, target: Path, tmp_path: Path, number: signal.Signals) -> None:
    with MultiVectorStore.open(tmp_path / "source", model=MODEL) as source:
        source.add((entry(one), page(one)) for one in range(COUNT))
        target.write_text(json.dumps({"url": server.url}))
    with process(COMMAND, "copy", str(tmp_path / "source"), str(target)) as child:
        stopped_once(server, stores_points)
        said, seconds = ended(child, number)
    server.start()
    stored = len(ids_of(server))
    assert (child.returncode, seconds < SECONDS) == (130, True), said
    assert 0 < stored < COUNT
    pages = "page is" if stored == 1 else "pages are"
    assert f"Interrupted. {stored} {pages} stored now; copy again, and those that are there stay." in said
    assert "Traceback" not in said
    subprocess.run(command("copy", tmp_path / "source", target), check=True, capture_output=True)
    assert sorted(ids_of(server)) == sorted(f"page {one}" for one in range(COUNT))


def test_indexing_ends_at_once_and_goes_on(server: StandIn, target: Path, examples_folder: Path) -> None:
    arguments = ["index", str(examples_folder / "report.pdf"), "--store", str(target)]
    with process(COMMAND, *arguments) as child:
        stopped_once(server, lambda _, path: path.endswith("/points/delete"))  # which asks whether the key may write
        said, seconds = ended(child, signal.SIGTERM)
    assert (child.returncode, seconds < SECONDS) == (130, True), said
    assert "Interrupted. Finished pages are kept; the same command continues from there." in said
    assert "Traceback" not in said
    server.start()
    assert ids_of(server) == []
    for added in (2, 0):
        done = subprocess.run(command(*arguments, "--json"), check=True, capture_output=True, text=True)
        assert json.loads(done.stdout)["added"] == added
    assert len(set(ids_of(server))) == len(ids_of(server)) == 2


@pytest.mark.slow
def test_a_server_ends_during_an_upload_and_goes_on_with_it(
    server: StandIn, target: Path, examples_folder: Path
) -> None:
    command = [sys.executable, "-c", COMMAND, "serve", "--port", "0"]
    variables = {"PYTHONPATH": str(Path(__file__).parents[3])}
    with serving(target, command=command, **variables) as (child, lines):
        server.asked.clear()
        with (examples_folder / "report.pdf").open("rb") as file:
            answer = httpx.post(f"{url_in(lines)}/v1/documents", files={"file": file}, trust_env=False)
        assert answer.status_code == 202, answer.text
        stopped_once(server, lambda method, path: method == "POST" and path.endswith("/points"))  # looking up its pages
        said, seconds = ended(child, signal.SIGTERM)
    assert (child.returncode, seconds < SECONDS) == (0, True), said
    assert "was given up" not in said
    assert "Traceback" not in said
    server.start()
    with serving(target, command=command, **variables) as (child, lines):
        until = time.monotonic() + 60
        while len(ids_of(server)) < 2:
            assert time.monotonic() < until
            time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)
    assert len(set(ids_of(server))) == len(ids_of(server)) == 2


def test_the_batches_of_a_script_are_given_up_at_once(server: StandIn) -> None:
    with process(ADDING, server.url) as child:
        stopped_once(server, stores_points)
        said, seconds = ended(child, signal.SIGINT)
    assert (child.returncode, seconds < SECONDS) == (-signal.SIGINT, True), said
    server.start()
    stored = len(ids_of(server))
    assert stored in (64, 128, 192)
    assert f"KeyboardInterrupt: {stored} pages are stored; add the records again, which replaces those" in said


def test_a_stop_event_and_an_interruption_end_the_same_wait(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        stop = threading.Event()
        run = Run(stop=stop)
        assert run.end.wait(0.01) is run.end.is_set() is False
        (stop.set if number else run.interrupt)()
        assert run.end.wait(60) is run.end.is_set() is True
    clock = FakeClock()
    monkeypatch.setattr(retries, "CLOCK", clock)
    with MultiVectorStore.open(url=server.url, model=MODEL) as store, running("{stored}; again") as run:
        store.add([(entry(1), page(1))])
        server.stop()
        clock.then = lambda _: run.interrupt()
        with pytest.raises(StoreError, match="tried again for 0 s"):
            len(store)
    server.start()


def test_an_interruption_tells_what_is_stored(server: StandIn) -> None:
    def records(count: int) -> Iterator[object]:
        for number in range(count):
            yield entry(number), page(number)
        raise KeyboardInterrupt

    with MultiVectorStore.open(url=server.url, model=MODEL) as store:
        with pytest.raises(KeyboardInterrupt, match=r"^3 pages are stored; add the records again"):
            store.add(records(3))  # type: ignore[arg-type]
        assert len(store) == 3
    with MultiVectorStore.open(model=MODEL) as store, pytest.raises(KeyboardInterrupt) as plain:
        store.add(records(3))  # type: ignore[arg-type]
    assert plain.value.args == ()
