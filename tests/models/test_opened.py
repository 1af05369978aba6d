"""Advice on how to open a model can be run as it stands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.models import find_model
from colpali_integrations.models.exporting import export_model
from colpali_integrations.models.fingerprint import PageSettings
from colpali_integrations.models.opened import Opened

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
INT8 = PageSettings(weights="", precision="int8")


def opened(*arguments: Any, **options: Any) -> Opened:
    with ColPali.from_pretrained(*arguments, lazy_load=True, **options) as model:
        assert model.opened is not None
        return model.opened


def test_the_caller_s_path_and_options_are_kept_and_those_of_pages_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES)
    adapter = opened("colqwen2_5", base="colqwen2_5-base", threads=1, max_num_visual_tokens=64)
    base = os.fspath(FIXTURES / "colqwen2_5-base")
    assert adapter.call == f"ColPali.from_pretrained('colqwen2_5', base={base!r}, max_num_visual_tokens=64)"
    right = adapter.with_pages(INT8)
    assert right.call == f"ColPali.from_pretrained('colqwen2_5', base={base!r}, precision='int8')"
    assert right.arguments == f"--model colqwen2_5 --base {base} --precision int8"
    local = opened("Qdrant/colpali-v1.3-fp16", local_dir=FIXTURES / "paligemma")
    assert local.call.endswith(f"'Qdrant/colpali-v1.3-fp16', local_dir={os.fspath(FIXTURES / 'paligemma')!r})")


def test_an_exported_folder_has_one_precision_and_its_checkpoint_the_others(tmp_path: Path) -> None:
    export_model(FIXTURES / "neomme", tmp_path / "out", precision="int8")
    exported = opened(tmp_path / "out", max_side=64)
    assert exported.with_pages(INT8).call == f"ColPali.from_pretrained({os.fspath(tmp_path / 'out')!r})"
    exact = exported.with_pages(PageSettings(weights="", precision="float32", max_side=32))
    assert exact.call == "ColPali.from_pretrained(<the folder of 'neomme'>, precision='float32', max_side=32)"


def test_a_recorded_name_is_advised_only_where_it_leads_to_the_model() -> None:
    coltiny = find_model("coltiny").fingerprint
    other = find_model("Qdrant/colmodernvbert").fingerprint
    assert Opened.recorded("coltiny", coltiny).call == "ColPali.from_pretrained('coltiny')"
    assert Opened.recorded("coltiny", other).call == "ColPali.from_pretrained(<the folder of 'coltiny'>)"
    assert Opened.recorded("me/mine", other).arguments == "--model me/mine"
    assert (
        Opened("x", "x y", {"allow_unused": ("a", "b")}).arguments == "--model 'x y' --allow-unused a --allow-unused b"
    )
