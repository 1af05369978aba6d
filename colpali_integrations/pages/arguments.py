"""Numbers and passwords that callers give for a document, checked."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

from colpali_integrations._options import shown
from colpali_integrations.errors import ConfigurationError

__all__ = ["checked_password", "page_numbers", "whole_number"]

_EXPECTED = "pages: expected 1-based whole numbers, such as [1, 3] or range(1, 4)"


def page_numbers(pages: Iterable[int] | None) -> list[int] | None:
    """The requested pages as a list, which may be read once per document; None for all.

    Args:
        pages: 1-based whole numbers, NumPy's among them: a list, a range or a generator.

    Raises:
        ConfigurationError: something else, such as 3, "1-3", [0] or [1.0].

    Example:
        >>> page_numbers(range(1, 4))
        [1, 2, 3]
    """
    if pages is None:
        return None
    if isinstance(pages, str | bytes) or not isinstance(pages, Iterable):
        raise ConfigurationError(f"{_EXPECTED}, got {shown(pages)}")
    numbers = [whole_number(number) for number in pages]
    if numbers and min(numbers) < 1:
        raise ConfigurationError(f"{_EXPECTED}, got {shown(min(numbers))}")
    return numbers


def whole_number(number: Any) -> int:
    """The number of a page as an int.

    Raises:
        ConfigurationError: a float, a string, a bool or another object.
    """
    if isinstance(number, Integral) and not isinstance(number, bool):
        return int(number)
    raise ConfigurationError(f"{_EXPECTED}, got {shown(number)}")


def checked_password(password: Any) -> str | None:
    """The password of a document, or None.

    Raises:
        ConfigurationError: it is no string, or not valid Unicode.
    """
    if password is None:
        return None
    if not isinstance(password, str):
        raise ConfigurationError(f"password must be a str, got {type(password).__name__}")
    try:
        password.encode()
    except UnicodeEncodeError as error:  # the message must not show it
        raise ConfigurationError(f"password is not valid Unicode: {error.reason} (character {error.start})") from None
    return password
