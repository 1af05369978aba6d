"""ColUltraVBERT through the package: folders, the Hub, cut vectors, prompts, regions, stores, errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
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
from colpali_integrations.models.folder import describe_folder
from tests.models.hub_server import Hub, serve
from tests.models.test_hub import run
from tests.models.test_qwen2_vl import change
from tests.parity.cases import draw, page_named
from tests.stores.documents import save_pdf

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
FOLDER, DENSE = (FIXTURES / name for name in ("colultravbert", "colultravbert-dense"))
QUESTION = "what is the revenue"
PAGE = draw(page_named("grey"))


@pytest.fixture(scope="module")
def model() -> Iterator[ColPali]:
    with ColPali.from_pretrained(FOLDER, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def dense() -> Iterator[ColPali]:
    with ColPali.from_pretrained(DENSE, threads=1) as opened:
        yield opened


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda folder: shutil.copytree(folder, tmp_path / "local")


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a repository, by their paths in it."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(("golden", "resized")))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# Descriptions and the length of vectors


def test_the_files_of_a_folder_describe_it(model: ColPali, dense: ColPali) -> None:
    for one, dim in ((model, 32), (dense, 160)):
        assert (one.description.family, one.description.dim, one.description.is_checkpoint) == ("ultravbert", dim, True)
        assert {"chat_template.jinja", "modules.json"} <= set(one.description.files)
    assert "1_Dense/model.safetensors" in dense.description.files


def test_vectors_are_cut_where_the_model_is_trained_for_it(dense: ColPali) -> None:
    with ColPali.from_pretrained(DENSE, dim=128, threads=1) as cut:
        found, [page] = cut.embed_query(QUESTION), list(cut.embed_images([PAGE]))
        assert cut.description.fingerprint != dense.description.fingerprint
    for vectors, whole in ((found, dense.embed_query(QUESTION)), (page, next(dense.embed_images([PAGE])))):
        first = whole[:, :128]
        np.testing.assert_allclose(vectors, first / np.linalg.norm(first, axis=1, keepdims=True), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("folder", "dim", "message"),
    [
        (DENSE, 64, r"makes vectors of 160 numbers, got dim=64; its training permits 128 too"),
        (DENSE, 256, r"of 160 numbers, got dim=256"),
        (FOLDER, 16, r"of 32 numbers, got dim=16$"),
    ],
)
def test_other_lengths_are_refused(folder: Path, dim: int, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        ColPali.from_pretrained(folder, dim=dim)


# Prompts


def test_prompts_come_from_the_chat_template(model: ColPali, dense: ColPali) -> None:
    assert model.query_tokens("page")[-3:] == ["page", None, None]
    # "Find: " before and ten tokens after, by the template's message of the system and its task.
    assert dense.query_tokens("page") == [*[None] * 5, "page", *[None] * 11]
    assert dense.token_count("page") == len(dense.embed_query("page"))


def test_a_text_is_a_message_to_the_document_side(dense: ColPali) -> None:
    [vectors] = dense.embed_texts(["page, page."])
    # Two commas' worth of punctuation has no vectors, and there is no augmentation.
    assert len(vectors) == len(dense.family.texts.prepare("page, page.").ids) - 2
    assert len(vectors) < len(dense.embed_query("page, page."))


def test_a_folder_without_a_chat_template_is_refused(copied: Callable[[Path], Path]) -> None:
    local = copied(FOLDER)
    (local / "chat_template.jinja").unlink()
    with pytest.raises(ModelLoadError, match=r"has no chat template.*register_model\(ModelDescription\(.*'ultravbert'"):
        ColPali.from_pretrained(local)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0].content[0].text }}", r"contains the picture's <image> 0 times"),
        ("{% for one in messages %}<image>{% endfor %}", r"contains the text 0 times"),
        ("{{ raise_exception('no') }}", r"fails: no"),
    ],
)
def test_a_template_that_loses_text_or_picture_is_refused(
    copied: Callable[[Path], Path], template: str, message: str
) -> None:
    local = copied(FOLDER)
    (local / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelLoadError, match=message):
        ColPali.from_pretrained(local)


@pytest.mark.usefixtures("own_registry")
def test_the_caller_s_prompts_go_first(model: ColPali) -> None:
    mine = replace(
        model.description,
        name="mine",
        query_prefix="<|im_start|>Query: ",
        query_suffix="<end_of_utterance>" * 5,
        image_prompt="<|im_start|><image>Read.",
    )
    register_model(mine)
    with ColPali.from_pretrained("mine", local_dir=FOLDER, threads=1) as other:
        assert other.query_tokens("page")[-6:] == ["page", *[None] * 5]
        [page] = other.embed_pages([PAGE])
        assert page.grid.cells[-1] == -1


# The Hub

EMBED = """
with ColPali.from_pretrained("NAME", cache_dir=CACHE, threads=1) as model:
    result["query"] = model.embed_query("what is the revenue").tolist()
    result["dim"] = model.description.dim
"""


@pytest.mark.parametrize("folder", [FOLDER, DENSE], ids=lambda folder: folder.name)
def test_a_repository_comes_from_the_hub(folder: Path, tmp_path: Path) -> None:
    with serve(Hub("somebody/my-pages", files_of(folder))) as hub:
        result, _ = run(EMBED.replace("NAME", "somebody/my-pages"), cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result.get("error") is None, result
    with ColPali.from_pretrained(folder, threads=1) as local:
        np.testing.assert_array_equal(np.array(result["query"], np.float32), local.embed_query(QUESTION))


def test_the_registered_model_takes_the_files_that_its_modules_name(dense: ColPali, tmp_path: Path) -> None:
    """Its linear layer is fetched although the registry does not know of it; its vectors have another length."""
    name = find_model("athrael-soju/ColUltraVBERT").name
    with serve(Hub(name, files_of(DENSE))) as hub:
        script = EMBED.replace('"NAME"', f'"{name}", dim=160')
        result, _ = run(script, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert result.get("error") is None, result
        assert "1_Dense/model.safetensors" in hub.downloaded()
        offline, _ = run(script, cache=tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    np.testing.assert_array_equal(np.array(result["query"], np.float32), dense.embed_query(QUESTION))
    assert offline["query"] == result["query"]


# Vectors


def test_regions_of_a_page(model: ColPali, dense: ColPali) -> None:
    for one in (model, dense):
        [page] = one.embed_pages([PAGE])
        assert (page.grid.rows, page.grid.columns) == (16, 16)  # two by two tiles of 8 x 8 tokens
        assert len(page.vectors) == len(page.grid)
        assert sorted(cell for cell in page.grid.cells.tolist() if cell >= 0) == list(range(256))
        found = regions(one.embed_query(QUESTION), *page, tokens=one.query_tokens(QUESTION), min_match=0)
        assert {region.token for region in found} <= set(one.query_tokens(QUESTION))


def test_langchain_adds_a_pdf_and_finds_its_page(tmp_path: Path) -> None:
    pages = [draw(page_named(name)) for name in ("odd", "grey", "square")]
    pdf = save_pdf(tmp_path / "report.pdf", *(page.convert("RGB") for page in pages))
    embeddings = ColPaliEmbeddings(model=str(DENSE), dim=128, threads=1)
    with ColPaliVectorStore(embeddings, path=tmp_path / "store") as store:
        assert len(store.add_pdf(pdf, dpi=36)) == 3
        [found] = store.similarity_search(QUESTION, k=1)
        assert found.metadata["source"].endswith("report.pdf")


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_quantized_vectors_are_close(dense: ColPali, precision: str, tmp_path: Path) -> None:
    with ColPali.from_pretrained(DENSE, threads=1, precision=precision, cache_dir=tmp_path) as other:  # type: ignore[arg-type]
        found, exact = (one.embed_query(QUESTION) for one in (other, dense))
        assert 0.9 < (found * exact).sum(axis=1).min() < 1


def test_a_query_never_opens_the_tower(copied: Callable[[Path], Path], model: ColPali) -> None:
    """The tower of this checkpoint cannot be opened: its graph has pixels of another size than its weights."""
    local = copied(FOLDER)
    change(local / "config.json", vision_config__image_size=1024)
    with ColPali.from_pretrained(local, threads=1, lazy_load=True) as other:
        np.testing.assert_array_equal(other.embed_query(QUESTION), model.embed_query(QUESTION))
        with pytest.raises(Exception, match=r"."):
            list(other.embed_images([PAGE]))


# Errors


@pytest.mark.parametrize(
    ("folder", "values", "message"),
    [
        (FOLDER, {"text_config__layer_types": ["full_attention"]}, "kinds of 1 layers are given, num_hidden_layers is"),
        (FOLDER, {"text_config__layer_types": ["linear_attention"] * 13}, "layer_types has 'linear_attention'"),
        (FOLDER, {"text_config__rope_parameters": {"rope_theta": 1.0}}, "must hold a rope_theta for 'rope_theta'"),
        (FOLDER, {"text_config__rope_parameters__full_attention__rope_type": "yarn"}, "rope_type 'yarn'"),
        (DENSE, {"text_config__rope_theta": 10_000.0}, "must be a list of 13, one per layer; got 10000.0"),
        (FOLDER, {"text_config__hidden_act": "mish"}, "activation 'mish'"),
        (FOLDER, {"text_config__hidden_size": "wide"}, "hidden_size 'wide', expected a value of type int"),
    ],
)
def test_a_configuration_that_is_not_supported_is_refused(
    copied: Callable[[Path], Path], folder: Path, values: dict[str, Any], message: str
) -> None:
    local = copied(folder)
    change(local / "config.json", **values)
    with pytest.raises(ModelLoadError, match=message):
        ColPali.from_pretrained(local)


def test_a_head_with_an_activation_is_refused(copied: Callable[[Path], Path]) -> None:
    local = copied(DENSE)
    change(local / "1_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh")
    with pytest.raises(ModelLoadError, match=r"activation_function 'torch\.nn\.modules\.activation\.Tanh'"):
        ColPali.from_pretrained(local)


def test_the_head_of_pre_training_need_not_be_read(copied: Callable[[Path], Path], model: ColPali) -> None:
    """UltraVBERT itself, a base for retrievers, has a head for masked words beside its encoder."""
    from tests.models.builder.checkpoints import read, save

    local = copied(DENSE)
    arrays = read(local / "model.safetensors")
    arrays["lm_head.weight"] = arrays["projection_head.linear1.weight"] = np.ones((4, 32), np.float32)
    save(local / "model.safetensors", arrays)
    assert len(ColPali.from_pretrained(local, threads=1).embed_query("page")) > 2
    arrays["text_model.extra.weight"] = np.ones((4, 32), np.float32)
    save(local / "model.safetensors", arrays)
    with pytest.raises(ModelLoadError, match=r"nothing reads text_model\.extra\.weight"):
        ColPali.from_pretrained(local)


def test_the_registered_model_is_described() -> None:
    described = find_model("athrael-soju/ColUltraVBERT")
    assert (described.dim, described.license, described.query_prefix) == (768, "MIT", "")
    assert describe_folder(FOLDER).vidore == ()
