"""Options of checkpoints: the same at every command that takes a model, and kept by a store."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path

import pytest

from colpali_integrations import ColPali
from colpali_integrations.cli.app import ExitCode, app, run
from colpali_integrations.cli.model_options import CheckpointOptions
from colpali_integrations.stores import stored_settings
from tests.stores.documents import draw

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
NEOMME = str(FIXTURES / "neomme")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    for number in range(3):
        draw(f"page {number}").resize((90, 60)).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(3)]


def test_every_command_that_takes_a_model_has_them_all() -> None:
    names = {one.name for one in fields(CheckpointOptions)}
    assert names <= set(inspect.signature(ColPali.from_pretrained).parameters)
    commands = {one.name or one.callback.__name__: one.callback for one in app.registered_commands if one.callback}
    for name, callback in commands.items():
        parameters = set(inspect.signature(callback).parameters)
        assert names <= parameters if "model" in parameters else not names & parameters, name


def test_a_store_goes_on_with_the_options_of_its_pages(pictures: list[str], tmp_path: Path, capsys: Capture) -> None:
    store = ["--store", str(tmp_path / "store"), "--model", NEOMME]
    assert run(["index", pictures[0], *store, "--precision", "int8", "--max-side", "64", "--quiet"]) == ExitCode.OK
    settings = stored_settings(tmp_path / "store")
    assert settings is not None
    assert settings.model.fingerprint.pages.options == {"precision": "int8", "max_side": 64}
    assert run(["index", pictures[1], *store, "--quiet"]) == ExitCode.OK
    assert run(["search", "page", *store, "--json"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert captured.err == "", "no word about other settings"

    assert run(["search", "page", *store, "--precision", "float32", "--json"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "questions are encoded by neomme (precision float32" in " ".join(captured.err.split())
    assert run(["index", pictures[2], *store, "--precision", "float32"]) == ExitCode.ERROR
    assert "pages of one" in " ".join(capsys.readouterr().err.split())


def test_an_adapter_is_indexed_with_its_base(pictures: list[str], tmp_path: Path, capsys: Capture) -> None:
    adapter = ["--model", str(FIXTURES / "colqwen2_5"), "--base", str(FIXTURES / "colqwen2_5-base")]
    store = ["--store", str(tmp_path / "store")]
    assert run(["index", pictures[0], *adapter, *store, "--max-num-visual-tokens", "16", "--quiet"]) == ExitCode.OK
    assert run(["search", "page", *adapter, *store, "--json"]) == ExitCode.OK
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert run(["doctor", *adapter, "--json"]) == ExitCode.OK
    checks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    files, embeds = [check for check in checks if check["group"] == "models"]
    assert files["detail"].startswith(f"in {FIXTURES / 'colqwen2_5'}")
    assert embeds["detail"].startswith("embeds a page")


def test_an_export_has_the_options_that_it_was_made_with(pictures: list[str], tmp_path: Path, capsys: Capture) -> None:
    export = str(tmp_path / "export")
    assert run(["export", NEOMME, export, "--precision", "int8", "--max-side", "64"]) == ExitCode.OK
    capsys.readouterr()
    stores = [["--store", str(tmp_path / name)] for name in ("one", "two")]
    assert run(["index", pictures[0], "--model", export, *stores[0], "--quiet"]) == ExitCode.OK
    index = ["index", pictures[0], "--model", NEOMME, *stores[1], "--quiet", "--precision", "int8", "--max-side", "64"]
    assert run(index) == ExitCode.OK
    one, two = (stored_settings(tmp_path / name) for name in ("one", "two"))
    assert one is not None
    assert two is not None
    assert one.model.fingerprint == two.model.fingerprint
    # The checkpoint goes on in the export's store, and the export in the checkpoint's, without options.
    assert run(["index", pictures[1], "--model", NEOMME, *stores[0], "--quiet"]) == ExitCode.OK
    assert run(["index", pictures[1], "--model", export, *stores[1], "--quiet"]) == ExitCode.OK


@pytest.mark.parametrize("command", [["index", "0.png", "--store", "store"], ["doctor"]])
def test_they_need_a_model(
    command: list[str], pictures: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*command, "--precision", "int8", "--max-side", "64"]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert "--precision, --max-side: " in error
    assert "by --model" in error
    assert not (tmp_path / "store").exists()


def test_the_option_of_another_family_names_those_that_the_model_has(capsys: Capture) -> None:
    model = ["doctor", "--model", str(FIXTURES / "colqwen2"), "--max-side", "100"]
    assert run(model) == ExitCode.ERROR
    assert "which has --precision, --allow-unused, --base, --max-num-visual-tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        *(["index", "0.png", "--store", "store"], ["search", "page", "--store", "my-index"], ["doctor"]),
        *(["quantize"], ["export"]),
    ],
)
def test_an_option_that_is_none_of_the_model_s_is_refused(
    command: list[str], pictures: list[str], tmp_path: Path, examples_folder: Path, capsys: Capture
) -> None:
    named = ["coltiny", "out"] if command[0] in ("quantize", "export") else ["--model", "coltiny"]
    if command[0] == "index":
        command = ["index", pictures[0], *command[2:]]
    assert run([*command, *named, "--precision", "int8"]) == ExitCode.ERROR
    assert "coltiny is an ONNX export" in " ".join(capsys.readouterr().err.split())
    assert run([*command, *named, "--precision", "int9"]) == ExitCode.USAGE
    assert not (examples_folder / "out").exists()
    assert not (examples_folder / "store").exists()


def test_pages_without_plain_paper(pictures: list[str], tmp_path: Path, capsys: Capture) -> None:
    store = ["--store", str(tmp_path / "store"), "--model", NEOMME]
    assert run(["index", pictures[0], *store, "--drop-blank", "--quiet"]) == ExitCode.OK
    settings = stored_settings(tmp_path / "store")
    assert settings is not None
    assert settings.model.fingerprint.pages.options["drop_blank"] is True
    assert run(["index", pictures[1], *store, "--quiet"]) == ExitCode.OK, "goes on with the option"
    assert run(["index", pictures[2], "--store", str(tmp_path / "other"), "--drop-blank"]) == ExitCode.USAGE
    assert "--drop-blank: ColTiny, which makes a new index" in " ".join(capsys.readouterr().err.split())
