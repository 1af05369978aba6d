"""A question's vectors (and words) -> searches of the engine -> hits, fused where both were asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.scoring.bm25 import Bm25
from colpali_integrations.scoring.maxsim import relevance
from colpali_integrations.stores.engine import FIRST, WORDS, Engine, Scored, Search
from colpali_integrations.stores.entries import Entry, Hit
from colpali_integrations.stores.filters import Filter
from colpali_integrations.stores.first_stage import Stage
from colpali_integrations.stores.fusion import Hybrid, fuse, text_weight
from colpali_integrations.stores.settings import Settings

__all__ = ["Mode", "SearchPlan", "Searcher"]

Mode: TypeAlias = Literal["auto", "exact", "two_stage"]

_EXACT_UP_TO = 1000
_CANDIDATES = 100


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What is asked for; see `MultiVectorStore.search`.

    Raises:
        ConfigurationError: an option that cannot be.
    """

    k: int
    where: Filter | None
    mode: Mode
    oversampling: float | None
    hybrid: Hybrid

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.k < 1:
            raise ConfigurationError(f"k must be at least 1, got {self.k}")
        if self.mode not in ("auto", "exact", "two_stage"):
            raise ConfigurationError(f"mode must be 'auto', 'exact' or 'two_stage', got {self.mode!r}")
        if self.oversampling is not None and not self.oversampling >= 1:
            raise ConfigurationError(f"oversampling must be at least 1, got {self.oversampling}")
        if self.hybrid is not False:
            text_weight(self.hybrid)

    @property
    def limit(self) -> int:
        """How many candidates a first stage, or each half of a hybrid search, hands on."""
        if self.oversampling is None:
            return max(_CANDIDATES, 10 * self.k)
        return math.ceil(self.oversampling * self.k)


class Searcher:
    """Searches of one store.

    Args:
        engine: answers them.
        settings: how the store was made.
        stage: its first stage, unless the engine has one of its own.
        bm25: of its texts.
    """

    def __init__(self, engine: Engine, settings: Settings, stage: Stage | None, bm25: Bm25) -> None:
        self._engine, self._settings, self._stage, self._bm25 = engine, settings, stage, bm25

    def run(self, queries: Sequence[ArrayLike], plan: SearchPlan, texts: Sequence[str] | None) -> list[list[Hit]]:
        """At least `plan.k` hits a query, if there are as many, in one pass of the engine.

        Raises:
            InputError: a query of another shape.
            ConfigurationError: a hybrid search without words, or two stages in a store that has one.
        """
        name = "the query" if len(queries) == 1 else "query {}"
        arrays = [self.checked(query, name.format(index)) for index, query in enumerate(queries)]
        staged = self._two_stages(plan.mode)
        if plan.hybrid is False:
            answers = self._engine.search([self._search(array, plan, plan.k, staged) for array in arrays])
            return [self._hits(array, found) for array, found in zip(arrays, answers, strict=True)]
        if texts is None or len(texts) != len(arrays):
            raise ConfigurationError("a hybrid search needs the words of each query: pass text= (or texts=)")
        seeing = [self._search(array, plan, plan.limit, staged) for array in arrays]
        words = [self._bm25.query(text) for text in texts]
        reading = [Search(query=word, using=WORDS, limit=plan.limit, where=plan.where) for word in words]
        answers = self._engine.search([*seeing, *reading])
        seen, read = answers[: len(arrays)], answers[len(arrays) :]
        weight = text_weight(plan.hybrid)
        return [self._fused(*one, weight) for one in zip(arrays, seen, read, strict=True)]

    def score(self, array: NDArray[np.float32], ids: Sequence[str]) -> dict[str, float]:
        """MaxSim of a query with stored entries, by id."""
        wanted = dict.fromkeys(ids)
        if not wanted:
            return {}
        search = Search(query=array, limit=len(wanted), ids=wanted.keys(), scores_only=True)
        [found] = self._engine.search([search])
        return {scored.id: scored.score for scored in found}

    def checked(self, query: ArrayLike, name: str = "the query") -> NDArray[np.float32]:
        """The query as float32.

        Raises:
            InputError: not vectors of the store's dim.
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
        has = self._settings.first_stage != "exact"
        if mode == "two_stage" and not has:
            raise ConfigurationError(
                f"{self._engine.where} was made with first_stage='exact': it has no first stage to search in. Search "
                "with mode='exact', or index anew with first_stage='ward'"
            )
        return has and (mode == "two_stage" or (mode == "auto" and self._engine.count() > _EXACT_UP_TO))

    def _search(self, array: NDArray[np.float32], plan: SearchPlan, k: int, staged: bool) -> Search:
        if not staged:
            return Search(query=array, limit=k, where=plan.where)
        if self._stage is None:  # the engine scans its own copies
            return Search(query=array, limit=k, where=plan.where, oversampling=max(1.0, plan.limit / k))
        scan = Search(query=self._stage.query(array), using=FIRST, limit=max(plan.limit, k))
        return Search(query=array, limit=k, where=plan.where, prefetch=scan)

    def _hits(self, array: NDArray[np.float32], found: Sequence[Scored]) -> list[Hit]:
        shares = relevance(np.array([one.score for one in found]), array, best_match=self._settings.model.best_match)
        return [
            Hit(entry=Entry.from_payload(one.payload), score=one.score, max_sim=one.score, relevance=float(share))
            for one, share in zip(found, shares, strict=True)
        ]

    def _fused(
        self, array: NDArray[np.float32], seen: Sequence[Scored], read: Sequence[Scored], weight: float | None
    ) -> list[Hit]:
        known = {one.id for one in seen}
        unseen = {one.id: one.payload for one in read if one.id not in known}
        # What only its text found gets its MaxSim too, so that both kinds of score are over the same entries.
        scores = self.score(array, list(unseen)) if unseen else {}
        late = [Scored(id_, scores[id_], payload) for id_, payload in unseen.items() if id_ in scores]
        hits = {hit.id: hit for hit in self._hits(array, [*seen, *late])}
        texts = {one.id: one.score for one in read if one.id in hits}
        textless = [id_ for id_, hit in hits.items() if not hit.entry.has_text]
        fused = fuse({id_: hit.max_sim for id_, hit in hits.items()}, texts, weight=weight, textless=textless)
        return [
            Hit(
                entry=hits[id_].entry,
                score=score,
                max_sim=hits[id_].max_sim,
                relevance=hits[id_].relevance,
                bm25=texts.get(id_),
            )
            for id_, score in fused.items()
        ]
