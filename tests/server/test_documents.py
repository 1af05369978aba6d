"""Uploads: what is taken and refused, what jobs tell, and what a killed server leaves."""

from __future__ import annotations

import io
import json
import stat
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import FingerprintError, StoreError
from colpali_integrations.server.documents import file_name
from colpali_integrations.server.uploads import Uploads
from colpali_integrations.stores import MultiVectorStore, index_documents, ingest
from tests.cli.test_serve import serving, url_in
from tests.conftest import few_pages
from tests.server.conftest import Running, Start, running, service_of, wait_until


def send(client: httpx.Client, file: Path, name: str | None = None, **fields: str) -> httpx.Response:
    return client.post("/v1/documents", files={"file": (name or file.name, file.read_bytes())}, data=fields)


def ended(client: httpx.Client, answer: httpx.Response) -> Any:
    """The job of an upload, once it has ended."""
    assert answer.status_code == 202, answer.text
    path = answer.headers["location"]
    assert path == f"/v1/jobs/{answer.json()['id']}"
    wait_until(lambda: client.get(path).json()["state"] in ("done", "failed"))
    return client.get(path).json()


@pytest.fixture
def server(start: Start) -> Running:
    return start()


def folder_of(server: Running) -> Path:
    return server.service.jobs.uploads.folder


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if len(path.stem) == 32]


def test_an_upload_is_stored_found_shown_and_deleted(server: Running, papers: Path, coltiny: ColPali) -> None:
    answer = send(server.client, papers / "report.pdf", metadata='{"year": 2024}')
    job = ended(server.client, answer)
    assert (job["state"], job["pages"], job["done"], job["name"]) == ("done", 2, 2, "report.pdf")
    assert (job["report"]["added"], job["error"]) == (2, None)
    document = job["document_id"]
    listed = {"document_id": document, "name": "report.pdf", "uploaded": True, "pages": 2}
    assert server.client.get("/v1/documents").json() == {"documents": [listed], "next_cursor": None}
    assert [one["id"] for one in server.client.get("/v1/jobs").json()["jobs"]] == [job["id"]]
    query = {"query": "diverging palettes", "filter": {"year": 2024}, "k": 1}
    [hit] = server.client.post("/v1/search", json=query).json()["hits"]
    assert (hit["document_id"], hit["source"], hit["page"]) == (document, "report.pdf", 1)
    with MultiVectorStore.open(model=coltiny) as other:  # the pages are those of the file itself
        index_documents(papers / "report.pdf", model=coltiny, store=other)
        [expected] = other.search("diverging palettes", 1)
    assert hit["score"] == pytest.approx(expected.score, rel=1e-6)  # engines add in another order
    assert hit["metadata"]["content_hash"] == expected.entry.metadata["content_hash"]
    assert server.client.get(f"/v1/pages/{hit['id']}/image").status_code == 200
    folder = folder_of(server)
    assert [path.read_bytes() for path in files_in(folder)] == [(papers / "report.pdf").read_bytes()]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} > {"jobs.sqlite", "server.lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert server.client.delete(f"/v1/documents/{document}").json() == {"document_id": document, "removed": 2}
    assert server.client.get("/v1/documents").json() == {"documents": [], "next_cursor": None}
    assert server.client.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert files_in(folder) == []
    assert server.client.delete(f"/v1/documents/{document}").status_code == 404


def test_a_document_is_replaced_and_the_others_stay(server: Running, papers: Path, tmp_path: Path) -> None:
    first = ended(server.client, send(server.client, papers / "report.pdf"))
    other = ended(server.client, send(server.client, papers / "report.pdf", "../same.pdf"))
    assert other["name"] == "same.pdf"
    assert other["document_id"] != first["document_id"]
    assert other["report"]["copied"] == 2  # equal content is encoded once
    few_pages(tmp_path / "new.pdf", [12])
    again = ended(server.client, send(server.client, tmp_path / "new.pdf", document_id=first["document_id"]))
    assert (again["document_id"], again["state"]) == (first["document_id"], "done")
    counts = {one["document_id"]: one["pages"] for one in server.client.get("/v1/documents").json()["documents"]}
    assert counts == {first["document_id"]: 1, other["document_id"]: 2}
    assert len(files_in(folder_of(server))) == 2
    assert server.client.get(f"/v1/jobs/{first['id']}").status_code == 404
    answer = send(server.client, tmp_path / "new.pdf", document_id="/etc/passwd")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_document")


def test_lists_come_in_pieces(server: Running, papers: Path) -> None:
    jobs = [ended(server.client, send(server.client, papers / "report.pdf")) for _ in range(3)]
    newest_first = [job["id"] for job in reversed(jobs)]
    by_id = sorted(job["document_id"] for job in jobs)
    for path, what, key, expected in (
        ("/v1/jobs", "jobs", "id", newest_first),
        ("/v1/documents", "documents", "document_id", by_id),
    ):
        first = server.client.get(path, params={"limit": 2}).json()
        second = server.client.get(path, params={"limit": 2, "cursor": first["next_cursor"]}).json()
        assert [[one[key] for one in answer[what]] for answer in (first, second)] == [expected[:2], expected[2:]]
        assert second["next_cursor"] is None
        for limit in ("0", "1001", "x", ""):
            assert server.client.get(path, params={"limit": limit}).status_code == 400
    assert server.client.get("/v1/jobs", params={"cursor": "x"}).status_code == 400


def test_all_uploads_together_have_a_limit(start: Start, papers: Path) -> None:
    size = (papers / "report.pdf").stat().st_size
    server = start(max_upload_total=2 * size)
    first = ended(server.client, send(server.client, papers / "report.pdf"))
    assert send(server.client, papers / "report.pdf", "torn.pdf", metadata="[]").status_code == 400
    assert send(server.client, papers / "report.pdf").status_code == 202
    full = send(server.client, papers / "report.pdf")
    assert (full.status_code, full.json()["error"]["code"]) == (507, "uploads_full")
    assert f"have {2 * size:,} bytes" in full.json()["message"]
    folder = folder_of(server)
    assert len(files_in(folder)) == 2
    server.client.delete(f"/v1/documents/{first['document_id']}")
    assert send(server.client, papers / "report.pdf").status_code == 202


def test_a_document_that_the_command_line_indexed_is_deleted_by_its_path(
    server: Running, papers: Path, coltiny: ColPali
) -> None:
    index_documents(papers / "report.pdf", model=coltiny, store=server.store)
    [document] = server.store.documents()
    path = httpx.URL(f"{server.url}/v1/documents/{document.replace('/', '%2F')}")
    assert server.client.delete(path).json()["removed"] == 2
    assert (papers / "report.pdf").exists()


def test_what_cannot_be_taken_is_refused_and_leaves_nothing(start: Start, papers: Path, tmp_path: Path) -> None:
    server = start(max_pages=1, max_upload_bytes=2 * 2**20)
    report = (papers / "report.pdf").read_bytes()

    def status(name: str, content: bytes, message: str, **fields: str) -> int:
        answer = server.client.post("/v1/documents", files={"file": (name, content)}, data=fields)
        assert message in answer.json()["message"]
        assert str(folder_of(server)) not in answer.text
        return answer.status_code

    assert status("two.pdf", report, "two.pdf has 2 pages; at most 1 are taken") == 413
    assert status("torn.pdf", report[:100], "torn.pdf") == 400
    assert status("text.txt", b"low tide", "text.txt") == 400
    assert status("letter.docx", b"PK\x03\x04 low tide", "letter.docx is no DOCX file, or is damaged") == 400
    assert (
        status(
            "page.html",
            b"<p>low tide",
            "page.html is none of what is accepted: PDFs, Office files other than HTML, and images",
        )
        == 400
    )
    assert status("empty.pdf", b"", "empty.pdf") == 400
    assert status("a.pdf", report, "metadata is not JSON", metadata="{") == 400
    assert status("a.pdf", report, "metadata must be an object", metadata="[]") == 400
    assert status("a.pdf", report, "file_path", metadata='{"file_path": "/etc/passwd"}') == 400
    assert status("a.pdf", report, "lone surrogate", metadata='{"title": "\\ud800"}') == 400
    assert status("a.pdf", report, "JSON cannot hold 'size'", metadata='{"size": [1e999]}') == 400
    assert status("a.pdf", report, "levels", metadata='{"deep": ' + "[" * 200 + "]" * 200 + "}") == 400
    assert status("a.pdf", report, "no field 'tenant'", tenant="a") == 400
    assert status("a.pdf", b" " * (2 * 2**20 + 1), "has more than 2,097,152 bytes") == 413
    assert status("a.pdf", b" " * (4 * 2**20), "the body has more than") == 413
    assert server.client.post("/v1/documents", data={"metadata": "{}"}).status_code == 415
    assert server.client.post("/v1/documents", files={"other": ("a.pdf", report)}).status_code == 400
    two = [("file", ("a.pdf", report)), ("file", ("b.pdf", report))]
    assert server.client.post("/v1/documents", files=two).status_code == 400
    torn = server.client.post(
        "/v1/documents", content=b"--a\r\n", headers={"Content-Type": "multipart/form-data; boundary=a"}
    )
    assert torn.status_code == 400
    assert files_in(folder_of(server)) == []
    assert server.client.get("/v1/jobs").json() == {"jobs": [], "next_cursor": None}
    assert len(server.store) == 0


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("report.pdf", "report.pdf"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\a.pdf", "a.pdf"),
        ("", "upload"),
        ("..", "upload"),
        ("a\nb\x1b[2J.pdf", "ab[2J.pdf"),
        ("größe 1.pdf", "größe 1.pdf"),
        ("a" * 5000, "a" * 200),
    ],
)
def test_a_caller_s_file_name_is_for_reading_only(given: str, name: str) -> None:
    assert file_name(given) == name


def test_a_store_that_cannot_be_written_is_tried_again(
    start: Start, papers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colpali_integrations.server.jobs._FIRST_WAIT", 0.05)
    server, failures = start(), [StoreError("the disk is full"), StoreError("the disk is full")]
    add = server.store.add

    def failing(*arguments: Any, **options: Any) -> int:
        if failures:
            raise failures.pop()
        return add(*arguments, **options)

    monkeypatch.setattr(server.store, "add", failing)
    job = ended(server.client, send(server.client, papers / "report.pdf"))
    assert (job["state"], job["error"], len(server.store), failures) == ("done", None, 2, [])


def test_the_error_of_an_earlier_try_is_not_shown_while_a_job_runs_again(
    server: Running, papers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colpali_integrations.server.jobs._FIRST_WAIT", 0.5)
    began, go = [threading.Event(), threading.Event()], threading.Event()

    def failing(sources: Any, **options: Any) -> Any:
        if not began[0].is_set():
            began[0].set()
            raise StoreError("the disk is full")
        began[1].set()
        assert go.wait(30)
        return ingest(sources, **options)

    monkeypatch.setattr("colpali_integrations.server.jobs.ingest", failing)
    answer = send(server.client, papers / "report.pdf")
    path = answer.headers["location"]
    wait_until(lambda: server.client.get(path).json()["error"])
    waiting = server.client.get(path).json()
    assert (waiting["state"], waiting["error"]) == ("queued", "the disk is full")
    assert began[1].wait(30)
    running = server.client.get(path).json()
    go.set()
    assert (running["state"], running["error"]) == ("running", None)
    assert ended(server.client, answer)["state"] == "done"


def test_pages_of_other_settings_are_refused_before_they_are_accepted(
    server: Running, papers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_settings(model: object) -> None:
        raise FingerprintError("the index was made at precision float32, and the model has int8")

    monkeypatch.setattr(server.store, "require_pages", other_settings)
    answer = send(server.client, papers / "report.pdf")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert "precision float32" in answer.json()["message"]
    assert files_in(folder_of(server)) == []


def test_a_document_can_be_deleted_while_it_is_stored(server: Running, papers: Path, monkeypatch: Any) -> None:
    began, go = threading.Event(), threading.Event()

    def slow(sources: Any, *, progress: Any, **options: Any) -> Any:
        def listen(state: Any) -> None:
            began.set()
            assert go.wait(30)
            progress(state)

        return ingest(sources, progress=listen, **options)

    monkeypatch.setattr("colpali_integrations.server.jobs.ingest", slow)
    answer = send(server.client, papers / "report.pdf").json()
    assert began.wait(30)
    assert server.client.get(f"/v1/jobs/{answer['id']}").json()["state"] == "running"
    threading.Timer(0.2, go.set).start()
    response = server.client.delete(f"/v1/documents/{answer['document_id']}")
    assert response.status_code == 200
    assert len(server.store) == 0
    assert files_in(folder_of(server)) == []
    assert server.client.get("/v1/jobs").json() == {"jobs": [], "next_cursor": None}


def counts_of(server: Running) -> dict[str, int]:
    return {one["document_id"]: one["pages"] for one in server.client.get("/v1/documents").json()["documents"]}


def test_a_deletion_that_failed_is_tried_again_and_spares_a_later_upload(
    server: Running, papers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colpali_integrations.server.jobs._FIRST_WAIT", 0.05)
    first = ended(server.client, send(server.client, papers / "report.pdf"))
    document, delete, may, tries = first["document_id"], server.store.delete, threading.Event(), []

    def failing(**criteria: Any) -> int:
        tries.append(criteria)
        if not may.is_set():
            raise StoreError("another process has locked the store")
        return delete(**criteria)

    monkeypatch.setattr(server.store, "delete", failing)
    assert server.client.delete(f"/v1/documents/{document}").status_code == 503
    few_pages(tmp_path / "new.pdf", [12])
    later = send(server.client, tmp_path / "new.pdf", document_id=document)
    wait_until(lambda: len(tries) > 2)
    assert server.client.get(later.headers["location"]).json()["state"] == "queued"
    may.set()
    assert ended(server.client, later)["state"] == "done"
    assert counts_of(server) == {document: 1}
    assert server.client.get(f"/v1/jobs/{first['id']}").status_code == 404
    assert len(files_in(folder_of(server))) == 1


def test_a_restart_ends_a_deletion_and_then_stores_the_later_upload(
    tmp_path: Path, papers: Path, coltiny: ColPali, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_pages(tmp_path / "new.pdf", [12])
    path = tmp_path / "index"
    with MultiVectorStore.open(path, model=coltiny) as store, running(service_of(coltiny, store, path, port=0)) as one:
        document = ended(one.client, send(one.client, papers / "report.pdf"))["document_id"]
        monkeypatch.setattr(store, "delete", lambda **criteria: (_ for _ in ()).throw(StoreError("locked")))
        assert one.client.delete(f"/v1/documents/{document}").status_code == 503
        later = send(one.client, tmp_path / "new.pdf", document_id=document)
        assert later.status_code == 202
    with MultiVectorStore.open(path, model=coltiny) as store, running(service_of(coltiny, store, path, port=0)) as two:
        assert ended(two.client, later)["state"] == "done"
        assert counts_of(two) == {document: 1}
        assert len(files_in(folder_of(two))) == 1


def test_an_upload_beside_a_deletion_is_stored_after_it(
    server: Running, papers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = ended(server.client, send(server.client, papers / "report.pdf"))["document_id"]
    delete, began, go = server.store.delete, threading.Event(), threading.Event()

    def slow(**criteria: Any) -> int:
        began.set()
        assert go.wait(30)
        return delete(**criteria)

    monkeypatch.setattr(server.store, "delete", slow)
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(server.client.delete(f"/v1/documents/{document}")))
    thread.start()
    assert began.wait(30)
    few_pages(tmp_path / "new.pdf", [12])
    later = send(server.client, tmp_path / "new.pdf", document_id=document)
    other = ended(server.client, send(server.client, tmp_path / "new.pdf"))  # of another document: it does not wait
    assert server.client.get(later.headers["location"]).json()["state"] == "queued"
    go.set()
    thread.join(30)
    assert (answers[0].status_code, answers[0].json()["removed"]) == (200, 2)
    assert (ended(server.client, later)["state"], other["state"]) == ("done", "done")
    assert counts_of(server) == {document: 1, other["document_id"]: 1}


def test_a_folder_that_others_may_enter_is_refused_and_so_is_a_second_server(tmp_path: Path) -> None:
    folder = tmp_path / "index.uploads"
    folder.mkdir(mode=0o755)
    with pytest.raises(StoreError, match="run: chmod 700"):
        Uploads(folder)
    folder.chmod(0o700)
    uploads = Uploads(folder)
    with pytest.raises(StoreError, match="another server uses"):
        Uploads(folder)
    uploads.close()
    link = tmp_path / "link.uploads"
    link.symlink_to(folder)
    with pytest.raises(StoreError, match="must be a folder of this user"):
        Uploads(link)


def test_a_file_without_a_job_is_removed_at_the_start(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "index.uploads")
    name = uploads.keep(io.BytesIO(b"%PDF"), ".pdf", most=100)
    assert (uploads.folder / name).read_bytes() == b"%PDF"
    uploads.close()
    again = Uploads(tmp_path / "index.uploads")
    assert files_in(again.folder) == []
    again.close()


def test_other_processes_write_beside_the_server(server: Running, papers: Path, coltiny: ColPali) -> None:
    with MultiVectorStore.open(folder_of(server).with_suffix(""), model=coltiny) as other:
        index_documents(papers / "report.pdf", model=coltiny, store=other)
        job = ended(server.client, send(server.client, papers / "report.pdf"))
        assert job["report"]["copied"] == 2
        assert len(other) == len(server.store) == 4
        assert len(server.client.post("/v1/search", json={"query": "palettes"}).json()["hits"]) == 4


@pytest.mark.slow  # it starts five processes
def test_uploads_that_were_accepted_survive_a_killed_server(tmp_path: Path, coltiny: ColPali) -> None:
    """Killed at a moment of the first upload, of the last, and in between; then everything is there."""
    pages = [[3], [7], [12], [1, 2]]
    accepted: dict[str, int] = {}
    for number, some in enumerate(pages):
        few_pages(tmp_path / f"{number}.pdf", some)
        with (
            serving(tmp_path / "index") as (process, lines),
            httpx.Client(base_url=url_in(lines), trust_env=False) as client,
        ):
            answer = send(client, tmp_path / f"{number}.pdf")
            assert answer.status_code == 202
            accepted[answer.json()["document_id"]] = len(some)
            if number == 2:
                wait_until(lambda: client.get("/v1/jobs").json()["jobs"][0]["state"] != "queued")
            process.kill()
            process.wait(30)
    with (
        serving(tmp_path / "index") as (process, lines),
        httpx.Client(base_url=url_in(lines), trust_env=False) as client,
    ):
        wait_until(lambda: {one["state"] for one in client.get("/v1/jobs").json()["jobs"]} == {"done"})
        listed = client.get("/v1/documents").json()["documents"]
        assert {one["document_id"]: one["pages"] for one in listed} == accepted
        process.terminate()
        assert process.wait(30) == 0
    with MultiVectorStore.open(tmp_path / "index", model=coltiny) as store:
        assert store.verify().ok
        assert len(store) == 5
    assert json.dumps(sorted(accepted.values())) == "[1, 1, 1, 2]"
