"""What the documentation says is run: README's Python blocks, docstring examples, the model table."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import colpali_integrations

ROOT = Path(__file__).parents[1]
PACKAGE = Path(colpali_integrations.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def module_names() -> list[str]:
    files = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in files if path.name != "__main__")


@pytest.mark.usefixtures("own_registry")
def test_the_readme_s_python_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "demo" / "pdfs" / "hcl-colors.pdf", tmp_path / "report.pdf")
    monkeypatch.chdir(tmp_path)
    found = blocks("python")
    assert len(found) >= 5
    scope: dict[str, object] = {}
    for number, block in enumerate(found, 1):
        exec(compile(block, f"README.md, Python block {number}", "exec"), scope)
    assert "of" in capsys.readouterr().out


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("name", module_names())
def test_docstring_examples_are_true(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_model_table_is_the_registry() -> None:
    assert load("docs/model_table.py").with_table(README) == README, "run: python docs/model_table.py"


def test_links_into_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("loaded", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
