"""Which documents paths mean, and what of a document is still to be embedded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from colpali_integrations.errors import InputError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.pages.pdf import PdfPage, pdf_page_count, pdf_pages
from colpali_integrations.pages.reference import DEFAULT_DPI, document_hash, is_pdf, page_hash, page_name
from colpali_integrations.stores.entries import Entry, page_key

__all__ = ["DocumentPlan", "find_documents", "plan_document"]

_IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SUFFIXES = _IMAGE_SUFFIXES | {".pdf"}


def find_documents(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The PDFs and images among `paths`: files as they are, folders searched through, each document once.

    In folders, hidden files and folders are passed over, as are files that are neither PDF nor image by their suffix.

    Args:
        paths: files and folders; `~` is the home folder.

    Returns:
        Absolute paths; the order of `paths`, within a folder by name.

    Raises:
        InputError: a path does not exist.

    Example:
        >>> [path.name for path in find_documents(["report.pdf", "reports/", "report.pdf"])]
        ['report.pdf', '2024.pdf']
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given).expanduser().resolve()
        if path.is_dir():
            inside = (
                entry for entry in sorted(path.rglob("*")) if entry.suffix.lower() in _SUFFIXES and entry.is_file()
            )
            found.update(dict.fromkeys(entry for entry in inside if not _hidden(entry.relative_to(path))))
        elif path.exists():
            found[path] = None
        else:
            raise InputError(f"no such file or folder: {given}")
    return list(found)


@dataclass
class DocumentPlan:
    """A document and what is to be done about it.

    Attributes:
        document: its absolute path, or its bytes where it is no file here.
        dpi: the resolution of its pages; None for an image.
        digest: hash of its bytes.
        keys: the ids of its pages, in order.
        missing: 1-based numbers of the pages to be embedded.
        name: what entries call it, instead of its path.
        complete: whether all went well so far.
    """

    document: Path | bytes
    dpi: float | None
    digest: str
    keys: list[str]
    missing: list[int]
    name: str | None = None
    complete: bool = True

    @property
    def source(self) -> str:
        """The path as entries name it."""
        return str(self.document) if self.name is None else self.name

    def drawn(self) -> Iterator[PdfPage | tuple[int, InputError]]:
        """The missing pages of a PDF, one by one; for one that cannot be drawn its number and why, then the next."""
        remaining = deque(self.missing)
        while remaining:
            try:
                for page in pdf_pages(self.document, dpi=self.dpi or DEFAULT_DPI, pages=remaining):
                    remaining.popleft()
                    yield page
            except InputError as error:
                yield remaining.popleft(), error

    def entry(self, number: int, *, width: float, height: float, text: str, grid: PageGrid | None = None) -> Entry:
        """The entry of a page; `width` and `height` are in points for a PDF, in pixels for an image."""
        metadata = {
            "source": self.source,
            "page": number,
            "page_count": len(self.keys),
            "width": round(width, 2),
            "height": round(height, 2),
            "dpi": self.dpi,
            "content_hash": page_hash(self.digest, number),
        }
        return Entry(
            id=self.keys[number - 1],
            text=text.strip() or page_name(self.source, number),
            metadata={key: value for key, value in metadata.items() if value is not None},
            group=self.source,
            content_hash=page_hash(self.digest, number),
            grid=grid,
        )


def plan_document(document: Path | bytes, dpi: float, *, name: str | None = None) -> DocumentPlan:
    """Look at a document without drawing anything: all its pages are missing so far.

    Args:
        document: its path, or its bytes.
        dpi: resolution of PDF pages.
        name: what entries call it, instead of its path.

    Raises:
        InputError: it cannot be read.
        PdfError: it is no PDF that can be read.
    """
    try:
        (str(document) if name is None else name).encode()
    except UnicodeEncodeError as error:
        raise InputError("the name of this file is no Unicode, and a store keeps nothing else; rename it") from error
    digest, drawn = document_hash(document), is_pdf(document)
    numbers = range(1, (pdf_page_count(document) if drawn else 1) + 1)
    resolution = dpi if drawn else None
    keys = [page_key(page_hash(digest, number), resolution) for number in numbers]
    return DocumentPlan(document, resolution, digest, keys, list(numbers), name)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
