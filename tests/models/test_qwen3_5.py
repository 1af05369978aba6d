"""ColQwen3.5 and pplx-embed-v2-late through the package: folders, the Hub, options, regions, stores, errors."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ModelLoadError
from colpali_integrations.explain import regions
from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliVectorStore
from colpali_integrations.models import find_model, register_model
from colpali_integrations.models.builder.checkpoint_graph import CheckpointGraph
from colpali_integrations.models.builder.qwen3_5 import Qwen3_5
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.runtime.providers import check_onnxruntime
from tests.models.hub_server import COMMIT, Hub, serve
from tests.models.linear_attention import NEEDS_LINEAR_ATTENTION
from tests.models.test_hub import run
from tests.parity.cases import draw, page_named
from tests.stores.documents import save_pdf

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
FOLDER, LATE = FIXTURES / "colqwen3_5", FIXTURES / "pplx_late"
PAGE = np.random.default_rng(0).integers(0, 256, (100, 70, 3), dtype=np.uint8)
QUESTION = "what is the revenue"


@pytest.fixture(scope="module")
def model() -> Iterator[ColPali]:
    with ColPali.from_pretrained(FOLDER, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def late() -> Iterator[ColPali]:
    with ColPali.from_pretrained(LATE, threads=1) as opened:
        yield opened


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return shutil.copytree(FOLDER, tmp_path / "local")


def config(folder: Path, text: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    """Replace values of config.json, and of its text_config; returns it."""
    path = folder / "config.json"
    content: dict[str, Any] = json.loads(path.read_text())
    content["text_config"] |= text or {}
    path.write_text(json.dumps(content | values))
    return content | values


# Descriptions and options


def test_files_describe_a_folder(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        described, of_modules = describe_folder(FOLDER), describe_folder(LATE)
    assert caplog.text == ""
    assert {one.family for one in (described, of_modules)} == {"qwen3_5"}
    assert (described.dim, described.query_prefix, described.query_suffix) == (128, "", "<|endoftext|>" * 10)
    assert described.image_prompt.endswith("Describe the image.<|im_end|><|endoftext|>")
    assert (of_modules.dim, of_modules.max_query_tokens) == (128, 1024)


def test_the_length_of_a_vector_is_read(local: Path) -> None:
    config(local, dim=320)
    assert describe_folder(local).dim == 320


@NEEDS_LINEAR_ATTENTION
@pytest.mark.parametrize("size", ["0.6b", "9b"])
def test_registered_descriptions_are_those_of_the_files(size: str, late: ColPali) -> None:
    registered, found = find_model(f"perplexity-ai/pplx-embed-v2-late-{size}"), late.description
    for name in ("family", "dim", "query_prefix", "query_suffix", "image_prompt"):
        assert getattr(registered, name) == getattr(found, name)
    # The fixture's file has the limit, which holds the prompt too.
    assert registered.max_query_tokens == 1023 == found.max_query_tokens - 1
    assert set(found.files) - {found.model_file} <= set(registered.files)


def test_an_index_of_the_large_model_takes_questions_of_the_small_one() -> None:
    small, large = (find_model(f"perplexity-ai/pplx-embed-v2-late-{size}").fingerprint for size in ("0.6b", "9b"))
    assert small.space == large.space == "pplx-embed-v2-late (128)"
    assert small.pages != large.pages


@pytest.mark.parametrize("name", ["vultr/VultronRetrieverFlash-Qwen3.5-0.8B", "athrael-soju/colqwen3.5-4.5B-v3"])
def test_registered_prompts_are_those_of_the_class(name: str) -> None:
    registered, found = find_model(name), describe_folder(FOLDER)
    for field in ("query_prefix", "query_suffix", "image_prompt"):
        assert getattr(registered, field) == getattr(found, field)


def test_a_repository_with_code_of_its_own_asks_for_its_prompts(local: Path) -> None:
    config(local, auto_map={"AutoModel": "modeling.Other"}, architectures=["Other"], embedding_dim=640)
    with pytest.raises(ModelLoadError, match=r"\['Other'\] is code in the model's repository.*dim=640.*image_prompt="):
        describe_folder(local)


@NEEDS_LINEAR_ATTENTION
@pytest.mark.usefixtures("own_registry")
def test_a_registered_description_is_taken_for_such_a_repository(local: Path, model: ColPali) -> None:
    config(local, auto_map={"AutoModel": "modeling.Other"}, architectures=["Other"])
    register_model(replace(model.description, name="mine"))
    with ColPali.from_pretrained("mine", local_dir=local, threads=1) as other:
        np.testing.assert_array_equal(other.embed_query(QUESTION), model.embed_query(QUESTION))


def test_an_older_onnxruntime_is_refused_before_a_download() -> None:
    lowest = FAMILIES["qwen3_5"].onnxruntime
    with pytest.raises(ModelLoadError, match=r"needs onnxruntime 1\.26 or later, and 1\.23\.2 .*Python 3\.11"):
        check_onnxruntime(lowest, "my-model", installed="1.23.2")
    for version in ("1.26.0", "1.32.1", "2.0"):
        check_onnxruntime(lowest, "my-model", installed=version)
    check_onnxruntime("", "another", installed="1.22.0")


# Attention


@pytest.mark.parametrize(
    ("text", "whole", "causal"),
    [
        ({}, {}, True),
        ({"is_causal": False}, {}, False),
        ({}, {"is_causal": False}, False),
        ({}, {"retrieval_attention_contract": "bidirectional"}, False),
        ({}, {"retrieval_attention_contract": "causal", "is_causal": True}, True),
    ],
)
def test_the_configuration_says_whether_attention_is_causal(
    local: Path, text: dict[str, Any], whole: dict[str, Any], causal: bool
) -> None:
    assert Qwen3_5(config(local, text, **whole), 128).config.causal is causal


def test_layers_are_linear_by_name_or_in_turn(local: Path) -> None:
    named = Qwen3_5(config(local), 128).config.linear_layers
    content = config(local, {"layer_types": None, "full_attention_interval": None})
    assert Qwen3_5(content, 128).config.linear_layers == named == {0, 1, 2, 4, 5, 6, 8, 9, 10}
    content = config(local, {"layer_types": None, "full_attention_interval": 2})
    assert Qwen3_5(content, 128).config.linear_layers == {0, 2, 4, 6, 8, 10}


# The Hub


def repository(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("golden")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


EMBED = """
with ColPali.from_pretrained("somebody/my-pages", cache_dir=CACHE, threads=1) as model:
    result["query"] = model.embed_query("what is the revenue").tolist()
    result["text"] = next(model.embed_texts(["The revenue, in short."])).tolist()
    result["description"] = model.description.to_dict()
"""


@NEEDS_LINEAR_ATTENTION
@pytest.mark.parametrize("folder", [FOLDER, LATE], ids=lambda folder: folder.name)
def test_a_checkpoint_comes_from_the_hub(folder: Path, tmp_path: Path) -> None:
    files = {**repository(folder), "1_Dense/README.md": b"not needed"}
    with serve(Hub("somebody/my-pages", files)) as hub:
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result.get("error") is None, result
    with ColPali.from_pretrained(folder, threads=1) as opened:
        np.testing.assert_array_equal(np.array(result["query"], np.float32), opened.embed_query(QUESTION))
        [text] = opened.embed_texts(["The revenue, in short."])
        np.testing.assert_array_equal(np.array(result["text"], np.float32), text)
    assert result["description"]["revision"] == COMMIT
    assert "1_Dense/README.md" not in hub.downloaded()
    offline, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline["query"] == result["query"]


# Vectors


@NEEDS_LINEAR_ATTENTION
def test_regions_of_a_page(late: ColPali) -> None:
    [page] = late.embed_pages([PAGE])
    grid = page.grid
    assert (grid.rows, grid.columns) == (3, 2)
    assert grid.cells.tolist() == [-1, -1, *range(6), -1]
    found = regions(late.embed_query(QUESTION), *page, tokens=late.query_tokens(QUESTION), min_match=0)
    assert found
    assert {region.token for region in found} <= set(late.query_tokens(QUESTION))


@NEEDS_LINEAR_ATTENTION
def test_langchain_ranks_texts_beside_pages(tmp_path: Path) -> None:
    pages = [draw(page_named(name)) for name in ("odd", "grey")]
    pdf = save_pdf(tmp_path / "report.pdf", *(page.convert("RGB") for page in pages))
    embeddings = ColPaliEmbeddings(model=str(LATE), max_num_visual_tokens=64, threads=1)
    with ColPaliVectorStore(embeddings, path=tmp_path / "store") as store:
        assert len(store.add_pdf(pdf, dpi=72)) == 2
        store.add_texts(["The revenue rose by 12 percent.", "The contract was signed in Geneva."])
        found = store.similarity_search(QUESTION, k=4)
        assert {document.page_content for document in found} >= {"The contract was signed in Geneva."}
        assert sum("report.pdf" in document.metadata.get("source", "") for document in found) == 2


@NEEDS_LINEAR_ATTENTION
def test_texts_of_a_checkpoint_without_modules_are_encoded_as_queries(model: ColPali) -> None:
    [text] = model.embed_texts([QUESTION])
    np.testing.assert_array_equal(text, model.embed_query(QUESTION))


@NEEDS_LINEAR_ATTENTION
def test_a_query_never_opens_the_tower(local: Path, model: ColPali) -> None:
    """The tower of this checkpoint cannot be opened: its configuration has another width than its weights."""
    content = config(local)
    config(local, vision_config={**content["vision_config"], "hidden_size": 48})
    with ColPali.from_pretrained(local, threads=1, lazy_load=True) as other:
        np.testing.assert_array_equal(other.embed_query(QUESTION), model.embed_query(QUESTION))
        with pytest.raises(ModelLoadError):
            list(other.embed_images([PAGE]))


@NEEDS_LINEAR_ATTENTION
@pytest.mark.parametrize(("precision", "least"), [("int8", 0.99), ("int8-dynamic", 0.97)])
@pytest.mark.parametrize("folder", [FOLDER, LATE], ids=lambda folder: folder.name)
def test_weights_of_8_bits_give_nearly_the_same_vectors(
    folder: Path, precision: Any, least: float, tmp_path: Path
) -> None:
    with (
        ColPali.from_pretrained(folder, threads=1) as exact,
        ColPali.from_pretrained(folder, threads=1, precision=precision, cache_dir=tmp_path) as other,
    ):
        for kind in ("query", "page"):
            pair = [
                one.embed_query(QUESTION) if kind == "query" else next(one.embed_images([PAGE]))
                for one in (exact, other)
            ]
            cosines = (pair[0] * pair[1]).sum(axis=1)
            assert least < cosines.mean() < 1 - 1e-6


def test_the_gates_of_linear_attention_keep_float32(tmp_path: Path) -> None:
    architecture = Qwen3_5(json.loads((FOLDER / "config.json").read_text()), 128)
    graph = CheckpointGraph(architecture, "text", FOLDER, "int8").read(tmp_path)
    names = {tensor.name for tensor in graph.model.graph.initializer}
    layer = "language_model.layers.0.linear_attn"
    assert {f"{layer}.in_proj_a.weight", f"{layer}.in_proj_b.weight", f"{layer}.in_proj_qkv.weight.levels"} <= names


# Errors


@pytest.mark.parametrize(
    ("text", "whole", "message"),
    [
        ({"rope_parameters": {"rope_type": "yarn"}}, {}, "rope_type 'yarn'"),
        ({"rope_parameters": {"mrope_section": [1, 1, 1]}}, {}, "must add up to 4, half of the 8 numbers"),
        ({"layer_types": ["linear_attention"]}, {}, "layer_types must name 12 layers"),
        ({"layer_types": ["sliding_attention"] * 12}, {}, "layer_types must name 12 layers"),
        ({"linear_num_value_heads": 3, "linear_num_key_heads": 2}, {}, "must be a multiple of linear_num_key_heads 2"),
        ({"head_dim": "large"}, {}, "head_dim 'large', expected a value of type int"),
        ({"is_causal": True}, {"retrieval_attention_contract": "bidirectional"}, "contradict each other"),
        ({}, {"retrieval_attention_contract": "both"}, "must be 'causal' or 'bidirectional'"),
        ({}, {"head_dims": [64, 128]}, "head_dims .*do not record whether their attention is causal"),
        ({}, {"vision_config": {"num_position_embeddings": 35}}, "must be a square number"),
        ({}, {"vision_config": {"patch_size": None}}, "not that of a Qwen3.5 model"),
    ],
)
def test_a_configuration_that_is_not_supported_is_refused(
    local: Path, text: dict[str, Any], whole: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        Qwen3_5(config(local, text, **whole), 128)
