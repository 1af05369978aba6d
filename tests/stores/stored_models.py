"""Records of models that do not exist."""

from __future__ import annotations

from typing import Any

from colpali_integrations.models.fingerprint import Fingerprint, PageSettings
from colpali_integrations.stores import StoredModel

__all__ = ["made_up", "made_up_fingerprint"]


def made_up_fingerprint(identity: str, **pages: Any) -> Fingerprint:
    """The fingerprint of a model with a space of its own."""
    return Fingerprint(identity, PageSettings(weights=identity, **pages))


def made_up(name: str, *, dim: int = 128, identity: str = "0123456789abcdef", **fields: Any) -> StoredModel:
    """The record of a model by its identity; other fields are those of `StoredModel`."""
    return StoredModel(name=name, dim=dim, fingerprint=made_up_fingerprint(identity), **{"family": "coltiny", **fields})
