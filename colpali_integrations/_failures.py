"""Foreign exceptions as errors of the item that raised them, so that one bad item does not end a run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from colpali_integrations.errors import ColPaliError, InputError

__all__ = ["failing_as", "item_error"]


def item_error(error: BaseException, kind: type[ColPaliError] = InputError) -> ColPaliError:
    """The error of an item, from any exception that its reading raised.

    Args:
        error: an error of this package is returned as it is. Other exceptions become the cause of an error of the given
            kind: running out of memory, a panic of native code, a SystemExit or GeneratorExit of a plugin among them.
            (So a caller must not `yield` within its `try`.)
        kind: of the error.

    Raises:
        BaseException: `error` itself, if it ends the program and not the item: Ctrl-C, the cancellation of a task, or
            the SystemExit of a handler of signals.

    Example:
        >>> item_error(KeyError("MediaBox"))
        InputError("KeyError: 'MediaBox'")
    """
    if isinstance(error, ColPaliError):
        return error
    # pyo3's panics derive from BaseException, and each library in Rust has a class of its own for them.
    is_foreign = isinstance(error, Exception | GeneratorExit) or type(error).__name__ == "PanicException"
    if not is_foreign and not (isinstance(error, SystemExit) and not _may_be_of_a_signal(error)):
        raise error
    wrapped = kind("out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _may_be_of_a_signal(error: BaseException) -> bool:
    """Whether a handler of signals may have raised an exception: its code is in the traceback, or cannot be known."""
    codes = []
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if not callable(handler) or handler is signal.default_int_handler:
            continue
        handler = getattr(handler, "func", handler)  # of a partial
        code = getattr(getattr(handler, "__func__", handler), "__code__", None)
        if code is None:
            return True
        codes.append(code)
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code in codes:
            return True
        step = step.tb_next
    return False


@contextmanager
def failing_as(kind: type[ColPaliError], what: object) -> Iterator[None]:
    """Turn foreign exceptions of a context into errors of one kind; see `item_error`.

    Args:
        kind: of the error.
        what: the thing that is read, which the message names.

    Example:
        >>> from colpali_integrations.errors import ModelLoadError
        >>> with failing_as(ModelLoadError, "my-model"):
        ...     raise ZeroDivisionError("division by zero")
        Traceback (most recent call last):
        colpali_integrations.errors.ModelLoadError: cannot read my-model: ZeroDivisionError: division by zero
    """
    try:
        yield
    except ColPaliError:
        raise
    except BaseException as error:
        reason = item_error(error, kind)
        raise kind(f"cannot read {what}: {reason}") from error
