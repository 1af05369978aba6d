"""A PDF that says one word a page, and a counter of what the encoder is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from tests.stores.documents import draw, save_pdf

WORDS = ["violin", "mitochondria", "invoice"]


def word_pdf(path: Path, words: list[str] | None = None) -> Path:
    return save_pdf(path, *(draw(word) for word in words or WORDS))


def count_encoding(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many pages and texts every model encodes from now on ("pages", "texts"), and in how many calls ("calls")."""
    counts: Counter[str] = Counter()
    for name in ("embed_pages", "embed_images", "embed_queries", "embed_texts"):
        if hasattr(ColPali, name):
            monkeypatch.setattr(ColPali, name, _counted(getattr(ColPali, name), name, counts))
    return counts


def _counted(method: Any, name: str, counts: Counter[str]) -> Any:
    kind = "pages" if name in ("embed_pages", "embed_images") else "texts"

    def counted(self: ColPali, items: Any, **options: Any) -> Iterator[Any]:
        counts["calls"] += 1
        for found in method(self, items, **options):
            counts[kind] += 1
            yield found

    return counted
