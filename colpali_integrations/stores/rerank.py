"""MaxSim of a question with candidates that another retriever found, with as little encoding as possible.

A candidate whose content the store holds, under its id or another, is scored by the stored vectors; others are encoded
once and kept in a cache. Vectors that are encoded here are rounded to float16, as stores do it, so that a page has the
same score from either.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.prompt import check_query
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.scoring.maxsim import max_sim, relevance
from colpali_integrations.stores.filters import CONTENT
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["Candidate", "CandidateScore", "CandidateScorer"]

logger = logging.getLogger(__name__)

_Half: TypeAlias = "NDArray[np.float16]"


@dataclass(frozen=True)
class Candidate:
    """A page or text to be scored.

    Attributes:
        id: of its entry in the store; None for none. The entry counts only if its content is the candidate's.
        key: equal for equal content; see `pages.identity.page_key` and `text_key`.
        text: encoded when there is no image.
        image: gives the picture, when it must be encoded; None for a text.
        name: of the candidate in messages; the key when empty.
    """

    id: str | None
    key: str
    text: str = ""
    image: Callable[[], ImageSource] | None = None
    name: str = ""


@dataclass(frozen=True)
class CandidateScore:
    """What a candidate got.

    Attributes:
        max_sim: ranks the candidates of one question; minus infinity for one that could not be encoded.
        relevance: the same in [0, 1]; see `scoring.maxsim.relevance`.
        error: why it could not be encoded, with `on_error="skip"`.
    """

    max_sim: float
    relevance: float
    error: ColPaliError | None = None


class CandidateScorer:
    """Scores candidates against questions. Safe to share between threads; pages are encoded by one at a time.

    Args:
        model: gives the model, when something must be encoded; the question always.
        store: whose vectors are used for the candidates that it holds.
        cache_size: how many encoded candidates are kept, those last used; a page of 1030 vectors takes 264 kB.

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
        if cache_size < 0:
            raise ConfigurationError(f"cache_size must not be negative, got {cache_size}")
        self._model, self._store, self._size = model, store, cache_size
        self._cache: OrderedDict[str, _Half] = OrderedDict()
        self._lock = threading.Lock()
        # Held while pages are encoded: whoever wants the same page waits, and then finds it in the cache.
        self._encoding = threading.Lock()
        self._checked: ColPali | None = None

    def scores(
        self, query: str, candidates: Sequence[Candidate], *, on_error: Literal["raise", "skip"] = "raise"
    ) -> list[CandidateScore]:
        """MaxSim of a question with each candidate.

        Args:
            query: the question.
            candidates: in any number; those that the store knows cost no encoding.
            on_error: "raise" the error of a candidate that cannot be read or encoded; `index` and `item` name it. Or
                "skip" it: it gets a score below all others, and the log says why.

        Returns:
            Scores in the order of the candidates.

        Raises:
            QueryError: the question is empty or not a string.
            FingerprintError: the store was made by another model.
            ColPaliError: with "raise", a candidate that cannot be encoded.
        """
        if on_error not in ("raise", "skip"):
            raise ConfigurationError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        if not candidates:
            return []
        model = self._model()
        if self._store is not None and model is not self._checked:
            self._store.require(model)
            self._checked = model
        [array] = model.embed_queries([query])
        entries = self._stored(candidates)
        by_entry = self._store.score(array, sorted(set(entries.values()))) if self._store is not None else {}
        stored = {key: by_entry[id_] for key, id_ in entries.items() if id_ in by_entry}
        others = [index for index, one in enumerate(candidates) if one.key not in stored]
        vectors, errors = self._vectors(model, {candidates[index].key: candidates[index] for index in others})
        for index in others:
            error = errors.get(candidates[index].key)
            if error is not None and on_error == "raise":
                raise error.at(index, _name(candidates[index])) from error.__cause__
        encoded = dict(zip(vectors, np.atleast_1d(max_sim(array, list(vectors.values()))).tolist(), strict=True))
        best_match = model.description.best_match
        results = []
        for one in candidates:
            if one.key in stored:
                score = stored[one.key]
            elif one.key in encoded:
                score = encoded[one.key]
            else:
                error = errors[one.key]
                logger.warning("ranked last because it could not be scored: %s: %s", _name(one), error)
                results.append(CandidateScore(-math.inf, 0.0, error))
                continue
            results.append(CandidateScore(score, float(relevance(score, array, best_match=best_match))))
        return results

    def needs_encoding(self, candidates: Sequence[Candidate]) -> bool:
        """Whether `scores` would encode a page, which takes long; the store is asked, nothing is encoded."""
        stored = self._stored(candidates)
        return any(one.image is not None and one.key not in stored for one in candidates)

    def _stored(self, candidates: Sequence[Candidate]) -> dict[str, str]:
        """By content key the id of an entry that has this content: the candidate's own, or another."""
        if self._store is None:
            return {}
        ids = [one.id for one in candidates if one.id is not None]
        content = {entry.id: entry.content_hash for entry in self._store.get(ids) if entry is not None}
        found = {one.key: one.id for one in candidates if one.id is not None and content.get(one.id) == one.key}
        if others := sorted({one.key for one in candidates} - found.keys()):
            elsewhere = self._store.hashes({CONTENT: {"$in": others}})
            found |= {key: id_ for id_, key in elsewhere.items()}
        return found

    def _vectors(
        self, model: ColPali, wanted: dict[str, Candidate]
    ) -> tuple[dict[str, _Half], dict[str, ColPaliError]]:
        """The vectors by key, and the errors of those that have none."""
        vectors = self._cached(wanted)
        if len(vectors) == len(wanted):
            return vectors, {}
        with self._encoding:
            vectors |= self._cached([key for key in wanted if key not in vectors])
            missing = {key: one for key, one in wanted.items() if key not in vectors}
            errors: dict[str, ColPaliError] = {}
            for key, encoded in self._encoded(model, missing):
                if isinstance(encoded, ColPaliError):
                    errors[key] = encoded
                else:
                    vectors[key] = encoded.astype(np.float16)
                    self._keep(key, vectors[key])
        return vectors, errors

    def _encoded(
        self, model: ColPali, wanted: dict[str, Candidate]
    ) -> Iterator[tuple[str, NDArray[np.float32] | ColPaliError]]:
        texts: dict[str, str] = {}
        failed: list[tuple[str, ColPaliError]] = []
        under_way: deque[str] = deque()

        def pictures() -> Iterator[Any]:
            for key, one in wanted.items():
                if one.image is None:
                    continue
                try:
                    picture = one.image()
                except ColPaliError as error:
                    failed.append((key, error))
                    continue
                under_way.append(key)
                yield picture

        def fail(error: ColPaliError) -> None:
            error.index = error.item = None  # its place among the pictures is not the candidate's place
            failed.append((under_way.popleft(), error))

        for vectors in model.embed_images(pictures(), on_error=fail):
            yield under_way.popleft(), vectors
        for key, one in wanted.items():
            if one.image is None:
                try:
                    texts[key] = check_query(one.text)
                except ColPaliError as error:
                    failed.append((key, error))
        yield from zip(texts, model.embed_texts(texts.values()), strict=True)
        yield from failed

    def _cached(self, keys: Sequence[str] | dict[str, Candidate]) -> dict[str, _Half]:
        with self._lock:
            found = {key: self._cache[key] for key in keys if key in self._cache}
            for key in found:
                self._cache.move_to_end(key)
        return found

    def _keep(self, key: str, vectors: _Half) -> None:
        with self._lock:
            self._cache[key] = vectors
            self._cache.move_to_end(key)
            while len(self._cache) > self._size:
                self._cache.popitem(last=False)


def _name(one: Candidate) -> str:
    return one.name or one.key
