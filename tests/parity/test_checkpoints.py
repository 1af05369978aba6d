"""PaliGemma and Idefics3 checkpoints, run from their safetensors, against the libraries' classes in float64."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from colpali_integrations.models.content import content_revision
from tests.models.builder.checkpoints import read, save

from .bounds import CEILING, FLOOR, MEAN_TIMES, TIMES
from .cases import EMBEDDED_QUERIES, draw, page_named
from .conftest import FIXTURES, other_pixels
from .measures import directions, few_rows

Open = Callable[[str], ColPali]
NAMES = ["paligemma", "colmodernvbert", "colsmol"]


def compose(name: str, folder: Path) -> Path:
    """A checkpoint's folder: its weights, with tokenizer and processor of the export's fixture."""
    shutil.copytree(FIXTURES / "checkpoints" / name, folder)
    for file in (FIXTURES / name).glob("*.json"):
        if file.name not in ("config.json", "golden.json"):
            shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    models: dict[str, ColPali] = {}

    def open_(name: str) -> ColPali:
        if name not in models:
            folder = compose(name, tmp_path_factory.mktemp(name) / "checkpoint")
            models[name] = ColPali.from_pretrained(folder, threads=1)
        return models[name]

    yield open_
    for model in models.values():
        model.close()


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_as_close_to_float64_as_the_reference(opened: Open, name: str) -> None:
    model = opened(name)
    folder = FIXTURES / "checkpoints" / name
    distances = json.loads((folder / "golden.json").read_text(encoding="utf-8"))["distances"]
    pairs = {}
    with np.load(folder / "golden.npz") as golden:
        for case in distances:
            kind, key = case.split("/")
            if kind == "page" and other_pixels(name, key):
                continue
            [rows] = (
                model.embed_images([draw(page_named(key))])
                if kind == "page"
                else model.embed_queries([EMBEDDED_QUERIES[int(key)]])
            )
            projection = rows.astype(np.float64) @ directions(rows.shape[1])
            found = {"rows": rows[few_rows(len(rows))], "projection": projection}
            for part, values in found.items():
                ours = float(np.abs(values - golden[f"{case}/{part}"]).max())
                pairs[case, part] = ours, distances[case][part]
    assert {case: pair for case, pair in pairs.items() if pair[0] > min(max(FLOOR, TIMES * pair[1]), CEILING)} == {}
    ours, theirs = np.array(list(pairs.values())).mean(axis=0)
    assert ours <= MEAN_TIMES * theirs


@pytest.mark.parametrize("name", NAMES)
def test_pages_in_batches_are_as_alone(opened: Open, name: str) -> None:
    model = opened(name)
    pages = [draw(page_named(page)) for page in ("tall", "grey", "tall")]
    for page, vectors in zip(pages, model.embed_images(pages, batch_size=2), strict=True):
        [alone] = model.embed_images([page])
        np.testing.assert_allclose(vectors, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_query_never_opens_the_tower(name: str, tmp_path: Path) -> None:
    """The tower of this checkpoint cannot be opened: its graph has pixels of another size than its weights."""
    folder = compose(name, tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    vision = config.get("vlm_config", config)["vision_config"]
    vision["image_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))
    with ColPali.from_pretrained(folder, threads=1, lazy_load=True) as model:
        assert model.splits_graph
        assert len(model.embed_query("a question")) > 2
        with pytest.raises(Exception, match=r"."):
            list(model.embed_images([draw(page_named("tall"))]))


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
@pytest.mark.parametrize("name", NAMES)
def test_quantized_vectors_are_close(opened: Open, name: str, precision: str, tmp_path: Path) -> None:
    folder = compose(name, tmp_path / "checkpoint")
    with ColPali.from_pretrained(folder, threads=1, precision=precision, cache_dir=tmp_path) as model:  # type: ignore[arg-type]
        found, exact = (one.embed_query("what is the revenue") for one in (model, opened(name)))
        assert 0.9 < (found * exact).sum(axis=1).min() < 1
    [file] = (tmp_path / "colpali-integrations").glob("*.safetensors")  # one for both graphs
    assert file.name.startswith(f"{precision}-")


def test_max_side_is_refused_where_pages_have_one_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_side: not an option of the family 'paligemma'"):
        ColPali.from_pretrained(compose("paligemma", tmp_path / "checkpoint"), max_side=100)


def test_an_onnx_file_goes_before_the_weights(tmp_path: Path) -> None:
    folder = compose("paligemma", tmp_path / "checkpoint")
    for name in ("model.onnx", "model.onnx_data"):
        shutil.copy(FIXTURES / "paligemma" / name, folder)
    assert not ColPali.from_pretrained(folder, lazy_load=True).description.is_checkpoint


def adapter(folder: Path, base: Path) -> dict[str, np.ndarray]:
    """Write a LoRA adapter of a base, and return the base's weights with it merged, by their names in the file."""
    arrays = read(base / "model.safetensors")
    floats = {name: (values.astype(np.uint32) << 16).view(np.float32) for name, values in arrays.items()}
    random = np.random.default_rng(0)
    stored: dict[str, np.ndarray] = {}
    merged = dict(floats)
    for name, weight in floats.items():
        if name.endswith(("q_proj.weight", "down_proj.weight", "embedding_proj_layer.weight")):
            down = random.standard_normal((4, weight.shape[1]), dtype=np.float32)
            up = random.standard_normal((len(weight), 4), dtype=np.float32) * np.float32(0.05)
            module = f"base_model.model.{name.removesuffix('.weight')}"
            stored |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
            merged[name] = weight + np.float32(2.0) * (up @ down)
    save(folder / "adapter_model.safetensors", stored)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "somebody/base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return merged


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_adapter_is_merged_into_its_base(precision: str, tmp_path: Path) -> None:
    base, whole = compose("paligemma", tmp_path / "base"), compose("paligemma", tmp_path / "whole")
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(base / name, folder)
    save(whole / "model.safetensors", adapter(folder, base))
    options = {"threads": 1, "precision": precision, "cache_dir": tmp_path}
    with ColPali.from_pretrained(folder, base=base, **options) as model:  # type: ignore[arg-type]
        found = model.embed_query("what is the revenue")
        assert model.description.base_revision == content_revision(base, ["config.json", "model.safetensors"])
    with ColPali.from_pretrained(whole, **options) as model:  # type: ignore[arg-type]
        expected = model.embed_query("what is the revenue")
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 if precision == "float32" else 5e-3)
    with ColPali.from_pretrained(base, **options) as model:  # type: ignore[arg-type]
        assert np.abs(model.embed_query("what is the revenue") - expected).max() > 0.05


def test_an_adapter_without_its_base_names_it(tmp_path: Path) -> None:
    base, folder = compose("paligemma", tmp_path / "base"), tmp_path / "adapter"
    folder.mkdir()
    adapter(folder, base)
    with pytest.raises(ModelNotFoundError, match=r"is an adapter of 'somebody/base', .*pass base="):
        ColPali.from_pretrained(folder, local_files_only=True, cache_dir=tmp_path)
    with pytest.raises(ConfigurationError, match="base: base is not an adapter"):
        ColPali.from_pretrained(base, base=base)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelLoadError, match="a pickle"):
        ColPali.from_pretrained(folder, base=base)
