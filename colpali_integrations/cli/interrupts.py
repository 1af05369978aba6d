"""Commands that are interrupted: by Ctrl-C, or by SIGTERM, which ends them in the same way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["interrupted", "terminated_as_interrupted"]

_CONTINUES = {"index", "compress", "copy", "evaluate"}  # commands that a later run goes on with


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, unless the caller has another use for it, or runs this in another thread."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def interrupted(arguments: Sequence[str], error: BaseException) -> str:
    """The message about a command that was interrupted.

    Args:
        arguments: of the command line.
        error: the interruption, or an error that it has led to.

    Example:
        >>> interrupted(["index", "reports"], KeyboardInterrupt("192 pages are stored; run it again"))
        'Interrupted. 192 pages are stored; run it again.'
        >>> interrupted(["index", "reports"], KeyboardInterrupt())
        'Interrupted. Finished pages are kept; the same command continues from there.'
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command not in _CONTINUES:
        return "Interrupted."
    advice = _advice(error) or "Finished pages are kept; the same command continues from there"
    return f"Interrupted. {advice}."


def _advice(error: BaseException | None) -> str | None:
    """The message of the interruption, which a run has given it; see `stores.runs`."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return None if error is None or not error.args else str(error.args[0])
