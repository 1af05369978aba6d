"""Size and structure of the package: lines of code, import circles, files and functions behind one call.

From the repository's root::

    python -m benchmarks.structure [--tree FOLDER] [--list]

`--tree` measures another checkout, for instance `git archive 13f8784 | tar -x -C FOLDER`; `--list` prints every
function that a traced call entered.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tempfile
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from benchmarks import calls, machine

ROOT = Path(__file__).parent.parent
PACKAGE = "colpali_integrations"
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

BASELINE = "13f8784"
# measure: (value at the baseline, bar)
BARS = {
    "lines of code": ("12,885", "at most 11,600"),
    "lines per function: median, 90th percentile, longest": ("5, 19, 75", "median at most 9"),
    "import circles": ("4", "0"),
    "words in README.md": ("2,645", "at most 900"),
    "add_pdf, one page: files / functions": ("32 / 164", "18 / 90"),
    "ColPaliRetriever.invoke: files / functions": ("23 / 79", "14 / 50"),
    "the same, hybrid with regions": ("30 / 126", ""),
    "add_pdf, 33 pages: PDFs opened / pages rendered": ("34 / 66", "1 / 33"),
}


# -- lines ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """Lines of code, without docstrings, comments and blank lines.

    Attributes:
        total: of all files.
        functions: per function, from `def` to its last line: nested ones count as themselves and in the outer one.
    """

    total: int
    functions: list[int]

    def __str__(self) -> str:
        ninth = quantiles(self.functions, n=10, method="inclusive")[-1]
        return f"{median(self.functions):g}, {ninth:g}, {max(self.functions)}"


def code_lines(source: str, tree: ast.AST | None = None) -> set[int]:
    r"""Numbers of the lines that hold a token which is not a comment, less those of docstrings.

    `tree` is what the source is parsed to, where the caller has done so.

    >>> sorted(code_lines('def f():\n    "Docstring."\n\n    # comment\n    return 1  # one\n'))
    [1, 5]
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree or ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            lines -= _span(node.body[0])
    return lines


def size(package: Path) -> Size:
    """Count the lines of all Python files in a folder."""
    total, functions = 0, []
    for path in sorted(package.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        lines = code_lines(source, tree)
        total += len(lines)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                functions.append(len(lines & _span(node)))
    return Size(total, functions)


def _span(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


# -- imports --------------------------------------------------------------------------------------------------------


def import_graph(package: Path) -> dict[str, set[str]]:
    """Modules of a package, each with those that it imports, wherever in the file the import stands.

    `from package import name` leads to the module `package.name` where there is one, and to `package` otherwise. The
    parent packages that Python imports on the way do not count.
    """
    files = {_module(path, package): path for path in package.rglob("*.py")}
    return {module: set(_imported(module, path, files)) - {module} for module, path in sorted(files.items())}


def circles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """Largest groups of modules each of which imports all others of its group, directly or not.

    >>> circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {frozenset({"b", "c"})}
    True
    """
    reached = {module: _reached(module, graph) for module in graph}
    groups = {frozenset(other for other in reached[module] if module in reached[other]) for module in graph}
    return groups - {frozenset()}


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(module: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                yield from (each for each in [name if name in files else origin] if each in files)


def _reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = [start]
    while ahead:
        new = graph[ahead.pop()] - reached
        reached |= new
        ahead += new
    return reached


# -- the table ------------------------------------------------------------------------------------------------------


def measured(tree: Path, *, listed: bool = False) -> dict[str, str]:
    """All measures of a checkout, in the order of `BARS`."""
    package = tree / PACKAGE
    lines = size(package)
    found = circles(import_graph(package))
    for group in sorted(found, key=sorted):
        print("circle:", " <-> ".join(sorted(group)))
    with tempfile.TemporaryDirectory() as folder:
        traced = calls.measure(package, Path(folder), listed=listed)
    words = len((tree / "README.md").read_text(encoding="utf-8").split())
    values = [f"{lines.total:,}", str(lines), str(len(found)), f"{words:,}", *traced.values()]
    return dict(zip(BARS, values, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to measure")
    parser.add_argument("--list", action="store_true", help="print the functions entered")
    options = parser.parse_args()
    tree = options.tree.resolve()
    sys.path.insert(0, str(tree))
    now = measured(tree, listed=options.list)
    print(
        machine.table(
            ("measure", BASELINE, "now", "bar"), [(name, BARS[name][0], now[name], BARS[name][1]) for name in now]
        )
    )


if __name__ == "__main__":
    main()
