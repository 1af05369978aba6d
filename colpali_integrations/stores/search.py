"""Searches of a store: options, the two stages, and fusion with BM25."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from colpali_integrations._options import checked_number, checked_whole
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.bm25 import Bm25
from colpali_integrations.scoring.maxsim import relevance
from colpali_integrations.stores.engine import FIRST, WORDS, Engine, Scored, Search, strings
from colpali_integrations.stores.entries import Entry, Hit, payload_has_words
from colpali_integrations.stores.filters import Filter, FilterLike, parse_filter
from colpali_integrations.stores.first_stage import Stage
from colpali_integrations.stores.fusion import CANDIDATES, Fusion, Hybrid, checked_fusion, depths, fuse
from colpali_integrations.stores.halves import Found, both_halves, scores_of
from colpali_integrations.stores.settings import Settings

__all__ = ["Mode", "SearchOptions", "Searcher"]

Mode: TypeAlias = Literal["auto", "exact", "two_stage"]

_EXACT_UP_TO = 1000
_MOST = 2**31 - 1  # no store has more entries
_LARGEST = float(np.finfo(np.float16).max)  # of the numbers of questions, as of pages: no score overflows


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The options of a search.

    Attributes:
        k: the largest number of entries.
        where: only entries that fit this filter; see `filters`.
        mode: "exact" compares with all vectors of every entry; "two_stage" scans the store's first stage and scores its
            best with all their vectors; "auto" is two stages where the store has them and holds more than 1000 entries.
        oversampling: the first stage passes on `oversampling * k` entries; by default 10 * k, and at least 100. For a
            hybrid search it passes on at least 101, because that fuses the 100 best of each half; more of them find
            more of these.
        min_relevance: leave out entries of a lower relevance, in [0, 1].
        hybrid: fuse the ranking with BM25's over the entries' texts: True by a weight that each question decides, see
            `fusion`; a number in [0, 1] as the weight of the text for all; "rrf" by reciprocal ranks; False for MaxSim
            alone. "auto" is, for a question in words, what the model's description says that pays (`auto_hybrid`), if
            any entry has words; a question that is passed as vectors is ranked by MaxSim alone.

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
            checked_fusion(self.hybrid)
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
        """Number of candidates that a first stage passes on."""
        if self.oversampling is None:
            return max(CANDIDATES, 10 * self.k)
        return math.ceil(min(self.oversampling * min(self.k, _MOST), _MOST))

    @property
    def depth(self) -> int:
        """Number of its best entries that each half of a hybrid search brings in: 100, doubled until `k` is reached."""
        return depths(min(self.k, _MOST))[-1]


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

        The engine gets all searches in one call. A hybrid search makes a second one, see `both_halves`.

        Raises:
            InputError: a query is not vectors of the store's dim, or has numbers that are not finite or too large.
            ConfigurationError: a hybrid search without words, or two stages in a store without a first stage.
        """
        arrays = self._checked(queries)
        if not options.ranks_by_words:
            staged = self._two_stages(options.mode)
            answers = self._engine.search([self._search(array, options, options.k, staged) for array in arrays])
            return [self._hits(array, results, options) for array, results in zip(arrays, answers, strict=True)]
        found = self._both(arrays, options, texts)
        return [self._fused(*one, options) for one in zip(arrays, found, texts or (), strict=True)]

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
        weight = checked_fusion(options.hybrid)
        found = self._both(arrays, options, texts, exact=known, scores_only=True)
        return [
            fuse(one.max_sim, one.words, weight=weight, textless=textless, depth=options.depth).scores for one in found
        ]

    def _both(
        self,
        arrays: Sequence[Float32],
        options: SearchOptions,
        texts: Sequence[str] | None,
        *,
        exact: Sequence[Mapping[str, float]] | None = None,
        scores_only: bool = False,
    ) -> list[Found]:
        """The candidates of each query in a hybrid search."""
        texts = texts or ()
        if len(texts) != len(arrays):
            raise ConfigurationError("a hybrid search needs the words of each query: pass text= (or texts=)")
        half, where = options.depth + 1, options.filter  # one more, to see a cut through equal scores
        staged = self._two_stages(options.mode)
        by_sight = [self._search(array, options, half, staged, scores_only=scores_only) for array in arrays]
        by_words = [
            Search(query=self._bm25.query(text), using=WORDS, limit=half, where=where, scores_only=scores_only)
            for text in texts
        ]
        return both_halves(self._engine, by_sight, by_words, exact=exact)

    def _checked(self, queries: Sequence[ArrayLike]) -> list[Float32]:
        name = "the query" if len(queries) == 1 else "query {}"
        return [self.checked(query, name.format(index)) for index, query in enumerate(queries)]

    def score(self, array: Float32, ids: Sequence[str]) -> dict[str, float]:
        """MaxSim of a query with stored entries, by id."""
        some = [*dict.fromkeys(strings(ids))]
        return scores_of(self._engine, [Search(query=array, limit=len(some), ids=some, scores_only=True)])[0]

    def checked(self, query: ArrayLike, name: str = "the query") -> Float32:
        """The query as float32.

        Raises:
            InputError: it is not vectors of the store's dim, or has numbers that are not finite or too large.
        """
        array = np.asarray(query)
        model = self._settings.model
        if array.ndim != 2 or not len(array) or array.shape[1] != model.dim or array.dtype.kind not in "fiu":
            raise InputError(
                f"{name}: expected vectors (n, {model.dim}) with n > 0, got shape {array.shape} of {array.dtype}; "
                f"{self._engine.where} was made by {model.name!r}"
            )
        if not np.abs(array).max() <= _LARGEST:  # nor is NaN
            raise InputError(f"{name} must be finite in float16 (at most {_LARGEST:.0f})")
        array = array.astype(np.float32, copy=False)
        if self._settings.distance == "cosine":  # as a server does; the relevance needs these lengths too
            array = array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return array

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
        fusion: Fusion | None = None,
        words: Mapping[str, float] | None = None,
    ) -> list[Hit]:
        """The hits of a ranking; entries are made for these alone, since a hybrid search ranks a hundred and more."""
        shares = relevance(np.array([one.score for one in results]), array, best_match=self._settings.model.best_match)
        lowest = options.min_relevance or 0.0
        chosen = [(one, float(share)) for one, share in zip(results, shares, strict=True) if share >= lowest]
        return [
            Hit(
                entry=Entry.from_payload(one.payload),
                score=one.score if fusion is None else fusion.scores[one.id],
                max_sim=one.score,
                relevance=share,
                bm25=None if words is None else words.get(one.id),
                halves=None if fusion is None else fusion.halves(one.id),
            )
            for one, share in chosen[: options.k]
        ]

    def _fused(self, array: Float32, found: Found, text: str, options: SearchOptions) -> list[Hit]:
        unsaid = (one for one in found.sight if not found.words.get(one.id))
        textless = [one.id for one in unsaid if not payload_has_words(one.payload)]
        weight = checked_fusion(options.hybrid)
        fusion = fuse(found.max_sim, found.words, weight=weight, textless=textless, depth=options.depth)
        by_id = {one.id: one for one in found.sight}
        hits = self._hits(array, [by_id[id_] for id_ in fusion.scores], options, fusion=fusion, words=found.words)
        return [hit if hit.matches or not self._has_word_of(text, hit) else replace(hit, bm25=0.0) for hit in hits]

    def _has_word_of(self, question: str, hit: Hit) -> bool:
        """Whether a text has a word of the question, though it may be one that all texts have."""
        if not hit.entry.has_text:
            return False
        asked, stored = self._bm25.query(question), self._bm25.document(hit.entry.text)
        return bool(np.isin(asked.indices, stored.indices).any())
