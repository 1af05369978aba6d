"""Loggers whose entries are safe to print, and log entries of other libraries."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from colpali_integrations._text import printable

__all__ = ["make_printable", "package_logger", "warn_once", "without_entries"]

_warned: set[tuple[str, str]] = set()


def package_logger(name: str) -> logging.Logger:
    """The logger of a module of this package; its entries pass through `make_printable`.

    Args:
        name: the module's `__name__`.
    """
    logger = logging.getLogger(name)
    logger.addFilter(make_printable)  # a second time has no effect
    return logger


def make_printable(record: logging.LogRecord) -> bool:
    """Replace unsafe characters in a log entry, so that a file's name cannot forge another one; see `printable`.

    Returns:
        True, as a filter that keeps the entry.
    """
    record.msg = _printable(record.msg)
    if isinstance(record.args, Mapping):
        record.args = {key: _printable(value) for key, value in record.args.items()}
    elif record.args:
        record.args = tuple(map(_printable, record.args))
    return True


def _printable(value: Any) -> Any:
    """The value itself, which handlers may group entries by, or its text where that has unsafe characters."""
    text = str(value)
    safe = printable(text)
    return value if safe == text else safe


def warn_once(logger: logging.Logger, message: str, **options: Any) -> None:
    """Log a warning that this process has not logged yet, such as one about a folder that is opened again and again.

    Args:
        logger: of `package_logger`.
        message: the whole message.
        **options: further arguments of `Logger.warning`.
    """
    if (logger.name, message) not in _warned:
        _warned.add((logger.name, message))
        logger.warning("%s", message, **options)


@contextmanager
def without_entries(logger: str, part: str) -> Iterator[None]:
    """Drop the log entries of a logger that contain `part`, as long as the context lasts.

    Args:
        logger: the logger's name; "" for the root.
        part: a part of the entries to drop.
    """
    origin = logging.getLogger(logger)

    def is_other(record: logging.LogRecord) -> bool:
        return part not in record.getMessage()

    origin.addFilter(is_other)
    try:
        yield
    finally:
        origin.removeFilter(is_other)
