"""The command line with the URL of a server in the place of a folder."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from colpali_integrations import ColPali
from colpali_integrations._keys import KEY_VARIABLE
from colpali_integrations.cli.app import run
from colpali_integrations.server.settings import ApiKey
from colpali_integrations.stores import Entry, MultiVectorStore
from tests.server.conftest import KEY, Running, Start
from tests.server.test_search import QUESTION

ENDED = "http://127.0.0.1:9"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[Any]:
    """The JSON objects that a command prints."""
    assert run([*arguments, "--json"]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the state folder of the user, or runs with the key of another server."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def test_it_searches_and_lists_as_in_the_folder(served: Running, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "search", QUESTION, "--store", served.url, "-k", "2")
    expected = served.store.search(QUESTION, 2).matching()
    assert [(one["id"], one["score"]) for one in found] == [(hit.id, round(hit.score, 4)) for hit in expected]
    [first] = printed(capsys, "search", QUESTION, "--store", f"{served.url}/", "--filter", '{"page": 1}')
    assert {**first, "halves": None} == {**found[0], "halves": None}  # words weigh less among fewer pages
    [info] = printed(capsys, "info", served.url)
    assert (info["entries"], info["bytes"]) == (2, None)
    [document] = printed(capsys, "list", served.url)
    assert document["document_id"] in served.store.documents()
    assert run(["info", served.url]) == 0
    assert "None" not in capsys.readouterr().out


def test_it_is_measured_as_in_the_folder(served: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": QUESTION, "source": "report.pdf", "page": 1}) + "\n")
    arguments = ["evaluate", str(questions), "-k", "1", "-c", "mode=exact", "-c", "hybrid=0.2", "-c", "pooling=2"]
    results = []
    for place in (
        served.url,
        str(served.store._engine.folder),  # type: ignore[attr-defined]
    ):
        [result] = printed(capsys, *arguments, "--store", place)
        results.append({key: value for key, value in result.items() if key != "store"})
    assert results[0] == results[1]
    html = tmp_path / "misses.html"
    assert run([*arguments[:2], "--store", served.url, "--html", str(html), "--model", "coltiny"]) == 0
    assert html.exists()


def test_it_indexes_and_deletes_there(
    start: Start, papers: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server = start()
    [report] = printed(capsys, "index", str(papers), "--store", server.url)
    assert (report["added"], report["store"], len(server.store)) == (2, server.url, 2)
    assert not list(tmp_path.glob("http*"))
    html = tmp_path / "found.html"
    assert run(["search", QUESTION, "--store", server.url, "--html", str(html)]) == 0
    assert "No picture" not in capsys.readouterr().err  # its file is here
    [document] = server.store.documents()
    [removed] = printed(capsys, "delete", server.url, document)
    assert removed == {"removed": 2, "pages": 0}
    assert "has no documents" in " ".join(capture(["list", server.url], capsys, code=3).split())
    [removed] = printed(capsys, "remove", "--store", server.url, "--document-id", document, code=3)
    assert removed == {"removed": 0, "pages": 0}


def capture(arguments: list[str], capsys: pytest.CaptureFixture[str], *, code: int) -> str:
    assert run(arguments) == code
    return capsys.readouterr().err


def test_the_key_is_that_of_the_environment(
    start: Start, coltiny: ColPali, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(key=ApiKey(KEY, where="a"), read_key=ApiKey(f"{KEY}-reads", where="b"))
    for command in (["search", "tide", "--store"], ["info"], ["list"], ["mcp", "--store"]):
        error = capture([*command, server.url], capsys, code=1)
        assert f"Set the environment variable {KEY_VARIABLE}" in " ".join(error.split()), error
        assert "api_key_file" not in error
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert run(["info", server.url]) == 0
    monkeypatch.setenv(KEY_VARIABLE, f"{KEY}-reads")
    assert run(["info", server.url]) == 0
    server.store.add([(Entry(id="a", document_id="a"), coltiny.embed_query("tide"))])
    refused = " ".join(capture(["delete", server.url, "a"], capsys, code=1).split())
    assert "may search and read, and not add, change or delete" in refused
    assert KEY not in refused


def test_agents_read_it_and_see_pages_whose_files_are_here(served: Running, papers: Path) -> None:
    arguments = ["-m", "colpali_integrations.cli", "mcp", "--store", served.url, "--root", str(papers)]

    async def asked() -> Any:
        parameters = StdioServerParameters(command=sys.executable, args=arguments)
        async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
            await session.initialize()
            return await session.call_tool("search_pages", {"question": QUESTION, "k": 1})

    answer = anyio.run(asked)
    assert [block.type for block in answer.content] == ["text", "image"]
    assert answer.content[0].text.startswith("1. report.pdf, page 1")


@pytest.mark.parametrize("command", ["verify", "repair", "backup", "prune", "compress", "serve"])
def test_what_needs_the_files_is_for_the_machine_of_the_server(
    command: str, served: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = [served.url] if command != "serve" else ["--store", served.url]
    further = {"backup": [str(tmp_path / "b")], "prune": [str(tmp_path)]}
    error = " ".join(capture([command, *place, *further.get(command, [])], capsys, code=2).split())
    assert "is the URL of a server" in error.replace("│ ", "")


def test_a_url_without_a_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["search", "tide", "--store"], ["info"], ["list"], ["index", __file__, "--store"]):
        error = " ".join(capture([*command, ENDED], capsys, code=1).split())
        assert f"{ENDED} cannot be reached" in error
        assert "Traceback" not in error
    assert run(["list", "http://user:secret-word@localhost:1"]) == 2
    assert "secret-word" not in capsys.readouterr().err


def test_a_store_elsewhere_is_pickled_by_its_url(served: Running, coltiny: ColPali) -> None:
    with MultiVectorStore.open(served.url, model="coltiny") as far, pickle.loads(pickle.dumps(far)) as copied:
        assert copied.where == far.where
        assert len(copied) == 2
