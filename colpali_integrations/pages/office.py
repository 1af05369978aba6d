"""Office files as PDFs, by their paths or bytes."""

from __future__ import annotations

import os
from pathlib import Path

from colpali_integrations._kinds import Kind, kind_of
from colpali_integrations.errors import OfficeError
from colpali_integrations.office.conversion import converted
from colpali_integrations.office.formats import FORMATS, UPLOADED, format_of, is_marked
from colpali_integrations.office.kept import Converted
from colpali_integrations.pages.files import open_file

__all__ = ["OFFICE_SUFFIXES", "UPLOADED_SUFFIXES", "is_office", "office_pdf", "other_kind"]

OFFICE_SUFFIXES = frozenset(FORMATS)
"""Suffixes of Office files, in lower case."""

UPLOADED_SUFFIXES = UPLOADED
"""Suffixes of those that are taken over a network too: all but HTML."""

_PREFIX, _BEGINNING = 8, 1000
_LARGEST = 1 << 28  # bytes of a file that is looked into, to name it; a longer zip is a zip


def is_office(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether a document is an Office file: by the suffix of its name, else by its content.

    Only a file with the suffix of HTML is HTML. A zip without a known suffix is an Office file if it holds the parts
    of one.
    """
    if isinstance(source, bytes):
        return is_marked(source[:_PREFIX]) and _is_known(source)
    path = Path(source)
    if path.suffix.lower() in FORMATS:
        return True
    try:
        with open_file(path) as file:
            prefix = file.read(_PREFIX)
            return is_marked(prefix) and _is_known(prefix + file.read())
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return False


def office_pdf(source: Path | bytes) -> Converted:
    """The PDF of an Office file, which is converted if no earlier conversion of equal content is kept.

    Raises:
        OfficeError: see `converted`; the message is a sentence without a subject.
        ConfigurationError: see `converted`.
    """
    if isinstance(source, bytes):
        return converted(source, "")
    try:
        with open_file(source) as file:
            return converted(file.read(), source.suffix if source.suffix.lower() in FORMATS else "")
    except OSError as error:
        raise OfficeError(f"cannot be read: {error.strerror or error}") from error


def other_kind(source: Path | bytes) -> str | None:
    """What a document is that is named as a PDF and is none, and what to do; None where that is not known.

    Args:
        source: a file, or its content.

    Returns:
        A sentence without a subject.

    Example:
        >>> other_kind(b"GIF89a")
        'is a GIF image and no PDF; rename it to end in .gif'
    """
    try:
        if isinstance(source, bytes):
            content = source
        else:
            with open_file(source) as file:
                content = file.read(_BEGINNING)
                if is_marked(content[:_PREFIX]):
                    content += file.read(_LARGEST)
        format_ = format_of(content, "")
    except OSError:
        return None
    except OfficeError as error:  # encrypted
        return f"is an Office file and no PDF; it {error}"
    name = None if format_ is None else format_.suffix
    kind = kind_of(content[:_BEGINNING]) if name is None else Kind(f"{_article(name)} {name[1:].upper()} file", name)
    if kind is None or kind.suffix == ".pdf":
        return None
    advice = f"rename it to end in {kind.suffix}" if kind.suffix else "unpack it"
    return f"is {kind.name} and no PDF; {advice}"


def _article(suffix: str) -> str:
    return "an" if suffix[1] in "orx" else "a"  # as the letters are spoken


def _is_known(content: bytes) -> bool:
    try:
        return format_of(content, "") is not None
    except OfficeError:  # encrypted: reading it raises the error
        return True
