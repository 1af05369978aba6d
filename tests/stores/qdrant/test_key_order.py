"""Payloads keep the order of their keys over gRPC."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations.stores.qdrant.key_order import with_order, without_order

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


def shuffled(value: Any, seed: random.Random) -> Any:
    """A value as maps without an order bring it back."""
    if isinstance(value, dict):
        keys = list(value)
        seed.shuffle(keys)
        return {key: shuffled(value[key], seed) for key in keys}
    return [shuffled(one, seed) for one in value] if isinstance(value, list) else value


@given(
    st.fixed_dictionaries({"id": st.text()}, optional={"metadata": st.dictionaries(st.text(), JSON), "extra": JSON}),
    st.randoms(use_true_random=False),
)
def test_keys_come_back_in_their_order(payload: dict[str, Any], seed: random.Random) -> None:
    read = without_order(shuffled(with_order(payload), seed))
    assert read == payload
    for field in ("metadata", "extra"):
        assert repr(read.get(field)) == repr(payload.get(field))


@given(JSON, st.dictionaries(st.text(), JSON))
def test_payloads_of_other_programs_are_read(order: Any, metadata: dict[str, Any]) -> None:
    for payload in ({"order": order, "metadata": metadata}, {"order": str(order), "metadata": metadata}):
        assert without_order(payload)["metadata"] == metadata
