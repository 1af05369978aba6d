"""Writes pip constraints that pin the package's dependencies to the lowest versions that pyproject.toml declares.

The tests' tools are pinned where pip would search long for versions that fit these.

Run ``python .ci/lowest.py build/lowest.txt``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
# Of the time of the lowest langchain-core, so that pip finds them at once instead of trying every version.
TOOLS = (
    "langchain==1.1.3",
    "langchain-anthropic==1.2.0",
    "langchain-classic==1.0.0",
    "langchain-mcp-adapters==0.2.1",
    "langchain-openai==1.1.1",
    "langchain-text-splitters==1.0.0",
    "langgraph==1.0.5",
    "langgraph-checkpoint==3.0.1",
    "langgraph-prebuilt==1.0.5",
    "langgraph-sdk==0.3.0",
    "langsmith==0.4.56",
)
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?[>=]=([\d.]+)")


def lowest(project: dict[str, Any]) -> list[str]:
    """List one pin per dependency; a requirement on the package's own extras has no version, and gives none."""
    groups = [project["dependencies"]]
    groups += project["optional-dependencies"].values()
    found = [match.groups() for lines in groups for match in map(REQUIREMENT.match, lines) if match]
    return [f"{name}=={version}" for name, version in sorted(set(found))]


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    pins = lowest(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"])
    target.write_text("\n".join([*pins, *TOOLS]) + "\n", encoding="utf-8")
