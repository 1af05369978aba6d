"""A served index that another process replaces: the server goes on with the new one."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import StoreError
from colpali_integrations.stores import MultiVectorStore, compress_store, index_documents
from colpali_integrations.stores.current import CurrentStore
from tests.conftest import few_pages
from tests.server.conftest import Running, Start
from tests.server.test_documents import ended, send

QUESTION = "diverging palettes"


@pytest.fixture
def server(start: Start, papers: Path, coltiny: ColPali) -> Running:
    """A server of an index with the report."""
    running = start()
    index_documents(papers / "report.pdf", model=coltiny, store=running.store, metadata={"year": 2024})
    return running


def folder_of(server: Running) -> Path:
    return server.service.jobs.uploads.folder.with_suffix("")


def found(server: Running, **options: Any) -> Any:
    answer = server.client.post("/v1/search", json={"query": QUESTION, **options})
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"]


def test_everything_goes_on_after_a_compression(
    server: Running, papers: Path, tmp_path: Path, coltiny: ColPali
) -> None:
    before, former = found(server), server.store
    compress_store(folder_of(server), datatype="int8")
    after = found(server, regions=True)
    assert server.store is not former
    assert server.store.settings.datatype == "int8"
    with pytest.raises(StoreError, match="is closed"):
        len(former)
    assert [one["id"] for one in after] == [one["id"] for one in before]
    assert [one["max_sim"] for one in after] != [one["max_sim"] for one in before]
    expected = server.store.search(QUESTION)
    assert [one["score"] for one in after] == [hit.score for hit in expected]
    assert expected.tokens is not None  # the model of the process goes on too
    assert any(one["regions"] for one in after)
    few_pages(tmp_path / "new.pdf", [12])
    job = ended(server.client, send(server.client, tmp_path / "new.pdf"))
    assert (job["state"], job["error"]) == ("done", None)
    [both, new] = sorted(server.client.get("/v1/documents").json()["documents"], key=lambda one: -one["pages"])
    assert (both["pages"], new) == (
        2,
        {"document_id": job["document_id"], "name": "new.pdf", "uploaded": True, "pages": 1},
    )
    assert server.client.delete(f"/v1/documents/{job['document_id']}").json()["removed"] == 1
    assert server.client.get("/healthz").json()["status"] == "ok"


@pytest.mark.parametrize("path", ["/v1/documents", "/healthz", "/v1/pages/{id}", "upload", "delete"])
def test_each_door_opens_the_new_index_first(path: str, server: Running, papers: Path) -> None:
    [id_, *_] = server.store.hashes()
    [document] = server.store.documents()
    compress_store(folder_of(server), datatype="binary", delete_old=True)
    if path == "upload":
        job = ended(server.client, send(server.client, papers / "report.pdf"))
        assert (job["state"], job["error"], job["pages"]) == ("done", None, 2)
    elif path == "delete":
        response = server.client.delete(f"/v1/documents/{quote(document, safe='')}")
        assert response.json()["removed"] == 2
    else:
        assert server.client.get(path.format(id=id_)).status_code == 200
    assert server.store.settings.datatype == "binary"


def test_a_job_that_runs_meanwhile_goes_on_with_the_new_index(
    server: Running, papers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced, add = threading.Event(), server.store.add

    def late(*arguments: Any, **options: Any) -> int:
        compress_store(folder_of(server), datatype="int4")
        replaced.set()
        return add(*arguments, **options)

    monkeypatch.setattr(server.store, "add", late)
    monkeypatch.setattr("colpali_integrations.server.jobs._FIRST_WAIT", 600.0)  # it is not a further try
    job = ended(server.client, send(server.client, papers / "report.pdf"))
    assert replaced.is_set()
    assert (job["state"], job["error"]) == ("done", None)
    assert len(server.store) == 4
    assert server.store.settings.datatype == "int4"


def test_many_questions_open_a_new_index_once(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[MultiVectorStore] = []
    reopened = MultiVectorStore.reopened

    def counted(store: MultiVectorStore) -> MultiVectorStore | None:
        new = reopened(store)
        if new is not None:
            opened.append(new)
        return new

    monkeypatch.setattr(MultiVectorStore, "reopened", counted)
    for number, datatype in enumerate(("int8", "int4"), 1):
        compress_store(folder_of(server), datatype=datatype, delete_old=True)  # type: ignore[arg-type]
        with ThreadPoolExecutor(8) as threads:  # other options each, so that they are answered apart
            counts = list(threads.map(lambda k: len(found(server, k=k)), range(2, 10)))
        assert counts == [2] * 8
        assert len(opened) == number


def test_an_index_that_is_gone_is_told_by_health_and_is_not_made_anew(server: Running) -> None:
    folder = folder_of(server)
    away = folder.rename(folder.with_name("away"))
    answer = server.client.get("/healthz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_index")
    assert str(folder) not in answer.text
    answer = server.client.post("/v1/search", json={"query": QUESTION})
    assert answer.status_code == 503
    assert "the server cannot open it again: there is no such store" in answer.json()["message"]
    assert not folder.exists()
    shutil.copytree(away, folder)  # as from a backup
    assert server.client.get("/healthz").status_code == 200
    assert len(found(server)) == 2


def test_a_replaced_store_is_closed_once_nobody_uses_it(tmp_path: Path, coltiny: ColPali) -> None:
    path = tmp_path / "index"
    with MultiVectorStore.open(path, model=coltiny) as store:
        current = CurrentStore(store)
        began, go = threading.Event(), threading.Event()
        states: list[bool] = []

        def long(one: MultiVectorStore) -> None:
            began.set()
            assert go.wait(30)
            states.append(one is store)

        thread = threading.Thread(target=current.use, args=(long,))
        thread.start()
        assert began.wait(30)
        compress_store(path, datatype="int8")
        assert current.is_usable()
        assert current.store is not store
        with pytest.raises(StoreError, match="removed, renamed or replaced"):
            len(store)  # open still, because the thread uses it
        go.set()
        thread.join()
        assert states == [True]
        with pytest.raises(StoreError, match="is closed"):
            len(store)
        current.close()
        with pytest.raises(StoreError, match="is closed"):
            len(current.store)
