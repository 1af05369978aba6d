"""A model's folder that says its prompts itself, in colpali_integrations.json."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.folder import DESCRIPTION_FILE, describe_folder


def folder_that_says(tmp_path: Path, content: Any) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / DESCRIPTION_FILE).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_what_it_says_is_taken_and_nothing_is_guessed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = {"family": "paligemma", "dim": 96, "query_prefix": "<bos>Frage: ", "image_prompt": "<image><bos>Seite"}
    folder = folder_that_says(tmp_path, {"description": said, "made_from": {"checkpoint": "me/mine"}})
    with caplog.at_level(logging.WARNING):
        description = describe_folder(folder)
    assert not caplog.records
    assert {name: getattr(description, name) for name in said} == said
    assert description.query_suffix == ""
    assert description.name == tmp_path.name
    assert description.files == ("model.onnx", "tokenizer.json")
    assert description.revision is not None
    folder_that_says(tmp_path, {"description": {**said, "query_prefix": "<bos>"}})
    assert describe_folder(folder).fingerprint != description.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "must hold"),
        ({"description": {}}, "must hold"),
        ({"description": ["paligemma"]}, "must hold"),
        ({"description": {"family": "pali"}}, "unknown family 'pali'; known are coltiny, idefics3, paligemma"),
        ({"description": {"family": "paligemma", "prompt": "x"}}, "unknown prompt; known are additional_files"),
        ({"description": {"family": "paligemma", "dim": 0}}, "dim must be positive"),
        ({"description": {"family": "paligemma", "dim": "many"}}, DESCRIPTION_FILE),
        ({"description": {"family": "paligemma", "additional_files": 3}}, DESCRIPTION_FILE),
    ],
)
def test_what_it_must_not_say(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        describe_folder(folder_that_says(tmp_path, content))
