"""The registry: frozen descriptions, one literal per model."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, ModelNotFoundError
from colpali_integrations.models import ModelDescription, find_model, list_supported_models, register_model
from colpali_integrations.models.content import content_revision
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.family import family_class
from colpali_integrations.models.fingerprint import identity
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.hub import bundled_folder

FIXTURES = Path(__file__).parent.parent / "parity" / "fixtures"


def test_every_description_is_complete() -> None:
    models = list_supported_models()
    assert {"coltiny", "Qdrant/colpali-v1.3-fp16", "Qdrant/colmodernvbert"} <= {model.name for model in models}
    for model in models:
        assert model.family in FAMILIES
        assert model.dim > 0
        assert model.license
        assert model.summary.endswith(".")
        assert model.parameters > 0
        assert model.size_in_bytes > 0
        assert model.is_checkpoint == model.model_file.endswith((".safetensors", ".safetensors.index.json"))
        assert bool(model.vidore) == bool(model.vidore_source)
        json.dumps(model.to_dict())


def test_every_family_can_be_imported() -> None:
    for name in FAMILIES:
        assert family_class(name).__name__ == FAMILIES[name].class_name
        assert re.fullmatch(rf"{name}-\d+", FAMILIES[name].preprocessing)


def test_the_bundled_model_s_description_has_its_true_size_and_revision() -> None:
    folder = Path(__file__).parents[2] / "colpali_integrations" / "models" / "coltiny" / "weights"
    model = find_model("coltiny")
    revision = content_revision(folder, model.files)
    assert model.revision == revision, "other weights need another revision in models/known.py"
    assert describe_folder(folder).fingerprint == model.fingerprint, "a copy in a folder is the same model"
    on_disk = sum((folder / name).stat().st_size for name in model.files)
    assert abs(on_disk - model.size_in_bytes) < 0.05 * on_disk
    assert on_disk <= 12_000_000


@pytest.mark.usefixtures("own_registry")
def test_another_checkpoint_of_a_known_family_is_one_literal() -> None:
    register_model(
        ModelDescription(
            name="me/older-colpali",
            family="paligemma",
            repository="me/older-colpali",
            dim=128,
            query_prefix="<bos>Question: ",
            query_suffix="<pad>" * 10 + "\n",
            image_prompt="<image><bos>Describe the image.\n",
        )
    )
    model = ColPali.from_pretrained("ME/Older-ColPali", local_dir=FIXTURES / "paligemma", lazy_load=True)
    newer = ColPali.from_pretrained("Qdrant/colpali-v1.3-fp16", local_dir=FIXTURES / "paligemma", lazy_load=True)
    assert model.description.name == "me/older-colpali"
    assert model.family.queries.prepare("x").ids.tolist() != newer.family.queries.prepare("x").ids.tolist()


@pytest.mark.usefixtures("own_registry")
def test_a_name_is_taken_once() -> None:
    description = dataclasses.replace(find_model("coltiny"), name="ColTiny", summary="Mine.")
    with pytest.raises(ConfigurationError, match="replace=True"):
        register_model(description)
    register_model(description, replace=True)
    assert find_model("coltiny").summary == "Mine."


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": " x"},
        {"dim": 0},
        {"dim": -1},
        {"max_query_tokens": 0},
        {"family": "colbert"},
        {"best_match": 0.0},
        {"best_match": float("nan")},
        {"best_match": float("inf")},
    ],
)
def test_invalid_descriptions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        register_model(dataclasses.replace(find_model("coltiny"), **{"name": "new", **wrong}))


def test_unknown_names_show_close_ones() -> None:
    with pytest.raises(ModelNotFoundError, match=r"Did you mean 'Qdrant/colmodernvbert'\?"):
        find_model("colmodernvbert")
    with pytest.raises(ModelNotFoundError, match=r"Registered are coltiny, .* others are not supported") as caught:
        find_model("vidore/colflor")
    assert "Did you mean" not in str(caught.value)


def test_descriptions_are_values() -> None:
    model = find_model("Qdrant/colpali-v1.3-fp16")
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.dim = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(model)) == copy.deepcopy(model) == model
    assert hash(model) == hash(copy.deepcopy(model))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_fingerprint_depends_on_this_package_s_own_preprocessing(name: str) -> None:
    model = dataclasses.replace(find_model("coltiny"), family=name)
    keys = ("family", "dim", "repository", "model_file", "query_prefix", "query_suffix", "image_prompt")
    values: dict[str, Any] = {key: getattr(model, key) for key in (*keys, "max_query_tokens")}
    for preprocessing in (FAMILIES[name].preprocessing, f"{name}-99"):
        expected = identity({**values, "preprocessing": preprocessing}, model.revision, None)
        assert (expected == model.fingerprint.space) == (preprocessing == FAMILIES[name].preprocessing)


def test_best_match_is_one_for_unit_vectors_and_coltiny_s_comes_from_its_constants() -> None:
    config = json.loads((bundled_folder(find_model("coltiny")) / "config.json").read_text(encoding="utf-8"))
    for model in list_supported_models():
        if model.unit_length:
            assert model.best_match == 1.0
    k1, hinge = config["k1"], config["hinge"]
    # A page vector len [v, 1] with len < k1 + 1, against a query vector [t, -hinge] scaled to length 1.
    assert find_model("coltiny").best_match == pytest.approx((k1 + 1) * (1 - hinge) / (1 + hinge**2) ** 0.5, rel=1e-12)
