"""PDFs, images and folders -> pages in a store. What is there already is skipped, what cannot be read is named.

    paths --find_documents--> documents --plan--> pages that are missing --render, embed_images--> store

A page is recognised by the bytes of its document, its number and the resolution, so a document that did not change is
skipped before anything of it is drawn, and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.core.errors import ColPaliError, ConfigurationError, InputError
from colpali_integrations.core.images import load_image
from colpali_integrations.core.model import ColPali
from colpali_integrations.core.page_meta import DEFAULT_DPI, document_hash, is_pdf, page_hash
from colpali_integrations.core.pdf import PdfPage, pdf_page_count, pdf_pages
from colpali_integrations.stores.page_store import PageStore
from colpali_integrations.stores.records import Fingerprint, Page, page_key

__all__ = ["Failure", "IndexListener", "IndexReport", "find_documents", "index_documents"]

_IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SUFFIXES = _IMAGE_SUFFIXES | {".pdf"}


@dataclass(frozen=True)
class Failure:
    """A document or page that could not be indexed.

    Attributes:
        name: the path, or "path, page n".
        error: why.
    """

    name: str
    error: ColPaliError

    @property
    def reason(self) -> str:
        """The error's message without the position in the stream, which says nothing to the reader of a list."""
        return str(self.error.args[0]) if self.error.args else str(self.error)


@dataclass
class IndexReport:
    """What `index_documents` did.

    Attributes:
        documents: how many documents were looked at.
        added: pages embedded and stored.
        present: pages that were there already.
        removed: pages of an earlier state of a document, replaced by its present one.
        failures: what could not be indexed.
    """

    documents: int = 0
    added: int = 0
    present: int = 0
    removed: int = 0
    failures: list[Failure] = field(default_factory=list)


class IndexListener(Protocol):
    """Who wants to follow the work, such as a progress bar."""

    def planned(self, pages: int) -> None:
        """So many pages are to be embedded."""

    def done(self, page: Page) -> None:
        """A page was embedded."""

    def failed(self, failure: Failure, pages: int) -> None:
        """A document or page could not be indexed; `pages` of those planned fall away."""


class _Silent:
    def planned(self, pages: int) -> None: ...

    def done(self, page: Page) -> None: ...

    def failed(self, failure: Failure, pages: int) -> None: ...


def find_documents(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The PDFs and images among `paths`: files as they are, folders searched through, each document once.

    In folders, hidden files and folders are passed over, as are files that are neither PDF nor image by their suffix.

    Returns:
        Absolute paths; the order of `paths`, within a folder by name.

    Raises:
        InputError: a path does not exist.
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


def index_documents(
    paths: Iterable[str | os.PathLike[str]],
    *,
    model: ColPali,
    store: PageStore | str | os.PathLike[str],
    dpi: float = DEFAULT_DPI,
    batch_size: int | None = None,
    parallel: int | None = None,
    on_error: Literal["skip", "raise"] = "skip",
    listener: IndexListener | None = None,
) -> IndexReport:
    """Embed the pages of PDFs, images and folders that `store` does not hold yet.

    Pages are stored as they come: what was done before an error or an interruption is kept. Of a document that changed
    since it was indexed, the pages of its earlier state are removed once the new ones are in.

    Args:
        paths: files and folders.
        model: what to embed with.
        store: where to; a folder is opened, or made, as a store of this model.
        dpi: resolution of PDF pages.
        batch_size: as `ColPali.embed_images`.
        parallel: as `ColPali.embed_images`.
        on_error: "skip" what cannot be read and go on, or "raise".
        listener: told what happens, as it happens.

    Raises:
        InputError: a path does not exist; with `on_error="raise"` also a document that cannot be read.
        ConfigurationError: an option that cannot be.
        StoreError: the store cannot be written.
        FingerprintError: the store was made by another model.

    Example:
        >>> from colpali_integrations import ColPali
        >>> with ColPali.from_pretrained() as model:                                        # doctest: +SKIP
        ...     report = index_documents(["reports/", "scan.png"], model=model, store="my-index")
        >>> report.added, [failure.name for failure in report.failures]                     # doctest: +SKIP
        (77, [])
    """
    if on_error not in ("skip", "raise"):
        raise ConfigurationError(f"on_error must be 'skip' or 'raise', got {on_error!r}")
    if not dpi > 0:
        raise ConfigurationError(f"dpi must be positive, got {dpi}")
    if not isinstance(store, PageStore):
        store = PageStore(store, model=model.description)
    store.model.require(Fingerprint.of(model.description), where=str(store.folder))
    run = _Run(store, dpi, on_error == "raise", listener or _Silent())
    documents = find_documents(paths)
    plans = [plan for document in documents if (plan := run.plan(document)) is not None]
    run.report.documents = len(documents)
    run.listener.planned(sum(len(plan.missing) for plan in plans))
    results = model.embed_images(run.images(plans), batch_size=batch_size, parallel=parallel, on_error="collect")
    run.report.added = store.add(run.records(results))
    run.remove_outdated(plans)
    return run.report


@dataclass
class _Plan:
    """A document: its hash, the keys of its pages in order, the numbers of those missing, whether all went well."""

    path: Path
    is_pdf: bool
    digest: str
    keys: list[str]
    missing: list[int]
    complete: bool = True


class _Run:
    """One call of `index_documents`."""

    def __init__(self, store: PageStore, dpi: float, strict: bool, listener: IndexListener) -> None:
        self.store, self.dpi, self.strict, self.listener = store, dpi, strict, listener
        self.report = IndexReport()
        self._planned: set[str] = set()
        self._under_way: deque[tuple[_Plan, Page]] = deque()

    def fail(self, name: str, error: ColPaliError, plan: _Plan | None = None) -> None:
        if self.strict:
            raise error
        failure = Failure(name, error)
        self.report.failures.append(failure)
        if plan is not None:
            plan.complete = False
        self.listener.failed(failure, 0 if plan is None else 1)

    def plan(self, path: Path) -> _Plan | None:
        """What of a document is missing; None, and a failure, for one that cannot be read."""
        try:
            digest, drawn = document_hash(path), is_pdf(path)
            numbers = range(1, (pdf_page_count(path) if drawn else 1) + 1)
        except ColPaliError as error:
            self.fail(str(path), error)
            return None
        keys = [page_key(page_hash(digest, number), self.dpi if drawn else None) for number in numbers]
        missing = [
            number
            for number, key in zip(numbers, keys, strict=True)
            if key not in self.store and key not in self._planned
        ]
        self._planned.update(keys)
        self.report.present += len(keys) - len(missing)
        return _Plan(path, drawn, digest, keys, missing)

    def images(self, plans: Iterable[_Plan]) -> Iterator[PdfPage | Image.Image]:
        """The pictures to embed; each one's page is put under way first, where its vectors will find it."""
        for plan in plans:
            if plan.is_pdf:
                for drawn in self._draw(plan):
                    self._start(plan, drawn.number, drawn.width, drawn.height, drawn.text)
                    yield drawn
            elif plan.missing:
                try:
                    image = load_image(plan.path)
                except ColPaliError as error:
                    self.fail(str(plan.path), error, plan)
                else:
                    self._start(plan, 1, *image.size)
                    yield image

    def _start(self, plan: _Plan, number: int, width: float, height: float, text: str = "") -> None:
        page = Page(
            source=str(plan.path),
            page=number,
            width=width,
            height=height,
            content_hash=page_hash(plan.digest, number),
            text=text,
            page_count=len(plan.keys),
            dpi=self.dpi if plan.is_pdf else None,
        )
        self._under_way.append((plan, page))

    def _draw(self, plan: _Plan) -> Iterator[PdfPage]:
        """The missing pages of a PDF; one that cannot be drawn is a failure and the next one follows."""
        remaining = deque(plan.missing)
        while remaining:
            try:
                for drawn in pdf_pages(plan.path, dpi=self.dpi, pages=remaining):
                    remaining.popleft()
                    yield drawn
            except InputError as error:
                self.fail(f"{plan.path}, page {remaining.popleft()}", error, plan)

    def records(
        self, results: Iterable[NDArray[np.float32] | ColPaliError]
    ) -> Iterator[tuple[Page, NDArray[np.float32]]]:
        """Pages with their vectors, for the store."""
        for result in results:
            plan, page = self._under_way.popleft()
            if isinstance(result, ColPaliError):
                self.fail(f"{page.source}, page {page.page}", result, plan)
            else:
                yield page, result
                self.listener.done(page)

    def remove_outdated(self, plans: Iterable[_Plan]) -> None:
        """Remove pages of an earlier state of the documents whose present state is stored whole."""
        present = {str(plan.path): frozenset(plan.keys) for plan in plans if plan.complete}
        known = [page for page in self.store if page.source in present]
        outdated = {page.source for page in known if page.key not in present[page.source]}
        for source in outdated:
            self.report.removed += self.store.delete(source, keep=present[source])


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
