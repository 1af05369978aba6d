"""A page's text for the terminal: `explain.snippet`, with the words of the question in bold."""

from __future__ import annotations

from rich.text import Text

from colpali_integrations.explain.snippet import mark_words, snippet

__all__ = ["marked", "snippet"]


def marked(text: str, question: str) -> Text:
    """The text with the words of the question in bold; words of one or two letters are not marked."""
    result = Text(text)
    for start, end in mark_words(text, question):
        result.stylize("bold yellow", start, end)
    return result
