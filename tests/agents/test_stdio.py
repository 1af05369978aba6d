"""`mcp` as a process, with the SDK's own client and with messages written by hand."""

from __future__ import annotations

import base64
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.agents.descriptions import INSTRUCTIONS, TOOLS
from colpali_integrations.cli.app import run
from colpali_integrations.stores import index_documents
from tests.agents.clients import COMMAND, called, over_stdio, pictures_of, plain, read, roots_of, texts_of
from tests.conftest import few_pages

QUESTION = "diverging palettes"


async def test_an_agent_finds_and_reads_a_page(library: Path) -> None:
    async with over_stdio(*roots_of(library)) as session:
        tools = {one["name"]: one for one in plain(await session.list_tools())["tools"]}
        assert list(tools) == ["list_documents", "search_pages", "read_page"] == [one.name for one in TOOLS]
        assert all(one["annotations"]["readOnlyHint"] for one in tools.values())
        assert tools["search_pages"]["inputSchema"]["required"] == ["question"]

        listed = (await called(session, "list_documents"))["structuredContent"]
        assert [one["name"] for one in listed["documents"]] == ["geyser.pdf", "report.pdf"]

        found = await called(session, "search_pages", question=QUESTION, k=2)
        assert texts_of(found)[0].startswith("1. report.pdf, page 1 of 2") and len(pictures_of(found)) == 2
        picture = Image.open(io.BytesIO(base64.b64decode(pictures_of(found)[0])))
        assert max(picture.size) >= 1000

        text = await called(session, "read_page", document="report.pdf", page=1, format="text")
        assert QUESTION.split()[0] in texts_of(text)[0].casefold()

        refused = await called(session, "read_page", document="reprot.pdf", page=1)
        assert refused["isError"] and "the closest are 'report.pdf'" in texts_of(refused)[0]


async def test_pages_and_documents_are_resources(library: Path) -> None:
    async with over_stdio(*roots_of(library)) as session:
        resources = plain(await session.list_resources())["resources"]
        assert [one["name"] for one in resources] == ["geyser.pdf", "report.pdf"]
        [document] = await read(session, resources[1]["uri"])
        assert "report.pdf: 2 pages" in document["text"]
        templates = plain(await session.list_resource_templates())["resourceTemplates"]
        assert [one["uriTemplate"] for one in templates] == [
            "document://index/{document}",
            "page://index/{document}/{page}",
        ]
        page = resources[1]["uri"].replace("document://", "page://") + "/2"
        kinds = [(one["mimeType"], bool(one.get("blob"))) for one in await read(session, page)]
        assert ("text/plain", False) in kinds and any(blob for _, blob in kinds)
        for wrong in (page[:-1] + "9", "page://index/lost.pdf/1", "page://elsewhere/x/1"):
            with pytest.raises(Exception, match=r"the index has no|no such resource"):
                await read(session, wrong)


async def test_a_store_that_grows_is_seen_and_index_runs_beside(tmp_path: Path, coltiny: ColPali) -> None:
    few_pages(tmp_path / "a.pdf", [3])
    few_pages(tmp_path / "b.pdf", [7])
    assert run(["index", str(tmp_path / "a.pdf"), "--store", str(tmp_path / "index"), "--quiet"]) == 0
    async with over_stdio("--store", str(tmp_path / "index")) as session:
        assert (await called(session, "list_documents"))["structuredContent"]["total"] == 1
        assert run(["index", str(tmp_path / "b.pdf"), "--store", str(tmp_path / "index"), "--quiet"]) == 0
        assert (await called(session, "list_documents"))["structuredContent"]["total"] == 2
        # What was indexed meanwhile is shown too: no --root was passed.
        found = await called(session, "search_pages", question="seats in the parliament", k=1)
        assert texts_of(found)[0].startswith("1. b.pdf") and len(pictures_of(found)) == 1
        # A store that is put in the place of this one is opened again.
        shutil.rmtree(tmp_path / "index")
        index_documents([tmp_path / "b.pdf"], model=coltiny, store=tmp_path / "index")
        assert (await called(session, "list_documents"))["structuredContent"]["total"] == 1


def message(method: str, number: int | None = None, **parameters: Any) -> str:
    head = {} if number is None else {"id": number}
    return json.dumps({"jsonrpc": "2.0", **head, "method": method, "params": parameters}) + "\n"


BEGIN = message(
    "initialize",
    1,
    protocolVersion="2025-06-18",
    capabilities={},
    clientInfo={"name": "test", "version": "1"},
) + message("notifications/initialized")


def started(folder: Path, code: str | None = None) -> subprocess.Popen[str]:
    command = COMMAND if code is None else ["-c", code, "mcp"]
    return subprocess.Popen(
        [sys.executable, *command, *roots_of(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


NOISY = """
import os, sys
from colpali_integrations import cli
from colpali_integrations.agents import tools
def noisy(self, *arguments, plain=tools.PageTools.call):
    print("printed"); os.write(1, b"written\\n"); os.system("echo by a child")
    return plain(self, *arguments)
tools.PageTools.call = noisy
cli.main()
"""


def test_nothing_but_the_protocol_is_on_standard_output_and_the_end_of_input_ends_it(library: Path) -> None:
    with started(library, NOISY) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(BEGIN + message("tools/call", 2, name="list_documents", arguments={}))
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.stdin.close()
        rest, log = process.stdout.read(), process.stderr.read()
        assert process.wait(20) == 0
    assert [one["id"] for one in answers] == [1, 2] and rest == ""
    assert answers[0]["result"]["instructions"] == INSTRUCTIONS
    assert answers[1]["result"]["structuredContent"]["total"] == 2
    assert all(word in log for word in ("printed", "written", "by a child")) and "Traceback" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_though_input_is_open(number: signal.Signals, library: Path) -> None:
    with started(library) as process:
        assert process.stdin and process.stdout
        process.stdin.write(BEGIN)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.send_signal(number)
        assert process.wait(10) == 0


def test_a_client_that_is_gone_is_no_error(library: Path) -> None:
    with started(library) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(BEGIN)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(message("tools/list", 2))
        process.stdin.flush()
        time.sleep(0.5)
        process.stdin.close()
        assert process.stderr.read() == "" and process.wait(20) == 0


SESSIONS = """
import gc, sys
from colpali_integrations import cli
from colpali_integrations.agents import protocol
async def listed(self, parameters, plain=protocol._Handlers.list_tools):
    print(sum(type(one).__name__ == "InferenceSession" for one in gc.get_objects()), "sessions", file=sys.stderr)
    return await plain(self, parameters)
protocol._Handlers.list_tools = listed
cli.main()
"""


def test_tools_are_listed_before_the_model_is_loaded(library: Path) -> None:
    search = message("tools/call", 3, name="search_pages", arguments={"question": QUESTION, "images": False})
    with started(library, SESSIONS) as process:
        assert process.stdin and process.stdout and process.stderr
        for line in (BEGIN, message("tools/list", 2), search, message("tools/list", 4)):
            process.stdin.write(line)
            process.stdin.flush()
            process.stdout.readline()
        process.stdin.close()
        before, after = process.stderr.read().splitlines()
        assert before == "0 sessions" != after


def test_refusals_of_the_command(tmp_path: Path, library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mcp", "--store", str(tmp_path / "none")]) == 1
    assert "there is no store" in capsys.readouterr().err
    assert run(["mcp", "--store", str(library / "index"), "--root", str(tmp_path / "none")]) == 1
    assert "is not a folder" in capsys.readouterr().err
