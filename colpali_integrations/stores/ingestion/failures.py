"""What happens to an item that cannot be stored: its error is raised, or logged and reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from colpali_integrations._logs import package_logger
from colpali_integrations._text import split_name
from colpali_integrations.errors import ColPaliError, ConfigurationError, ModelError

__all__ = ["Failure", "OnError", "check_on_error", "skipped"]

logger = package_logger(__name__)

OnError: TypeAlias = Literal["raise", "skip"]


@dataclass(frozen=True)
class Failure:
    """A document, page or text that could not be stored.

    Attributes:
        name: the path, or "path, page n".
        error: the reason.

    Example:
        >>> from colpali_integrations.errors import PdfError
        >>> Failure("torn.pdf", PdfError("torn.pdf is damaged").at(3, "torn.pdf")).reason
        'torn.pdf is damaged'
    """

    name: str
    error: ColPaliError

    @property
    def reason(self) -> str:
        """The error's message, without the position in the stream."""
        return str(self.error.args[0]) if self.error.args else str(self.error)


def check_on_error(on_error: str) -> None:
    """Refuse any value but "raise" and "skip"."""
    if on_error not in ("raise", "skip"):
        raise ConfigurationError(f"on_error must be 'raise' or 'skip', got {on_error!r}")


def skipped(name: str, error: ColPaliError, on_error: OnError) -> Failure:
    """Raise an error, or log it, as `on_error` requires. A model that cannot be loaded is no fault of an item."""
    if on_error == "raise" or isinstance(error, ModelError):
        raise error from error.__cause__
    failure = Failure(name, error)
    logger.warning("skipped %s: %s", *split_name(name, str(error)), extra={"failure": failure})
    return failure
