"""Prompts rendered from chat templates, in whatever file they stand; programs in them cannot escape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.chat_template import special_tokens, template_prompt

TOKENS = {"mask_token": "<mask>", "extra_special_tokens": {"query_token": "<query>"}, "bos_token": {"content": "<s>"}}
TEMPLATE = "{% for m in messages %}{{ query_token + m.content[0].text + mask_token * 2 }}{% endfor %}"


def folder_with(tmp_path: Path, template: str, name: str = "chat_template.jinja") -> Path:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(TOKENS))
    if name.endswith(".jinja"):
        (tmp_path / name).write_text(template)
    else:
        content = {**(TOKENS if name == "tokenizer_config.json" else {}), "chat_template": template}
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "processor_config.json", "chat_template.json", "tokenizer_config.json"]
)
def test_the_prompt_is_what_stands_around_the_text(tmp_path: Path, name: str) -> None:
    assert template_prompt(folder_with(tmp_path, TEMPLATE, name), "query") == ("<query>", "<mask><mask>")


def test_a_folder_without_a_template_has_no_prompt(tmp_path: Path) -> None:
    assert template_prompt(tmp_path, "query") is None


def test_special_tokens_of_all_spellings(tmp_path: Path) -> None:
    assert special_tokens(folder_with(tmp_path, "")) == {
        "mask_token": "<mask>",
        "query_token": "<query>",
        "bos_token": "<s>",
    }


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no task ' ~ task) }}", "task 'query' fails: no task query"),
        ("{{ nothing.at.all }}", "fails: 'nothing' is undefined"),
        ("{{ task ", "fails"),
        ("{{ task }}", "contains the text 0 times"),
        ("{{ (messages[0].content[0].text) * 2 }}", "contains the text 2 times.*register_model"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)
def test_templates_that_fail_or_misbehave_are_refused(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        template_prompt(folder_with(tmp_path, template), "query")
