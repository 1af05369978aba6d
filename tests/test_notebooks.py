"""The notebooks run from top to bottom, and are committed with what they show."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 4


@pytest.mark.slow
@by_name
def test_it_runs_from_top_to_bottom(path: Path) -> None:
    spec = importlib.util.spec_from_file_location("run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    shown = [output for cell in run.executed(path).cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output.text for output in shown if output.output_type == "stream" and "Warning" in output.text]


@by_name
def test_it_is_committed_with_its_outputs(path: Path) -> None:
    assert path.stat().st_size < 1_500_000
    text = path.read_text(encoding="utf-8")
    assert str(FOLDER.parent) not in text
    assert "/home/" not in text
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run: make notebooks"
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
