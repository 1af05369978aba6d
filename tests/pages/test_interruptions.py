"""Ctrl-C and broken pipes: no process of the pool is lost, and no caller ends without being asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from colpali_integrations.errors import PdfError
from colpali_integrations.pages import isolation
from colpali_integrations.pages._process import Reply, WorkerEndedError
from colpali_integrations.pages.isolation import IsolatedReader, WorkerPool
from colpali_integrations.pdfium.limits import Limits
from colpali_integrations.pdfium.messages import unpack
from tests.pages.hostile import TINY_PATTERN_STEPS
from tests.pages.test_pdf import simple

ROOT = Path(__file__).parents[2]
on_posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
SHORT = Limits(cpu_seconds=1, seconds=60, memory=300_000_000)


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(SHORT, most=2)
    yield pool
    pool.end()


class NoDocument:
    """A document that is open nowhere."""

    closed = False


STORM = """
import random, signal, time
from colpali_integrations.pages.isolation import WorkerPool

class NoDocument:
    closed = False

def interrupt(*_):
    raise KeyboardInterrupt

pool, document, chance, interrupted = WorkerPool(most=2), NoDocument(), random.Random(0), 0
signal.signal(signal.SIGALRM, interrupt)
end = time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(2e-6, 2e-4))
        for _ in range(20):
            with pool.lease(document):
                pool.release(document)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
    if pool._lock.locked() or [slot.holder for slot in pool._slots] != [None, None]:
        break
signal.signal(signal.SIGALRM, signal.SIG_IGN)
print(interrupted, pool._lock.locked(), [slot.holder for slot in pool._slots])
"""


@on_posix
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 can interrupt between any two steps")
def test_an_interruption_at_any_moment_loses_no_slot() -> None:
    """In a process of its own, whose other code may be interrupted too."""
    ended = subprocess.run(
        [sys.executable, "-c", STORM], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    number, *state = ended.stdout.split(maxsplit=1)
    assert (state, ended.stderr) == (["False [None, None]\n"], "")
    assert int(number) > 100


def ends_soon(call: Any) -> bool:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_a_thread_waits_for_a_process_and_gets_it() -> None:
    pool, document = WorkerPool(most=1), NoDocument()
    lease: Any = pool.lease(document)  # type: ignore[arg-type]
    lease.__enter__()
    got = threading.Event()

    def wait() -> None:
        with pool.lease(document):  # type: ignore[arg-type]
            got.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert not got.wait(0.1)
    lease.__exit__(None, None, None)
    assert got.wait(5)
    assert ends_soon(wait)


FIELDS: dict[str, dict[str, Any]] = {
    "page_count": {"page_count": 1},
    "size": {"width": 200.0, "height": 100.0},
    "label": {"label": "iv"},
    "draw": {"width": 2, "height": 1, "stride": 6, "dpi": 72.0},
}
WRONG: list[Any] = [None, "1", True, -1, 0.5, float("nan"), float("inf"), 10**400, [], {}, 2**40]


def answers(monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> IsolatedReader:
    """A reader whose process answers everything with these fields, as one that a file has taken over may."""
    reply = {"page_count": 1, "cpu": 0.1, "grown": 0, **fields}

    class TakenOver:
        id, alive, over_memory = 0, True, "memory"

        def __init__(self, limits: Limits) -> None:
            self.limits = limits

        def ask(self, *_: object, seconds: float) -> Reply:
            return Reply(reply, bytearray(6), 0.1)

        def pixels(self, reply: Reply, length: int) -> memoryview:
            return memoryview(reply.data)[:length]

        def free(self, used: int) -> None: ...

        def kill(self) -> None: ...

    monkeypatch.setattr(isolation, "Worker", TakenOver)
    return IsolatedReader(simple(), None, WorkerPool(SHORT, most=1))


@pytest.mark.parametrize("call", FIELDS)
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:8])
def test_no_field_of_a_reply_is_trusted(call: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*FIELDS[call], "cpu", *(["grown"] if call != "page_count" else [])):
        good = name in ("width", "height") and call == "size" and value in (0.5, 2**40)
        if (name == "label" and value == "1") or good or (name in ("cpu", "grown") and value in (-1, 0.5, 2**40)):
            continue
        if name == "dpi" and value == 0.5:  # lower than requested, as of a large page
            continue
        with pytest.raises(PdfError, match=r"breaks the process|pages are allowed"):
            reader = answers(monkeypatch, {**FIELDS[call], name: value})
            if call != "page_count":
                getattr(reader, call)(*((1, 72) if call == "draw" else (1,)))


def test_texts_of_a_reply_can_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(monkeypatch, {"label": "a\ud800"}).label(1) == "a?"
    with pytest.raises(PdfError, match="breaks the process"):
        answers(monkeypatch, {"label": "a" * 5000}).label(1)
    with pytest.raises(PdfError, match="breaks the process"):
        answers(monkeypatch, {"error": {"a": 1}})
    with pytest.raises(ValueError, match="too many levels"):
        unpack(b"[" * 100_000)


PIPE = """
import os, signal, sys
from contextlib import suppress
from colpali_integrations.errors import PdfError
from colpali_integrations.pages import isolation, open_pdf
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
pdf = open_pdf(sys.argv[1])
[process] = isolation._POOL.processes()
[worker] = [slot._worker for slot in isolation._POOL._slots if slot._worker]
os.kill(process, signal.SIGKILL)
os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
type(worker).alive = property(lambda self: self is worker or self._process.poll() is None)  # as if it ended just now
print(len(pdf.text(1)), signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL, signal.sigpending())
"""


@on_posix
def test_a_broken_pipe_does_not_end_a_program_that_has_the_signal_at_its_default(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(simple())
    command = [sys.executable, "-c", PIPE, str(tmp_path / "a.pdf")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split()[1:] == ["True", "set()"]


@pytest.mark.parametrize("handled", [True, False])
def test_a_call_is_repeated_where_the_caller_handles_ctrl_c(handled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, calls = answers(monkeypatch, {"label": "iv"}), 0
    worker = vars(isolation)["Worker"]  # that of `answers`
    answer = worker.ask

    def ask(self: Any, *request: object, seconds: float) -> Reply:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise WorkerEndedError("interrupted", again=False, interrupted=True)
        return cast(Reply, answer(self, *request, seconds=seconds))

    monkeypatch.setattr(worker, "ask", ask)
    monkeypatch.setattr(isolation, "_raises_interrupts", lambda: not handled)
    if handled:
        assert reader.label(1) == "iv"
    else:
        with pytest.raises(PdfError, match="interrupted"):
            reader.label(1)


@on_posix
@pytest.mark.parametrize("handled", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_page_is_read_again_where_the_caller_handles_ctrl_c(handled: bool, pool: WorkerPool) -> None:
    handler = (lambda *_: None) if handled else signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)
    try:
        with closing(IsolatedReader(TINY_PATTERN_STEPS, None, pool)) as reader:
            reader.text(2)
            [process] = pool.processes()
            threading.Timer(0.3, lambda: os.kill(process, signal.SIGINT)).start()
            with pytest.raises(PdfError) as raised:
                reader.draw(2, 36)
    finally:
        signal.signal(signal.SIGINT, before)
    # The page is hostile: read to its end, it is beyond the limit of processor time.
    assert ("processor time" if handled else "interrupted") in str(raised.value)


def test_the_default_of_ctrl_c_is_known() -> None:
    assert isolation._raises_interrupts() == (signal.getsignal(signal.SIGINT) is signal.default_int_handler)
