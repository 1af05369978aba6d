"""A model's name or folder means the same, and has the same errors, wherever a caller may give one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.cli.app import ExitCode, run
from colpali_integrations.errors import ColPaliError, ConfigurationError, FingerprintError
from colpali_integrations.langchain import ColPaliEmbeddings
from colpali_integrations.llama_index import ColPaliEmbedding
from colpali_integrations.models import find_model
from colpali_integrations.models.hub import bundled_folder
from colpali_integrations.models.shared import release_shared_models, shared_model
from colpali_integrations.stores import MultiVectorStore, StoredModel, index_documents
from tests.stores.documents import draw

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
NEOMME = FIXTURES / "neomme"


@pytest.fixture(autouse=True)
def none_shared() -> Iterator[None]:
    yield
    release_shared_models()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        draw(f"page {number}").resize((90, 60)).save(path)
    return paths


DOORS: dict[str, Callable[[str, Path], Any]] = {
    "ColPali.from_pretrained": lambda name, _: ColPali.from_pretrained(name, lazy_load=True),
    "shared_model": lambda name, _: shared_model(name),
    "MultiVectorStore.open": lambda name, _: MultiVectorStore.open(model=name),
    "index_documents": lambda name, path: index_documents(path / "0.png", model=name, store=path / "store"),
    "ColPaliEmbeddings": lambda name, _: ColPaliEmbeddings(model=name).model,
    "ColPaliEmbedding": lambda name, _: ColPaliEmbedding(model_name=name).model,
}
COMMANDS: dict[str, Callable[[str, Path], list[str]]] = {
    "index": lambda name, path: ["index", str(path / "0.png"), "--store", str(path / "store"), "--model", name],
    "doctor": lambda name, path: ["doctor", "--model", name],
    "export": lambda name, path: ["export", name, str(path / "out")],
    "quantize": lambda name, path: ["quantize", name, str(path / "out")],
}


@pytest.fixture(params=["misspelt", "file", "empty folder", "unsupported family"])
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A name of no model, and a part of the message."""
    folder = tmp_path / "folder"
    folder.mkdir()
    if request.param == "misspelt":
        return "colytiny", "Did you mean 'coltiny'?"
    if request.param == "file":
        (folder / "model.onnx").write_bytes(b"graph")
        return str(folder / "model.onnx"), f"{folder / 'model.onnx'} is a file; name the folder of the model's files"
    if request.param == "unsupported family":
        (folder / "config.json").write_text(json.dumps({"model_type": "gemma3"}))
        return str(folder), "Gemma 3"
    return str(folder), f"{folder} has no config.json"


@pytest.mark.parametrize("door", DOORS)
def test_a_wrong_name_has_one_message(door: str, wrong: tuple[str, str], pictures: list[Path], tmp_path: Path) -> None:
    name, message = wrong
    with pytest.raises(ColPaliError) as expected:
        ColPali.from_pretrained(name)
    assert message in str(expected.value)
    with pytest.raises(type(expected.value)) as error:
        DOORS[door](name, tmp_path)
    assert str(error.value) == str(expected.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_name_has_one_message_on_the_command_line(
    command: str, wrong: tuple[str, str], pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, message = wrong
    assert run(COMMANDS[command](name, tmp_path)) == ExitCode.ERROR
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert not {"store", "out"} & {one.name for one in tmp_path.iterdir()}


@pytest.mark.parametrize("path", [str, Path])
def test_a_folder_makes_and_asks_a_store(
    path: Callable[[Path], Any], pictures: list[Path], tmp_path: Path, examples_folder: Path
) -> None:
    with MultiVectorStore.open(tmp_path / "store", model=path(NEOMME)) as store:
        assert store.model == StoredModel.of(ColPali.from_pretrained(NEOMME, lazy_load=True).description)
        assert index_documents(pictures, model=path(NEOMME), store=store).added == 2
        assert len(store.search("page", 2)) == 2
    with MultiVectorStore.open(tmp_path / "store") as store, pytest.raises(ConfigurationError, match="model=<the fol"):
        store.search("page")
    with pytest.raises(FingerprintError, match="was made by neomme"):
        MultiVectorStore.open(tmp_path / "store", model="coltiny")
    with pytest.raises(FingerprintError, match="was made by coltiny"):
        index_documents(pictures, model=path(NEOMME), store="my-index")


def test_a_name_goes_on_with_the_settings_of_a_store(pictures: list[Path], tmp_path: Path) -> None:
    """Here of a folder that was opened with options; test_spaces.py has it for registered names."""
    with ColPali.from_pretrained(NEOMME, precision="int8", max_side=64, threads=1) as model:
        index_documents(pictures[:1], model=model, store=tmp_path / "store")
    assert index_documents(pictures, model=NEOMME, store=tmp_path / "store").added == 1
    with MultiVectorStore.open(tmp_path / "store", model=NEOMME) as store:
        assert store.encoder.description.fingerprint == model.description.fingerprint


def test_a_name_goes_on_with_vectors_that_were_cut(pictures: list[Path], tmp_path: Path) -> None:
    folder = FIXTURES / "colultravbert-dense"
    with ColPali.from_pretrained(folder, dim=128, threads=1) as model:
        index_documents(pictures[:1], model=model, store=tmp_path / "store")
    assert index_documents(pictures, model=folder, store=tmp_path / "store").added == 1


@pytest.mark.parametrize("model", [5, b"coltiny", ["coltiny"]])
def test_other_types_are_refused(model: Any, pictures: list[Path], tmp_path: Path) -> None:
    for call in (
        lambda: MultiVectorStore.open(model=model),
        lambda: index_documents(pictures, model=model, store=tmp_path / "store"),
    ):
        with pytest.raises(ConfigurationError, match=r"model must be a ColPali, .* got "):
            call()


@pytest.mark.parametrize("folder", [NEOMME, "coltiny", bundled_folder(find_model("coltiny"))])
def test_only_a_repository_has_revisions(folder: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"revision: the files of .* are in a folder"):
        ColPali.from_pretrained(folder, revision="main")
    with pytest.raises(ConfigurationError, match="revision: the files of"):
        ColPali.from_pretrained("coltiny", local_dir=bundled_folder(find_model("coltiny")), revision="main")
