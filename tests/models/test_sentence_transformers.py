"""The layout of sentence-transformers: modules, limits, skipped words, and what is not supported of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import EncodingError, ModelLoadError
from colpali_integrations.models.builder.files import module_files
from colpali_integrations.models.builder.weights import Checkpoint
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.hub import cache_state
from colpali_integrations.models.sentence_transformers import Modules
from tests.models.builder.checkpoints import read, save
from tests.models.hub_server import COMMIT
from tests.models.linear_attention import NEEDS_LINEAR_ATTENTION

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
PAGE = np.random.default_rng(0).integers(0, 256, (100, 70, 3), dtype=np.uint8)
MASK, DENSE = "2_MultiVectorMask/config.json", "1_Dense/config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURES / "pplx_late", tmp_path / "late")


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def modules(folder: Path, *kinds: str) -> None:
    """Names these modules, each in its folder of the fixture or in one of its own."""
    places = {"Transformer": "", "Dense": "1_Dense", "MultiVectorMask": "2_MultiVectorMask", "Normalize": "3_Normalize"}
    content = [{"idx": 0, "type": f"library.{kind}", "path": places.get(kind, kind)} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(content))


def family(folder: Path) -> Family:
    description = describe_folder(folder)
    return family_class(description.family)(description, folder)


def test_modules_describe_a_folder(folder: Path) -> None:
    found = Modules.read(folder)
    assert found is not None
    assert (found.dim, found.query_length, found.document_length) == (128, 1024, 4096)
    assert len(found.mask["skiplist_words"]) == 32
    assert module_files(folder) == [
        *("modules.json", "sentence_bert_config.json", "1_Dense/config.json", "2_MultiVectorMask/config.json"),
        *("3_Normalize/config.json", "1_Dense/model.safetensors"),
    ]
    description = describe_folder(folder)
    assert set(module_files(folder)) <= set(description.files)
    assert (description.query_prefix, description.query_suffix) == ("[Q] ", "")
    assert description.image_prompt == "[D] <|vision_start|><image><|vision_end|>"


def test_another_folder_has_no_modules() -> None:
    assert Modules.read(FIXTURES / "colqwen3_5") is None
    assert module_files(FIXTURES / "colqwen3_5") == []


def test_the_head_s_file_is_part_of_the_checkpoint_and_of_the_fingerprint(folder: Path) -> None:
    assert Checkpoint(folder)["linear.weight"].shape == (128, 32)
    before = describe_folder(folder).fingerprint
    path = folder / "1_Dense" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert describe_folder(folder).fingerprint != before


def test_the_state_of_a_cache_counts_the_files_of_modules(tmp_path: Path) -> None:
    late = ModelDescription(
        name="me/late",
        family="qwen3_5",
        dim=128,
        repository="me/late",
        model_file="model.safetensors",
        additional_files=("tokenizer.json", "config.json", "modules.json"),
    )
    repository = tmp_path / "models--me--late"
    snapshot = shutil.copytree(FIXTURES / "pplx_late", repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    assert cache_state(late, cache_dir=tmp_path).complete
    head = snapshot / "1_Dense" / "model.safetensors"
    head.write_bytes(head.read_bytes()[:-1])
    assert cache_state(late, cache_dir=tmp_path).short == ("1_Dense/model.safetensors",)
    head.unlink()
    assert cache_state(late, cache_dir=tmp_path).missing == ("1_Dense/model.safetensors",)
    (snapshot / "modules.json").write_text("[")
    damaged = cache_state(late, cache_dir=tmp_path)
    assert (damaged.complete, damaged.short) == (False, ("modules.json",))


def test_limits_hold_the_prompt_too(folder: Path) -> None:
    change(folder / "sentence_bert_config.json", query_length=9, document_length=12)
    opened = family(folder)
    with pytest.warns(UserWarning, match="a query of [0-9]+ tokens is cut to 8"):
        assert len(opened.queries.prepare("how much is due " * 9).ids) == 9
    with pytest.warns(UserWarning, match="a text of [0-9]+ tokens is cut to 11"):
        assert len(opened.texts.prepare("how much is due " * 9).ids) == 12
    change(folder / "sentence_bert_config.json", query_length=None, document_length=None)
    assert len(family(folder).texts.prepare("how much is due " * 900).ids) > 4096


@NEEDS_LINEAR_ATTENTION
def test_words_may_be_skipped_in_queries_too(folder: Path) -> None:
    change(folder / MASK, skiplist_tasks=["query", "document"])
    with ColPali.from_pretrained(folder, threads=1) as model:
        text = "what, then?"
        vectors, pieces = model.embed_query(text), model.query_tokens(text)
        assert len(vectors) == len(pieces) == model.token_count(text) == len(model.family.queries.prepare(text).ids) - 2
        assert not {",", "?"} & set(pieces)


@NEEDS_LINEAR_ATTENTION
def test_only_tokens_of_the_picture_may_be_kept(folder: Path) -> None:
    image = json.loads((folder / "config.json").read_text())["image_token_id"]
    change(folder / MASK, keep_only_token_ids=[image])
    with ColPali.from_pretrained(folder, threads=1) as model:
        [page] = model.embed_pages([PAGE])
        assert page.grid.cells.tolist() == list(range(page.grid.rows * page.grid.columns))
        assert len(page.vectors) == len(page.grid)
        with pytest.raises(EncodingError, match="nothing is left of a text"):
            list(model.embed_texts(["words"]))


@NEEDS_LINEAR_ATTENTION
def test_a_page_s_grid_leaves_out_skipped_words_of_its_prompt(folder: Path) -> None:
    change(folder / "config_sentence_transformers.json", prompts={"query": "[Q] ", "document": "[D] a, b: "})
    with ColPali.from_pretrained(folder, threads=1) as model:
        [page] = model.embed_pages([PAGE])
        prepared = model.family.pages.prepare(next(iter_images()))
        assert len(page.vectors) == len(page.grid) == len(prepared.ids) - 2
        assert page.grid.cells.max() == page.grid.rows * page.grid.columns - 1


def iter_images() -> Any:
    from colpali_integrations.pages.images import load_image

    yield load_image(PAGE)


@NEEDS_LINEAR_ATTENTION
def test_a_head_may_have_a_bias(folder: Path) -> None:
    with ColPali.from_pretrained(folder, threads=1) as model:
        before = model.embed_query("page")
    path = folder / "1_Dense" / "model.safetensors"
    bias = np.linspace(-1, 1, 128, dtype=np.float32)
    save(path, {**read(path), "linear.bias": bias})
    with ColPali.from_pretrained(folder, threads=1) as model:
        after = model.embed_query("page")
    # Unit vectors of rows that differ by the bias: what is left without it is in the direction of the row before.
    assert np.abs(after - before).max() > 0.05
    for one, other in zip(before, after, strict=True):
        basis = np.stack([one, bias], axis=1)
        remainder = other - basis @ np.linalg.lstsq(basis, other, rcond=None)[0]
        assert np.abs(remainder).max() < 1e-5


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        (DENSE, {"activation_function": "torch.nn.modules.activation.Tanh"}, "activation_function 'torch.nn"),
        (DENSE, {"use_residual": True}, "use_residual True is not supported"),
        (DENSE, {"module_input_name": "sentence_embedding"}, "module_input_name must be 'token_embeddings'"),
        (DENSE, {"out_features": None}, "must hold out_features"),
        ("3_Normalize/config.json", {"module_input_name": "sentence_embedding"}, "module_input_name must be"),
        ("sentence_bert_config.json", {"query_expansion": {"length": 32}}, "query_expansion is not supported"),
    ],
)
def test_modules_that_are_not_supported_are_refused(
    folder: Path, path: str, values: dict[str, Any], message: str
) -> None:
    change(folder / path, **values)
    with pytest.raises(ModelLoadError, match=message):
        describe_folder(folder)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (("Transformer", "Dense", "Normalize", "Pooling"), "has the modules Transformer, Dense, Normalize, Pooling"),
        (("Transformer", "Dense"), "no Dense without Normalize"),
        (("Transformer", "Dense", "Dense", "Normalize"), "must name each kind of module once"),
    ],
)
def test_other_modules_are_refused(folder: Path, kinds: tuple[str, ...], message: str) -> None:
    (folder / "Pooling").mkdir()
    (folder / "Pooling" / "config.json").write_text("{}")
    modules(folder, *kinds)
    with pytest.raises(ModelLoadError, match=message):
        describe_folder(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "cannot read the modules of the model from .*expected a list, got dict"),
        ("[{}]", "cannot read the modules of the model from .*'type'"),
        ("[", "cannot read the modules of the model from"),
        ('[{"type": "a.Dense", "path": "../1_Dense"}]', "in a folder beside it"),
    ],
)
def test_a_damaged_list_of_modules_is_refused(folder: Path, content: str, message: str) -> None:
    (folder / "modules.json").write_text(content)
    with pytest.raises(ModelLoadError, match=message):
        describe_folder(folder)


def test_a_head_that_is_missing_or_pickled_is_refused(folder: Path) -> None:
    weights = folder / "1_Dense" / "model.safetensors"
    weights.unlink()
    with pytest.raises(ModelLoadError, match=r"lacks 1_Dense/model\.safetensors"):
        describe_folder(folder)
    (folder / "1_Dense" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"has its weights in 1_Dense/pytorch_model\.bin, a pickle"):
        describe_folder(folder)


def test_a_chat_template_with_roles_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("<|im_start|>user\n{{ messages[0].content }}<|im_end|>")
    with pytest.raises(ModelLoadError, match="puts words around a text"):
        describe_folder(folder)
