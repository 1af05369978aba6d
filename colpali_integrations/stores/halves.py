"""The two halves of a hybrid search: what each engine call asks for, and what is asked in a second one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest

from colpali_integrations.stores.engine import WORDS, Engine, Scored, Search
from colpali_integrations.stores.fusion import above

__all__ = ["Found", "both_halves", "scores_of"]


@dataclass(frozen=True)
class Found:
    """The candidates of a question, with both scores.

    Attributes:
        sight: the entries that either half brought in, with MaxSim.
        words: BM25 by id, of these entries and of further ones that the words found; without those that share no word.
    """

    sight: list[Scored]
    words: dict[str, float]

    @property
    def max_sim(self) -> dict[str, float]:
        """MaxSim by id."""
        return {one.id: one.score for one in self.sight}


def both_halves(
    engine: Engine,
    by_sight: Sequence[Search],
    by_words: Sequence[Search],
    *,
    exact: Sequence[Mapping[str, float]] | None = None,
) -> list[Found]:
    """Search by sight and by words, in two calls of the engine.

    The second call is for the MaxSim of entries that only the words brought in, and, where the list of the words was
    cut off, for the BM25 of those that only sight did. The group of equal scores at the end of a list that was cut off
    is not brought in by the words: which of them the engine returned is chance.

    Args:
        engine: of the store.
        by_sight: a search per question.
        by_words: a search per question; of the same limits.
        exact: MaxSim of all entries per question, if known: sight is not searched then.
    """
    if exact is None:
        answers = engine.search([*by_sight, *by_words])
        seen, said = answers[: len(by_sight)], answers[len(by_sight) :]
    else:
        said = engine.search(by_words)
        seen = [_best(scores, search.limit) for scores, search in zip(exact, by_sight, strict=True)]
    late = [_late(*three) for three in zip(seen, said, by_words, strict=True)]
    unsaid = [_unsaid(*three) for three in zip(seen, said, by_words, strict=True)]
    asked = [
        *(_of_ids(search, ones if exact is None else ()) for search, ones in zip(by_sight, late, strict=True)),
        *(_of_ids(search, ones) for search, ones in zip(by_words, unsaid, strict=True)),
    ]
    scores = scores_of(engine, asked)
    max_sims: Sequence[Mapping[str, float]] = scores[: len(late)] if exact is None else exact
    return [
        Found(
            [*one, *(Scored(id_, of_late[id_], late.payload) for id_, late in some.items() if id_ in of_late)],
            {**{word.id: word.score for word in words}, **of_unsaid},
        )
        for one, words, some, of_late, of_unsaid in zip(seen, said, late, max_sims, scores[len(late) :], strict=True)
    ]


def scores_of(engine: Engine, searches: Sequence[Search]) -> list[dict[str, float]]:
    """The scores of searches by id. Those among no ids find nothing, and are not sent."""
    asked = {number: search for number, search in enumerate(searches) if search.ids}
    found = dict(zip(asked, engine.search([*asked.values()]), strict=True)) if asked else {}
    return [{one.id: one.score for one in found.get(number, ())} for number in range(len(searches))]


def _best(scores: Mapping[str, float], limit: int) -> list[Scored]:
    return [Scored(id_, scores[id_]) for id_ in nlargest(limit, scores, key=scores.__getitem__)]


def _late(seen: Sequence[Scored], said: Sequence[Scored], search: Search) -> dict[str, Scored]:
    """The entries that only the words brought in."""
    lowest = above([one.score for one in said], search.limit - 1)
    known = {one.id for one in seen}
    return {one.id: one for one in said if one.score > lowest and one.id not in known}


def _unsaid(seen: Sequence[Scored], said: Sequence[Scored], search: Search) -> list[str]:
    """The entries that only sight brought in, where the list of the words does not tell that they have none."""
    known = {one.id for one in said}
    return [one.id for one in seen if one.id not in known] if len(said) >= search.limit else []


def _of_ids(search: Search, ids: Sequence[str] | Mapping[str, Scored]) -> Search:
    """The exact scores of a search's query with some entries."""
    using = WORDS if search.using == WORDS else Search.using
    return Search(query=search.query, using=using, limit=len(ids), ids=[*ids], scores_only=True)
