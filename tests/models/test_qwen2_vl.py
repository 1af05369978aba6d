"""ColQwen2 and ColQwen2.5 through the package: folders, adapters, the Hub, options, regions, stores, errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, ImageError, ModelLoadError
from colpali_integrations.explain import regions
from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliVectorStore
from colpali_integrations.models import find_model, register_model
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.hub import cache_state
from colpali_integrations.stores import MultiVectorStore, index_documents
from tests.models.hub_server import COMMIT, Hub, serve
from tests.models.test_hub import run
from tests.parity.cases import draw, page_named
from tests.stores.documents import save_pdf

from .builder.checkpoints import read, save

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
FOLDER, ADAPTER, BASE = (FIXTURES / name for name in ("colqwen2", "colqwen2_5", "colqwen2_5-base"))
PAGE = np.random.default_rng(0).integers(0, 256, (100, 70, 3), dtype=np.uint8)
QUESTION = "what is the revenue"


@pytest.fixture(scope="module")
def model() -> Iterator[ColPali]:
    with ColPali.from_pretrained(FOLDER, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def adapted() -> Iterator[ColPali]:
    with ColPali.from_pretrained(ADAPTER, base=BASE, threads=1) as opened:
        yield opened


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return shutil.copytree(FOLDER, tmp_path / "local")


def change(path: Path, **values: Any) -> None:
    """Replace values of a JSON file; a dotted name stands for a nested one."""
    content = json.loads(path.read_text())
    for name, value in values.items():
        *outer, last = name.split("__")
        inner = content
        for part in outer:
            inner = inner[part]
        inner[last] = value
    path.write_text(json.dumps(content))


# Descriptions and options


def test_config_and_processor_describe_a_folder(model: ColPali, adapted: ColPali, local: Path) -> None:
    for one, shards in ((model, 2), (adapted, 0)):
        assert (one.description.family, one.description.dim, one.description.is_checkpoint) == ("qwen2_vl", 128, True)
        assert sum("-of-" in name for name in one.description.files) == shards
    assert adapted.description.is_adapter
    assert adapted.description.base == "colqwen2_5-base"
    change(local / "processor_config.json", query_prefix="Question: ", visual_prompt_prefix="<|image_pad|>Read it.")
    described = describe_folder(local)
    assert (described.query_prefix, described.image_prompt) == ("Question: ", "<image>Read it.")


def test_the_base_is_part_of_the_fingerprint(adapted: ColPali, tmp_path: Path) -> None:
    base = shutil.copytree(BASE, tmp_path / "another-name")
    copied = ColPali.from_pretrained(ADAPTER, base=base, lazy_load=True)
    assert copied.description.fingerprint == adapted.description.fingerprint
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    changed = ColPali.from_pretrained(ADAPTER, base=base, lazy_load=True)
    assert changed.description.fingerprint != adapted.description.fingerprint


def test_a_budget_of_tokens_makes_pages_smaller(model: ColPali) -> None:
    page = draw(page_named("a4-portrait"))
    small = ColPali.from_pretrained(FOLDER, max_num_visual_tokens=64, threads=1)
    [[vectors, grid]] = small.embed_pages([page])
    assert (grid.rows, grid.columns) == (9, 6)
    assert len(vectors) == len(grid) == 54 + 13
    assert small.description.fingerprint != model.description.fingerprint
    assert small.description.max_num_visual_tokens == 64


@pytest.mark.parametrize(
    ("folder", "option", "own"),
    [("neomme", "max_num_visual_tokens", "max_side="), ("colqwen2", "max_side", "max_num_visual_tokens=")],
)
def test_the_page_size_of_another_family_is_refused(folder: str, option: str, own: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option}: not an option of the family .*, which has .*{own}"):
        ColPali.from_pretrained(FIXTURES / folder, **{option: 100})  # type: ignore[arg-type]


def test_invalid_budgets_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_num_visual_tokens must be a whole number of at least 1, got 0"):
        ColPali.from_pretrained(FOLDER, max_num_visual_tokens=0)
    with pytest.raises(ConfigurationError, match="max_num_visual_tokens must be a positive whole number, got 0"):
        replace(find_model("vidore/colqwen2-v1.0"), max_num_visual_tokens=0)


@pytest.mark.parametrize(
    "name",
    [
        *("vidore/colqwen2-v1.0", "vidore/colqwen2.5-v0.2"),
        *("nomic-ai/colnomic-embed-multimodal-3b", "nomic-ai/colnomic-embed-multimodal-7b"),
    ],
)
def test_published_adapters_are_registered_with_the_prompt_of_their_training(name: str) -> None:
    description = find_model(name)
    assert description.is_adapter
    assert (description.query_prefix, description.query_suffix) == ("Query: ", "<|endoftext|>" * 10)


@pytest.mark.usefixtures("own_registry")
def test_the_caller_s_prompts_go_first(adapted: ColPali) -> None:
    mine = replace(adapted.description, name="mine", query_prefix="Query: ", base=None, base_revision=None)
    register_model(mine)
    with ColPali.from_pretrained("mine", local_dir=ADAPTER, base=BASE, threads=1) as other:
        assert len(other.embed_query(QUESTION)) > len(adapted.embed_query(QUESTION))
        assert other.query_tokens(QUESTION)[0] is None
        assert adapted.query_tokens(QUESTION)[0] is not None


# The Hub


def repository(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("golden")}


EMBED = """
with ColPali.from_pretrained("somebody/my-pages", cache_dir=CACHE, threads=1) as model:
    result["query"] = model.embed_query("what is the revenue").tolist()
    result["description"] = model.description.to_dict()
"""


def test_an_adapter_and_its_base_come_from_the_hub(adapted: ColPali, tmp_path: Path) -> None:
    base = repository(BASE)
    hub = Hub("somebody/my-pages", repository(ADAPTER), others={"somebody/colqwen2.5-base": base})
    with serve(hub):
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert result.get("error") is None, result
    np.testing.assert_array_equal(np.array(result["query"], np.float32), adapted.embed_query(QUESTION))
    description = result["description"]
    assert (description["revision"], description["base_revision"]) == (COMMIT, COMMIT)
    assert description["base"] == "somebody/colqwen2.5-base"
    assert {"adapter_model.safetensors", "model.safetensors"} <= hub.downloaded()
    offline, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline["query"] == result["query"]
    registered = replace(find_model("vidore/colqwen2-v1.0"), repository="somebody/my-pages")
    assert cache_state(registered, cache_dir=tmp_path / "hub").complete
    shutil.rmtree(tmp_path / "hub" / "models--somebody--colqwen2.5-base")
    assert cache_state(registered, cache_dir=tmp_path / "hub").missing == ("its base checkpoint",)


def test_an_adapter_in_the_file_of_a_whole_model_comes_from_the_hub(adapted: ColPali, tmp_path: Path) -> None:
    files = repository(ADAPTER)
    files["model.safetensors"] = files.pop("adapter_model.safetensors")
    with serve(Hub("somebody/my-pages", files, others={"somebody/colqwen2.5-base": repository(BASE)})) as hub:
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result.get("error") is None, result
    np.testing.assert_array_equal(np.array(result["query"], np.float32), adapted.embed_query(QUESTION))


@pytest.mark.parametrize("shards", [True, False])
def test_whole_weights_beside_an_adapter_s_configuration_come_from_the_hub(
    shards: bool, model: ColPali, adapted: ColPali, tmp_path: Path
) -> None:
    """The base of `ADAPTER` needs no base of its own: a Hub that lacks one is enough."""
    files = {
        **repository(FOLDER if shards else BASE),
        "adapter_config.json": repository(ADAPTER)["adapter_config.json"],
    }
    if not shards:
        files = {**repository(ADAPTER), **files}
        del files["adapter_model.safetensors"]
    with serve(Hub("somebody/my-pages", files)) as hub:
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result.get("error") is None, result
    found = np.array(result["query"], np.float32)
    if shards:
        np.testing.assert_array_equal(found, model.embed_query(QUESTION))
    else:
        assert np.abs(found - adapted.embed_query(QUESTION)).max() > 0.01
    assert result["description"]["base"] is None
    with serve(Hub("somebody/my-pages", files)) as hub:
        again, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert hub.requests == [], "cached files need no request"
    assert again["query"] == result["query"]


def test_a_base_that_cannot_be_found_is_named(tmp_path: Path) -> None:
    with serve(Hub("somebody/my-pages", repository(ADAPTER))) as hub:
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result["error"] == "ModelNotFoundError"
    assert "is an adapter of 'somebody/colqwen2.5-base', which cannot be found" in result["message"]


def test_a_whole_checkpoint_comes_from_the_hub(model: ColPali, tmp_path: Path) -> None:
    with serve(Hub("somebody/my-pages", repository(FOLDER))) as hub:
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result.get("error") is None, result
    np.testing.assert_array_equal(np.array(result["query"], np.float32), model.embed_query(QUESTION))


# Vectors


def test_regions_of_a_page(model: ColPali) -> None:
    [page] = model.embed_pages([PAGE])
    grid = page.grid
    assert (grid.rows, grid.columns) == (4, 2)
    cells = grid.cells.tolist()
    first = cells.index(0)
    assert cells == [*[-1] * first, *range(8), *[-1] * (len(cells) - first - 8)]
    assert grid.box(first + 1) == (0.5, 0.0, 1.0, 0.25)
    found = regions(model.embed_query(QUESTION), *page, tokens=model.query_tokens(QUESTION), min_match=0)
    assert found
    assert {region.token for region in found} <= set(model.query_tokens(QUESTION))


def test_langchain_adds_a_pdf_and_finds_its_page(tmp_path: Path) -> None:
    pages = [draw(page_named(name)) for name in ("odd", "grey", "square")]
    pdf = save_pdf(tmp_path / "report.pdf", *(page.convert("RGB") for page in pages))
    embeddings = ColPaliEmbeddings(model=str(FOLDER), max_num_visual_tokens=64, threads=1)
    with ColPaliVectorStore(embeddings, path=tmp_path / "store") as store:
        assert len(store.add_pdf(pdf, dpi=72)) == 3
        [found] = store.similarity_search(QUESTION, k=1)
        assert found.metadata["source"].endswith("report.pdf")


def test_a_page_is_found_by_its_own_vectors(model: ColPali, tmp_path: Path) -> None:
    pages = {name: draw(page_named(name)) for name in ("odd", "grey")}
    for name, page in pages.items():
        page.save(tmp_path / f"{name}.png")
    index_documents([tmp_path / f"{name}.png" for name in pages], model=model, store=tmp_path / "store")
    with MultiVectorStore.open(tmp_path / "store", model=model) as store:
        [vectors] = model.embed_images([pages["grey"]])
        assert store.search(vectors, k=1)[0].entry.name.startswith("grey.png")
    other = ColPali.from_pretrained(FOLDER, max_num_visual_tokens=64, lazy_load=True)
    with MultiVectorStore.open(tmp_path / "store", model=other) as store:
        assert store.search(QUESTION, k=1)
        with pytest.raises(FingerprintError, match="max_num_visual_tokens 64"):
            index_documents([tmp_path / "odd.png"], model=other, store=store)


def test_a_page_that_is_too_long_is_reported_and_others_go_on(model: ColPali) -> None:
    errors: list[Exception] = []
    pages = [PAGE, np.zeros((3000, 10, 3), np.uint8), PAGE]
    assert len(list(model.embed_images(pages, on_error=errors.append))) == 2
    [error] = errors
    assert isinstance(error, ImageError)
    assert error.index == 1


def test_a_query_never_opens_the_tower(local: Path, model: ColPali) -> None:
    """The tower of this checkpoint cannot be opened: its configuration has another width than its weights."""
    change(local / "config.json", vlm_config__vision_config__embed_dim=32)
    with ColPali.from_pretrained(local, threads=1, lazy_load=True) as other:
        np.testing.assert_array_equal(other.embed_query(QUESTION), model.embed_query(QUESTION))
        with pytest.raises(ModelLoadError):
            list(other.embed_images([PAGE]))


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_adapters_are_quantized_with_their_base(adapted: ColPali, precision: str, tmp_path: Path) -> None:
    """An adapter is merged before the weights are quantized: as it is with the merged weights in a file."""
    arrays, stored = read(BASE / "model.safetensors"), read(ADAPTER / "adapter_model.safetensors")
    halves = {name.removesuffix(".lora_A.weight"): down for name, down in stored.items() if "lora_A" in name}
    for name, down in halves.items():
        weight = f"{name.removeprefix('base_model.model.')}.weight"
        arrays[weight] = arrays[weight] + np.float32(2) * (stored[f"{name}.lora_B.weight"] @ down)
    whole = shutil.copytree(ADAPTER, tmp_path / "whole", ignore=shutil.ignore_patterns("adapter*"))
    shutil.copy(BASE / "config.json", whole)
    save(whole / "model.safetensors", arrays)
    options: dict[str, Any] = {"precision": precision, "cache_dir": tmp_path, "threads": 1}
    with (
        ColPali.from_pretrained(whole, **options) as merged,
        ColPali.from_pretrained(ADAPTER, base=BASE, **options) as other,
    ):
        np.testing.assert_allclose(other.embed_query(QUESTION), merged.embed_query(QUESTION), rtol=0, atol=1e-4)
        [found], [expected] = other.embed_images([PAGE]), merged.embed_images([PAGE])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert np.abs(found - next(adapted.embed_images([PAGE]))).max() > 1e-4
    assert len(list((tmp_path / "colpali-integrations").glob("*.safetensors"))) == 2


# Errors


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vlm_config__text_config__use_sliding_window": True}, "use_sliding_window"),
        ({"vlm_config__text_config__rope_parameters__rope_type": "yarn"}, "rope_type 'yarn'"),
        ({"vlm_config__text_config__rope_parameters__mrope_section": [1, 1, 1]}, "must add up to 4"),
        ({"vlm_config__vision_config__hidden_act": "mish"}, "activation 'mish'"),
        ({"vlm_config__vision_config__patch_size": None}, "not that of a qwen2_vl model"),
        ({"vlm_config__image_token_id": 3}, "other ids of '<|image_pad|>'"),
        ({"vlm_config__model_type": "qwen3_vl"}, "model_type 'qwen3_vl', expected one of qwen2_vl, qwen2_5_vl"),
    ],
)
def test_a_configuration_that_is_not_supported_is_refused(local: Path, values: dict[str, Any], message: str) -> None:
    change(local / "config.json", **values)
    with pytest.raises(ModelLoadError, match=message.replace("|", r"\|")):
        ColPali.from_pretrained(local)


def test_sizes_without_limits_are_refused(local: Path) -> None:
    change(local / "processor_config.json", image_processor__size={"height": 3})
    with pytest.raises(ModelLoadError, match=r"processor_config\.json: size must hold shortest_edge and longest_edge"):
        ColPali.from_pretrained(local)


def test_an_image_prompt_without_its_image_is_refused(local: Path) -> None:
    change(local / "processor_config.json", visual_prompt_prefix="Describe the image.")
    with pytest.raises(ModelLoadError, match="the image prompt must contain <image> once"):
        ColPali.from_pretrained(local)


def test_a_base_without_the_retrieval_head_is_refused_by_name(tmp_path: Path) -> None:
    base = shutil.copytree(BASE, tmp_path / "base")
    arrays = read(base / "model.safetensors")
    del arrays["custom_text_proj.weight"]
    save(base / "model.safetensors", arrays)
    with pytest.raises(ModelLoadError, match=r"adapts 'custom_text_proj\.weight', which .*base lacks"):
        ColPali.from_pretrained(ADAPTER, base=base)


def test_an_unread_tensor_of_the_base_is_refused_unless_allowed(tmp_path: Path) -> None:
    base = shutil.copytree(BASE, tmp_path / "base")
    arrays = read(base / "model.safetensors")
    save(base / "model.safetensors", {**arrays, "visual.extra.weight": np.ones(3, np.float32)})
    with pytest.raises(ModelLoadError, match=r"nothing reads visual\.extra\.weight"):
        ColPali.from_pretrained(ADAPTER, base=base)
    ColPali.from_pretrained(ADAPTER, base=base, allow_unused=["visual.extra"], threads=1).close()
