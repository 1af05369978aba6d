"""ColTiny's words: split a query into words, and a word into the ids of its spelling features.

Used by the family at run time and by ``training/``, so that both spell alike. A query is folded to the model's alphabet
(a to z, digits, and ``.`` ``,`` inside numbers): case and accents are removed, ligatures are opened. Each word is then
described by its spelling alone, so any word, number or code has a vector.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
import zlib

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789.,"
_CHARACTER_ID = {character: index for index, character in enumerate(_ALPHABET)}
_POSITIONS = 10
_TRIGRAM_BUCKETS = 8192
_LENGTHS = 32
_SPELLED = len(_ALPHABET) * _POSITIONS
_BIGRAM_BASE = 2 * _SPELLED
_BIGRAM_SIDE = len(_ALPHABET) + 2
_TRIGRAM_BASE = _BIGRAM_BASE + _BIGRAM_SIDE**2
_LENGTH_BASE = _TRIGRAM_BASE + _TRIGRAM_BUCKETS
FEATURE_COUNT = _LENGTH_BASE + _LENGTHS
"""Number of spelling features; the id ``FEATURE_COUNT`` itself is padding, whose embedding is zero."""
MAX_WORD_LENGTH = 48
"""Longer words are cut to this length: no page prints them in one line, and the features must stay bounded."""

MAX_WORD_FEATURES = 2 * _POSITIONS + 2 * MAX_WORD_LENGTH + 2
"""Maximum number of features of a word: ten positions from either end, 49 pairs, 48 triples and the length."""

_WORD = re.compile(r"\d+(?:[.,]\d+)+|[a-z0-9]+")
# Letters that Unicode does not decompose although they have a spelling in plain letters.
_OPENED = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i", "ħ": "h", "ŧ": "t"}
)
STOP_WORDS = frozenset(
    {
        "the", "a", "an", "of", "to", "in", "and", "or", "for", "is", "are", "be", "on", "as", "by", "with", "that",
        "this", "it", "at", "from", "not", "if", "can", "do", "does", "did", "how", "what", "which", "when", "where",
        "why", "who", "i", "my", "you", "your", "will", "would", "should", "there", "any", "one", "was", "were",
        "has", "have", "had", "its", "into", "than", "then", "so", "but",
    }
)  # fmt: skip
"""English words without a topic (a short list of our own, chosen before any evaluation)."""


def fold(text: str) -> str:
    """Lower-case ``text`` and reduce it to ASCII where it has an ASCII spelling: ``"Größe"`` to ``"grosse"``."""
    opened = unicodedata.normalize("NFKD", text.casefold()).translate(_OPENED)
    return "".join(c for c in opened if not unicodedata.combining(c)).lower()


def words(text: str) -> list[str]:
    """All words of ``text`` in order, folded.

    >>> words("Kapitel 3.14: fork_exec (Überblick)")
    ['kapitel', '3.14', 'fork', 'exec', 'uberblick']
    """
    return [match[:MAX_WORD_LENGTH] for match in _WORD.findall(fold(text))]


def query_words(text: str) -> list[str]:
    """The words of a query that are searched on pages, in order, at least one.

    Stop words (:data:`STOP_WORDS`) and single letters are left out, unless the query has no other words. Text without
    a letter or digit of the model's alphabet (another script, emoji, punctuation) is split at white space and otherwise
    unchanged: :func:`word_features` hashes the pieces to fixed, finite vectors that match no word in particular.
    """
    every = words(text)
    telling = [word for word in every if word not in STOP_WORDS and (len(word) > 1 or word.isdigit())]
    return telling or every or [piece[:MAX_WORD_LENGTH] for piece in text.split()] or [text]


def word_features(word: str) -> list[int]:
    """Ids of the spelling features of one word, each in ``range(FEATURE_COUNT)``.

    Features are characters by position from the left and from the right (first ten of each), character pairs and hashed
    character triples with word boundaries, and the length. Triples are hashed by CRC-32, so the ids are the same on
    every platform. Characters outside the alphabet are part of the triples only.
    """
    ids: list[int] = []
    codes = [_CHARACTER_ID.get(character) for character in word]
    last = len(word) - 1
    for index, code in enumerate(codes):
        if code is None:
            continue
        if index < _POSITIONS:
            ids.append(index * len(_ALPHABET) + code)
        if last - index < _POSITIONS:
            ids.append(_SPELLED + (last - index) * len(_ALPHABET) + code)
    bounded = [len(_ALPHABET), *codes, len(_ALPHABET) + 1]
    for left, right in itertools.pairwise(bounded):
        if left is not None and right is not None:
            ids.append(_BIGRAM_BASE + left * _BIGRAM_SIDE + right)
    marked = f"^{word}$"
    for start in range(len(marked) - 2):
        triple = marked[start : start + 3].encode("utf-8", "surrogatepass")
        ids.append(_TRIGRAM_BASE + zlib.crc32(triple) % _TRIGRAM_BUCKETS)
    ids.append(_LENGTH_BASE + min(len(word), _LENGTHS - 1))
    return ids
