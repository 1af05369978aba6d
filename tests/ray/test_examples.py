"""What the docstrings and the page on Ray say is true."""

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


class _WithoutRaysOwn(doctest.OutputChecker):
    """Ray says on stdout, at any later time, that a worker died: so ends one that it takes away before it has begun."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        said = "".join(line for line in got.splitlines(keepends=True) if "(raylet)" not in line)
        return super().check_output(want, said, optionflags)


@pytest.mark.parametrize("name", ["cluster", "drawing", "embedding", "encoder", "sinks"])
def test_examples_are_true(name: str) -> None:
    module = importlib.import_module(f"colpali_integrations.ray.{name}")
    runner = doctest.DocTestRunner(_WithoutRaysOwn(), optionflags=FLAGS)
    for examples in doctest.DocTestFinder().find(module):
        runner.run(examples)
    assert runner.tries
    assert runner.failures == 0


def test_the_page_s_code_runs_from_top_to_bottom() -> None:
    run_commands(ROOT / "docs" / "ray.md")
    run_python(ROOT / "docs" / "ray.md")
