"""Errors in the words of the command line: what to pass, where the message for Python names a call."""

from __future__ import annotations

from colpali_integrations.errors import FingerprintError

__all__ = ["message_of"]


def message_of(error: BaseException) -> str:
    """The message of an error, with advice that a command can follow.

    >>> from colpali_integrations.models.opened import Opened
    >>> opened = Opened("large", "models/large", {"precision": "int8"})
    >>> message_of(FingerprintError("open the model with ...", reason="It takes pages of one", opened=opened))
    'It takes pages of one: pass --model models/large --precision int8, or name a new --store.'
    """
    if isinstance(error, FingerprintError) and error.opened is not None:
        return f"{error.reason}: pass {error.opened.arguments}, or name a new --store."
    return str(error)
