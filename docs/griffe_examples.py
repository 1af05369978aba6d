"""Griffe: show doctests as code wherever a docstring has them.

Griffe takes the heading `Example:` for a note of that title, and Markdown takes `>>>` in running text
for three quotations.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^( *)Example:( .+)?$", re.MULTILINE)
_DOCTEST = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?P=indent)\S.*|\n(?P=indent) +\S.*)*", re.MULTILINE)


class ShowExamples(griffe.Extension):
    """Turn both into fenced code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that was read."""
        if obj.docstring is not None:
            obj.docstring.value = shown(obj.docstring.value)


def shown(text: str) -> str:
    """Put the examples of a docstring into fenced code under a bold word."""
    head, *examples = re.split(r"^(?=Example:)", text, maxsplit=1, flags=re.MULTILINE)
    if examples:
        title, _, body = examples[0].partition("\n")
        lines = body.splitlines()
        # The indented lines below the heading; a section after it begins at the margin.
        end = next((i for i, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
        inside = "\n".join(line[4:] for line in lines[:end])
        rest = "\n".join(lines[end:])
        # The heading's own words end Griffe's section before it.
        return f"{_fenced(head)}**Example**{title[len('Example') :].rstrip(':')}\n\n{_fenced(inside)}\n{rest}".rstrip()
    return _fenced(text)


def _fenced(text: str) -> str:
    def fence(match: re.Match[str]) -> str:
        indent = match["indent"]
        return f"{indent}```pycon\n{match[0]}\n{indent}```"

    return _DOCTEST.sub(fence, text)
