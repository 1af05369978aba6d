"""Excerpts: the words of a question that have a topic are marked, in whatever language."""

from __future__ import annotations

import pytest

from colpali_integrations.explain.snippet import mark_words, snippet


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
