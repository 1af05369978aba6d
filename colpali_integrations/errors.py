"""The errors that this package raises.

    ColPaliError
    ├── ConfigurationError (ValueError)   an option is unknown or has an invalid value
    │   └── ProviderError                 a requested ONNX Runtime execution provider failed to start
    ├── ModelError                        a problem with the files of a model
    │   ├── ModelNotFoundError            unknown name, missing file, no network or no server
    │   └── ModelLoadError                files that cannot be read or do not fit the family
    ├── InputError (ValueError)           invalid input
    │   ├── ImageError                    the input cannot be read as an image
    │   ├── PdfError                      the input cannot be read as a PDF
    │   │   └── OfficeError               nor be converted to one by LibreOffice
    │   └── QueryError                    the input cannot be used as a query
    ├── EncodingError                     the model ran, but its output is unusable
    ├── StoreError                        a store cannot be opened, read or written
    │   └── FingerprintError              a store of another space, or pages made with other settings
    └── MissingExtraError (ImportError)   an optional dependency is not installed

An error about one item of a stream has the item's position (0-based) as `index` and its name as `item`.
"""

from __future__ import annotations

from colpali_integrations._text import encodable, printable, split_name

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
    "OfficeError",
    "PdfError",
    "ProviderError",
    "QueryError",
    "StoreError",
]


class ColPaliError(Exception):
    """Base class of all errors that this package raises.

    Attributes:
        index: 0-based position of the offending item in the caller's input, when the error is about one item.
        item: short name of that item (a path, a URL, "report.pdf, page 3", the start of a text).
        command: the message in the words of the command line, where it differs by more than the names of options.

    Args:
        message: what is wrong, what was expected, and the next step.
        command: as the attribute.

    Example:
        >>> from colpali_integrations import ColPali
        >>> model = ColPali.from_pretrained()
        >>> try:
        ...     list(model.embed_images(["report.pdf"]))
        ... except ColPaliError as error:
        ...     print(error)
        item 0 (report.pdf): is a PDF; pass its pages: embed_images(pdf_pages(path))
    """

    index: int | None = None
    item: str | None = None
    command: str | None = None

    def __init__(self, message: str = "", *, command: str | None = None) -> None:
        super().__init__(encodable(str(message)))
        if command is not None:
            self.command = command  # among the attributes, which pickle keeps

    def at(self, index: int, item: str) -> ColPaliError:
        """Add the position and name of the offending item, and return this error.

        They appear in the message, because the traceback of a worker thread does not show the input.
        """
        if self.index is None:
            self.index, self.item = index, item
        return self

    def __str__(self) -> str:
        """The message. A name in it can neither change the terminal nor forge a line: see `_text.printable`."""
        message = printable(super().__str__())
        if self.index is None:
            return message
        name, reason = split_name(printable(self.item or ""), message)
        return f"item {self.index} ({name}): {reason}"


class ConfigurationError(ColPaliError, ValueError):
    """An option, a model description or the environment has an invalid value, or an option is unknown."""


class ProviderError(ConfigurationError):
    """The requested ONNX Runtime execution provider failed to start."""


class ModelError(ColPaliError):
    """Base class of the errors about a model's files."""


class ModelNotFoundError(ModelError):
    """The name is unknown, a file is missing, or the Hub or the server of a model cannot be reached."""


class ModelLoadError(ModelError):
    """The files exist but cannot be read, or do not fit the family."""


class InputError(ColPaliError, ValueError):
    """Base class of the errors about invalid input."""


class ImageError(InputError):
    """The input cannot be read as an image."""


class PdfError(InputError):
    """The input cannot be read as a PDF."""


class OfficeError(PdfError):
    """The input cannot be read as an Office file, or LibreOffice, which converts it, is not installed."""


class QueryError(InputError):
    """The input cannot be used as a query."""


class EncodingError(ColPaliError):
    """The model ran, but its output is unusable (not finite, wrong shape); or its server gave none."""


class StoreError(ColPaliError):
    """A store cannot be opened, read or written."""


class FingerprintError(StoreError):
    """A store was made by a model of another space than the one in use, or its pages with other settings."""


class MissingExtraError(ColPaliError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self._arguments = package, extra, purpose
        super().__init__(
            f'{purpose} needs {package}, which is not installed. Run: pip install "colpali-integrations[{extra}]"'
        )

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        """Pickle the arguments, because by default unpickling calls the constructor with the message alone."""
        return type(self), self._arguments
