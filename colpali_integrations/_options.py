"""Checks of keyword arguments and numbers, shared by pages, models, stores and adapters."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, SupportsFloat, cast

import numpy as np

from colpali_integrations.errors import ConfigurationError, InputError

__all__ = [
    "checked_flag",
    "checked_number",
    "checked_several",
    "checked_text",
    "checked_texts",
    "checked_timeout",
    "checked_whole",
    "shown",
    "unknown_option",
]

_NO_GUESSES: Mapping[str, str] = {}
_LONGEST = 1e6  # seconds of a timeout, some eleven days: calls of the system take milliseconds of 31 bits


def unknown_option(
    where: str, names: Iterable[str], options: Iterable[str], guesses: Mapping[str, str] = _NO_GUESSES
) -> ConfigurationError:
    """Make the error about the first of `names` that is not in `options`.

    Args:
        where: the function or class of the call.
        names: the names in the call, or only the unknown ones; at least one is unknown.
        options: the names of the existing options.
        guesses: for names from other libraries, the option to use instead.

    Example:
        >>> print(unknown_option("open", ["threds"], ["path", "threads"]))
        open has no option 'threds'; did you mean 'threads'?
        >>> print(unknown_option("open", ["device"], ["path"], {"device": "use providers=[...]"}))
        open has no option 'device'; use providers=[...]
    """
    import difflib

    existing = sorted(options)
    name = next(name for name in names if name not in existing)
    near = difflib.get_close_matches(name, existing, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(existing)}"
    return ConfigurationError(f"{where} has no option {name!r}; {guesses.get(name, advice)}")


def shown(value: object) -> str:
    """The value as messages show it: its `repr`, of at most 60 characters.

    >>> shown("4"), len(shown(10**400)), shown(10**5000)
    ("'4'", 60, 'an int beyond 4300 digits')
    """
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write such numbers in decimal
        return f"an {type(value).__name__} beyond 4300 digits"
    except RecursionError:
        return f"a {type(value).__name__} of too many levels"
    return text if len(text) <= 60 else f"{text[:57]}..."


def checked_whole(value: object, name: str, least: int = 1) -> int:
    """The value of an option that counts something, as an int.

    A number without a fraction counts, of whatever type: JSON, YAML and NumPy have 3.0 for 3.

    Args:
        value: of the option.
        name: of the option, for the message.
        least: the lowest value.

    Raises:
        ConfigurationError: it has a fraction or is no number, or it is lower.

    Example:
        >>> checked_whole(3.0, "k")
        3
        >>> checked_whole("3", "k")
        Traceback (most recent call last):
        colpali_integrations.errors.ConfigurationError: k must be a whole number of at least 1, got '3'
    """
    number = _whole(value)
    if number is None or number < least:
        raise ConfigurationError(f"{name} must be a whole number of at least {least}, got {shown(value)}")
    return number


def checked_number(value: object, name: str, least: float, most: float = math.inf, *, above: bool = False) -> float:
    """The value of an option that measures something, as a float.

    Args:
        value: of the option.
        name: of the option, for the message.
        least: the lowest value.
        most: the highest value; infinite for none.
        above: whether `least` itself is too low.

    Raises:
        ConfigurationError: it is outside of these, not finite or no number.

    Example:
        >>> checked_number(1, "hybrid", 0, 1)
        1.0
        >>> checked_number("150", "dpi", 0, above=True)
        Traceback (most recent call last):
        colpali_integrations.errors.ConfigurationError: dpi must be a positive number, got '150'
    """
    number = _real(value)
    if number is not None and math.isfinite(number) and least <= number <= most and not (above and number == least):
        return number
    if math.isfinite(most):
        expected = f"number above {least:g} and up to {most:g}" if above else f"number from {least:g} to {most:g}"
    else:
        limit = f"{'above' if above else 'of at least'} {least:g}"
        expected = "positive number" if limit == "above 0" else f"number {limit}"
    raise ConfigurationError(f"{name} must be a {expected}, got {shown(value)}")


def checked_timeout(value: object, name: str) -> float:
    """The seconds of a time limit, as a float.

    Args:
        value: of the option.
        name: of the option, for the message.

    Raises:
        ConfigurationError: it is not positive, above a million (some eleven days), or no number.

    Example:
        >>> checked_timeout(10, "timeout")
        10.0
        >>> checked_timeout(None, "timeout")
        Traceback (most recent call last):
        colpali_integrations.errors.ConfigurationError: timeout must be a number above 0 and up to 1e+06, got None
    """
    return checked_number(value, name, 0, _LONGEST, above=True)


def checked_flag(value: object, name: str) -> bool:
    """The value of an option that is on or off. A text is refused, because "false" would be on.

    Args:
        value: of the option.
        name: of the option, for the message.

    Raises:
        ConfigurationError: it is neither True nor False.

    Example:
        >>> checked_flag("false", "allow_urls")
        Traceback (most recent call last):
        colpali_integrations.errors.ConfigurationError: allow_urls must be True or False, got 'false'
    """
    if not isinstance(value, bool | np.bool_):
        raise ConfigurationError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def checked_text(value: object, name: str) -> str:
    """The value of an option that is a text.

    Args:
        value: of the option.
        name: of the option, for the message.

    Raises:
        ConfigurationError: it is no string.

    Example:
        >>> checked_text(5, "name")
        Traceback (most recent call last):
        colpali_integrations.errors.ConfigurationError: name must be a str, got 5
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a str, got {shown(value)}")
    return value


def checked_texts(values: object, name: str, example: str) -> tuple[str, ...]:
    """The values of an option that is a list of texts.

    Args:
        values: of the option.
        name: of the option, for the message.
        example: of such a list, for the message.

    Raises:
        ConfigurationError: one string, or something else than a list of strings.

    Example:
        >>> checked_texts(["head.", "lm_head."], "allow_unused", "['lm_head.']")
        ('head.', 'lm_head.')
        >>> checked_texts("lm_head.", "allow_unused", "['lm_head.']")
        Traceback (most recent call last):
        colpali_integrations.errors.ConfigurationError: allow_unused must be a list such as ['lm_head.'], got 'lm_head.'
    """
    several = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes) else None
    if several is None or not all(isinstance(one, str) for one in several):
        raise ConfigurationError(f"{name} must be a list such as {example}, got {shown(values)}")
    return several


def checked_several(values: Any, expected: str, error: type[InputError] = InputError) -> Any:
    """The values, which can be iterated over.

    Args:
        values: a list, a generator or another iterable.
        expected: a description of the values, for the message.
        error: the class of the error.

    Raises:
        InputError: they cannot be iterated over.

    Example:
        >>> checked_several(None, "a list of ids")
        Traceback (most recent call last):
        colpali_integrations.errors.InputError: expected a list of ids, got None
    """
    try:
        iter(values)
    except TypeError as reason:
        raise error(f"expected {expected}, got {shown(values)}") from reason
    return values


def _whole(value: object) -> int | None:
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # it raises a TypeError
    except TypeError:
        number = _real(value)
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(cast("SupportsFloat", value))
    except OverflowError:  # an int beyond the largest float
        return math.inf
