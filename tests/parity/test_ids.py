"""Token ids equal the reference processors' exactly, for every prompt that a checkpoint was trained with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.prompt import Vocabulary
from colpali_integrations.pages.images import load_image

from .cases import HOSTILE, IDEFICS3_PROMPTS, LEADING_SPACE, PAGES, PALIGEMMA_PROMPTS, QUERIES, Page, Prompt, draw
from .conftest import FIXTURES, Golden
from .measures import runs

_CASES = [("paligemma", prompt) for prompt in PALIGEMMA_PROMPTS]
_CASES += [(name, prompt) for name in ("colmodernvbert", "colsmol") for prompt in IDEFICS3_PROMPTS]


def family_with(folder: Path, prompt: Prompt) -> Family:
    description = describe_folder(folder)
    begin = "<bos>" if description.family == "paligemma" else ""
    description = replace(description, query_prefix=begin + prompt.prefix, query_suffix=prompt.suffix)
    return family_class(description.family)(description, folder)


@pytest.mark.parametrize(("name", "prompt"), _CASES, ids=[f"{name}-{prompt.name}" for name, prompt in _CASES])
def test_query_ids(golden: Callable[[str], Golden], name: str, prompt: Prompt) -> None:
    reference = golden(name)
    family = family_with(reference.folder, prompt)
    wanted = reference.facts["queries"][prompt.name]
    assert set(wanted) == {*QUERIES, *LEADING_SPACE, *HOSTILE}
    found = {query: family.queries.prepare(query).ids.tolist() for query in wanted}
    assert found == wanted


@pytest.mark.parametrize("name", ["paligemma", "colmodernvbert", "colsmol"])
def test_a_folder_gets_its_familys_prompt(golden: Callable[[str], Golden], name: str) -> None:
    reference = golden(name)
    description = describe_folder(reference.folder)
    family = family_class(description.family)(description, reference.folder)
    wanted = reference.facts["queries"][reference.main_prompt]
    assert {query: family.queries.prepare(query).ids.tolist() for query in wanted} == wanted


@pytest.mark.parametrize("query", HOSTILE)
@pytest.mark.parametrize("name", ["paligemma", "colmodernvbert", "colsmol"])
def test_spelt_out_special_tokens_stay_text(golden: Callable[[str], Golden], name: str, query: str) -> None:
    reference = golden(name)
    vocabulary = Vocabulary(reference.folder)
    ids = reference.facts["queries"][reference.main_prompt][query]
    assert vocabulary.token_id("<image>") not in ids  # of the golden, which the test above compares with ours
    plain = reference.facts["queries"][reference.main_prompt]["page"]
    pad = vocabulary.token_id("<pad>" if name == "paligemma" else "<end_of_utterance>")
    assert ids.count(pad) == plain.count(pad) == 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize("name", ["paligemma", "colmodernvbert", "colsmol"])
def test_page_ids(golden: Callable[[str], Golden], name: str, page: Page) -> None:
    reference = golden(name)
    description = describe_folder(reference.folder)
    family = family_class(description.family)(description, reference.folder)
    ready = family.pages.prepare(load_image(draw(page)))
    facts = reference.facts["pages"][page.name]
    wanted = facts.get("image_prompt_runs") or reference.facts["image_prompt_runs"]
    assert runs(ready.ids.tolist()) == wanted
    if "rows" in facts:
        assert ready.extra == (facts["rows"], facts["cols"])


def test_the_reference_in_colpali_engine_has_a_second_bos(golden: Callable[[str], Golden]) -> None:
    """The known difference: colpali-engine's own page prompt names ``<bos>`` once more than PaliGemmaProcessor."""
    facts = golden("paligemma").facts
    ours, theirs = facts["image_prompt_runs"], facts["image_prompt_runs_colpali_engine"]
    assert [count for _, count in ours][:2] == [1024, 1]
    assert [count for _, count in theirs][:2] == [1024, 2]
    assert ours[2:] == theirs[2:]


@pytest.mark.skipif("GEMMA_TOKENIZER" not in os.environ, reason="GEMMA_TOKENIZER names no tokenizer.json of Gemma")
@pytest.mark.parametrize("prompt", PALIGEMMA_PROMPTS, ids=lambda prompt: prompt.name)
def test_real_gemma_ids(tmp_path: Path, prompt: Prompt) -> None:
    """With Gemma's real vocabulary, which is too large to commit (see gemma_ids.py): the recorded ids."""
    from .gemma_ids import IMAGE_PROMPT, paligemma

    recorded = json.loads((FIXTURES / "gemma_ids.json").read_text(encoding="utf-8"))
    for file in (FIXTURES / "paligemma").glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.onnx").touch()
    paligemma(Path(os.environ["GEMMA_TOKENIZER"])).save(str(tmp_path / "tokenizer.json"))
    family = family_with(tmp_path, prompt)
    wanted = {**recorded["prompts"][prompt.name], **recorded["hostile"][prompt.name]}
    assert {query: family.queries.prepare(query).ids.tolist() for query in wanted} == wanted
    ids = family.pages.prepare(load_image(draw(PAGES[0]))).ids.tolist()
    assert ids == [recorded["tokens"]["<image>"]] * 1024 + recorded["image_prompt"]
    assert IMAGE_PROMPT.startswith("<bos>")
