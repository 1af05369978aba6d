"""The examples of the docstrings and of the page on Ray."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.ray.test_pipeline import pytestmark as pytestmark
from tests.test_docs import ROOT, run_commands, run_python
from tests.test_docstrings import FLAGS


@pytest.fixture(autouse=True)
def _in_the_folder(local_ray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(local_ray)


class _WithoutRayLines(doctest.OutputChecker):
    """Ignores Ray's "(raylet) worker died" lines, which it prints at any time for workers that it stops early."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        output = "".join(line for line in got.splitlines(keepends=True) if "(raylet)" not in line)
        return super().check_output(want, output, optionflags)


@pytest.mark.parametrize("name", ["cluster", "encoder", "outputs", "pages", "pipeline"])
def test_examples_are_true(name: str) -> None:
    module = importlib.import_module(f"colpali_integrations.ray.{name}")
    runner = doctest.DocTestRunner(_WithoutRayLines(), optionflags=FLAGS)
    for examples in doctest.DocTestFinder().find(module):
        runner.run(examples)
    assert runner.tries
    assert runner.failures == 0


def test_the_code_of_the_page_runs_from_top_to_bottom() -> None:
    run_commands(ROOT / "docs" / "ray.md")
    run_python(ROOT / "docs" / "ray.md")
