"""BM25 of a page's text layer as sparse vectors, for hybrid search beside MaxSim.

A page's vector holds the part of BM25 that the page alone decides, the saturated and length-normalised count of each
word (Robertson and Zaragoza 2009); a query's vector holds counts; the store that keeps the vectors multiplies by the
words' rarity, so nothing needs a second pass over the pages::

    document value = n (k1 + 1) / (n + k1 (1 - b + b L / average_length))
    idf(word)      = ln(1 + (N - df + 0.5) / (df + 0.5))         N documents, df of them with the word
    score          = sum over shared words of query value * idf * document value

That idf is the one of Lucene and of Qdrant's `Modifier.IDF`; `bm25_scores` computes it here.

Words are those of any script. Identifiers, numbers and compounds are kept whole *and* in parts: `fork_exec`, `3.14`
and `os.path` are found exactly and by `fork`, `14` or `path`; a hyphen joins (`E-1042` is `e1042`, `retrie-` at a
line's end and `val` on the next are `retrieval`). Plain words are stemmed, then lose their accents. No stop words: see
`Bm25`. Chinese, Japanese, Thai and their like, written without spaces, are taken as pairs of characters.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError

__all__ = ["Bm25", "SparseVector", "bm25_scores"]

# Letters, digits, "_", and the vowel signs of Indic and South-East Asian scripts, which are no \w for Python.
_SIGNS = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3"
_CHARACTER = rf"[\w{_SIGNS}]"
# Runs joined by what stands inside identifiers, numbers and contractions; C++ and C# are names of their own.
_RUN = re.compile(rf"{_CHARACTER}+(?:(?:[.\-'’‐‑]|(?<=\d),(?=\d)){_CHARACTER}+)*(?:\+\+|#)?")
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PAIRED = re.compile(rf"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_HYPHENS = re.compile("[-‐‑]")
_APOSTROPHES = re.compile("['’]")
# Soft hyphens, as PDF extractors spell them, and hard ones at a line's end before a letter.
_SOFT_HYPHEN = re.compile("[\u00ad\ufffe\x02]\\s*")
_LINE_END = re.compile(r"[-‐](?<=[^\W\d_][-‐])\s*\n\s*(?=[^\W\d_])")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ACCENTS = re.compile("[\u0300-\u036f]")

# Their stemmers know no accents: "naïve" must be "naive" before they see it.
_WITHOUT_ACCENTS = ("english", "lovins", "porter")

# Words, with what they became, kept for the next page: a few hundred bytes each. Longer ones are rare and not kept.
_KEPT_WORDS = 100_000
_KEPT_LENGTH = 64


@dataclass(frozen=True, eq=False)
class SparseVector:
    """The non-zero entries of a sparse vector.

    Attributes:
        indices: uint32 (n,), ascending, each once.
        values: float32 (n,).
    """

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.indices)


class Bm25:
    """Text to sparse BM25 vectors. Safe to share between threads.

    An index is the first 32 bits of BLAKE2b of the word, the same on every machine. Two words can share one: among
    100,000 different words about one pair does (n^2 / 2^33), and then counts as one word.

    No stop words are left out: their idf is next to nothing already, so leaving them out changes little and would
    make "to be or not to be" unfindable and every language need a list.

    Args:
        language: of the stemmer, one of `snowballstemmer.algorithms()`; None leaves words as they are. Text in
            another language is found all the same, only without its inflections.
        k1: saturation of a word's count.
        b: share of the normalisation by length, 0 to 1.
        average_length: words of an average page, fixed rather than counted so that a page's vector never changes
            when others are added. The default is that of manuals and reports.

    Raises:
        ConfigurationError: unknown language, or a constant out of range.

    Example:
        >>> bm25 = Bm25()
        >>> page = bm25.document("Each worker calls fork_exec once.")
        >>> [len(np.intersect1d(bm25.query(text).indices, page.indices)) for text in ("workers", "exec", "thread")]
        [1, 1, 0]
    """

    def __init__(
        self, *, language: str | None = "english", k1: float = 1.2, b: float = 0.75, average_length: float = 400.0
    ) -> None:
        if not (0 <= k1 < float("inf") and 0 <= b <= 1 and 0 < average_length < float("inf")):
            raise ConfigurationError(
                f"Bm25: k1 must be at least 0, b 0 to 1 and average_length positive, got {k1}, {b}, {average_length}"
            )
        self.language, self.k1, self.b, self.average_length = language, k1, b, average_length
        self._stemmer = None if language is None else _stemmer(language)
        self._lock = threading.Lock()  # a stemmer keeps the word that it works on
        self._seen: dict[str, tuple[int, ...]] = {}

    def document(self, text: str) -> SparseVector:
        """A page's words and their saturated counts.

        Args:
            text: the text layer; "" gives an empty vector.

        Returns:
            Values in (0, k1 + 1).
        """
        counts = self._counts(text)
        indices, count = _arrays(counts)
        norm = self.k1 * (1 - self.b + self.b * float(count.sum()) / self.average_length)
        return SparseVector(indices, (count * (self.k1 + 1) / (count + norm)).astype(np.float32))

    def query(self, text: str) -> SparseVector:
        """A query's words and how often it says each.

        Args:
            text: the query.

        Returns:
            Whole numbers as values; empty when the text has no word.
        """
        indices, count = _arrays(self._counts(text))
        return SparseVector(indices, count.astype(np.float32))

    def words(self, text: str) -> list[str]:
        """The words of a text as they are indexed, in order, for explanations and tests.

        Args:
            text: any text.

        Returns:
            Stemmed and folded words; parts follow the compound that they come from.

        Example:
            >>> Bm25().words("Libraries: libfoo_init(3.14)")
            ['librari', 'libfoo_init', 'libfoo', 'init', '3.14', '3', '14']
        """
        return [word for run in _RUN.findall(_clean(text)) for word in self._words(run)]

    def _counts(self, text: str) -> Counter[int]:
        seen = self._seen
        found: list[int] = []
        for run in _RUN.findall(_clean(text)):
            indices = seen.get(run)
            if indices is None:
                indices = self._learn(run)
            found += indices
        return Counter(found)

    def _learn(self, run: str) -> tuple[int, ...]:
        indices = tuple(_index(word) for word in self._words(run))
        if len(run) <= _KEPT_LENGTH:
            if len(self._seen) >= _KEPT_WORDS:
                self._seen = {}  # a new one: another thread may be reading the old
            self._seen[run] = indices
        return indices

    def _words(self, run: str) -> list[str]:
        with self._lock:
            return [_unaccented(word) for word in self._forms(run)]

    def _forms(self, run: str) -> Iterator[str]:
        """The whole of a run that is more than a word, and its parts."""
        if run.endswith(("++", "#")):
            yield run.casefold()
            run = run.rstrip("+#")
        pieces = _APOSTROPHES.split(run)
        if len(pieces) > 1:
            # l'eau, user's, don't: what is cut off is an article or an ending
            pieces = [piece for piece in pieces if len(piece) > 2] or pieces
        for piece in pieces:
            joined = _HYPHENS.sub("", piece)
            parts = [part for part in re.split(r"[._,\-‐‑]+", piece) if part]
            if parts and (len(parts) > 1 or parts[0] != piece):
                yield self._stem(joined)
            for part in parts:
                humps = _CAMEL.split(part)
                if len(humps) > 1:
                    yield self._stem(part)
                for hump in humps:
                    if _IS_UNSPACED.search(hump):
                        yield from _pairs(hump)
                    else:
                        yield self._stem(hump)

    def _stem(self, word: str) -> str:
        folded = word.casefold()
        if self._stemmer is None or not folded.isalpha():
            return folded  # codes and numbers are to be found as they are
        if self.language in _WITHOUT_ACCENTS:
            folded = _unaccented(folded)
        return str(self._stemmer.stemWord(folded))


def bm25_scores(query: SparseVector, documents: Sequence[SparseVector]) -> NDArray[np.float32]:
    """Scores of one query with every document, the idf taken from these documents.

    Args:
        query: from `Bm25.query`.
        documents: from `Bm25.document`; empty ones score 0 and count towards N.

    Returns:
        float32 (n_documents,), at least 0.

    Example:
        >>> bm25 = Bm25()
        >>> pages = [bm25.document(text) for text in ("the red fox", "the red hen", "the end")]
        >>> int(bm25_scores(bm25.query("foxes"), pages).argmax())
        0
    """
    if not documents or not len(query):
        return np.zeros(len(documents), np.float32)
    indices = np.concatenate([document.indices for document in documents])
    values = np.concatenate([document.values for document in documents])
    owner = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
    # Nearly every entry is of a word not asked for: a table of the low 16 bits tells at a tenth of a search's time.
    asked = np.zeros(2**16, bool)
    asked[query.indices & 0xFFFF] = True
    near = np.flatnonzero(asked[indices & 0xFFFF])
    place = np.minimum(np.searchsorted(query.indices, indices[near]), len(query) - 1)
    exact = query.indices[place] == indices[near]
    place, shared = place[exact], near[exact]
    frequency = np.bincount(place, minlength=len(query))
    idf = np.log1p((len(documents) - frequency + 0.5) / (frequency + 0.5))
    weights = values[shared] * (query.values * idf)[place]
    return np.bincount(owner[shared], weights, minlength=len(documents)).astype(np.float32)


def _stemmer(language: str) -> Any:
    # Imported here: its stemmers for every language take 20 ms to load, which programs without BM25 should not wait.
    import snowballstemmer

    known = snowballstemmer.algorithms()
    if language not in known:
        raise ConfigurationError(
            f"Bm25: no stemmer for language {language!r}; give None or one of {', '.join(sorted(known))}"
        )
    return snowballstemmer.stemmer(language)


def _clean(text: str) -> str:
    """Compatibility forms (ligatures, full width) as plain ones, and words whole that a line's end cut in two."""
    text = unicodedata.normalize("NFKC", _SOFT_HYPHEN.sub("", text))
    return _LINE_END.sub("-", text)


def _unaccented(word: str) -> str:
    """Without the accents of Latin, Greek and Cyrillic letters; vowel signs of other scripts are kept."""
    return word if word.isascii() else _ACCENTS.sub("", unicodedata.normalize("NFKD", word))


def _pairs(text: str) -> Iterator[str]:
    for run in _PAIRED.findall(text):
        if len(run) == 1 or not _IS_UNSPACED.match(run):
            yield run.casefold()
        else:
            yield from (run[start : start + 2] for start in range(len(run) - 1))


def _index(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "little")


def _arrays(counts: Counter[int]) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    indices = np.fromiter(counts.keys(), np.uint32, len(counts))
    order = np.argsort(indices)
    return indices[order], np.fromiter(counts.values(), np.float64, len(counts))[order]
