r"""The minute of a new user: from `pip install` of the wheel to the first found page of a PDF, offline after it.

    python -m benchmarks.first_minute PDF QUESTION --page N [--rounds 3]      # Linux; -> results/first_minute.md

    apt-get install libtasn1-doc                             # the committed one: a manual of 36 pages, by Debian
    python -m benchmarks.first_minute /usr/share/doc/libtasn1-doc/libtasn1.pdf \
        "Which program decodes a file that is encoded in DER?" --page 10

The wheel is built, and an empty environment made, before the clock starts. pip asks the index that it is configured
with, and uses none of its cache. All after it runs in a network namespace with nothing but this host's loopback, with
an empty home folder and without variables of this process, in two ways: by the commands `index` and `search`, and by a
server as the search page uses it: upload, wait, ask, get the picture. Both must find page N first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from benchmarks.served import Address, Answer, connected, post, request, server, upload

ROOT = Path(__file__).parents[1]
BAR = 60.0
WAYS = ("commands", "server")
MOST_SECONDS = 300.0
# As root of the namespace alone: it has no interface but loopback, which is down at first.
_ALONE = ("unshare", "--user", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
Result = TypeVar("Result")


class Clock:
    """Prints and keeps the seconds of steps.

    Attributes:
        steps: names and seconds.
    """

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self._began = self._ended_cpu()

    @property
    def cpu(self) -> float:
        """CPU seconds of the processes that have ended since the start; other work on the machine changes them less."""
        return self._ended_cpu() - self._began

    @staticmethod
    def _ended_cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def __call__(self, name: str, step: Callable[[], Result]) -> Result:
        """Take the time of a step, and return what it returns."""
        began = time.perf_counter()
        result = step()
        self.steps[name] = time.perf_counter() - began
        print(f"{name}: {self.steps[name]:.1f} s", file=sys.stderr, flush=True)
        return result


def run(*command: str | Path, **options: Any) -> str:
    """What a command prints; its errors end the measurement."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{command[0]} has failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return str(done.stdout)


def by_commands(clock: Clock, program: Path, pdf: Path, question: str, folder: Path) -> int:
    """Index the PDF and ask by the command line; the page that is found first."""
    clock("index", lambda: run(program, "index", pdf, "--store", folder / "one", "--quiet"))
    search = (program, "search", question, "--store", folder / "one", "-k", "1", "--json")
    found = clock("search", lambda: run(*search))
    return int(json.loads(found.splitlines()[0])["page"])


def by_server(clock: Clock, program: Path, pdf: Path, question: str, folder: Path) -> int:
    """Index the PDF and ask as the search page does; the page that is found first."""
    with ExitStack() as stack:
        serving = server(folder / "two", program=(str(program),), folder=folder)
        _, address = clock("server started", lambda: stack.enter_context(serving))
        job = clock("upload accepted", lambda: ask(address, upload(pdf.read_bytes(), pdf.name), 202)).json()
        clock("indexed", lambda: wait_for(address, job["id"]))
        answer = clock("question", lambda: ask(address, post("/v1/search", {"query": question, "k": 1}), 200)).json()
        hit = answer["hits"][0]
        path = f"/v1/pages/{quote(hit['id'], safe='')}/image?dpi=110"
        clock("picture of the page", lambda: ask(address, request("GET", path), 200))
        return int(hit["page"])


def ask(address: Address, content: bytes, status: int) -> Answer:
    async def asked() -> Answer:
        async with connected(address) as connection:
            return await connection.ask(content)

    answer = asyncio.run(asyncio.wait_for(asked(), MOST_SECONDS))
    if answer.status != status:
        raise SystemExit(f"{answer.status}: {answer.body!r}")
    return answer


def wait_for(address: Address, job: str) -> None:
    until = time.monotonic() + MOST_SECONDS
    while (state := ask(address, request("GET", f"/v1/jobs/{job}"), 200).json())["state"] != "done":
        if state["state"] == "failed" or time.monotonic() > until:
            raise SystemExit(f"the PDF is not indexed: {state}")
        time.sleep(0.1)


def offline(environment: Path, pdf: Path, question: str, folder: Path) -> None:
    """Both ways, in a process without a network; prints their steps and pages as JSON."""
    program, ways = environment / "bin" / "colpali-integrations", {}
    for name, way in zip(WAYS, (by_commands, by_server), strict=True):
        clock = Clock()
        page = way(clock, program, pdf, question, folder)
        ways[name] = {"page": page, "steps": clock.steps, "cpu": clock.cpu}
    print(json.dumps(ways))


def measured(wheel: Path, extra: str, pdf: Path, question: str) -> dict[str, Any]:
    """One round: seconds of the installation, and what `offline` prints."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment, home = folder / "environment", folder / "home"
        home.mkdir()
        run(sys.executable, "-m", "venv", environment)
        wanted = f"{wheel}[{extra}]"
        install = (environment / "bin" / "python", "-m", "pip", "install", "--no-cache-dir", wanted)
        clock = Clock()
        clock(f"pip install [{extra}]", lambda: run(*install, cwd=folder))
        installed = clock.cpu
        variables = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
        again = (sys.executable, "-m", "benchmarks.first_minute", "--offline", environment)
        ways = run(*_ALONE, *again, pdf.resolve(), question, cwd=ROOT, env=variables)
        where = run(environment / "bin" / "python", "-I", "-c", "import colpali_integrations as c; print(c.__file__)")
        if not Path(where.strip()).is_relative_to(environment):
            raise SystemExit(f"the wheel is not what ran, but {where}")
    return {"install": {"steps": clock.steps, "cpu": installed}, **json.loads(ways)}


def table(rounds: Sequence[dict[str, Any]]) -> str:
    """The steps of both ways in Markdown, a column per round, with the sum from `pip install` on."""
    lines = [f"| seconds | {' | '.join(f'round {number}' for number in range(1, len(rounds) + 1))} |"]
    lines.append("|---|" + "---:|" * len(rounds))

    def row(name: str, values: Sequence[float]) -> None:
        lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |")

    for part in ("install", *WAYS):
        for step in rounds[0][part]["steps"]:
            row(f"{part}: {step}", [one[part]["steps"][step] for one in rounds])
        row(f"{part}: CPU seconds of all", [one[part]["cpu"] for one in rounds])
    for way in WAYS:
        row(f"**from `pip install` to the page, by the {way}**", [seconds(one, way) for one in rounds])
        row("CPU seconds of this", [one["install"]["cpu"] + one[way]["cpu"] for one in rounds])
    return "\n".join(lines)


def seconds(one: dict[str, Any], way: str) -> float:
    return float(sum(one["install"]["steps"].values()) + sum(one[way]["steps"].values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pdf", type=Path)
    parser.add_argument("question")
    parser.add_argument("--page", type=int, help="number of the page that answers; another one ends by an error")
    parser.add_argument("--extras", nargs="+", default=["all", "cli,serve"], help="of the wheel; README names `all`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--offline", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.offline is not None:
        with tempfile.TemporaryDirectory() as temporary:
            offline(options.offline, options.pdf, options.question, Path(temporary))
        return
    run(*_ALONE, "true")
    from benchmarks.machine import describe, write  # it is not in the process without a network

    tables, rounds = [], []
    with tempfile.TemporaryDirectory() as temporary:
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", temporary, ROOT)
        [wheel] = Path(temporary).glob("*.whl")
        size = wheel.stat().st_size / 1e6
        for extra in options.extras:
            of_extra = [measured(wheel, extra, options.pdf, options.question) for _ in range(options.rounds)]
            tables.append(table(of_extra))
            rounds += of_extra
    ways = [(one, way) for one in rounds for way in WAYS]
    pages = sorted({one[way]["page"] for one, way in ways})
    text = (
        f"# From `pip install` to the first found page\n\nMade by `python -m benchmarks.first_minute {options.pdf} "
        f'"{options.question}" --page {options.page}`. {describe()}\n\nThe wheel has {size:.1f} MB. pip used no cache. '
        f"All after it ran without a network. Page that was found first: {', '.join(map(str, pages))}.\n\n"
    )
    write("first_minute.md", text + "\n\n".join(tables))
    _judge(options.page, pages, max(seconds(one, way) for one, way in ways))


def _judge(wanted: int | None, pages: Sequence[int], longest: float) -> None:
    if wanted is not None and list(pages) != [wanted]:
        raise SystemExit(f"page {wanted} should be found first")
    if longest > BAR:
        raise SystemExit(f"the longest took {longest:.1f} s; the bar is {BAR:.0f}")


if __name__ == "__main__":
    main()
