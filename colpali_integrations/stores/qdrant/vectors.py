"""The vectors of a collection that another program has made: what they are, and whether a layout fits them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from colpali_integrations.errors import ConfigurationError, FingerprintError, StoreError
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.qdrant import answers
from colpali_integrations.stores.qdrant.errors import MADE_ELSEWHERE, reaching
from colpali_integrations.stores.settings import StoredModel

__all__ = ["check_muvera", "check_vectors", "collection_facts", "described", "vector_params"]

# The cosine of encodings: .98 and more where the server has made ColTiny's lengths 1, .0 with another seed.
_SAME = 0.5
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
                f"{where} has no vector {_named(name)}, which the layout has as {role}; it has {described(params)}. "
                f"Name one of these as {role}"
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
            _check_size(one, name, layout, model, where)
            continue
        raise FingerprintError(
            f"{where}: the vectors {_named(name)} have {one.size} numbers, and those of the model {model.name!r} have "
            f"{model.dim}; pass the model that made the collection"
        )
    return params[layout.full].distance == models.Distance.COSINE


def _check_size(one: models.VectorParams, name: str, layout: Layout, model: StoredModel, where: str) -> None:
    """Check that a vector of another length than the model's is one that the layout's transform makes."""
    known, encoder = f"{where}: {_named(name)} has {one.size} numbers", layout.encoder(model.dim)
    if encoder is not None and one.multivector_config is None:
        if one.size == encoder.size:
            return
        raise ConfigurationError(
            f"{known}, and muvera={dict(layout.muvera or {})} makes {encoder.size} (r_reps x 2^k_sim x dim_proj); pass "
            "the arguments of the Muvera that made them"
        )
    of_fastembed = (
        ""
        if one.multivector_config is not None
        else "If fastembed's Muvera made them, pass its arguments in the layout, muvera={'k_sim': 5, 'dim_proj': 16, "
        "'r_reps': 20, 'random_seed': 42} by default; otherwise l"
    )
    raise ConfigurationError(
        f"{known}, and the vectors of {model.name!r} have {model.dim}; how such vectors are made of a question is not "
        f"known here. {of_fastembed or 'L'}eave it out of the layout's first"
    )


def check_muvera(
    client: QdrantClient, collection: str, layout: Layout, params: Mapping[str, models.VectorParams], where: str
) -> None:
    """Check the arguments of a layout's `muvera` by a page: other ones, such as another seed, find no candidates.

    Args:
        client: of the server.
        collection: its name.
        layout: of the collection, which `check_vectors` has accepted.
        params: of its vectors.
        where: the collection, for the message.

    Raises:
        StoreError: the server cannot be reached.
        ConfigurationError: the stored vectors of the page are others than those that are made of its vectors.
    """
    encoder = layout.encoder(params[layout.full].size)
    names = [name for name in layout.first if encoder is not None and params[name].size == encoder.size]
    if encoder is None or not names:
        return
    wanted = [*names, layout.full] if layout.full else True
    with reaching(where, missing=MADE_ELSEWHERE):
        records, _ = client.scroll(collection, limit=1, with_payload=False, with_vectors=wanted)
    for name in names:
        vectors: Any = records[0].vector if records else None
        if not isinstance(vectors, dict) or name not in vectors or layout.full not in vectors:
            continue
        with answers.reading(where):
            made = encoder.document(np.asarray(vectors[layout.full], np.float32))
            stored = np.asarray(vectors[name], np.float32)
            similarity = float(made @ stored / (np.linalg.norm(made) * np.linalg.norm(stored) or 1.0))
        if similarity < _SAME:
            raise ConfigurationError(
                f"{where}: the vectors {_named(name)} are not those that muvera={dict(layout.muvera or {})} makes of "
                f"{_named(layout.full)} (cosine {similarity:.2f} for the first page); pass the k_sim, dim_proj, r_reps "
                "and random_seed of the Muvera that made them"
            )


def collection_facts(params: Mapping[str, models.VectorParams], layout: Layout) -> dict[str, Any]:
    """The distance, datatype and quantised copies of the vectors that a layout has as `full`; JSON-safe."""
    one = params[layout.full]
    quantized = None if one.quantization_config is None else next(iter(one.quantization_config.model_dump()))
    datatype = "float32" if one.datatype is None else one.datatype.value
    return {"distance": one.distance.value.lower(), "datatype": datatype, "quantization": quantized}
