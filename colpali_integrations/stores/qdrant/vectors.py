"""The vectors of a collection that another program has made: what they are, and whether a layout fits them."""

from __future__ import annotations

from collections.abc import Mapping

from qdrant_client import models

from colpali_integrations.errors import ConfigurationError, FingerprintError, StoreError
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.settings import StoredModel

__all__ = ["check_vectors", "described", "vector_params"]

_DISTANCES = {models.Distance.DOT: "dot product", models.Distance.COSINE: "cosine"}


def vector_params(info: models.CollectionInfo) -> dict[str, models.VectorParams]:
    """The parameters of each dense vector of a collection by its name; "" is that of the vector without a name."""
    vectors = info.config.params.vectors
    named = vectors if isinstance(vectors, dict) else {} if vectors is None else {"": vectors}
    return dict(sorted(named.items()))  # over gRPC they come in any order


def described(params: Mapping[str, models.VectorParams]) -> str:
    """The vectors in words.

    >>> described({"colpali": models.VectorParams(size=128, distance=models.Distance.COSINE)})
    "'colpali' (one vector per page, 128 numbers, cosine)"
    """
    return ", ".join(f"{_named(name)} ({_kind(one)})" for name, one in params.items()) or "none"


def _named(name: str) -> str:
    return repr(name) if name else "'' (without a name)"


def _kind(params: models.VectorParams) -> str:
    kind = "one vector per page" if params.multivector_config is None else "several vectors per page"
    distance = _DISTANCES.get(params.distance, params.distance.value)
    return f"{kind}, {params.size} numbers, {distance}"


def check_vectors(params: Mapping[str, models.VectorParams], layout: Layout, model: StoredModel, where: str) -> bool:
    """Check that a collection has the vectors of a layout, and that they can be those of a model.

    Args:
        params: of the collection, see `vector_params`.
        layout: that names them.
        model: of the caller.
        where: the collection, for messages.

    Returns:
        Whether the collection compares by cosine, which gives every vector length 1.

    Raises:
        StoreError: a vector is missing, there is one vector per page for `full`, or it is compared by another distance.
        FingerprintError: the vectors are of another length than the model's.
        ConfigurationError: so are those of a first stage.
    """
    for role, name in (("full", layout.full), *(("first", name) for name in layout.first)):
        if (one := params.get(name)) is None:
            raise StoreError(
                f"{where} has no vector {_named(name)}, which the layout has as {role}; it has {described(params)}"
            )
        if one.distance not in _DISTANCES:
            raise StoreError(
                f"{where} compares {_named(name)} by {one.distance.value}, and late interaction needs the dot product "
                "or cosine; embed the pages anew into another collection"
            )
        if role == "full" and one.multivector_config is None:
            raise StoreError(
                f"{where}: {_named(name)} is one vector per page, and late interaction compares several; name another "
                f"one as full. The collection has {described(params)}"
            )
        if one.size == model.dim:
            continue
        if role == "first":
            raise ConfigurationError(
                f"{where}: {_named(name)} has {one.size} numbers, and the vectors of {model.name!r} have {model.dim}; "
                "how such vectors are made of a question is not known here. Leave it out of the layout's first"
            )
        raise FingerprintError(
            f"{where}: the vectors {_named(name)} have {one.size} numbers, and those of the model {model.name!r} have "
            f"{model.dim}; pass the model that made the collection"
        )
    return params[layout.full].distance == models.Distance.COSINE
