"""The API key of a server, which the server compares and its clients send."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import NoReturn

from colpali_integrations.errors import ConfigurationError

__all__ = ["KEY_VARIABLE", "READ_KEY_VARIABLE", "ApiKey", "key_in_file", "key_in_variable"]

KEY_VARIABLE = "COLPALI_API_KEY"
READ_KEY_VARIABLE = "COLPALI_READ_API_KEY"
_SHORTEST_KEY = 16


class ApiKey:
    """A key that shows itself nowhere: not in `repr`, not in a pickle, not in an error.

    Args:
        value: at least 16 visible ASCII characters.
        where: its place, for the message.

    Raises:
        ConfigurationError: it is shorter or has other characters; the message does not contain it.

    Example:
        >>> key = ApiKey("correct horse battery".replace(" ", "-"), where="the example")
        >>> key, key.matches("correct-horse-battery"), key.matches("wrong")
        (ApiKey(hidden), True, False)
    """

    __slots__ = ("_value",)

    def __init__(self, value: str, *, where: str) -> None:
        if len(value) < _SHORTEST_KEY or not all("!" <= character <= "~" for character in value):
            raise ConfigurationError(
                f"the API key in {where} must be one line of at least {_SHORTEST_KEY} visible ASCII characters and no "
                "space; make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        self._value = value.encode()

    def matches(self, given: str) -> bool:
        """Whether a caller has given this key, in a time that does not depend on where they differ."""
        return hmac.compare_digest(self._value, given.encode("utf-8", "surrogatepass"))

    def equals(self, other: ApiKey) -> bool:
        """Whether another key is the same."""
        return hmac.compare_digest(self._value, other._value)

    @property
    def header(self) -> str:
        """The value of the header Authorization, with which a client sends the key."""
        return f"Bearer {self._value.decode()}"

    def __repr__(self) -> str:
        return "ApiKey(hidden)"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("an API key cannot be pickled")


def key_in_file(file: Path) -> ApiKey:
    """The API key of a file, on its one line.

    Raises:
        ConfigurationError: the file cannot be read, or its content is no key.
    """
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise ConfigurationError(f"the API key file {file} cannot be read: {reason}") from None
    return ApiKey(text.strip(), where=str(file))


def key_in_variable(value: str, name: str = KEY_VARIABLE) -> ApiKey:
    """The API key that is the value of an environment variable.

    Args:
        value: of the variable.
        name: of the variable.

    Raises:
        ConfigurationError: it is no key.
    """
    return ApiKey(value.strip(), where=f"the environment variable {name}")
