"""A PDF with one word per page, and embeddings that count the encoded pages and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.langchain import ColPaliEmbeddings
from colpali_integrations.pages.reference import encode_base64
from tests.stores.documents import draw, save_pdf

WORDS = ["violin", "mitochondria", "invoice"]


def word_pdf(path: Path, words: list[str] | None = None) -> Path:
    return save_pdf(path, *(draw(word) for word in words or WORDS))


def with_texts(pictures: list[Image.Image], texts: list[str]) -> list[Document]:
    """Pages that carry their pictures, with other texts, as of an OCR."""
    return [
        Document(text, metadata={"image_base64": encode_base64(picture)})
        for picture, text in zip(pictures, texts, strict=True)
    ]


class CountingModel(ColPali):
    """Counts encoded pages and texts ("pages", "texts"), and the calls ("calls")."""

    counts: Counter[str]

    def embed_pages(self, *given: Any, **options: Any) -> Any:
        return self._counted("pages", super().embed_pages(*given, **options))

    def embed_images(self, *given: Any, **options: Any) -> Any:
        return self._counted("pages", super().embed_images(*given, **options))

    def embed_queries(self, *given: Any, **options: Any) -> Any:
        return self._counted("texts", super().embed_queries(*given, **options))

    def embed_texts(self, *given: Any, **options: Any) -> Any:
        return self._counted("texts", super().embed_texts(*given, **options))

    def _counted(self, kind: str, results: Any) -> Iterator[Any]:
        self.counts["calls"] += 1
        try:
            for found in results:
                self.counts[kind] += 1
                yield found
        finally:
            results.close()


@cache
def counting_model() -> CountingModel:
    model = CountingModel.from_pretrained()
    assert isinstance(model, CountingModel)
    model.counts = Counter()
    return model


class CountingEmbeddings(ColPaliEmbeddings):
    """Embeddings by the one counting model, whose counts begin anew."""

    def model_post_init(self, context: Any, /) -> None:
        self.counts.clear()

    @property
    def model(self) -> ColPali:
        return counting_model()

    @property
    def counts(self) -> Counter[str]:
        return counting_model().counts
