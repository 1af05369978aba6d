"""A page that takes too long, too much, or crashes its process costs that page alone, and no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import pdf_pages
from colpali_integrations.errors import ConfigurationError, PdfError
from colpali_integrations.pages._process import Worker
from colpali_integrations.pages.isolation import IsolatedReader, WorkerPool, image_of
from colpali_integrations.pages.pdf import open_pdf, pdf_page_count
from colpali_integrations.pdfium.limits import Limits
from colpali_integrations.pdfium.messages import OTHER_VERSION
from colpali_integrations.pdfium.reader import PdfiumReader
from tests.pages.hostile import (
    COUNTS_TOO_MANY,
    FORM_IN_ITSELF,
    TINY_PATTERN,
    TINY_PATTERN_STEPS,
    between_good_pages,
)
from tests.pages.test_pdf import DEMO, PDFS, encrypted, simple
from tests.pages.test_viewer import write

ROOT = Path(__file__).parents[2]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
SHORT = Limits(cpu_seconds=1, seconds=60, memory=300_000_000)


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    """Processes of this test alone, with short limits."""
    pool = WorkerPool(SHORT, most=2)
    yield pool
    pool.end()


def is_running(process: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(process: int, seconds: float = 5) -> bool:
    """Whether a process ends in time."""
    end = time.monotonic() + seconds
    while is_running(process) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_running(process)


def workers_of(process: int) -> list[int]:
    """The processes that read PDFs for another one."""
    children = Path(f"/proc/{process}/task").glob("*/children")
    several = [int(child) for file in children for child in file.read_text().split()]
    return [child for child in several if b"pdfium.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


# Equal results


@pytest.mark.parametrize("path", PDFS, ids=lambda path: path.stem)
def test_pages_are_those_of_a_reader_in_this_process(path: Path, pool: WorkerPool) -> None:
    with closing(PdfiumReader(path, None)) as here, closing(IsolatedReader(path, None, pool)) as there:
        assert there.page_count == here.page_count
        for number in (1, here.page_count):
            assert there.size(number) == here.size(number)
            assert there.text(number) == here.text(number)
            assert there.label(number) == here.label(number)
            expected = here.draw(number, 50.5)
            image, dpi = there.draw(number, 50.5)
            assert image.tobytes() == image_of(expected).tobytes()
            assert dpi == expected.dpi


def test_a_process_is_used_again(pool: WorkerPool) -> None:
    for _ in range(5):
        with closing(IsolatedReader(simple(), None, pool)) as reader:
            reader.text(1)
        assert len(pool.processes()) == 1
    [process] = pool.processes()
    with closing(IsolatedReader(DEMO / "hcl-colors.pdf", None, pool)) as reader:
        reader.draw(1, 20)
    assert pool.processes() == [process]


def test_more_documents_than_processes_are_open(pool: WorkerPool) -> None:
    texts = [f"Number {number}" for number in range(5)]
    readers = [
        IsolatedReader(simple(drawing=b"BT /F1 20 Tf 60 40 Td (%b) Tj ET" % text.encode()), None, pool)
        for text in texts
    ]
    for _ in range(2):
        assert [reader.text(1).text for reader in readers] == texts
    assert len(pool.processes()) == 2
    for reader in readers:
        reader.close()


def test_threads_read_one_document_at_the_same_time(pool: WorkerPool) -> None:
    with closing(IsolatedReader(DEMO / "hcl-colors.pdf", None, pool)) as reader:
        expected = [reader.text(number).text for number in range(1, 7)]
        read: dict[int, str] = {}
        threads = [
            threading.Thread(target=lambda number=number: read.update({number: reader.text(number).text}))
            for number in range(1, 7)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [read[number] for number in range(1, 7)] == expected


# Limits


@pytest.mark.parametrize(
    ("content", "limits", "reason"),
    [
        (TINY_PATTERN_STEPS, SHORT, "it takes more than 1 s of processor time"),
        (TINY_PATTERN_STEPS, Limits(seconds=1.5), r"it takes more than 1\.5 s"),
        (FORM_IN_ITSELF, Limits(memory=100_000_000), r"it needs more than 0\.1 GB of memory"),
    ],
    ids=["cpu", "clock", "memory"],
)
@on_linux
def test_a_page_beyond_a_limit_fails_alone(content: bytes, limits: Limits, reason: str) -> None:
    pool = WorkerPool(limits)
    try:
        with closing(IsolatedReader(content, None, pool)) as reader:
            first, _ = reader.draw(1, 72)
            before = time.monotonic()
            with pytest.raises(PdfError, match=reason):
                reader.draw(2, 72)
            assert time.monotonic() - before < 60
            assert reader.draw(3, 72) == (first, 72)
            assert len(pool.processes()) == 1
    finally:
        pool.end()


def test_a_long_document_has_no_limit() -> None:
    pool = WorkerPool(Limits(cpu_seconds=1, seconds=2), most=1)
    with closing(IsolatedReader(DEMO / "hcl-colors.pdf", None, pool)) as reader:
        before = time.monotonic()
        while time.monotonic() - before < 3:
            reader.draw(1, 40)
        [_] = pool.processes()
    pool.end()


def test_reading_and_drawing_a_page_count_together() -> None:
    from colpali_integrations.pages.isolation import _Budget

    budget = _Budget(3, Limits(cpu_seconds=30, seconds=120))
    budget.spend("text", 10, 15)
    assert budget.covers(3, "draw")
    assert (budget.cpu_seconds, budget.seconds) == (20, 105)
    assert not budget.covers(3, "text"), "reading it again counts anew"
    assert not budget.covers(4, "draw")


@on_linux
def test_text_is_kept_where_finding_what_no_viewer_shows_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """Pages that take as long to draw as is permitted can be read, though each is drawn once more for its text."""
    pool = WorkerPool(Limits(cpu_seconds=12, seconds=600))
    content = between_good_pages(
        write("shown") + write("far", x=900) + b"/Pattern cs /P scn 0 0 200 100 re f",
        b"/Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>/Pattern<</P 7 0 R>>",
        [TINY_PATTERN],
    )
    try:
        with closing(IsolatedReader(content, None, pool)) as reader:
            assert reader.text(2) == ("shown", (), False)
            assert reader.text(3) == ("", (), True)
            assert len(pool.processes()) == 1
    finally:
        pool.end()


def test_judging_a_text_has_limits_of_its_own() -> None:
    assert Limits(cpu_seconds=30, seconds=120).judging == Limits(cpu_seconds=5, seconds=20)


@pytest.mark.parametrize("isolate", [True, False])
def test_sides_that_are_too_long_or_too_short_are_refused(isolate: bool) -> None:
    for box, reason in (
        (b"0 0 14400 100", r".* a side must have 1 to 20,000; pass another dpi"),
        (b"0 0 1 1000000000", r"it has 1 x 1e\+09 points, and at no resolution both sides have 1 to 20,000 pixels"),
    ):
        with pytest.raises(PdfError, match=f"page 1 cannot be drawn: {reason}"):
            list(pdf_pages(simple(b"/MediaBox[%b]" % box), isolate=isolate))


@pytest.mark.parametrize("isolate", [True, False])
def test_pages_that_are_missing_at_the_end_fail_as_one(isolate: bool) -> None:
    assert len(COUNTS_TOO_MANY) < 577
    assert pdf_page_count(COUNTS_TOO_MANY, isolate=isolate) == 2
    with closing(open_pdf(COUNTS_TOO_MANY, isolate=isolate)) as pdf:
        assert pdf.render(1, 72).size == (200, 100)
        with pytest.raises(PdfError, match="page 2 cannot be drawn: the file counts 100000 pages, but none from this"):
            pdf.render(2, 72)


# Ends of processes


def test_a_process_that_was_killed_between_calls_is_replaced(pool: WorkerPool) -> None:
    with closing(IsolatedReader(simple(), None, pool)) as reader:
        [process] = pool.processes()
        os.kill(process, signal.SIGKILL)
        assert reader.text(1).text == "Hello"
        assert pool.processes() != [process]


def test_a_changed_file_is_not_opened_again(pool: WorkerPool, tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(simple())
    with closing(IsolatedReader(path, None, pool)) as reader:
        path.write_bytes(simple(drawing=b""))
        assert reader.page_count == 1
        pool.end()
        with pytest.raises(PdfError, match="the file was changed while it was read; open it again"):
            reader.text(1)


@on_linux
def test_a_password_goes_through_the_pipe_alone(pool: WorkerPool) -> None:
    with closing(IsolatedReader(encrypted(user=b"open sesame", owner=b"x"), "open sesame", pool)) as reader:
        assert reader.text(1).text == "Secret"
        [process] = pool.processes()
        for file in ("cmdline", "environ"):
            assert b"sesame" not in Path(f"/proc/{process}/{file}").read_bytes()


def test_a_worker_of_another_version_does_not_start() -> None:
    command = [sys.executable, "-m", "colpali_integrations.pdfium.worker", "0.0.0", "1500000000"]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (OTHER_VERSION, b"")


def test_a_program_that_is_no_python_is_named(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/uwsgi")
    with pytest.raises(ConfigurationError, match=r"does not start: .*uwsgi.*isolate=False"):
        IsolatedReader(simple(), None, pool)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigurationError, match=r"does not start: `/bin/false .* code 1\. .*isolate=False"):
        IsolatedReader(simple(), None, pool)


def run(script: str, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


UNGUARDED = """
import sys, multiprocessing
sys.path.insert(0, sys.argv[1])
print("started")
from colpali_integrations import pdf_pages

def read(answers):
    answers.put([page.text[:8] for page in pdf_pages(sys.argv[2], dpi=20, pages=[1])])

[page] = pdf_pages(sys.argv[2], dpi=20, pages=[1])
print(page.text[:8])
fork = multiprocessing.get_context("fork")
answers = fork.Queue()
child = fork.Process(target=read, args=(answers,), daemon=True)
child.start()
print(answers.get(timeout=60))
child.join()
"""


@on_linux
def test_scripts_without_a_main_guard_and_daemonic_processes(tmp_path: Path) -> None:
    """Run in a folder whose json.py would be imported instead of Python's."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "json.py").write_text("raise SystemExit(3)")
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    paper = DEMO / "hcl-colors.pdf"
    done = run(str(script), ROOT, paper, cwd=tmp_path / "here")
    [page] = pdf_pages(paper, dpi=20, pages=[1])
    assert done.stdout.splitlines() == ["started", page.text[:8], str([page.text[:8]])], done.stderr


# A program that a shell starts in the background ignores Ctrl-C, and so do these where that is how the tests run.
HEED_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"

CALLER = f"""
{HEED_CTRL_C}
import sys
from colpali_integrations.pages.isolation import IsolatedReader
reader = IsolatedReader(open(sys.argv[1], "rb").read(), None)
reader.draw(1, 72)
print("ready", flush=True)
if sys.argv[2] == "busy":
    reader.draw(2, 72)
sys.stdin.read()
"""


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[bytes], int]]]:
    """Start a program that draws a hostile page ("busy") or waits ("idle"), and find its worker."""
    hostile = tmp_path / "hostile.pdf"
    hostile.write_bytes(TINY_PATTERN_STEPS)
    started: list[subprocess.Popen[bytes]] = []

    def start(state: str) -> tuple[subprocess.Popen[bytes], int]:
        process = subprocess.Popen(
            [sys.executable, "-c", CALLER, hostile, state],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        [worker] = workers_of(process.pid)
        time.sleep(0.5)
        return process, worker

    yield start
    for process in started:
        process.kill()
        process.communicate()


@on_linux
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_no_worker_outlives_a_caller_that_is_killed(caller: Callable[[str], Any], state: str) -> None:
    process, worker = caller(state)
    assert is_running(worker)
    process.kill()
    assert ends(worker)


@on_linux
def test_ctrl_c_ends_a_page_that_hangs(caller: Callable[[str], Any]) -> None:
    process, worker = caller("busy")
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == -signal.SIGINT
    assert time.monotonic() - before < 10, "2 s where nothing else runs; the page has 30 s"
    assert ends(worker, 0.5)


@on_linux
def test_ctrl_c_in_a_terminal_ends_a_page_that_hangs_in_a_thread(tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.pdf"
    hostile.write_bytes(TINY_PATTERN_STEPS)
    command = [sys.executable, "-c", IN_A_THREAD, str(hostile)]
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    # A terminal signals all processes of the group.
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **output) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "ready\n"
        time.sleep(1)
        before = time.monotonic()
        os.killpg(caller.pid, signal.SIGINT)
        assert caller.wait(timeout=20) == -signal.SIGINT
        assert time.monotonic() - before < 10, "2 s where nothing else runs; the page has 30 s"


IN_A_THREAD = f"""
{HEED_CTRL_C}
import asyncio, sys
from colpali_integrations import pdf_pages

def read():
    for page in pdf_pages(sys.argv[1]):
        print("ready", flush=True)

asyncio.run(asyncio.to_thread(read))
"""


@on_linux
def test_no_worker_outlives_a_caller_that_ends(caller: Callable[[str], Any]) -> None:
    process, worker = caller("idle")
    process.communicate(b"")
    assert process.returncode == 0
    assert ends(worker, 0.5)


@on_linux
def test_time_in_which_all_is_stopped_does_not_count(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(STOPPED)
    paper = DEMO / "hcl-colors.pdf"
    with subprocess.Popen([sys.executable, script, ROOT, paper], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "ready\n"
        time.sleep(0.5)
        several = [*workers_of(caller.pid), caller.pid]
        assert len(several) == 2
        for signal_, pause in ((signal.SIGSTOP, 5), (signal.SIGCONT, 0)):
            for process in several:
                os.kill(process, signal_)
            time.sleep(pause)
        assert caller.stdout.read() == "drawn\n"


STOPPED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from colpali_integrations.pages.isolation import IsolatedReader, WorkerPool, image_of
from colpali_integrations.pdfium.limits import Limits
reader = IsolatedReader(open(sys.argv[2], "rb").read(), None, WorkerPool(Limits(seconds=4), most=1))
print("ready", flush=True)
end = time.monotonic() + 3
while time.monotonic() < end:
    reader.draw(1, 150)
print("drawn")
"""


@on_linux
@pytest.mark.parametrize("closed", ["0", "1", "012"])
def test_a_caller_may_have_closed_its_standard_streams(tmp_path: Path, closed: str) -> None:
    script = """
import os, sys
from pathlib import Path
from colpali_integrations.pages.pdf import pdf_page_count
for number in sys.argv[3]:
    os.close(int(number))
Path(sys.argv[2]).write_text(str(pdf_page_count(sys.argv[1])))
"""
    result = tmp_path / "count"
    subprocess.run([sys.executable, "-c", script, DEMO / "hcl-colors.pdf", result, closed], cwd=ROOT, timeout=60)
    assert int(result.read_text()) > 1


@on_linux
def test_a_backport_beside_the_package_does_not_replace_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "pathlib.py").write_text("raise ImportError('an old backport')")
    (tmp_path / "colpali_integrations").symlink_to(ROOT / "colpali_integrations")
    script = """
import sys
sys.path.insert(next(place for place, path in enumerate(sys.path) if path.endswith("site-packages")), sys.argv[2])
import colpali_integrations
from colpali_integrations.pages.pdf import pdf_page_count
assert colpali_integrations.__file__.startswith(sys.argv[2])
print(pdf_page_count(sys.argv[1]))
"""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = run("-c", script, DEMO / "hcl-colors.pdf", tmp_path, cwd="/", env=environ)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1


def test_a_frozen_application_does_not_start_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ConfigurationError, match="from a frozen application"):
        Worker(Limits())


def test_a_resolution_that_rounds_up_on_its_way_is_drawn() -> None:
    dpi = 248.05005098806603
    assert dpi / 72 * 72 > dpi
    with closing(open_pdf(DEMO / "metropolis-slides.pdf")) as pdf:
        assert pdf.render(1, dpi).size == pdf.render(1, round(dpi, 6)).size
