"""Names, texts and messages from elsewhere neither change the terminal nor forge lines, in every command."""

from __future__ import annotations

import io
import json
import logging
import sys
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

import colpali_integrations
from colpali_integrations._text import printable
from colpali_integrations.cli import display
from colpali_integrations.cli.app import ExitCode, app, run
from colpali_integrations.errors import InputError
from colpali_integrations.models import ColPali
from colpali_integrations.stores import DocumentWarning, Entry, IngestReport, MultiVectorStore
from colpali_integrations.stores.ingestion.failures import Failure
from colpali_integrations.stores.ingestion.progress import Progress

PACKAGE = Path(colpali_integrations.__file__).parent
HOSTILE = "a\x1b[2J\x9b2J\nERROR forged\r\u2028\u202eb\u2066[bold red]c[/] :bug:\udcff"
SHOWN = r"a\x1b[2J\x9b2J\nERROR forged\r\u2028\u202eb\u2066[bold red]c[/] :bug:\udcff"
# What a file system and a store take of it.
NAME = HOSTILE.replace("\udcff", "").replace("/", "")
UNSAFE = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2028, 0x2066, 0xDCFF)} - {"\n"}
RUN = (
    *("index", "search", "list", "info", "delete", "prune", "remove", "verify", "repair", "backup", "models"),
    *("compress", "copy", "evaluate"),
)
# These print names of models and of the caller's own folders, by the same functions.
BY_DISPLAY = ("doctor", "export", "mcp", "quantize", "serve")


def assert_safe(text: str) -> None:
    assert not UNSAFE & set(text), text
    assert not [line for line in text.splitlines() if line.startswith(("ERROR", "2J"))], text


@pytest.fixture
def folder(tmp_path: Path, coltiny: ColPali) -> Path:
    documents = tmp_path / "documents"
    documents.mkdir()
    try:
        (documents / f"{NAME}.pdf").write_bytes(b"no PDF")
    except OSError:
        pytest.skip("this system has no such names")
    Image.new("RGB", (60, 60), "white").save(documents / f"{NAME}.png")
    [page] = coltiny.embed_images(documents / f"{NAME}.png")
    metadata = {"source": f"/gone/{NAME}", "file_path": str(documents / f"{NAME}!"), "page": 1}
    with MultiVectorStore.open(tmp_path / "store", model=coltiny) as store:
        store.add([(Entry(id="1", text=NAME, metadata=metadata, document_id=str(documents / NAME)), page)])
    return tmp_path


def test_every_command_is_tried() -> None:
    assert {command.name or command.callback.__name__ for command in app.registered_commands} == {*RUN, *BY_DISPLAY}  # type: ignore[union-attr]


@pytest.mark.parametrize("command", RUN)
def test_commands_print_hostile_names_safely(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, documents = str(folder / "store"), folder / "documents"
    questions = folder / "questions.jsonl"
    questions.write_text(json.dumps({"question": NAME, "source": f"other {NAME}", "page": 1}), encoding="utf-8")
    arguments = {
        "index": [str(documents), "--store", store],
        "search": ["forged", "--store", store, "--hybrid"],  # the words of the text are a match
        "delete": [store, str(documents / NAME), f"no {NAME}"],
        "prune": [store, str(documents)],
        "remove": ["--store", store, "--document-id", NAME],
        "backup": [store, str(folder / NAME.replace("/", ""))],
        "models": [],
        "compress": [store, "--sample", "1"],
        "copy": [store, str(folder / NAME)],
        "evaluate": [str(questions), "--store", store],
    }.get(command, [store])
    for debug in ([], ["--debug"]):
        run([command, *arguments, *debug])
        out, err = capsys.readouterr()
        assert_safe(out)
        assert_safe(err)
        if command in ("index", "search", "list", "delete", "prune"):
            assert r"\x1b" in out + err


def test_json_has_the_names_themselves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", str(folder / "store"), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["document_id"] == str(folder / "documents" / NAME)


def test_displayed_text_is_literal(capsys: pytest.CaptureFixture[str]) -> None:
    display.error(HOSTILE)
    display.note(HOSTILE)
    display.result(HOSTILE)
    display.facts({"model": HOSTILE})
    failure = Failure(HOSTILE, InputError(f"{HOSTILE}: {HOSTILE}"))
    display.IndexProgress(quiet=True)(Progress(1, 2, HOSTILE, failure))
    display.warnings([DocumentWarning(HOSTILE, HOSTILE)])
    display.index_summary(IngestReport(), Path(HOSTILE), {}, 1.0)
    try:
        raise InputError(HOSTILE)
    except InputError:
        display.traceback()
    out, err = capsys.readouterr()
    assert_safe(out)
    assert out.count(SHOWN) == 2
    assert err.count(SHOWN) == 8
    assert_safe(err)


def test_errors_do_not_change_the_terminal() -> None:
    error = InputError(f"{HOSTILE} is damaged").at(3, HOSTILE)
    assert str(error) == f"item 3 ({SHOWN}): is damaged"
    assert not UNSAFE & set(str(error))
    assert error.item == HOSTILE


def modules_that_log() -> list[str]:
    files = (path for path in PACKAGE.rglob("*.py") if "= package_logger(__name__)" in path.read_text(encoding="utf-8"))
    return [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files]


@pytest.mark.parametrize("name", modules_that_log())
def test_entries_of_every_logger_are_single_lines(name: str, caplog: pytest.LogCaptureFixture) -> None:
    import_module(name)
    logger = logging.getLogger(name)
    with caplog.at_level(logging.DEBUG, name):
        logger.warning("skipped %s: %s (%d of %r)", HOSTILE, InputError(HOSTILE), 3, Path(HOSTILE))
        logger.warning("%(name)s", {"name": HOSTILE})
        logger.warning("ready: %s in %.1f s", "report.pdf", 2.0)
    first, second, third = caplog.records
    assert_safe(first.getMessage())
    assert "\n" not in first.getMessage()
    assert first.getMessage().startswith(f"skipped {SHOWN}: ")
    assert second.getMessage() == SHOWN
    assert (third.msg, third.args) == ("ready: %s in %.1f s", ("report.pdf", 2.0)), (
        "handlers may group entries by these"
    )


def test_entries_of_other_libraries_are_safe_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    handler = display.log_handler(logging.WARNING)
    handler.handle(logging.makeLogRecord({"msg": HOSTILE, "levelno": logging.WARNING, "levelname": "WARNING"}))
    assert not UNSAFE & set(capsys.readouterr().err)


def test_stdout_of_another_encoding_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    with display.any_encoding():
        display.result("日本 1")
    assert stream.errors == "strict"
    assert stream.buffer.getvalue().split() == [rb"\u65e5\u672c", b"1"]


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("C:\\new\\report.pdf", "Zürich 東京 עברית العربية 👩‍👩‍👧 [red]", ""):
        assert printable(text) == text
