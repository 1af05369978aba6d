"""The base of components with an encoder and a store: pickling, and copies that share the store."""

from __future__ import annotations

import os
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.llama_index._components import PathString, StrictComponent
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.place import with_secrets, without_secrets

__all__ = ["StoreComponent"]


class StoreComponent(StrictComponent):
    """A component with an encoder and an open store. Copies share the store; an unpickled copy opens it again."""

    embed_model: ColPaliEmbedding | None = Field(default=None, description="Encodes nodes and questions.")
    path: PathString | None = Field(default=None, description="The folder of the store.")

    _store: MultiVectorStore | None = PrivateAttr(default=None)

    def __init__(self, store: MultiVectorStore | str | os.PathLike[str] | None = None, **fields: Any) -> None:
        if sum(place is not None for place in (store, fields.get("path"), fields.get("url"))) > 1:
            raise ConfigurationError("a store is in one place: pass store=, path= or url=")
        if isinstance(store, (str, os.PathLike)):
            fields, store = {**fields, "path": store}, None
        super().__init__(**fields)
        self._store = store

    @property
    def _encoder(self) -> ColPaliEmbedding:
        if self.embed_model is None:
            raise ConfigurationError("embed_model was set to None")
        return self.embed_model

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        return self.model_copy()

    def __getstate__(self) -> dict[str, Any]:
        if self._store is not None and self.path is None and getattr(self, "url", None) is None:
            raise ConfigurationError(
                f"a {type(self).__name__} over a store in memory, or made with store=, cannot be pickled: "
                "store the pages in a folder and pass it as path="
            )
        fields = {name: value for name, value in self.__dict__.items() if name != "callback_manager"}
        without_secrets({"url": fields.get("url")})
        if "client_options" in fields:
            fields["client_options"] = without_secrets(fields["client_options"])
        return {"__dict__": fields}

    def __setstate__(self, state: dict[str, Any]) -> None:
        fields = dict(state["__dict__"])
        if "client_options" in fields:
            fields["client_options"] = with_secrets(fields["client_options"])
        self.__init__(**fields)  # type: ignore[misc]
