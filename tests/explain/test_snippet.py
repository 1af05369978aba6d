"""Excerpts: the words of a question that have a topic are marked, in whatever language."""

from __future__ import annotations

import math
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations.explain.snippet import _best_start, mark_words, snippet


@pytest.mark.parametrize(
    ("question", "marked"),
    [
        ("What are the prices of bananas?", {"prices", "bananas"}),
        ("Wie hoch sind die Preise für Bananen?", {"hoch", "Preise", "Bananen"}),
        ("Quels sont les prix des bananes ?", {"prix", "bananes"}),
        ("¿Cuáles son los precios de las bananas?", {"precios", "bananas"}),
        ("Quali sono i prezzi delle banane?", {"prezzi", "banane"}),
        ("Hoe hoog zijn de prijzen van bananen?", {"hoog", "prijzen", "bananen"}),
        ("Какие цены на бананы?", {"цены", "бананы"}),
        ("Jakie są ceny bananów?", {"ceny", "bananów"}),
        ("Where did they die?", {"die"}),
        ("The Who", {"The", "Who"}),
    ],
)
def test_words_without_a_topic_are_not_marked(question: str, marked: set[str]) -> None:
    assert {question[start:end] for start, end in mark_words(question, question)} == marked


def test_an_excerpt_shows_the_words_with_a_topic() -> None:
    text = "the where which what that when " * 20 + "bananas cost more " + "lorem ipsum " * 40
    assert "bananas" in snippet(text, "where is the what that bananas", width=60)


def simple_best_start(positions: list[tuple[int, str]], reach: int) -> int:
    """The weight of the window at each word, from all later words."""
    counts = Counter(word for _, word in positions)
    best, best_weight = 0, 0.0
    for index, (start, _) in enumerate(positions):
        inside = {word for later, word in positions[index:] if later + len(word) <= start + reach}
        if (weight := math.fsum(len(word) / counts[word] for word in inside)) > best_weight:
            best, best_weight = start, weight
    return best


# Folding makes "ßß" longer than it is in the text, so that its end lies behind the next word's.
@given(
    st.lists(st.sampled_from(["a", "bb", "ccc", "ßß", "dddddd", "other"]), max_size=60).map(" ".join),
    st.integers(0, 40),
)
def test_the_moving_window_finds_what_a_look_at_all_words_finds(text: str, reach: int) -> None:
    matches = [(match.start(), match.group().casefold()) for match in re.finditer(r"\w+", text)]
    positions = [(start, word) for start, word in matches if word != "other"]
    assert _best_start(positions, reach) == simple_best_start(positions, reach)
