"""Copies and pickles of a store, as frameworks and process pools make them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores import Entry, MultiVectorStore
from tests.stores.backends import MODEL, page


def test_copies_look_into_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with MultiVectorStore.open("store", model=MODEL) as store:
        store.add([(Entry(id="a"), page(0))])
        pickled = pickle.dumps(store)
        monkeypatch.chdir("/")
        for other in (copy.copy(store), copy.deepcopy(store), pickle.loads(pickled)):
            assert [hit.id for hit in other.search(page(0), 1)] == ["a"]
        other.close()
        assert len(store) == 1
    with MultiVectorStore.open(tmp_path / "store", read_only=True) as store:
        again = pickle.loads(pickle.dumps(store))
        with again, pytest.raises(StoreError, match="opened with read_only=True"):
            again.add([(Entry(id="b"), page(1))])


def test_a_store_without_a_place_is_copied_but_not_pickled() -> None:
    store = MultiVectorStore.open(model=MODEL)
    store.add([(Entry(id="a"), page(0))])
    assert len(copy.deepcopy(store)) == 1
    with pytest.raises(ConfigurationError, match=r"cannot be pickled, .* open it with path= or url="):
        pickle.dumps(store)
