"""Try sense vectors (`sense_rows`) on an export: the table of variants, by plain dot-product MaxSim from pixels.

``python -m training.senses``, then ``python -m training.meaning --model FOLDER [--fetch]``

Documents and questions are those of `benchmarks.coltiny_set`. Choose constants by the column "dev"; "gain" is the test
half's over the first row, with a paired 95 % bootstrap interval. Raw page outputs are kept for the next run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import coltiny_set
from benchmarks.ranking import ndcg, order
from colpali_integrations.core.families.base import Float32
from colpali_integrations.core.families.coltiny import ColTinyPages, PageLayout
from colpali_integrations.core.families.coltiny_words import words
from training.evaluate import Encoder, Raw
from training.sense_rows import Senses, SenseScale, page_rows, query_row, read_words


def maxsim(queries: Sequence[Float32], pages: Sequence[Float32]) -> Float32:
    """Scores (queries, pages)."""
    every, starts = np.concatenate(queries), np.cumsum([0, *(len(query) for query in queries[:-1])])
    return np.stack([np.add.reduceat((every @ page.T).max(1), starts) for page in pages], axis=1)


def _layout(codec: ColTinyPages, raw: Raw) -> PageLayout:
    return codec.layout(raw.vectors, raw.salience, raw.cells)


def gain(values: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    """Mean difference and its paired interval."""
    difference = values - base
    draws = np.random.default_rng(0).integers(0, len(difference), (4000, len(difference)))
    low, high = np.quantile(difference[draws].mean(1), [0.025, 0.975])
    return f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("colpali_integrations/models/coltiny"))
    parser.add_argument("--senses", type=Path, default=Path("training/work/senses.npz"))
    parser.add_argument("--raw", type=Path, default=Path("training/work/evaluation/raw"))
    parser.add_argument("--cosines", type=float, nargs="+", default=[0.5, 0.55], help="least cosines of a read word")
    parser.add_argument("--margins", type=float, nargs="+", default=[0.015], help="least leads over the second word")
    parser.add_argument("--fetch", action="store_true", help="download the documents first (Debian 12, apt-get)")
    options = parser.parse_args()
    if options.fetch:
        coltiny_set.fetch()
    pages, asked = coltiny_set.load(), coltiny_set.questions()
    place = {page.name: index for index, page in enumerate(pages)}
    halves = {document.name: document.half for document in coltiny_set.documents()}
    half = np.array([halves[question.document] for question in asked])
    relevant = [{place[name] for name in question.pages} for question in asked]
    encoder, senses = Encoder(options.model, options.raw), Senses.read(options.senses)
    dim, hinge = encoder.config.dim, encoder.config.hinge

    codec = ColTinyPages(encoder.config)
    layouts = [_layout(codec, encoder.raw(page.image)) for page in pages]
    encoded = [encoder.query(question.text) for question in asked]
    queries = [np.c_[query[:, :-1] * query[:, -1:], -hinge * query[:, -1:]] for query in encoded]
    about = [senses.passage(words(question.text)) for question in asked]
    vocabulary = np.concatenate([encoder.query(word)[:, :-1] for word in senses.words])
    unit = [layout.vectors[:-1, :-1] / np.maximum(layout.vectors[:-1, -1:], 1e-6) for layout in layouts]
    last = senses.vectors.shape[1]
    share = (np.concatenate(unit)[:, -last:] ** 2).sum(1).mean()
    print(
        f"{len(pages)} pages, {len(asked)} questions; share of word vectors' energy in the senses' place: {share:.4f}"
    )

    def read(cosine: float, margin: float) -> list[NDArray[np.intp]]:
        scale = replace(SenseScale(), least_cosine=cosine, least_margin=margin)
        return [read_words(vectors, vocabulary, scale) for vectors in unit]

    base = None
    said = {limits: read(*limits) for limits in product(options.cosines, options.margins)}
    for weight, (cosine, margin) in [(0.0, next(iter(said))), *product((0.5, 1.0, 1.5), said)]:
        scale = replace(SenseScale(), weight=weight)
        wide, total = [], 0
        for layout, found in zip(layouts, said[cosine, margin], strict=True):
            rows = layout.vectors
            if weight:
                # A word that the page says often stands in one place only here.
                rows = np.concatenate([page_rows(found, layout.cells[:-1], senses, dim, scale), rows])
            wide.append(rows)
            total += len(rows)
        asking = [
            np.concatenate([query, query_row(sense, dim, scale)]) if weight else query
            for query, sense in zip(queries, about, strict=True)
        ]
        scores = maxsim(asking, wide)
        values = np.array([ndcg(order(row), right, 5) for row, right in zip(scores, relevant, strict=True)])
        base = values if base is None else base
        test = half == "test"
        print(
            f"weight {weight} cosine {cosine} margin {margin}: all {values.mean():.3f} dev {values[~test].mean():.3f}"
            f" test {values[test].mean():.3f} gain {gain(values[test], base[test])} vectors {total / len(pages):.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
