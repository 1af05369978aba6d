"""The bytes and the recall of compressed stores, measured on pages of a store: `measure_compression`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._options import checked_number, checked_whole, shown
from colpali_integrations.errors import InputError, StoreError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.maxsim import max_sim, top_pages
from colpali_integrations.scoring.pooling import group_means, hierarchical_groups
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.settings import Datatype, Settings
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["Compression", "CompressionStudy", "SampleQuestion", "measure_compression"]

_FACTORS = (1, 2, 3, 4, 6, 10)
_QUESTIONS = 100
# Words of a question that is made of a page's text, and vectors of one that is made of its vectors.
_WORDS, _VECTORS = (4, 8), 8
_NOISE = 0.5


@dataclass(frozen=True, kw_only=True)
class SampleQuestion:
    """A question with the pages that answer it; `evaluation.wanted_ids` finds their ids.

    Attributes:
        text: of the question.
        grades: how well an entry answers, above 0, by its id; at least one.

    Raises:
        InputError: there is no grade, or one that is not above 0.

    Example:
        >>> from colpali_integrations.evaluation import read_questions, wanted_ids
        >>> asked = read_questions([{"question": "diverging palettes", "source": "report.pdf", "page": 1}])
        >>> with MultiVectorStore.open("my-index") as store:
        ...     found = wanted_ids(asked, store)
        >>> questions = [SampleQuestion(text=one.text, grades=ids) for one, ids in zip(asked, found, strict=True)]
        >>> questions[0].text, list(questions[0].grades.values())
        ('diverging palettes', [1.0])
    """

    text: str
    grades: Mapping[str, float]

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if not self.grades or not all(0 < grade < math.inf for grade in self.grades.values()):
            raise InputError(f"the question {shown(self.text)} needs the grade, above 0, of at least one entry")


@dataclass(frozen=True, kw_only=True)
class Compression:
    """A way to keep pages, and what it costs.

    Attributes:
        datatype: of the vectors.
        pool_factor: vectors per stored mean.
        bytes_per_page: of all files of the store, on average, without the free space that removed pages left.
        recall: the share of the exact best ten among the best ten, in [0, 1].
        ndcg: nDCG@10 of the questions, in [0, 1]; None without questions.

    Example:
        >>> way = Compression(datatype="int8", pool_factor=1, bytes_per_page=30_000, recall=0.99)
        >>> way.datatype, way.ndcg is None
        ('int8', True)
    """

    datatype: Datatype
    pool_factor: int
    bytes_per_page: float
    recall: float
    ndcg: float | None = None

    @property
    def is_compressed(self) -> bool:
        """Whether it differs from the uncompressed way, that of the store as it is."""
        return self.datatype != "float16" or self.pool_factor > 1


@dataclass(frozen=True, kw_only=True)
class CompressionStudy:
    """Ways to keep the pages of a store.

    Attributes:
        pages: number of pages in the sample.
        questions: number of questions.
        asked: the origin of the questions: "questions", "text" of the pages, or "vectors" of the pages.
        ways: by falling bytes.

    Example:
        >>> ways = [
        ...     Compression(datatype="float16", pool_factor=1, bytes_per_page=50_000, recall=1.0),
        ...     Compression(datatype="int8", pool_factor=1, bytes_per_page=30_000, recall=0.99),
        ... ]
        >>> study = CompressionStudy(pages=200, questions=100, asked="text", ways=ways)
        >>> study.recommended(0.98).datatype, study.recommended(0.999).datatype
        ('int8', 'float16')
    """

    pages: int
    questions: int
    asked: str
    ways: Sequence[Compression]

    def recommended(self, recall: float = 0.98) -> Compression:
        """The smallest way that reaches a recall; of the store as it is, 1 by definition."""
        least = checked_number(recall, "recall", 0, 1)
        return min((way for way in self.ways if way.recall >= least), key=lambda way: way.bytes_per_page)

    def front(self) -> list[Compression]:
        """The store's own way, to compare with, and the ways that no smaller way equals in recall, by falling bytes."""
        best: list[Compression] = []
        highest = -1.0
        for way in sorted(self.ways, key=lambda one: (one.bytes_per_page, -one.recall)):
            if way.recall > highest or not way.is_compressed:
                best.append(way)
                highest = max(highest, way.recall)
        return best[::-1]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return {**asdict(self), "ways": [asdict(way) for way in self.ways]}


def measure_compression(
    store: MultiVectorStore,
    *,
    sample: int = 200,
    questions: Sequence[SampleQuestion] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> CompressionStudy:
    """Measure datatypes and pooling on pages of a store in a folder. Nothing is changed.

    Args:
        store: uncompressed, so that exact scores are those of the model.
        sample: number of entries, chosen at random. Recall falls with the number of pages that compete: take as many as
            time allows.
        questions: of the user, with the entries that answer them, which join the sample. Without them, questions are
            made of the pages: some words of a text layer in a row, or vectors with noise where pages have no text.
        seed: of the choice.
        progress: called with the numbers of measured and of all ways.

    Returns:
        The ways, the store's own first.

    Raises:
        StoreError: the store is empty or compressed, is not in a folder, or lacks an entry that a question names.
        ConfigurationError: sample is below 1, or the model of the store is not registered here.

    Example:
        >>> with MultiVectorStore.open("my-index") as store:
        ...     study = measure_compression(store, sample=2)
        >>> study.pages, study.ways[0].datatype, study.ways[0].recall
        (2, 'float16', 1.0)
    """
    if store.settings.is_compressed:
        raise StoreError(f"{store.where} is compressed already: measure on an uncompressed store")
    drawn = _Sample(store, checked_whole(sample, "sample"), questions, Random(seed))
    ways = [
        replace(store.settings, datatype=datatype, pool_factor=factor)
        for factor in _FACTORS
        for datatype in get_args(Datatype)
    ]
    measured = []
    for number, pages in enumerate(drawn.kept(ways)):
        settings = ways[number]
        scores = np.stack([max_sim(query, [vectors for _, vectors in pages]) for query in drawn.queries])
        size = np.mean([rows for rows, _ in pages]) + drawn.rest(settings)
        way = Compression(
            datatype=settings.datatype,
            pool_factor=settings.pool_factor,
            bytes_per_page=round(float(size), 1),
            recall=drawn.recall(scores),
            ndcg=drawn.ndcg(scores),
        )
        measured.append(way)
        if progress is not None:
            progress(number + 1, len(ways))
    return CompressionStudy(
        pages=len(drawn.pages),
        questions=len(drawn.queries),
        asked=drawn.asked,
        ways=sorted(measured, key=lambda way: -way.bytes_per_page),
    )


class _Sample:
    """Pages of a store, and questions about them.

    Attributes:
        pages: float32 (n, dim) each.
        queries: float32 (n, dim) each.
        asked: see `CompressionStudy`.
    """

    def __init__(
        self, store: MultiVectorStore, size: int, questions: Sequence[SampleQuestion] | None, random: Random
    ) -> None:
        everything = list(store.scroll())
        if not everything:
            raise StoreError(f"{store.where} is empty: there is nothing to measure")
        wanted = list(questions or ())
        chosen = _answers(everything, wanted, store.where)
        others = [entry for entry in everything if entry.id not in chosen]
        chosen |= {entry.id: entry for entry in random.sample(others, max(0, min(len(others), size - len(chosen))))}
        vectors = store.vectors(chosen)
        found = {
            id_: (entry, array)
            for (id_, entry), array in zip(chosen.items(), vectors, strict=True)
            if array is not None
        }
        self.entries, self.pages = [entry for entry, _ in found.values()], [array for _, array in found.values()]
        self._unit = store.model.unit_length
        if not isinstance(store._engine, FolderEngine):
            raise StoreError(f"{store.where} has no files: measure a store in a folder (path=)")
        self._rest = store._engine.fixed_bytes() / len(everything)
        self._gain = store._engine.packing_gain(list(found))
        # By position; without the answers that another process has just removed.
        self._grades = [np.array([one.grades.get(id_, 0.0) for id_ in found]) for one in wanted]
        self.asked, self.queries = self._questions(store, [one.text for one in wanted], random)
        self._exact = np.stack([max_sim(query, self.pages) for query in self.queries])

    def _questions(self, store: MultiVectorStore, texts: Sequence[str], random: Random) -> tuple[str, list[Float32]]:
        if texts:
            return "questions", list(store.encoder.embed_queries(texts))
        snippets = []
        for entry in random.sample(self.entries, len(self.entries)):
            words, length = entry.text.split() if entry.has_text else [], random.randint(*_WORDS)
            if len(words) >= length:
                start = random.randint(0, len(words) - length)
                snippets.append(" ".join(words[start : start + length]))
        if snippets:
            return "text", list(store.encoder.embed_queries(snippets[:_QUESTIONS]))
        rng = np.random.default_rng(random.randrange(2**32))
        return "vectors", [self._of_page(page, rng) for page in random.sample(self.pages, len(self.pages))[:_QUESTIONS]]

    def _of_page(self, page: Float32, rng: np.random.Generator) -> Float32:
        rows = page[rng.integers(len(page), size=_VECTORS)]
        noise = rng.standard_normal(rows.shape).astype(np.float32) * np.float32(_NOISE / math.sqrt(rows.shape[1]))
        noised: Float32 = rows + noise * np.linalg.norm(rows, axis=1, keepdims=True)
        return noised

    def kept(self, ways: Sequence[Settings]) -> Iterator[list[tuple[int, Float32]]]:
        """For each of the ways the pages: bytes, and the vectors as a store restores them."""
        pooled: Mapping[int, list[Float32]] = {}
        for way in ways:
            if way.pool_factor not in pooled:
                pooled = {
                    way.pool_factor: [
                        self._pooled(page, entry, way) for page, entry in zip(self.pages, self.entries, strict=True)
                    ]
                }
            code = way.code
            if code is None:
                yield [(2 * page.size, page.astype(np.float16).astype(np.float32)) for page in pooled[way.pool_factor]]
            else:
                rows = [code.encode(page) for page in pooled[way.pool_factor]]
                yield [(one.nbytes, code.decode(one)) for one in rows]

    def rest(self, way: Settings) -> float:
        """Bytes per page of everything but the vectors, without free space; compressed stores pack their texts."""
        return self._rest - (self._gain if way.is_compressed else 0.0)

    def _pooled(self, page: Float32, entry: Entry, way: Settings) -> Float32:
        if way.pool_factor == 1 or not entry.is_page:
            return page
        return group_means(page, hierarchical_groups(page, way.pool_factor), normalize=self._unit)

    def recall(self, scores: NDArray[Any]) -> float:
        """The mean share of the exact best ten; a page as good as the tenth is one of them."""
        k = min(10, len(self.pages))
        lowest = -np.sort(-self._exact, axis=1)[:, k - 1]
        shares = [
            float((exact[top_pages(found, k)] >= least).mean())
            for exact, found, least in zip(self._exact, scores, lowest, strict=True)
        ]
        return round(float(np.mean(shares)), 4)

    def ndcg(self, scores: NDArray[Any]) -> float | None:
        """The mean over the questions of nDCG@10, with the grades as gains."""
        if self.asked != "questions":
            return None
        found = [
            _gain(grades[top_pages(one, 10)]) / (_gain(-np.sort(-grades)[:10]) or 1.0)
            for grades, one in zip(self._grades, scores, strict=True)
        ]
        return round(float(np.mean(found)), 4)


def _gain(grades: NDArray[Any]) -> float:
    """The discounted sum of grades, the best place first."""
    return float((grades / np.log2(np.arange(2, len(grades) + 2))).sum())


def _answers(entries: Sequence[Entry], questions: Sequence[SampleQuestion], where: str) -> dict[str, Entry]:
    """The entries that answer the questions, by id."""
    known = {entry.id: entry for entry in entries}
    ids = dict.fromkeys(id_ for one in questions for id_ in one.grades)
    if missing := [id_ for id_ in ids if id_ not in known]:
        raise StoreError(f"{where} has no entry {shown(missing[0])}, which a question names; see wanted_ids")
    return {id_: known[id_] for id_ in ids}
