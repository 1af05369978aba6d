"""The documentation is true: its code runs, and its tables and links are current. See test_docstrings.py too."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import webbrowser
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from colpali_integrations.cli.app import run
from tests.conftest import few_pages

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
# Lines that a shell block may have beside our own commands, which are run.
INSTALLS = ("pip install ", "pip uninstall ", "python -m pip install ", "python demo/demo.py", "make ")
OTHERS = {"json", "text", "toml"}
# Run by tests/ray, where a Ray runs.
ELSEWHERE = {"ray"}
# Needs what no extra installs.
OPTIONAL = {"agents": "langchain", "fastapi": "fastapi"}
ROOMS = (
    ".errors",
    ".pages",
    ".models",
    ".scoring",
    ".explain",
    ".stores",
    ".evaluation",
    ".langchain",
    ".llama_index",
    ".ray",
)


class Block(NamedTuple):
    """A fenced block: its language, the rest of its first line, and its content."""

    language: str
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(*found) for found in re.findall(r"^```(\w*)(.*)\n((?s:.*?))^```$", text, flags=re.MULTILINE)]


@pytest.mark.usefixtures("own_registry")
def test_the_readme_s_code_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reports").mkdir()
    few_pages(tmp_path / "report.pdf", [1, 3])
    few_pages(tmp_path / "reports" / "report.pdf", [1, 3])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    assert len([block for block in blocks(README) if block.language == "python"]) == 2
    run_commands(README)
    run_python(README)
    assert capsys.readouterr().out.count("report.pdf 1") >= 2


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= 900


def test_there_is_a_page_for_each_part() -> None:
    assert len(PAGES) >= 12
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [page.name for page in PAGES if f": {page.name}" not in navigation]


@pytest.mark.usefixtures("own_registry", "examples_folder")
@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in ELSEWHERE], ids=lambda page: page.stem)
def test_a_page_s_code_runs_from_top_to_bottom(page: Path) -> None:
    if page.stem in OPTIONAL:
        pytest.importorskip(OPTIONAL[page.stem])
    run_commands(page)
    run_python(page)


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_every_block_runs_or_is_marked_as_not_run(page: Path) -> None:
    for block in blocks(page):
        assert block.language in {"python", "sh"} | OTHERS or "not run here" in block.title, f"{page.name}: {block}"
    for command in commands(page):
        assert command.startswith(("colpali-integrations ", *INSTALLS)), f"{page.name}: {command}"


def run_commands(page: Path) -> None:
    for command in commands(page):
        if command.startswith("colpali-integrations "):
            assert run(shlex.split(command)[1:]) == 0, command


def run_python(page: Path) -> None:
    scope: dict[str, object] = {}
    for number, block in enumerate((block for block in blocks(page) if block.language == "python"), 1):
        exec(compile(block.code, f"{page.name}, Python block {number}", "exec"), scope)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.code.splitlines()]
    return [line for line in lines if line]


def test_every_public_name_is_in_the_api_reference() -> None:
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in importlib.import_module("colpali_integrations").__all__:
        assert re.search(rf"^\| \[`{name}`\]\(#colpali_integrations\.\w+\.{name}\)", reference, re.MULTILINE), name
    for room in ROOMS:
        for name in importlib.import_module(f"colpali_integrations{room}").__all__:
            assert f"::: colpali_integrations{room}.{name}\n" in reference, name


@pytest.mark.parametrize("script", ["model_table", "options_table"])
def test_a_table_is_current(script: str) -> None:
    table = load(f"docs/{script}.py")
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.with_table(text) == text, f"run: python docs/{script}.py"


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        drawn = target.startswith("pictures/")  # by docs/pictures.py, when the pages are built
        assert drawn or (page.parent / target).exists(), target


def test_the_pages_fetch_nothing_from_the_network() -> None:
    hooks = load("docs/hooks.py")
    assert (ROOT / "docs" / hooks.LOCAL).is_file()
    assert hooks.on_post_page(f'<script src="{hooks.REMOTE}">') == f'<script src="{hooks.LOCAL}">'
    with pytest.raises(ValueError, match="from the network"):
        hooks.on_post_page('<script src="https://example.org/script.js">')


def test_the_concepts_pictures_are_drawn(tmp_path: Path) -> None:
    load("docs/pictures.py").draw(tmp_path / "pictures")
    drawn = {f"pictures/{path.name}" for path in (tmp_path / "pictures").iterdir()}
    assert drawn == set(re.findall(r"pictures/\w+\.png", (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")))


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("loaded", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_lists_the_extras() -> None:
    extras = re.search(
        r"\[project\.optional-dependencies\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.DOTALL
    )
    assert extras is not None
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| extra | for |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\S+)` \|", table, re.M)) == sorted(re.findall(r"^([\w-]+) = ", extras[1], re.M))
