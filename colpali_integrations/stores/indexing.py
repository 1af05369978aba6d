"""Indexing of files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Event
from typing import Any

from colpali_integrations._failures import item_error
from colpali_integrations._paths import is_folder
from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.pages.arguments import page_numbers
from colpali_integrations.pages.document import DEFAULT_DPI
from colpali_integrations.pages.formats import ImageLimits
from colpali_integrations.pages.identity import page_name
from colpali_integrations.pages.metadata import storable_metadata
from colpali_integrations.runtime.pipeline import checked_batching
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.folders import FoundDocuments, Paths, find_documents, several_paths
from colpali_integrations.stores.ingest import ingest
from colpali_integrations.stores.ingestion.failures import OnError, check_on_error, skipped
from colpali_integrations.stores.ingestion.plan import no_such_pages
from colpali_integrations.stores.ingestion.progress import Progress, ProgressCallback, listening
from colpali_integrations.stores.ingestion.report import IngestReport
from colpali_integrations.stores.items import DocumentSource, page_entry
from colpali_integrations.stores.model_choice import open_model, stored_model
from colpali_integrations.stores.opening import stored_settings
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["are_several", "check_document_id", "index_documents", "read_documents"]


def check_document_id(document_id: str | None, sources: Sequence[object]) -> None:
    """Refuse a `document_id` for several documents, or for a folder, whose number of documents may change.

    Raises:
        ConfigurationError: one of these.
    """
    if document_id is None:
        return
    found = sources.folder if isinstance(sources, FoundDocuments) else None
    folders = [one for one in sources if is_folder(one)] if found is None else [found]
    if folders or len(sources) != 1:
        given = f"{folders[0]} is a folder" if folders else f"there are {len(sources)}"
        raise ConfigurationError(f"document_id names one document, and {given}")


def are_several(sources: Sequence[object], documents: Sequence[object]) -> bool:
    """Whether a caller's sources stand for several documents, as a folder does even where it has only one.

    Args:
        sources: of the caller: files, folders and others.
        documents: the documents among them and in the folders.
    """
    return len(documents) > 1 or any(map(is_folder, sources))


def read_documents(
    sources: Iterable[DocumentSource], *, on_error: OnError = "raise", progress: ProgressCallback | bool = False
) -> Iterator[Entry]:
    """Read documents without a store, one page at a time; pictures are drawn for `include_image` only.

    Args:
        sources: the documents, each of which is opened once.
        on_error: "raise" the error of a document or page that cannot be read, or "skip" it with a log entry.
        progress: a function that is called after each page, or True for a progress bar on stderr. The total counts the
            pages of the documents opened so far.

    Yields:
        The entry of each page, without a grid.

    Raises:
        ConfigurationError: `on_error` has another value.
        InputError: a document or page cannot be read, or no document has a requested page.

    Example:
        >>> [entry.name for entry in read_documents([DocumentSource(source="report.pdf", pages=[2])])]
        ['report.pdf, page 2']
    """
    check_on_error(on_error)
    state = Progress(0, 0)
    with listening(progress) as listener:
        for name, found, page in _read(sources):
            failure = skipped(name, page, on_error) if isinstance(page, ColPaliError) else None
            state = Progress(state.done + 1, state.total + found, name, failure)
            listener(state)
            if isinstance(page, Entry):
                yield page


def index_documents(
    paths: Paths,
    *,
    model: ColPali | str | os.PathLike[str],
    store: MultiVectorStore | str | os.PathLike[str],
    exclude: Iterable[str] = (),
    follow_symlinks: bool = False,
    metadata: Mapping[str, Any] | None = None,
    document_id: str | None = None,
    pages: Iterable[int] | None = None,
    dpi: float = DEFAULT_DPI,
    password: str | None = None,
    isolate: bool = True,
    max_pixels: int | None = None,
    image_formats: Iterable[str] | None = None,
    force: bool = False,
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
        paths: one or several files and folders, or the result of `find_documents`.
        model: the encoder; or the name or folder of a model, which goes on with the settings of the store's pages.
        store: the destination; a folder is opened, or made, as a store of this model.
        exclude: patterns of files in folders to skip; see `find_documents`.
        follow_symlinks: search folders behind symbolic links too; see `find_documents`.
        metadata: the caller's own values, for every page.
        document_id: identity of a single document, instead of the one derived from its path and `metadata`.
        pages: 1-based numbers of the pages of each document; None for all. Pages beyond the end of one of several
            documents are passed over, and counted in the report as `absent`.
        dpi: resolution of PDF pages.
        password: for encrypted PDFs.
        isolate: False to read PDFs that you trust in this process, without limits; see `pages.open_pdf`.
        max_pixels: of an image, see `pages.load_image`; None for that of the model.
        image_formats: further formats of images, see `pages.load_image`; None for those of the model.
        force: draw and encode pages that the store has already, such as after fonts were installed; see `ingest`.
        batch_size: as `ColPali.embed_images`.
        parallel: as `ColPali.embed_images`.
        on_error: "skip" documents and pages that cannot be read, or "raise".
        progress: a function that is called after each page, or True for a progress bar on stderr.
        stop: once it is set, the run ends after the current page.

    Returns:
        Numbers, the failures, and warnings about documents.

    Raises:
        InputError: a path does not exist, or no document has a requested page; with `on_error="raise"` also if a
            document cannot be read.
        ConfigurationError: an option has an invalid value.
        StoreError: the store cannot be written.
        FingerprintError: the store was made by another model, or its pages with other settings.

    Example:
        >>> from colpali_integrations import ColPali
        >>> with ColPali.from_pretrained() as model:
        ...     first = index_documents("report.pdf", model=model, store="new-index")
        ...     report = index_documents(["reports/", "report.pdf"], model=model, store="new-index")
        >>> first.added, report.added, report.present, report.failures
        (2, 1, 2, [])
    """
    limits = (model.image_limits if isinstance(model, ColPali) else ImageLimits()).override(max_pixels, image_formats)
    documents = _documents(paths, document_id, exclude, follow_symlinks, limits)
    template = DocumentSource(
        source="",
        document_id=document_id,
        metadata=storable_metadata(metadata),
        pages=page_numbers(pages),
        pass_over=documents.several,
        dpi=dpi,
        password=password,
        isolate=isolate,
        **limits.options,
    )
    sources = [replace(template, source=path) for path in documents]
    checked_batching(batch_size, parallel)  # before a store is made
    check_on_error(on_error)
    options: dict[str, Any] = {"batch_size": batch_size, "parallel": parallel, "on_error": on_error, "force": force}
    options |= {"progress": progress, "stop": stop}
    if isinstance(store, MultiVectorStore):
        report = ingest(sources, store=store, model=model, **options)
    else:
        if sources and stored_settings(store) is None:
            model = open_model(model, stored_model(model))  # loaded before the store is made
        with MultiVectorStore.open(store, model=model) as destination:
            report = ingest(sources, store=destination, model=model, **options)
    report.passed_over = dict(documents.passed_over)
    return report


def _documents(
    paths: Paths, document_id: str | None, exclude: Iterable[str], follow_symlinks: bool, limits: ImageLimits
) -> FoundDocuments:
    if isinstance(paths, FoundDocuments):
        given = {"exclude": bool(exclude), "follow_symlinks": follow_symlinks}
        if names := [name for name, is_given in given.items() if is_given]:
            raise ConfigurationError(f"{' and '.join(names)}: the paths are found already; pass it to find_documents")
        check_document_id(document_id, paths)
        return paths
    several = several_paths(paths)
    check_document_id(document_id, several)
    formats = limits.image_formats
    return find_documents(several, exclude=exclude, follow_symlinks=follow_symlinks, image_formats=formats)


def _read(sources: Iterable[DocumentSource]) -> Iterator[tuple[str, int, Entry | ColPaliError]]:
    """Read pages: name, number of pages found since the last one, and the entry or the error."""
    found, absent, longest = 0, 0, 0
    for source in sources:
        try:
            document = source.open()
        except BaseException as error:
            yield source.label, 1, item_error(error)
            continue
        with document:
            numbers = source.numbers(document)
            found, longest = found + len(numbers), max(longest, document.page_count)
            absent += len(source.pages or numbers) - len(numbers)
            for index, number in enumerate(numbers):
                page: Entry | ColPaliError
                try:
                    page = page_entry(document.page(number), include_image=source.include_image)
                except BaseException as error:
                    page = item_error(error)
                yield page_name(document.name, number), 0 if index else len(numbers), page
    if absent and not found:
        raise no_such_pages(longest)
