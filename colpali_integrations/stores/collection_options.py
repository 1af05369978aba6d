"""Options of a collection on a Qdrant server, and the check of their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from colpali_integrations._options import checked_whole, shown
from colpali_integrations.errors import ConfigurationError

__all__ = ["CheckedOptions", "CollectionOptions", "ReadConsistency", "checked_options"]

ReadConsistency: TypeAlias = int | Literal["majority", "quorum", "all"]
"""How many replicas must agree on what is read."""


class CollectionOptions(TypedDict, total=False):
    """`collection_options` of a store on a Qdrant server or cluster.

    All but the last two are fixed when the collection is made, and ignored for one that is there. The other arguments
    of `QdrantClient.create_collection`, such as `on_disk_payload` or `optimizers_config`, are passed on.

    Attributes:
        shard_number: of parts that the pages are spread over, for more nodes to share: a small multiple of the number
            of nodes, which leaves room for more nodes. By default one per node.
        replication_factor: of copies of each shard, on nodes of their own: with 2, searches and writes go on while one
            node is gone. 1 by default.
        write_consistency_factor: of copies that confirm a write before it counts as stored. 1 by default: with 2 of 2,
            nothing is stored while a node is gone.
        read_consistency: of copies that must agree: a number, "majority", "quorum" or "all". By default one copy
            answers, which may briefly miss what another one has stored.
        graph: whether the first stage is searched by a graph (HNSW) instead of scanned. By default that of "muvera" is,
            above 50,000 pages. True makes a graph for any, and uses it in every two-stage search; False makes and uses
            none. An existing collection is changed accordingly.

    Example:
        >>> options: CollectionOptions = {"shard_number": 6, "replication_factor": 2}
        >>> checked_options(options).creation
        {'shard_number': 6, 'replication_factor': 2}
    """

    shard_number: int
    replication_factor: int
    write_consistency_factor: int
    read_consistency: ReadConsistency
    graph: bool


@dataclass(frozen=True)
class CheckedOptions:
    """Collection options by their use.

    Attributes:
        creation: arguments of `QdrantClient.create_collection`.
        reading: arguments of the client's methods that read: the consistency.
        graph: whether the first stage has a graph; None to decide by its kind and size.
    """

    creation: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)
    graph: bool | None = None

    @property
    def of_object(self) -> dict[str, Any]:
        """Those that hold for a store object and not for the collection, for another process that opens it."""
        options = {"read_consistency": self.reading.get("consistency"), "graph": self.graph}
        return {name: value for name, value in options.items() if value is not None}


def checked_options(options: Mapping[str, Any] | None) -> CheckedOptions:
    """Check collection options.

    Args:
        options: `CollectionOptions`, and other arguments of `QdrantClient.create_collection`.

    Raises:
        ConfigurationError: an option is unknown or has an invalid value.

    Example:
        >>> checked_options({"read_consistency": "majority", "graph": True}).of_object
        {'read_consistency': 'majority', 'graph': True}
    """
    if options is not None and not isinstance(options, Mapping):
        raise ConfigurationError(
            f"collection_options must be a dict such as {{'shard_number': 6}}, got {shown(options)}"
        )
    creation = dict(options or {})
    for name in _NUMBERS:
        if name in creation:
            creation[name] = checked_whole(creation[name], name)
    copies, confirmed = creation.get("replication_factor"), creation.get("write_consistency_factor")
    if copies is not None and confirmed is not None and confirmed > copies:
        raise ConfigurationError(
            f"write_consistency_factor must be at most the replication_factor, {copies}, got {confirmed}: no write "
            "would ever be confirmed"
        )
    graph = creation.pop("graph", None)
    if graph not in (None, True, False):
        raise ConfigurationError(f"graph must be True or False, got {shown(graph)}")
    reading = {}
    if (consistency := creation.pop("read_consistency", None)) is not None:
        reading["consistency"] = _checked_consistency(consistency)
    for name in creation:
        if name not in (*_NUMBERS, *_PASSED_ON):
            close = get_close_matches(str(name), [*CollectionOptions.__annotations__, *_PASSED_ON], 1)
            hint = f"did you mean {close[0]!r}?" if close else "they are those of CollectionOptions"
            raise ConfigurationError(f"collection_options has no {shown(name)}; {hint}")
    return CheckedOptions(creation, reading, None if graph is None else bool(graph))


def _checked_consistency(value: object) -> ReadConsistency:
    names = get_args(Literal["majority", "quorum", "all"])
    if isinstance(value, str):
        if value not in names:
            raise ConfigurationError(
                f"read_consistency must be a number of replicas or one of {', '.join(map(repr, names))}, got {value!r}"
            )
        return value  # type: ignore[return-value]  # one of the names
    return checked_whole(value, "read_consistency")


_NUMBERS = ("shard_number", "replication_factor", "write_consistency_factor")
# Other arguments of `QdrantClient.create_collection`; the vectors and the metadata are the store's own.
_PASSED_ON = (
    *("sharding_method", "on_disk_payload", "hnsw_config", "optimizers_config", "wal_config", "quantization_config"),
    *("payload", "id_tracker", "timeout", "strict_mode_config"),
)
