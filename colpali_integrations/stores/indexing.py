"""Indexing of files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from threading import Event
from typing import Any

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.pages.document import DEFAULT_DPI
from colpali_integrations.pages.identity import real_path
from colpali_integrations.pages.pdf import page_numbers
from colpali_integrations.stores.ingest import IngestReport, OnError, ProgressCallback, ingest
from colpali_integrations.stores.items import DocumentSource
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["Paths", "find_documents", "index_documents"]

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pdf", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def find_documents(paths: Paths, *, exclude: Iterable[str] = ()) -> list[Path]:
    """List the PDFs and images among `paths`, which may be files and folders, each file once.

    In folders, hidden files and folders are skipped, as are files whose suffix is neither of a PDF nor of an image.

    Args:
        paths: one or several files and folders; `~` is the home folder.
        exclude: patterns such as "drafts/*" or "*.tif", compared with the path below a searched folder and with the
            file's name.

    Returns:
        Paths in the order of `paths`, within a folder by name.

    Raises:
        InputError: a path does not exist.

    Example:
        >>> [path.as_posix() for path in find_documents(["report.pdf", "reports/", "report.pdf"])]
        ['report.pdf', 'reports/2024.pdf']
    """
    patterns = [exclude] if isinstance(exclude, str) else list(exclude)
    files: dict[str, Path] = {}
    for name in [paths] if isinstance(paths, str | os.PathLike) else paths:
        path = Path(name).expanduser()
        if not path.exists():
            raise InputError(f"no such file or folder: {name}")
        for file in _files_in(path, patterns) if path.is_dir() else [path]:
            files.setdefault(real_path(file), file)
    return list(files.values())


def index_documents(
    paths: Paths,
    *,
    model: ColPali,
    store: MultiVectorStore | str | os.PathLike[str],
    exclude: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    document_id: str | None = None,
    pages: Iterable[int] | None = None,
    dpi: float = DEFAULT_DPI,
    password: str | None = None,
    batch_size: int | None = None,
    parallel: int | None = None,
    on_error: OnError = "skip",
    progress: ProgressCallback | bool = False,
    stop: Event | None = None,
) -> IngestReport:
    """Store the pages of PDFs, images and folders, encoding only pages that are new to the store.

    A document is its real path together with `metadata`: the same file with other metadata, or in another folder, is
    another document. A document that changed is replaced; see `ingest`.

    Args:
        paths: one or several files and folders.
        model: the encoder.
        store: the destination; a folder is opened, or made, as a store of this model.
        exclude: patterns of files in folders to skip; see `find_documents`.
        metadata: the caller's own values, for every page.
        document_id: identity of a single document, instead of the one derived from its path and `metadata`.
        pages: 1-based numbers of the pages of each document; None for all.
        dpi: resolution of PDF pages.
        password: for encrypted PDFs.
        batch_size: as `ColPali.embed_images`.
        parallel: as `ColPali.embed_images`.
        on_error: "skip" documents and pages that cannot be read, or "raise".
        progress: a function that is called after each page, or True for a progress bar on stderr.
        stop: once it is set, the run ends after the current page.

    Returns:
        Numbers, and the failures.

    Raises:
        InputError: a path does not exist; with `on_error="raise"` also if a document cannot be read.
        ConfigurationError: an option has an invalid value.
        StoreError: the store cannot be written.
        FingerprintError: the store was made by another model.

    Example:
        >>> from colpali_integrations import ColPali
        >>> with ColPali.from_pretrained() as model:
        ...     first = index_documents("report.pdf", model=model, store="new-index")
        ...     report = index_documents(["reports/", "report.pdf"], model=model, store="new-index")
        >>> first.added, report.added, report.present, report.failures
        (2, 1, 2, [])
    """
    documents = find_documents(paths, exclude=exclude)
    if document_id is not None and len(documents) != 1:
        raise ConfigurationError(f"document_id names one document, and the paths hold {len(documents)}")
    numbers = page_numbers(pages)
    if not dpi > 0:
        raise ConfigurationError(f"dpi must be positive, got {dpi}")
    sources = [
        DocumentSource(
            source=path, document_id=document_id, metadata=metadata, pages=numbers, dpi=dpi, password=password
        )
        for path in documents
    ]
    options: dict[str, Any] = {"batch_size": batch_size, "parallel": parallel, "on_error": on_error}
    if isinstance(store, MultiVectorStore):
        return ingest(sources, store=store, model=model, progress=progress, stop=stop, **options)
    with MultiVectorStore.open(store, model=model) as destination:
        return ingest(sources, store=destination, model=model, progress=progress, stop=stop, **options)


def _files_in(folder: Path, exclude: Sequence[str]) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.suffix.lower() not in _SUFFIXES or any(part.startswith(".") for part in below.parts):
            continue
        if path.is_file() and not any(fnmatch(str(below), one) or fnmatch(path.name, one) for one in exclude):
            yield path
