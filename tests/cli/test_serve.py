"""`serve` as a command: its opening words, its end by a signal, and its refusals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from colpali_integrations.cli.app import run
from colpali_integrations.server.settings import KEY_VARIABLE
from tests.server.conftest import KEY

COMMAND = [sys.executable, "-m", "colpali_integrations.cli", "serve", "--port", "0"]


@contextmanager
def serving(store: Path, *arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process of the command, and the lines that it has printed before it answers."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **variables}
    command = [*COMMAND, "--store", str(store), *arguments]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
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
    assert not (tmp_path / "index").exists()
