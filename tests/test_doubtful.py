"""The note on a search whose pages seem not to answer the question; its limit is measured on the demo's pages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.cli.app import run
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.models import find_model, list_supported_models
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.stores import MultiVectorStore, index_documents

DEMO = Path(__file__).parents[1] / "demo"
OTHER_SUBJECTS = [
    "How do I reset my wifi router password?",
    "best pizza recipe with mozzarella",
    "quarterly revenue of the automotive division 2023",
    "who won the football world cup in 1998",
    "symptoms of vitamin D deficiency",
    "flight times from Berlin to Tokyo",
    "kubernetes ingress controller timeout",
    "the tax office opening hours",
    "how to knit a scarf",
    "tenancy deposit protection scheme",
    "blockchain consensus algorithm energy consumption",
    "photosynthesis in desert plants",
    "mortgage interest rates forecast",
    "guitar chords for beginners",
    "train timetable to Edinburgh",
    "cat food allergies",
    "what is the meaning of life",
    "inflation in the euro area",
    "how many calories does an apple have",
    "installation of a heat pump",
    "Mozart's year of birth",
    "asdf qwer zxcv",
    "xyzzy plugh frobnicate",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "index"
    with ColPali.from_pretrained("coltiny") as model, MultiVectorStore.open(path, model=model) as store:
        assert index_documents(DEMO / "pdfs", model=model, store=store).added == 77
    return path


@pytest.mark.slow
def test_questions_of_other_subjects_are_doubtful_and_those_of_the_demo_are_not(demo: Path) -> None:
    asked = [one["question"] for one in json.loads((DEMO / "questions.json").read_text())["questions"]]
    with MultiVectorStore.open(demo) as store:
        assert [question for question in asked if store.search(question, 5).doubtful] == []
        doubtful = [question for question in OTHER_SUBJECTS if store.search(question, 5).doubtful]
        assert len(doubtful) >= 20  # of 23
        hits = store.search(doubtful[0], 5)
        assert hits.matching().doubtful
        assert hits[:1].doubtful
        assert not hits[:0].doubtful


def test_only_where_it_was_measured(coltiny: ColPali) -> None:
    assert [model.name for model in list_supported_models() if model.low_relevance] == ["coltiny"]
    description = find_model("coltiny")
    assert replace(description, low_relevance=0.0).fingerprint == description.fingerprint, "indexes stay valid"
    assert ModelDescription.from_dict(json.loads(json.dumps(description.to_dict()))) == description
    wrongs: list[Any] = [-0.1, 1.1, True, "a"]
    for wrong in wrongs:
        with pytest.raises(ConfigurationError, match="low_relevance must be from 0 to 1"):
            replace(description, low_relevance=wrong)


def test_the_command_line_says_so(examples_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(examples_folder / "my-index")
    assert run(["search", "flights from Berlin to Tokyo", "--store", store]) == 0
    assert "No page seems to answer the question; these are the closest." in capsys.readouterr().err
    assert run(["search", "diverging palettes", "--store", store]) == 0
    assert "seems" not in capsys.readouterr().err
