"""ColTiny on real pages outside its training data, against BM25, Tesseract and MiniLM: quality, speed and size.

From the repository's root, on Debian 12 (the documents' packages come by apt-get)::

    python -m benchmarks.coltiny_quality --fetch        # -> results/coltiny_quality.md

A quarter of an hour, most of it Tesseract; what was rendered, read and encoded once is kept in `work/coltiny_set`.
Systems whose programs are missing (`tesseract` with its languages deu, fra and spa; MiniLM, see `benchmarks.minilm`)
are left out of the tables. `--model FOLDER --name NAME` measures another export.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import coltiny_report, tesseract
from benchmarks.coltiny_set import WORK, fetch, load, questions, scans
from benchmarks.page_set import DPI, Page, Question
from benchmarks.ranking import order
from colpali_integrations import ColPali
from colpali_integrations.scoring.bm25 import Bm25, bm25_scores
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.scoring.muvera import Muvera
from colpali_integrations.scoring.pooling import mean_pool
from colpali_integrations.stores import Entry, Hit, MultiVectorStore, SearchOptions

MODEL = Path(__file__).parents[1] / "colpali_integrations" / "models" / "coltiny" / "weights"
WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.9)
Array = NDArray[np.float32]
Rankings = list[list[int]]


def digest(folder: Path) -> str:
    """Hash over the model's files."""
    files = (folder / name for name in ("config.json", "image.onnx", "senses.npz", "text.onnx"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def encode(model: ColPali, images: Sequence[Path], kept: Path) -> list[Array]:
    """Encode the pages, or read those of an earlier run."""
    if not kept.exists():
        vectors = list(model.embed_images(images))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, vectors=np.concatenate(vectors), lengths=np.array([len(page) for page in vectors]))
    with np.load(kept) as stored:
        return np.split(stored["vectors"], np.cumsum(stored["lengths"])[:-1])


def costs(
    model: ColPali, program: str | None, images: Sequence[Path], languages: Sequence[str]
) -> tuple[list[float], list[float]]:
    """CPU seconds of every eighth page, ours (picture read and resized included) and Tesseract's, turn by turn."""
    list(model.embed_images([images[0]]))  # the first run pays for memory
    ours, theirs = [], []
    for image, language in list(zip(images, languages, strict=True))[::8]:
        start = time.process_time()
        list(model.embed_images([image]))
        ours.append(time.process_time() - start)
        if program:
            theirs.append(tesseract.read(program, image, language, DPI)[1])
    return ours, theirs


def ranked(scores: NDArray[Any], above: float = 0.0) -> Rankings:
    return [order(row, above=above) for row in scores]


def bm25(texts: Sequence[str], asked: Sequence[str], language: str | None) -> Rankings:
    engine = Bm25(language=language)
    documents = [engine.document(text) for text in texts]
    return [order(bm25_scores(engine.query(text), documents)) for text in asked]


def places(found: Sequence[Sequence[Hit]]) -> Rankings:
    return [[int(hit.id) for hit in hits] for hits in found]


def two_stages(model: ColPali, pages: Sequence[Array], queries: Sequence[Array], stage: Any) -> Rankings:
    """A store that scans its first stage and scores 30 candidates with all vectors."""
    with tempfile.TemporaryDirectory() as folder:
        path = folder if stage == "int8" else None  # the engine in memory keeps no quantised copies
        store = MultiVectorStore.open(path, model=model, first_stage=stage)
        store.add((Entry(id=str(index)), page) for index, page in enumerate(pages))
        store.optimize()
        found = places(store.search_batch(list(queries), SearchOptions(k=10, mode="two_stage", oversampling=3)))
        store.close()
    return found


def hybrids(
    model: ColPali, pages: Sequence[Array], texts: Sequence[str], queries: Sequence[Array], asked: Sequence[str]
) -> dict[str, Rankings]:
    """The store's fusion with BM25 by the weight that each question decides, by fixed weights and by ranks."""
    store = MultiVectorStore.open(model=model)
    store.add((Entry(id=str(i), text=text), page) for i, (page, text) in enumerate(zip(pages, texts, strict=True)))
    ways: dict[str, Any] = {"each question's weight": True, "rrf": "rrf"}
    ways |= {f"weight {weight}": weight for weight in WEIGHTS}
    return {
        name: places(store.search_batch(list(queries), SearchOptions(k=10, hybrid=way), texts=list(asked)))
        for name, way in ways.items()
    }


def rounded(vectors: Array) -> Array:
    """Each vector as int8 with its own scale, converted back."""
    scale = np.abs(vectors).max(axis=1, keepdims=True) / 127
    whole: Array = np.round(vectors / np.where(scale > 0, scale, 1)) * scale
    return whole


def coltiny(
    model: ColPali, pages: Sequence[Array], queries: Sequence[Array], asked: Sequence[str]
) -> dict[str, Rankings]:
    """Every way to search by ColTiny's vectors alone."""
    words = [
        query[: model.token_count(text, include_special=False)] for query, text in zip(queries, asked, strict=True)
    ]

    def every(codes: Array, asked: list[Array]) -> Array:
        scores: Array = np.stack(asked) @ codes.T
        return scores

    muvera = Muvera(model.dim)
    codes = np.stack([muvera.document(page) for page in pages])
    means = np.stack([mean_pool(page) for page in pages])
    return {
        "ColTiny, MaxSim": ranked(max_sim(list(queries), list(pages))),
        "ColTiny, MaxSim of its words alone": ranked(max_sim(words, list(pages))),
        "ColTiny, MaxSim over int8 vectors": ranked(max_sim(list(queries), [rounded(page) for page in pages])),
        "ColTiny, two-stage: int8 copies": two_stages(model, pages, queries, "int8"),
        "ColTiny, two-stage: 32 Ward means": two_stages(model, pages, queries, "ward"),
        "ColTiny, two-stage: MUVERA": two_stages(model, pages, queries, "muvera"),
        "ColTiny, MUVERA alone (one vector)": ranked(every(codes, [muvera.query(query) for query in queries]), -np.inf),
        "ColTiny, mean alone (one vector)": ranked(every(means, [query.sum(axis=0) for query in queries]), -np.inf),
    }


def minilm(texts: dict[str, list[str]], asked: Sequence[str]) -> dict[str, Rankings]:
    """Scores by `benchmarks.minilm` for these texts; writes its input where scores are missing or of other texts."""
    data = json.dumps({"questions": list(asked), "pages": texts}, sort_keys=True).encode()
    (WORK / "pages.json").write_bytes(data)
    scores = WORK / "minilm.npz"
    if not scores.exists():
        return {}
    with np.load(scores) as stored:
        if str(stored["made_from"]) != hashlib.sha256(data).hexdigest():
            return {}
        return {name: ranked(stored[name], -np.inf) for name in texts}


def measure(model: ColPali, folder: Path, pages: list[Page], asked: list[Question]) -> coltiny_report.Measured:
    """All systems on clean pages and on scans."""
    texts = [question.text for question in asked]
    queries = list(model.embed_queries(texts))
    pictures = {"clean": [page.image for page in pages], "scans": scans(pages)}
    written = {"PDF": [page.text for page in pages]}
    systems: dict[str, dict[str, Rankings]] = {"clean": {}, "scans": {}}
    result = coltiny_report.Measured(pages, asked, systems)
    program = tesseract.find()
    for condition, images in pictures.items():
        vectors = encode(model, images, WORK / "vectors" / f"{digest(folder)}-{condition}.npz")
        systems[condition] |= coltiny(model, vectors, queries, texts)
        result.vectors[condition] = [len(page) for page in vectors]
        if condition == "clean":
            result.fused = hybrids(model, vectors, written["PDF"], queries, texts)
        languages = [page.document.language for page in pages]
        ours, theirs = costs(model, program, images, languages)
        result.seconds[f"ColTiny, {condition}"] = ours
        if program:
            read = tesseract.read_all(program, images, languages, WORK / f"tesseract-{condition}", DPI)
            written[condition] = [text for text, _ in read]
            result.seconds[f"Tesseract, {condition}"] = theirs
    result.programs = [tesseract.version(program)] if program else []
    for source, name in (("PDF", "the PDF's own text"), ("clean", "Tesseract"), ("scans", "Tesseract")):
        if source in written:
            condition = "scans" if source == "scans" else "clean"
            systems[condition][f"BM25, stemmed, {name}"] = bm25(written[source], texts, "english")
            systems[condition][f"BM25, {name}"] = bm25(written[source], texts, None)
    for source, rankings in minilm(written, texts).items():
        name = "the PDF's own text" if source == "PDF" else "Tesseract"
        systems["scans" if source == "scans" else "clean"][f"MiniLM, {name}"] = rankings
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fetch", action="store_true", help="download the documents' packages first (Debian 12)")
    parser.add_argument("--packages", type=Path, default=WORK / "packages", help="where they are unpacked")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of an exported ColTiny")
    parser.add_argument("--name", default="coltiny_quality", help="of the table in results/")
    options = parser.parse_args()
    if options.fetch:
        fetch(options.packages)
    model = ColPali.from_pretrained(str(options.model), threads=1)
    measured = measure(model, options.model, load(options.packages), questions())
    coltiny_report.write(measured, f"{options.name}.md", digest(options.model))


if __name__ == "__main__":
    main()
