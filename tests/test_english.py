"""Plain English: docstrings, comments, error messages and prose are free of the patterns that readers stumble on.

Run `python -m tests.test_english` for the offences of all files, also of those not yet held.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

_ALL = (
    *("colpali_integrations/**/*.py", "benchmarks/**/*.py", "training/**/*.py", "tests/**/*.py", "demo/*.py"),
    *("docs/*.py", "docs/*.md", "README.md", "CONTRIBUTING.md"),
)

_UNITS = (
    "page|query|device|core|item|text|question|word|token|cell|image|picture|document|file|row|batch|model|worker|actor"
    "|process|thread|call|run|session|vector|machine"
)
_COUNTED = (
    "vectors|lines|pages|bytes|bits|seconds|milliseconds|floats|numbers|cells|rows|words|tokens|ms|[kmg]i?b|files"
    "|threads|workers|CPU time"
)
_SINGLE = (
    "array|batch|colou?r|document|entry|file|ImageNode|length|line|mean|model|node|picture|region|result|row|scale|score"
    "|vector"
)
# After "a page", these begin a clause about the page: "in 3 of 4 a page is lost" has no "per" in it.
_CLAUSE = r"(?! (?:is|has|was|may|can|will|must|that|which|number|loader|image|hash)\b)"
PATTERNS = {
    "name the caller, process, thread or adapter": r"\b(?:nobody|whoever|somebody)\b",
    "write: an option has an invalid value": r"\bthat cannot be[.:]",
    "write what happens: raises, gets an error": r"\b(?:(?:is|are) told so|says? so)\b",
    "write: one per page": rf"\bone (?:(?:\w+ )?(?:{_SINGLE}) )?an? (?:{_UNITS})\b{_CLAUSE}",
    "write: vectors per page": rf"\b(?:{_COUNTED}) an? (?:{_UNITS})\b{_CLAUSE}",
    "write: 3 per page": rf"\b\d(?:[\d.,]*\d)?(?: %|%)? an? (?:{_UNITS})\b{_CLAUSE}",
}
# Words may stand on two lines, but not in two paragraphs.
_SPACE = r"(?:[^\S\n]+|[^\S\n]*\n[^\S\n]*)"
_SEARCHES = {advice: re.compile(pattern.replace(" ", _SPACE), re.IGNORECASE) for advice, pattern in PATTERNS.items()}
_ARROW = re.compile(r"-->|->|→")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Passage(NamedTuple):
    """Some connected text and the line of its file that it begins in."""

    line: int
    text: str


def docstrings(tree: ast.AST) -> Iterator[Passage]:
    """Docstrings, without their examples and what these print."""
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node, clean=False)):
            yield Passage(node.body[0].lineno, _without_examples(text))


def messages(tree: ast.AST) -> Iterator[Passage]:
    """Strings in `raise` statements; what an f-string fills in is left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            inside = {
                id(part) for string in ast.walk(node) if isinstance(string, ast.JoinedStr) for part in string.values
            }
            for each in ast.walk(node):
                if isinstance(each, ast.JoinedStr):
                    parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in each.values)
                    yield Passage(each.lineno, "".join(parts))
                elif isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in inside:
                    yield Passage(each.lineno, each.value)


def comments(source: str) -> Iterator[Passage]:
    """Comments; those on lines of their own that follow each other are one passage."""
    before = 0
    block: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start[0] != before + 1:
            yield Passage(before - len(block) + 1, "\n".join(block))
            block = []
        block.append(token.string.lstrip("#: "))
        before = token.start[0]
    if block:
        yield Passage(before - len(block) + 1, "\n".join(block))


def prose(markdown: str) -> Passage:
    """Markdown without its code."""
    fenced = re.sub(r"^( *)(```+|~~~+).*?^\1\2", _blank, markdown, flags=re.MULTILINE | re.DOTALL)
    return Passage(1, re.sub(r"`[^`\n]+`", "`code`", fenced))


def passages(path: Path) -> Iterator[Passage]:
    """All that a file has to read."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield prose(source)
    else:
        tree = ast.parse(source)
        yield from docstrings(tree)
        yield from messages(tree)
        yield from comments(source)


def offences(path: Path) -> Iterator[str]:
    """`file:line: words found (advice)`, one per match."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    if path.suffix == ".py":
        summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        if _ARROW.search(summary):
            yield f"{name}:1: {summary} (begin with a sentence without arrows)"
    for line, text in passages(path):
        for advice, search in _SEARCHES.items():
            for match in search.finditer(text):
                found = " ".join(match[0].split())
                yield f"{name}:{line + text.count(chr(10), 0, match.start())}: {found} ({advice})"


def files(globs: tuple[str, ...]) -> list[Path]:
    found = {glob: sorted(ROOT.glob(glob)) for glob in globs}
    assert all(found.values()), f"no file fits {[glob for glob, paths in found.items() if not paths]}"
    return [path for paths in found.values() for path in paths]


def _without_examples(docstring: str) -> str:
    shown = False
    lines = []
    for line in docstring.split("\n"):
        shown = line.lstrip().startswith(">>>") or (shown and bool(line.strip()))
        lines.append("" if shown else line)
    return "\n".join(lines)


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


@pytest.mark.slow
def test_clean_files_stay_plain() -> None:
    assert [offence for path in files(_ALL) for offence in offences(path)] == []


def test_offences_are_found_where_people_read(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""pages -> vectors."""\n'
        'def f(nobody):\n    """One array of 400 vectors\n    a page.\n\n'
        '    >>> f("whoever")\n    "somebody"\n    """\n'
        "    # Two lines, and\n    # whoever reads them.\n"
        '    raise ValueError(f"{nobody}: an option that cannot be: " "x")\n',
        encoding="utf-8",
    )
    found = [offence.partition(" (")[0] for offence in offences(path)]
    assert found == [
        "module.py:1: pages -> vectors.",
        "module.py:3: vectors a page",
        "module.py:11: that cannot be:",
        "module.py:10: whoever",
    ]


def test_code_in_markdown_is_no_prose(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "One page is told so.\n\n```python\nnobody = 1\n```\n\n`whoever` costs 3 a page\n", encoding="utf-8"
    )
    assert [offence.partition(" (")[0] for offence in offences(path)] == [
        "page.md:1: is told so",
        "page.md:7: 3 a page",
    ]


def main() -> None:
    found = [offence for path in files(_ALL) for offence in offences(path)]
    print(*found, f"{len(found)} offences", sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
