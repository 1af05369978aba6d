"""Configurations: their texts, their names, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.evaluation import Configuration


@pytest.mark.parametrize(
    ("text", "expected", "label"),
    [
        ("", {}, "as stored"),
        ("hybrid=0.2", {"hybrid": 0.2}, "hybrid=0.2"),
        ("hybrid=rrf, mode=exact", {"hybrid": "rrf", "mode": "exact"}, "mode=exact, hybrid=rrf"),
        ("blend: hybrid=true", {"name": "blend", "hybrid": True}, "blend"),
        (
            "first-stage=ward,first-vectors=8",
            {"first_stage": "ward", "first_vectors": 8},
            "first_stage=ward, first_vectors=8",
        ),
        (
            "model=C:/models/x, precision=int8, max_side=512, datatype=int8",
            {"model": "C:/models/x", "model_options": {"precision": "int8", "max_side": 512}, "datatype": "int8"},
            "model=C:/models/x, precision=int8, max_side=512, datatype=int8",
        ),
        ("plain:", {"name": "plain"}, "plain"),
    ],
)
def test_texts_of_configurations(text: str, expected: dict[str, Any], label: str) -> None:
    configuration = Configuration.parse(text)
    assert configuration == Configuration(**expected) == Configuration.of(expected) == Configuration.of(text)
    assert configuration.label == label


def test_a_model_is_named_by_its_name(coltiny: ColPali) -> None:
    assert Configuration(model=coltiny).label == "model=coltiny"
    assert not Configuration(model=coltiny).is_stored
    assert Configuration(mode="exact", hybrid=0.2, oversampling=3).is_stored


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hybrid", "'hybrid' is not of the form KEY=VALUE"),
        ("hybrid=", "is not of the form KEY=VALUE"),
        ("candidates=3", "has no option 'candidates'; candidates are oversampling= times k"),
        ("alpha=0.3", "the weight of the text is hybrid="),
        ("hybird=0.3", "did you mean 'hybrid'"),
        ("hybrid=2", "hybrid must be True"),
        ("mode=fast", "mode must be 'auto', 'exact' or 'two_stage'"),
        ("datatype=int3", "datatype must be one of 'float32', 'float16', 'int8', 'int4', 'int2', 'binary', got 'int3'"),
        ("first_stage=x", "first_stage must be one of"),
        ("pooling=0", "pooling must be a whole number"),
        ("oversampling=0.5", "oversampling must be"),
        ("precision=int8", "precision: options of a model need model="),
        ("datatype=float32, first_stage=int8", "is searched in memory"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Configuration.parse(text)


def test_only_configurations_are_configurations() -> None:
    for wrong, message in ((3, "a configuration is a Configuration"), ({"k": 3}, "k is an option of evaluate")):
        with pytest.raises(ColPaliError, match=message):
            Configuration.of(wrong)
