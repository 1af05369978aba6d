"""LangChain's names of a search's options, its filters, and its answers, to and from those of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from langchain_core.documents import Document
from numpy.typing import ArrayLike, NDArray

from colpali_integrations._options import checked_number
from colpali_integrations.errors import InputError
from colpali_integrations.langchain._documents import document_of
from colpali_integrations.stores import Filter, Hit, MultiVectorStore, SearchOptions, parse_filter
from colpali_integrations.stores.filters import ID, And, Condition, Operator

__all__ = [
    "OPTION_GUESSES",
    "SEARCH_OPTIONS",
    "FilterInput",
    "Scored",
    "documents_of",
    "multi_vector",
    "parsed_filter",
    "search_options",
    "with_scores",
]

FilterInput: TypeAlias = Mapping[str, Any] | Filter | Callable[[Document], bool] | None
Scored: TypeAlias = list[tuple[Document, float]]

# LangChain's names of a search's options, and those of `SearchOptions`.
SEARCH_OPTIONS = {
    **{"k": "k", "filter": "where", "score_threshold": "min_relevance"},
    **{"mode": "mode", "oversampling": "oversampling", "hybrid": "hybrid"},
}
OPTION_GUESSES = {
    **dict.fromkeys(("filters", "where"), "use filter={...}"),
    **dict.fromkeys(("top_k", "similarity_top_k", "limit", "n_results"), "use k=..."),
    **dict.fromkeys(("min_relevance", "similarity_cutoff"), "use score_threshold=..."),
    "alpha": "use hybrid=..., the weight of the text",
}


def search_options(options: Mapping[str, Any]) -> SearchOptions:
    """Make the options of a search from LangChain's names for them; other names are not read.

    Raises:
        ConfigurationError: an option has an invalid value.
        InputError: the filter is invalid.
    """
    if (threshold := options.get("score_threshold")) is not None:
        checked_number(threshold, "score_threshold", 0, 1)  # under LangChain's name
    names = options.keys() & SEARCH_OPTIONS.keys()
    return SearchOptions(**{"k": 4, **{SEARCH_OPTIONS[name]: options[name] for name in names}})


def parsed_filter(store: MultiVectorStore, *conditions: FilterInput) -> Filter:
    """Make one filter that holds where all `conditions` hold; a function is called with every stored Document."""
    parsed = [
        Condition(ID, Operator.IN, tuple(entry.id for entry in store.scroll() if one(document_of(entry))))
        if callable(one)
        else parse_filter(one)
        for one in conditions
    ]
    return And(tuple(one for one in parsed if one is not None))


def multi_vector(vectors: ArrayLike) -> NDArray[Any]:
    """Return the vectors of a question.

    Raises:
        InputError: it is one vector.
    """
    array = np.asarray(vectors)
    if array.ndim == 1 and array.dtype.kind in "fiu":
        raise InputError(
            f"this store compares multi-vectors (n_vectors, dim), got one vector of length {len(array)}. Pass the "
            "result of embed_query_multi_vector, or the question itself to similarity_search"
        )
    return array


def documents_of(hits: Iterable[Hit]) -> list[Document]:
    """Make the Documents of hits."""
    return [document_of(hit.entry) for hit in hits]


def with_scores(hits: Iterable[Hit]) -> Scored:
    """Make the Documents of hits, with their scores."""
    return [(document_of(hit.entry), hit.score) for hit in hits]
