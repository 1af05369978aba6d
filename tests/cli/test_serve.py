"""`serve` as a command: its opening words, its end by a signal, and its refusals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from colpali_integrations.cli.app import run
from colpali_integrations.server.settings import KEY_VARIABLE, READ_KEY_VARIABLE
from tests.server.conftest import KEY

COMMAND = [sys.executable, "-m", "colpali_integrations.cli", "serve", "--port", "0"]


@contextmanager
def serving(
    store: Path, *arguments: str, command: Sequence[str] = COMMAND, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process of the command, and the lines that it has printed before it answers."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **variables}
    with subprocess.Popen(
        [*command, "--store", str(store), *arguments], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        try:
            while not any("Ask: curl" in line for line in lines):
                lines.append(process.stderr.readline())
                assert lines[-1], lines
            yield process, lines
        finally:
            process.kill()


def url_in(lines: list[str]) -> str:
    [url] = re.findall(r"at (http://\S+);", "".join(lines))
    return str(url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_words_are_a_command_that_works_and_a_signal_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path / "index") as (process, lines):
        [ask] = [line for line in lines if "Ask: " in line]
        assert f"{url_in(lines)}/v1/search -H 'Content-Type: application/json' -d '{{\"query\"" in ask
        assert httpx.post(f"{url_in(lines)}/v1/search", json={"query": "tide"}, trust_env=False).json()["hits"] == []
        process.send_signal(number)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "has stopped" in rest
    assert "Traceback" not in rest


BROWSER = """
import sys, webbrowser
from colpali_integrations import cli
def opened(url):
    print("browser at", url, file=sys.stderr, flush=True)
    return False
webbrowser.open = opened
cli.main()
"""


def test_the_browser_is_opened_once_the_server_answers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BROWSER, *COMMAND[3:], "--open"]
    with serving(tmp_path / "index", command=command) as (process, lines):
        assert process.stderr is not None
        while not any("No browser could be opened" in line for line in lines):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        [line] = [line for line in lines if line.startswith("browser at")]
        assert line.split()[-1] == url_in(lines)
        assert "<title>Page search</title>" in httpx.get(url_in(lines), trust_env=False).text


ENDLESS = """
import sys, time
from colpali_integrations import cli
from colpali_integrations.server import embeddings, serving
def endless(*arguments):
    print("it encodes", file=sys.stderr, flush=True)
    time.sleep(1000)
embeddings._single, serving._SECONDS_TO_END, serving._SECONDS_AT_MOST = endless, 1, 2.5
cli.main()
"""


def test_a_signal_ends_an_encoding_that_does_not_end(tmp_path: Path) -> None:
    answers: list[httpx.Response] = []

    def ask(url: str) -> None:
        answers.append(httpx.post(f"{url}/v1/embeddings", json={"input": "tide"}, trust_env=False, timeout=60))

    command = [sys.executable, "-c", ENDLESS, *COMMAND[3:]]
    with serving(tmp_path / "index", command=command) as (process, lines):
        thread = threading.Thread(target=ask, args=[url_in(lines)])
        thread.start()
        assert process.stderr is not None
        while "it encodes" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
        thread.join(30)
    assert process.returncode == 0
    assert "was given up" in " ".join(rest.split())
    assert "Traceback" not in rest
    assert answers[0].status_code == 503
    assert "the server is stopping" in answers[0].json()["message"]


def test_a_key_of_the_environment_is_required_and_shown_nowhere(tmp_path: Path) -> None:
    with serving(tmp_path / "index", "--debug", **{KEY_VARIABLE: KEY}) as (process, lines):
        url = url_in(lines)
        assert httpx.post(f"{url}/v1/search", json={"query": "tide"}, trust_env=False).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{url}/v1/search", json={"query": "tide"}, headers=headers, trust_env=False)
        assert answer.status_code == 200
        process.terminate()
        _, rest = process.communicate(timeout=30)
    assert KEY not in "".join(lines) + rest
    assert "no API key" not in "".join(lines)


def test_a_key_that_only_reads_is_given_by_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}-for-reading\n")
    with serving(tmp_path / "index", "--read-key-file", str(file), **{READ_KEY_VARIABLE: "x"}) as (process, lines):
        assert process.stderr is not None
        while "no caller can add or delete" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        url, headers = url_in(lines), {"Authorization": f"Bearer {KEY}-for-reading"}
        assert httpx.get(f"{url}/v1/documents", trust_env=False).status_code == 401
        assert httpx.get(f"{url}/v1/documents", headers=headers, trust_env=False).status_code == 200
        assert httpx.delete(f"{url}/v1/documents/a", headers=headers, trust_env=False).status_code == 403
        process.terminate()
        _, rest = process.communicate(timeout=30)
    text = "".join(lines) + rest
    assert "$COLPALI_READ_API_KEY" in text
    assert "Add: curl" not in text
    assert KEY not in text


def test_a_folder_of_documents_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "report.pdf").touch()
    assert run(["serve", "--store", str(tmp_path)]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert f"--store {tmp_path} holds no index but 1 document, such as report.pdf." in error
    assert f"index {tmp_path} --store my-index" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]


def test_what_cannot_be_served_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert run(["serve", "--store", str(tmp_path / "index"), "--host", "0.0.0.0"]) == 1
    assert "--api-key-file" in capsys.readouterr().err
    assert run(["serve", "--store", str(tmp_path / "index"), "--root", str(tmp_path / "none")]) == 1
    assert "is not a folder" in capsys.readouterr().err
    assert run(["serve", "--store", str(tmp_path / "index"), "--host", "192.0.2.1", "--api-key-file", "none"]) == 1
    assert "cannot be read" in capsys.readouterr().err
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv(READ_KEY_VARIABLE, KEY)
    assert run(["serve", "--store", str(tmp_path / "index")]) == 1
    assert "make a second key for those who may only read" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "index").exists()
