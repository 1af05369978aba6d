"""Reading the bodies of requests, and their check against a schema of the OpenAPI description.

The description and the check share the schemas of `schemas`, so that neither can promise what the other refuses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from colpali_integrations._options import shown
from colpali_integrations.server.errors import RequestError

__all__ = ["Schema", "body_of", "check", "parsed"]

Schema = Mapping[str, Any]

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value == int(value),
}
_SHORT = 2**16  # bytes that are read within a millisecond or so
# One call of `json.loads` lets no other thread run but while numbers are read, see `_whole`. Strings take it little
# time, whatever is in them; lists and keys take most. So many take 0.13 s at most, and 32 MiB of them took 2 s.
_MARKS, _MOST_MARKS, _PIECE = (b'"', b",", b"[", b"{"), 500_000, 2**20
_MOST_DIGITS = 1000
_ARTICLES = {"array": "a list", "integer": "a whole number", "object": "an object", "null": "null"}


async def body_of(request: Request, schema: Schema) -> dict[str, Any]:
    """The JSON object of a request, checked.

    Raises:
        RequestError: 415 for another type of content, 400 for a body that is no such object.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(415, "the body must be JSON: send Content-Type: application/json", "not_json")
    text = await request.body()
    if len(text) > _SHORT:  # other requests are answered meanwhile
        return await run_in_threadpool(_read, text, schema)
    return _read(text, schema)


def _read(text: bytes, schema: Schema) -> dict[str, Any]:
    _check_marks(text)
    body = parsed(text, "the body")
    check(body, schema, "the body")
    assert isinstance(body, dict)
    return body


def _check_marks(text: bytes) -> None:
    """Refuse a text that would take long to read: one of images and long texts is longer, and has fewer values."""
    found = 0
    for start in range(0, len(text), _PIECE):  # each with an end: a text of nothing else is refused soon
        found += sum(text.count(mark, start, start + _PIECE) for mark in _MARKS)
        if found > _MOST_MARKS:
            raise RequestError(
                413,
                f'the body has more than {_MOST_MARKS:,} of the characters " , [ {{ and would block others while it '
                "is read; send fewer texts at a time",
                "too_many_values",
            )


def parsed(text: bytes | str, name: str) -> Any:
    """The value of a JSON text that can be written as JSON again.

    Args:
        text: in UTF-8.
        name: of the text, for messages.

    Raises:
        RequestError: it is not JSON, has too many levels, or holds half of a character (a lone surrogate).

    Example:
        >>> parsed(b'{"k": 3}', "the body")
        {'k': 3}
    """

    def constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")

    try:
        value = json.loads(text, parse_constant=constant, parse_int=_whole, parse_float=_fraction)
        # JSON's own escapes, or the charset of a form's field: such as unicode_escape.
        if isinstance(text, str) or b"\\u" in text:
            _check_characters(value)
    except UnicodeEncodeError:
        raise RequestError(
            400, f"{name}: a text holds a lone surrogate, which is not Unicode", "invalid_json"
        ) from None
    except RecursionError:
        raise RequestError(400, f"{name} has too many levels of objects and lists", "invalid_json") from None
    except ValueError as error:
        raise RequestError(400, f"{name} is not JSON: {error}", "invalid_json") from None
    return value


def _whole(text: str) -> int:
    """A whole number of JSON. As a function of Python, it lets other threads run."""
    if len(text) > _MOST_DIGITS:  # the time grows with their square
        raise ValueError(f"a number has more than {_MOST_DIGITS:,} digits")
    return int(text)


def _fraction(text: str) -> float:
    """Another number of JSON; see `_whole`."""
    return float(text)


def _check_characters(value: Any) -> None:
    """Raise UnicodeEncodeError for a text that UTF-8 cannot write; other threads run meanwhile."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            value.encode()
        elif isinstance(value, dict):
            left += value
            left += value.values()
        elif isinstance(value, list):
            left += value


def check(value: Any, schema: Schema, name: str) -> None:
    """Check a value against the part of JSON Schema that `schemas` uses.

    Args:
        value: of JSON.
        schema: of it.
        name: of the value, for messages.

    Raises:
        RequestError: it does not fit; the message names the value and what was expected.

    Example:
        >>> check({"k": 3}, {"type": "object", "properties": {"k": {"type": "integer", "maximum": 2}}}, "the body")
        Traceback (most recent call last):
        colpali_integrations.server.errors.RequestError: k must be at most 2, got 3
    """
    if "anyOf" in schema:
        _check_any(value, schema, name)
        return
    kind = schema.get("type")
    if kind is not None and not _fits(value, kind):
        raise _refused(f"{name} must be {_named(schema)}", value)
    if "enum" in schema and not any(value == one and type(value) is type(one) for one in schema["enum"]):
        raise _refused(f"{name} must be one of {', '.join(json.dumps(one) for one in schema['enum'])}", value)
    if isinstance(value, dict):
        _check_object(value, schema, name)
    elif isinstance(value, list):
        _check_size(len(value), schema, "Items", "items", name)
        for index, item in enumerate(value):
            check(item, schema.get("items", {}), f"{name}[{index}]")
    elif isinstance(value, str):
        _check_size(len(value), schema, "Length", "characters", name)
        if prefix := schema.get("x-prefix"):
            _check_prefix(value, prefix, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(value, schema, name)


def _fits(value: Any, kind: str) -> bool:
    try:
        return _TYPES[kind](value)
    except (OverflowError, ValueError):  # an infinite number, as 1e999 is read
        return False


def _check_any(value: Any, schema: Schema, name: str) -> None:
    """Check that a value fits one of several schemas; the error is that of the one which it resembles most.

    A schema whose choice is short has all of it in words, as "x-named", and its error has them.
    """
    schemas: list[Schema] = schema["anyOf"]
    fitting = [schema for schema in schemas if "type" not in schema or _fits(value, schema["type"])]
    errors: list[RequestError] = []
    for one in fitting:
        try:
            check(value, one, name)
        except RequestError as error:
            errors.append(error)
        else:
            return
    if not errors or "x-named" in schema:
        raise _refused(f"{name} must be {_named(schema)}", value)
    raise min(errors, key=lambda error: error.code == "missing_field")


def _check_object(value: dict[str, Any], schema: Schema, name: str) -> None:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    inside = "" if name == "the body" else f"{name}."
    for key in schema.get("required", ()):
        if key not in value:
            raise RequestError(400, f"{inside}{key} is missing: {_named(properties[key])}", "missing_field")
    together = schema.get("x-required-any")
    if together and not any(all(key in value for key in keys) for keys in together):
        ways = " or ".join(" and ".join(keys) for keys in together)
        raise RequestError(400, f"{name} lacks {ways}", "missing_field")
    for key, item in value.items():
        if key in properties:
            check(item, properties[key], f"{inside}{key}")
        elif schema.get("additionalProperties") is False:
            known = ", ".join(properties)
            raise RequestError(400, f"{name} has no field {shown(key)}; its fields are {known}", "unknown_field")


def _check_size(size: int, schema: Schema, suffix: str, unit: str, name: str) -> None:
    least, most = schema.get(f"min{suffix}", 0), schema.get(f"max{suffix}", math.inf)
    if size < least:
        raise RequestError(400, f"{name} must have at least {least} {unit}, got {size}")
    if size > most:
        raise RequestError(400, f"{name} must have at most {most:,} {unit}, got {size:,}")


def _check_number(value: float, schema: Schema, name: str) -> None:
    if not _is_finite(value):
        raise _refused(f"{name} must be a finite number", value)
    if value < schema.get("minimum", -math.inf):
        raise _refused(f"{name} must be at least {schema['minimum']}", value)
    if value > schema.get("maximum", math.inf):
        raise _refused(f"{name} must be at most {schema['maximum']}", value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the largest float
        return False


def _check_prefix(value: str, prefix: str, name: str) -> None:
    if not value[: len(prefix)].lower() == prefix:
        raise RequestError(
            400,
            f"{name} must be a data URI, {prefix}...;base64,...; addresses and paths are not fetched",
            "not_a_data_uri",
        )


def _named(schema: Schema) -> str:
    if words := schema.get("x-named"):
        return str(words)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_named, schema["anyOf"])))
    if "enum" in schema:
        return f"one of {', '.join(json.dumps(one) for one in schema['enum'])}"
    kind = schema.get("type", "any value")
    return _ARTICLES.get(kind, f"a {kind}")


def _refused(message: str, value: object) -> RequestError:
    return RequestError(400, f"{message}, got {shown(value)}")
