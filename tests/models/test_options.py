"""`ModelOptions`: one value for all arguments of `from_pretrained` beside the name."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.langchain import ColPaliEmbeddings
from colpali_integrations.llama_index import ColPaliEmbedding
from colpali_integrations.models import find_model
from colpali_integrations.models.options import ModelOptions, nest_options
from colpali_integrations.models.shared import shared_model


def test_the_signature_of_from_pretrained_is_the_fields() -> None:
    parameters = dict(inspect.signature(ColPali.from_pretrained).parameters)
    for other in ("name_or_path", "lazy_load", "unknown"):
        del parameters[other]
    fields = {field.name: field for field in dataclasses.fields(ModelOptions)}
    assert parameters.keys() == fields.keys()
    for name, parameter in parameters.items():
        assert (parameter.annotation, parameter.default) == (fields[name].type, fields[name].default), name


def test_equal_options_are_equal_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    provider = ("CUDAExecutionProvider", {"b": "2", "a": "1"})
    one = ModelOptions(providers=[provider, "CPUExecutionProvider"], device_ids=[0], local_dir="x", cache_dir=Path("y"))
    other = ModelOptions(
        providers=(("CUDAExecutionProvider", {"a": "1", "b": "2"}), "CPUExecutionProvider"),
        device_ids=(0,),
        local_dir=tmp_path / "x",
        cache_dir=str(tmp_path / "y"),
    )
    assert one == other == pickle.loads(pickle.dumps(one)) == ModelOptions(**dataclasses.asdict(one))
    assert hash(one) == hash(other)
    assert ModelOptions(local_dir="~/models").local_dir == str(Path("~/models").expanduser())


@pytest.mark.parametrize("bad", [{"url_timeout": 0}, {"url_max_bytes": -1}, {"threads": 0}, {"device_ids": [1, 1]}])
def test_invalid_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        ModelOptions(**bad)


def test_direct_options_win_over_nested_ones() -> None:
    arguments = {"options": ModelOptions(threads=2, allow_urls=True), "threads": 3, "batch_size": 1}
    nested = nest_options(arguments, where="X", known=["options", "batch_size"])
    assert ModelOptions(**nested["options"]) == ModelOptions(threads=3, allow_urls=True)
    with pytest.raises(ConfigurationError, match="X has no option 'treads'; did you mean 'threads'"):
        nest_options({"treads": 1}, where="X", known=["options"])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("device_ids", value, "such as [0, 1]") for value in ("0", b"0", 3, True)),
        *(("device_ids", [value], "each of device_ids must be a whole number") for value in ("0", 0.5, -1, True, None)),
        *(("allow_unused", value, "such as ['lm_head.']") for value in ("lm_head.", 5, [5], False, b"x")),
        *((name, 5, "must be a str or a pathlib.Path, got 5") for name in ("local_dir", "base", "cache_dir")),
        *((name, b"x", "must be a str or a pathlib.Path, got b'x'") for name in ("local_dir", "base")),
        *(("providers", value, "non-empty list of names") for value in (5, [5], [("CPU", 5)], "CPU", [], [None])),
        *((name, "false", "must be True or False, got 'false'") for name in ("allow_urls", "local_files_only")),
        *(("url_timeout", value, "above 0 and up to 1e+06") for value in ("5", None, -1, 0, float("nan"), 1e300, True)),
        ("revision", 5, "must be a str, got 5"),
    ],
)
def test_options_of_other_types_name_what_is_expected(name: str, value: Any, expected: str) -> None:
    for door in (ModelOptions, ColPali.from_pretrained):
        with pytest.raises(ConfigurationError, match=re.escape(expected)) as raised:
            door(**{name: value})
        assert name in str(raised.value)
    # Pydantic may refuse or convert a value by its type, before it is an option.
    for component in (ColPaliEmbeddings, ColPaliEmbedding):
        try:
            options = component(**{name: value}).options
        except ValidationError as error:
            assert name in str(error)
        else:
            assert type(getattr(options, name)) is not type(value)


def test_device_ids_are_whole_numbers_of_any_type() -> None:
    assert ModelOptions(device_ids=np.array([1, 0])).device_ids == (1, 0)  # type: ignore[arg-type]
    assert ModelOptions(device_ids=(number for number in (0.0, 1))).device_ids == (0, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [5, None, b"coltiny", ["coltiny"]])
def test_what_is_no_name_of_a_model_is_refused(name: Any) -> None:
    for door in (ColPali.from_pretrained, find_model, shared_model):
        with pytest.raises(ConfigurationError, match="the name of a model must be a str"):
            door(name)


@pytest.mark.parametrize(("name", "value"), [("threads", "2"), ("dim", True), ("url_timeout", []), ("max_side", 0)])
def test_numbers_of_other_types_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be a "):
        ModelOptions(**{name: value})  # type: ignore[arg-type]


def test_numbers_without_a_fraction_are_whole() -> None:
    options = ModelOptions(max_side=64.0, threads=2.0, url_timeout=3)  # type: ignore[arg-type]
    assert (repr(options.max_side), repr(options.threads), repr(options.url_timeout)) == ("64", "2", "3.0")
