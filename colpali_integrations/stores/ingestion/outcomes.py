"""The outcomes of an ingestion as they come: counted, reported, and shown as progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import ColPaliError
from colpali_integrations.stores.ingestion.failures import Failure, OnError, skipped
from colpali_integrations.stores.ingestion.progress import Progress, ProgressCallback
from colpali_integrations.stores.ingestion.report import IngestReport, font_warning
from colpali_integrations.stores.items import Item

__all__ = ["Outcomes"]

logger = package_logger(__name__)


class Outcomes:
    """The outcome of each item of a run.

    Args:
        on_error: as of `ingest`.
        listener: called with the progress.

    Attributes:
        report: of the run.
        failed: ids of the items that could not be stored.
    """

    def __init__(self, on_error: OnError, listener: ProgressCallback) -> None:
        self.report = IngestReport()
        self.failed: set[str] = set()
        self._on_error, self._listener = on_error, listener
        self._settled: set[str] = set()  # ids whose entries are up to date in the store
        # By id of items that were handed to the store: whether they were encoded, and took the place of others.
        self._counted: dict[str, tuple[bool, bool]] = {}
        self._missing_fonts: dict[str, dict[int, tuple[str, ...]]] = {}  # by document and page
        self._found = 0  # number of items that are stored or have failed
        self._progress = Progress(0, 0)

    # -- items that the store has ---------------------------------------------------------------------------------

    def count_present(self, item: Item) -> None:
        """Count an item whose entry is up to date."""
        self.report.present += 1
        self._settled.add(item.id)

    def count_updated(self, item: Item) -> None:
        """Count an item of which only the metadata were stored."""
        self.report.updated += 1
        self._settled.add(item.id)

    def count_copied(self, item: Item, *, replaced: bool) -> None:
        """Count an item that got the vectors of equal content."""
        self.report.copied += 1
        self.report.replaced += replaced
        self._settled.add(item.id)

    # -- items that are encoded -----------------------------------------------------------------------------------

    def begin(self, number: int, *, later: int) -> None:
        """Show how many items are encoded now.

        Args:
            number: of these items.
            later: number of sources that are not planned yet.
        """
        done = self._progress.done
        self._progress = Progress(done, done + number + later, stored=self._found)
        self._listener(self._progress)

    def count(self, item: Item, *, encoded: bool, replaced: bool) -> None:
        """Count an item that was handed to the store.

        Args:
            item: that was encoded, or is equal to one that was.
            encoded: whether it was encoded itself.
            replaced: whether it takes the place of other content.
        """
        self.report.added += encoded
        self.report.copied += not encoded
        self.report.replaced += replaced
        self._settled.add(item.id)
        self._counted[item.id] = encoded, replaced
        self._notify(item.name)

    def count_stored(self, number: int) -> None:
        """Count items that a search finds by now."""
        self._found += number

    def refuse(self, item: Item, error: ColPaliError) -> None:
        """Report an item that the store refuses; pages are counted before a server has seen them."""
        if (counted := self._counted.pop(item.id, None)) is not None:
            encoded, replaced = counted
            self.report.added -= encoded
            self.report.copied -= not encoded
            self.report.replaced -= replaced
            self._settled.discard(item.id)
            self._progress = replace(self._progress, done=self._progress.done - 1)
        self.fail_item(item, error)

    # -- failures and waits ---------------------------------------------------------------------------------------

    def fail_item(self, item: Item, error: ColPaliError) -> None:
        """Report an item that cannot be stored, or raise its error; see `fail`."""
        self.failed.add(item.id)
        error.index = error.item = None  # they count the encoded pages, not the items of the caller
        self.fail(item.name, error, item.index)

    def fail(self, name: str, error: ColPaliError, index: int | None = None) -> None:
        """Report a document or item that cannot be stored, or raise its error, as `on_error` requires.

        Args:
            name: of the document or item.
            error: the reason.
            index: of the caller's item, for the error.
        """
        if index is not None and self._on_error == "raise":
            error.at(index, name)
        failure = skipped(name, error, self._on_error)
        self.report.failures.append(failure)
        self._found += 1
        self._notify(name, failure)

    def note_wait(self, reason: str | None) -> None:
        """Show a wait for the server of the store, or with None its end."""
        self._listener(replace(self._progress, failure=None, waiting=reason))

    def _notify(self, name: str, failure: Failure | None = None) -> None:
        done, total = self._progress.done + 1, self._progress.total
        self._progress = Progress(done, total, name, failure, stored=self._found)
        self._listener(self._progress)

    # -- the report -----------------------------------------------------------------------------------------------

    def note_missing_fonts(self, item: Item, pages: Mapping[int, Sequence[str]]) -> None:
        """Note the fonts without which pages of an item's document were drawn, by the number of the page."""
        if item.document is not None and pages:
            noted = self._missing_fonts.setdefault(item.document.name, {})
            noted.update((page, tuple(names)) for page, names in pages.items())

    def complete(self, order: Iterable[str], model: str) -> None:
        """Complete the report, and log what a caller should know.

        Args:
            order: the ids of all pages and items.
            model: the name of the model, for messages.
        """
        report = self.report
        report.warnings = [font_warning(name, pages) for name, pages in self._missing_fonts.items()]
        report.ids = [id_ for id_ in order if id_ in self._settled]
        if report.replaced or report.removed:
            logger.info("content changed: %d replaced, %d removed", report.replaced, report.removed)
        for name, other in report.twins.items():
            logger.info("%s: the store also holds this file as the document %s, with other metadata", name, other)
        if report.little_read:
            _warn_of_little_read(report, model)


def _warn_of_little_read(report: IngestReport, model: str) -> None:
    documents, total = report.little_read, sum(report.little_read.values())
    logger.warning(
        "%s recognises few words on %d of %d new pages, in %d of %d documents, such as %s: their print may be in "
        "another script than Latin. %s",
        model,
        total,
        report.added,
        len(documents),
        max(report.documents, len(documents)),
        next(iter(documents)),
        _remedy(total, report.little_read_with_text),
    )


def _remedy(little_read: int, with_text: int) -> str:
    """What a caller can do about pages of which little was read, some of them with a text layer."""
    other_model = "use a model that reads their script"
    if not with_text:
        return f"None of them has a text layer; {other_model}"
    hybrid = "which hybrid search ranks by its words"
    if with_text == little_read:
        return f"All of them have a text layer, {hybrid}"
    return f"Text layers: {with_text} of {little_read}, {hybrid}; for the others {other_model}"
