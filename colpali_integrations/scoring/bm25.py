"""BM25 of a page's text layer as sparse vectors, for hybrid search with MaxSim.

A page's vector has the part of BM25 that depends on the page alone, the saturated and length-normalised count of each
word (Robertson and Zaragoza 2009). A query's vector has counts. The store multiplies by the words' rarity, so that new
pages never change the vectors of others::

    document value = n (k1 + 1) / (n + k1 (1 - b + b L / average_length))
    idf(word)      = ln(1 + (N - df + 0.5) / (df + 0.5))         N documents, df of them with the word
    score          = sum over shared words of query value * idf * document value

That idf is the one of Lucene and of Qdrant's `Modifier.IDF`; `inverse_frequency` computes it here. Stores count
documents with words, and leave out the words that all of these have: they tell none from another.

Words can be of any script. Identifiers, numbers and compounds are indexed whole *and* in parts: `fork_exec`, `3.14` and
`os.path` match exactly and by `fork`, `14` or `path`; `1,000`, `1.000`, `1'000` and `1,000.00` also match `1000`. A
hyphen joins: `E-1042` becomes `e1042`; `retrie-` at the end of a line and `val` on the next become `retrieval`. Plain
words are stemmed, then lose their accents; `r´esistance`, as older TeX documents have it, is the word `résistance`.
Stop words stay (see `Bm25`). Scripts without spaces (Chinese, Japanese, Thai) are indexed as pairs of characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._accents import composed_accents
from colpali_integrations._forks import ForkLock
from colpali_integrations.errors import ConfigurationError

__all__ = [
    "TOKENIZER",
    "Bm25",
    "SparseVector",
    "TextVectors",
    "bm25_scores",
    "has_words",
    "inverse_frequency",
    "stemmed_languages",
]

TOKENIZER = 3
"""The version of the splitting of texts into words; 1 did not join numbers with separators of thousands, 2 did not put
accents and letters together that a text layer has as two characters."""

# Letters, digits, "_", and the vowel signs of Indic and South-East Asian scripts, which \w does not match in Python.
_SIGNS = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3"
_CHARACTER = rf"[\w{_SIGNS}]"
_LETTER = re.compile(rf"[^\W_]|[{_SIGNS}]")
# Runs, joined by the characters inside identifiers, numbers and contractions; C++ and C# are whole names.
_RUN = re.compile(rf"{_CHARACTER}+(?:(?:[.\-'’‐‑]|(?<=\d),(?=\d)){_CHARACTER}+)*(?:\+\+|#)?")
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PAIRED = re.compile(rf"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
# 1,000,000 with any separator of thousands, and 10,00,000 of India; decimals after another separator, and a unit.
_THOUSANDS = re.compile(r"(\d{1,3}([.,'’])\d{3}(?:\2\d{3})*|\d{1,2}(?:,\d{2})+(,)\d{3})(?:(?!\2|\3)[.,]\d+)?[^\W\d_]*")
# 1 000 000 with spaces at which no line breaks, or thin ones; NFKC makes ordinary spaces of them.
_GAP = "[\u00a0\u202f\u2009]"
_SPACED = re.compile(rf"(?<!\d)(?<!\d{_GAP})\d{{1,3}}(?:{_GAP}\d{{3}})+(?!\d|{_GAP}\d)")
_HYPHENS = re.compile("[-‐‑]")
_APOSTROPHES = re.compile("['’]")
# Soft hyphens, as PDF extractors write them, and hard ones at the end of a line before a letter.
_SOFT_HYPHEN = re.compile("[\u00ad\ufffe\x02]\\s*")
_HYPHEN_AND_BLANKS = re.compile(r"[-‐](?<=[^\W\d_][-‐])\s+(?=[^\W\d_])")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ACCENTS = re.compile("[\u0300-\u036f]")

# These stemmers do not handle accents: their input must be "naive", not "naïve".
_WITHOUT_ACCENTS = ("english", "lovins", "porter")

# Words in the cache of their indices, a few hundred bytes each. Longer words are rare and not cached.
_CACHED_WORDS = 100_000
_CACHED_LENGTH = 64


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
    """Encoder of text to sparse BM25 vectors, which threads can share.

    An index is the first 32 bits of BLAKE2b of the word, the same on every machine. Two words can share an index and
    then count as one word; among 100,000 different words about one pair does (n^2 / 2^33).

    Stop words are indexed too: their idf is nearly zero, so leaving them out would change little, make "to be or not
    to be" impossible to find, and require a list per language.

    Args:
        language: the language of the stemmer, one of `snowballstemmer.algorithms()`; None leaves words as they are.
            Text in other languages can be found too, but not by other inflections.
        k1: saturation of a word's count.
        b: weight of the normalisation by length, 0 to 1.
        tokenizer: the version of the splitting into words; texts and questions need the same.
        average_length: number of words of an average page. It is fixed, so that a page's vector does not change when
            pages are added. The default fits manuals and reports.

    Raises:
        ConfigurationError: the language is unknown, or a constant has an invalid value.

    Example:
        >>> bm25 = Bm25()
        >>> page = bm25.document("Each worker calls fork_exec once.")
        >>> [len(np.intersect1d(bm25.query(text).indices, page.indices)) for text in ("workers", "exec", "thread")]
        [1, 1, 0]
    """

    def __init__(
        self,
        *,
        language: str | None = "english",
        k1: float = 1.2,
        b: float = 0.75,
        average_length: float = 400.0,
        tokenizer: int = TOKENIZER,
    ) -> None:
        if tokenizer not in range(1, TOKENIZER + 1):
            raise ConfigurationError(f"Bm25: tokenizer must be from 1 to {TOKENIZER}, got {tokenizer!r}")
        if not (0 <= k1 < float("inf") and 0 <= b <= 1 and 0 < average_length < float("inf")):
            raise ConfigurationError(
                f"Bm25: k1 must be at least 0, b 0 to 1 and average_length positive, got {k1}, {b}, {average_length}"
            )
        self.language, self.k1, self.b, self.average_length = language, k1, b, average_length
        self.tokenizer = tokenizer
        self._stemmer = None if language is None else _stemmer(language)
        self._lock = ForkLock()  # a stemmer's state is the word in work
        self._cached_indices = lru_cache(_CACHED_WORDS)(self._indices)

    def document(self, text: str) -> SparseVector:
        """Encode a page: its words and their saturated counts.

        Args:
            text: the text layer; "" gives an empty vector.

        Returns:
            A vector of values in (0, k1 + 1).
        """
        counts = self._counts(text)
        indices, count = _arrays(counts)
        norm = self.k1 * (1 - self.b + self.b * float(count.sum()) / self.average_length)
        return SparseVector(indices, (count * (self.k1 + 1) / (count + norm)).astype(np.float32))

    def query(self, text: str) -> SparseVector:
        """Encode a query: its words and their counts.

        Args:
            text: the query.

        Returns:
            A vector of integral values; empty for a text without words.
        """
        indices, count = _arrays(self._counts(text))
        return SparseVector(indices, count.astype(np.float32))

    def words(self, text: str) -> list[str]:
        """List the words of a text as they are indexed, in order, for explanations and tests.

        Args:
            text: any text.

        Returns:
            Stemmed and folded words; the parts of a compound follow it.

        Example:
            >>> Bm25().words("Libraries: libfoo_init(3.14)")
            ['librari', 'libfoo_init', 'libfoo', 'init', '3.14', '3', '14']
        """
        return [word for run in self._runs(text) for word in self._words(run)]

    def _runs(self, text: str) -> list[str]:
        text = composed_accents(text) if self.tokenizer > 2 else text
        return _RUN.findall(_clean(_SPACED.sub(_separated, text) if self.tokenizer > 1 else text))

    def _counts(self, text: str) -> Counter[int]:
        indices: list[int] = []
        for run in self._runs(text):
            indices += self._cached_indices(run) if len(run) <= _CACHED_LENGTH else self._indices(run)
        return Counter(indices)

    def _indices(self, run: str) -> tuple[int, ...]:
        digests = (blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4) for word in self._words(run))
        return tuple(int.from_bytes(digest.digest(), "little") for digest in digests)

    def _words(self, run: str) -> list[str]:
        with self._lock:
            return [_unaccented(word) for word in self._forms(run)]

    def _forms(self, run: str) -> Iterator[str]:
        """Yield the parts of a run, and before them the whole run if it is more than a word."""
        if run.endswith(("++", "#")):
            yield run.casefold()
            run = run.rstrip("+#")
        if self.tokenizer > 1:
            for number in filter(None, map(_THOUSANDS.fullmatch, _HYPHENS.split(run))):
                yield re.sub(r"\D", "", number[1])
        pieces = _APOSTROPHES.split(run)
        if len(pieces) > 1:
            # l'eau, user's, don't: short pieces are articles and endings
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
            return folded  # codes and numbers are indexed as they are
        if self.language in _WITHOUT_ACCENTS:
            folded = _unaccented(folded)
        return str(self._stemmer.stemWord(folded))


def has_words(text: str) -> bool:
    """Whether a text has any word, of whatever language; as `Bm25.document` has it, and faster.

    >>> has_words("• 7"), has_words("• —")
    (True, False)
    """
    return _LETTER.search(text) is not None or _LETTER.search(_clean(text)) is not None


class TextVectors:
    """The sparse vectors of many documents side by side, for many queries.

    Args:
        documents: vectors from `Bm25.document`; empty ones score 0 and count towards N.
    """

    def __init__(self, documents: Sequence[SparseVector]) -> None:
        self._number = len(documents)
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        self._owners = np.repeat(np.arange(len(documents), dtype=np.int32), lengths)
        parts = documents or [SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))]
        self._indices = np.concatenate([document.indices for document in parts])
        self._values = np.concatenate([document.values for document in parts])

    def scores(self, query: SparseVector, *, common_words: bool = True) -> NDArray[np.float32]:
        """As `bm25_scores` of these documents."""
        if not len(query):
            return np.zeros(self._number, np.float32)
        # Nearly no entry is of a word of the query: a table of the low 16 bits excludes most in a tenth of the time.
        low_bits = np.zeros(2**16, bool)
        low_bits[query.indices & 0xFFFF] = True
        near = np.flatnonzero(low_bits[self._indices & 0xFFFF])
        word = np.minimum(np.searchsorted(query.indices, self._indices[near]), len(query) - 1)
        exact = query.indices[word] == self._indices[near]
        word, shared = word[exact], near[exact]
        frequency = np.bincount(word, minlength=len(query))
        idf = inverse_frequency(frequency, self._number, common_words=common_words)
        weights = self._values[shared] * (query.values * idf)[word]
        return np.bincount(self._owners[shared], weights, minlength=self._number).astype(np.float32)


def bm25_scores(
    query: SparseVector, documents: Sequence[SparseVector], *, common_words: bool = True
) -> NDArray[np.float32]:
    """Score one query with every document; the idf is that of these documents.

    Args:
        query: a vector from `Bm25.query`.
        documents: vectors from `Bm25.document`; empty ones score 0 and count towards N.
        common_words: whether words that all documents have count, by their small idf.

    Returns:
        float32 (n_documents,), at least 0.

    Example:
        >>> bm25 = Bm25()
        >>> pages = [bm25.document(text) for text in ("the red fox", "the red hen", "the end")]
        >>> int(bm25_scores(bm25.query("foxes"), pages).argmax())
        0
    """
    return TextVectors(documents).scores(query, common_words=common_words)


def inverse_frequency(
    frequency: NDArray[np.int64], documents: int, *, common_words: bool = True
) -> NDArray[np.float64]:
    """The weight of words by their rarity, idf in the formula above.

    Args:
        frequency: int64 (n_words,), number of documents with each word.
        documents: number of all documents.
        common_words: whether words that all documents have count; else their weight is 0.

    Example:
        >>> inverse_frequency(np.array([1, 3, 4]), 4, common_words=False).round(2).tolist()
        [1.2, 0.36, 0.0]
    """
    idf: NDArray[np.float64] = np.log1p((documents - frequency + 0.5) / (frequency + 0.5))
    return idf if common_words else np.where(frequency < documents, idf, 0.0)


def stemmed_languages() -> list[str]:
    """The languages that have a stemmer.

    >>> "german" in stemmed_languages(), "klingon" in stemmed_languages()
    (True, False)
    """
    import snowballstemmer  # takes 20 ms to load its stemmers, which programs without BM25 need not wait for

    return sorted(snowballstemmer.algorithms())


def _stemmer(language: str) -> Any:
    import snowballstemmer

    languages = stemmed_languages()
    if language not in languages:
        raise ConfigurationError(
            f"Bm25: there is no stemmer for the language {language!r}; pass None or one of {', '.join(languages)}"
        )
    return snowballstemmer.stemmer(language)


def _clean(text: str) -> str:
    """Replace compatibility forms (ligatures, full width) by plain ones, and join words divided between two lines."""
    text = unicodedata.normalize("NFKC", _SOFT_HYPHEN.sub("", text))
    return _HYPHEN_AND_BLANKS.sub(lambda match: "-" if "\n" in match[0] else match[0], text)


def _separated(number: re.Match[str]) -> str:
    """A number with spaces, with a separator of thousands that its decimals do not have."""
    return re.sub(r"\D", "." if number.string[number.end() : number.end() + 1] == "," else ",", number[0])


def _unaccented(word: str) -> str:
    """Remove the accents of Latin, Greek and Cyrillic letters; vowel signs of other scripts stay."""
    return word if word.isascii() else _ACCENTS.sub("", unicodedata.normalize("NFKD", word))


def _pairs(text: str) -> Iterator[str]:
    for run in _PAIRED.findall(text):
        if len(run) == 1 or not _IS_UNSPACED.match(run):
            yield run.casefold()
        else:
            yield from (run[start : start + 2] for start in range(len(run) - 1))


def _arrays(counts: Counter[int]) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    indices = np.fromiter(counts.keys(), np.uint32, len(counts))
    order = np.argsort(indices)
    return indices[order], np.fromiter(counts.values(), np.float64, len(counts))[order]
