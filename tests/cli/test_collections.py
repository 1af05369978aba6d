"""Commands on a collection of a Qdrant server, which a JSON file names: of another program, and of this package."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_client import QdrantClient

from colpali_integrations import ColPali
from colpali_integrations.cli.app import ExitCode, run
from colpali_integrations.cli.display import facts as print_facts
from colpali_integrations.errors import InputError, StoreError
from colpali_integrations.stores import MultiVectorStore
from tests.cli.test_serve import serving, url_in
from tests.stores.qdrant.collections import COUNT, Made, direct, made
from tests.stores.qdrant.stand_in import StandIn, stand_in
from tests.test_existing_collections import texts

Capture = pytest.CaptureFixture[str]
Write = Callable[..., Path]
QUESTION = "the tide in the harbour"


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture(scope="module")
def collection(server: StandIn, coltiny: ColPali) -> Iterator[Made]:
    client = QdrantClient(url=server.url, check_compatibility=False)
    yield from made(client, "fastembed", list(coltiny.embed_texts(texts())))
    client.close()


@pytest.fixture
def write(server: StandIn, collection: Made, tmp_path: Path) -> Write:
    """Write the file of the collection with other values; None leaves one out."""

    def write(**changed: Any) -> Path:
        values: dict[str, Any] = {"url": server.url, "collection_name": collection.name, "model": "coltiny"}
        values |= {"layout": collection.layout.to_dict(), **changed}
        file = tmp_path / "docs.json"
        file.write_text(json.dumps({name: one for name, one in values.items() if one is not None}))
        return file

    return write


def records(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_search_finds_what_direct_queries_find(
    write: Write, collection: Made, coltiny: ColPali, capsys: Capture
) -> None:
    assert run(["search", QUESTION, "--store", str(write()), "-k", "4", "--json"]) == ExitCode.OK
    found, query = records(capsys), coltiny.embed_query(QUESTION)
    expected = direct(collection, query, 4)
    assert [one["id"] for one in found] == [id_ for id_, _ in expected]
    assert [one["score"] for one in found] == pytest.approx([score for _, score in expected], abs=1e-3)
    assert found[0]["text"].startswith("the text of page ")
    where = '{"filename": "1.pdf", "page": {"$lte": 3}}'
    assert run(["search", QUESTION, "--store", str(write()), "--filter", where, "--json"]) == ExitCode.OK
    filtered = [(one["source"], one["page"]) for one in records(capsys)]  # without those with nothing of the question
    assert {("1.pdf", 2), ("1.pdf", 3)} <= {*filtered} <= {("1.pdf", number) for number in (1, 2, 3)}
    file = write(model=None)
    assert run(["search", QUESTION, "--store", str(file), "--model", "coltiny", "-k", "4", "--json"]) == ExitCode.OK
    assert [one["id"] for one in records(capsys)] == [id_ for id_, _ in expected]
    assert run(["search", QUESTION, "--store", str(file)]) == ExitCode.ERROR
    assert "docs.json has a layout and names no model; pass the one that made it by --model" in capsys.readouterr().err


def test_info_and_list(write: Write, capsys: Capture) -> None:
    assert run(["info", str(write()), "--json"]) == ExitCode.OK
    [facts] = records(capsys)
    assert (facts["model"], facts["first_stage"], facts["entries"]) == ("coltiny", "layout", COUNT)
    assert run(["list", str(write()), "--json"]) == ExitCode.OK
    assert {one["document_id"] for one in records(capsys)} == {"0.pdf", "1.pdf", "2.pdf"}


def test_without_a_layout_the_error_has_it_as_json(write: Write, collection: Made, capsys: Capture) -> None:
    assert run(["search", QUESTION, "--store", str(write(layout=None))]) == ExitCode.ERROR
    message = capsys.readouterr().err
    assert f'add "layout": {json.dumps(collection.layout.to_dict())} and the "model" that made its vectors' in message


def test_changes_are_refused_with_the_words_of_the_command_line(write: Write, capsys: Capture) -> None:
    assert run(["delete", str(write()), "0.pdf"]) == ExitCode.ERROR
    message = capsys.readouterr().err
    assert 'add "writable": true to its file to change it in its own layout, or copy it into a store' in message
    assert "(colpali-integrations copy)" in message
    assert run(["search", QUESTION, "--store", str(write()), "--hybrid"]) == ExitCode.ERROR
    assert "pass --no-hybrid" in capsys.readouterr().err
    for command in (["verify"], ["repair"], ["backup"], ["compress"]):
        more = ["elsewhere"] if command == ["backup"] else ["--delete-old"] if command == ["compress"] else []
        assert run([*command, str(write()), *more]) == ExitCode.USAGE
        assert "names a collection on a server" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", [["info"], ["list"], ["search", QUESTION, "--store"]])
def test_a_collection_that_does_not_exist_is_named(
    command: list[str], write: Write, server: StandIn, capsys: Capture
) -> None:
    file = write(collection_name="docz", layout=None, model=None)
    assert run([*command, str(file)]) == ExitCode.ERROR
    message = " ".join(capsys.readouterr().err.split())
    assert (
        f"the Qdrant collection 'docz' at {server.url}, which {file} names, does not exist: check its name" in message
    )
    assert f"or make it with colpali-integrations index PATH --store {file}" in message


def test_the_url_of_a_qdrant_server_is_no_store(server: StandIn, capsys: Capture) -> None:
    for arguments in (["info", server.url], ["search", QUESTION, "--store", server.url]):
        assert run(arguments) == ExitCode.ERROR
        message = " ".join(capsys.readouterr().err.split())
        assert "it is no server of this package" in message
        assert f'by a JSON file, such as {{"url": "{server.url}", "collection_name": "pages"}}' in message
    with pytest.raises(StoreError, match="A collection on a Qdrant server is opened by url= and collection_name="):
        MultiVectorStore.open(server.url)


def test_copy_into_a_folder_and_on_to_a_server(
    write: Write, server: StandIn, tmp_path: Path, collection: Made, capsys: Capture
) -> None:
    folder, other = tmp_path / "index", tmp_path / "own.json"
    assert run(["copy", str(write()), str(folder), "--first-stage", "ward"]) == ExitCode.OK
    assert capsys.readouterr().err.splitlines()[-1] == f"{COUNT} entries copied; {folder} has {COUNT}."
    assert run(["copy", str(write()), str(folder), "--json"]) == ExitCode.OK
    [again] = records(capsys)
    assert again == {
        **{"entries": COUNT, "copied": 0, "updated": 0, "present": COUNT, "without_vectors": 0},
        **{"target": str(folder), "pages": COUNT},
    }
    assert run(["search", "page 7", "--store", str(folder), "--hybrid", "-k", "1", "--json"]) == ExitCode.OK
    assert "page" in records(capsys)[0]["text"]
    other.write_text(json.dumps({"url": server.url, "collection_name": "copied"}))
    assert run(["copy", str(folder), str(other), "--filter", '{"filename": "2.pdf"}', "--quiet"]) == ExitCode.OK
    assert capsys.readouterr().err == ""
    assert run(["list", str(other), "--json"]) == ExitCode.OK
    assert [one["document_id"] for one in records(capsys)] == ["2.pdf"]
    assert run(["search", QUESTION, "--store", str(other), "-k", "2", "--json"]) == ExitCode.OK
    assert {one["source"] for one in records(capsys)} == {"2.pdf"}
    back = tmp_path / "back"
    assert run(["copy", str(other), str(back), "--quiet"]) == ExitCode.OK
    with MultiVectorStore.open(back) as there, MultiVectorStore.open(folder) as source:
        assert {one.id: one for one in there.scroll()} == {one.id: one for one in source.scroll({"filename": "2.pdf"})}
    assert run(["copy", str(tmp_path / "nothing"), str(back)]) == ExitCode.ERROR
    assert "there is no store at" in capsys.readouterr().err
    collection.client.delete_collection("copied")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must be a JSON object with the keys url, "),
        ("{", "cannot be read as JSON"),
        ('{"collection_name": "pages"}', 'names no server; add "url"'),
        ('{"url": "http://localhost", "colection": "a"}', "has no option 'colection'; did you mean 'collection_name'?"),
        ('{"url": 3}', "url must be a text, or a list of texts, got 3"),
        ('{"url": "http://localhost", "model": 3}', "model must be a text, got 3"),
        ('{"url": "http://localhost", "layout": []}', "layout must be an object, got []"),
        ('{"url": "http://localhost", "writable": "no"}', "writable must be true or false, got 'no'"),
        ('{"url": "http://localhost", "layout": {"pages": "x"}}', "Layout has no option 'pages'; did you mean 'page'?"),
        ('{"url": "http://localhost", "model": "some/model", "layout": {}}', "pass it by --model"),
        ('{"url": "http://localhost", "options": {"model": "coltiny"}}', "'model' is a key of its own"),
        (
            '{"url": "http://localhost", "options": {"path": "my-index"}}',
            "options are arguments of QdrantClient, and 'path'",
        ),
        ('{"url": "http://localhost", "model": "%s", "layout": {}}' % ("a" * 5000), "it is too long (5000 characters)"),
        ('{"url": ""}', "url must be a text such as 'http://localhost:6333'"),
    ],
)
def test_wrong_files_are_refused(content: str, message: str, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(content)
    assert run(["info", str(file)]) == ExitCode.ERROR
    assert message in capsys.readouterr().err
    assert run(["info", str(tmp_path / "missing.json")]) == ExitCode.ERROR
    assert 'write {"url": "http://localhost:6333", "collection_name": "pages"} into it' in capsys.readouterr().err


def test_a_collection_is_served(write: Write, collection: Made, coltiny: ColPali) -> None:
    file = write()
    with serving(file) as (_, lines):
        body = {"query": QUESTION, "k": 4, "regions": True, "pictures": True, "filter": {"filename": "2.pdf"}}
        options: dict[str, Any] = {"trust_env": False, "timeout": 60}
        url = url_in(lines)
        found = httpx.post(f"{url}/v1/search", json={**body, "filter": None}, **options).json()["hits"]
        assert [one["id"] for one in found] == [id_ for id_, _ in direct(collection, coltiny.embed_query(QUESTION), 4)]
        filtered = httpx.post(f"{url}/v1/search", json=body, **options).json()["hits"]
        assert {one["metadata"]["filename"] for one in filtered} == {"2.pdf"}
        hybrid = httpx.post(f"{url}/v1/search", json={"query": QUESTION, "hybrid": True}, **options)
        assert hybrid.status_code == 400
        assert "has no vector of words" in hybrid.text
        with MultiVectorStore.open(url, model=coltiny) as remote:
            assert len(remote) == COUNT
            hits = remote.search(coltiny.embed_query(QUESTION), 4, mode="two_stage")
            assert [hit.id for hit in hits] == [one["id"] for one in found]


def test_a_served_collection_refuses_changes_at_once_with_the_reason(
    write: Write, collection: Made, examples_folder: Path
) -> None:
    report = examples_folder / "report.pdf"
    options: dict[str, Any] = {"trust_env": False, "timeout": 60}
    with serving(write()) as (_, lines):
        url, told = url_in(lines), "".join(lines)
        assert "docs.json is open for reading, so no caller can add or delete." in told
        assert "in a browser to search." in told
        assert "Add: curl" not in told
        refused = [
            httpx.post(f"{url}/v1/documents", files={"file": (report.name, report.read_bytes())}, **options),
            httpx.delete(f"{url}/v1/documents/2.pdf", **options),
        ]
        for answer in refused:
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "read_only_index")
            assert 'add "writable": true to the file of --store' in answer.json()["message"]
            assert "retry-after" not in answer.headers
        assert httpx.get(f"{url}/v1/jobs", **options).json()["jobs"] == []
        assert httpx.get(f"{url}/session", **options).json()["may_change"] is False
        with MultiVectorStore.open(url) as remote, pytest.raises(StoreError, match="is open for reading"):
            remote.add(unread())
    with serving(write(writable=True)) as (_, lines):
        assert httpx.get(f"{url_in(lines)}/session", **options).json()["may_change"] is True


def unread() -> Iterator[Any]:
    raise AssertionError("the records were read, and pages encoded, in vain")
    yield


def test_metadata_of_a_served_layout_are_changed_but_for_its_own_keys(
    write: Write, collection: Made, coltiny: ColPali
) -> None:
    with serving(write(writable=True)) as (_, lines), MultiVectorStore.open(url_in(lines), model=coltiny) as remote:
        for key in ("filename", "page_num", "text", "source", "page"):
            with pytest.raises(InputError, match=f"update_metadata: {key} describes the page and cannot be changed"):
                remote.update_metadata("1.pdf", {key: "another", "year": 2024})
        assert remote.count({"year": 2024}) == 0
        assert remote.update_metadata("1.pdf", {"year": 2024}) == remote.count({"year": 2024}) == 13
        assert remote.update_metadata("1.pdf", {"year": None}) == 13
        assert remote.count({"year": 2024}) == 0
        facts = remote.info().to_dict()
    assert facts["layout"] == collection.layout.to_dict()
    assert (facts["distance"], facts["datatype"], facts["entries"]) == ("cosine", "float32", COUNT)
    assert not {"language", "pool_factor", "precision", "format"} & facts.keys()


def test_info_says_only_what_is_known(write: Write, capsys: Capture) -> None:
    assert run(["info", str(write())]) == ExitCode.OK
    shown = " ".join(capsys.readouterr().out.split())
    assert "model coltiny" in shown
    assert "layout full (colpali), source (filename), page (page_num), text (text)" in shown
    assert "distance cosine" in shown
    first = {"first": ["muvera_fde", "mean"], "muvera": {"k_sim": 5}}
    print_facts({"layout": first})
    assert "layout first (muvera_fde, mean), muvera (k_sim=5)" in " ".join(capsys.readouterr().out.split())
    assert "datatype float32" in shown
    for unknown in ("english", "float16", "quantization", "pool factor", "format"):
        assert unknown not in shown


def test_fields_get_an_index(server: StandIn, tmp_path: Path, examples_folder: Path, capsys: Capture) -> None:
    file = tmp_path / "indexed.json"
    file.write_text(json.dumps({"url": server.url, "collection_name": "indexed", "indexes": {"open": "bool"}}))
    arguments = ["index", str(examples_folder / "report.pdf"), "--metadata", "year=2024", "--store"]
    fields = ["--index-field", "year=number", "--index-field", "tenant.of=tenant"]
    assert run([*arguments, str(file), *fields, "--quiet"]) == ExitCode.OK
    assert run(["info", str(file), "--json"]) == ExitCode.OK
    [info] = records(capsys)
    assert info["indexes"].items() >= {"open": "bool", "year": "number", "tenant.of": "tenant"}.items()
    for place, reason in (("http://localhost:8765", "the URL of a server of this package"), ("my-index", "a folder")):
        assert run([*arguments, place, *fields]) == ExitCode.USAGE
        error = " ".join(capsys.readouterr().err.replace("│", "").split())
        assert f"whose JSON file --store names, and {place} is {reason}" in error
    for wrong in ("year", "year=date", "=text"):
        assert run([*arguments, str(file), "--index-field", wrong]) == ExitCode.USAGE
        assert "is not of the form FIELD=KIND" in " ".join(capsys.readouterr().err.replace("│", "").split())
