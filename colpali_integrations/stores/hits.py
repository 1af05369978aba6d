"""`Hits`: what a search found, a list that can show itself in a notebook and as an HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, SupportsIndex, overload

import numpy as np
from numpy.typing import ArrayLike

from colpali_integrations.errors import ColPaliError, InputError
from colpali_integrations.explain.report import HtmlReport, ReportPage, render_report, report_picture
from colpali_integrations.explain.similarity import SimilarityMaps
from colpali_integrations.stores.entries import Hit
from colpali_integrations.stores.settings import Fingerprint

__all__ = ["Hits"]

_SHOWN = 10


class Explaining(Protocol):
    """The part of a `MultiVectorStore` that shows where on its pages an answer is."""

    @property
    def model(self) -> Fingerprint:
        """The model of the vectors."""
        ...

    def regions(
        self, query: ArrayLike, ids: Sequence[str], *, tokens: Sequence[str | None] | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """Boxes by id."""
        ...

    def similarity_maps(
        self, query: ArrayLike, ids: Sequence[str], *, tokens: Sequence[str | None] | None = None
    ) -> dict[str, SimilarityMaps]:
        """Maps by id."""
        ...


class Hits(list[Hit]):
    """Hits, the best first: a list, and equal to one.

    As the last line of a notebook's cell it shows the pages with boxes and heatmap. It looks into the store when it is
    shown, so the store must still be open; copies by pickle are plain lists.

    Args:
        hits: what was found.
        store: where.
        query: the question's vectors, (n, dim).
        text: the question, if known: the title of what is shown.
        tokens: what the query's vectors stand for, if known: the names of the boxes.

    Example:
        >>> from colpali_integrations import ColPali
        >>> from colpali_integrations.stores import MultiVectorStore
        >>> model = ColPali.from_pretrained()
        >>> [query] = model.embed_queries("diverging palettes")
        >>> with MultiVectorStore.open("my-index", model=model) as store:
        ...     hits = store.search(query, 3, text="diverging palettes")
        ...     saved = hits.to_html().save("answers.html")
        >>> hits[0].entry.name
        'report.pdf, page 1'
    """

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        *,
        store: Explaining | None = None,
        query: ArrayLike | None = None,
        text: str | None = None,
        tokens: Sequence[str | None] | None = None,
    ) -> None:
        super().__init__(hits)
        self.store, self.query, self.text = store, query, text
        self.tokens = None if tokens is None else list(tokens)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Hit: ...

    @overload
    def __getitem__(self, index: slice) -> Hits: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Hit | Hits:
        """A hit, or some of them, which can be shown too."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        return Hits(super().__getitem__(index), store=self.store, query=self.query, text=self.text, tokens=self.tokens)

    def __repr__(self) -> str:
        """Names and relevances of the first hits: the entries themselves fill screens."""
        shown = ", ".join(f"{hit.entry.name} ({hit.relevance:.2f})" for hit in self[:5])
        return f"Hits({len(self)}): {shown}{', ...' if len(self) > 5 else ''}"

    def __reduce__(self) -> tuple[Any, ...]:
        """As a list: a store does not travel."""
        return list, (list(self),)

    def to_html(
        self,
        question: str | None = None,
        *,
        tokens: Sequence[str | None] | None = None,
        limit: int = _SHOWN,
        max_side: int = 1100,
        heatmaps: bool = True,
    ) -> HtmlReport:
        """The pages that were found as one HTML file, with boxes and heatmaps of the question's words.

        Pictures are drawn from the pages' references; where a document is gone, the report says so in its place.

        Args:
            question: the title; by default the `text` of the search.
            tokens: `ColPali.query_tokens(question)`: the names of the words. By default those of the model that the
                store was opened with, if it was a `ColPali` and the search had a `text`.
            limit: how many pages at most.
            max_side: of a picture, in pixels.
            heatmaps: whether to include them; they are a third of the file.

        Returns:
            A string; `.save(path)` writes it.

        Raises:
            InputError: the hits know of no store, or `tokens` do not fit the query.
            StoreError: the store cannot be read, or was closed.
        """
        if self and (self.store is None or self.query is None):
            raise InputError(
                "these hits do not know where they were found; take them from MultiVectorStore.search, or pass store= "
                "and query="
            )
        names = self.tokens if tokens is None else list(tokens)
        if names is not None and self.query is not None and len(names) != len(np.asarray(self.query)):
            raise InputError(
                f"{len(np.asarray(self.query))} query vectors but {len(names)} tokens; are both of the same text?"
            )
        note = "" if names is not None else _UNNAMED
        return self._report(question, names, limit, max_side, note, heatmaps=heatmaps, places=True)

    def _repr_html_(self) -> str:
        """For notebooks, where an error would be a page of traceback: what cannot be shown is said."""
        try:
            return self.to_html()._repr_html_()
        except ColPaliError as error:
            return self._report(None, None, _SHOWN, 600, str(error), heatmaps=False, places=False)._repr_html_()

    def _report(
        self,
        question: str | None,
        tokens: list[str | None] | None,
        limit: int,
        max_side: int,
        note: str,
        *,
        heatmaps: bool,
        places: bool,
    ) -> HtmlReport:
        shown = list(self)[:limit]
        ids = [hit.id for hit in shown if hit.entry.is_page]
        boxes: dict[str, Any] = {}
        maps: dict[str, Any] = {}
        if ids and places and self.store is not None and self.query is not None:
            boxes = self.store.regions(self.query, ids, tokens=tokens)
            maps = self.store.similarity_maps(self.query, ids, tokens=tokens) if heatmaps else {}
        pages = []
        for hit in shown:
            entry = hit.entry
            image, why = report_picture(entry.metadata, max_side=max_side) if entry.is_page else (None, "")
            pages.append(
                ReportPage(
                    name=entry.name,
                    score=hit.score,
                    relevance=hit.relevance,
                    image=image,
                    note=why,
                    regions=boxes.get(hit.id, []),
                    maps=maps.get(hit.id),
                    text=entry.text if entry.has_text else "",
                    source=entry.source,
                )
            )
        model = "" if self.store is None else self.store.model.name
        title = question if question is not None else self.text or ""
        return render_report(title, pages, model=model, note=note, max_side=max_side)


_UNNAMED = (
    "The words of the question are not named: open the store with model=ColPali.from_pretrained(...) and pass text= to "
    "search, or tokens= to to_html."
)
