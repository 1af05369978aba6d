"""Tools for agents over MCP: bytes of an answer with pictures, and calls until the cited page is read.

    python -m benchmarks.agents        # -> results/agents.md

The questions are those of demo/questions.json, which were written before any model was run on its pages. The agent has
no model and follows a fixed policy: it lists the documents, asks `search_pages` with five pictures, and reads the found
pages in their order until it has read one that answers the question. Its messages are lines on the process's own
streams, so that each answer is measured as it is sent.
"""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from benchmarks.machine import RESULTS, describe, table
from colpali_integrations import ColPali
from colpali_integrations.agents.pictures import PagePicture, page_pictures, readable_side
from colpali_integrations.stores import MultiVectorStore, index_documents

DEMO = Path(__file__).parents[1] / "demo"
MOST_CALLS, MOST_BYTES, K = 5, 400_000, 5
_FOUND = re.compile(r"\d+\. (.+), page (\d+)(?: of \d+)? \(relevance")


class Agent:
    """Sends messages to the command `mcp` and measures its answers.

    Args:
        process: of the command.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self._number = process, 0
        client = {"name": "benchmark", "version": "1"}
        self._ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=client)
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, name: str, **arguments: Any) -> tuple[Any, int]:
        """The result of a tool, and the bytes of the message that has it."""
        result, size = self._ask("tools/call", name=name, arguments=arguments)
        if result.get("isError"):
            raise SystemExit(f"{name}: {result['content']}")
        return result, size

    def _ask(self, method: str, **parameters: Any) -> tuple[Any, int]:
        self._number += 1
        self._send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": parameters})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        message = json.loads(line)
        if "error" in message:
            raise SystemExit(f"{method}: {message['error']}")
        return message["result"], len(line.encode())

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()


@contextmanager
def agent(store: Path, root: Path) -> Iterator[Agent]:
    command = [sys.executable, "-m", "colpali_integrations.cli", "mcp", "--store", str(store), "--root", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Agent(process)
        finally:
            process.kill()


@dataclass(frozen=True)
class Outcome:
    """A question by the policy.

    Attributes:
        question: the question.
        calls: number of calls until a cited page was read; None if none of the found pages is one.
        size: bytes of the answer of `search_pages`.
        pictures: sizes of its pictures, in pixels.
        seconds: of `search_pages`.
    """

    question: str
    calls: int | None
    size: int
    pictures: Sequence[tuple[int, int]]
    seconds: float


def ask(one: Agent, question: str, cited: set[tuple[str, int]]) -> Outcome:
    """Follow the policy.

    Args:
        one: the agent.
        question: in words.
        cited: file names and page numbers, of which each answers the question.
    """
    one.call("list_documents")
    began = time.perf_counter()
    result, size = one.call("search_pages", question=question, k=K)
    seconds = time.perf_counter() - began
    texts = [block["text"] for block in result["content"] if block["type"] == "text"]
    pictures = [block["data"] for block in result["content"] if block["type"] == "image"]
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data in pictures]
    calls: int | None = None
    found = [(match[1], int(match[2])) for text in texts if (match := _FOUND.match(text))]
    for read, (name, page) in enumerate(found, 1):
        one.call("read_page", document=name, page=page)
        if (name, page) in cited:
            calls = 2 + read
            break
    return Outcome(question, calls, size, sizes, seconds)


def hits_of_three(store: Path) -> list[list[PagePicture]]:
    """Pictures of each three pages that follow each other, of all documents."""
    with MultiVectorStore.open(store, read_only=True) as opened:
        entries = sorted(opened.scroll(), key=lambda entry: (entry.document_id or "", entry.page or 0))
    pages = [entry.metadata for entry in entries]
    return [page_pictures(pages[begin : begin + 3]) for begin in range(0, len(pages) - 2, 3)]


def main() -> None:
    questions = json.loads((DEMO / "questions.json").read_text(encoding="utf-8"))["questions"]
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary) / "index"
        with ColPali.from_pretrained() as model:
            index_documents(DEMO / "pdfs", model=model, store=store)
        with agent(store, DEMO / "pdfs") as one:
            outcomes = [
                ask(one, each["question"], {(each["file"], page) for page in each["pages"]}) for each in questions
            ]
        three = hits_of_three(store)
    within = [one for one in outcomes if one.calls is not None and one.calls <= MOST_CALLS]
    sides = sorted(max(size) for one in outcomes for size in one.pictures)
    largest = max(one.size for one in outcomes)
    rows = [
        (f"questions whose cited page is read within {MOST_CALLS} calls", f"{len(within)} of {len(outcomes)}"),
        (f"largest answer of `search_pages`, k = {K}, bytes as sent (bar: {MOST_BYTES:,})", f"{largest:,}"),
        ("the median answer, bytes", f"{median(one.size for one in outcomes):,.0f}"),
        (
            f"long sides of its pictures, pixels: least, median (aim: {readable_side(K):,})",
            f"{sides[0]}, {median(sides):.0f}",
        ),
        (
            "least long side of three pages at a time, of all pages (bar: 1,000)",
            min(max(p.size) for some in three for p in some),
        ),
        ("seconds of `search_pages`, median", f"{median(one.seconds for one in outcomes):.2f}"),
    ]
    lines = [(one.question, one.calls or f"not among the first {K}", f"{one.size:,}") for one in outcomes]
    text = "\n\n".join(
        [
            "# Tools for agents",
            f"Made by `python -m benchmarks.agents`, with ColTiny and the documents of the demo. {describe()}",
            table(("what", "measured"), rows),
            table(("question", "calls until a cited page was read", "bytes of the search"), lines),
        ]
    )
    (RESULTS / "agents.md").write_text(f"{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
