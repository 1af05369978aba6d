"""Texts and pages in requests, in the shapes of OpenAI, Cohere, Jina and vLLM, and their vectors."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from colpali_integrations.errors import ColPaliError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.pages.identity import text_key
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.server.errors import RequestError
from colpali_integrations.stores.rerank import Candidate

__all__ = ["Content", "base64_floats", "content_of", "contents_of", "most_images", "multi_vectors", "token_count"]

_MOST_IMAGES = 32


@dataclass(frozen=True)
class Content:
    """A text, or the data URI of a page.

    Attributes:
        text: "" for a page.
        image: the data URI; "" for a text.
    """

    text: str = ""
    image: str = ""

    @property
    def candidate(self) -> Candidate:
        """The content as a candidate of a reranking."""
        if not self.image:
            return Candidate(None, text_key(self.text), self.text, name=self.text[:60])
        key = hashlib.sha256(self.image.encode()).hexdigest()
        return Candidate(None, f"image:{key}", image=lambda: self.image, name="an image")


def content_of(item: str | Mapping[str, Any]) -> Content:
    """The content of one item: a string, {"text": ...}, {"image": ...}, or a part of vLLM's messages."""
    if isinstance(item, str):
        return Content(item)
    if isinstance(part := item.get("image_url"), Mapping):
        return Content(image=part["url"])
    return Content(image=item["image"]) if "image" in item else Content(item["text"])


def contents_of(items: Any) -> list[Content]:
    """The contents of a string, of a list of items, or of {"content": [parts]}, in which each part is one."""
    if isinstance(items, Mapping):
        items = items["content"]
    return [content_of(items)] if isinstance(items, str) else list(map(content_of, items))


def most_images(contents: Iterable[Content]) -> None:
    """Refuse more images than one request may have.

    Raises:
        RequestError: there are more.
    """
    images = sum(bool(content.image) for content in contents)
    if images > _MOST_IMAGES:
        raise RequestError(
            400, f"a request may have {_MOST_IMAGES} images, got {images}; send the others in another one"
        )


def multi_vectors(model: ColPali, contents: Sequence[Content], *, queries: bool) -> list[Float32]:
    """All vectors of each content, in order.

    Args:
        model: encodes them.
        contents: texts and pages.
        queries: whether the texts are questions; otherwise they are encoded as texts beside pages.

    Raises:
        ColPaliError: one cannot be encoded; its `index` is that in `contents`.
    """
    most_images(contents)
    images = [index for index, content in enumerate(contents) if content.image]
    texts = [index for index, content in enumerate(contents) if not content.image]
    vectors = _encoded(images, model.embed_images, [contents[index].image for index in images])
    encode = model.embed_queries if queries else model.embed_texts
    vectors |= _encoded(texts, encode, [contents[index].text for index in texts])
    return [vectors[index] for index in range(len(contents))]


def _encoded(
    positions: Sequence[int], encode: Callable[[list[str]], Iterable[Float32]], items: list[str]
) -> dict[int, Float32]:
    if not items:
        return {}
    try:
        return dict(zip(positions, encode(items), strict=True))
    except ColPaliError as error:
        if error.index is not None:
            error.index = positions[error.index]
        raise


def token_count(model: ColPali, contents: Iterable[Content]) -> int:
    """Number of tokens of the texts, after their cut to the length of a question; pages count nothing."""
    return model.token_count([content.text for content in contents if not content.image])


def base64_floats(vectors: ArrayLike) -> str:
    """The numbers as float32, little endian, in base64, as OpenAI's and vLLM's servers write them.

    >>> base64_floats([1.0, -2.0])
    'AACAPwAAAMA='
    """
    return base64.b64encode(np.asarray(vectors, "<f4").tobytes()).decode()
