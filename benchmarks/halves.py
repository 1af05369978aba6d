"""The scores of both halves of a hybrid search, of all pages for all questions of a set, and changes of them.

MaxSim by ColTiny and BM25 with English stems, as a store in memory computes them. They are kept beside the vectors, so
that ways to fuse them can be tried in seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import coltiny_set, hard_set, mixed_set
from benchmarks.coltiny_quality import MODEL, digest
from benchmarks.mixed_set import crowd
from benchmarks.page_set import Document, Page, Question
from benchmarks.quality import encoded
from colpali_integrations import ColPali
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.bm25 import Bm25, SparseVector, bm25_scores
from colpali_integrations.scoring.maxsim import max_sim

KEPT = Path(__file__).parent / "work" / "halves"
Flags = NDArray[np.bool_]
_ENGLISH = Bm25()


@dataclass(frozen=True)
class Scores:
    """Both halves' scores of n pages for q questions.

    Attributes:
        name: of the set.
        sight: (q, n) MaxSim.
        words: (q, n) BM25; 0 for a page without a word of the question.
        textless: (n,) pages without a text layer; (q, n) where each question has pages of its own.
        relevant: (q, n) pages that answer.
        half: (q,) "dev" or "test", by the question's document.
        kind: (q,) of each question.
        document: (q,) that the question is about.
    """

    name: str
    sight: Float32
    words: Float32
    textless: Flags
    relevant: Flags
    half: NDArray[np.str_]
    kind: NDArray[np.str_]
    document: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.sight)

    def only(self, chosen: Flags | NDArray[np.int64]) -> Scores:
        """Some of the questions, over all pages."""
        rows = ["sight", "words", "relevant", "half", "kind", "document"]
        rows += ["textless"] * (self.textless.ndim == 2)
        return replace(self, **{name: getattr(self, name)[chosen] for name in rows})


def bm25(texts: Sequence[str], asked: Sequence[str]) -> Float32:
    """(q, n) BM25 as a store in memory has it: the idf of the pages with text; words that all of them have count 0."""
    places = np.array([place for place, text in enumerate(texts) if text.strip()], np.int64)
    documents = [_document(texts[place]) for place in places]
    found = np.zeros((len(asked), len(texts)), np.float32)
    for row, text in zip(found, asked, strict=True):
        row[places] = bm25_scores(_ENGLISH.query(text), documents, common_words=False)
    return found


@cache
def _document(text: str) -> SparseVector:
    return _ENGLISH.document(text)


def scored(
    name: str,
    model: ColPali,
    pages: Sequence[Page],
    asked: Sequence[Question],
    documents: Sequence[Document],
    vectors: Sequence[Float32],
) -> Scores:
    """Score every page of a set for every question."""
    texts = [question.text for question in asked]
    place = {page.name: number for number, page in enumerate(pages)}
    relevant = np.zeros((len(asked), len(pages)), bool)
    for row, question in zip(relevant, asked, strict=True):
        row[[place[page] for page in question.pages]] = True
    half = {document.name: document.half for document in documents}
    return Scores(
        name,
        _kept(f"{name}-{len(pages)}", texts, lambda: max_sim(list(model.embed_queries(texts)), list(vectors))),
        bm25([page.text for page in pages], texts),
        np.array([not page.text.strip() for page in pages]),
        relevant,
        np.array([half[question.document] for question in asked]),
        np.array([question.kind for question in asked]),
        np.array([question.document for question in asked]),
    )


def _kept(name: str, texts: Sequence[str], score: Any) -> Float32:
    """Scores of an earlier run of the same model and questions, or new ones."""
    questions = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
    path = KEPT / f"{digest(MODEL)}-{questions}-{name}.npy"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        np.save(path, score())
    found: Float32 = np.load(path)
    return found


def sets(model: ColPali) -> list[Scores]:
    """The three sets, scored."""
    found = []
    for name, module in (("first", coltiny_set), ("second", hard_set), ("mixed", mixed_set)):
        pages = module.load()
        vectors = encoded(model, name, pages)
        found.append(scored(name, model, pages, module.questions(), module.documents(), vectors))
    return found


def crowded(model: ColPali, scores: Scores, sizes: Sequence[int]) -> list[Scores]:
    """The mixed set among further pages, so that there are as many as each of `sizes`, as far as they were encoded."""
    asked = [question.text for question in mixed_set.questions()]
    own = [page.text for page in mixed_set.load()]
    queries = list(model.embed_queries(asked))
    seen, texts = [], []
    for number, (vectors, layers) in enumerate(crowd.encoded(mixed_set.WORK / "crowd", max(sizes) - len(own))):
        seen.append(_kept(f"crowd-{number:04d}", asked, lambda vectors=vectors: max_sim(queries, vectors)))
        texts += layers
    sight = np.concatenate([scores.sight, *seen], axis=1)
    found = []
    for size in sorted({min(size, sight.shape[1]) for size in sizes}):
        layers = [*own, *texts][:size]
        beyond = np.zeros((len(scores), size - len(own)), bool)
        found.append(
            replace(
                scores,
                name=f"{size:,} pages",
                sight=sight[:, :size],
                words=bm25(layers, asked),
                textless=np.array([not text.strip() for text in layers]),
                relevant=np.concatenate([scores.relevant, beyond], axis=1),
            )
        )
    return found


def small(scores: Scores, size: int = 10, draws: int = 3, seed: int = 0) -> Scores:
    """Stores of a few pages: for each question one page that answers and others that do not.

    Half of the others are of the same document where it has as many. The idf is that of these pages.
    """
    random = np.random.default_rng(seed)
    asked = mixed_set.questions()
    pages = mixed_set.load()
    owner = np.array([page.document.name for page in pages])
    rows: dict[str, list[Any]] = {"sight": [], "words": [], "relevant": [], "blank": []}
    chosen = []
    for number, question in list(enumerate(asked)) * draws:
        wrong = np.flatnonzero(~scores.relevant[number])
        near = random.permutation(wrong[owner[wrong] == question.document])[: (size - 1) // 2]
        far = random.permutation(wrong[owner[wrong] != question.document])[: size - 1 - len(near)]
        right = random.permutation(np.flatnonzero(scores.relevant[number]))[:1]
        kept = random.permutation(np.concatenate([right, near, far]))
        rows["sight"].append(scores.sight[number, kept])
        rows["words"].append(bm25([pages[place].text for place in kept], [question.text])[0])
        rows["relevant"].append(scores.relevant[number, kept])
        rows["blank"].append(scores.textless[kept])
        chosen.append(number)
    stores = scores.only(np.array(chosen))
    return replace(
        stores,
        name=f"{size} pages",
        sight=np.stack(rows["sight"]),
        words=np.stack(rows["words"]),
        relevant=np.stack(rows["relevant"]),
        textless=np.stack(rows["blank"]),
    )


def better_sight(scores: Scores, lift: float, *, own_mistakes: bool, seed: int = 0) -> Scores:
    """A half that sees better: z-scores of noise, pages that answer lifted by `lift`.

    Args:
        scores: of both halves.
        lift: in standard deviations of a question's scores.
        own_mistakes: the noise is ColTiny's scores, which errs where words err too; else it is normal.
        seed: of the noise.
    """
    random = np.random.default_rng(seed)
    noise = random.normal(size=scores.sight.shape)
    if own_mistakes:
        spread = scores.sight.std(axis=1, keepdims=True)
        noise = 0.3 * noise + (scores.sight - scores.sight.mean(axis=1, keepdims=True)) / spread
    return replace(scores, sight=(20 + noise + lift * scores.relevant).astype(np.float32))


def without_text(scores: Scores) -> Scores:
    """The same pages, all as scans."""
    return replace(scores, words=np.zeros_like(scores.words), textless=np.ones_like(scores.textless))
