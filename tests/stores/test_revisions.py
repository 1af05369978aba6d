"""A store that was made by a mere name learns the revision of the first model that writes, and refuses others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import FingerprintError, StoreError
from colpali_integrations.models import ModelDescription
from colpali_integrations.stores import Entry, MultiVectorStore, StoredModel, index_documents, stored_settings
from colpali_integrations.stores.embedded.care import find_manifest
from colpali_integrations.stores.embedded.schema import DATABASE
from colpali_integrations.stores.engine import FULL, VectorSpec
from colpali_integrations.stores.qdrant.server import QdrantServerEngine, connect, read_manifest
from tests.stores.backends import BACKENDS, DIM, Open, entry, in_memory, opening, page
from tests.stores.documents import draw
from tests.stores.qdrant.grpc_stand_in import grpc_stand_in
from tests.stores.qdrant.stand_in import stand_in

NAMED = ModelDescription(name="me/pages", family="qwen2_vl", dim=DIM, repository="me/pages", model_file="m.safetensors")
RECORD = [(entry(1), page(1))]


def at(revision: str | None, **fields: Any) -> StoredModel:
    return StoredModel.of(replace(NAMED, revision=revision, **fields))


NAME, FIRST, OTHER = at(None), at("a" * 40), at("b" * 40)


@pytest.fixture(params=BACKENDS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with opening(request.param, tmp_path) as open_:
        yield open_


def again(open_store: Open, store: MultiVectorStore) -> MultiVectorStore:
    """The store as another process finds it; one in memory is in one process only."""
    return store if in_memory(store) else open_store(model=None)


def test_the_first_revision_that_writes_is_the_store_s(open_store: Open) -> None:
    store = open_store(model=NAME)
    assert store.add(RECORD, model=FIRST) == 1
    for opened in (store, again(open_store, store)):
        assert opened.model.fingerprint == FIRST.fingerprint
        for refused in (partial(opened.add, RECORD, model=OTHER), partial(opened.require_space, OTHER)):
            with pytest.raises(FingerprintError, match="cannot be compared: 'me/pages' has changed"):
                refused()
        for model in (FIRST, NAME):
            opened.require_space(model)
            assert opened.add(RECORD, model=model) == 1
    if not in_memory(store):
        with pytest.raises(FingerprintError, match="cannot be compared"):
            open_store(model=OTHER)


def test_a_store_that_is_only_read_stays_as_it_is(open_store: Open) -> None:
    store = open_store(model=NAME)
    store.add(RECORD)
    for model in (FIRST, OTHER):
        store.require_space(model)
        store.require_pages(model)
        assert store.search(page(1), 1)
        assert store.add([], model=model) == 0
        with pytest.raises(StoreError, match="expected vectors"):
            store.add([(Entry(id="x"), [[1.0]])], model=model)
        store.update_entries([entry(1, metadata={"page": 1})])
        assert again(open_store, store).model.fingerprint == NAME.fingerprint


def test_a_store_that_was_opened_earlier_finds_what_another_one_has_recorded(open_store: Open) -> None:
    first, other = open_store(model=NAME), open_store(model=NAME)
    if in_memory(first):
        return  # these are two stores
    first.add(RECORD, model=FIRST)
    for refused in (lambda: other.add([(entry(2), page(2))], model=OTHER), lambda: other.require_space(OTHER)):
        with pytest.raises(FingerprintError, match="cannot be compared"):
            refused()
    assert [len(store) for store in (first, other)] == [1, 1]
    assert other.model.fingerprint == FIRST.fingerprint


def test_of_several_writers_at_once_one_revision_wins(open_store: Open) -> None:
    revisions = [str(number) * 40 for number in range(6)]
    store = open_store(model=NAME)
    stores = [store if in_memory(store) else open_store(model=NAME) for _ in revisions]
    barrier, outcomes = threading.Barrier(len(revisions)), {}

    def write(number: int) -> None:
        barrier.wait()
        try:
            stores[number].add([(entry(number), page(number))], model=at(revisions[number]))
            outcomes[number] = True
        except FingerprintError:
            outcomes[number] = False

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(revisions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [number for number, stored in outcomes.items() if stored]
    assert len(outcomes) == len(revisions)
    assert again(open_store, store).model.fingerprint == at(revisions[winner]).fingerprint
    assert list(again(open_store, store).hashes()) == [f"page {winner}"]


def test_a_commit_and_a_hash_of_files_are_both_recorded(open_store: Open) -> None:
    store, local = open_store(model=NAME), at("sha256:0123456789ab")
    for model in (FIRST, local):
        store.add(RECORD, model=model)
    for model in (OTHER, at("sha256:ba9876543210")):
        with pytest.raises(FingerprintError, match="cannot be compared"):
            again(open_store, store).add(RECORD, model=model)
    for model in (FIRST, local, NAME):
        again(open_store, store).require_pages(model)


def test_the_revision_of_an_adapter_s_base_is_learned_too(open_store: Open) -> None:
    store = open_store(model=FIRST)
    store.add(RECORD, model=at("a" * 40, base_revision="c" * 40))
    with pytest.raises(FingerprintError, match="cannot be compared"):
        again(open_store, store).require_space(at("a" * 40, base_revision="d" * 40))


def test_the_settings_of_pages_that_a_description_has_are_those_of_the_vectors(open_store: Open) -> None:
    store = open_store(model=at(None, precision="int8", max_num_visual_tokens=64))
    if in_memory(store):
        return  # it cannot be opened again
    assert open_store(model=NAMED).add(RECORD) == 1
    assert open_store(model=replace(NAMED, precision="int8")).add(RECORD) == 1
    for setting in ({"precision": "int4"}, {"max_num_visual_tokens": 65}):
        with pytest.raises(FingerprintError, match="holds pages made by me/pages"):
            open_store(model=replace(NAMED, **setting)).add(RECORD)


def test_a_folder_keeps_what_it_has_learned_in_both_of_its_records(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with MultiVectorStore.open(path, model=NAME) as store, MultiVectorStore.open(path) as earlier:
        store.add(RECORD, model=FIRST)
        assert store.verify().ok
        assert earlier.repair().problems == []
        with MultiVectorStore.open(path, read_only=True) as reader, pytest.raises(FingerprintError):
            reader.require_space(OTHER)
    learned = find_manifest(path)
    # Damage the record that is read first: the other one is found, and not what is left of an earlier one.
    content = (path / DATABASE).read_bytes()
    place = content.rindex(b'{"format": ')
    (path / DATABASE).write_bytes(content[:place] + b"[" + content[place + 1 :])
    assert find_manifest(path) == learned


def test_a_read_only_store_refuses_a_writer_and_learns_nothing(tmp_path: Path) -> None:
    MultiVectorStore.open(tmp_path / "store", model=NAME).close()
    with MultiVectorStore.open(tmp_path / "store", read_only=True) as store:
        store.require_space(FIRST)
        with pytest.raises(StoreError, match="read_only=True"):
            store.add(RECORD, model=FIRST)
    settings = stored_settings(tmp_path / "store")
    assert settings is not None
    assert settings.model.fingerprint == NAME.fingerprint


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_manifest_of_a_server_is_read_again_after_it_was_written(protocol: str) -> None:
    def change(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        calls.append(manifest)
        if manifest.get("by", "a") != "a":
            raise FingerprintError("another one was faster")
        return {**manifest, "by": "a"}

    with stand_in() as server, grpc_stand_in() as grpc_server:
        grpc: dict[str, Any] = {"grpc_port": grpc_server.port, "prefer_grpc": True} if protocol == "grpc" else {}
        schema: dict[str, Any] = {"schema": {FULL: VectorSpec(dim=DIM)}, "manifest": {"format": 4, "language": None}}
        engine = QdrantServerEngine(connect(server.url, **grpc), "mine", **schema, owns_client=True)
        calls: list[Mapping[str, Any]] = []
        changed = {"format": 4, "language": None, "by": "a"}
        assert engine.change_manifest(change) == engine.manifest == changed
        assert calls == [schema["manifest"], changed]
        with contextlib.closing(connect(server.url, **grpc)) as client:
            assert read_manifest(client, "mine") == changed
            client.update_collection("mine", metadata={"colpali_integrations": {**changed, "by": "b"}})
        with pytest.raises(FingerprintError, match="was faster"):
            engine.change_manifest(change)
        engine.close()


def test_documents_of_another_revision_are_not_indexed(two_revisions: list[dict[str, Any]], tmp_path: Path) -> None:
    draw("page").resize((60, 60)).save(tmp_path / "1.png")
    MultiVectorStore.open(tmp_path / "store", model="me/mine").close()
    model, other = (ColPali.from_pretrained(one.pop("model_name"), lazy_load=True, **one) for one in two_revisions)
    assert index_documents(tmp_path / "1.png", model=model, store=tmp_path / "store").added == 1
    settings = stored_settings(tmp_path / "store")
    assert settings is not None
    assert settings.model.fingerprint == model.description.fingerprint
    with pytest.raises(FingerprintError, match="has changed"):
        index_documents(tmp_path / "1.png", model=other, store=tmp_path / "store")
    model.close()
