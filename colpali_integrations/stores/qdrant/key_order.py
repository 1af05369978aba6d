"""The order of the keys of a payload, which gRPC does not keep: its maps have none, and neither has the server then.

A payload that is sent over gRPC has the order of its keys beside them, as text. It is put right where it is read, over
whichever transport.
"""

from __future__ import annotations

import json
from typing import Any

from colpali_integrations.stores.engine import Payload

__all__ = ["with_order", "without_order"]

_ORDER = "order"
_FIELDS = ("metadata", "extra")


def with_order(payload: Payload) -> Payload:
    """The payload with the order of its keys, where there is any.

    >>> with_order({"id": "a", "metadata": {"source": "a.pdf", "page": 1}})["order"]
    '{"metadata":{"source":0,"page":0}}'
    """
    order = {field: kept for field in _FIELDS if (kept := _order(payload.get(field)))}
    return {**payload, _ORDER: json.dumps(order, separators=(",", ":"))} if order else payload


def without_order(payload: Payload) -> Payload:
    """The payload as it was given to `with_order`.

    >>> without_order({"metadata": {"page": 1, "source": "a.pdf"}, "order": '{"metadata": {"source": 0, "page": 0}}'})
    {'metadata': {'source': 'a.pdf', 'page': 1}}
    """
    order = payload.get(_ORDER)
    if not isinstance(order, str):
        return payload
    rest = {key: value for key, value in payload.items() if key != _ORDER}
    try:
        kept = json.loads(order)
    except (ValueError, RecursionError):  # of another program
        return rest
    return {key: _ordered(value, kept.get(key)) for key, value in rest.items()} if isinstance(kept, dict) else rest


def _order(value: Any) -> Any:
    """The keys in their order, of dicts in dicts and lists; 0 where there is only one order."""
    if isinstance(value, dict):
        inside = {key: _order(one) for key, one in value.items()}
        return inside if len(inside) > 1 or any(inside.values()) else 0
    if isinstance(value, list):
        items = [_order(one) for one in value]
        return items if any(items) else 0
    return 0


def _ordered(value: Any, order: Any) -> Any:
    if isinstance(value, dict) and isinstance(order, dict):
        keys = [*(key for key in order if key in value), *(key for key in value if key not in order)]
        return {key: _ordered(value[key], order.get(key)) for key in keys}
    if isinstance(value, list) and isinstance(order, list) and len(value) == len(order):
        return [_ordered(one, kept) for one, kept in zip(value, order, strict=True)]
    return value
