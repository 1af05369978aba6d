"""A folder of 100,000 pages of ColTiny: search in two stages, opening, and memory.

From the repository's root::

    python -m benchmarks.large encode                    # 4,000 pages and 400 questions, 6 minutes
    python -m benchmarks.large build [--pages 100000]    # 5 minutes, 5 GB in benchmarks/work/large
    python -m benchmarks.large measure [--queries 100]   # -> results/large.md

The encoded pages hold text of the documentation strings of Python's library and of installed packages. Each of the
100,000 pages is put together from runs of 8 to 30 neighbouring vectors of such pages, with noise of a twentieth of
their length, so no two pages are alike; their mean number of vectors is that of ColTiny's pages of manuals. Questions
are 3 to 10 neighbouring words of the encoded pages, encoded by ColTiny.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from colpali_integrations import ColPali, MultiVectorStore
from colpali_integrations.stores import Entry

FOLDER = Path(__file__).parent / "work" / "large"
VECTORS, STORE = FOLDER / "vectors.npz", FOLDER / "store"
K, BATCH = 10, 256
MEAN = 175  # vectors per page
CANDIDATES = (0, 8_000, 20_000)  # 0: the default


def texts() -> Iterator[list[str]]:
    """Words of a page each, at most three pages per file."""
    random = Random(0)
    places = [Path(json.__file__).parents[1], Path(np.__file__).parents[1]]
    files = sorted(file for place in places for file in place.rglob("*.py") if 3_000 < file.stat().st_size < 400_000)
    random.shuffle(files)
    for file in files:
        strings = re.findall(r'"""(.*?)"""', file.read_text("utf-8", "ignore"), re.DOTALL)
        words = re.sub(r"[^\x20-\x7e]", " ", " ".join(one for one in strings if len(one) > 200)).split()
        size = random.choice([70, 120, 180, 250, 320])
        for start in range(0, min(len(words) - 60, 3 * size), size):
            yield words[start : start + size]


def drawn(words: list[str], random: Random) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (850, 1100), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(random.choice([14, 16, 18]))
    line, y = "", 60.0
    for word in [*words, ""]:
        if not word or pen.textlength(f"{line} {word}", font) > 730:
            pen.text((60, y), line, "black", font)
            line, y = "", y + 24
        line = f"{line} {word[:40]}".strip()
    return image


def encode(pages: int = 4_000) -> None:
    random, chosen = Random(1), []
    for words in texts():
        chosen.append(words)
        if len(chosen) == pages:
            break
    asked = []
    for words in random.sample(chosen, 400):
        size = random.choice([3, 4, 5, 6, 8, 10])
        start = random.randrange(len(words) - size)
        asked.append(" ".join(words[start : start + size]))
    with ColPali.from_pretrained("coltiny") as model:
        queries = list(model.embed_queries(asked))
        made = [page.astype(np.float16) for page in model.embed_images(drawn(words, random) for words in chosen)]
    FOLDER.mkdir(parents=True, exist_ok=True)
    arrays = {"pages": made, "queries": queries}
    np.savez(
        VECTORS,
        **{name: np.concatenate(one) for name, one in arrays.items()},
        **{f"{name}_lengths": np.array([len(page) for page in one]) for name, one in arrays.items()},
    )
    print(f"{len(made)} pages of {np.mean([len(page) for page in made]):.0f} vectors")


def encoded(name: str) -> list[NDArray[Any]]:
    with np.load(VECTORS) as arrays:
        rows, lengths = arrays[name], arrays[f"{name}_lengths"]
    return np.split(rows, np.cumsum(lengths)[:-1])


def page(number: int, sources: list[NDArray[np.float16]], longer: float) -> NDArray[np.float32]:
    random = np.random.default_rng(number)
    missing, parts = round(longer * len(sources[random.integers(len(sources))])), []
    while missing > 0:
        source = sources[random.integers(len(sources))]
        size = min(int(random.integers(8, 31)), missing, len(source))
        start = random.integers(0, len(source) - size + 1)
        parts.append(source[start : start + size])
        missing -= size
    rows = np.concatenate(parts).astype(np.float32)
    noise = random.normal(size=rows.shape).astype(np.float32) / np.sqrt(rows.shape[1])
    return rows + 0.05 * np.linalg.norm(rows, axis=1, keepdims=True) * noise


def build(pages: int) -> None:
    sources = encoded("pages")
    longer = MEAN / float(np.mean([len(one) for one in sources]))
    began, spent = time.perf_counter(), 0.0
    with ColPali.from_pretrained("coltiny", lazy_load=True) as model:
        store = MultiVectorStore.open(STORE, model=model, first_stage="centroids")
    with store:
        for first in range(len(store), pages, BATCH):
            batch = [
                (Entry(id=str(one), metadata={"page": one, "source": f"{one // 50}.pdf"}), page(one, sources, longer))
                for one in range(first, min(first + BATCH, pages))
            ]
            started = time.perf_counter()
            store.add(batch)
            spent += time.perf_counter() - started
            if first // BATCH % 40 == 0:
                took = f"{time.perf_counter() - began:.0f} s, {spent:.0f} s of them to add"
                print(f"{len(store)} pages, {took}", flush=True)


def measure(queries: int) -> None:
    asked = encoded("queries")[:queries]
    opening = [json.loads(in_process("opened")) for _ in range(5)]
    with MultiVectorStore.open(STORE) as store:
        pages = len(store)
        vectors = sum(len(one) for one in store.vectors([str(number) for number in range(0, 2000)]) if one is not None)
        ways: dict[str, dict[str, Any]] = {"exact": {"mode": "exact"}}
        for count in CANDIDATES:
            name = f"two stages, {count:,} candidates" if count else "two stages"
            ways[name] = {"mode": "two_stage", **({"oversampling": count / K} if count else {})}
        for way in ways.values():
            store.search(asked[0], K, **way)
        times: dict[str, list[float]] = {name: [] for name in ways}
        shares: dict[str, list[float]] = {name: [] for name in ways}
        first_places: dict[str, list[bool]] = {name: [] for name in ways}
        for query in asked:
            answers = {}
            for name, way in ways.items():
                started = time.perf_counter()
                answers[name] = [hit.id for hit in store.search(query, K, **way)]
                times[name].append(time.perf_counter() - started)
            for name, found in answers.items():
                shares[name].append(len(set(found) & set(answers["exact"])) / K)
                first_places[name].append(found[:1] == answers["exact"][:1])
    size = sum(file.stat().st_size for file in STORE.iterdir())
    index = sum(file.stat().st_size for file in STORE.glob("centroids-*"))
    rows = [
        (
            name,
            machine.spread(times[name], unit=1000, digits=0),
            f"{np.mean(shares[name]):.3f} +- {1.96 * np.std(shares[name]) / len(asked) ** 0.5:.3f}",
            f"{np.mean(first_places[name]):.2f}",
        )
        for name in ways
    ]
    text = [
        f"# Two stages in {pages:,} pages of ColTiny",
        f"`python -m benchmarks.large encode`, then `build --pages {pages}` and `measure --queries {queries}`",
        machine.describe(),
        f'{pages:,} pages of {vectors / 2000:.0f} x 128 in a folder with `first_stage="centroids"`; {len(asked)} '
        f"questions of {np.mean([len(query) for query in asked]):.1f} vectors, {K} hits with their payloads, files in "
        "the system's cache. The mean and its 95 % interval over questions.",
        machine.table(("search", "ms", "recall@10 of exact", "first place kept"), rows),
        f"A new process opens the store in {median(one['open'] for one in opening):.2f} s, and has its first answer "
        f"{median(one['first'] for one in opening):.2f} s later. Its own memory after 20 questions is "
        f"{median(one['memory'] for one in opening):,.0f} MiB, Python, numpy and onnxruntime included, of which "
        f"{median(one['before'] for one in opening):,.0f} MiB were there before it opened the store (5 processes).",
        f"On disk: {size / 2**30:.2f} GiB, of which the index of centroids {index / 2**20:,.0f} MiB.",
    ]
    machine.write("large.md", "\n\n".join(text))


def opened() -> None:
    asked = encoded("queries")[:20]
    with MultiVectorStore.open(model=ColPali.from_pretrained("coltiny", lazy_load=True)) as memory:
        memory.search(asked[0], K)
    figures = {"before": own_memory()}
    started = time.perf_counter()
    with MultiVectorStore.open(STORE) as store:
        len(store)
        figures["open"] = time.perf_counter() - started
        store.search(asked[0], K)
        figures["first"] = time.perf_counter() - started - figures["open"]
        for query in asked:
            store.search(query, K)
        figures["memory"] = own_memory()
    print(json.dumps(figures))


def own_memory() -> float:
    """MiB of this process that belong to no file."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("RssAnon:"))


def in_process(command: Literal["opened"]) -> str:
    arguments = [sys.executable, "-m", "benchmarks.large", command]
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["encode", "build", "measure", "opened"])
    parser.add_argument("--pages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    options = parser.parse_args()
    if options.command == "encode":
        encode()
    elif options.command == "build":
        build(options.pages)
    elif options.command == "measure":
        measure(options.queries)
    else:
        opened()


if __name__ == "__main__":
    main()
