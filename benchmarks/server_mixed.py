"""100 clients with mixed requests: every answer is compared with that of the package in this process.

    python -m benchmarks.server_mixed [--requests 10000] [--clients 100]

60 % searches, 20 % embeddings, 10 % page images, 5 % uploads and 5 % deletions of uploads. Answers of 429 and 503 are
waited for as they tell. The expected answers are computed before the server starts. At the end all jobs must be done,
the index must hold the documents that were uploaded and not deleted, and nothing else, and each of their pages must be
found with the score of its image. The memory of the server and its processes is read twice per second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil

from benchmarks.machine import describe
from benchmarks.process import pss
from benchmarks.served import Address, Answer, Connection, connected, post, request, server, upload
from benchmarks.server_kills import listed, picture
from colpali_integrations import ColPali, max_sim
from colpali_integrations.models.single import SingleVectors
from colpali_integrations.pages import load_image, page_image
from colpali_integrations.pages.reference import encode_png
from colpali_integrations.stores import MultiVectorStore, index_documents

PDFS = Path(__file__).parents[1] / "demo" / "pdfs"
BASE = (PDFS / "hcl-colors.pdf", PDFS / "metropolis-slides.pdf")
WORDS = (
    *("tide", "harbour", "palette", "parliament", "contrast", "slide", "theme", "title", "colour", "bread", "tax"),
    *("crane", "violin", "river", "bridge"),
)
MIX = {"search": 60, "embed": 20, "image": 10, "upload": 5, "delete": 5}
CLOSE = 1e-4  # of scores: a question's vectors depend in their last digits on those that are encoded with it
Check = Callable[[Answer], bool]


@dataclass
class Sent:
    """A request and the check of its answer."""

    content: bytes
    check: Check


class Expected:
    """Requests and their right answers, from the package in this process.

    Args:
        model: that the server has too.
        store: of the base documents, and nothing else.
    """

    def __init__(self, model: ColPali, store: MultiVectorStore) -> None:
        chance = random.Random(3)
        texts = [" ".join(chance.sample(WORDS, chance.randint(1, 5))) for _ in range(60)]
        options: list[dict[str, Any]] = [{"k": 5}, {"k": 3, "hybrid": False}, {"k": 10, "hybrid": "rrf"}]
        searches = [self._search(store, text, one) for text in texts for one in options]
        embeddings = [made for text in texts for made in self._embeddings(model, text)]
        images = [self._image(hit.entry) for hit in store.search("slide", 8)]
        self.of = {"search": searches, "embed": embeddings, "image": images}
        self.files = [picture(f"Receipt {number}: {text}") for number, text in enumerate(texts)]
        self.texts = texts
        questions = list(model.embed_queries(texts, parallel=1))
        pages = list(model.embed_images([load_image(one) for one in self.files]))
        self.scores = [float(max_sim(one, [page])[0]) for one, page in zip(questions, pages, strict=True)]

    def _search(self, store: MultiVectorStore, text: str, options: dict[str, Any]) -> Sent:
        hits = [(hit.id, float(hit.score)) for hit in store.search(text, **options)]
        more = store.search(text, **{**options, "k": options["k"] + 5})
        others = {hit.id: float(hit.score) for hit in more}

        def right(answer: Answer) -> bool:
            found = [(one["id"], one["score"]) for one in answer.json()["hits"]]
            # Pages of equal score may change places.
            return len(found) == len(hits) and all(
                abs(score - expected) <= CLOSE and abs(others.get(id_, -1.0) - score) <= CLOSE
                for (id_, score), (_, expected) in zip(found, hits, strict=True)
            )

        return Sent(post("/v1/search", {"query": text, "filter": {"base": True}, **options}), right)

    def _embeddings(self, model: ColPali, text: str) -> list[Sent]:
        single = SingleVectors(model).query(text)
        several = model.embed_query(text)

        def close(found: Any, expected: Any) -> bool:
            found, expected = np.asarray(found), np.asarray(expected)
            return found.shape == expected.shape and bool(np.abs(found - expected).max() <= CLOSE)

        return [
            Sent(
                post("/v1/embeddings", {"input": text, "input_type": "query"}),
                lambda answer: close(answer.json()["data"][0]["embedding"], single),
            ),
            Sent(
                post("/v1/multi-vector", {"input": [text], "input_type": "query"}),
                lambda answer: close(answer.json()["data"][0]["embeddings"], several),
            ),
        ]

    def _image(self, entry: Any) -> Sent:
        content = encode_png(page_image(entry.metadata, dpi=72, roots=[PDFS]))
        path = f"/v1/pages/{quote(entry.id, safe='')}/image?dpi=72"
        return Sent(request("GET", path), lambda answer: answer.body == content)


class Run:
    """The requests of all clients."""

    def __init__(self, expected: Expected, requests: int) -> None:
        self.expected, self._left = expected, requests
        self.asked: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lost: list[str] = []
        self.kept: dict[str, int] = {}  # the file of each upload that has not been deleted
        self.memory: list[tuple[int, int]] = []  # requests that were answered, and bytes
        self._chance = random.Random(11)

    @property
    def answered(self) -> int:
        return sum(self.asked.values())

    async def client(self, connection: Connection) -> None:
        """Send one request after the other until all are sent."""
        while self._left > 0:
            self._left -= 1
            [kind] = self._chance.choices(list(MIX), list(MIX.values()))
            if kind == "delete" and not self.kept:
                kind = "upload"
            try:
                act = self._change if kind in ("upload", "delete") else self._read
                problem = await act(kind, connection)
            except OSError as error:
                self.lost.append(f"{kind}: {error}")
                return
            self.asked[kind] += 1
            if problem:
                self.wrong.append(problem)

    async def watch(self, process: psutil.Process) -> None:
        """Read the memory twice per second, until the task is cancelled."""
        while True:
            self.memory.append((self.answered, await asyncio.to_thread(pss, process)))
            await asyncio.sleep(0.5)

    async def _read(self, kind: str, connection: Connection) -> str:
        sent = self._chance.choice(self.expected.of[kind])
        answer = await connection.ask(sent.content)
        return "" if answer.status == 200 and sent.check(answer) else _shown(kind, sent.content, answer)

    async def _change(self, kind: str, connection: Connection) -> str:
        if kind == "upload":
            number = self._chance.randrange(len(self.expected.files))
            answer = await connection.ask(upload(self.expected.files[number], f"{number}.png"))
            if answer.status == 202:
                self.kept[answer.json()["document_id"]] = number
            return "" if answer.status == 202 else _shown(kind, b"", answer)
        document = self._chance.choice(list(self.kept))
        del self.kept[document]
        answer = await connection.ask(request("DELETE", f"/v1/documents/{quote(document, safe='')}"))
        return "" if answer.status == 200 and answer.json()["removed"] <= 1 else _shown(kind, document.encode(), answer)

    async def check_end(self, address: Address, base: set[str]) -> None:
        """Wait for the jobs, and compare all that is left with what should be."""
        until = time.monotonic() + 600
        while any(one["state"] == "queued" or one["state"] == "running" for one in await listed(address, "jobs")):
            if time.monotonic() > until:
                self.lost.append("jobs that have not ended within 600 s")
                break
            await asyncio.sleep(0.5)
        self.lost += [f"job: {one['error']}" for one in await listed(address, "jobs") if one["state"] == "failed"]
        there = {str(one["document_id"]): one["pages"] for one in await listed(address, "documents")}
        should = dict.fromkeys(self.kept, 1)
        self.lost += [f"document {one}" for one in should.keys() - there.keys()]
        self.wrong += [f"document {one} is there" for one in there.keys() - should.keys() - base]
        async with connected(address) as connection:
            for document, number in self.kept.items():
                body = {"query": self.expected.texts[number], "hybrid": False, "filter": {"document_id": document}}
                hits = (await connection.ask(post("/v1/search", body))).json()["hits"]
                scores = [hit["max_sim"] for hit in hits]
                if len(scores) != 1 or abs(scores[0] - self.expected.scores[number]) > 1e-3 * abs(scores[0]):
                    self.wrong.append(f"{document}: {scores}, expected {self.expected.scores[number]}")


def _shown(kind: str, content: bytes, answer: Answer) -> str:
    return f"{kind}: {content[-200:]!r}: {answer.status} {answer.body[:300]!r}"


async def run(process: psutil.Process, address: Address, made: Run, clients: int, base: set[str]) -> tuple[float, int]:
    """The seconds of all requests, and how many were sent again after 429 or 503."""
    watch = asyncio.create_task(made.watch(process))
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(address)) for _ in range(clients)]
        began = time.monotonic()
        await asyncio.gather(*map(made.client, connections))
        seconds = time.monotonic() - began
    watch.cancel()
    await made.check_end(address, base)
    return seconds, sum(one.retries for one in connections)


def growth(memory: list[tuple[int, int]], requests: int) -> str:
    """Memory of the last tenth against that after the first 1,000 requests."""
    begin = min(1000, requests // 4)
    first = [size for number, size in memory if begin <= number <= begin + requests // 10]
    last = [size for number, size in memory if number >= requests - requests // 10]
    if not first or not last:
        return "too few readings"
    mib = median(first) / 2**20, median(last) / 2**20
    return f"{mib[0]:.0f} MiB after {begin:,}, {mib[1]:.0f} MiB at the end: {mib[1] / mib[0]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=100)
    options = parser.parse_args()
    print(describe(), "\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        with ColPali.from_pretrained() as model:
            index_documents(list(BASE), model=model, store=folder, metadata={"base": True})
            with MultiVectorStore.open(folder, model=model, read_only=True) as store:
                made, base = Run(Expected(model, store), options.requests), set(store.documents())
        with server(folder, "--root", str(PDFS)) as (process, address):
            seconds, retries = asyncio.run(run(psutil.Process(process.pid), address, made, options.clients, base))
            process.terminate()
            process.wait(60)
        with MultiVectorStore.open(folder, model="coltiny", read_only=True) as store:
            sound = store.verify().ok
    print(json.dumps(made.asked), f"in {seconds:.0f} s, {retries} sent again after 429 or 503")
    print(f"wrong: {len(made.wrong)}, lost: {len(made.lost)}, index sound: {'yes' if sound else 'NO'}")
    print("memory:", growth(made.memory, options.requests))
    print(*made.wrong[:5], *made.lost[:5], sep="\n")
    if made.wrong or made.lost or not sound:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
