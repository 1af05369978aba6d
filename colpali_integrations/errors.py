"""Every error that this package raises on purpose.

    ColPaliError
    ├── ConfigurationError (ValueError)   an argument, a description or an environment that cannot work
    │   └── ProviderError                 an execution provider was asked for and did not come up
    ├── ModelError                        the files of a model
    │   ├── ModelNotFoundError            unknown name, missing file, or no network
    │   └── ModelLoadError                files are there but cannot be read or do not fit the family
    ├── InputError (ValueError)           something the caller handed in
    │   ├── ImageError                    not readable as an image
    │   ├── PdfError                      not readable as a PDF
    │   └── QueryError                    not usable as a query
    ├── EncodingError                     the model ran and what came out cannot be used
    ├── StoreError                        a page store
    │   └── FingerprintError              an index made by another model
    └── MissingExtraError (ImportError)   an optional dependency is not installed

An error about one item of a stream carries that item's position as `index` (0-based) and its name as `item`.
"""

from __future__ import annotations

__all__ = [
    "ColPaliError",
    "ConfigurationError",
    "EncodingError",
    "FingerprintError",
    "ImageError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "ModelLoadError",
    "ModelNotFoundError",
    "PdfError",
    "ProviderError",
    "QueryError",
    "StoreError",
]


class ColPaliError(Exception):
    """Base of every error raised on purpose by this package.

    Attributes:
        index: 0-based position of the offending item in the caller's input, when the error is about one item.
        item: a short name of that item (a path, a URL, "PDF page 3 of report.pdf", the start of a text).

    Example:
        >>> from colpali_integrations import ColPali
        >>> model = ColPali.from_pretrained()
        >>> try:
        ...     list(model.embed_images(["report.pdf"]))
        ... except ColPaliError as error:
        ...     print(error)
        item 0 (report.pdf): report.pdf is a PDF; pass its pages: embed_images(pdf_pages(path))
    """

    index: int | None = None
    item: str | None = None

    def at(self, index: int, item: str) -> ColPaliError:
        """Return this error, marked with the item that it is about.

        The mark appears in the message, because a traceback out of a worker thread says nothing of the input.
        """
        if self.index is None:
            self.index, self.item = index, item
        return self

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.index is None else f"item {self.index} ({self.item}): {message}"


class ConfigurationError(ColPaliError, ValueError):
    """An argument, a model description or an environment that cannot work."""


class ProviderError(ConfigurationError):
    """An execution provider was asked for and did not come up."""


class ModelError(ColPaliError):
    """Base of the errors about a model's files."""


class ModelNotFoundError(ModelError):
    """The name is unknown, a file is missing, or the Hub cannot be reached."""


class ModelLoadError(ModelError):
    """The files are there but cannot be read, or do not fit the family."""


class InputError(ColPaliError, ValueError):
    """Base of the errors about something the caller handed in."""


class ImageError(InputError):
    """Something that cannot be read as an image."""


class PdfError(InputError):
    """Something that cannot be read as a PDF."""


class QueryError(InputError):
    """Something that cannot be used as a query."""


class EncodingError(ColPaliError):
    """The model ran, but its output cannot be used (not finite, wrong shape)."""


class StoreError(ColPaliError):
    """A page store cannot be opened, read or written."""


class FingerprintError(StoreError):
    """A store was made by another model than the one at hand."""


class MissingExtraError(ColPaliError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self._given = package, extra, purpose
        super().__init__(
            f'{purpose} needs {package}, which is not installed. Run: pip install "colpali-integrations[{extra}]"'
        )

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        """For other processes: by default an exception is made anew of its message alone."""
        return type(self), self._given
