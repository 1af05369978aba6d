"""Find the part of a page's text with the most words of a question, which shows why the page matches."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Sequence

from colpali_integrations.explain._stop_words import telling_words

__all__ = ["mark_words", "snippet"]

_WORD = re.compile(r"\w+")


def snippet(text: str, question: str, *, width: int) -> str:
    """Find the window of `text` with the most specific words of the question.

    Words without a topic, such as "the", do not count. The weight of another one is its length divided by its count on
    the page. Of equal windows the first is returned.

    Args:
        text: a page's text; its line breaks and runs of blanks become single blanks.
        question: the question.
        width: approximate number of characters of the window.

    Returns:
        The window, with "…" where the text is cut; "" for a text without content.

    Example:
        >>> snippet("One two three four five six seven eight nine ten", "where is SEVEN?", width=18)
        '…seven eight nine…'
    """
    flat = " ".join(text.split())
    if len(flat) <= width:
        return flat
    words = telling_words(_words(question))
    matches = ((match.start(), match.group().casefold()) for match in _WORD.finditer(flat))
    best = _best_start([(start, word) for start, word in matches if word in words], width * 3 // 4)
    begin = max(0, min(best - width // 4, len(flat) - width))
    if begin:
        begin = flat.find(" ", begin) + 1 or begin
    end = min(len(flat), begin + width)
    if end < len(flat):
        blank = flat.rfind(" ", begin, end)
        end = blank if blank > begin else end
    return f"{'…' if begin else ''}{flat[begin:end]}{'…' if end < len(flat) else ''}"


def mark_words(text: str, question: str) -> list[tuple[int, int]]:
    """Find the words of a question in a text, without words of one or two letters and those without a topic.

    Returns:
        Start and end of each occurrence, in order.

    Example:
        >>> mark_words("Low tide and high tide", "the TIDE?")
        [(4, 8), (18, 22)]
    """
    words = {word for word in telling_words(_words(question)) if len(word) > 2}
    return [match.span() for match in _WORD.finditer(text) if match.group().casefold() in words]


def _best_start(positions: Sequence[tuple[int, str]], reach: int) -> int:
    """Where the window of `reach` characters with the most specific words begins; 0 without words.

    The window moves from word to word, so the time grows with the number of words.
    """
    weights = {word: len(word) / count for word, count in Counter(word for _, word in positions).items()}
    inside: Counter[str] = Counter()
    ahead = deque(sorted((start + len(word), start, word) for start, word in positions))
    best, best_weight = 0, 0.0
    for start, first in positions:
        while ahead and ahead[0][0] <= start + reach:
            _, begin, word = ahead.popleft()
            inside[word] += begin >= start  # otherwise the word is longer than the window that began with it
        weight = math.fsum(weights[word] for word, count in inside.items() if count)
        if weight > best_weight:
            best, best_weight = start, weight
        if inside[first]:
            inside[first] -= 1
    return best


def _words(question: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(question)}
