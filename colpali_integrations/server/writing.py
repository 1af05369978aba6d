"""JSON of many numbers, written in pieces: one call of `json.dumps` lets no other thread run until its end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from starlette.responses import JSONResponse

from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.server.errors import RequestError

__all__ = ["NumbersResponse", "check_size"]

_MOST_NUMBERS = 8_000_000  # some 160 MB as JSON; 60 pages of ColPali have as many


class NumbersResponse(JSONResponse):
    """An answer with vectors. Arrays are written as lists."""

    def render(self, content: Any) -> bytes:
        """The answer as UTF-8."""
        return "".join(_pieces(content)).encode()


def check_size(vectors: Sequence[Float32]) -> None:
    """Refuse an answer with more numbers than the server writes at a time.

    Args:
        vectors: (n, dim) of each content.

    Raises:
        RequestError: there are more.
    """
    numbers = sum(one.size for one in vectors)
    if numbers > _MOST_NUMBERS:
        raise RequestError(
            413,
            f"the answer would have {numbers:,} numbers, and at most {_MOST_NUMBERS:,} fit; send fewer texts or images",
            "too_many_numbers",
        )


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield "{"
        for index, (key, item) in enumerate(value.items()):
            yield f"{',' if index else ''}{_dumped(key)}:"
            yield from _pieces(item)
        yield "}"
    elif isinstance(value, np.ndarray) and value.ndim == 1:
        yield _dumped(value.tolist())
    elif isinstance(value, np.ndarray) or (isinstance(value, list) and value and isinstance(value[0], list | Mapping)):
        yield "["
        for index, item in enumerate(value):
            if index:
                yield ","
            yield from _pieces(item)
        yield "]"
    else:
        yield _dumped(value)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
