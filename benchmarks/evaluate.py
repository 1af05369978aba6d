"""The time of `evaluate`: 300 pages, 250 questions, 6 configurations, after the pages and questions are embedded.

From the repository's root::

    python -m benchmarks.evaluate        # -> results/evaluate.md; about a minute

Pages and questions are those of `benchmarks.stores_data`: 1030 vectors of 128 numbers per page, as ColPali's. A model
that returns the questions' vectors stands in for ColPali; the copies, the searches and the intervals are the product's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.stores_data import Corpus
from colpali_integrations import ColPali
from colpali_integrations.evaluation import Answer, Question, evaluate
from colpali_integrations.explain import PageGrid
from colpali_integrations.models import find_model
from colpali_integrations.stores import Entry, MultiVectorStore

PAGES, QUESTIONS = 300, 250
GRID = PageGrid(32, 32, np.array([*range(1024), *[-1] * 6]))  # without a grid, a store does not pool a page
CONFIGURATIONS = (
    "exact: mode=exact",
    "blend: mode=exact, hybrid=0.2",
    "ranks: mode=exact, hybrid=rrf",
    "two stages: first_stage=ward, mode=two_stage, oversampling=4",
    "a third: pooling=3, mode=exact",
    "int8: datatype=int8, mode=exact",
)


class Questioner(ColPali):
    """Stands in for the model: the vectors of question n are those of the generator."""

    def __init__(self, corpus: Corpus) -> None:
        self.description, self.opened = find_model("Qdrant/colpali-v1.3-fp16"), None
        self._vectors = [corpus.query(number) for number in range(QUESTIONS)]

    def load(self) -> None:
        """There are no graphs to load."""

    def embed_queries(self, texts: Any, **options: Any) -> Generator[Any, None, None]:
        return (self._vectors[int(text.split()[-1])] for text in texts)


def words(number: int) -> str:
    """The text layer of a page: words by which BM25 finds some questions."""
    return " ".join(f"word{(number * step) % 97}" for step in range(1, 60))


def main() -> None:
    corpus = Corpus(pages=PAGES)
    with tempfile.TemporaryDirectory() as folder:
        model = Questioner(corpus)
        with MultiVectorStore.open(Path(folder) / "store", model=model, first_stage="exact") as store:
            store.add(
                (Entry(id=str(n), text=words(n), document_id=f"d{n // 10}", grid=GRID), corpus.page(n))
                for n in range(PAGES)
            )
            targets = [corpus.target(n) for n in range(QUESTIONS)]
            questions = [
                Question(text=f"word{target % 97} {n}", answers=[Answer(id=str(target))])
                for n, target in enumerate(targets)
            ]
            start, cpu = time.perf_counter(), time.process_time()
            result = evaluate(questions, store=store, configurations=CONFIGURATIONS)
            seconds, used = time.perf_counter() - start, time.process_time() - cpu
            report = time.perf_counter()
            size = len(result.to_html(limit=0))
            report = time.perf_counter() - report
    rows = [(one.name, one.means["ndcg@5"]) for one in result.results]
    text = "\n\n".join(
        [
            "# The time of `evaluate`",
            f"`python -m benchmarks.evaluate`. {machine.describe()}",
            f"{PAGES} synthetic pages of 1030 x 128, {QUESTIONS} questions, {len(rows)} configurations: "
            f"{seconds:.1f} s, {used:.1f} s of CPU time, with the copies of the last three and 4,000 draws for the "
            f"intervals; bar: 60 s. The report without pictures takes {report:.2f} s and {size / 1000:.0f} kB.",
            machine.table(("configuration", "nDCG@5"), rows),
            "The pages are synthetic: nDCG here says nothing about a model.",
        ]
    )
    (machine.RESULTS / "evaluate.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
