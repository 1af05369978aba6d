"""MaxSim of a question with the candidates of another retriever, with as little encoding as possible.

A candidate whose content is in the store, under its id or another, is scored by the stored vectors; others are encoded
once and cached. Encoded vectors are rounded to float16, or as the store rounds them, so a page has the same score from
either.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._failures import item_error
from colpali_integrations._forks import ForkLock
from colpali_integrations._logs import package_logger
from colpali_integrations._options import checked_whole
from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.encoding import check_query
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.maxsim import max_sim, relevance
from colpali_integrations.stores.filters import CONTENT
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["Candidate", "CandidateScore", "CandidateScorer"]

logger = package_logger(__name__)

_Half: TypeAlias = NDArray[np.float16]


@dataclass(frozen=True)
class Candidate:
    """A page or text to be scored.

    Attributes:
        id: of its entry in the store, or None. The entry counts only if its content is the candidate's.
        key: equal for equal content; see `pages.identity.page_key` and `text_key`.
        text: encoded if there is no image.
        image: a function that returns the picture, called only to encode it; None for a text.
        name: the candidate's name in messages; by default the key.
    """

    id: str | None
    key: str
    text: str = ""
    image: Callable[[], ImageSource] | None = None
    name: str = ""


@dataclass(frozen=True)
class CandidateScore:
    """The score of a candidate.

    Attributes:
        max_sim: ranks the candidates of one question; minus infinity for a candidate that cannot be encoded.
        relevance: MaxSim scaled to [0, 1]; see `scoring.maxsim.relevance`.
        error: the reason for which a candidate could not be encoded, with `on_error="skip"`.
    """

    max_sim: float
    relevance: float
    error: ColPaliError | None = None


class CandidateScorer:
    """Scores candidates against questions. Threads may share it; only one of them encodes pages at a time.

    Args:
        model: a function that returns the model.
        store: its vectors score the candidates whose content it has.
        cache_size: number of encoded candidates in the cache, the most recently used ones; a page of 1030 vectors takes
            264 kB.

    Raises:
        ConfigurationError: a negative cache_size.

    Example:
        >>> scorer = CandidateScorer(ColPali.from_pretrained)
        >>> tide, tax = scorer.scores("tide", [Candidate(None, "a", "low tide"), Candidate(None, "b", "tax")])
        >>> tide.max_sim > tax.max_sim
        True
    """

    def __init__(
        self, model: Callable[[], ColPali], store: MultiVectorStore | None = None, *, cache_size: int = 256
    ) -> None:
        cache_size = checked_whole(cache_size, "cache_size", 0)
        self._model, self._store, self._size = model, store, cache_size
        self._cache: OrderedDict[str, _Half] = OrderedDict()
        self._lock = ForkLock()
        # Held during encoding: a thread that needs the same page waits, and then reads it from the cache.
        self._encoding = ForkLock()

    def scores(
        self, query: str, candidates: Sequence[Candidate], *, on_error: Literal["raise", "skip"] = "raise"
    ) -> list[CandidateScore]:
        """MaxSim of a question with each candidate.

        Args:
            query: the question.
            candidates: any number; those in the store are not encoded.
            on_error: "raise" the error of a candidate that cannot be read or encoded; its `index` and `item` name the
                candidate. Or "skip" the candidate: it gets a score below all others, and the log has the reason.

        Returns:
            Scores in the order of the candidates.

        Raises:
            QueryError: the question is empty or not a string.
            FingerprintError: the store was made by a model of another space.
            ColPaliError: with "raise", a candidate that cannot be encoded.
        """
        if on_error not in ("raise", "skip"):
            raise ConfigurationError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        if not candidates:
            return []
        model = self._model()
        if self._store is not None:
            self._store.require_space(model)
        [array] = model.embed_queries([query])
        entries = self._entries(candidates)
        by_entry = self._store.score(array, sorted(set(entries.values()))) if self._store is not None else {}
        scores = {key: by_entry[id_] for key, id_ in entries.items() if id_ in by_entry}
        others = [(index, one) for index, one in enumerate(candidates) if one.key not in scores]
        vectors, errors = self._vectors(model, {one.key: one for _, one in others})
        for index, one in others:
            if one.key in errors and on_error == "raise":
                raise errors[one.key].at(index, one.name or one.key) from errors[one.key].__cause__
        scores |= zip(vectors, np.atleast_1d(max_sim(array, list(vectors.values()))).tolist(), strict=True)
        results = []
        for one in candidates:
            if one.key in scores:
                share = relevance(scores[one.key], array, best_match=model.description.best_match)
                results.append(CandidateScore(scores[one.key], float(share)))
            else:
                error = errors[one.key]
                logger.warning("ranked last because it could not be scored: %s: %s", one.name or one.key, error)
                results.append(CandidateScore(-math.inf, 0.0, error))
        return results

    def doubtful(self, scores: Sequence[CandidateScore]) -> bool:
        """Whether no candidate seems to answer the question, by the model's `low_relevance`, as `Hits.doubtful`.

        Args:
            scores: of all candidates.
        """
        return bool(scores) and max(one.relevance for one in scores) < self._model().description.low_relevance

    def needs_encoding(self, candidates: Sequence[Candidate]) -> bool:
        """Whether `scores` would encode a page, which takes long. It asks the store and encodes nothing."""
        entries = self._entries(candidates)
        return any(one.image is not None and one.key not in entries for one in candidates)

    def _entries(self, candidates: Sequence[Candidate]) -> dict[str, str]:
        """The id of an entry of equal content by content key: the candidate's own entry, or another."""
        if self._store is None:
            return {}
        ids = [one.id for one in candidates if one.id is not None]
        keys = {entry.id: entry.content_hash for entry in self._store.get(ids) if entry is not None}
        entries = {one.key: one.id for one in candidates if one.id is not None and keys.get(one.id) == one.key}
        if missing := sorted({one.key for one in candidates} - entries.keys()):
            entries |= {key: id_ for id_, key in self._store.hashes({CONTENT: {"$in": missing}}).items()}
        return entries

    def _vectors(
        self, model: ColPali, candidates: Mapping[str, Candidate]
    ) -> tuple[dict[str, _Half], dict[str, ColPaliError]]:
        """The vectors by key, and the errors of the candidates without vectors."""
        vectors = self._cached(candidates)
        errors: dict[str, ColPaliError] = {}
        if len(vectors) == len(candidates):
            return vectors, errors
        with self._encoding, keep_pdfs_open():
            vectors |= self._cached(candidates.keys() - vectors.keys())
            missing = {key: one for key, one in candidates.items() if key not in vectors}
            for key, encoded in self._encoded(model, missing):
                if isinstance(encoded, ColPaliError):
                    errors[key] = encoded
                else:
                    vectors[key] = self._rounded(encoded, missing[key])
                    self._remember(key, vectors[key])
        return vectors, errors

    def _rounded(self, vectors: Float32, candidate: Candidate) -> _Half:
        if self._store is not None:
            vectors = self._store._as_stored(vectors, is_page=candidate.image is not None)
        return vectors.astype(np.float16)

    def _encoded(
        self, model: ColPali, candidates: Mapping[str, Candidate]
    ) -> Iterator[tuple[str, Float32 | ColPaliError]]:
        texts: dict[str, str] = {}
        failed: list[tuple[str, ColPaliError]] = []
        in_flight: deque[str] = deque()

        def pictures() -> Iterator[Any]:
            for key, one in candidates.items():
                try:
                    if one.image is None:
                        texts[key] = check_query(one.text)
                        continue
                    picture = one.image()
                except BaseException as error:
                    failed.append((key, item_error(error)))
                    continue
                in_flight.append(key)
                yield picture

        def fail(error: ColPaliError) -> None:
            error.index = error.item = None  # they count the pictures, not the candidates
            failed.append((in_flight.popleft(), error))

        for vectors in model.embed_images(pictures(), on_error=fail):
            yield in_flight.popleft(), vectors
        yield from zip(texts, model.embed_texts(texts.values()), strict=True)
        yield from failed

    def _cached(self, keys: Iterable[str]) -> dict[str, _Half]:
        with self._lock:
            vectors = {key: self._cache[key] for key in keys if key in self._cache}
            for key in vectors:
                self._cache.move_to_end(key)
        return vectors

    def _remember(self, key: str, vectors: _Half) -> None:
        with self._lock:
            self._cache[key] = vectors
            self._cache.move_to_end(key)
            while len(self._cache) > self._size:
                self._cache.popitem(last=False)
