"""The HTTP server: what it adds to a question, 32 clients at once, and uploads while it is killed.

    python -m benchmarks.server overhead    # one question, over HTTP and in the process, in turns
    python -m benchmarks.server clients     # 32 clients in a closed loop, and one client alone
    python -m benchmarks.server killed      # kill -9 during uploads, 20 times; then every accepted page is looked for

The server is a process of its own, started by the command, with an index of 12 pages. All connections go to 127.0.0.1.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import describe
from colpali_integrations import ColPali
from colpali_integrations.stores import MultiVectorStore, index_documents

PDF = Path(__file__).parents[1] / "demo" / "pdfs" / "hcl-colors.pdf"
QUESTIONS = ("diverging palettes", "seats in a parliament", "colour blindness and contrast", "how are hues chosen")


@contextmanager
def server(store: Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """The server's process, its host and its port."""
    command = [sys.executable, "-m", "colpali_integrations.cli", "serve", "--store", str(store), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}) as process:
        assert process.stderr is not None
        text = ""
        while "Ask: curl" not in text:
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server has not started:\n{text}")
            text += line
        threading.Thread(target=process.stderr.read, daemon=True).start()
        found = re.search(r"at http://(.*):(\d+);", text)
        assert found is not None
        try:
            yield process, found[1], int(found[2])
        finally:
            process.kill()


def post(connection: http.client.HTTPConnection, path: str, body: Any) -> Any:
    """A request with JSON, and its answer."""
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {content}")
    return content


def milliseconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def overhead(folder: Path, rounds: int) -> None:
    """Alternate between both ways, so that the machine's other work meets both."""
    with (
        server(folder) as (_, host, port),
        ColPali.from_pretrained() as model,
        MultiVectorStore.open(folder, model=model, read_only=True) as store,
    ):
        connection = http.client.HTTPConnection(host, port)
        inside, over_http = [], []
        for number in range(-20, rounds):
            question = QUESTIONS[number % len(QUESTIONS)]
            first = milliseconds(lambda: store.search(question, 5))  # noqa: B023
            second = milliseconds(lambda: post(connection, "/v1/search", {"query": question, "k": 5}))  # noqa: B023
            if number >= 0:
                inside.append(first)
                over_http.append(second)
        connection.close()
    added = [two - one for one, two in zip(inside, over_http, strict=True)]
    print("| a question of ColTiny, milliseconds | median | fastest |\n|---|---:|---:|")
    print(f"| in the process | {median(inside):.2f} | {min(inside):.2f} |")
    print(f"| over HTTP | {median(over_http):.2f} | {min(over_http):.2f} |")
    print(f"| added, per pair | {median(added):.2f} | |")


def loop(host: str, port: int, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Rate and sorted milliseconds of clients that each send a question as soon as they have the last answer."""
    times: list[float] = []
    until = time.perf_counter() + seconds

    def ask(client: int) -> None:
        connection = http.client.HTTPConnection(host, port)
        number = client
        while time.perf_counter() < until:
            body = {"query": QUESTIONS[number % len(QUESTIONS)], "k": 5}
            times.append(milliseconds(lambda: post(connection, "/v1/search", body)))  # noqa: B023
            number += 1
        connection.close()

    began = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(times) / (time.perf_counter() - began), sorted(times)


def clients(folder: Path, seconds: float) -> None:
    with server(folder) as (_, host, port):
        loop(host, port, 1, 1.0)
        print("| clients | questions per second | p50 ms | p99 ms | 32 / rate, ms |\n|---:|---:|---:|---:|---:|")
        for number in (1, 32, 1, 32):
            rate, times = loop(host, port, number, seconds)
            p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
            print(f"| {number} | {rate:.0f} | {p50:.1f} | {p99:.1f} | {number / rate * 1000:.1f} |")
        connection = http.client.HTTPConnection(host, port)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        print(*(line for line in lines if line.startswith("colpali_questions_together_")), sep="\n")


def upload(host: str, port: int, content: bytes) -> str | None:
    """The document's id once the server has accepted the file; None where it was killed before."""
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
    connection = http.client.HTTPConnection(host, port, timeout=30)
    with suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/v1/documents", body, {"Content-Type": f"multipart/form-data; boundary={mark}"})
        answer = connection.getresponse()
        if answer.status == 202:
            return str(json.loads(answer.read())["document_id"])
    return None


def killed(folder: Path, kills: int) -> None:
    content, accepted, cut, pages = PDF.read_bytes(), [], 0, 12
    for number in range(kills):
        with server(folder) as (process, host, port):
            timer = threading.Timer(0.5 + number * 0.15, process.kill)
            timer.start()
            while process.poll() is None:
                # Other bytes each time, so that every upload is encoded.
                document = upload(host, port, content + f"\n% {number} {uuid.uuid4()}\n".encode())
                if document is None:
                    cut += 1
                    break
                accepted.append(document)
            timer.join()
    with server(folder) as (process, host, port):
        connection = http.client.HTTPConnection(host, port)
        until = time.monotonic() + 600
        while time.monotonic() < until:
            connection.request("GET", "/v1/documents")
            documents = json.loads(connection.getresponse().read())["documents"]
            listed = {one["document_id"]: one["pages"] for one in documents}
            if all(listed.get(document) == pages for document in accepted):
                break
            time.sleep(0.5)
        process.terminate()
        process.wait(60)
    lost = [document for document in accepted if listed.get(document) != pages]
    with MultiVectorStore.open(folder, model="coltiny", read_only=True) as store:
        sound = store.verify().ok
    print("| kills | uploads accepted | ended by a kill | accepted and lost | index sound |\n|---:|---:|---:|---:|---|")
    print(f"| {kills} | {len(accepted)} | {cut} | {len(lost)} | {'yes' if sound else 'NO'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "clients", "killed"])
    parser.add_argument("--rounds", type=int, default=300, help="of questions")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each closed loop")
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    print(describe(), "\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        if arguments.what != "killed":
            with ColPali.from_pretrained() as model:
                index_documents(PDF, model=model, store=folder)
        if arguments.what == "overhead":
            overhead(folder, arguments.rounds)
        elif arguments.what == "clients":
            clients(folder, arguments.seconds)
        else:
            killed(folder, arguments.kills)


if __name__ == "__main__":
    main()
