"""The bytes of whole stores, by datatype and pooling, and the share of the exact ten best pages that they find.

From the repository's root, after `python -m benchmarks.codes coltiny --fetch`::

    python -m benchmarks.compressed            # -> results/compressed.md

Two stores in folders: the test half of `benchmarks/coltiny_set` as `index_documents` makes it, with texts, words and
grids, and pages of `benchmarks.stores_data` with a grid and a name each, without a text. `compress_store` compresses a
copy in each way. Bytes are those of all files of the closed store, per vector that the model made; there is no sidecar.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.codes import GENERATED, TOP, WORK, coltiny, generated
from benchmarks.coltiny_set import documents, read
from colpali_integrations import ColPali, MultiVectorStore, max_sim
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.models import find_model
from colpali_integrations.stores import Entry, compress_store, index_documents
from colpali_integrations.stores.settings import BITS

Float = NDArray[np.float32]
WAYS: list[dict[str, Any]] = [{"datatype": name} for name in BITS if name != "float16"]
WAYS += [{"datatype": name, "pool_factor": factor} for name, factor in (("int8", 2), ("int4", 2), ("int4", 3))]


def real(folder: Path) -> list[Float]:
    """Index the documents of the test half; the questions."""
    with (
        tempfile.TemporaryDirectory() as place,
        ColPali.from_pretrained("coltiny") as model,
        MultiVectorStore.open(folder, model=model) as store,
    ):
        for one in documents():
            if one.half == "test":
                file = Path(place) / f"{one.name}.pdf"
                file.write_bytes(read(one))
                index_documents([file], model=model, store=store, pages=range(one.first, one.last + 1))
        store.optimize()
    return coltiny(download=False).queries


def made(folder: Path) -> list[Float]:
    """Store generated pages; the questions."""
    data, side = generated(), GENERATED.side
    cells = np.append(np.arange(side * side), np.full(GENERATED.vectors - side * side, -1))
    grid = PageGrid(side, side, cells)
    with MultiVectorStore.open(folder, model=find_model("Qdrant/colpali-v1.3-fp16"), first_stage="exact") as store:
        store.add(
            (Entry(id=f"page {number}", metadata={"source": "made.pdf", "page": number + 1}, grid=grid), page)
            for number, page in enumerate(data.pages(data.rows))
        )
        store.optimize()
    return data.queries


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def parts(folder: Path) -> Iterator[tuple[str, int]]:
    """Bytes of the vectors, and of the columns and tables of the database."""
    yield "files of vectors", sum(file.stat().st_size for file in folder.glob("*.block"))
    yield "database", (folder / "store.db").stat().st_size
    with closing(sqlite3.connect(folder / "store.db")) as connection:
        for column in ("metadata", "rest", "words"):
            query = f"SELECT sum(length(CAST({column} AS BLOB))) FROM entries"
            yield f"its column {column}", int(connection.execute(query).fetchone()[0] or 0)
        names = "length(id) + length(ifnull(document, '')) + length(ifnull(content, ''))"
        yield (
            "its ids and hashes, twice",
            2 * int(connection.execute(f"SELECT sum({names}) FROM entries").fetchone()[0]),
        )
        yield "its rows of words", int(connection.execute("SELECT count(*) FROM words").fetchone()[0])


def exact(queries: list[Float], pages: dict[str, Float]) -> NDArray[Any]:
    return np.stack([max_sim(query, list(pages.values())) for query in queries])


def overlap(store: MultiVectorStore, queries: list[Float], ids: list[str], truth: NDArray[Any]) -> tuple[float, float]:
    """The share of the exact best ten that is found, and the median milliseconds of a search."""
    shares, times = [], []
    for query, scores in zip(queries, truth, strict=True):
        right = dict(zip(ids, scores.tolist(), strict=True))
        lowest, started = np.sort(scores)[-TOP], time.perf_counter()
        hits = store.search(query, TOP, mode="exact")
        times.append(time.perf_counter() - started)
        shares.append(np.mean([right[hit.id] >= lowest for hit in hits]))
    return float(np.mean(shares)), 1e3 * median(times)


def measured(name: str, folder: Path, queries: list[Float]) -> list[tuple[str, ...]]:
    with MultiVectorStore.open(folder) as store:
        ids = [entry.id for entry in store.scroll()]
        pages = {id_: one for id_, one in zip(ids, store.vectors(ids), strict=True) if one is not None}
    truth, vectors = exact(queries, pages), sum(map(len, pages.values()))
    rows = []
    for way in [{}, *WAYS]:
        place = folder.with_name("copy")
        shutil.copytree(folder, place)
        if way:
            compress_store(place, delete_old=True, **way)
        with MultiVectorStore.open(place) as store:
            share, milliseconds = overlap(store, queries, list(pages), truth)
        sizes = dict(parts(place))
        total, blocks = size_of(place) / vectors, sizes["files of vectors"] / vectors
        label = f"{way.get('datatype', 'float16')}, pool factor {way.get('pool_factor', 1)}"
        rows.append((label, f"{total:.1f}", f"{blocks:.1f}", f"{share:.3f}", f"{milliseconds:.1f}"))
        print(name, *rows[-1], {key: round(one / vectors, 2) for key, one in sizes.items()}, flush=True)
        shutil.rmtree(place)
    return rows


def main() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    text = ["# Whole stores, compressed", "`python -m benchmarks.compressed`", machine.describe()]
    head = ("way", "bytes per vector, all files", "of them files of vectors", "overlap@10 of exact", "ms per search")
    with tempfile.TemporaryDirectory(dir=WORK) as place:
        for name, make in (("ColTiny's test pages", real), ("generated pages", made)):
            folder = Path(place) / make.__name__ / "store"
            folder.parent.mkdir()
            queries = make(folder)
            rows = measured(name, folder, queries)
            split = ", ".join(f"{key} {one:,}" for key, one in parts(folder))
            text += [f"## {name}", machine.table(head, rows), f"Of the float16 store, in bytes and rows: {split}."]
    machine.write("compressed.md", "\n\n".join(text))


if __name__ == "__main__":
    main()
