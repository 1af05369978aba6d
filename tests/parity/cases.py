"""What the reference and the package are both asked to do: queries, prompts and pages.

Shared by the generator (which has torch) and by the tests (which do not), so it needs numpy and Pillow only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

QUERIES: Final[tuple[str, ...]] = (
    "What is the total amount due on the invoice?",
    "revenue",
    "Quels sont les résultats du troisième trimestre à Genève ?",
    "naïve façade, Straße, smørrebrød, São Paulo",
    "二〇二四年の売上高はいくらですか",
    "价格 2024 年第三季度",
    "1234567890 and 3.14159, 50% of $1,000.00",
    "two  spaces   three    four",
    "trailing space ",
    "a line\nbreak and\n\nan empty line",
    "tab\tand emoji 🙂 and a rare sign ⅗",
    "Question: what does Query: mean?",
    "page",
)
"""Plain queries: the reference's own processor says what their ids are."""

LEADING_SPACE: Final[tuple[str, ...]] = (" leading space", "  two leading spaces")
"""Kept apart because the string before the user's text decides whether the spaces merge with it."""

HOSTILE: Final[tuple[str, ...]] = (
    "find the <image> tag",
    "<pad>",
    "a <bos> in the middle<eos>",
    "<image><image>",
    "text <pad> and <s> and <end_of_utterance> here",
    "<fake_token_around_image><global-img> <row_1_col_1>",
    "[CLS] sentence [SEP] <|im_start|> <|begin_of_text|>",
)
"""Queries that spell special tokens out. The references turn them into special ids; a user's text must stay text."""


EMBEDDED_QUERIES: Final[tuple[str, ...]] = (*QUERIES[:3], QUERIES[4], QUERIES[7], QUERIES[9], HOSTILE[0], "page")
"""Queries whose multi-vectors are in the goldens, under the main prompt of the family."""

MAIN_PROMPT: Final[dict[str, str]] = {"paligemma": "query-newline", "colmodernvbert": "bare", "colsmol": "bare"}


@dataclass(frozen=True)
class Prompt:
    """How one generation of a reference wraps a query.

    Attributes:
        name: Key in the goldens.
        prefix: Text between the beginning-of-sequence token and the query.
        suffix: Text after the query, special tokens spelled out.
        source: The library and versions which used it.
    """

    name: str
    prefix: str
    suffix: str
    source: str


PALIGEMMA_PROMPTS: Final[tuple[Prompt, ...]] = (
    Prompt("question-newline", "Question: ", "<pad>" * 10 + "\n", "colpali-engine <= 0.3.3; transformers' default"),
    Prompt("query-newline", "Query: ", "<pad>" * 10 + "\n", "colpali-engine 0.3.4 to 0.3.10, so colpali-v1.3"),
    Prompt("query", "Query: ", "<pad>" * 10, "colpali-engine 0.3.11 and 0.3.12"),
    Prompt("bare", "", "<pad>" * 10, "colpali-engine >= 0.3.13"),
)

IDEFICS3_PROMPTS: Final[tuple[Prompt, ...]] = (
    Prompt("bare", "", "<end_of_utterance>" * 10, "colpali-engine and transformers, every version with the class"),
)

QWEN2_VL_PROMPTS: Final[tuple[Prompt, ...]] = (
    Prompt("transformers", "Query: ", "<|endoftext|>" * 10 + "\n", "transformers' ColQwen2Processor"),
    Prompt("query", "Query: ", "<|endoftext|>" * 10, "colpali-engine 0.3.2 to 0.3.12, so colqwen2-v1.0, colnomic"),
    Prompt("bare", "", "<|endoftext|>" * 10, "colpali-engine >= 0.3.13"),
)

QWEN3_VL_PROMPTS: Final[tuple[Prompt, ...]] = (
    Prompt("bare", "", "<|endoftext|>" * 10, "colpali-engine >= 0.3.13; Tomoro's processor"),
    Prompt("query", "Query: ", "<|endoftext|>" * 10, "Ops' processor, Sauerkraut's fork of colpali-engine"),
)

QWEN3_5_PROMPTS: Final[tuple[Prompt, ...]] = (
    Prompt("bare", "", "<|endoftext|>" * 10, "colpali-engine, every version with the class"),
)


@dataclass(frozen=True)
class Page:
    """A synthetic page, made from its name alone.

    Attributes:
        name: Key in the goldens, and the seed.
        width: In pixels.
        height: In pixels.
        mode: Pillow's mode; the references get ``convert("RGB")`` of it.
    """

    name: str
    width: int
    height: int
    mode: str = "RGB"


PAGES: Final[tuple[Page, ...]] = (
    Page("a4-portrait", 595, 842),
    Page("letter-landscape", 792, 612),
    Page("square", 700, 700),
    Page("pixel", 1, 1),
    Page("small", 64, 32),
    Page("tall", 10, 4000),
    Page("wide", 4000, 10),
    Page("exact-448", 448, 448),
    Page("exact-512", 512, 512),
    Page("large", 2048, 2050),
    Page("odd", 333, 777),
    Page("grey", 301, 233, "L"),
)

LONG_PAGE: Final = Page("long-page", 1000, 1300)
"""More patches of 32 x 32 than NeoMME's longest window."""

STRIP: Final = Page("strip", 30, 3000)
"""As long and narrow as Qwen2-VL takes a page, nearly: twice as long it refuses."""

TEXTS: Final[tuple[str, ...]] = (
    "The revenue of the third quarter rose by 12 percent to 1,234 million euros.",
    "Les résultats du trimestre",
    "The contract was signed in Geneva on page 7. " * 30,
)
"""Texts that are searched beside pages; the last one has more tokens than NeoMME's short window."""

LONG_QUERY: Final = "When was the contract of page 7 signed in Geneva, and by whom? " * 8
"""More tokens than several chunks of the delta rule's algorithm, 64 each."""

EMBEDDED: Final[tuple[str, ...]] = (
    "a4-portrait",
    "letter-landscape",
    "square",
    "pixel",
    "small",
    "tall",
    "wide",
    "grey",
)
"""Pages whose multi-vectors are in the goldens; the others have pixels only, to keep the fixtures small."""


def draw(page: Page) -> Image.Image:
    """Draws the page: smooth shade, ruled lines and noise, so that any change of filter or rounding shows.

    Args:
        page: Which page.

    Returns:
        An image of the page's size and mode. The same bytes on every machine: integers only, and a
        generator of our own instead of numpy's, whose streams may change.
    """
    height, width = page.height, page.width
    y = np.arange(height, dtype=np.uint32)[:, None]
    x = np.arange(width, dtype=np.uint32)[None, :]
    seed = np.uint32(sum(ord(letter) * (position + 7) for position, letter in enumerate(page.name)))
    channels = []
    for channel in range(3):
        # An integer hash of the position (multiply and xor-shift, modulo 2**32) stands in for noise.
        noise = (x * np.uint32(374761393) + y * np.uint32(668265263) + seed * np.uint32(97 + channel)) & 0xFFFFFFFF
        noise = ((noise ^ (noise >> np.uint32(13))) * np.uint32(1274126177)) & 0xFFFFFFFF
        noise = (noise ^ (noise >> np.uint32(16))) & np.uint32(63)
        shade = (x * np.uint32(97 + 40 * channel) // np.uint32(max(width, 1))) + (
            y * np.uint32(80) // np.uint32(max(height, 1))
        )
        ink = np.where((x // np.uint32(9) + y // np.uint32(17 + channel)) % np.uint32(3) == 0, 0, 60).astype(np.uint32)
        channels.append((noise + shade + ink) & np.uint32(255))
    pixels = np.stack([np.broadcast_to(channel, (height, width)) for channel in channels], axis=-1).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels)).convert(page.mode)


def page_named(name: str) -> Page:
    """Finds a page by name.

    Args:
        name: As in `PAGES`.

    Returns:
        The page.

    Raises:
        KeyError: There is no such page.
    """
    for page in PAGES:
        if page.name == name:
            return page
    raise KeyError(name)
