"""Bars on the package's structure: no import circles, short functions; and the counters that measure them."""

from __future__ import annotations

import ast
import threading
from pathlib import Path
from statistics import median

import pytest

import colpali_integrations
from benchmarks import structure
from benchmarks.calls import Tracer

PACKAGE = Path(colpali_integrations.__file__).parent


def test_no_module_imports_in_a_circle() -> None:
    assert structure.circles(structure.import_graph(PACKAGE)) == set()


def test_functions_are_short() -> None:
    assert median(structure.size(PACKAGE).functions) <= 9


@pytest.mark.parametrize("family", ["neomme", "paligemma", "idefics3", "qwen2_vl", "qwen3_vl", "qwen3_5", "ultravbert"])
def test_a_family_of_checkpoints_has_few_lines_of_its_own(family: str) -> None:
    """Its architecture and its processor, without their imports; the rest is shared."""
    lines = 0
    architecture = "ultrabert" if family == "ultravbert" else family  # with the tower of idefics3
    for path in (PACKAGE / "models" / "builder" / f"{architecture}.py", PACKAGE / "models" / f"{family}.py"):
        source = path.read_text(encoding="utf-8")
        nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
        imports = {line for node in nodes for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
        lines += len(structure.code_lines(source) - imports)
    assert 30 < lines <= 300


def write(package: Path, **files: str) -> Path:
    package.mkdir()
    for name, source in files.items():
        (package / f"{name}.py").write_text(source, encoding="utf-8")
    return package


def test_lines_without_docstrings_comments_and_blanks_are_counted(tmp_path: Path) -> None:
    source = '"""Module."""\n\n# why\nX = """a\nb"""  # trailing\n\n\ndef f():\n    """F."""\n    # why\n    return 1\n'
    assert structure.code_lines(source) == {4, 5, 8, 11}
    assert structure.size(write(tmp_path / "package", module=source)) == structure.Size(4, [2])


def test_lazy_and_typing_imports_make_circles_and_parent_packages_do_not(tmp_path: Path) -> None:
    package = write(
        tmp_path / "package",
        __init__="from package import a\n",
        a="def f():\n    from package import b\n",
        b="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import C\n",
        c="import package.a\nfrom package.d import D\n",
        d="",
    )
    graph = structure.import_graph(package)
    assert graph["package"] == {"package.a"}
    assert structure.circles(graph) == {frozenset({"package.a", "package.b", "package.c"})}


def traced() -> list[int]:
    return list(map(abs, (number for number in [-1])))


def test_the_tracer_sees_all_threads_and_leaves_comprehensions_out() -> None:
    tracer = Tracer(Path(__file__).parent)
    tracer.install()
    try:
        with tracer.record():
            thread = threading.Thread(target=traced)
            thread.start()
            thread.join()
    finally:
        tracer.uninstall()
    assert [code.co_name for code in tracer.entered] == ["traced"]
    assert tracer.files == {__file__}
