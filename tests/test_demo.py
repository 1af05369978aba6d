"""The demo runs with a checkpoint's folder, with an exported one, and by make."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from colpali_integrations.models.exporting import export_model
from tests.conftest import few_pages

ROOT = Path(__file__).parents[1]
NEOMME = ROOT / "tests" / "parity" / "fixtures" / "neomme"


def demo(*arguments: str | Path) -> tuple[int, str]:
    command = [sys.executable, ROOT / "demo" / "demo.py", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr


def test_a_checkpoint_and_its_export_give_the_same_answers(tmp_path: Path) -> None:
    few_pages(tmp_path / "report.pdf", [1, 3])
    export_model(NEOMME, tmp_path / "exported", precision="int8")
    asked = (tmp_path / "report.pdf", "-q", "diverging palettes")
    code, shown = demo(*asked, "--model", NEOMME, "--precision", "int8")
    assert code == 0, shown
    assert "Indexing with neomme" in shown
    again, exported = demo(*asked, "--model", tmp_path / "exported")
    assert again == 0, exported
    answers, equal = (text.partition(" 1 diverging palettes")[2] for text in (shown, exported))
    assert answers.count("report.pdf, page") == 2
    assert answers == equal


def test_an_unknown_model_is_one_line() -> None:
    code, shown = demo("--model", "nonsense", "report.pdf", "-q", "a")
    assert (code, shown.count("\n")) == (1, 1)
    assert "no model is registered as 'nonsense'" in shown


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_passes_model_and_precision(tmp_path: Path) -> None:
    command = ["make", "--no-print-directory", "-n", "demo", "MODEL=my model", "PRECISION=int8", "PDF=a.pdf b.pdf"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert 'demo/demo.py --model "my model" --precision int8 a.pdf b.pdf\n' in shown
    plain = subprocess.run([*command[:4], "MODEL="], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert plain.splitlines()[-1].split()[-1] == "demo/demo.py"
