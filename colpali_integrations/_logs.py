"""Log entries of other libraries."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_entries"]


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
