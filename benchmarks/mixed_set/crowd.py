"""Pages of other documents, among which the questions of `mixed_set` are asked: a store of thousands of pages.

None of them answers a question: their documents are other works than those that are asked about, or parts of them that
are far from the pages asked about. Only their vectors (float16) and texts are kept, in parts, so that a run may be
stopped and continued.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
from PIL import Image

from benchmarks.coltiny_set import DPI, fetch_package, scan
from benchmarks.mixed_set import HERE, WORK
from colpali_integrations import ColPali
from colpali_integrations.runtime.arrays import Float32

PART = 100  # pages
SCANNED_EVERY = 10  # every tenth page is a scan without text


def documents() -> list[tuple[str, str, int, int]]:
    """Package, path, first and last page of each document, in the order in which their pages are taken."""
    return [tuple(entry) for entry in json.loads((HERE / "crowd.json").read_text(encoding="utf-8"))]


def fetch(folder: Path = WORK / "packages") -> None:
    """Download the documents' Debian packages (apt-get, Debian 12)."""
    for package in dict.fromkeys(package for package, *_ in documents()):
        if not (folder / package).exists():
            fetch_package(package, folder)


def pages(folder: Path, numbers: Container[int]) -> Iterator[tuple[Image.Image, str]]:
    """Picture (150 dpi, grey) and text layer of the pages with these numbers, from 1; each tenth is a bare scan."""
    number = 0
    for package, path, first, last in documents():
        data = (folder / package / path).read_bytes()
        with pdfium.PdfDocument(gzip.decompress(data) if path.endswith(".gz") else data) as pdf:
            for place in range(first - 1, last):
                number += 1
                if number not in numbers:
                    continue
                page = pdf[place]
                drawn = page.render(scale=DPI / 72, grayscale=True).to_pil()
                if number % SCANNED_EVERY:
                    yield drawn, page.get_textpage().get_text_range()
                else:
                    yield scan(drawn, f"crowd:{number}"), ""


def size() -> int:
    """Number of pages of all documents."""
    return sum(last - first + 1 for *_, first, last in documents())


def encode(model: ColPali, kept: Path, limit: int, folder: Path = WORK / "packages") -> None:
    """Encode the first `limit` pages, or what is missing of them, in parts of 100."""
    kept.mkdir(parents=True, exist_ok=True)
    last = min(limit, size())
    for part, start in enumerate(range(0, last, PART)):
        path = kept / f"{part:04d}.npz"
        if path.exists():
            continue
        images, texts = zip(*pages(folder, range(start + 1, min(start + PART, last) + 1)), strict=True)
        vectors = [np.asarray(page, np.float16) for page in model.embed_images(images)]
        lengths = np.array([len(page) for page in vectors])
        partial = path.with_suffix(".tmp")
        with partial.open("wb") as file:
            np.savez(file, vectors=np.concatenate(vectors), lengths=lengths, texts=np.array(texts))
        partial.rename(path)


def encoded(kept: Path, limit: int) -> Iterator[tuple[list[Float32], list[str]]]:
    """Vectors and texts of the first `limit` encoded pages, by parts."""
    for path in sorted(kept.glob("*.npz"))[: -(-limit // PART)]:
        with np.load(path) as stored:
            vectors = np.split(stored["vectors"].astype(np.float32), np.cumsum(stored["lengths"])[:-1])
            yield vectors, [str(text) for text in stored["texts"]]
