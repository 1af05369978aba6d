"""The commands and models: which of them a command opens by itself, and which settings a store takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.cli.app import ExitCode, run
from colpali_integrations.errors import FingerprintError
from colpali_integrations.models import find_model
from colpali_integrations.stores import MultiVectorStore, StoredModel, index_documents, stored_settings
from tests.models.builder.checkpoints import read, save
from tests.models.hub_server import COMMIT, Hub, serve
from tests.stores.documents import draw
from tests.stores.stored_models import made_up

Capture = pytest.CaptureFixture[str]
Command = Callable[..., subprocess.CompletedProcess[str]]
NEOMME = find_model("Hcompany/NeoMME-260M-Retriever")
FIXTURE = Path(__file__).parents[1] / "parity" / "fixtures" / "neomme"


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    for number in range(2):
        draw(f"page {number}").resize((90, 60)).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(2)]


def test_a_model_of_the_same_space_may_ask_and_says_so_once(
    one_space: tuple[Path, Path], pictures: list[str], tmp_path: Path, capsys: Capture
) -> None:
    large, small = map(str, one_space)
    store = ["--store", str(tmp_path / "store")]
    assert run(["index", pictures[0], "--model", large, *store, "--quiet"]) == ExitCode.OK
    assert run(["search", "page", "--model", large, *store, "--json"]) == ExitCode.OK
    assert capsys.readouterr().err == ""
    assert run(["search", "page", "--model", small, *store, "--json"]) == ExitCode.OK
    error = " ".join(capsys.readouterr().err.split())
    assert error.count("holds pages made by large (precision float32") == 1
    assert "questions are encoded by small" in error
    assert run(["index", pictures[1], "--model", small, *store]) == ExitCode.ERROR
    error = " ".join(capsys.readouterr().err.split())
    assert (
        "pages of one: pass --model <the folder of 'large'> --precision float32, or index into a new --store." in error
    )
    assert run(["info", str(tmp_path / "store")]) == ExitCode.OK
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [["model", "large"], ["space", "tests/one-space (128)"], ["precision", "float32"]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command in a process of its own, with a Hub and a cache."""

    def execute(*arguments: str, hub: Hub) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.lower().startswith("hf_")}
        places = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        return subprocess.run(
            [sys.executable, "-m", "colpali_integrations.cli", *arguments],
            env={**clean, **places, "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return execute


@cache
def files() -> dict[str, bytes]:
    """A repository of the layout that is registered: its weights in one file."""
    content = {path.name: path.read_bytes() for path in FIXTURE.iterdir() if "golden" not in path.name}
    shards = [path for path in FIXTURE.iterdir() if path.suffix == ".safetensors"]
    with tempfile.TemporaryDirectory() as folder:
        arrays = {name: array for shard in shards for name, array in read(shard).items()}
        whole = save(Path(folder) / "model.safetensors", arrays).read_bytes()
    rest = {name: one for name, one in content.items() if not name.startswith("model")}
    return {**rest, "model.safetensors": whole}


@pytest.mark.parametrize("action", ["index", "search"])
def test_a_name_that_merely_stands_in_a_store_is_not_downloaded(
    action: str, command: Command, pictures: list[str], tmp_path: Path
) -> None:
    MultiVectorStore.open(tmp_path / "store", model=made_up("somebody/pages")).close()
    with serve(Hub("somebody/pages", files())) as hub:
        done = command(action, pictures[0], "--store", str(tmp_path / "store"), hub=hub)
        assert hub.requests == []
        assert done.returncode == ExitCode.ERROR
        assert "'somebody/pages', which is not registered here" in " ".join(done.stderr.split())
        named = command("search", "page", "--store", str(tmp_path / "store"), "--model", "somebody/pages", hub=hub)
        assert hub.requests != [], "the caller has named it"
    assert "cannot be compared" in " ".join(named.stderr.split())


def test_a_registered_model_goes_on_with_the_settings_of_the_pages(
    command: Command, pictures: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name, content in files().items():
        (folder / name).write_bytes(content)
    options: dict[str, Any] = {"precision": "int8", "max_side": 64, "cache_dir": tmp_path / "weights"}
    with ColPali.from_pretrained(NEOMME.name, local_dir=folder, threads=1, **options) as model:
        index_documents(pictures[:1], model=model, store=tmp_path / "store")
    with serve(Hub(NEOMME.name, files())) as hub:
        done = command("index", pictures[1], "--store", str(tmp_path / "store"), hub=hub)
        assert done.returncode == ExitCode.OK, done.stderr
        asked = command("search", "page", "--store", str(tmp_path / "store"), hub=hub)
    assert (asked.returncode, asked.stderr) == (ExitCode.OK, "")
    assert "1.png" in asked.stdout
    settings = stored_settings(tmp_path / "store")
    assert settings is not None
    made = replace(NEOMME, precision="int8", max_side=64, revision=model.description.revision)
    assert settings.model.same_pages(StoredModel.of(made))
    assert f"@{COMMIT},{model.description.revision}+" in settings.model.fingerprint.space, "both made pages"


def test_the_advice_is_a_call_that_can_be_run_and_on_the_command_line_its_options(
    pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLPALI_INTEGRATIONS_CACHE", str(tmp_path / "weights"))
    folder = shutil.copytree(FIXTURE, tmp_path / "my models" / "mine")
    store = tmp_path / "store"
    with ColPali.from_pretrained(folder, threads=1, max_side=64, precision="int8") as model:
        index_documents(pictures[:1], model=model, store=store)
    with (
        ColPali.from_pretrained(folder, threads=1, lazy_load=True) as other,
        MultiVectorStore.open(store) as opened,
        pytest.raises(FingerprintError) as caught,
    ):
        opened.require_pages(other)
    [call] = re.findall(r"open the model with (ColPali\..*), or index", str(caught.value))
    assert call == f"ColPali.from_pretrained('{folder}', precision='int8', max_side=64)"
    with eval(call) as advised, MultiVectorStore.open(store) as opened:
        opened.require_pages(advised)
    advice = f"pass --model '{folder}' --precision int8 --max-side 64, or index into a new --store."
    assert str(caught.value.command).endswith(f"pages of one: {advice}")


def test_a_model_that_cannot_be_loaded_ends_the_run_once(pictures: list[str], tmp_path: Path, capsys: Capture) -> None:
    damaged = shutil.copytree(FIXTURE, tmp_path / "damaged")
    [first, *_] = sorted(damaged.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:20_000])
    arguments = ["index", *pictures, "--model", str(damaged), "--store", str(tmp_path / "store")]
    assert run(arguments) == ExitCode.ERROR
    error = " ".join(capsys.readouterr().err.split())
    assert error.count("cut off or damaged") == 1
    assert "skipped" not in error


def test_another_registered_model_is_refused_before_a_download(
    pictures: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a download would be an error of another kind
    store = ["--store", str(tmp_path / "store")]
    assert run(["index", pictures[0], *store, "--quiet"]) == ExitCode.OK
    for command in (["index", pictures[1]], ["search", "page"]):
        assert run([*command, "--model", NEOMME.name, *store]) == ExitCode.ERROR
        assert "was made by coltiny" in " ".join(capsys.readouterr().err.split())


def test_a_search_says_how_the_model_of_a_folder_is_named(pictures: list[str], tmp_path: Path, capsys: Capture) -> None:
    store = ["--store", str(tmp_path / "store")]
    assert run(["index", pictures[0], "--model", str(FIXTURE), *store, "--quiet"]) == ExitCode.OK
    assert run(["search", "page", *store]) == ExitCode.ERROR
    assert "name its folder by --model" in " ".join(capsys.readouterr().err.split())
