"""A search ranks a hundred entries and more, and makes those alone that it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from colpali_integrations.errors import StoreError
from colpali_integrations.stores import Entry
from colpali_integrations.stores.entries import payload_has_words
from colpali_integrations.stores.fusion import Hybrid
from tests.stores.backends import DIM, Open


@pytest.mark.parametrize("hybrid", [0.5, "rrf", False])
def test_only_hits_become_entries(open_store: Open, monkeypatch: pytest.MonkeyPatch, hybrid: Hybrid) -> None:
    store, unit = open_store(), np.eye(DIM, dtype=np.float32)
    vectors = [np.stack([np.cos(angle) * unit[0] + np.sin(angle) * unit[1]]) for angle in np.linspace(0, 2, 12)]
    store.add((Entry(id=f"{n:02}", text=f"crane {n}"), rows.astype(np.float32)) for n, rows in enumerate(vectors))
    made: list[str] = []
    read = Entry.from_payload

    def reading(payload: Mapping[str, Any]) -> Entry:
        made.append(payload["id"])
        return read(payload)

    monkeypatch.setattr(Entry, "from_payload", reading)
    query = unit[:1]
    hits = store.search(query, 3, hybrid=hybrid, text="crane", mode="exact")
    assert made == [hit.id for hit in hits] == ["00", "01", "02"]
    made.clear()
    few = store.search(query, 9, hybrid=hybrid, text="crane", mode="exact", min_relevance=float(np.cos(0.4)))
    assert made == [hit.id for hit in few] == ["00", "01", "02"], "at 0, 2/11 and 4/11 of a radian"


SOURCE = {"source": "reports/tides.pdf", "page": 3}


@pytest.mark.parametrize(
    ("entry", "has"),
    [
        (Entry(id="a", text="Low tide at six", metadata=SOURCE), True),
        (Entry(id="a", text="", metadata=SOURCE), False),
        (Entry(id="a", text="tides.pdf, page 3", metadata=SOURCE), False),
        (Entry(id="a", text="see tides.pdf, page 3", metadata=SOURCE), True),
        (Entry(id="a", text="tides.pdf, page 3", metadata={**SOURCE, "page": 4}), True),
        (Entry(id="a", text="a", metadata={"page": 3}), False),
        (Entry(id="a", text="a", metadata={"source": "tides.pdf"}), False),
        (Entry(id="a", text="b"), True),
        (Entry(id="a", text=""), False),
        (Entry(id="a", text="\f"), False),
        (Entry(id="a", text="| • —", metadata=SOURCE), False),
        (Entry(id="a", text=f"tides.pdf, page {2**70}", metadata={**SOURCE, "page": 2**70}), False),
        (Entry(id="a", text="tides.pdf, page 3", metadata={**SOURCE, "weight": 0.1 + 0.2}), False),
    ],
)
def test_a_payload_has_words_as_its_entry_has(entry: Entry, has: bool) -> None:
    assert entry.has_words is has
    assert payload_has_words(entry.to_payload()) is has
    assert entry.has_text is (has or entry.text in ("\f", "| • —"))


@pytest.mark.parametrize("payload", [{"id": "a", "text": 3}, {"id": "a", "metadata": []}, {"text": "a"}])
def test_a_damaged_payload_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="damaged"):
        payload_has_words(payload)
