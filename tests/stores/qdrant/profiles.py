"""Strict mode for the stand-in of a server: what it refuses, in the words of a real one.

The messages of Qdrant 1.18.3 were recorded; a comment names those that were not.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from qdrant_client import models

from tests.stores.qdrant.refusals import Refusal

__all__ = ["CLOUD", "NARROW", "PROFILES", "StrictModes", "shown_path"]

CLOUD: Mapping[str, Any] = {
    "enabled": True,
    "unindexed_filtering_retrieve": False,
    "unindexed_filtering_update": False,
    "max_payload_index_count": 100,
}
"""The strict mode of new collections on Qdrant Cloud, by its documentation."""
NARROW: Mapping[str, Any] = {
    **CLOUD,
    "max_query_limit": 100,
    "upsert_max_batchsize": 10,
    "search_allow_exact": False,
    "read_rate_limit": 30,
    "write_rate_limit": 10,
}
"""The strict mode of a careful administrator."""

PROFILES = {"cloud": CLOUD, "narrow": NARROW}

_EVERY_KIND = "bool, datetime, float, geo, integer, keyword, text, text (with phrase_matching: true), uuid"


class Tokens:
    """The tokens of one collection for one kind of request, which come back evenly over a minute.

    Args:
        name: of the kind, in messages.
        clock: seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name, self.clock = name, clock
        self.limit = 0
        self.left, self.at = 0.0, clock()

    def take(self, cost: int, limit: int) -> None:
        """Take some, or refuse the request."""
        now = self.clock()
        if limit != self.limit:
            self.limit, self.left = limit, float(limit)
        self.left, self.at = min(limit, self.left + (now - self.at) * limit / 60), now
        exceeded = f"Rate limiting exceeded: {self.name} rate limit exceeded"
        if cost > limit:
            raise Refusal(
                f"{exceeded}, request larger than rate limiter capacity, please try to split your request", 429
            )
        if cost > self.left:
            wait = math.ceil(round((cost - self.left) * 60 / limit, 6))
            left = math.floor(self.left)
            raise Refusal(
                f"{exceeded}: Operation requires {cost} tokens but only {left:.1f} were available. Retry after {wait}s",
                429,
                wait,
            )
        self.left -= cost


class StrictModes:
    """What a server knows of the indexes of its collections, and of their strict modes.

    Args:
        profile: the strict mode of new collections; None without one.
        clock: seconds, for tokens.

    Attributes:
        indexes: by collection, the schemas of the fields with an index, by the path that is shown.
        graphs: by collection, the links of graphs that were changed.
    """

    def __init__(self, profile: Mapping[str, Any] | None, clock: Callable[[], float]) -> None:
        self.profile = dict(profile or {})
        self.indexes: dict[str, dict[str, Any]] = defaultdict(dict)
        self.graphs: dict[str, dict[str, int]] = defaultdict(dict)
        self._modes: dict[str, dict[str, Any]] = {}
        self._reads: dict[str, Tokens] = defaultdict(lambda: Tokens("Read", clock))
        self._writes: dict[str, Tokens] = defaultdict(lambda: Tokens("Write", clock))

    def made(self, name: str, config: models.StrictModeConfig | None) -> None:
        """Take a new collection."""
        mode = {**self.profile, **({} if config is None else config.model_dump(exclude_none=True))}
        if mode:
            self._modes[name] = mode

    def changed(self, name: str, asked: models.UpdateCollection) -> None:
        """Take a change of a collection."""
        if asked.strict_mode_config is not None:
            changed = asked.strict_mode_config.model_dump(exclude_none=True)
            self._modes[name] = {**self._modes.get(name, {}), **changed}
        for vector, change in (asked.vectors or {}).items():
            if change.hnsw_config is not None and change.hnsw_config.m is not None:
                self.graphs[name][vector] = change.hnsw_config.m

    def forget(self, name: str) -> None:
        """Take the removal of a collection."""
        for kept in (self.indexes, self.graphs, self._modes, self._reads, self._writes):
            kept.pop(name, None)

    def holds(self, name: str) -> bool:
        """Whether a collection is in strict mode."""
        return bool(self._modes.get(name, {}).get("enabled"))

    def kinds(self, name: str) -> dict[str, str]:
        """The kinds of a collection's indexes, by the paths that are shown."""
        return {path: _kind(schema) for path, schema in self.indexes[name].items()}

    def show(self, name: str, info: dict[str, Any]) -> None:
        """Put what is known into the info of a collection."""
        info["payload_schema"] = {
            path: {"data_type": _kind(schema), "points": 0, **_params(schema)}
            for path, schema in self.indexes[name].items()
        }
        info["config"]["strict_mode_config"] = self._modes.get(name)
        for vector, links in self.graphs[name].items():
            info["config"]["params"]["vectors"][vector]["hnsw_config"] = {"m": links}

    def check(self, name: str, method: str, path: str, body: bytes, vectors: Any) -> None:
        """Refuse a request that the strict mode forbids, or for which there are no tokens."""
        mode = self._modes[name]
        links = {vector: None if one.hnsw_config is None else one.hnsw_config.m for vector, one in vectors.items()}
        without = {vector for vector, number in {**links, **self.graphs[name]}.items() if number == 0}
        reads, writes = _check(path, method, body, mode, self.kinds(name), without)
        for cost, tokens, limit in (
            (reads, self._reads[name], mode.get("read_rate_limit")),
            (writes, self._writes[name], mode.get("write_rate_limit")),
        ):
            if cost and limit is not None:
                tokens.take(cost, limit)


def shown_path(key: str) -> str:
    """A path as the server shows it: with quotes only where they are needed."""
    return re.sub(r'"([\w-]+)"', r"\1", key)


def _check(
    path: str, method: str, body: bytes, strict: Mapping[str, Any], indexes: Mapping[str, str], without: set[str]
) -> tuple[int, int]:
    """Refuse a request that strict mode forbids.

    Args:
        path: below the collection, such as "points/scroll".
        method: of HTTP.
        body: JSON.
        strict: the collection's strict mode.
        indexes: kinds by shown path.
        without: names of the vectors without a graph.

    Returns:
        The tokens for reading and for writing that it costs.
    """
    asked = json.loads(body) if body else {}
    if path == "index" and method == "PUT":
        most = strict.get("max_payload_index_count")
        if most is not None and len(indexes) >= most:
            raise Refusal(
                f"Bad request: Collection already has the maximum number of payload indices ({most}). Help: Please "
                "delete an existing index before creating a new one."
            )
        return 0, 1
    if path == "points" and method == "PUT":
        points = len(asked["points"])
        _check_number(points, strict.get("upsert_max_batchsize"), "upsert limit")
        return 0, points
    if path == "points/delete":
        given = asked.get("filter")
        where = None if given is None else models.Filter.model_validate(given)
        _check_filter(where, strict, indexes, "unindexed_filtering_update")
        return 0, len(asked.get("points", ()))
    if path == "points/batch":
        for operation in models.UpdateOperations.model_validate(asked).operations:
            for part in vars(operation).values():
                _check_filter(getattr(part, "filter", None), strict, indexes, "unindexed_filtering_update")
        return 0, len(asked["operations"])
    if path == "points":
        return len(asked["ids"]), 0
    if path in ("points/scroll", "points/count", "facet"):
        _check_number(asked.get("limit"), strict.get("max_query_limit"), "limit")
        given = asked.get("filter")
        where = None if given is None else models.Filter.model_validate(given)
        _check_filter(where, strict, indexes)
        # Not recorded: exact facets.
        if (path == "points/count" and asked.get("exact", True)) or (path == "facet" and asked.get("exact")):
            _check_exact({"exact": True}, strict)
        return int(path != "facet"), 0  # a facet was answered when no token was left
    if path == "points/query":
        return _search(models.QueryRequest.model_validate(asked), strict, indexes, without), 0
    if path == "points/query/batch":
        searches = models.QueryRequestBatch.model_validate(asked).searches
        # Not recorded: the words about the number of searches.
        _check_number(len(searches), strict.get("search_max_batchsize"), "search batch size")
        return sum(_search(search, strict, indexes, without) for search in searches), 0
    return 0, 0


def _search(search: Any, strict: Mapping[str, Any], indexes: Mapping[str, str], without: set[str]) -> int:
    """The tokens of a search, if it is permitted: two were recorded, with and without a prefetch."""
    prefetches = search.prefetch if isinstance(search.prefetch, list) else [search.prefetch] if search.prefetch else []
    if strict.get("search_allow_exact") is False and not prefetches and search.using in without:
        raise _without_graph(search.using)
    for one in [search, *prefetches]:
        _check_number(one.limit, strict.get("max_query_limit"), "limit")
        _check_filter(one.filter, strict, indexes)
        _check_exact({} if one.params is None else one.params.model_dump(), strict)
    for prefetch in prefetches if strict.get("search_allow_exact") is False else ():
        if prefetch.using in without:
            raise _without_graph(prefetch.using)
    return 2


def _without_graph(name: str) -> Refusal:
    return Refusal(
        f"Bad request: Request is forbidden on '{name}' because global vector indexing is disabled (hnsw_config.m = "
        "0). Help: Use tenant-specific filter, enable global vector indexing or enable strict mode "
        "`search_allow_exact` option"
    )


def _check_exact(params: Mapping[str, Any], strict: Mapping[str, Any]) -> None:
    if params.get("exact") and strict.get("search_allow_exact") is False:
        raise Refusal("Bad request: Exact search disabled!. Help: Set exact=false.")


def _check_number(number: int | None, most: int | None, name: str) -> None:
    if number is not None and most is not None and number > most:
        raise Refusal(
            f'Bad request: Limit exceeded {number} > {most} for "{name}". Help: Reduce the "{name}" parameter to or '
            f"below {most}."
        )


def _check_filter(
    where: Any, strict: Mapping[str, Any], indexes: Mapping[str, str], setting: str = "unindexed_filtering_retrieve"
) -> None:
    for condition in [] if where is None else _conditions(where):
        # Not recorded: the words about the number of values.
        _check_number(_values(condition), strict.get("condition_max_size"), "condition size")
        if strict.get(setting) is not False:
            continue
        if isinstance(condition, models.IsEmptyCondition):
            key, kinds = condition.is_empty.key, _EVERY_KIND
        elif isinstance(condition, models.FieldCondition):
            key, kinds = condition.key, _kinds_for(condition)
        else:
            continue
        if indexes.get(shown_path(key)) not in kinds.split(", "):
            raise Refusal(
                f'Bad request: Index required but not found for "{shown_path(key)}" of one of the following types: '
                f"[{kinds}]. Help: Create an index for this key or use a different filter."
            )


def _conditions(where: models.Filter) -> Iterator[Any]:
    for parts in (where.must, where.should, where.must_not):
        for one in parts if isinstance(parts, list) else [] if parts is None else [parts]:
            if isinstance(one, models.Filter):
                yield from _conditions(one)
            else:
                yield one


def _values(condition: Any) -> int:
    if isinstance(condition, models.HasIdCondition):
        return len(condition.has_id)
    match = getattr(condition, "match", None)
    return len(match.any) if isinstance(match, models.MatchAny) else 1


def _kinds_for(condition: models.FieldCondition) -> str:
    match = condition.match
    if match is None:
        return "datetime" if isinstance(condition.range, models.DatetimeRange) else "float, integer"
    if isinstance(match, models.MatchAny):
        return "keyword"
    if isinstance(match, models.MatchValue):
        kind = type(match.value)
        return {bool: "bool", int: "integer", str: "keyword"}[kind]
    return "text"  # not recorded: substrings, which servers of 1.20 have


def _kind(schema: Any) -> str:
    """The kind of an index: it is made by its name, or by parameters with a type."""
    kind = getattr(schema, "type", schema)
    return str(getattr(kind, "value", kind))


def _params(schema: Any) -> dict[str, Any]:
    return {} if not hasattr(schema, "type") else {"params": schema.model_dump(mode="json", exclude_none=True)}
