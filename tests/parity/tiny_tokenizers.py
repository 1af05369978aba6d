"""Small tokenizers with the mechanics of the real ones: Gemma's, ModernBERT's and SmolLM's.

What decides ids besides the vocabulary is kept: normalizer, pre-tokenizer, byte fallback or byte level,
added tokens and the template around a text. The vocabulary is learnt from the few sentences below by
a byte-pair trainer of a few lines, whose ties are broken by order, so that a re-run gives the same file.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Any, Final

CORPUS: Final[str] = """
What is the total amount due on the invoice? Question: Query: Describe the image. User: Assistant:
The revenue of the third quarter rose by 12 percent to 1,234 million euros. What does the table on page 7 show?
Find the page with the chart of energy prices from 2019 to 2024. How many employees work in the company?
The report describes the financial results, the balance sheet, the income statement and the cash flow.
Which document describes the installation of the pump? When was the contract signed and by whom?
The image shows a line, a bar and a break. Space and spaces, a leading space and a trailing space.
Les résultats du trimestre à Genève. São Paulo, façade, naïve, Straße.
where which when who why how what is are was were the a an and or of to in on for with from by at as
"""

WHOLE_WORDS: Final[tuple[str, ...]] = ("Question", "Query", " the", "Describe", " image", "User", "Assistant")
"""Words which must come out as one token, as they do from the real vocabularies."""

_WORD: Final = re.compile(r" ?[^\W\d_]+| ?\d| ?[^\s\w]+|\s+")


def learn_merges(words: Counter[tuple[str, ...]], count: int) -> list[tuple[str, str]]:
    """Learns byte-pair merges.

    Args:
        words: Each word as a tuple of symbols, with its frequency.
        count: How many merges to learn at most.

    Returns:
        The merges in order of rank. The most frequent pair goes first, the smallest of equals.
    """
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, frequency in words.items():
            for pair in pairwise(word):
                pairs[pair] += frequency
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, frequency in words.items():
            out: list[str] = []
            position = 0
            while position < len(word):
                if word[position : position + 2] == best:
                    out.append(word[position] + word[position + 1])
                    position += 2
                else:
                    out.append(word[position])
                    position += 1
            merged[tuple(out)] += frequency
        words = merged
    return merges


def _added(content: str, number: int, *, special: bool, normalized: bool = False) -> dict[str, Any]:
    return {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": normalized,
        "special": special,
    }


def gemma(merges: int = 420) -> dict[str, Any]:
    """Makes a tokenizer.json in Gemma's manner.

    Spaces become U+2581 without a prefix, unknown letters fall back to bytes, runs of newlines and of spaces
    and a few HTML tags are tokens of their own that are not special, and the template puts ``<bos>`` first.
    ``<image>`` is the last special token, as in PaliGemma.

    Args:
        merges: How many merges to learn.

    Returns:
        The contents of tokenizer.json.
    """
    space = "\u2581"
    words: Counter[tuple[str, ...]] = Counter(
        tuple(word.replace(" ", space)) for word in _WORD.findall(CORPUS) if word.strip()
    )
    words.update({tuple(word.replace(" ", space)): 99 for word in WHOLE_WORDS})
    letters = sorted({symbol for word in words for symbol in word})
    learnt = [(space, space), (space * 2, space * 2), (space * 2, space), *learn_merges(words, merges)]
    vocabulary = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<2mass>", "[@BOS@]", "<unused0>"]
    own = ["\n", "\n\n", "\n\n\n", space * 2, space * 3, space * 4, "<table>", "</table>", "<s>", "</s>"]
    vocabulary += own + [f"<0x{byte:02X}>" for byte in range(256)] + letters
    vocabulary += [left + right for left, right in learnt if left + right not in vocabulary]
    vocabulary += ["<image>"]
    ids = {token: number for number, token in enumerate(vocabulary)}
    added = [_added(token, ids[token], special=True) for token in ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")]
    added += [_added(token, ids[token], special=False) for token in own]
    added += [_added("<image>", ids["<image>"], special=True)]
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: int(token["id"])),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": space},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [ids["<bos>"]], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": space}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": ids,
            "merges": [list(pair) for pair in learnt],
        },
    }


def neomme(merges: int = 300) -> dict[str, Any]:
    """Makes a tokenizer.json for NeoMME: byte-level pairs behind the special tokens of its class's defaults.

    The published tokenizer was not at hand; the ids of its special tokens are those of ``NeoMMEConfig``.

    Args:
        merges: How many merges to learn.

    Returns:
        The contents of tokenizer.json.
    """
    content = byte_level(begin="", template=False, merges=merges)
    special = ["<pad>", "<bos>", "<eos>", "<unk>", "<mask>", "<doc>", "<img>", "<query>", "<row>"]
    dropped = {token["content"] for token in content["added_tokens"]}
    words = [token for token in content["model"]["vocab"] if token not in dropped]
    ids = {token: number for number, token in enumerate([*special, *words])}
    content["added_tokens"] = [_added(token, ids[token], special=True) for token in special]
    content["model"]["vocab"] = ids
    return content


def qwen2(merges: int = 300) -> dict[str, Any]:
    """Makes a tokenizer.json in Qwen2's manner: NFC, words by a pattern, byte-level pairs, special tokens last.

    Args:
        merges: How many merges to learn.

    Returns:
        The contents of tokenizer.json.
    """
    content = byte_level(begin="", template=False, merges=merges)
    dropped = {token["content"] for token in content["added_tokens"]}
    words = [token for token in content["model"]["vocab"] if token not in dropped]
    special = [f"<|{name}|>" for name in ("endoftext", "im_start", "im_end", "vision_start", "vision_end")]
    special += ["<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {
        **content,
        "added_tokens": [_added(token, len(words) + place, special=True) for place, token in enumerate(special)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": {**content["model"], "vocab": {token: number for number, token in enumerate(words)}},
    }


def add_special(content: dict[str, Any], *tokens: str) -> None:
    """Adds special tokens behind all others.

    Args:
        content: The contents of tokenizer.json.
        tokens: The tokens.
    """
    number = len(content["model"]["vocab"]) + len(content["added_tokens"])
    content["added_tokens"] += [_added(token, number + place, special=True) for place, token in enumerate(tokens)]


def _byte_letters() -> dict[int, str]:
    # The byte-level alphabet of GPT-2: printable bytes stand for themselves, the others are moved above 255.
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    moved = (byte for byte in range(256) if byte not in table)
    table.update({byte: chr(256 + position) for position, byte in enumerate(moved)})
    return table


def byte_level(*, begin: str, template: bool, merges: int = 420) -> dict[str, Any]:
    """Makes a tokenizer.json in the manner of ModernBERT (GPT-NeoX, OLMo) or SmolLM (GPT-2).

    Two newlines in a row are one token, as in both: the newline after the last row of tiles and the one
    before the global view merge, which an encoder working piece by piece gets wrong.

    Args:
        begin: Token with which the image prompt begins, ``<|begin_of_text|>`` or ``<|im_start|>``.
        template: Whether ``[CLS]`` and ``[SEP]`` go around every text, as ModernBERT's template does.
        merges: How many merges to learn.

    Returns:
        The contents of tokenizer.json.
    """
    table = _byte_letters()
    words: Counter[tuple[str, ...]] = Counter(
        tuple(table[byte] for byte in word.encode()) for word in _WORD.findall(CORPUS) if word.strip()
    )
    words.update({tuple(table[byte] for byte in word.encode()): 99 for word in WHOLE_WORDS})
    newline = table[ord("\n")]
    learnt = [(newline, newline), *learn_merges(words, merges)]
    head = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"] if template else ["<|endoftext|>"]
    vocabulary = [*head, *sorted(table.values())]
    vocabulary += [left + right for left, right in learnt if left + right not in vocabulary]
    tail = [begin, "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    tail += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    vocabulary += tail
    ids = {token: number for number, token in enumerate(vocabulary)}
    added = [_added(token, ids[token], special=True) for token in head + tail]
    around = [{"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]")]
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if template else None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [around[0], text, around[1]],
            "pair": [around[0], text, around[1], {"Sequence": {"id": "B", "type_id": 0}}, around[1]],
            "special_tokens": {
                token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        }
        if template
        else {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for token, number in ids.items() if token not in tail},
            "merges": [list(pair) for pair in learnt],
        },
    }
