"""transformers 5 saves a processor as processor_config.json alone, of every family: from folders and from the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.registry import find_model, list_supported_models
from tests.models.hub_server import Hub, serve
from tests.models.test_hub import run

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
PAGE = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
OLD, NEW = "preprocessor_config.json", "processor_config.json"


def checkpoint(name: str, folder: Path) -> Path:
    """A whole checkpoint with the processor of its family's fixture, in the files of transformers 4."""
    weights = {"colqwen2_5": FIXTURES / "colqwen2_5-base"}.get(name, FIXTURES / "checkpoints" / name)
    shutil.copytree(weights, folder)
    for file in (FIXTURES / name).glob("*.json"):
        if file.name not in ("config.json", "golden.json", "adapter_config.json"):
            shutil.copy(file, folder)
    return folder


def save_as_transformers_5(folder: Path) -> None:
    processor = json.loads((folder / NEW).read_text()) if (folder / NEW).is_file() else {}
    settings = json.loads((folder / OLD).read_text())
    processor.setdefault("processor_class", settings.pop("processor_class", None))
    (folder / NEW).write_text(json.dumps({**processor, "image_processor": settings}))
    (folder / OLD).unlink()


@pytest.mark.parametrize("name", ["paligemma", "colmodernvbert", "colsmol", "colqwen2_5"])
def test_a_folder_gives_the_same_pages(name: str, tmp_path: Path) -> None:
    folder = checkpoint(name, tmp_path / "checkpoint")
    with ColPali.from_pretrained(folder, threads=1) as model:
        [before], described = model.embed_images([PAGE]), model.description
    save_as_transformers_5(folder)
    with ColPali.from_pretrained(folder, threads=1) as model:
        [after] = model.embed_images([PAGE])
    np.testing.assert_array_equal(before, after)
    assert NEW in model.description.files
    assert (model.description.image_prompt, model.description.query_suffix) == (
        described.image_prompt,
        described.query_suffix,
    )


EMBED = """
import numpy
page = numpy.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=numpy.uint8)
with ColPali.from_pretrained("somebody/my-pages", cache_dir=CACHE, threads=1) as model:
    result["page"] = next(model.embed_images([page])).tolist()
"""


@pytest.mark.parametrize("name", ["paligemma", "colmodernvbert", "colqwen2_5"])
def test_a_repository_of_the_hub_gives_the_same_pages(name: str, tmp_path: Path) -> None:
    folder = checkpoint(name, tmp_path / "checkpoint")
    save_as_transformers_5(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("golden")}
    with serve(Hub("somebody/my-pages", files)) as hub:
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result.get("error") is None, result
    with ColPali.from_pretrained(folder, threads=1) as model:
        [expected] = model.embed_images([PAGE])
    np.testing.assert_array_equal(np.array(result["page"], np.float32), expected)


def test_every_registered_transformer_asks_for_the_file() -> None:
    for model in list_supported_models():
        if model.family != "coltiny":
            assert NEW in model.files, model.name


@pytest.mark.parametrize("name", ["Qdrant/colpali-v1.3-fp16", "Qdrant/colmodernvbert"])
def test_an_export_may_have_it_too(name: str, tmp_path: Path) -> None:
    fixture = {"Qdrant/colpali-v1.3-fp16": "paligemma", "Qdrant/colmodernvbert": "colmodernvbert"}[name]
    folder = shutil.copytree(FIXTURES / fixture, tmp_path / "export")
    save_as_transformers_5(folder)
    model = ColPali.from_pretrained(name, local_dir=folder, lazy_load=True)
    assert model.description.image_prompt == find_model(name).image_prompt
    assert describe_folder(folder).image_prompt == find_model(name).image_prompt
