"""By which model a store was made -> the embeddings that go with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from colpali_integrations.errors import ConfigurationError, ModelNotFoundError
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.stores import Settings, stored_settings

__all__ = ["embedding_by", "embedding_of"]


def embedding_of(
    path: str | os.PathLike[str] | None, url: str | None, client: Any, collection: str, options: dict[str, Any]
) -> ColPaliEmbeddings:
    """Embeddings by the model that a store was made by; by ColTiny where there is no store yet."""
    found: Settings | None = None
    if path is not None:
        found = stored_settings(path) if Path(path).is_dir() else None
    elif url is not None or client is not None:
        from colpali_integrations.stores.qdrant.server import connect, read_manifest

        connection = client if client is not None else connect(url or "", **options)
        manifest = read_manifest(connection, collection)
        found = None if manifest is None else Settings.from_dict(manifest, where=f"the collection {collection!r}")
        if client is None:
            connection.close()
    place = path or url or "the given client"
    return ColPaliEmbeddings() if found is None else embedding_by(found.model.name, f"the store at {place}")


def embedding_by(name: str, where: str) -> ColPaliEmbeddings:
    """Embeddings by the model that a store says it was made by; that of a model from a folder is not enough."""
    try:
        return ColPaliEmbeddings(model_name=name)
    except ModelNotFoundError as error:
        raise ConfigurationError(
            f"{where} was made by the model {name!r}, which is not registered here; pass its embeddings, such as "
            "ColPaliEmbeddings(model_name=<folder of the model>)"
        ) from error
