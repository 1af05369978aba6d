"""Compare an exported folder with the original class, on random pages and questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.export.checkpoints import Original
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.family import Family, Prepared

__all__ = ["QUESTIONS", "Difference", "Reference", "compare", "random_pages", "reference"]

QUESTIONS = ("revenue by region in 2019", "Größe, naïve café: 42 %", "fork_exec E-1042 <image> x")
"""Words, accents and numbers, and a special token, which must be encoded as text."""


@dataclass(frozen=True)
class Reference:
    """The outputs of the original class.

    Attributes:
        pages: float32 (n_tokens, dim) per page.
        questions: float32 (n_tokens, dim) per question.
        same_ids: whether the library's own processor gives the token ids of this package.
        pixels: the greatest difference of a pixel from the library's own processor, on the scale of the model's input
            (-1 to 1); NaN where the shapes differ.
    """

    pages: list[NDArray[np.float32]]
    questions: list[NDArray[np.float32]]
    same_ids: bool
    pixels: float


@dataclass(frozen=True)
class Difference:
    """The differences of an exported folder from the original class.

    Attributes:
        pages: the greatest difference of a component of a page's vectors, which have length 1.
        questions: the same of questions.
        least_cosine: the least cosine of a vector with its counterpart.
        same_ids: see `Reference`.
        pixels: see `Reference`. Torchvision and Pillow resize differently: by up to 0.07, on sharp edges.

    Example:
        >>> Difference(pages=2e-6, questions=1e-6, least_cosine=1.0, same_ids=True, pixels=0.0).agrees("float32")
        True
        >>> Difference(pages=0.3, questions=1e-6, least_cosine=0.8, same_ids=True, pixels=0.0).agrees("float16")
        False
        >>> Difference(pages=0.0, questions=0.0, least_cosine=1.0, same_ids=True, pixels=float("nan")).agrees("float32")
        False
    """

    pages: float
    questions: float
    least_cosine: float
    same_ids: bool
    pixels: float

    def agrees(self, precision: str) -> bool:
        """Whether rounding explains the differences: 1e-3 per component in float32, a cosine of 0.99 in float16.

        Token ids must be the same, and pixels must differ by at most 0.15.
        """
        near = max(self.pages, self.questions) <= 1e-3 if precision == "float32" else self.least_cosine >= 0.99
        return near and self.same_ids and self.pixels <= 0.15  # false for NaN


def random_pages(seed: int = 0) -> list[Image.Image]:
    """A tall, a wide and a small page: noise in blocks, so that pages differ after resizing."""
    rng = np.random.default_rng(seed)
    pages = []
    for width, height in ((620, 877), (960, 540), (200, 200)):
        coarse = rng.integers(0, 256, (height // 20 + 1, width // 20 + 1, 3), np.uint8)
        pages.append(Image.fromarray(coarse.repeat(20, 0).repeat(20, 1)[:height, :width]))
    return pages


def reference(original: Original, family: Family, pages: Sequence[Image.Image]) -> Reference:
    """Run the original class on the inputs of this package, one page and one question at a time."""
    same_ids, pixels, page_vectors, question_vectors = True, 0.0, [], []
    for page in pages:
        ours = family.pages.prepare(page)
        theirs = original.processor.process_images([page])
        same_ids &= theirs["input_ids"][0].tolist() == ours.ids.tolist()
        seen = theirs["pixel_values"][0].float().numpy()
        off = float(np.abs(seen - ours.pixels).max()) if seen.shape == ours.pixels.shape else float("nan")
        pixels = max(pixels, off) if off == off else off
        page_vectors.append(_run(original, ours, typed="token_type_ids" in theirs, pixels=True))
    template = original.kind.family == "idefics3"
    for question in QUESTIONS:
        ours = family.queries.prepare(question)
        if "<image>" not in question:  # the library would replace it by an image
            text = original.prompts.query_prefix + question + original.prompts.query_suffix
            theirs = original.processor.tokenizer(text, add_special_tokens=template)
            same_ids &= theirs["input_ids"] == ours.ids.tolist()
        question_vectors.append(_run(original, ours, typed=original.kind.library == "transformers", pixels=False))
    return Reference(page_vectors, question_vectors, same_ids, pixels)


def _run(original: Original, item: Prepared, *, typed: bool, pixels: bool) -> NDArray[np.float32]:
    ids = torch.from_numpy(item.ids)[None]
    more: dict[str, Any] = {"pixel_values": torch.from_numpy(item.pixels)[None]} if pixels else {}
    if typed and original.kind.family == "paligemma":
        more["token_type_ids"] = torch.zeros_like(ids)
    with torch.no_grad():
        outputs = original.model(input_ids=ids, attention_mask=torch.ones_like(ids), **more)
    vectors = outputs if isinstance(outputs, torch.Tensor) else outputs.embeddings
    return np.asarray(vectors[0].float().numpy(), np.float32)


def compare(expected: Reference, model: ColPali, pages: Sequence[Image.Image]) -> Difference:
    """Embed the same pages and questions with the exported folder, and compare."""
    differences, cosines = [], []
    for ours, theirs in (
        (list(model.embed_images(pages)), expected.pages),
        (list(model.embed_queries(QUESTIONS)), expected.questions),
    ):
        pairs = list(zip(ours, theirs, strict=True))
        whole = all(a.shape == b.shape for a, b in pairs)
        differences.append(max(float(np.abs(a - b).max()) for a, b in pairs) if whole else float("inf"))
        cosines.append(min(float((a * b).sum(1).min()) for a, b in pairs) if whole else float("nan"))
    return Difference(differences[0], differences[1], min(cosines), expected.same_ids, expected.pixels)
