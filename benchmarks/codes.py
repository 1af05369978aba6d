"""How few bytes per vector keep the ten best pages: scalar codes, residuals, product codes, pooling, and a bound.

From the repository's root, on Debian 12 (the documents' packages come by apt-get)::

    python -m benchmarks.codes coltiny [--fetch]      # pages of the test half of `benchmarks/coltiny_set`
    python -m benchmarks.codes generated              # 1,000 pages of 400 x 128 of `benchmarks.stores_data`

-> results/codes-coltiny.md, results/codes-generated.md. Everything is numpy: each code restores the vectors that a
store would compare, and MaxSim runs over them with questions in float32. The measure is the share of the exact best ten
(float32) among the best ten; of pages with equal scores any counts. Bytes are those of the codes alone, per vector that
the model made, with what a page or a codebook costs; `benchmarks.compressed` measures whole stores.

The rows "Gaussian bound" are no code: they add to each vector the error that an ideal code for a Gaussian source of the
same covariance has at that rate (reverse water-filling; Cover and Thomas, Elements of Information Theory, 10.3).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.stores_data import BLANK, Corpus
from colpali_integrations.scoring._kernels import products
from colpali_integrations.scoring.centroids import _codes, _train
from colpali_integrations.scoring.maxsim import max_sim

Float = NDArray[np.float32]
WORK = Path(__file__).parent / "work" / "codes"
GENERATED, QUERIES, TOP = Corpus(1_000, 400), 50, 10
FACTORS = (2, 3, 4, 6, 10)
PART = 1 << 15  # rows at a time


@dataclass(frozen=True)
class Data:
    """Pages and questions.

    Attributes:
        rows: the vectors of all pages, float32 (n, dim).
        lengths: vectors per page.
        queries: float32 (n, dim) each.
        unit: whether vectors have length 1.
        printed: per vector, whether its patch has print; None where all have.
    """

    rows: Float
    lengths: NDArray[np.int64]
    queries: list[Float]
    unit: bool
    printed: NDArray[np.bool_] | None = None

    def pages(self, rows: Float, lengths: NDArray[np.int64] | None = None) -> list[Float]:
        return np.split(rows, np.cumsum(self.lengths if lengths is None else lengths)[:-1])


def generated() -> Data:
    pages = [GENERATED.page(number).astype(np.float32) for number in range(GENERATED.pages)]
    side = GENERATED.side
    printed = [
        np.append(GENERATED.layout(number).reshape(-1) != BLANK, np.ones(GENERATED.vectors - side * side, bool))
        for number in range(GENERATED.pages)
    ]
    queries = [GENERATED.query(number) for number in range(QUERIES)]
    return Data(np.concatenate(pages), np.array([*map(len, pages)]), queries, True, np.concatenate(printed))


def coltiny(*, download: bool) -> Data:
    from benchmarks.coltiny_set import fetch, load, questions
    from colpali_integrations import ColPali

    kept = WORK / "coltiny.npz"
    if not kept.exists():
        if download:
            fetch()
        pages = [page for page in load() if page.document.half == "test"]
        names = {page.document.name for page in pages}
        with ColPali.from_pretrained("coltiny") as model:
            made = list(model.embed_images(page.image for page in pages))
            asked = list(model.embed_queries([one.text for one in questions() if one.document in names]))
        WORK.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.concatenate(several) for name, several in (("pages", made), ("queries", asked))}
        lengths = {f"{name}_lengths": [*map(len, several)] for name, several in (("pages", made), ("queries", asked))}
        np.savez(kept, **arrays, **lengths)  # type: ignore[arg-type]
    with np.load(kept) as arrays:
        queries = np.split(arrays["queries"], np.cumsum(arrays["queries_lengths"])[:-1])
        return Data(arrays["pages"], arrays["pages_lengths"], queries, False)


# -- codes: each restores the vectors, and tells its bytes per vector --------------------------------------------------


def parts(rows: Float) -> Iterator[slice]:
    return (slice(start, start + PART) for start in range(0, len(rows), PART))


def rotation(dim: int) -> Float:
    return np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0].astype(np.float32)


def grid(rows: Float, bits: int, *, unbiased: bool) -> Float:
    """Odd integers of `bits` bits times a scale per vector: the scale whose integers point nearest to the vector."""
    top = (1 << bits) - 1
    made = np.empty_like(rows)
    for part in parts(rows):
        some = rows[part]
        peak = np.abs(some).max(axis=1, keepdims=True) / top
        best, levels = np.full(len(some), -np.inf), np.ones_like(some)
        for share in (1.0,) if bits == 1 else np.linspace(0.4, 1.1, 8, dtype=np.float32):
            unit = np.where(peak > 0, share * peak, 1)
            tried = np.clip(2 * np.floor(some / (2 * unit)) + 1, -top, top)
            cosine = (some * tried).sum(axis=1) / np.linalg.norm(tried, axis=1)
            better = cosine > best
            best, levels = np.where(better, cosine, best), np.where(better[:, None], tried, levels)
        along = (some * levels).sum(axis=1)
        over = (some * some).sum(axis=1) / np.where(along > 0, along, 1)
        scale = over if unbiased else along / (levels * levels).sum(axis=1)
        made[part] = levels * scale.astype(np.float16).astype(np.float32)[:, None]
    return made


def centres(data: Data, rows: Float, lengths: NDArray[np.int64]) -> Float:
    means = np.stack([page.mean(axis=0) for page in data.pages(rows, lengths)])
    return np.repeat(means.astype(np.float16).astype(np.float32), lengths, axis=0)


@dataclass(frozen=True)
class Scalar:
    """A scalar code: `bits` per number, two bytes of scale per vector, and two per number of a page's centre."""

    bits: int
    centred: bool = True
    rotated: bool = True
    unbiased: bool = True

    def __call__(self, data: Data, rows: Float, lengths: NDArray[np.int64]) -> tuple[Float, float]:
        dim = rows.shape[1]
        middle = centres(data, rows, lengths) if self.centred else np.float32(0)
        turn = rotation(dim) if self.rotated else np.eye(dim, dtype=np.float32)
        turned: Float = (rows - middle) @ turn
        made = grid(turned, self.bits, unbiased=self.unbiased) @ turn.T + middle
        size = self.bits * dim / 8 + 2 + (2 * dim * len(lengths) / len(rows) if self.centred else 0)
        return made.astype(np.float32), size


@dataclass(frozen=True)
class Residual:
    """The number of a centroid, and a scalar code of the difference, as in ColBERTv2 and PLAID."""

    bits: int
    side: int

    def __call__(self, data: Data, rows: Float, lengths: NDArray[np.int64]) -> tuple[Float, float]:
        near, count = nearest(rows, self.side)
        dim, codebook = rows.shape[1], 2 * count * rows.shape[1] / len(rows)
        if not self.bits:
            return near, 2 + codebook
        turn = rotation(dim)
        made = grid((rows - near) @ turn, self.bits, unbiased=True) @ turn.T + near
        return made.astype(np.float32), 2 + self.bits * dim / 8 + 2 + codebook


def nearest(rows: Float, side: int) -> tuple[Float, int]:
    """The nearest of `side` x `side` centroids, and how many there are."""
    rng = np.random.default_rng(0)
    sample = rows[rng.permutation(len(rows))[: 16 * side * side]]
    coarse, fine = _train(sample, side, None, rng)
    points = np.concatenate(fine).astype(np.float16).astype(np.float32)
    return np.concatenate([points[_codes(rows[part], coarse, fine)] for part in parts(rows)]), len(points)


@dataclass(frozen=True)
class Product:
    """Product quantization: 256 centroids for each of `size` groups of numbers, after a rotation (OPQ's start)."""

    size: int

    def __call__(self, data: Data, rows: Float, lengths: NDArray[np.int64]) -> tuple[Float, float]:
        mean = rows.mean(axis=0)
        turn = balanced(rows - mean, self.size)
        turned = (rows - mean) @ turn
        made = np.empty_like(turned)
        for columns in np.array_split(np.arange(rows.shape[1]), self.size):
            made[:, columns] = of_book(turned[:, columns])
        return (made @ turn.T + mean).astype(np.float32), self.size + 256 * 2 * rows.shape[1] / len(rows)


def balanced(rows: Float, groups: int) -> Float:
    """Principal axes, dealt to groups so that the products of variances are alike (Ge et al. 2013, OPQ)."""
    values, axes = np.linalg.eigh(np.cov(rows[:: max(1, len(rows) // 50_000)].T))
    dealt: list[list[int]] = [[] for _ in range(groups)]
    room = [len(part) for part in np.array_split(np.arange(len(values)), groups)]
    totals = np.zeros(groups)
    for axis in np.argsort(-values):
        open_ = [group for group in range(groups) if len(dealt[group]) < room[group]]
        group = min(open_, key=lambda one: totals[one])
        dealt[group].append(int(axis))
        totals[group] += math.log(max(values[axis], 1e-12)) + 30
    return axes[:, [axis for group in dealt for axis in group]].astype(np.float32)


def of_book(rows: Float) -> Float:
    rng = np.random.default_rng(0)
    sample = np.ascontiguousarray(rows[rng.permutation(len(rows))[:40_000]])
    book = sample[:256].copy()
    for _ in range(12):
        codes = (products(sample, book) - (book * book).sum(axis=1) / 2).argmax(axis=1)
        used, counts = np.unique(codes, return_counts=True)
        sums = np.zeros_like(book)
        np.add.at(sums, codes, sample)
        book[used] = sums[used] / counts[:, None]
    halves = (book * book).sum(axis=1) / 2
    return np.concatenate(
        [book[(products(np.ascontiguousarray(rows[part]), book) - halves).argmax(axis=1)] for part in parts(rows)]
    )


@dataclass(frozen=True)
class Bound:
    """The Gaussian bound at a number of bytes, of the vectors or of their differences from the nearest centroid."""

    size: float
    side: int = 0

    def __call__(self, data: Data, rows: Float, lengths: NDArray[np.int64]) -> tuple[Float, float]:
        middle = nearest(rows, self.side)[0] if self.side else rows.mean(axis=0)
        rest = rows - middle
        values, axes = np.linalg.eigh(np.cov(rest[:: max(1, len(rest) // 50_000)].T))
        values = np.maximum(values, 1e-12)
        bits = 8 * (self.size - (math.log2(self.side**2) / 8 if self.side else 0))
        low, high = 1e-15, float(values.max())
        for _ in range(100):
            level = math.sqrt(low * high)
            spent = np.log2(values / np.minimum(level, values)).sum() / 2
            low, high = (level, high) if spent > bits else (low, level)
        kept = 1 - np.minimum(level, values) / values
        axes = axes.astype(np.float32)
        noise = np.random.default_rng(0).standard_normal(rest.shape, np.float32)
        noise *= np.sqrt(np.minimum(level, values) * kept).astype(np.float32)
        return ((rest @ axes * kept.astype(np.float32) + noise) @ axes.T + middle).astype(np.float32), self.size


# -- pooling -----------------------------------------------------------------------------------------------------------


def pooled(data: Data) -> dict[int, tuple[Float, NDArray[np.int64]]]:
    """By factor the means of `hierarchical_pool`, from one tree per page, and their numbers per page."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    means: dict[int, list[Float]] = {factor: [] for factor in FACTORS}
    for page in data.pages(data.rows):
        exact = page.astype(np.float64)
        tree = linkage(pdist(exact @ np.linalg.qr(exact)[1].T), method="ward") if len(page) > 1 else None
        for factor in FACTORS:
            target = max(1, len(page) // factor)
            if tree is None or target >= len(page):
                means[factor].append(page)
                continue
            labels = fcluster(tree, t=target, criterion="maxclust") - 1
            sums = np.zeros((labels.max() + 1, page.shape[1]), np.float32)
            np.add.at(sums, labels, page)
            rows: Float = sums / np.bincount(labels)[:, None].astype(np.float32)
            means[factor].append(rows / np.linalg.norm(rows, axis=1, keepdims=True) if data.unit else rows)
    return {
        factor: (np.concatenate(several).astype(np.float32), np.array([*map(len, several)]))
        for factor, several in means.items()
    }


# -- measuring ---------------------------------------------------------------------------------------------------------


def overlap(data: Data, exact: Float, pages: list[Float]) -> float:
    """The mean share of the exact best ten among the best ten; pages as good as the tenth are all right."""
    scores = np.stack([max_sim(query, pages) for query in data.queries])
    shares = []
    for right, found in zip(exact, scores, strict=True):
        best = np.argsort(-found, kind="stable")[:TOP]
        lowest = np.sort(right)[-TOP]
        shares.append((right[best] >= lowest).mean())
    return float(np.mean(shares))


Code = Callable[[Data, Float, NDArray[np.int64]], tuple[Float, float]]


def half(data: Data, rows: Float, lengths: NDArray[np.int64]) -> tuple[Float, float]:
    return rows.astype(np.float16).astype(np.float32), 2.0 * rows.shape[1]


def codes() -> dict[str, Code]:
    return {
        "float16": half,
        **{f"{bits} bits": Scalar(bits) for bits in (8, 4, 3, 2, 1)},
        "4 bits, no centre": Scalar(4, centred=False),
        "4 bits, not rotated": Scalar(4, rotated=False),
        "4 bits, nearest scale": Scalar(4, unbiased=False),
        "1 bit, no centre": Scalar(1, centred=False),
        "1 bit, not rotated": Scalar(1, rotated=False),
        "1 bit, nearest scale": Scalar(1, unbiased=False),
        "4,096 centroids": Residual(0, 64),
        "4,096 centroids + 1 bit": Residual(1, 64),
        "4,096 centroids + 2 bits": Residual(2, 64),
        "16,384 centroids + 1 bit": Residual(1, 128),
        "product, 16 bytes": Product(16),
        "product, 22 bytes": Product(22),
        "product, 32 bytes": Product(32),
        "product, 64 bytes": Product(64),
        "Gaussian bound, 22 bytes": Bound(22),
        "Gaussian bound, 22 bytes with centroids": Bound(22, 64),
        "Gaussian bound, 64 bytes": Bound(64),
    }


def measured(data: Data, chosen: list[str], kept: Path) -> list[tuple[str, float, float]]:
    """Name, bytes and overlap of the codes; those that an interrupted run has measured are read from `kept`."""
    exact = np.stack([max_sim(query, data.pages(data.rows)) for query in data.queries])
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    found: list[tuple[str, float, float]] = [tuple(json.loads(line)) for line in lines]
    known = {name for name, _, _ in found}

    def tell(name: str, code: Code, rows: Float, lengths: NDArray[np.int64]) -> None:
        if name in known or (chosen and not any(part in name for part in chosen)):
            return
        made, size = code(data, rows, lengths)
        size *= len(rows) / len(data.rows)
        found.append((name, size, overlap(data, exact, data.pages(made, lengths))))
        with kept.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(found[-1])}\n")
        print(f"{name:45} {size:7.1f} {found[-1][2]:.4f}", flush=True)

    for name, code in codes().items():
        tell(name, code, data.rows, data.lengths)
    if data.printed is not None:
        ends = np.cumsum(data.lengths)
        lengths = np.diff(np.cumsum(data.printed)[ends - 1], prepend=0)
        for bits in (16, 4, 2):
            code = half if bits == 16 else Scalar(bits)
            tell(f"patches with print alone, {bits} bits", code, data.rows[data.printed], lengths)
    for factor, (rows, lengths) in pooled(data).items():
        for bits in (16, 8, 4, 2):
            tell(f"pooled by {factor}, {bits} bits", half if bits == 16 else Scalar(bits), rows, lengths)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["coltiny", "generated"])
    parser.add_argument("--fetch", action="store_true", help="download the documents")
    parser.add_argument("--codes", nargs="*", default=[], help="parts of the names of those to run now; all without")
    options = parser.parse_args()
    data = generated() if options.data == "generated" else coltiny(download=options.fetch)
    WORK.mkdir(parents=True, exist_ok=True)
    found = measured(data, options.codes, WORK / f"{options.data}.jsonl")
    rows: list[tuple[Any, ...]] = [
        (name, f"{size:.1f}", f"{share:.3f}") for name, size, share in sorted(found, key=lambda one: -one[1])
    ]
    text = [
        f"# Codes of vectors: {options.data}",
        f"`python -m benchmarks.codes {options.data}`",
        machine.describe(),
        f"{len(data.lengths):,} pages of {data.lengths.mean():.0f} x {data.rows.shape[1]}, {len(data.queries)} "
        f"questions of {np.mean([len(query) for query in data.queries]):.1f} vectors. Bytes of the codes per vector "
        "that the model made; the share of the exact best ten.",
        machine.table(("code", "bytes per vector", "overlap@10"), rows),
    ]
    machine.write(f"codes-{options.data}.md", "\n\n".join(text))


if __name__ == "__main__":
    main()
