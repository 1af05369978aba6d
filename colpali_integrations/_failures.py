"""Foreign exceptions as errors of the item that raised them, so that one bad item does not end a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from colpali_integrations.errors import ColPaliError, InputError

__all__ = ["failing_as", "item_error"]


def item_error(error: BaseException, kind: type[ColPaliError] = InputError) -> ColPaliError:
    """The error of an item, from any exception that its reading raised.

    Args:
        error: an error of this package is returned as it is. Other exceptions, running out of memory and a panic of
            native code among them, become the cause of an error of the given kind.
        kind: of the error.

    Raises:
        BaseException: `error` itself, if it ends the program and not the item, such as Ctrl-C.

    Example:
        >>> item_error(KeyError("MediaBox"))
        InputError("KeyError: 'MediaBox'")
    """
    if isinstance(error, ColPaliError):
        return error
    # pyo3's panics derive from BaseException, and each library in Rust has a class of its own for them.
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    wrapped = kind("out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


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
