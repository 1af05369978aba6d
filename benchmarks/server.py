"""The HTTP server: what it adds to a question, 32 clients at once, and questions that come at random.

    python -m benchmarks.server overhead    # one question, over HTTP and in the process, in turns
    python -m benchmarks.server clients     # 32 clients in a closed loop, one client alone, and random arrivals

`--model benchmarks/work/colpali-quarter` takes the ColPali of a quarter of the real width, which
`python -m benchmarks.make_replica` makes. The server is a process of its own, started by the command, with an index of
12 pages. All connections go to 127.0.0.1. `benchmarks.server_mixed` and `benchmarks.server_kills` measure the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import describe
from benchmarks.queueing import Service, expected
from benchmarks.served import Address, connected, post, request, server
from colpali_integrations import ColPali
from colpali_integrations.stores import MultiVectorStore, index_documents

PDF = Path(__file__).parents[1] / "demo" / "pdfs" / "hcl-colors.pdf"
QUESTIONS = ("diverging palettes", "seats in a parliament", "colour blindness and contrast", "how are hues chosen")
REQUESTS = tuple(post("/v1/search", {"query": question, "k": 5}) for question in QUESTIONS)
CLIENTS = 32


def milliseconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def over_http(connection: http.client.HTTPConnection, question: str) -> None:
    body = json.dumps({"query": question, "k": 5})
    connection.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {answer.read()!r}")
    json.loads(answer.read())


def overhead(folder: Path, model: str, rounds: int) -> None:
    """Alternate between both ways, so that the machine's other work meets both."""
    with (
        server(folder, model=model) as (_, address),
        ColPali.from_pretrained(model) as encoder,
        MultiVectorStore.open(folder, model=encoder, read_only=True) as store,
    ):
        connection = http.client.HTTPConnection(*address)
        inside, outside = [], []
        for number in range(-20, rounds):
            question = QUESTIONS[number % len(QUESTIONS)]
            first = milliseconds(lambda: store.search(question, 5))  # noqa: B023
            second = milliseconds(lambda: over_http(connection, question))  # noqa: B023
            if number >= 0:
                inside.append(first)
                outside.append(second)
        connection.close()
    added = [two - one for one, two in zip(inside, outside, strict=True)]
    print("| one question, milliseconds | median | fastest |\n|---|---:|---:|")
    print(f"| in the process | {median(inside):.2f} | {min(inside):.2f} |")
    print(f"| over HTTP | {median(outside):.2f} | {min(outside):.2f} |")
    print(f"| added, per pair | {median(added):.2f} | |")


async def loop(address: Address, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Rate and sorted milliseconds of clients that each send a question as soon as they have the last answer."""
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def ask(number: int) -> None:
        async with connected(address) as connection:
            while (began := time.perf_counter()) < until:
                answer = await connection.send(REQUESTS[number % len(REQUESTS)])
                times.append((time.perf_counter() - began) * 1000)
                number += 1
                if answer.status != 200:
                    raise SystemExit(f"{answer.status}: {answer.body!r}")

    began = time.perf_counter()
    await asyncio.gather(*map(ask, range(clients)))
    return len(times) / (time.perf_counter() - began), sorted(times)


async def arrivals(address: Address, rate: float, seconds: float) -> list[float]:
    """Sorted milliseconds of questions that come at random times, so many per second in the mean."""
    times: list[float] = []
    free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
    chance = random.Random(5)

    async def ask(came: float, number: int) -> None:
        connection = await free.get()
        await connection.send(REQUESTS[number % len(REQUESTS)])
        times.append((time.perf_counter() - came) * 1000)
        free.put_nowait(connection)

    async with AsyncExitStack() as stack:
        for _ in range(4 * CLIENTS):
            free.put_nowait(await stack.enter_async_context(connected(address)))
        asked: list[asyncio.Task[None]] = []
        begin = came = time.perf_counter()
        while came < begin + seconds:
            await asyncio.sleep(max(0.0, came - time.perf_counter()))
            asked.append(asyncio.create_task(ask(came, len(asked))))
            came += chance.expovariate(rate)
        await asyncio.gather(*asked)
    return sorted(times)


def clients(folder: Path, model: str, seconds: float, rounds: int) -> None:
    """One client, 32 of them and random arrivals, in turns with a server that answers questions one by one."""
    print(
        "| | per second | p50 ms | p99 ms | p50 / (clients / rate) | p99 / p50 |\n|---|---:|---:|---:|---:|---:|",
        flush=True,
    )
    rates: dict[str, list[float]] = {}
    together: list[float] = []

    def row(name: str, number: float, rate: float, times: list[float]) -> None:
        p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
        share = f"{p50 / (number / rate * 1000):.2f}" if number else ""
        print(f"| {name} | {rate:.0f} | {p50:.1f} | {p99:.1f} | {share} | {p99 / p50:.2f} |", flush=True)
        rates.setdefault(name, []).append(rate)

    other = shutil.copytree(folder, folder.with_name("copy"))  # a store has one server
    with server(folder, model=model) as (_, address), server(other, model=model, together=False) as (_, one_by_one):
        for each in (address, one_by_one):
            asyncio.run(loop(each, CLIENTS, 1.0))
        for _ in range(rounds):
            lone, times = asyncio.run(loop(address, 1, seconds))
            middle = median(times)
            row("1 client", 1, lone, times)
            before = asyncio.run(runs_and_questions(address))
            rate, times = asyncio.run(loop(address, CLIENTS, seconds))
            after = asyncio.run(runs_and_questions(address))
            together.append((after[1] - before[1]) / (after[0] - before[0]))
            row(f"{CLIENTS} clients", CLIENTS, rate, times)
            row(f"{CLIENTS} clients, one by one", CLIENTS, *asyncio.run(loop(one_by_one, CLIENTS, seconds)))
            times = asyncio.run(arrivals(address, rate / 2, seconds))
            row("random arrivals at half of that rate", 0, len(times) / seconds, times)
            service = Service.of(1000 / lone, rate / 1000, together[-1])
            print(
                f"| their median against that of one client: {median(times) / middle:.2f}; by benchmarks.queueing: "
                f"{expected(service, rate / 1000):.2f} | | | | | |",
                flush=True,
            )
    gain = median(rates[f"{CLIENTS} clients"]) / median(rates[f"{CLIENTS} clients, one by one"])
    print(f"\nQuestions per run of {CLIENTS} clients: {median(together):.1f}. Rate against one by one: {gain:.2f}.")


async def runs_and_questions(address: Address) -> tuple[float, float]:
    async with connected(address) as connection:
        text = (await connection.send(request("GET", "/metrics"))).body.decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("colpali_questions_together_"))
    return float(values["colpali_questions_together_count"]), float(values["colpali_questions_together_sum"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "clients"])
    parser.add_argument("--model", default="coltiny", help="a name or a folder")
    parser.add_argument("--questions", type=int, default=300, help="of overhead")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(describe(), "\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        with ColPali.from_pretrained(arguments.model) as model:
            index_documents(PDF, model=model, store=folder)
        if arguments.what == "overhead":
            overhead(folder, arguments.model, arguments.questions)
        else:
            clients(folder, arguments.model, arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
