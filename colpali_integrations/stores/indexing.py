"""PDFs, images and folders -> pages in a store. What is there already is skipped, what cannot be read is named.

    paths --find_documents--> documents --plan--> pages that are missing --render, embed_pages--> store

A page is recognised by the bytes of its document, its number and the resolution, so a document that did not change is
skipped before anything of it is drawn, and an interrupted run goes on where it stopped. A document that was moved is
not embedded again: its pages follow it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.explain.grid import PageEmbedding
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.pdf import PdfPage
from colpali_integrations.pages.reference import DEFAULT_DPI, page_name
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.stores.documents import DocumentPlan, find_documents, plan_document
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["Failure", "IndexListener", "IndexReport", "index_documents"]


@dataclass(frozen=True)
class Failure:
    """A document or page that could not be indexed.

    Attributes:
        name: the path, or "path, page n".
        error: why.

    Example:
        >>> from colpali_integrations.errors import PdfError
        >>> Failure("torn.pdf", PdfError("torn.pdf is damaged").at(3, "torn.pdf")).reason
        'torn.pdf is damaged'
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
        moved: of these, pages whose document lies elsewhere now.
        removed: pages of an earlier state of a document, replaced by its present one.
        failures: what could not be indexed.

    Example:
        >>> report = IndexReport(documents=2, added=12, present=3)
        >>> f"{report.added} pages embedded, {report.present} known, {len(report.failures)} failures"
        '12 pages embedded, 3 known, 0 failures'
    """

    documents: int = 0
    added: int = 0
    present: int = 0
    moved: int = 0
    removed: int = 0
    failures: list[Failure] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: the numbers, and name and error of each failure.

        >>> IndexReport(documents=1, added=3).to_dict()["added"]
        3
        """
        counts = {one.name: getattr(self, one.name) for one in fields(self)}
        failures = [{"name": failure.name, "error": failure.reason} for failure in self.failures]
        return {**counts, "failures": failures}


class IndexListener(Protocol):
    """Who wants to follow the work, such as a progress bar: any object with these three methods.

    Example:
        >>> from colpali_integrations import ColPali
        >>> class Dots:
        ...     def planned(self, pages):
        ...         print(pages, "pages:", end=" ")
        ...     def done(self, page):
        ...         print(page.page, end=" ")
        ...     def failed(self, failure, pages):
        ...         print(failure.name, failure.reason)
        >>> with MultiVectorStore.open(model="coltiny") as store, ColPali.from_pretrained() as model:
        ...     report = index_documents(["report.pdf"], model=model, store=store, listener=Dots())
        2 pages: 1 2
    """

    def planned(self, pages: int) -> None:
        """So many pages are to be embedded."""

    def done(self, page: Entry) -> None:
        """A page was embedded."""

    def failed(self, failure: Failure, pages: int) -> None:
        """A document or page could not be indexed; `pages` of those planned fall away."""


class _Silent:
    def planned(self, pages: int) -> None: ...

    def done(self, page: Entry) -> None: ...

    def failed(self, failure: Failure, pages: int) -> None: ...


def index_documents(
    paths: Iterable[str | os.PathLike[str]],
    *,
    model: ColPali,
    store: MultiVectorStore | str | os.PathLike[str],
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

    Returns:
        What was done, and what could not be.

    Raises:
        InputError: a path does not exist; with `on_error="raise"` also a document that cannot be read.
        ConfigurationError: an option that cannot be.
        StoreError: the store cannot be written.
        FingerprintError: the store was made by another model.

    Example:
        >>> from colpali_integrations import ColPali
        >>> with ColPali.from_pretrained() as model:
        ...     report = index_documents(["reports/", "report.pdf"], model=model, store="my-index")
        >>> report.added, report.present, report.failures  # report.pdf was in the store
        (1, 2, [])
    """
    if on_error not in ("skip", "raise"):
        raise ConfigurationError(f"on_error must be 'skip' or 'raise', got {on_error!r}")
    if not dpi > 0:
        raise ConfigurationError(f"dpi must be positive, got {dpi}")
    if not isinstance(store, MultiVectorStore):
        with MultiVectorStore.open(store, model=model) as opened:
            return index_documents(
                paths,
                model=model,
                store=opened,
                dpi=dpi,
                batch_size=batch_size,
                parallel=parallel,
                on_error=on_error,
                listener=listener,
            )
    store.require(model)
    run = _Run(store, dpi, on_error == "raise", listener or _Silent())
    plans = run.plan(find_documents(paths))
    run.listener.planned(sum(len(plan.missing) for plan in plans))
    results = model.embed_pages(run.images(plans), batch_size=batch_size, parallel=parallel, on_error=run.fail_next)
    run.report.added = store.add(run.records(results))
    run.settle(plans)
    return run.report


class _Run:
    """One call of `index_documents`."""

    def __init__(self, store: MultiVectorStore, dpi: float, strict: bool, listener: IndexListener) -> None:
        self.store, self.dpi, self.strict, self.listener = store, dpi, strict, listener
        self.report = IndexReport()
        self._under_way: deque[tuple[DocumentPlan, Entry]] = deque()

    def fail(self, name: str, error: ColPaliError, plan: DocumentPlan | None = None) -> None:
        if self.strict:
            raise error
        failure = Failure(name, error)
        self.report.failures.append(failure)
        if plan is not None:
            plan.complete = False
        self.listener.failed(failure, 0 if plan is None else 1)

    def plan(self, documents: list[Path]) -> list[DocumentPlan]:
        """What of each document is missing; a failure for one that cannot be read."""
        self.report.documents = len(documents)
        plans: list[DocumentPlan] = []
        planned: set[str] = set()
        for path in documents:
            try:
                plan = plan_document(path, self.dpi)
            except ColPaliError as error:
                self.fail(str(path), error)
                continue
            held = planned.union(entry.id for entry in self.store.get(plan.keys) if entry is not None)
            plan.missing = [number for number, key in enumerate(plan.keys, 1) if key not in held]
            planned.update(plan.keys)
            self.report.present += len(plan.keys) - len(plan.missing)
            plans.append(plan)
        return plans

    def images(self, plans: Iterable[DocumentPlan]) -> Iterator[PdfPage | Image.Image]:
        """The pictures to embed; each one's entry is put under way first, where its vectors will find it."""
        for plan in plans:
            if plan.dpi is not None:
                for drawn in self._draw(plan):
                    self._start(plan, drawn.number, drawn.width, drawn.height, drawn.text)
                    yield drawn
            elif plan.missing:
                try:
                    image = load_image(plan.document)
                except ColPaliError as error:
                    self.fail(plan.source, error, plan)
                else:
                    self._start(plan, 1, *image.size, text="")
                    yield image

    def _start(self, plan: DocumentPlan, number: int, width: float, height: float, text: str) -> None:
        self._under_way.append((plan, plan.entry(number, width=width, height=height, text=text)))

    def _draw(self, plan: DocumentPlan) -> Iterator[PdfPage]:
        """The missing pages of a PDF; one that cannot be drawn is a failure and the next one follows."""
        for drawn in plan.drawn():
            if isinstance(drawn, PdfPage):
                yield drawn
            else:
                number, error = drawn
                self.fail(page_name(plan.source, number), error, plan)

    def fail_next(self, error: ColPaliError) -> None:
        """Report the next page under way as one that cannot be encoded."""
        plan, entry = self._under_way.popleft()
        self.fail(entry.name, error, plan)

    def records(self, results: Iterable[PageEmbedding]) -> Iterator[tuple[Entry, Float32]]:
        """Entries with their vectors, for the store."""
        for result in results:
            _, entry = self._under_way.popleft()
            yield replace(entry, grid=result.grid), result.vectors
            self.listener.done(entry)

    def settle(self, plans: Iterable[DocumentPlan]) -> None:
        """Let pages follow their documents to where these lie now, and remove those of earlier states."""
        whole = [plan for plan in plans if plan.complete]
        owned = {plan.source: frozenset(plan.keys) for plan in whole}
        for plan in whole:
            self._adopt(plan, owned)
        wanted = {key for plan in whole for key in plan.keys}
        for plan in whole:
            outdated = self.store.hashes({"$group": plan.source}).keys() - wanted
            self.report.removed += self.store.delete(outdated) if outdated else 0

    def _adopt(self, plan: DocumentPlan, owned: Mapping[str, frozenset[str]]) -> None:
        """Take over pages that are no longer where their entries say; the vectors stay as they are."""
        moved = [
            (number, entry)
            for number, entry in enumerate(self.store.get(plan.keys), 1)
            if entry is not None and entry.group not in (None, plan.source) and _left(entry, owned)
        ]
        if not moved:
            return
        vectors = self.store.vectors([entry.id for _, entry in moved])
        records = []
        for (number, entry), one in zip(moved, vectors, strict=True):
            if one is not None:
                metadata = {**entry.metadata, "source": plan.source, "page": number}
                text = page_name(plan.source, number) if entry.text == entry.name else entry.text
                records.append((replace(entry, metadata=metadata, group=plan.source, text=text), one))
        self.report.moved += self.store.add(records)


def _left(entry: Entry, owned: Mapping[str, frozenset[str]]) -> bool:
    """Whether the document that an entry names holds its page no longer: gone, or another by now."""
    source = str(entry.group)
    return entry.id not in owned[source] if source in owned else not Path(source).exists()
