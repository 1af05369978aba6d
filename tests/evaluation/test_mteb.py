"""The model for mteb, driven as mteb does; tests/parity/test_mteb.py drives it by the real one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import InputError
from colpali_integrations.evaluation.mteb import MtebModel
from colpali_integrations.scoring import max_sim
from tests.stores.documents import draw

PAGES = {"a": "Harvest of apples", "b": "Prices of bananas", "c": "Prices of bananas"}
TASK: dict[str, Any] = {
    "task_metadata": None,
    "hf_split": "test",
    "hf_subset": "default",
    "encode_kwargs": {},
    "num_proc": None,
}


def test_pages_are_ranked_by_max_sim_and_ties_by_id(coltiny: ColPali) -> None:
    model = MtebModel(coltiny)
    model.index([{"id": id_, "image": draw(text)} for id_, text in PAGES.items()], **TASK)
    queries = [{"id": "1", "text": "bananas"}, {"id": "2", "text": "apples"}]
    found = model.search(queries, top_k=2, **TASK)
    assert {id_: list(scores) for id_, scores in found.items()} == {"1": ["c", "b"], "2": ["a", "c"]}
    [page] = coltiny.embed_images([draw("Prices of bananas")])
    assert (
        found["1"]["b"]
        == found["1"]["c"]
        == pytest.approx(float(max_sim(coltiny.embed_query("bananas"), page)), abs=1e-5)
    )
    assert list(model.search(queries, top_k=9, top_ranked={"1": ["a"]}, **TASK)["1"]) == ["a"]


def test_texts_stand_beside_pictures(coltiny: ColPali) -> None:
    model = MtebModel(coltiny)
    rows: list[dict[str, Any]] = [
        {"id": "t", "title": "Tide", "text": "low at six"},
        {"id": "p", "image": draw("Harvest")},
        {"id": "u", "text": "Ebb"},
    ]
    model.index(rows, **TASK)
    for text, id_ in {"tide at six": "t", "harvest": "p", "ebb": "u"}.items():
        assert next(iter(model.search([{"id": "q", "text": text}], top_k=1, **TASK)["q"])) == id_
    with pytest.raises(InputError, match="the row 'x' has neither a picture nor a text"):
        model.index([{"id": "x", "text": " "}], **TASK)


def test_mteb_is_not_imported() -> None:
    code = "import sys, colpali_integrations.evaluation.mteb; print('mteb' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
