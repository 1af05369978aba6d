"""Searches of a store: options, the two stages, and fusion with BM25."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from colpali_integrations._options import checked_number, checked_whole
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.bm25 import Bm25
from colpali_integrations.scoring.maxsim import relevance
from colpali_integrations.stores.engine import FIRST, WORDS, Engine, Scored, Search, strings
from colpali_integrations.stores.entries import Entry, Hit, has_text
from colpali_integrations.stores.filters import Filter, FilterLike, parse_filter
from colpali_integrations.stores.first_stage import Stage
from colpali_integrations.stores.fusion import Hybrid, fuse, text_weight
from colpali_integrations.stores.settings import Settings

__all__ = ["Mode", "SearchOptions", "Searcher"]

Mode: TypeAlias = Literal["auto", "exact", "two_stage"]

_EXACT_UP_TO = 1000
_CANDIDATES = 100
_MOST = 2**31 - 1  # no store has more entries


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The options of a search.

    Attributes:
        k: the largest number of entries.
        where: only entries that fit this filter; see `filters`.
        mode: "exact" compares with all vectors of every entry; "two_stage" scans the store's first stage and scores its
            best with all their vectors; "auto" is two stages where the store has them and holds more than 1000 entries.
        oversampling: the first stage passes on `oversampling * k` entries; by default 10 * k, and at least 100.
        min_relevance: leave out entries of a lower relevance, in [0, 1].
        hybrid: fuse the ranking with BM25's over the entries' texts: True or "rrf" by reciprocal ranks, a number in
            [0, 1] as the weight of the text; False for MaxSim alone. "auto" is, for a question in words, what the
            model's description says that pays (`auto_hybrid`), if any entry has words; a question that is passed as
            vectors is ranked by MaxSim alone.

    Raises:
        ConfigurationError: an option has an invalid value.
        InputError: a filter that cannot be read.

    Example:
        >>> SearchOptions(k=3, where={"page": 1}).limit
        100
    """

    k: int = 10
    where: FilterLike = None
    mode: Mode = "auto"
    oversampling: float | None = None
    min_relevance: float | None = None
    hybrid: Hybrid = "auto"

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        object.__setattr__(self, "k", checked_whole(self.k, "k"))
        if self.mode not in ("auto", "exact", "two_stage"):
            raise ConfigurationError(f"mode must be 'auto', 'exact' or 'two_stage', got {self.mode!r}")
        if self.oversampling is not None:
            object.__setattr__(self, "oversampling", checked_number(self.oversampling, "oversampling", 1))
        if self.min_relevance is not None:
            object.__setattr__(self, "min_relevance", checked_number(self.min_relevance, "min_relevance", 0, 1))
        if self.ranks_by_words:
            text_weight(self.hybrid)
        if self.where is not None:
            object.__setattr__(self, "where", parse_filter(self.where))

    @property
    def ranks_by_words(self) -> bool:
        """Whether the ranking is fused with BM25's; not yet with "auto", see `MultiVectorStore.decide_hybrid`."""
        return self.hybrid is not False and not (isinstance(self.hybrid, str) and self.hybrid == "auto")

    @property
    def filter(self) -> Filter | None:
        """`where`, parsed."""
        return self.where if isinstance(self.where, Filter) else None

    @property
    def limit(self) -> int:
        """Number of candidates that a first stage, or each half of a hybrid search, passes on."""
        if self.oversampling is None:
            return max(_CANDIDATES, 10 * self.k)
        return math.ceil(min(self.oversampling * min(self.k, _MOST), _MOST))


class Searcher:
    """Searches of one store.

    Args:
        engine: of the store.
        settings: of the store.
        stage: its first stage; None for a store without one, or where the engine supplies it.
        bm25: of its texts.
    """

    def __init__(self, engine: Engine, settings: Settings, stage: Stage | None, bm25: Bm25) -> None:
        self._engine, self._settings, self._stage, self._bm25 = engine, settings, stage, bm25

    def run(self, queries: Sequence[ArrayLike], options: SearchOptions, texts: Sequence[str] | None) -> list[list[Hit]]:
        """The best `options.k` hits per query, of at least `options.min_relevance`.

        The engine gets all searches in one call. A hybrid search makes a second one, for the MaxSim of the entries that
        only their text brought in.

        Raises:
            InputError: a query is not vectors of the store's dim.
            ConfigurationError: a hybrid search without words, or two stages in a store without a first stage.
        """
        arrays = self._checked(queries)
        if not options.ranks_by_words:
            staged = self._two_stages(options.mode)
            answers = self._engine.search([self._search(array, options, options.k, staged) for array in arrays])
            return [self._hits(array, results, options) for array, results in zip(arrays, answers, strict=True)]
        return [
            self._fused(array, sight, text, options)
            for array, sight, text in zip(arrays, *self._both(arrays, options, texts), strict=True)
        ]

    def rank(
        self,
        queries: Sequence[ArrayLike],
        options: SearchOptions,
        texts: Sequence[str] | None,
        *,
        depth: int,
        textless: Collection[str],
        exact: Sequence[Mapping[str, float]] | None,
    ) -> list[dict[str, float]]:
        """The scores of `run` by id, without entries; see `MultiVectorStore.rank_batch`."""
        arrays = self._checked(queries)
        staged = self._two_stages(options.mode)
        known = None if staged else exact
        if not options.ranks_by_words:
            if known is not None:
                return [dict(scores) for scores in known]
            limit = options.limit if staged else max(depth, options.k)
            searches = [self._search(array, options, limit, staged, scores_only=True) for array in arrays]
            return [{one.id: one.score for one in found} for found in self._engine.search(searches)]
        weight = text_weight(options.hybrid)
        ranked = []
        for sight, text in zip(*self._both(arrays, options, texts, exact=known, scores_only=True), strict=True):
            scores = {one.id: one.score for one in sight}
            words = {one.id: one.score for one in text if one.id in scores}
            ranked.append(fuse(scores, words, weight=weight, textless=textless))
        return ranked

    def _both(
        self,
        arrays: Sequence[Float32],
        options: SearchOptions,
        texts: Sequence[str] | None,
        *,
        exact: Sequence[Mapping[str, float]] | None = None,
        scores_only: bool = False,
    ) -> tuple[list[list[Scored]], list[list[Scored]]]:
        """The two rankings of a hybrid search, per query: by sight, of all entries that either of them found.

        With the `exact` scores of all entries per query, only the words are searched.
        """
        if texts is None or len(texts) != len(arrays):
            raise ConfigurationError("a hybrid search needs the words of each query: pass text= (or texts=)")
        staged = self._two_stages(options.mode)
        by_sight = [self._search(array, options, options.limit, staged, scores_only=scores_only) for array in arrays]
        by_text = [
            Search(
                query=self._bm25.query(text),
                using=WORDS,
                limit=options.limit,
                where=options.filter,
                scores_only=scores_only,
            )
            for text in texts
        ]
        if exact is not None:
            by_words = self._engine.search(by_text)
            return [_chosen(*pair, options.limit) for pair in zip(exact, by_words, strict=True)], by_words
        answers = self._engine.search([*by_sight, *by_text])
        sights, by_words = answers[: len(arrays)], answers[len(arrays) :]
        late = self._late(arrays, sights, by_words)
        return [[*sight, *others] for sight, others in zip(sights, late, strict=True)], by_words

    def _checked(self, queries: Sequence[ArrayLike]) -> list[Float32]:
        name = "the query" if len(queries) == 1 else "query {}"
        return [self.checked(query, name.format(index)) for index, query in enumerate(queries)]

    def score(self, array: Float32, ids: Sequence[str]) -> dict[str, float]:
        """MaxSim of a query with stored entries, by id."""
        return self._scores([array], [dict.fromkeys(strings(ids))])[0]

    def checked(self, query: ArrayLike, name: str = "the query") -> Float32:
        """The query as float32.

        Raises:
            InputError: it is not vectors of the store's dim.
        """
        array = np.asarray(query)
        model = self._settings.model
        if array.ndim != 2 or not len(array) or array.shape[1] != model.dim or array.dtype.kind not in "fiu":
            raise InputError(
                f"{name}: expected vectors (n, {model.dim}) with n > 0, got shape {array.shape} of {array.dtype}; "
                f"{self._engine.where} was made by {model.name!r}"
            )
        return array.astype(np.float32, copy=False)

    def _two_stages(self, mode: Mode) -> bool:
        has_stage = self._settings.first_stage != "exact"
        if mode == "two_stage" and not has_stage:
            raise ConfigurationError(
                f"{self._engine.where} was made with first_stage='exact': it has no first stage to search in. Search "
                "with mode='exact', or index anew with first_stage='ward'"
            )
        if (refusal := self._engine.refuses_exact) is not None:
            if mode == "exact" or not has_stage:
                raise ConfigurationError(refusal)
            return True
        return has_stage and (mode == "two_stage" or (mode == "auto" and self._engine.holds_more_than(_EXACT_UP_TO)))

    def _search(
        self, array: Float32, options: SearchOptions, k: int, staged: bool, *, scores_only: bool = False
    ) -> Search:
        search = Search(query=array, limit=k, where=options.filter, scores_only=scores_only)
        if not staged:
            return search
        if self._stage is None:  # the engine scans its quantised copies
            return replace(search, oversampling=max(1.0, options.limit / k))
        scan = Search(query=self._stage.query(array), using=FIRST, limit=max(options.limit, k))
        return replace(search, prefetch=scan)

    def _hits(
        self,
        array: Float32,
        results: Sequence[Scored],
        options: SearchOptions,
        *,
        fused: Mapping[str, float] | None = None,
        bm25: Mapping[str, float] | None = None,
    ) -> list[Hit]:
        """The hits of a ranking; entries are made for these alone, since a hybrid search ranks a hundred and more."""
        shares = relevance(np.array([one.score for one in results]), array, best_match=self._settings.model.best_match)
        lowest = options.min_relevance or 0.0
        chosen = [(one, float(share)) for one, share in zip(results, shares, strict=True) if share >= lowest]
        return [
            Hit(
                entry=Entry.from_payload(one.payload),
                score=one.score if fused is None else fused[one.id],
                max_sim=one.score,
                relevance=share,
                bm25=None if bm25 is None else bm25.get(one.id),
            )
            for one, share in chosen[: options.k]
        ]

    def _scores(self, arrays: Sequence[Float32], ids: Sequence[Collection[str]]) -> list[dict[str, float]]:
        """MaxSim of each query with the entries that have its ids, by id."""
        searches = {
            number: Search(query=array, limit=len(some), ids=some, scores_only=True)
            for number, (array, some) in enumerate(zip(arrays, ids, strict=True))
            if some
        }
        found = dict(zip(searches, self._engine.search([*searches.values()]), strict=True)) if searches else {}
        return [{one.id: one.score for one in found.get(number, ())} for number in range(len(arrays))]

    def _late(
        self, arrays: Sequence[Float32], sights: Sequence[Sequence[Scored]], by_words: Sequence[Sequence[Scored]]
    ) -> list[list[Scored]]:
        """The entries that only their text brought in, with MaxSim: both kinds of score cover the same entries."""
        late = []
        for sight, text in zip(sights, by_words, strict=True):
            seen = {one.id for one in sight}
            late.append({one.id: one for one in text if one.id not in seen})
        scores = self._scores(arrays, late)
        return [
            [replace(entries[id_], score=score) for id_, score in of_query.items()]
            for entries, of_query in zip(late, scores, strict=True)
        ]

    def _fused(
        self, array: Float32, sight: Sequence[Scored], text: Sequence[Scored], options: SearchOptions
    ) -> list[Hit]:
        found = {one.id: one for one in sight}
        scores = {id_: one.score for id_, one in found.items()}
        bm25 = {one.id: one.score for one in text if one.id in found}
        textless = [id_ for id_, one in found.items() if not has_text(one.payload)]
        fused = fuse(scores, bm25, weight=text_weight(options.hybrid), textless=textless)
        return self._hits(array, [found[id_] for id_ in fused], options, fused=fused, bm25=bm25)


def _chosen(exact: Mapping[str, float], by_words: Sequence[Scored], limit: int) -> list[Scored]:
    """The best entries by their exact scores, and those that the words found beside them."""
    chosen = dict.fromkeys([*nlargest(limit, exact, key=exact.__getitem__), *(one.id for one in by_words)])
    return [Scored(id_, exact[id_]) for id_ in chosen if id_ in exact]
