"""Prompts of a folder: the repository's in the registry, then sentence-transformers' file, then those of the class."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.files import DESCRIPTION_FILE
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.registry import find_model
from colpali_integrations.models.saved_prompts import PROMPTS_FILE, SavedPrompts

COLQWEN2 = Path(__file__).parents[1] / "parity" / "fixtures" / "colqwen2"
PROMPTS = {"query": "Find: ", "document": "Page: "}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint whose config.json names the backbone alone, in sentence-transformers' layout."""
    folder = shutil.copytree(COLQWEN2, tmp_path / "checkpoint")
    write(folder / "modules.json", [])
    write(
        folder / "processor_config.json", {"image_processor": read(folder / "processor_config.json")["image_processor"]}
    )
    change(folder / "config.json", model_type="qwen2_vl", architectures=["Qwen2VLModel"], vlm_config=None)
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def change(path: Path, **values: Any) -> None:
    write(path, {**read(path), **values})


def prompts(folder: Path) -> tuple[str, str, str]:
    model = describe_folder(folder)
    return model.query_prefix, model.query_suffix, model.image_prompt


def test_prompts_that_sentence_transformers_saved(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder / PROMPTS_FILE, {"prompts": PROMPTS})
    with caplog.at_level(logging.WARNING):
        prefix, suffix, image = prompts(folder)
    assert (prefix, suffix) == ("Find: ", "")
    assert image.startswith("Page: ")
    assert image.count("<image>") == 1
    assert not caplog.records


def test_a_class_for_retrieval_keeps_what_it_puts_around_a_text(folder: Path) -> None:
    shutil.copy(COLQWEN2 / "config.json", folder)
    own = prompts(COLQWEN2)
    write(folder / PROMPTS_FILE, {"prompts": PROMPTS})
    assert prompts(folder) == (own[0] + "Find: ", own[1], "Page: " + own[2])


def test_the_caller_and_the_table_of_repositories_go_first(folder: Path) -> None:
    write(folder / PROMPTS_FILE, {"prompts": PROMPTS})
    known = find_model("vidore/colqwen2-v1.0")
    change(folder / "config.json", _name_or_path=known.repository)
    assert prompts(folder) == (known.query_prefix, known.query_suffix, known.image_prompt)
    description = {"family": "qwen2_vl", "query_prefix": "Mine: ", "image_prompt": "<image>"}
    write(folder / DESCRIPTION_FILE, {"description": description})
    assert prompts(folder) == ("Mine: ", "", "<image>")


def test_the_class_comes_last(caplog: pytest.LogCaptureFixture, folder: Path) -> None:
    write(folder / PROMPTS_FILE, {"prompts": {"query": "", "document": None}})
    change(folder / "processor_config.json", processor_class="ColQwen2Processor")
    with caplog.at_level(logging.WARNING):
        assert prompts(folder)[:2] == ("", "<|endoftext|>" * 10)
    assert "do not record the query prompt" in caplog.text


def test_a_backbone_without_prompts_is_refused_with_a_description_to_pass(folder: Path) -> None:
    with pytest.raises(
        ModelLoadError, match=r"names a backbone alone.*register_model\(ModelDescription\(name="
    ) as error:
        describe_folder(folder)
    assert PROMPTS_FILE in str(error.value)
    assert "query_suffix='<|endoftext|>" in str(error.value)


@pytest.mark.parametrize("content", [["query"], {"query": 3}, "query"])
def test_damaged_prompts_are_refused(tmp_path: Path, content: Any) -> None:
    write(tmp_path / PROMPTS_FILE, {"prompts": content})
    with pytest.raises(ModelLoadError, match="prompts must be strings by name"):
        SavedPrompts(tmp_path)


@pytest.mark.parametrize("content", [{}, {"prompts": None}, {"prompts": {"query": None}}, {"prompts": {"other": "x"}}])
def test_a_file_without_prompts_of_a_task_has_none(tmp_path: Path, content: Any) -> None:
    write(tmp_path / PROMPTS_FILE, content)
    assert not SavedPrompts(tmp_path)


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_the_names_of_a_document_s_prompt(tmp_path: Path, name: str) -> None:
    write(tmp_path / PROMPTS_FILE, {"prompts": {name: "Page: "}})
    assert SavedPrompts(tmp_path).document == "Page: "


def test_prompts_beside_a_chat_template_are_refused(tmp_path: Path) -> None:
    write(tmp_path / PROMPTS_FILE, {"prompts": PROMPTS})
    with pytest.raises(ModelLoadError, match="takes its own from a chat template"):
        SavedPrompts(tmp_path).applied(find_model("Hcompany/NeoMME-260M-Retriever"), None)


def test_queries_are_encoded_with_them(tmp_path: Path) -> None:
    folder = shutil.copytree(COLQWEN2, tmp_path / "checkpoint")
    plain = ColPali.from_pretrained(folder, lazy_load=True)
    write(folder / PROMPTS_FILE, {"prompts": PROMPTS})
    prompted = ColPali.from_pretrained(folder, lazy_load=True)
    assert prompted.token_count("a question") > plain.token_count("a question")
    assert prompted.description.fingerprint != plain.description.fingerprint
