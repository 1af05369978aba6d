"""The questions that a store is asked: who encodes them, and which words stand behind their vectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from colpali_integrations._options import shown
from colpali_integrations.errors import InputError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.stores.admission import Admission
from colpali_integrations.stores.model_choice import ModelLike, question_model, registered
from colpali_integrations.stores.search import SearchOptions

__all__ = ["Asked", "Questions", "decided"]


class Asked(NamedTuple):
    """Questions that can be searched for.

    Attributes:
        vectors: (n, dim) of each.
        texts: the words of each; None where they are unknown.
        options: of the search, whose `hybrid` is decided for questions in words.
    """

    vectors: Sequence[ArrayLike]
    texts: Sequence[str] | None
    options: SearchOptions


class Questions:
    """Encodes the questions of a store.

    Args:
        admission: of the store.
        where: the kind and place of the store, for messages.

    Attributes:
        named: the name or folder that the store was opened with; None for none.
    """

    def __init__(self, admission: Admission, where: str) -> None:
        self._admission, self._where = admission, where
        self._encoder: ColPali | None = None
        self.named: str | os.PathLike[str] | None = None

    def opened_with(self, model: ModelLike | None) -> None:
        """Encode with the model that a store is opened with, if it can do so."""
        if isinstance(model, ColPali):
            self._encoder = model
        self.named = model if isinstance(model, str | os.PathLike) else None

    def follow(self, other: Questions) -> None:
        """Encode with the model of the store whose place this one takes."""
        self._encoder, self.named = other._encoder, other.named

    @property
    def encoder(self) -> ColPali:
        """See `MultiVectorStore.encoder`."""
        encoder = self._encoder or question_model(self._admission.settings.model, self.named, where=self._where)
        self._admission.require_space(encoder)
        self._encoder = encoder
        return encoder

    def asked(
        self,
        queries: Sequence[str | ArrayLike],
        texts: Sequence[str] | None,
        options: SearchOptions,
        has_words: Callable[[], bool],
    ) -> Asked:
        """Encode questions in words, and check those that come as vectors.

        Args:
            queries: questions, or vectors (n, dim) of each.
            texts: the words of the questions, where `queries` are vectors.
            options: of the search.
            has_words: whether any entry has words.

        Raises:
            InputError: numbers of queries and texts that differ, or a text that is no string.
            ColPaliError: as `MultiVectorStore.encoder`, for questions in words.
        """
        words = [query for query in queries if isinstance(query, str)]
        if words and len(words) == len(queries):
            options = decided(options, self.encoder, has_words)
            texts, queries = words, list(self.encoder.embed_queries(words))
        if texts is not None and len(texts) != len(queries):
            raise InputError(f"{len(queries)} queries but {len(texts)} texts; pass one of each, or no texts")
        given: Sequence[object] = texts or ()  # callers without type checks may pass other values
        if wrong := [text for text in given if not isinstance(text, str)]:
            raise InputError(f"the words of a question must be a string, got {shown(wrong[0])}")
        return Asked(queries, texts, options)

    def tokens(self, text: str | None, query: ArrayLike) -> list[str | None] | None:
        """The words that the vectors of a question stand for; None where they are unknown."""
        tokens = self._encoder.query_tokens(text) if self._encoder is not None and text and text.strip() else None
        if tokens is not None and len(tokens) != len(np.asarray(query)):
            return None  # the vectors of another text, such as a hypothetical answer
        return tokens

    @property
    def low_relevance(self) -> float:
        """The relevance below which an answer of the model is doubtful; 0 where it is neither open nor registered."""
        stored = self._admission.settings.model
        model = registered(stored) if self._encoder is None else self._encoder.description
        return 0.0 if model is None else model.low_relevance


def decided(options: SearchOptions, model: ColPali, has_words: Callable[[], bool]) -> SearchOptions:
    """See `MultiVectorStore.decide_hybrid`.

    Args:
        options: of the search.
        model: that encodes the questions.
        has_words: whether any entry has words.
    """
    if options.ranks_by_words or options.hybrid is False:
        return options
    paying = model.description.auto_hybrid
    return replace(options, hybrid=paying if paying is not False and has_words() else False)
