"""Values from bytes: the structure of an input, where random bytes would not get past the first check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

__all__ = ["Choices", "json_text"]

T = TypeVar("T")

_INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    256,
    2**31 - 1,
    -(2**31),
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**30,
    10**400,
)
_FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-310, 1e22, 1.7e308, 0.1 + 0.2, float("inf"), float("-inf"), float("nan"))
_PIECES = (
    *(
        "",
        " ",
        "a",
        "page",
        "source",
        "text",
        "id",
        "the tide",
        "3.14",
        "1,000",
        "été",
        "日本語",
        "العربية",
        "ﬁ",
        "İ",
        "ß",
    ),
    *("\x00", "\x1b[31m", "\n", "\r\n", "\t", "\ud800", "\udfff", "\U0001f469\u200d\U0001f52c", "\u202e", "\ufeff"),
    *(
        "<script>alert(1)</script>",
        "javascript:x",
        '" onload="x',
        "&lt;",
        "]]>",
        "{{7*7}}",
        "${x}",
        "%s",
        "..",
        "/",
        "\\",
    ),
    *("$and", "$or", "$not", "$gte", "$in", "NaN", "null", "true", "1e999", "a.pdf", "file:///etc/passwd", "0" * 300),
)


class Choices:
    """Reads decisions from bytes; after their end every decision is the first one.

    Args:
        data: the bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def below(self, most: int) -> int:
        """A number from 0 to `most` - 1."""
        value, reach = self.byte(), 256
        while reach < most:
            value, reach = value * 256 + self.byte(), reach * 256
        return value % most

    def flag(self) -> bool:
        return bool(self.byte() & 1)

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def take(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        return self.take(max(0, len(self._data) - self._at))

    def integer(self) -> int:
        kind = self.byte() % 4
        if kind == 0:
            return self.byte()
        if kind == 1:
            return self.pick(_INTEGERS)
        return int.from_bytes(self.take(1 + self.byte() % 9), "big", signed=True)

    def number(self) -> int | float:
        return self.integer() if self.flag() else self.pick(_FLOATS)

    def text(self) -> str:
        """Pieces of a list, characters of any plane and raw bytes, joined."""
        parts = []
        for _ in range(self.byte() % 5):
            kind = self.byte() % 4
            if kind < 2:
                parts.append(self.pick(_PIECES))
            elif kind == 2:
                parts.append(chr(self.below(0x110000)))
            else:
                parts.append(self.take(self.byte() % 24).decode("utf-8", "surrogateescape"))
        return "".join(parts)

    def scalar(self) -> Any:
        kind = self.byte() % 5
        return (None, bool(kind), self.number(), self.text(), self.text())[kind] if kind != 1 else self.flag()

    def value(self, depth: int = 4, keys: Sequence[str] = ()) -> Any:
        """A value as JSON has them, also with numbers that JSON cannot write.

        Args:
            depth: the most levels; now and then it is wrapped in thousands.
            keys: likely keys of objects.
        """
        kind = self.byte() % 8
        if depth == 0 or kind < 4:
            return self.scalar()
        if kind == 4:
            return [self.value(depth - 1, keys) for _ in range(self.byte() % 5)]
        if kind == 5 and self.byte() == 255:
            value: Any = self.scalar()
            for _ in range(self.below(3000)):
                value = [value] if self.flag() else {"a": value}
            return value
        return self.mapping(depth - 1, keys)

    def mapping(self, depth: int = 3, keys: Sequence[str] = ()) -> dict[str, Any]:
        """As `value`, an object."""
        count = self.byte() % 5
        return {
            (self.pick(keys) if keys and self.byte() % 4 else self.text()): self.value(depth, keys)
            for _ in range(count)
        }

    def changed(self, value: Any, keys: Sequence[str] = ()) -> Any:
        """A copy of a JSON value with some parts dropped, doubled or replaced."""
        chance = self.byte()
        if chance < 10:
            return self.value(2, keys)
        if isinstance(value, dict):
            copy = {}
            for key, one in value.items():
                luck = self.byte()
                if luck >= 8:
                    copy[key if luck >= 12 else self.text()] = self.changed(one, keys)
            if chance > 245:
                copy[self.pick(keys) if keys else self.text()] = self.value(2, keys)
            return copy
        if isinstance(value, list):
            return [self.changed(one, keys) for one in value for _ in range((1, 1, 1, 1, 1, 1, 2, 0)[self.byte() % 8])]
        return self.scalar() if chance < 30 else value


def json_text(value: Any) -> str:
    """A value as JSON; one of too many levels for Python's writer becomes lists in lists."""
    try:
        return json.dumps(value)
    except RecursionError:
        return "[" * 100_000
