"""The choice of the encoder and the store that a vector store is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.stores import MultiVectorStore, Settings
from colpali_integrations.stores.model_choice import continued, registered_options
from colpali_integrations.stores.opening import settings_at

__all__ = ["check_constructor", "embedding_for", "open_store"]

_GUESSES = {
    "collection": "collection_name=",
    "persist_directory": "path=",
    "location": "path= for a folder, or url= for a server",
    **dict.fromkeys(("embeddings", "embedding_function", "embed_model"), "embedding="),
    **dict.fromkeys(("model", "model_name"), "embedding=ColPaliEmbeddings(model_name=...)"),
}


def check_constructor(embedding: object, options: Mapping[str, Any]) -> None:
    """Refuse arguments of other vector stores, and name the right ones."""
    for name in options:
        if name in _GUESSES:
            raise ConfigurationError(f"ColPaliVectorStore has no argument {name}=; use {_GUESSES[name]}")
    if isinstance(embedding, str | os.PathLike):
        raise ConfigurationError(f"the first argument is the embedding; pass path={os.fspath(embedding)!r}")
    if embedding is not None and not isinstance(embedding, ColPaliEmbeddings):
        raise ConfigurationError(
            f"ColPaliVectorStore compares multi-vectors, and {type(embedding).__name__} has none; pass "
            "ColPaliEmbeddings(), or nothing"
        )


def open_store(
    embedding: ColPaliEmbeddings | None, options: Mapping[str, Any], *, collection_name: str
) -> tuple[ColPaliEmbeddings, MultiVectorStore]:
    """Open the store at a place, or make one, with the encoder for it.

    Args:
        embedding: of the caller; None for the model that made the store, ColTiny for a new one.
        options: of `MultiVectorStore.open`, `path`, `url` and `client` among them.
        collection_name: on the server.

    Raises:
        ColPaliError: see `ColPaliVectorStore`.
    """
    settings, where = settings_at(collection_name=collection_name, **options)
    encoder = embedding_for(embedding, settings, where)
    unknown = "layout" in options and embedding is None  # a collection of another program names no model
    model = None if unknown else encoder.model
    return encoder, MultiVectorStore.open(model=model, collection_name=collection_name, **options)


def embedding_for(embedding: ColPaliEmbeddings | None, settings: Settings | None, where: str) -> ColPaliEmbeddings:
    """Choose the encoder: the caller's, which goes on with the store's settings where it has none of its own.

    Args:
        embedding: of the caller; None for the registered model that made the store, ColTiny for a new one.
        settings: of the store; None where there is none yet.
        where: the store, for messages.

    Raises:
        FingerprintError: a registered model of another space; it is refused before it is loaded, which may download it.
        ConfigurationError: no model was passed, and the store's is not registered here.
    """
    if settings is None:
        return embedding or ColPaliEmbeddings()
    if embedding is None:
        advice = "pass embedding=ColPaliEmbeddings(model_name=<folder of the model>)"
        stored = registered_options(settings.model, where=where, advice=advice)
        return ColPaliEmbeddings(model_name=settings.model.name, **stored)
    options = continued(settings.model, embedding.model_name, embedding.options, where=where)
    return embedding if options == embedding.options else embedding.model_copy(update={"options": options})
