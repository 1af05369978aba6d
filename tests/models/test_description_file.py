"""A model's folder with its prompts in colpali_integrations.json."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.files import DESCRIPTION_FILE
from colpali_integrations.models.folder import describe_folder


def described_folder(tmp_path: Path, content: Any) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / DESCRIPTION_FILE).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_the_description_in_the_folder_is_used_without_guesses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"family": "paligemma", "dim": 96, "query_prefix": "<bos>Frage: ", "image_prompt": "<image><bos>Seite"}
    folder = described_folder(tmp_path, {"description": fields, "made_from": {"checkpoint": "me/mine"}})
    with caplog.at_level(logging.WARNING):
        description = describe_folder(folder)
    assert not caplog.records
    assert {name: getattr(description, name) for name in fields} == fields
    assert description.query_suffix == ""
    assert description.name == tmp_path.name
    assert description.files == ("model.onnx", "tokenizer.json")
    assert description.revision is not None
    described_folder(tmp_path, {"description": {**fields, "query_prefix": "<bos>"}})
    assert describe_folder(folder).fingerprint != description.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "must hold"),
        ({"description": {}}, "must hold"),
        ({"description": ["paligemma"]}, "must hold"),
        ({"description": {"family": "pali"}}, "unknown family 'pali'; known are coltiny, .*, paligemma"),
        ({"description": {"family": "paligemma", "prompt": "x"}}, "unknown prompt; known are additional_files"),
        ({"description": {"family": "paligemma", "dim": 0}}, "dim must be a positive whole number"),
        ({"description": {"family": "paligemma", "dim": 128, "max_query_tokens": 1e22}}, "be a positive whole number"),
        ({"description": {"family": "paligemma", "dim": "many"}}, DESCRIPTION_FILE),
        ({"description": {"family": "paligemma", "additional_files": 3}}, DESCRIPTION_FILE),
        ({"description": {"family": "neomme", "additional_files": ["a/../../profile"]}}, "is not in the folder"),
        ({"description": {"family": "neomme", "additional_files": ["/etc/hostname"]}}, "is not in the folder"),
        ({"description": {"family": "neomme", "additional_files": ["..\\\\profile"]}}, "is not in the folder"),
        ({"description": {"family": "neomme", "model_file": "C:model.onnx"}}, "is not in the folder"),
    ],
)
def test_an_invalid_description_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        describe_folder(described_folder(tmp_path, content))
