"""PaliGemma and Idefics3 checkpoints, run from their safetensors, against the libraries' classes in float64."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError

from .bounds import CEILING, FLOOR, MEAN_TIMES, TIMES
from .cases import EMBEDDED_QUERIES, draw, page_named
from .conftest import FIXTURES
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
