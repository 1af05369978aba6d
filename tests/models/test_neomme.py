"""NeoMME checkpoints through the package: folders, repositories without an entry, options, regions, stores, errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from colpali_integrations import ColPali, max_sim
from colpali_integrations.errors import ConfigurationError, FingerprintError, ModelLoadError, ModelNotFoundError
from colpali_integrations.explain import regions
from colpali_integrations.models import find_model, register_model
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.hub import cache_state
from colpali_integrations.models.quantizing import compare, quantize_model
from colpali_integrations.models.resizing import page_size
from colpali_integrations.models.single import SingleVectors
from colpali_integrations.scoring.pooling import single_vector
from colpali_integrations.stores import MultiVectorStore, index_documents
from tests.models.hub_server import COMMIT, Hub, serve
from tests.models.test_hub import run
from tests.parity.cases import draw, page_named

from .builder.checkpoints import bfloat16, read, save

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
FOLDER = FIXTURES / "neomme"
PAGE = np.random.default_rng(0).integers(0, 256, (100, 70, 3), dtype=np.uint8)
QUESTIONS = ["what is the revenue", "who signed the contract"]


@pytest.fixture(scope="module")
def model() -> Iterator[ColPali]:
    with ColPali.from_pretrained(FOLDER, threads=1) as opened:
        yield opened


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return shutil.copytree(FOLDER, tmp_path / "local")


# Descriptions


def test_config_and_tokenizer_describe_a_folder(model: ColPali) -> None:
    description = model.description
    assert (description.family, description.dim, description.is_checkpoint) == ("neomme", 128, True)
    assert {"model-00001-of-00002.safetensors", "chat_template.jinja"} <= set(description.files)
    assert describe_folder(FIXTURES / "neomme-float32").dim == 64


def test_every_file_that_decides_a_vector_is_part_of_the_fingerprint(local: Path) -> None:
    before = describe_folder(local).fingerprint
    for name in ("chat_template.jinja", "tokenizer.json", "config.json", "processor_config.json"):
        content = (local / name).read_bytes()
        (local / name).write_bytes(content + b"\n")
        assert describe_folder(local).fingerprint != before, name
        (local / name).write_bytes(content)
    assert describe_folder(local).fingerprint == before
    shard = local / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    assert describe_folder(local).fingerprint != before


@pytest.mark.parametrize("setting", [{"precision": "int8"}, {"max_side": 64}])
def test_settings_that_change_vectors_change_the_fingerprint(setting: dict[str, object], tmp_path: Path) -> None:
    plain = describe_folder(FOLDER)
    opened = ColPali.from_pretrained(FOLDER, lazy_load=True, cache_dir=tmp_path, **setting)  # type: ignore[arg-type]
    assert opened.description.fingerprint != plain.fingerprint
    assert replace(plain, precision="float32", allow_unused=("a",)).fingerprint == plain.fingerprint


@pytest.mark.usefixtures("own_registry")
def test_the_caller_s_prompts_go_before_the_chat_template(model: ColPali, local: Path) -> None:
    (local / "chat_template.jinja").unlink()
    with pytest.raises(ModelLoadError, match=r"no chat template.*query_prefix='<query>'"):
        ColPali.from_pretrained(local)
    given = {"query_prefix": "<query>", "query_suffix": "<mask>" * 10, "image_prompt": "<doc><image>"}
    register_model(replace(describe_folder(local), name="mine", **given))  # type: ignore[arg-type]
    with ColPali.from_pretrained("mine", local_dir=local, threads=1) as other:
        np.testing.assert_array_equal(other.embed_query(QUESTIONS[0]), model.embed_query(QUESTIONS[0]))
        for found, expected in zip(other.embed_texts(QUESTIONS), model.embed_texts(QUESTIONS), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_description_file_needs_only_the_family(model: ColPali, local: Path) -> None:
    content = {"description": {"family": "neomme", "max_side": 64, "allow_unused": ["rest"]}}
    (local / "colpali_integrations.json").write_text(json.dumps(content))
    opened = ColPali.from_pretrained(local, lazy_load=True)
    assert (opened.description.max_side, opened.description.allow_unused) == (64, ("rest",))


# The Hub


@pytest.fixture
def content() -> dict[str, bytes]:
    files = {
        path.name: path.read_bytes() for path in FOLDER.iterdir() if not path.name.startswith(("golden", "resized"))
    }
    return {**files, "README.md": b"# A model", "pytorch_model.bin": bytes(1000)}


EMBED = """
with ColPali.from_pretrained("somebody/my-pages", cache_dir=CACHE, threads=1) as model:
    result["query"] = model.embed_query("what is the revenue").tolist()
    result["description"] = model.description.to_dict()
"""


def test_a_repository_needs_no_entry(model: ColPali, content: dict[str, bytes], tmp_path: Path) -> None:
    with serve(Hub("somebody/my-pages", content)) as hub:
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert result.get("error") is None, result
        np.testing.assert_array_equal(np.array(result["query"], np.float32), model.embed_query(QUESTIONS[0]))
        assert result["description"]["repository"] == "somebody/my-pages"
        assert result["description"]["revision"] == COMMIT
        assert hub.downloaded() == set(content) - {"README.md", "pytorch_model.bin"}
    offline, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline["query"] == result["query"]


def test_a_repository_of_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with serve(Hub("somebody/my-pages", {"config.json": b'{"model_type": "whale"}'})) as hub:
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result["error"] == "ModelLoadError"
    assert "model_type 'whale'" in result["message"]


def test_without_a_network_the_error_says_what_was_tried(tmp_path: Path) -> None:
    result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert result["error"] == "ModelNotFoundError"
    assert "no model is registered as 'somebody/my-pages' and no folder has that name" in result["message"]
    assert "Check the network" in result["message"]


@pytest.mark.usefixtures("own_registry")
def test_a_name_that_only_stands_in_a_store_is_not_downloaded(local: Path, tmp_path: Path) -> None:
    description = replace(describe_folder(local), name="somebody/my-pages", repository="somebody/my-pages")
    with MultiVectorStore.open(tmp_path / "store", model=description):
        pass
    with (
        MultiVectorStore.open(tmp_path / "store") as store,
        pytest.raises(ConfigurationError, match="'somebody/my-pages', which is not registered here"),
    ):
        store.encoder  # noqa: B018


def test_the_published_models_are_registered() -> None:
    for name in ("Hcompany/NeoMME-260M-Retriever", "Hcompany/NeoMME-800M-Retriever"):
        assert find_model(name).family == "neomme"
        assert find_model(name).is_checkpoint


# Vectors


def test_texts_are_searched_beside_pages(model: ColPali) -> None:
    """A text is encoded as a document: other vectors than those of a query, and as many as tokens."""
    [text] = model.embed_texts([QUESTIONS[0]])
    query = model.embed_query(QUESTIONS[0])
    assert len(query) - len(text) == 10  # the masks
    assert model.token_count(QUESTIONS[0]) == len(query) == len(model.query_tokens(QUESTIONS[0]))
    assert np.isfinite(max_sim(query, [text])).all()


def test_a_long_query_is_cut_and_its_augmentation_kept(model: ColPali) -> None:
    with pytest.warns(UserWarning, match=r"a query of \d+ tokens is cut to 512"):
        assert len(model.embed_query("the revenue " * 600)) == 512 + 11


def test_regions_of_a_page(model: ColPali) -> None:
    [page] = model.embed_pages([PAGE])
    grid = page.grid
    assert (grid.rows, grid.columns) == (4, 3)
    assert grid.cells.tolist() == [-1, -1, 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1]
    assert grid.box(len(grid) - 2) == pytest.approx((64 / 70, 96 / 100, 1.0, 1.0))
    found = regions(model.embed_query(QUESTIONS[0]), *page, tokens=model.query_tokens(QUESTIONS[0]), min_match=0)
    assert {region.token for region in found} <= set(model.query_tokens(QUESTIONS[0]))
    assert found


def test_a_folder_of_documents_is_indexed_and_asked(model: ColPali, tmp_path: Path) -> None:
    page = draw(page_named("odd"))
    page.save(tmp_path / "odd.png")
    draw(page_named("grey")).save(tmp_path / "grey.png")
    index_documents([tmp_path / "odd.png", tmp_path / "grey.png"], model=model, store=tmp_path / "store")
    with MultiVectorStore.open(tmp_path / "store", model=model) as store:
        [vectors] = model.embed_images([page])
        assert store.search(vectors, k=1)[0].entry.name.startswith("odd.png")
    other = ColPali.from_pretrained(FOLDER, max_side=64, lazy_load=True)
    with MultiVectorStore.open(tmp_path / "store", model=other) as store:
        assert store.search("a question", k=1)
        with pytest.raises(FingerprintError, match="max_side 64"):
            index_documents([tmp_path / "odd.png"], model=other, store=store)


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_other_data_types_of_the_file_give_the_same_vectors(model: ColPali, local: Path, kind: str) -> None:
    """The weights are bfloat16 values, which float32 holds exactly and float16 nearly."""
    arrays = {}
    for shard in sorted(local.glob("*.safetensors")):
        for name, values in read(shard).items():
            floats = (values.astype(np.uint32) << 16).view(np.float32)
            np.testing.assert_array_equal(bfloat16(floats), values)
            arrays[name] = floats.astype(kind)
        shard.unlink()
    (local / "model.safetensors.index.json").unlink()
    save(local / "model.safetensors", arrays)
    with ColPali.from_pretrained(local, threads=1) as other:
        [found], [expected] = other.embed_images([PAGE]), model.embed_images([PAGE])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 if kind == "float32" else 5e-3)


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_quantized_vectors_rank_alike(model: ColPali, precision: str, tmp_path: Path) -> None:
    pages = [draw(page_named(name)) for name in ("a4-portrait", "square", "odd", "small", "grey", "exact-448")]
    with ColPali.from_pretrained(FOLDER, precision=precision, cache_dir=tmp_path, threads=1) as other:  # type: ignore[arg-type]
        agreement = compare(model, other, lambda: pages, QUESTIONS)
    assert 0.98 < agreement.page_cosines.min() < 0.999999
    assert agreement.query_cosines.min() > 0.98


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_a_speck_on_blank_paper_does_not_take_the_scale_of_the_others(
    model: ColPali, precision: str, tmp_path: Path
) -> None:
    """The norm of the patches turns it into a value of 55, beside values of 1 of a page's other patches."""
    page = np.full((512, 512, 3), 255, np.uint8)
    page[40, 40] = page[300:330, 100:400:3] = 0
    with ColPali.from_pretrained(FOLDER, precision=precision, cache_dir=tmp_path, threads=1) as other:  # type: ignore[arg-type]
        [exact], [found] = model.embed_images([page]), other.embed_images([page])
    assert (exact * found).sum(axis=1).min() > 0.999


# The dense head


def test_dense_vectors_of_queries_texts_and_pages(model: ColPali) -> None:
    [query], [text] = model.embed_queries_dense(QUESTIONS[0]), model.embed_texts_dense(QUESTIONS[0])
    [page] = model.embed_images_dense([PAGE])
    for vector in (query, text, page):
        assert vector.shape == (32,) == (model.description.dense_dim,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert np.abs(query - text).max() > 0.01
    [short] = model.embed_images_dense([PAGE], dimensions=8)
    np.testing.assert_allclose(short, page[:8] / np.linalg.norm(page[:8]), rtol=1e-6)


@pytest.mark.parametrize("dimensions", [0, 33])
def test_dimensions_that_the_model_lacks_are_refused(model: ColPali, dimensions: int) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 32"):
        model.embed_queries_dense("a", dimensions=dimensions)


def test_a_model_without_a_dense_head_says_so(coltiny: ColPali) -> None:
    with pytest.raises(ConfigurationError, match="coltiny has no trained dense head"):
        coltiny.embed_images_dense([PAGE])


def test_concurrent_calls_for_both_kinds_of_vectors_do_not_mix(model: ColPali) -> None:
    """Calls that arrive during a run are merged into one: only those that want the same of the same texts."""

    def both(_: int) -> tuple[int, int]:
        return model.embed_query(QUESTIONS[0]).shape[-1], next(model.embed_queries_dense(QUESTIONS[0])).shape[-1]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(both, range(40))) == {(128, 32)}


def test_single_vectors_are_dense_where_the_model_has_a_head(model: ColPali, coltiny: ColPali) -> None:
    [dense] = model.embed_queries_dense(QUESTIONS[0])
    assert SingleVectors(model).query(QUESTIONS[0]) == dense.tolist()
    assert SingleVectors(model, "mean").query(QUESTIONS[0]) == single_vector(model.embed_query(QUESTIONS[0]))
    assert SingleVectors(coltiny).pooling == "mean"
    names = {SingleVectors(model, *given).namespace for given in ((), ("mean",), ("dense", 8), ("dense", 16))}
    assert len(names) == 4
    for given, message in ((("dense",), "no trained dense head"), ((None, 8), "cannot be cut")):
        with pytest.raises(ConfigurationError, match=message):
            SingleVectors(coltiny, *given)


# Errors


def test_an_export_has_no_settings_of_a_checkpoint() -> None:
    with pytest.raises(ConfigurationError, match=r"precision, max_side: coltiny is an ONNX export"):
        ColPali.from_pretrained(precision="int8", max_side=100)
    with pytest.raises(ConfigurationError, match=r"precision must be one of float32, .*, got 'int7'"):
        ColPali.from_pretrained(FOLDER, precision="int7")  # type: ignore[arg-type]


def test_a_checkpoint_is_not_quantized_as_an_export(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"precision='int8'"):
        quantize_model(FOLDER, tmp_path / "out")


def test_an_unread_tensor_is_refused_unless_allowed(local: Path) -> None:
    index = json.loads((local / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.adapter.weight"] = "more.safetensors"
    (local / "model.safetensors.index.json").write_text(json.dumps(index))
    save(local / "more.safetensors", {"model.adapter.weight": np.ones(3, np.float32)})
    with pytest.raises(
        ModelLoadError, match=r"nothing reads model\.adapter\.weight.*allow_unused=\['adapter\.weight'\]"
    ):
        ColPali.from_pretrained(local)
    ColPali.from_pretrained(local, allow_unused=["adapter"], threads=1).close()


def test_a_backbone_without_the_retrieval_head_is_refused_by_name(tmp_path: Path) -> None:
    local = shutil.copytree(FIXTURES / "neomme-float32", tmp_path / "local")
    arrays = read(local / "model.safetensors")
    del arrays["multi_vector_head.proj.weight"]
    save(local / "model.safetensors", arrays)
    with pytest.raises(ModelLoadError, match=r"lacks the tensor 'multi_vector_head\.proj\.weight'"):
        ColPali.from_pretrained(local)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "mish"}, "activation 'mish'"),
        ({"num_hidden_layers": 3}, "layer_types must name 3 layers"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type 'yarn'"),
        ({"per_layer_config": {"x": {}}}, "not that of a NeoMME"),
        ({"embedding_dim": 0}, "dim"),
    ],
)
def test_a_configuration_that_is_not_supported_is_refused(local: Path, change: dict[str, object], message: str) -> None:
    path = local / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises((ModelLoadError, ConfigurationError), match=message):
        ColPali.from_pretrained(local)


def test_a_shard_that_was_not_downloaded_is_named(local: Path) -> None:
    (local / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"lacks model-00002-of-00002\.safetensors"):
        ColPali.from_pretrained(local)


def test_an_unknown_name_without_a_slash_is_refused_at_once() -> None:
    with pytest.raises(ModelNotFoundError, match="no model is registered as 'neome'"):
        ColPali.from_pretrained("neome")


# Sizes of pages: transformers 5.24 NeoMMEImageProcessor, get_resize_output_size


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((1000, 500), {"max_side": None}, (1000, 500)),
        ((4096, 4096), {"max_side": 2048}, (2048, 2048)),
        ((5000, 3), {"max_side": 2048}, (2048, 1)),
        ((5000, 1), {"max_side": 2048}, (2048, 1)),
        ((1001, 1001), {"max_side": None, "max_pixels": 1_000_000}, (1000, 1000)),
        ((3, 5000), {"max_side": None, "max_pixels": 100}, (1, 100)),
        ((10, 10), {"max_side": None, "min_pixels": 101}, (11, 11)),
        ((100, 1), {"max_side": 100, "min_pixels": 400}, (100, 1)),
    ],
)
def test_page_size(size: tuple[int, int], limits: dict[str, int | None], expected: tuple[int, int]) -> None:
    assert page_size(*size, **limits) == expected  # type: ignore[arg-type]


def test_a_tokenizer_that_joins_prompt_and_text_is_refused(local: Path) -> None:
    content = json.loads((local / "tokenizer.json").read_text())
    # A space before the first word of a text alone, and not behind a special token.
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "Ġ", "prepend_scheme": "first", "split": True}
    (local / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelLoadError, match="makes other tokens of a text behind '<query>'"):
        ColPali.from_pretrained(local)


def test_a_download_that_was_cut_off_is_known_without_loading(content: dict[str, bytes], tmp_path: Path) -> None:
    description = replace(describe_folder(FOLDER), name="somebody/my-pages", repository="somebody/my-pages")
    root = tmp_path / "models--somebody--my-pages"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    for name in description.files:
        (snapshot / name).write_bytes(content[name])
    assert cache_state(replace(description, revision=None), cache_dir=tmp_path).complete
    (snapshot / "model-00002-of-00002.safetensors").write_bytes(content["model-00002-of-00002.safetensors"][:-1])
    state = cache_state(replace(description, revision=None), cache_dir=tmp_path)
    assert state.short == ("model-00002-of-00002.safetensors",)
