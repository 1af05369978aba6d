"""kill -9 of the server during uploads: every accepted page is there after the restart, and every deletion holds.

    python -m benchmarks.server_kills [--kills 20] [--uploads 30]

Each server first goes on with the jobs that the one before left. After up to two seconds eight clients upload small
images and PDFs without a pause, and delete some, until the server is killed: up to 20 ms after an upload of a random
number. All of it happens on one index. The last server must end all jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pypdfium2
from PIL import Image, ImageDraw, ImageFont

from benchmarks.machine import describe
from benchmarks.served import Address, connected, request, server, upload
from colpali_integrations.stores import MultiVectorStore

PDF = Path(__file__).parents[1] / "demo" / "pdfs" / "hcl-colors.pdf"
CLIENTS = 8
MOST_SECONDS = 60.0  # that the uploads and the end of one server may take


class Accepted:
    """What the servers have answered so far.

    Attributes:
        pages: number of pages of the accepted uploads that must be there, by document.
        deleted: documents whose deletion was answered; they must be gone.
        unsure: documents whose deletion was not answered.
        cut: number of requests that were not answered.
    """

    def __init__(self) -> None:
        self.pages: dict[str, int] = {}
        self.deleted: set[str] = set()
        self.unsure: set[str] = set()
        self.cut = 0


def picture(text: str) -> bytes:
    """A small image with a text, as PNG."""
    image = Image.new("RGB", (480, 160), "white")
    ImageDraw.Draw(image).text((20, 60), text, "black", ImageFont.load_default(28))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def files() -> Iterator[tuple[str, bytes, int]]:
    """Names, contents and numbers of pages of files that differ from each other, without end."""
    with pypdfium2.PdfDocument(PDF) as paper, pypdfium2.PdfDocument.new() as few:
        few.import_pages(paper, [2, 6])
        content = io.BytesIO()
        few.save(content)
    number = 0
    while True:
        number += 1
        if number % 10:
            yield f"{number}.png", picture(f"Receipt {number} of the harbour"), 1
        else:
            yield f"{number}.pdf", content.getvalue() + f"\n% {number}\n".encode(), 2


class Kill:
    """Kills a server up to 20 ms after it has accepted a random number of uploads.

    Attributes:
        after: number of uploads that are still to be accepted before; not more than 0 once it is decided.
        chance: draws the numbers.
    """

    def __init__(self, process: subprocess.Popen[str], most: int, chance: random.Random) -> None:
        self.after, self.chance = chance.randint(1, most), chance
        self._process = process

    def accepted(self) -> None:
        """Count an upload."""
        self.after -= 1
        if self.after == 0:
            asyncio.get_running_loop().call_later(self.chance.uniform(0, 0.02), self._process.kill)


async def load(address: Address, made: Iterator[tuple[str, bytes, int]], accepted: Accepted, kill: Kill) -> None:
    """Upload and delete until the server is killed."""

    async def client() -> None:
        async with connected(address) as connection:
            while True:
                name, content, pages = next(made)
                answer = await connection.ask(upload(content, name))
                if answer.status != 202:
                    raise SystemExit(f"{answer.status}: {answer.body!r}")
                document = answer.json()["document_id"]
                accepted.pages[document] = pages
                kill.accepted()
                if kill.chance.random() < 0.1:
                    accepted.unsure.add(document)
                    answer = await connection.ask(request("DELETE", f"/v1/documents/{quote(document, safe='')}"))
                    if answer.status != 200:
                        raise SystemExit(f"{answer.status}: {answer.body!r}")
                    accepted.unsure.discard(document)
                    accepted.deleted.add(document)

    await asyncio.sleep(kill.chance.uniform(0, 2))
    clients = asyncio.gather(*(client() for _ in range(CLIENTS)), return_exceptions=True)
    for outcome in await asyncio.wait_for(clients, MOST_SECONDS):
        if isinstance(outcome, OSError):
            accepted.cut += 1
        elif outcome is not None:
            raise outcome
    if kill.after > 0:
        raise SystemExit("the server has ended before it was killed")


async def listed(address: Address, what: str) -> list[dict[str, object]]:
    """All documents or jobs of the server."""
    found, cursor = [], ""
    async with connected(address) as connection:
        while cursor is not None:
            after = f"&cursor={quote(cursor, safe='')}" if cursor else ""
            answer = (await connection.ask(request("GET", f"/v1/{what}?limit=1000{after}"))).json()
            found += answer[what]
            cursor = answer["next_cursor"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--uploads", type=int, default=30, help="about the most that are accepted before each kill")
    options = parser.parse_args()
    print(describe(), "\n", flush=True)
    accepted, made, chance = Accepted(), files(), random.Random(7)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        for number in range(1, options.kills + 1):
            began, before, cut = time.monotonic(), len(accepted.pages), accepted.cut
            with server(folder) as (process, address):
                started = time.monotonic() - began
                asyncio.run(load(address, made, accepted, Kill(process, options.uploads, chance)))
                process.wait(MOST_SECONDS)
            print(
                f"kill {number}: started in {started:.1f} s, killed after {time.monotonic() - began - started:.1f} s, "
                f"{len(accepted.pages) - before} accepted, {accepted.cut - cut} requests cut",
                file=sys.stderr,
                flush=True,
            )
        with server(folder) as (process, address):
            waiting = [one for one in asyncio.run(listed(address, "jobs")) if one["state"] not in ("done", "failed")]
            until = time.monotonic() + 900
            while any(one["state"] not in ("done", "failed") for one in asyncio.run(listed(address, "jobs"))):
                if time.monotonic() > until:
                    raise SystemExit("the jobs have not ended within 900 s")
                time.sleep(0.5)
            there = {str(one["document_id"]): one["pages"] for one in asyncio.run(listed(address, "documents"))}
            failed = [one for one in asyncio.run(listed(address, "jobs")) if one["state"] == "failed"]
            process.terminate()
            process.wait(60)
        sure = {one: pages for one, pages in accepted.pages.items() if one not in accepted.deleted | accepted.unsure}
        lost = [one for one, pages in sure.items() if there.get(one) != pages]
        back = accepted.deleted & there.keys()
        with MultiVectorStore.open(folder, model="coltiny", read_only=True) as store:
            sound = store.verify().ok
    print("| kills | accepted | requests cut | jobs left | lost | deleted | back again | failed | index sound |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    deletions = len(accepted.deleted), len(back)
    numbers = (len(accepted.pages), accepted.cut, len(waiting), len(lost), *deletions, len(failed))
    print(f"| {options.kills} | {' | '.join(map(str, numbers))} | {'yes' if sound else 'NO'} |")
    if lost or back or failed or not sound:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
