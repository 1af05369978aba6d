"""`Hits`: the result list of a search, with a report for notebooks and HTML files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, SupportsIndex, overload

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from colpali_integrations._options import checked_whole
from colpali_integrations.errors import ColPaliError, InputError
from colpali_integrations.explain.report import HtmlReport, ReportPage, render_report, report_picture
from colpali_integrations.explain.similarity import SimilarityMaps
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess, Roots
from colpali_integrations.pages.formats import MAX_PIXELS
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.pages.metadata import source_text
from colpali_integrations.stores.entries import Hit
from colpali_integrations.stores.settings import StoredModel

__all__ = ["DOUBTFUL", "Explained", "Hits", "explained", "marked_doubtful"]

DOUBTFUL = "doubtful"
"""The key of metadata by which the results of a framework's retriever say that no page seems to answer."""

_SHOWN = 10


class Explaining(Protocol):
    """The methods of a `MultiVectorStore` that a report needs."""

    @property
    def model(self) -> StoredModel:
        """The store's model."""
        ...

    def score(self, query: ArrayLike, ids: Sequence[str]) -> dict[str, float]:
        """MaxSim by id."""
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


@dataclass(frozen=True)
class Explained:
    """What a report shows of entries, by id; empty without a store.

    Attributes:
        regions: boxes, as dicts.
        maps: similarity maps.
        max_sim: MaxSim.
        model: the model's name.
    """

    regions: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    maps: Mapping[str, SimilarityMaps] = field(default_factory=dict)
    max_sim: Mapping[str, float] = field(default_factory=dict)
    model: str = ""

    def page(
        self,
        id_: str,
        metadata: Mapping[str, Any],
        picture: tuple[Image.Image | None, str],
        *,
        name: str,
        text: str,
        score: float | None,
        relevance: float | None = None,
    ) -> ReportPage:
        """A framework's result in a report: what its metadata have counts more than what the store adds.

        Args:
            id_: of the entry; "" where it has none.
            metadata: of the result, with `regions`, `halves` and `source`.
            picture: of the page, or None and the reason; see `report_picture`.
            name: for readers.
            text: of the result.
            score: of the ranking.
            relevance: if known.
        """
        image, note = picture
        return ReportPage(
            name=name,
            score=score,
            relevance=relevance,
            max_sim=self.max_sim.get(id_),
            halves=metadata.get("halves"),
            image=image,
            note=note,
            regions=metadata.get("regions") or self.regions.get(id_, []),
            maps=self.maps.get(id_),
            text=text,
            source=source_text(metadata),
        )


def explained(store: Explaining, model: ColPali, question: str, ids: Sequence[str]) -> Explained:
    """Compare a question with entries of a store."""
    query, tokens = model.embed_query(question), model.query_tokens(question)
    boxes, maps = store.regions(query, ids, tokens=tokens), store.similarity_maps(query, ids, tokens=tokens)
    return Explained(boxes, maps, store.score(query, ids), store.model.name)


def marked_doubtful(results: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all results of a framework's retriever come from searches that were doubtful; False without results.

    Args:
        results: the metadata of each. Those of other retrievers have no such key, and are in no doubt.

    Example:
        >>> marked_doubtful([{"doubtful": True}, {"doubtful": True}]), marked_doubtful([{"doubtful": True}, {}])
        (True, False)
    """
    marks = [metadata.get(DOUBTFUL) is True for metadata in results]
    return bool(marks) and all(marks)


class Hits(list[Hit]):
    """Hits, the best first: a list, and equal to one.

    As the last line of a notebook's cell it shows the pages with boxes and heatmaps. These are computed from the store,
    which must still be open. Pickled copies are plain lists.

    Args:
        hits: the list.
        store: the store that was searched.
        query: the question's vectors, (n, dim).
        text: the question, if known: the title of reports.
        tokens: the words of the query's vectors, if known: the names of the boxes.
        low_relevance: that of the model's description, if known.

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
        low_relevance: float = 0.0,
    ) -> None:
        super().__init__(hits)
        self.store, self.query, self.text, self.low_relevance = store, query, text, low_relevance
        self.tokens = None if tokens is None else list(tokens)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Hit: ...

    @overload
    def __getitem__(self, index: slice) -> Hits: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Hit | Hits:
        """A hit, or a slice, which has reports too."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        return self._with(super().__getitem__(index))

    def __repr__(self) -> str:
        """Names and relevances of the first hits, and whether they are doubtful; entries would fill screens."""
        shown = ", ".join(f"{hit.entry.name} ({hit.relevance:.2f})" for hit in self[:5])
        return f"Hits({len(self)}{', doubtful' if self.doubtful else ''}): {shown}{', ...' if len(self) > 5 else ''}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a list: a store cannot be pickled."""
        return list, (list(self),)

    def matching(self) -> Hits:
        """The hits that have anything of the question.

        A search returns `k` entries where the store has as many, also those with nothing of the question.
        """
        return self._with([hit for hit in self if hit.matches])

    @property
    def doubtful(self) -> bool:
        """Whether no hit seems to answer the question: each has a lower relevance than the model's `low_relevance`.

        It may be wrong either way, so a caller should show the hits all the same. False without hits, and for a model
        of which nothing was measured.

        Example:
            >>> from colpali_integrations.stores import MultiVectorStore
            >>> with MultiVectorStore.open("my-index") as store:
            ...     [store.search(text).doubtful for text in ("diverging palettes", "flights from Berlin to Tokyo")]
            [False, True]
        """
        return bool(self) and max(hit.relevance for hit in self) < self.low_relevance

    def _with(self, hits: Iterable[Hit]) -> Hits:
        options: dict[str, Any] = {"tokens": self.tokens, "low_relevance": self.low_relevance}
        return Hits(hits, store=self.store, query=self.query, text=self.text, **options)

    def to_html(
        self,
        question: str | None = None,
        *,
        tokens: Sequence[str | None] | None = None,
        limit: int = _SHOWN,
        max_side: int = 1100,
        heatmaps: bool = True,
        password: str | None = None,
        max_pixels: int = MAX_PIXELS,
        image_formats: Iterable[str] = (),
        roots: Roots = None,
        wording: Callable[[ColPaliError], str] = str,
    ) -> HtmlReport:
        """Show the pages that have anything of the question as one HTML file, with boxes and heatmaps of its words.

        Pictures are drawn from the pages' files; a note replaces the picture of a file that is missing or has changed,
        or that may not be shown.

        Args:
            question: the title; by default the `text` of the search.
            tokens: `ColPali.query_tokens(question)`: the names of the words. By default those of the model that the
                store was opened with, if it was a `ColPali` and the search had a `text`.
            limit: the largest number of pages.
            max_side: of a picture, in pixels.
            heatmaps: whether to include them; they are a third of the file.
            password: for encrypted PDFs.
            max_pixels: of an image; see `pages.load_image`.
            image_formats: further formats of images; see `pages.load_image`.
            roots: as for `pages.page_image`: show files in these folders alone.
            wording: tells the error of a page that cannot be drawn, in the note in the picture's place; by default the
                error's message, which names the file and may name options of this package.

        Returns:
            A string; `.save(path)` writes it, and `.missing` has the notes of the pages without a picture.

        Raises:
            InputError: the hits are not attached to a store, or `tokens` do not fit the query.
            ConfigurationError: limit, max_side, roots or a limit of images has an invalid value.
            StoreError: the store cannot be read, or was closed.
        """
        if self and (self.store is None or self.query is None):
            raise InputError(
                "these hits are not attached to a store; take them from MultiVectorStore.search, or pass store= "
                "and query="
            )
        names = self.tokens if tokens is None else list(tokens)
        if names is not None and self.query is not None and len(names) != len(np.asarray(self.query)):
            raise InputError(
                f"{len(np.asarray(self.query))} query vectors but {len(names)} tokens; are both of the same text?"
            )
        shown = self.matching()[: checked_whole(limit, "limit")]
        ids = [hit.id for hit in shown if hit.entry.is_page]
        boxes: Mapping[str, Any] = {}
        maps: Mapping[str, Any] = {}
        if ids and self.store is not None and self.query is not None:
            boxes = self.store.regions(self.query, ids, tokens=names)
            maps = self.store.similarity_maps(self.query, ids, tokens=names) if heatmaps else {}
        title = (self.text or "") if question is None else question
        note = "" if names is not None else _UNNAMED
        access = PageAccess.of(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots)
        return shown._report(title, max_side, note, boxes, maps, access, wording)

    def _repr_html_(self) -> str:
        """The report in notebooks; an error becomes a note instead of a traceback."""
        try:
            return self.to_html()._repr_html_()
        except ColPaliError as error:
            return self.matching()[:_SHOWN]._report(self.text or "", 600, str(error), {}, {})._repr_html_()

    @keep_pdfs_open()
    def _report(
        self,
        title: str,
        max_side: int,
        note: str,
        boxes: Mapping[str, Any],
        maps: Mapping[str, Any],
        access: PageAccess = DEFAULT_ACCESS,
        wording: Callable[[ColPaliError], str] = str,
    ) -> HtmlReport:
        draw = partial(report_picture, access=access, max_side=max_side, wording=wording)
        pages = []
        for hit in self:
            entry = hit.entry
            image, problem = draw(entry.metadata) if entry.has_picture else (None, "")
            pages.append(
                ReportPage(
                    name=entry.name,
                    score=hit.score,
                    relevance=hit.relevance,
                    max_sim=hit.max_sim,
                    halves=None if hit.halves is None else hit.halves.to_dict(),
                    image=image,
                    note=problem,
                    regions=boxes.get(hit.id, []),
                    maps=maps.get(hit.id),
                    text=entry.text if entry.has_text else "",
                    source=entry.source,
                )
            )
        model = "" if self.store is None else self.store.model.name
        return render_report(title, pages, model=model, note=note, max_side=max_side, doubtful=self.doubtful)


_UNNAMED = (
    "The words of the question are not named: open the store with model=ColPali.from_pretrained(...) and pass text= to "
    "search, or tokens= to to_html."
)
