"""One worker process that reads PDFs (`pdfium.worker`), as its caller sees it."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from colpali_integrations._forks import hold_during_forks
from colpali_integrations._version import __version__
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.pages._shared import SharedMemory
from colpali_integrations.pdfium.limits import Limits
from colpali_integrations.pdfium.messages import HEAD_BYTES, MAX_FIELDS, OTHER_VERSION, lengths, pack, unpack

__all__ = ["Reply", "Worker", "WorkerEndedError"]

_ROOT = Path(__file__).parents[2]
_FOLDER = Path(__file__).parents[1] / "pdfium"
# A text layer or a picture; a worker that sends more is not ours any more.
_MAX_DATA = 2**28
_PIPE_BYTES = 2**20
_LONGEST_WAIT = 0.5
_ON_POSIX = os.name == "posix"

_NOT_STARTED = "the process that reads PDFs does not start"
_IN_THIS_PROCESS = "PDFs that you trust can be read in this process: isolate=False"
_HOW_WITHOUT = "a file that you trust can be read without limits: isolate=False"

# A child that is forked while a process starts would inherit its pipes, and keep it alive after its caller.
_starting = threading.Lock()
hold_during_forks(_starting)


class WorkerEndedError(Exception):
    """A worker process ended, or cannot be used any more, before it replied.

    Attributes:
        again: whether a new process may succeed, because the reason may lie in what this one did before.
        interrupted: whether Ctrl-C, which reaches all processes of a terminal, ended it.
        late: whether it took more than its time.
    """

    def __init__(self, reason: str, *, again: bool = True, interrupted: bool = False, late: bool = False) -> None:
        super().__init__(reason)
        self.again, self.interrupted, self.late = again and not late, interrupted, late


class Reply(NamedTuple):
    """The answer of a worker. It is not to be trusted: a damaged file may have taken the process over.

    Attributes:
        fields: JSON values.
        data: a text in UTF-8, or pixels.
        seconds: the time that it took.
    """

    fields: dict[str, Any]
    data: bytearray
    seconds: float


class Worker:
    """A running process. One thread at a time may use it.

    Args:
        limits: of each request.

    Attributes:
        answered: number of replies.
        over_memory: the reason of a failure beyond the limit of memory.

    Raises:
        ConfigurationError: the system starts no process.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.answered = 0
        self._shared = _shared_memory()
        self.over_memory = f"it needs more than {limits.memory / 1e9:g} GB of memory; {_HOW_WITHOUT}"
        if getattr(sys, "frozen", False):
            # `sys.executable` is the application: it would start itself again, without end.
            raise ConfigurationError(f"{_NOT_STARTED} from a frozen application. {_IN_THIS_PROCESS}")
        command = [sys.executable or "python", "-W", "ignore", "-m", "colpali_integrations.pdfium.worker"]
        files = [] if self._shared is None else [self._shared.file]
        try:
            with _starting:
                self._process = subprocess.Popen(
                    [*command, __version__, str(limits.memory), *map(str, files)],
                    pass_fds=files,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    bufsize=0,
                    # Python imports from this folder first: neither from that of the caller, which may hold a json.py
                    # from somewhere, nor from site-packages, which may hold an old backport.
                    cwd=_FOLDER if _FOLDER.is_dir() else os.sep,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_folders())},
                )
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{_NOT_STARTED}: {error}. {_IN_THIS_PROCESS}") from error
        finally:
            if self._shared is not None:
                self._shared.close_file()
        self._input, self._output = _pipes(self._process)

    @property
    def id(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, fields: Mapping[str, Any], data: bytes = b"", *, seconds: float) -> Reply:
        """Send a request and wait for the reply.

        Args:
            fields: of the request.
            data: the content of a document.
            seconds: the time to wait; then the process is killed.

        Raises:
            WorkerEndedError: there is no reply.
        """
        clock = _Clock(self._process, seconds)
        try:
            with clock:
                with _without_sigpipe():
                    self._send(pack(fields, len(data)), clock)
                    self._send(data, clock)
                reply = self._receive(clock)
        except (OSError, EOFError, ValueError) as error:  # ValueError: the reply is none of ours
            self.kill()
            raise self._ended(clock, error) from error
        except BaseException:  # Ctrl-C: the reply would be taken for that to the next request
            self.kill()
            raise
        self.answered += 1
        return reply

    def pixels(self, reply: Reply, length: int) -> memoryview:
        """The pixels of a reply, until the next request."""
        return memoryview(reply.data if self._shared is None else self._shared.bytes)[:length]

    def free(self, used: int) -> None:
        """Give back the memory of a page of `used` bytes."""
        if self._shared is not None:
            self._shared.free(used)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        if self._shared is not None:
            self._shared.close()
        self._close_pipes()
        with suppress(OSError):
            self._process.wait()

    def abandon(self) -> None:
        """Forget the process in a forked child: it is the parent's."""
        self._close_pipes()
        self._process.returncode = 0  # else its destructor warns of a process that runs

    def _close_pipes(self) -> None:
        for pipe in (self._input, self._output):
            with suppress(OSError):
                pipe.close()

    def _send(self, content: bytes, clock: _Clock) -> None:
        view = memoryview(content)
        while view:
            written = self._input.write(view)
            if written is None:
                clock.wait(self._input, writing=True)
            else:
                view = view[written:]

    def _receive(self, clock: _Clock) -> Reply:
        fields_length, data_length = lengths(self._read(HEAD_BYTES, clock))
        if fields_length > MAX_FIELDS or data_length > _MAX_DATA:
            raise ValueError("too long")
        fields, data = unpack(self._read(fields_length, clock)), self._read(data_length, clock)
        return Reply(fields, data, clock.spent)

    def _read(self, length: int, clock: _Clock) -> bytearray:
        content = bytearray(length)
        view = memoryview(content)
        while view:
            read: int | None = self._output.readinto(view)  # type: ignore[attr-defined]  # a raw file's
            if read is None:
                clock.wait(self._output, writing=False)
            elif read:
                view = view[read:]
            else:
                raise EOFError
        return content

    def _ended(self, clock: _Clock, error: Exception) -> WorkerEndedError | ConfigurationError:
        code = self._process.returncode or 0  # 0 too if another part of the program has waited for it
        if clock.is_over:
            return WorkerEndedError(f"it takes more than {self._limits.seconds:g} s; {_HOW_WITHOUT}", late=True)
        if isinstance(error, ValueError):
            return WorkerEndedError("it breaks the process that reads PDFs")
        if code == -getattr(signal, "SIGXCPU", 0):
            reason = f"it takes more than {self._limits.cpu_seconds:g} s of processor time"
            return WorkerEndedError(f"{reason}; {_HOW_WITHOUT}", late=True)
        if code == -signal.SIGINT:
            return WorkerEndedError("it was interrupted", again=False, interrupted=True)
        if code == OTHER_VERSION:
            return ConfigurationError(f"{_NOT_STARTED}: colpali-integrations was updated; start this program again")
        if code > 0 and not self.answered:
            return ConfigurationError(
                f"{_NOT_STARTED}: `{sys.executable} -m colpali_integrations.pdfium.worker` ended with code {code}. "
                f"{_IN_THIS_PROCESS}"
            )
        most = f"{self._limits.memory / 1e9:g} GB of memory"
        return WorkerEndedError(f"it needs more than {most}, or is damaged so that pdfium crashes ({_name(code)})")


class _Clock:
    """The time that a request has, without that in which this process is stopped, as by Ctrl-Z.

    Where pipes cannot be polled, a thread kills the process at its end.
    """

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._left = seconds
        self.spent = 0.0
        self._timer = None if _ON_POSIX else threading.Timer(seconds, self._kill, [process])

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def is_over(self) -> bool:
        return self._left <= 0

    def wait(self, pipe: IO[bytes], *, writing: bool) -> None:
        """Wait until a pipe is ready.

        Raises:
            TimeoutError: the time is over.
        """
        poll = select.poll()
        poll.register(pipe, select.POLLOUT if writing else select.POLLIN)
        while not self.is_over:
            before, most = time.monotonic(), min(_LONGEST_WAIT, self._left)
            is_ready = poll.poll(math.ceil(most * 1000))
            waited = min(time.monotonic() - before, 2 * _LONGEST_WAIT)
            self._left, self.spent = self._left - waited, self.spent + waited
            if is_ready:
                return
        raise TimeoutError

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        self._left = 0
        process.kill()


@contextmanager
def _without_sigpipe() -> Iterator[None]:
    """Get an error for a write to a process that has ended, also where the program has set SIGPIPE to its default.

    Python ignores the signal, but programs for pipelines of a shell often set it back, and it would end them.
    """
    if not _ON_POSIX or signal.getsignal(signal.SIGPIPE) is not signal.SIG_DFL:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    finally:
        if signal.SIGPIPE not in before and signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shared_memory() -> SharedMemory | None:
    try:
        return SharedMemory()
    except OSError:
        return None


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    if _ON_POSIX:
        for pipe in (process.stdin, process.stdout):
            os.set_blocking(pipe.fileno(), False)
            _enlarge(pipe)
    return process.stdin, process.stdout


def _enlarge(pipe: IO[bytes]) -> None:
    """Let a pipe hold more than 64 KiB, for pictures of several MB."""
    import fcntl

    with suppress(AttributeError, OSError):  # Linux only; a user may have too many large pipes
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _import_folders() -> list[str]:
    """The folders that this process imports from, but not the current one."""
    return list(dict.fromkeys([*(one for one in sys.path if one and Path(one).is_absolute()), str(_ROOT)]))


def _name(code: int) -> str:
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"code {code}"
