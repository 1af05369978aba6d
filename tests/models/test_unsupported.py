"""Architectures that are not supported, in folders and on the Hub: the error names them before weights are fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.unsupported import ADDING
from tests.models.hub_server import Hub, serve
from tests.models.test_hub import run

JINA = {"model_type": "qwen2_5_vl", "architectures": ["JinaEmbeddingsV4Model"]}
LOAD = """
ColPali.from_pretrained("somebody/my-pages", cache_dir=CACHE)
"""


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (JINA, "model_type 'qwen2_5_vl', architectures JinaEmbeddingsV4Model"),
        ({"model_type": "lfm2_vl"}, "model_type 'lfm2_vl', architectures none"),
        ({"model_type": "gemma3", "architectures": ["ColGemma3"]}, "architectures ColGemma3"),
        ({"model_type": "paligemma_omni"}, "it takes sound and films"),
        ({"model_type": "dinosaur", "architectures": ["Tail", "Head"]}, "'dinosaur', architectures Tail, Head"),
        ({"architectures": "Tail"}, "model_type None, architectures none"),
        ({}, "model_type None, architectures none"),
    ],
)
def test_an_architecture_is_named_with_the_supported_ones(config: dict[str, Any], named: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError) as error:
        describe_folder(tmp_path)
    message = str(error.value)
    assert named in message
    assert ", ".join(FAMILIES) in message
    assert ADDING in message


def test_the_page_on_adding_a_model_exists() -> None:
    assert (Path(__file__).parents[2] / "docs" / ADDING.rpartition("/")[2]).is_file()


@pytest.mark.parametrize("config", [JINA, {"model_type": "dinosaur"}], ids=["known", "unknown"])
def test_weights_of_an_unsupported_repository_are_not_fetched(config: dict[str, Any], tmp_path: Path) -> None:
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": b"weights", "tokenizer.json": b"{}"}
    with serve(Hub("somebody/my-pages", files)) as hub:
        result, _ = run(LOAD, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert "model.safetensors" not in hub.downloaded()
    assert result["error"] == "ModelLoadError"
    assert result["message"].startswith("somebody/my-pages: the architecture of its config.json")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "somebody/my-pages has none of the files config.json, "),
        ({"processor_config.json": b"{}"}, "lacks config.json; it should hold config.json, "),
    ],
)
def test_a_repository_without_a_configuration_is_refused(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with serve(Hub("somebody/my-pages", {"model.safetensors": b"weights", **files})) as hub:
        result, _ = run(LOAD, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert "model.safetensors" not in hub.downloaded()
    assert result["error"] == "ModelNotFoundError"
    assert message in result["message"]
