"""A user's text between a model's special tokens.

The references build one string and tokenize it whole, so a query that contains the characters `<image>` becomes an
image token. Here the special tokens come from the model's description alone; the user's text, however it looks, is
tokenized as text. Ordinary text gets the very same ids.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Tokenizer

from colpali_integrations.errors import ModelLoadError

__all__ = ["Vocabulary"]


class Vocabulary:
    """A tokenizer in two modes: special tokens as tokens (for prompts), and as text (for users).

    Args:
        directory: folder with `tokenizer.json`.

    Raises:
        ModelLoadError: the file is missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.json"
        try:
            content = path.read_text(encoding="utf-8")
            self._prompt, self._user = Tokenizer.from_str(content), Tokenizer.from_str(content)
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelLoadError(f"cannot read {path}: {error}") from error
        for tokenizer in (self._prompt, self._user):
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self._user.encode_special_tokens = True
        special = {token.content for token in self._prompt.get_added_tokens_decoder().values() if token.special}
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")

    def prompt_ids(self, text: str, *, template: bool = False) -> list[int]:
        """Ids of a prompt, in which special tokens count as such.

        Args:
            text: the prompt; may be empty.
            template: add the tokens that the tokenizer's own template puts around a text.
        """
        return list(self._prompt.encode(text, add_special_tokens=template).ids)

    def template_ids(self) -> tuple[list[int], list[int]]:
        """Ids that the tokenizer's own template puts before and after a text, such as [CLS] and [SEP]."""
        bare, framed = self.prompt_ids("a"), self.prompt_ids("a", template=True)
        start = next(i for i in range(len(framed)) if framed[i : i + len(bare)] == bare)
        return framed[:start], framed[start + len(bare) :]

    def user_ids(self, text: str) -> list[int]:
        """Ids of a user's text, in which no token is special."""
        return list(self._user.encode(text, add_special_tokens=False).ids)

    def user_spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of the characters that each of `user_ids` stands for."""
        return list(self._user.encode(text, add_special_tokens=False).offsets)

    def token_id(self, token: str) -> int:
        """Id of one token.

        Raises:
            ModelLoadError: the vocabulary lacks it.
        """
        if (number := self.number(token)) is None:
            raise ModelLoadError(f"the tokenizer has no token {token!r}; do its files belong to this family?")
        return number

    def number(self, token: str) -> int | None:
        """Id of one token as the vocabulary spells it; None where it has no such token."""
        number: int | None = self._prompt.token_to_id(token)
        return number

    def split_special(self, text: str) -> tuple[str, str]:
        """Split a prefix at the end of its last special token: "<bos>Query: " into "<bos>" and "Query: "."""
        end = max((match.end() for match in self._special.finditer(text)), default=0)
        return text[:end], text[end:]
