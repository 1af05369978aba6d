"""The server's side of a store on a server: the calls of other machines on its engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from colpali_integrations._options import checked_whole, shown
from colpali_integrations.errors import InputError
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.engine import FULL, Engine, Search
from colpali_integrations.stores.limits import MAX_VECTORS
from colpali_integrations.stores.served.wire import (
    MOST_RECORDS,
    MOST_SEARCHES,
    checked_payload,
    packed,
    packed_scored,
    read_filter,
    read_point,
    read_search,
    reading,
    strings_of,
)
from colpali_integrations.stores.settings import Settings

if TYPE_CHECKING:
    from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["CALLS", "WRITES", "answered"]

Arguments: TypeAlias = Mapping[str, Any]
Work: TypeAlias = Callable[[Engine], Any]

_MOST_ARRAYS = 64  # those of a page may have some MB
_INT64 = 2**63


def answered(store: MultiVectorStore, call: str, arguments: Arguments) -> Any:
    """Make a call of another machine on the engine of a store.

    Args:
        store: of the server.
        call: a key of `CALLS`.
        arguments: of the call, as JSON.

    Returns:
        The result, JSON-safe.

    Raises:
        InputError: the arguments are not those of the call.
        StoreError: as the call.
    """
    work = reading(lambda: CALLS[call](arguments, store.settings), f"the call {call}")
    return work(store._engine)


def _manifest(arguments: Arguments, settings: Settings) -> Work:
    def work(engine: Engine) -> Any:
        # Read anew: another process may have changed it.
        stored = engine.change_manifest(lambda manifest: manifest)
        return {
            "manifest": dict(stored),
            "max_numbers": engine.max_numbers,
            "has_own_codes": engine.has_own_codes,
            "refuses_exact": engine.refuses_exact,
            "refuses_changes": engine.refuses_changes,
            "indexes": dict(engine.indexes),
            "facts": dict(engine.facts),
        }

    return work


def _change_manifest(arguments: Arguments, settings: Settings) -> Work:
    expected, new = dict(arguments["expected"]), dict(arguments["manifest"])
    after = Settings.from_dict(new, where="the new manifest")

    def changed(stored: Mapping[str, Any]) -> Mapping[str, Any]:
        if dict(stored) != expected:
            return stored  # another process was faster, and the caller begins again
        before = Settings.from_dict(stored, where="the store")
        if _without_fingerprint(new) != _without_fingerprint(stored) or before.model.joined(after.model) != after.model:
            raise InputError("a manifest may learn revisions of the model's weights, and nothing else of it may change")
        return new

    return lambda engine: {"manifest": dict(engine.change_manifest(changed))}


def _without_fingerprint(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {**manifest, "model": {**manifest["model"], "fingerprint": None}}


def _upsert(arguments: Arguments, settings: Settings) -> Work:
    schema = settings.schema
    points = [read_point(point, schema) for point in _several(arguments["points"], "points")]
    return lambda engine: engine.upsert(points)


def _update(arguments: Arguments, settings: Settings) -> Work:
    given = _several(arguments["payloads"], "payloads")
    payloads = {id_: checked_payload(payload, id_) for id_, payload in given.items()}
    return lambda engine: engine.update(payloads)


def _delete(arguments: Arguments, settings: Settings) -> Work:
    ids = _ids(arguments)
    return lambda engine: engine.delete(ids)


def _retrieve(arguments: Arguments, settings: Settings) -> Work:
    ids = _ids(arguments)
    return lambda engine: engine.retrieve(ids)


def _vectors(arguments: Arguments, settings: Settings) -> Work:
    ids, name = _ids(arguments, _MOST_ARRAYS), arguments.get("name", FULL)
    if name not in settings.schema:
        raise InputError(f"name must be one of {', '.join(settings.schema)}, got {shown(name)}")
    return lambda engine: [None if array is None else packed(array) for array in engine.vectors(ids, name)]


def _scroll(arguments: Arguments, settings: Settings) -> Work:
    where, fields = read_filter(arguments.get("where")), arguments.get("fields")
    fields = None if fields is None else strings_of(fields, "fields")
    limit, after = min(checked_whole(arguments["limit"], "limit"), MOST_RECORDS), arguments.get("after")
    is_number = isinstance(after, int) and not isinstance(after, bool) and abs(after) < _INT64
    if after is not None and not isinstance(after, str) and not is_number:
        raise InputError(f"after must be that of the last batch, got {shown(after)}")

    def work(engine: Engine) -> Any:
        payloads, following = engine.scroll(where, limit=limit, after=after, fields=fields)
        return {"payloads": payloads, "after": following}

    return work


def _count(arguments: Arguments, settings: Settings) -> Work:
    where = read_filter(arguments.get("where"))
    return lambda engine: engine.count(where)


def _documents(arguments: Arguments, settings: Settings) -> Work:
    where = read_filter(arguments.get("where"))
    return lambda engine: engine.documents(where)


def _has_words(arguments: Arguments, settings: Settings) -> Work:
    return lambda engine: engine.has_words()


def _search(arguments: Arguments, settings: Settings) -> Work:
    schema = settings.schema
    searches = [read_search(search, schema) for search in _several(arguments["searches"], "searches", MOST_SEARCHES)]
    vectors = sum(map(_vectors_of, searches))
    if vectors > MAX_VECTORS:
        raise InputError(f"the queries of a call must have at most {MAX_VECTORS} vectors together, got {vectors}")
    return lambda engine: [[packed_scored(one) for one in results] for results in engine.search(searches)]


def _optimize(arguments: Arguments, settings: Settings) -> Work:
    return lambda engine: engine.optimize()


def _vectors_of(search: Search) -> int:
    return 1 if isinstance(search.query, SparseVector) or search.query.ndim == 1 else len(search.query)


def _ids(arguments: Arguments, most: int = MOST_RECORDS) -> list[str]:
    return strings_of(_several(arguments["ids"], "ids", most), "ids")


def _several(given: Any, name: str, most: int = MOST_RECORDS) -> Any:
    """A list or an object of one call, before anything in it is read.

    Raises:
        InputError: it has more items than one call may have.
    """
    if len(given) > most:
        raise InputError(f"{name} must be at most {most}, got {len(given)}; send the others in another call")
    return given


CALLS: Mapping[str, Callable[[Arguments, Settings], Work]] = {
    "manifest": _manifest,
    "change_manifest": _change_manifest,
    "upsert": _upsert,
    "update": _update,
    "delete": _delete,
    "retrieve": _retrieve,
    "vectors": _vectors,
    "scroll": _scroll,
    "count": _count,
    "documents": _documents,
    "has_words": _has_words,
    "search": _search,
    "optimize": _optimize,
}
"""The methods of `Engine` by their names: each reads its arguments, and returns the work on an engine."""
WRITES = frozenset({"change_manifest", "upsert", "update", "delete", "optimize"})
"""Those that change the store."""
