"""ColQwen3 and Nemotron through the package: classes and layouts, cut heads, adapters, the Hub, regions, errors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, ModelLoadError, StoreError
from colpali_integrations.explain import regions
from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliVectorStore
from colpali_integrations.models import find_model
from colpali_integrations.models.folder import describe_folder, describe_repository
from colpali_integrations.models.hub import cache_state
from colpali_integrations.stores import DocumentSource, Entry, MultiVectorStore, ingest
from colpali_integrations.stores.limits import MAX_SERVER_NUMBERS
from colpali_integrations.stores.settings import FirstStage
from tests.models.hub_server import Hub, serve
from tests.models.test_hub import run
from tests.models.test_qwen2_vl import change, repository
from tests.parity.cases import draw, page_named
from tests.stores.documents import save_pdf
from tests.stores.qdrant.stand_in import stand_in

from .builder.checkpoints import read, save

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
FOLDER, ADAPTER, BASE = (FIXTURES / name for name in ("colqwen3", "colqwen3-adapter", "colqwen3-base"))
PAGE = np.random.default_rng(0).integers(0, 256, (100, 70, 3), dtype=np.uint8)
QUESTION = "what is the revenue"
END = "<|endoftext|>" * 10
PICTURE = "<|im_start|>user\n<|vision_start|><image><|vision_end|>"
TOMORO = "TomoroAI/tomoro-colqwen3-embed-4b"


@pytest.fixture(scope="module")
def model() -> Iterator[ColPali]:
    with ColPali.from_pretrained(FOLDER, threads=1) as opened:
        yield opened


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return shutil.copytree(FOLDER, tmp_path / "local")


def tensors(folder: Path) -> dict[str, NDArray[Any]]:
    return {name: array for shard in folder.glob("*.safetensors") for name, array in read(shard).items()}


def write_whole(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Put all weights into one file, without an index."""
    for path in folder.glob("model*"):
        path.unlink()
    save(folder / "model.safetensors", arrays)


def vectors(folder: Path, **options: Any) -> tuple[ColPali, NDArray[np.float32], NDArray[np.float32]]:
    """The model, and its vectors of a question and a page."""
    with ColPali.from_pretrained(folder, threads=1, **options) as model:
        [page] = model.embed_images([PAGE])
        return model, model.embed_query(QUESTION), page


def cut(rows: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    shorter: NDArray[np.float32] = rows[:, :dim] / np.linalg.norm(rows[:, :dim], axis=1, keepdims=True)
    return shorter


# Classes and their layouts


def test_the_engine_s_class_has_320_numbers_which_no_file_says(model: ColPali) -> None:
    assert not {"dim", "dims", "embed_dim"} & json.loads((FOLDER / "config.json").read_text()).keys()
    assert (model.description.family, model.dim, model.description.query_prefix) == ("qwen3_vl", 320, "")
    assert model.description.max_num_visual_tokens is None


def test_tomoro_s_layout_gives_the_same_vectors(model: ColPali, local: Path) -> None:
    change(local / "config.json", model_type="colqwen3", architectures=["ColQwen3"], embed_dim=320)
    prompt = f"{PICTURE}Describe the image.".replace("<image>", "<|image_pad|>")
    change(local / "processor_config.json", visual_prompt_prefix=prompt, visual_prompt_suffix="<|im_end|><|endoftext|>")
    renamed = {
        f"vlm.model.{name.removeprefix('model.')}".replace("vlm.model.custom_text_proj", "embedding_proj_layer"): array
        for name, array in tensors(FOLDER).items()
    }
    assert any(name.startswith("vlm.model.visual") for name in renamed)
    write_whole(local, {**renamed, "vlm.lm_head.weight": np.zeros((4, 4), np.float32)})
    other, query, page = vectors(local)
    np.testing.assert_array_equal(query, model.embed_query(QUESTION))
    np.testing.assert_array_equal(page, next(model.embed_images([PAGE])))
    described, registered = other.description, find_model(TOMORO)
    for name in ("dim", "query_prefix", "query_suffix", "image_prompt", "max_num_visual_tokens"):
        assert getattr(described, name) == getattr(registered, name)


@pytest.fixture
def ops(local: Path) -> Path:
    change(local / "config.json", model_type="ops_colqwen3", architectures=["OpsColQwen3Model"], dims=320)
    return local


def test_ops_vectors_may_be_cut(ops: Path) -> None:
    whole, query, page = vectors(ops)
    described, registered = whole.description, find_model("OpenSearch-AI/Ops-Colqwen3-4B")
    for name in ("query_prefix", "query_suffix", "image_prompt", "max_num_visual_tokens"):
        assert getattr(described, name) == getattr(registered, name)
    assert described.query_prefix == "Query: "
    for options, dim in (({"dim": 64}, 64), ({}, 48)):
        if not options:
            change(ops / "config.json", dims=dim)
        shorter, short_query, short_page = vectors(ops, **options)
        assert shorter.dim == dim
        np.testing.assert_allclose(short_query, cut(query, dim), rtol=0, atol=1e-6)
        np.testing.assert_allclose(short_page, cut(page, dim), rtol=0, atol=1e-6)
        assert shorter.description.fingerprint != described.fingerprint


def test_other_heads_are_not_cut(local: Path, ops: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"makes vectors of 320 numbers.*says 400; pass dim=320 or less"):
        ColPali.from_pretrained(ops, dim=400)
    change(local / "config.json", model_type="qwen3_vl")
    with pytest.raises(ModelLoadError, match=r"makes vectors of 320 numbers.*says 64; pass dim=320"):
        ColPali.from_pretrained(local, dim=64)
    with pytest.raises(ConfigurationError, match="dim: not an option of the family 'qwen2_vl'"):
        ColPali.from_pretrained(FIXTURES / "colqwen2", dim=64)
    with pytest.raises(ConfigurationError, match="dim must be a whole number of at least 1, got 0"):
        ColPali.from_pretrained(local, dim=0)


def test_a_head_may_have_no_bias(model: ColPali, local: Path) -> None:
    arrays = tensors(FOLDER)
    name = next(name for name in arrays if name.endswith("custom_text_proj.bias"))
    write_whole(local, {**arrays, name: np.zeros_like(arrays[name])})
    _, zeros, _ = vectors(local)
    write_whole(local, {other: array for other, array in arrays.items() if other != name})
    _, without, _ = vectors(local)
    np.testing.assert_array_equal(without, zeros)
    assert np.abs(without - model.embed_query(QUESTION)).max() > 1e-3


def test_nemotron_s_prompts_come_from_its_class_and_its_processor(tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURES / "nemotron", tmp_path / "nemotron")
    shutil.copy(BASE / "model.safetensors", folder)
    described, registered = describe_folder(folder), find_model("nvidia/nemotron-colembed-vl-4b-v2")
    for name in ("query_prefix", "query_suffix", "image_prompt"):
        assert getattr(described, name) == getattr(registered, name)
    assert described.dim == 32
    (folder / "processor_config.json").write_text('{"query_prefix": "ask:", "passage_prefix": ""}')
    described = describe_folder(folder)
    assert described.query_prefix == "<|im_start|>user\nQuery: ask: "
    assert described.image_prompt == f"{PICTURE}<|im_end|>\n<|im_start|>assistant\n"


def test_sauerkraut_s_prompt_and_length_come_from_the_table() -> None:
    for size in ("2b", "4b"):
        described = describe_repository(f"VAGOsolutions/SauerkrautLM-ColQwen3-{size}-v0.1", FOLDER)
        assert (described.dim, described.query_prefix, described.query_suffix) == (128, "Query: ", END)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "qwen3_vl_moe"}, "model_type 'qwen3_vl_moe', expected one of qwen3_vl, colqwen3, ops_colqwen3"),
        ({"mask_non_image_embeddings": True}, "mask_non_image_embeddings"),
        ({"text_config__rope_parameters__rope_type": "yarn"}, "rope_type 'yarn'"),
        ({"text_config__rope_parameters__mrope_section": [4, 2, 1]}, "must add up to 8"),
        ({"vision_config__num_position_embeddings": 150}, "num_position_embeddings 150 must be a square number"),
        ({"vision_config__deepstack_visual_indexes": None}, "not that of a qwen3_vl model"),
        ({"vision_config__hidden_act": "mish"}, "activation 'mish'"),
        ({"image_token_id": 3}, "other ids of '<|image_pad|>'"),
    ],
)
def test_a_configuration_that_is_not_supported_is_refused(local: Path, values: dict[str, Any], message: str) -> None:
    change(local / "config.json", **values)
    with pytest.raises(ModelLoadError, match=message.replace("|", r"\|")):
        ColPali.from_pretrained(local)


def test_nemotron_has_no_head_to_cut(tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURES / "nemotron", tmp_path / "nemotron")
    write_whole(folder, {name: array for name, array in tensors(FOLDER).items() if "custom_text_proj" not in name})
    ColPali.from_pretrained(folder, threads=1).close()
    with pytest.raises(
        ModelLoadError, match=r"has no retrieval head, its vectors have the 32 numbers.*says 16; pass dim=32"
    ):
        ColPali.from_pretrained(folder, dim=16)


# The Hub


EMBED = f"""
with ColPali.from_pretrained({TOMORO!r}, cache_dir=CACHE, threads=1) as model:
    result["query"] = model.embed_query({QUESTION!r}).tolist()
    result["files"] = model.description.files
"""


@pytest.mark.parametrize("sharded", [True, False])
def test_a_registered_model_comes_from_the_hub_in_shards_or_one_file(
    model: ColPali, local: Path, tmp_path: Path, sharded: bool
) -> None:
    if not sharded:
        write_whole(local, tensors(FOLDER))
    with serve(Hub(TOMORO, repository(local))) as hub:
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result.get("error") is None, result
    np.testing.assert_array_equal(np.array(result["query"], np.float32), model.embed_query(QUESTION))
    weights = {name for name in hub.downloaded() if name.endswith(".safetensors")}
    assert weights == {path.name for path in local.glob("*.safetensors")}
    offline, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline["query"] == result["query"]
    state = cache_state(find_model(TOMORO), cache_dir=tmp_path / "hub")
    assert state.complete
    gone = sorted(weights)[-1]
    assert state.folder is not None
    (state.folder / gone).unlink()
    assert cache_state(find_model(TOMORO), cache_dir=tmp_path / "hub").missing == (gone,)


# Vectors


def test_regions_of_a_page(model: ColPali) -> None:
    [page] = model.embed_pages([PAGE])
    grid = page.grid
    assert (grid.rows, grid.columns) == (3, 2)
    cells = grid.cells.tolist()
    first = cells.index(0)
    assert cells == [*[-1] * first, *range(6), *[-1] * (len(cells) - first - 6)]
    found = regions(model.embed_query(QUESTION), *page, tokens=model.query_tokens(QUESTION), min_match=0)
    assert {region.token for region in found} <= set(model.query_tokens(QUESTION))
    assert found


def test_langchain_adds_a_pdf_and_finds_its_page(tmp_path: Path) -> None:
    pages = [draw(page_named(name)) for name in ("odd", "grey", "square")]
    pdf = save_pdf(tmp_path / "report.pdf", *(page.convert("RGB") for page in pages))
    embeddings = ColPaliEmbeddings(model=str(FOLDER), max_num_visual_tokens=64, threads=1)
    with ColPaliVectorStore(embeddings, path=tmp_path / "store") as store:
        assert len(store.add_pdf(pdf, dpi=72)) == 3
        [found] = store.similarity_search(QUESTION, k=1)
        assert found.metadata["source"].endswith("report.pdf")


def test_a_cut_model_is_another_model_for_a_store(ops: Path, tmp_path: Path) -> None:
    with (
        ColPali.from_pretrained(ops, threads=1, dim=64) as shorter,
        MultiVectorStore.open(tmp_path / "store", model=shorter),
    ):
        pass
    with pytest.raises(FingerprintError):
        MultiVectorStore.open(tmp_path / "store", model=ColPali.from_pretrained(ops, lazy_load=True))


def test_a_query_never_opens_the_tower(local: Path, model: ColPali) -> None:
    """The tower of this checkpoint cannot be opened: its configuration has another width than its weights."""
    change(local / "config.json", vision_config__hidden_size=32)
    with ColPali.from_pretrained(local, threads=1, lazy_load=True) as other:
        np.testing.assert_array_equal(other.embed_query(QUESTION), model.embed_query(QUESTION))
        with pytest.raises(ModelLoadError):
            list(other.embed_images([PAGE]))


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_adapters_are_quantized_with_their_base(precision: str, tmp_path: Path) -> None:
    """An adapter is merged before the weights are quantized: as it is with the merged weights in a file."""
    arrays, stored = tensors(BASE), tensors(ADAPTER)
    halves = {name.removesuffix(".lora_A.weight"): down for name, down in stored.items() if "lora_A" in name}
    assert len(halves) == 12 * 7 + 1
    for name, down in halves.items():
        weight = f"{name.removeprefix('base_model.model.')}.weight"
        weight = weight if weight in arrays else f"model.{weight}"
        arrays[weight] = arrays[weight] + np.float32(2) * (stored[f"{name}.lora_B.weight"] @ down)
    whole = shutil.copytree(ADAPTER, tmp_path / "whole", ignore=shutil.ignore_patterns("adapter*"))
    shutil.copy(BASE / "config.json", whole)
    save(whole / "model.safetensors", arrays)
    options: dict[str, Any] = {"precision": precision, "cache_dir": tmp_path}
    _, query, page = vectors(whole, **options)
    _, found_query, found_page = vectors(ADAPTER, base=BASE, **options)
    np.testing.assert_allclose(found_query, query, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found_page, page, rtol=0, atol=1e-4)
    _, exact, _ = vectors(ADAPTER, base=BASE)
    assert np.abs(exact - query).max() > 1e-3


@pytest.mark.parametrize(("precision", "least"), [("float16", 0.999), ("int8", 0.999), ("int8-dynamic", 0.98)])
def test_other_precisions_are_near_float32(model: ColPali, precision: str, least: float, tmp_path: Path) -> None:
    """The median of rows: tiny widths magnify rounding, so this holds only that the weights are the right ones."""
    _, query, page = vectors(FOLDER, precision=precision, cache_dir=tmp_path)
    for found, exact in ((query, model.embed_query(QUESTION)), (page, next(model.embed_images([PAGE])))):
        assert np.median((found * exact).sum(axis=1)) > least
        assert np.abs(found - exact).max() > 1e-6


# Wide vectors


def wide(folder: Path, dim: int) -> Path:
    """A checkpoint with a head of `dim` numbers."""
    change(folder / "config.json", model_type="ops_colqwen3", dims=dim)
    arrays = tensors(folder)
    random = np.random.default_rng(dim)
    for name in [name for name in arrays if "custom_text_proj" in name]:
        shape = (dim, *arrays[name].shape[1:])
        arrays[name] = random.standard_normal(shape).astype(np.float32)
    write_whole(folder, arrays)
    return folder


@pytest.mark.parametrize("dim", [2560, 4096])
@pytest.mark.parametrize("first_stage", ["exact", "ward", "rows", "muvera", "centroids"])
def test_wide_pages_are_stored_and_found(local: Path, tmp_path: Path, dim: int, first_stage: FirstStage) -> None:
    pages = [draw(page_named(name)) for name in ("odd", "grey", "small")]
    pdf = save_pdf(tmp_path / "report.pdf", *(page.convert("RGB") for page in pages))
    with ColPali.from_pretrained(wide(local, dim), threads=1, max_num_visual_tokens=32) as model:
        places: list[dict[str, Any]] = [{"path": tmp_path / "store"}, *([{}] if first_stage != "centroids" else [])]
        for place in places:
            with MultiVectorStore.open(model=model, first_stage=first_stage, **place) as store:
                ingest([DocumentSource(source=pdf, dpi=72)], store=store, model=model)
                entries = list(store.scroll())
                for entry, vectors in zip(entries, store.vectors([entry.id for entry in entries]), strict=True):
                    assert vectors is not None
                    [hit] = store.search(vectors, k=1)
                    assert hit.entry.id == entry.id
                    assert hit.score == pytest.approx(len(vectors), abs=0.05)


def test_a_server_refuses_a_page_that_is_too_large_and_takes_the_others(local: Path, tmp_path: Path) -> None:
    page = draw(page_named("a4-portrait")).convert("RGB")
    pdf = save_pdf(tmp_path / "report.pdf", page.resize((100, 70)), page, page.resize((70, 100)))
    source = DocumentSource(source=pdf, dpi=72)
    with (
        stand_in() as server,
        ColPali.from_pretrained(wide(local, 8192), threads=1) as model,
        MultiVectorStore.open(url=server.url, model=model) as store,
    ):
        report = ingest([source], store=store, model=model, on_error="skip")
        assert (report.added, len(report.failures), len(store)) == (2, 1, 2)
        [failure] = report.failures
        assert failure.name.endswith("report.pdf, page 2")
        expected = r"8,192 numbers are too many for the Qdrant collection .*takes 1,048,575 numbers per page, 127 such"
        for wanted in (expected, r"pool_factor=.*dim=.*max_num_visual_tokens=.*in a folder \(path=\)"):
            assert re.search(wanted, failure.reason), failure.reason
        with pytest.raises(StoreError, match=r"report\.pdf, page 2: .* are too many"):
            ingest([source], store=store, model=model)
    with (
        stand_in() as server,
        ColPali.from_pretrained(local, threads=1, dim=1024) as model,
        MultiVectorStore.open(url=server.url, model=model) as store,
    ):
        assert ingest([source], store=store, model=model).added == 3


def test_a_server_takes_one_number_less_than_its_limit() -> None:
    random = np.random.default_rng(0)
    model = replace(find_model(TOMORO), dim=1023)
    with stand_in() as server, MultiVectorStore.open(url=server.url, model=model, first_stage="exact") as store:
        most = random.standard_normal((1025, 1023)).astype(np.float32)
        assert most.size == MAX_SERVER_NUMBERS
        assert store.add([(Entry(id="most"), most)]) == 1
        with pytest.raises(StoreError, match="more: 1,026 vectors of 1,023 numbers are too many"):
            store.add([(Entry(id="less"), most[:3]), (Entry(id="more"), np.concatenate([most, most[:1]]))])
        assert sorted(entry.id for entry in store.scroll()) == ["less", "most"]
