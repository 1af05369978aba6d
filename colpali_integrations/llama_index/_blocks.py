"""The caption and the picture of a page as blocks of a message that no prompt helper of LlamaIndex separates.

LlamaIndex fits the messages of nodes into the context window of a model block by block, by estimates of their tokens: a
caption that still fits stays in one prompt, and its picture goes into the next one, behind the caption of another page.
Here the caption has the estimate of both, and the picture none, so that they fit, or do not fit, together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import BaseContentBlock, ImageBlock, TextBlock
from llama_index.core.bridge.pydantic import PrivateAttr

__all__ = ["kept_together"]


def kept_together(captions: Sequence[BaseContentBlock], picture: ImageBlock) -> list[BaseContentBlock]:
    """Return the blocks of a page such that its last caption and its picture stay in one prompt.

    Args:
        captions: texts before the picture; without any the picture is returned as it is.
        picture: of the page.

    Example:
        >>> blocks = kept_together([TextBlock(text="report.pdf, page 7")], ImageBlock(url="https://example.org/7.png"))
        >>> [(block.block_type, type(block).__name__) for block in blocks]
        [('text', 'Caption'), ('image', 'CaptionedPicture')]
    """
    if not captions or not isinstance(captions[-1], TextBlock):
        return [*captions, picture]
    return [*captions[:-1], Caption.over(picture, captions[-1].text), CaptionedPicture.model_construct(**dict(picture))]


class CaptionedPicture(ImageBlock):
    """A picture whose tokens its caption counts."""

    async def aestimate_tokens(self, *args: Any, **kwargs: Any) -> int:
        """None of its own."""
        return 0


class Caption(TextBlock):
    """A text that counts the tokens of the picture behind it."""

    _picture: ImageBlock | None = PrivateAttr(default=None)
    # A prompt that is too small for a picture gets one page.
    _most: int | None = PrivateAttr(default=None)

    @classmethod
    def over(cls, picture: ImageBlock | None, text: str, most: int | None = None) -> Caption:
        """Make the caption of a picture, which counts up to `most` tokens."""
        caption = cls(text=text)
        caption._picture, caption._most = picture, most
        return caption

    @classmethod
    async def amerge(  # type: ignore[override]  # its base classes disagree too
        cls, splits: Sequence[TextBlock], chunk_size: int, tokenizer: Any | None = None
    ) -> Sequence[TextBlock]:
        """Leave captions apart: each belongs to the picture behind it."""
        return splits

    async def aestimate_tokens(self, tokenizer: Any | None = None) -> int:
        """Tokens of the text and of the picture."""
        own = await super().aestimate_tokens(tokenizer=tokenizer)
        both = own + (await self._picture.aestimate_tokens() if self._picture is not None else 0)
        return both if self._most is None else min(both, self._most)

    async def asplit(  # type: ignore[override]  # LlamaIndex puts all of them into messages
        self, max_tokens: int, overlap: int = 0, tokenizer: Any | None = None
    ) -> list[TextBlock]:
        """Split a text that alone exceeds the tokens; its last part stays the caption of the picture."""
        *before, last = [self.text]
        if await TextBlock.aestimate_tokens(self, tokenizer=tokenizer) > max_tokens:
            *before, last = [part.text for part in await super().asplit(max_tokens, overlap, tokenizer)]
        return [*(TextBlock(text=text) for text in before), Caption.over(self._picture, last, max_tokens)]

    async def atruncate(self, max_tokens: int, tokenizer: Any | None = None, reverse: bool = False) -> Caption:
        """Leave the caption whole, so that one whose picture has no room is left out."""
        return self
