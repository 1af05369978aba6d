"""Collections on a Qdrant server: connecting, creating, and reading their manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from colpali_integrations._options import checked_timeout, shown
from colpali_integrations.errors import ConfigurationError, MissingExtraError, StoreError
from colpali_integrations.stores.engine import FIRST, FULL, WORDS, VectorSpec
from colpali_integrations.stores.qdrant.errors import TriedError, reaching
from colpali_integrations.stores.qdrant.graph import graph_links
from colpali_integrations.stores.qdrant.lifting import stored_dim
from colpali_integrations.stores.qdrant.place import check_name, is_local, place_of, shown_place
from colpali_integrations.stores.qdrant.retries import Patience, RetrySeconds, retrying
from colpali_integrations.stores.qdrant.suggestion import not_ours

try:
    from qdrant_client import AsyncQdrantClient, QdrantClient, models
except ModuleNotFoundError as error:
    raise MissingExtraError("qdrant-client", "qdrant", "a store on a Qdrant server") from error

__all__ = [
    "QdrantClient",
    "check_client",
    "connect",
    "describe",
    "is_local",
    "is_ours",
    "models",
    "open_collection",
    "read_manifest",
    "server_version",
    "vector_sizes",
    "write_manifest",
]

_MANIFEST = "colpali_integrations"
_TIMEOUT = 60
_RECONNECTING = {"grpc.initial_reconnect_backoff_ms": 200, "grpc.max_reconnect_backoff_ms": 1000}
_QUANTIZATION: dict[str, models.QuantizationConfig] = {
    "int8": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    ),
    "int4": models.TurboQuantization(
        turbo=models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS4, always_ram=True)
    ),
    "int2": models.TurboQuantization(
        turbo=models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS2, always_ram=True)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
}
# Datatypes of a server that hold integers after a rotation, by their bits, and the version that has them first.
_CODES: dict[int, tuple[str, tuple[int, int]]] = {
    8: (models.Datatype.TURBO8.value, (1, 20)),
    4: (models.Datatype.TURBO4.value, (1, 19)),
}


def connect(
    url: str | Sequence[str], *, api_key: str | None = None, retry_seconds: RetrySeconds | None = None, **options: Any
) -> QdrantClient:
    """Make a client of a server or cluster, without a request.

    Args:
        url: such as "http://localhost:6333"; several for the nodes of a cluster, of which the next one is asked while
            one is gone; or ":memory:" for qdrant-client's own imitation, for tests.
        api_key: secret; errors do not contain it.
        retry_seconds: for how long calls are tried again while the server is away; see `retries.Patience`.
        options: of `qdrant_client.QdrantClient`, such as `prefer_grpc=True` (vectors travel in a quarter of the bytes,
            if the server's port 6334 is open) or `timeout` (60 s by default; the client's own default of 5 s is
            short for a batch of pages).

    Raises:
        ConfigurationError: a URL or an option is invalid.
    """
    if url == ":memory:":
        return QdrantClient(":memory:", **options)
    urls: list[Any] = list(url) if isinstance(url, list | tuple) else [url]
    if not urls:
        raise ConfigurationError(
            "an empty list of URLs names no server; pass that of one, or those of a cluster's nodes"
        )
    if wrong := [one for one in urls if not isinstance(one, str) or not one.strip()]:
        raise ConfigurationError(
            f"url must be a text such as 'http://localhost:6333', or a list of those of a cluster's nodes, got "
            f"{shown(wrong[0])}"
        )
    if (timeout := options.get("timeout")) is not None:
        checked_timeout(timeout, "timeout")
    Patience.of(retry_seconds)
    if options.get("prefer_grpc"):
        # A channel by itself waits for up to two minutes before it connects again.
        options["grpc_options"] = {**_RECONNECTING, **(options.get("grpc_options") or {})}
    return retrying([_client(one, api_key, options) for one in urls], retry_seconds)


def _client(url: str, api_key: str | None, options: Mapping[str, Any]) -> QdrantClient:
    try:
        return QdrantClient(url=url, api_key=api_key, **{"timeout": _TIMEOUT, "check_compatibility": False, **options})
    except Exception as error:  # of anything that an option is passed on to: httpx, ssl, gRPC, the system
        raise ConfigurationError(f"no Qdrant client can be made for {shown_place(url)}: {error}") from error


def check_client(client: object) -> None:
    """Refuse what is no `QdrantClient`, such as an `AsyncQdrantClient`.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(client, AsyncQdrantClient) or not hasattr(client, "init_options"):
        raise ConfigurationError(
            f"client must be a QdrantClient, got {type(client).__name__}; pass url=, or client=QdrantClient(url=...)"
        )


def describe(client: QdrantClient, collection: str) -> str:
    """The collection and its server, for messages, without the secrets of a URL."""
    return f"the Qdrant collection {collection!r} at {place_of(client)}"


def server_version(client: QdrantClient) -> tuple[int, int]:
    """Major and minor version of the server; (0, 0) if it is unknown."""
    try:
        major, minor, *_ = client.info().version.split(".")
        return int(major), int(minor)
    except Exception:  # the next request raises a better error
        return 0, 0


def is_ours(info: models.CollectionInfo) -> bool:
    """Whether this package has made an existing collection."""
    return _MANIFEST in (info.config.metadata or {})


def read_manifest(client: QdrantClient, collection: str) -> dict[str, Any] | None:
    """Read the manifest that was stored when the collection was created; None if there is no such collection.

    Raises:
        StoreError: the server cannot be reached, or the collection was not created by this package.
        ConfigurationError: no collection can have the name.
    """
    check_name(collection)
    where = describe(client, collection)
    with reaching(where):
        if not client.collection_exists(collection):
            return None
        manifest = (client.get_collection(collection).config.metadata or {}).get(_MANIFEST)
        if not isinstance(manifest, dict):
            raise not_ours(client, collection, where)
    return manifest


def write_manifest(client: QdrantClient, collection: str, manifest: Mapping[str, Any]) -> None:
    """Replace the manifest of an existing collection.

    Raises:
        StoreError: the server cannot be reached, or refuses.
    """
    with reaching(describe(client, collection)):
        client.update_collection(collection, metadata={_MANIFEST: dict(manifest)})


def open_collection(
    client: QdrantClient,
    collection: str,
    *,
    schema: Mapping[str, VectorSpec],
    manifest: Mapping[str, Any],
    options: Mapping[str, Any],
    graph: bool | None = None,
) -> tuple[dict[str, Any], models.CollectionInfo]:
    """Create the collection if there is none, and return its manifest and its info.

    Args:
        client: of the server.
        collection: its name.
        schema: the points' vectors.
        manifest: stored if the collection is created now.
        options: of `QdrantClient.create_collection`, such as `shard_number` and `replication_factor`.
        graph: whether the first stage of a new collection has a graph.

    Raises:
        StoreError: the server refuses, is older than 1.16, or the collection has other vectors.
        ConfigurationError: a first stage or a datatype that the server does not have.
    """
    where = describe(client, collection)
    if others := [spec.quantization for spec in schema.values() if spec.quantization not in (None, *_QUANTIZATION)]:
        raise ConfigurationError(
            f"{where} has no first stage {others[0]!r}, which is for folders (path=); use first_stage='int8' here"
        )
    if bits := [spec.code.bits for spec in schema.values() if spec.code is not None and spec.code.bits not in _CODES]:
        raise ConfigurationError(
            f"{where} cannot keep vectors of {bits[0]} bits per number: a server has the datatypes float16, int8 and "
            "int4. int2 and binary are for a store in a folder (path=) or in memory"
        )
    stored = read_manifest(client, collection)
    if stored is None:
        stored = _create(client, collection, schema, manifest, options, graph, where)
    with reaching(where):
        info = client.get_collection(collection)
    sizes = vector_sizes(info)
    expected = {name: stored_dim(spec) for name, spec in schema.items()}
    if sizes not in (expected, {name: spec.dim for name, spec in schema.items()}):
        raise StoreError(f"{where} has vectors of the lengths {sizes}, expected {expected}: choose another collection")
    return stored, info


def vector_sizes(info: models.CollectionInfo) -> dict[str, int]:
    """The numbers per vector of a collection, by name; none for a collection of one unnamed vector."""
    vectors = info.config.params.vectors
    return {name: params.size for name, params in vectors.items()} if isinstance(vectors, dict) else {}


def _create(
    client: QdrantClient,
    collection: str,
    schema: Mapping[str, VectorSpec],
    manifest: Mapping[str, Any],
    options: Mapping[str, Any],
    graph: bool | None,
    where: str,
) -> dict[str, Any]:
    check_name(collection, new=True)
    _require_datatypes(client, schema, where)
    with reaching(where):
        try:
            client.create_collection(
                collection,
                vectors_config={name: _vector_params(name, spec, graph) for name, spec in schema.items()},
                sparse_vectors_config={WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                metadata={_MANIFEST: dict(manifest)},
                **options,
            )
        except TriedError:
            raise
        except Exception:
            # Another process may have created it since the check; then its manifest counts.
            if (stored := read_manifest(client, collection)) is None:
                raise
            return stored
        if not (client.get_collection(collection).config.metadata or {}).get(_MANIFEST):
            client.delete_collection(collection)
            version = ".".join(map(str, server_version(client)))
            raise StoreError(
                f"{where}: the server (version {version}) does not store metadata of collections; 1.16 and later do"
            )
    return dict(manifest)


def _require_datatypes(client: QdrantClient, schema: Mapping[str, VectorSpec], where: str) -> None:
    """Check that the server is of a version that has the datatypes and the quantisation of the vectors."""
    needed = [_CODES[spec.code.bits] for spec in schema.values() if spec.code is not None]
    needed += [("TurboQuant", (1, 18)) for spec in schema.values() if spec.quantization in ("int4", "int2")]
    if not needed or is_local(client):
        return
    version = server_version(client)
    for name, since in needed:
        if (0, 0) < version < since:
            raise ConfigurationError(
                f"{where}: Qdrant {_dotted(version)} does not have {name!r}, which {_dotted(since)} and later have. "
                "Update the server, or take datatype='float16' and first_stage='int8'"
            )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _vector_params(name: str, spec: VectorSpec, graph: bool | None) -> models.VectorParams:
    single: dict[str, Any] = {} if spec.multi else {"datatype": models.Datatype.FLOAT32}
    multi: dict[str, Any] = {
        "datatype": models.Datatype.FLOAT16 if spec.code is None else models.Datatype(_CODES[spec.code.bits][0]),
        "multivector_config": models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    }
    return models.VectorParams(
        size=stored_dim(spec),
        distance=models.Distance.DOT,
        on_disk=name == FULL,
        # All vectors of the pages are scanned, or score candidates: no search would use their graph.
        hnsw_config=graph_links(graph and name == FIRST),
        quantization_config=None if spec.quantization is None else _QUANTIZATION[spec.quantization],
        **(multi if spec.multi else single),
    )
