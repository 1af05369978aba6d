"""Measure an exported ColTiny on real PDFs that training never read, beside BM25 on the PDFs' own text.

``python -m training.evaluate --model colpali_integrations/models/coltiny/weights [--fetch] [--sweep]``

420 pages of 21 manuals (evaluation.json): 63 questions written by hand from single pages, and 210 keyword queries of
four words drawn from every other page. One page counts as relevant, so the figures are lower bounds. BM25 sees the
text that the PDFs carry, that is, it reads without error.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pypdfium2 as pdfium
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.models.coltiny import pixels as coltiny_pixels
from colpali_integrations.models.coltiny.family import ColTinyConfig, ColTinyPages, ColTinyQueries
from colpali_integrations.models.coltiny.senses import Senses
from colpali_integrations.models.coltiny.words import STOP_WORDS, words
from colpali_integrations.runtime.arrays import Float32

PIXELS = Path(coltiny_pixels.__file__)
SET = Path(__file__).with_name("evaluation.json")
RENDER_DPI = 144


@dataclass(frozen=True)
class Page:
    """One real page: its image file, its text layer and which half of the documents it belongs to."""

    image: Path
    text: str
    package: str
    half: str


@dataclass(frozen=True)
class Query:
    """A query, its kind and the index of the one page that answers it."""

    text: str
    kind: str
    page: int


def fetch(folder: Path) -> None:
    """Download the documents' Debian packages and unpack them under ``folder``, a folder for each package."""
    folder.mkdir(parents=True, exist_ok=True)
    for document in json.loads(SET.read_text())["documents"]:
        package = document["package"]
        if not (folder / package / document["path"]).exists():
            subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True)
            archive = next(folder.glob(f"{package}_*.deb"))
            subprocess.run(["dpkg", "-x", archive, folder / package], check=True)


def load(folder: Path, images: Path) -> tuple[list[Page], list[Query]]:
    """Render what is not rendered yet and read the text layers; queries come in a fixed order."""
    images.mkdir(parents=True, exist_ok=True)
    pages, queries = [], []
    for document in json.loads(SET.read_text())["documents"]:
        data = (folder / document["package"] / document["path"]).read_bytes()
        pdf = pdfium.PdfDocument(gzip.decompress(data) if document["path"].endswith(".gz") else data)
        for number in range(document["first"], document["last"] + 1):
            page, image = pdf[number - 1], images / f"{document['package']}-{number:04d}.png"
            if not image.exists():
                page.render(scale=RENDER_DPI / 72, grayscale=True).to_pil().save(image, compress_level=1)
            if str(number) in document["questions"]:
                queries.append(Query(document["questions"][str(number)], "question", len(pages)))
            pages.append(Page(image, page.get_textpage().get_text_range(), document["package"], document["half"]))
    return pages, [*queries, *keyword_queries(pages)]


def keyword_queries(pages: list[Page], *, every: int = 2, seed: int = 7) -> list[Query]:
    """Four telling words from within forty of a page's text, for every other page that has text."""
    rng = random.Random(seed)
    texts = [words(page.text) for page in pages]
    spread = Counter(word for text in texts for word in set(text))
    found = []
    for index in range(0, len(pages), every):
        start = rng.randrange(max(1, len(texts[index]) - 40))
        window = dict.fromkeys(texts[index][start : start + 40])
        telling = [w for w in window if len(w) > 2 and w not in STOP_WORDS and spread[w] <= len(pages) / 4]
        if len(telling) >= 4:
            found.append(Query(" ".join(rng.sample(telling, 4)), "keywords", index))
    return found


def bm25(pages: list[Page], queries: list[Query], *, k1: float = 1.2, b: float = 0.75) -> NDArray[np.float64]:
    """BM25 scores (queries, pages) over the PDFs' own text, without stop words."""
    counts = [Counter(words(page.text)) for page in pages]
    spread = Counter(word for count in counts for word in count)
    length = np.array([sum(count.values()) for count in counts])
    norm = k1 * (1 - b + b * length / length.mean())
    scores = np.zeros((len(queries), len(pages)))
    for row, query in zip(scores, queries, strict=True):
        for word in words(query.text):
            if word not in STOP_WORDS and spread[word]:
                idf = math.log(1 + (len(pages) - spread[word] + 0.5) / (spread[word] + 0.5))
                count = np.array([count[word] for count in counts])
                row += idf * count * (k1 + 1) / (count + norm)
    return scores


def ranks(scores: NDArray[np.floating], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """0-based rank of the relevant page of each query; ties count half."""
    own = scores[np.arange(len(scores)), relevant][:, None]
    result: NDArray[np.float64] = (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    return result


def summary(rank: NDArray[np.float64], *, seed: int = 0) -> str:
    """nDCG@5 with a 95 % bootstrap interval over queries, and recall@1."""
    gain = np.where(rank < 5, 1 / np.log2(rank + 2), 0)
    draws = np.random.default_rng(seed).integers(0, len(gain), (2000, len(gain)))
    low, high = np.quantile(gain[draws].mean(1), [0.025, 0.975])
    return f"nDCG@5 {gain.mean():.3f} [{low:.3f}, {high:.3f}]  recall@1 {(rank < 1).mean():.3f}  n {len(rank)}"


@dataclass(frozen=True)
class Raw:
    """What the image file reads on one page, before words are gathered.

    Attributes:
        vectors: float32 (n, dim - 1), unit length.
        salience: float32 (n,), logits.
        cells: int32 (n, 2), row and column of each.
        centres: float64 (n, 2), x and y on the page of each cell's centre, in pixels at the model's size.
    """

    vectors: Float32
    salience: Float32
    cells: NDArray[np.int32]
    centres: NDArray[np.float64]


class Encoder:
    """The exported files behind ONNX Runtime with one thread; raw page outputs are kept on disk for sweeps."""

    def __init__(self, folder: Path, cache: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.config = ColTinyConfig.read(folder / "config.json")
        self._pages = ort.InferenceSession(str(folder / "image.onnx"), options, providers=["CPUExecutionProvider"])
        self._words = ort.InferenceSession(str(folder / "text.onnx"), options, providers=["CPUExecutionProvider"])
        digest = hashlib.sha256((folder / "image.onnx").read_bytes() + PIXELS.read_bytes()).hexdigest()[:12]
        self._cache = cache / digest
        self._cache.mkdir(parents=True, exist_ok=True)
        self.senses = Senses.read(folder / "senses.npz")

    def raw(self, image: Path) -> Raw:
        """What the files read on one page."""
        kept = self._cache / f"{image.stem}.npz"
        if not kept.exists():
            codec = ColTinyPages(self.config, self.senses)
            with Image.open(image) as opened:
                prepared = codec.prepare(opened.convert("RGB"))
            names = ["vectors", "salience", "cells"]
            vectors, salience, cells = self._pages.run(names, codec.feed([prepared]))
            columns = prepared.extra.pixels.shape[1] // self.config.cell
            places = np.stack(np.divmod(cells, columns), axis=1).astype(np.int32)
            middles = ((places[:, ::-1] + 0.5) * self.config.cell).tolist()
            centres = np.array([prepared.extra.on_page(x, y) for x, y in middles]).reshape(-1, 2)
            np.savez(kept, vectors=vectors.astype(np.float16), salience=salience, cells=places, centres=centres)
        with np.load(kept) as stored:
            return Raw(stored["vectors"].astype(np.float32), stored["salience"], stored["cells"], stored["centres"])

    def words(self, text: str) -> Float32:
        """Unit vectors of a text's words, float32 (n_words, dim - 1)."""
        codec = ColTinyQueries(self.config, self.senses, max_words=512)
        vectors: Float32 = self._words.run(["vectors"], codec.feed([codec.prepare(text)]))[0]
        return vectors

    def query(self, text: str, config: ColTinyConfig) -> Float32:
        """A query's vectors under some constants: float32 (n, dim)."""
        codec = ColTinyQueries(config, self.senses, max_words=512)
        prepared = codec.prepare(text)
        names = ["vectors", "weights"]
        outputs = dict(zip(names, self._words.run(names, codec.feed([prepared])), strict=True))
        return codec.vectors(outputs, [prepared])[0]


def maxsim(
    encoder: Encoder, config: ColTinyConfig, raw: list[Raw], texts: list[str]
) -> tuple[NDArray[np.float32], float]:
    """Plain dot-product MaxSim scores (queries, pages) under ``config``, and the mean number of vectors per page."""
    codec = ColTinyPages(config, encoder.senses)
    queries = [encoder.query(text, config) for text in texts]
    every, starts = np.concatenate(queries), np.cumsum([0, *(len(query) for query in queries[:-1])])
    scores = np.zeros((len(queries), len(raw)), np.float32)
    total = 0
    for index, read in enumerate(raw):
        page = codec.layout(read.vectors, read.salience, read.cells).vectors
        total += len(page)
        scores[:, index] = np.add.reduceat((every @ page.T).max(1), starts)
    return scores, total / len(raw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("colpali_integrations/models/coltiny/weights")])
    parser.add_argument("--pdfs", type=Path, default=Path("training/work/pdfs"))
    parser.add_argument("--work", type=Path, default=Path("training/work/evaluation"))
    parser.add_argument("--fetch", action="store_true", help="download the documents first (Debian, apt-get)")
    parser.add_argument("--sweep", action="store_true", help="try other constants; choose on dev, look at test once")
    options = parser.parse_args()
    if options.fetch:
        fetch(options.pdfs)
    pages, queries = load(options.pdfs, options.work / "pages")
    relevant = np.array([query.page for query in queries])
    half = np.array([pages[query.page].half for query in queries])
    kind = np.array([query.kind for query in queries])

    def report(name: str, scores: NDArray[np.floating]) -> None:
        rank = ranks(scores, relevant)
        for part in ("question", "keywords"):
            for side in ("dev", "test"):
                print(f"{name:<28} {part:<9} {side:<5} {summary(rank[(kind == part) & (half == side)])}", flush=True)

    print(f"{len(pages)} pages, {len(queries)} queries, chance recall@1 {1 / len(pages):.4f}")
    report("BM25 on the PDF's text", bm25(pages, queries))
    for folder in options.model:
        encoder = Encoder(folder, options.work / "raw")
        start = time.perf_counter()
        raw = [encoder.raw(page.image) for page in pages]
        spent = (time.perf_counter() - start) / len(pages)
        texts = [query.text for query in queries]
        scores, vectors = maxsim(encoder, encoder.config, raw, texts)
        print(f"{folder}: {spent:.3f} s a page (image read and cache included), {vectors:.0f} vectors a page")
        report(folder.name, scores)
        if options.sweep:
            base = encoder.config
            for change in (
                *({"hinge": hinge} for hinge in (0.2, 0.25, 0.3, 0.35, 0.4)),
                *({"k1": k1} for k1 in (0.2, 0.6, 0.9, 1.2)),
                *({"cluster_cosine": cosine} for cosine in (0.7, 0.75, 0.85)),
                *({"b": b} for b in (0.5, 0.9)),
            ):
                tried, vectors = maxsim(encoder, replace(base, **change), raw, texts)
                rank = ranks(tried, relevant)
                for part in ("question", "keywords"):
                    chosen = (kind == part) & (half == "dev")
                    print(f"{change!s:<28} {part:<9} dev {summary(rank[chosen])}  vectors {vectors:.0f}", flush=True)


if __name__ == "__main__":
    main()
