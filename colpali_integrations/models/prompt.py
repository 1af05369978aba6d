"""A user's text between a model's special tokens.

The references build one string and tokenize it whole, so a query that contains the characters `<image>` becomes an
image token. Here the special tokens come from the model's description alone; the user's text, however it looks, is
tokenized as text. Ordinary text gets the very same ids.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from colpali_integrations.errors import ModelLoadError, QueryError

__all__ = ["QueryPrompt", "Vocabulary", "check_query"]


class Vocabulary:
    """A tokenizer in two moods: special tokens as tokens (for prompts), and as text (for users).

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
        special = {str(token) for token in _special_tokens(self._prompt)}
        self._special = re.compile(
            "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True)) or r"(?!)"
        )

    def prompt_ids(self, text: str, *, template: bool = False) -> list[int]:
        """Ids of a prompt, in which special tokens are meant; with what the tokenizer's own template puts around it."""
        ids: list[int] = self._prompt.encode(text, add_special_tokens=template).ids
        return ids

    def template_ids(self) -> tuple[list[int], list[int]]:
        """Ids that the tokenizer's own template puts before and after a text, such as [CLS] and [SEP]."""
        bare, framed = self.prompt_ids("a"), self.prompt_ids("a", template=True)
        start = next(i for i in range(len(framed)) if framed[i : i + len(bare)] == bare)
        return framed[:start], framed[start + len(bare) :]

    def user_ids(self, text: str) -> list[int]:
        """Ids of a user's text, in which nothing is special."""
        ids: list[int] = self._user.encode(text, add_special_tokens=False).ids
        return ids

    def user_spans(self, text: str) -> list[tuple[int, int]]:
        """For each of `user_ids`, from which character of the text to which it stands for."""
        spans: list[tuple[int, int]] = self._user.encode(text, add_special_tokens=False).offsets
        return spans

    def token_id(self, token: str) -> int:
        """Id of one token.

        Raises:
            ModelLoadError: the vocabulary lacks it.
        """
        found: int | None = self._prompt.token_to_id(token)
        if found is None:
            raise ModelLoadError(f"the tokenizer has no token {token!r}; do its files belong to this family?")
        return found

    def split_special(self, text: str) -> tuple[str, str]:
        """Split a prefix at the end of its last special token: "<bos>Query: " -> ("<bos>", "Query: ")."""
        end = max((match.end() for match in self._special.finditer(text)), default=0)
        return text[:end], text[end:]


class QueryPrompt:
    """The ids of queries: prefix, the user's text cut to length, augmentation tokens.

    Args:
        vocabulary: the model's tokenizer.
        prefix: e.g. "<bos>Query: ". Its plain words are tokenized together with the user's text, as in training.
        suffix: e.g. "<pad>" x 10 + newline.
        max_tokens: the longest user text, in tokens.
        template: whether the reference lets the tokenizer add its own template (Idefics3 does, PaliGemma does not).
    """

    def __init__(
        self, vocabulary: Vocabulary, *, prefix: str, suffix: str, max_tokens: int, template: bool = False
    ) -> None:
        self._vocabulary = vocabulary
        head, self._lead = vocabulary.split_special(prefix)
        self._head = vocabulary.prompt_ids(head) if head else []
        self._tail = vocabulary.prompt_ids(suffix) if suffix else []
        before, after = vocabulary.template_ids() if template else ([], [])
        self._head, self._tail = before + self._head, self._tail + after
        self._max_tokens = max_tokens
        self._lead_length = len(vocabulary.user_ids(self._lead)) if self._lead else 0
        self._warned = False

    def user_ids(self, text: str) -> list[int]:
        """Ids of the prefix's words and the user's text, truncated.

        Raises:
            QueryError: the text is empty or not a string.
        """
        ids = self._vocabulary.user_ids(self._lead + check_query(text))
        limit = self._lead_length + self._max_tokens
        if len(ids) <= limit:
            return ids
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"a query of {len(ids) - self._lead_length} tokens is cut to {self._max_tokens} (said once). Late "
                "interaction works best with a question, not a page; for longer texts set max_query_tokens in the "
                "model's description.",
                stacklevel=2,
            )
        return ids[:limit]

    def count(self, text: str, *, include_special: bool) -> int:
        """Number of ids of a query, or of the user's own text alone, after truncation."""
        if include_special:
            return len(self._head) + len(self.user_ids(text)) + len(self._tail)
        return min(len(self._vocabulary.user_ids(check_query(text))), self._max_tokens)

    def pieces(self, text: str) -> list[str | None]:
        """For each of `ids` the piece of the user's text that it stands for, without white space around it.

        None for the prompt's own tokens and for those of white space. The bytes of a rare character are tokens of
        their own in some vocabularies; each of them stands for the whole character.
        """
        whole = self._lead + check_query(text)
        spans = self._vocabulary.user_spans(whole)[: self._lead_length + self._max_tokens]
        # A token of the lead and the text together, such as a space that belongs to the next word, counts for the text.
        found = [whole[max(start, len(self._lead)) : end].strip() or None for start, end in spans]
        return [*[None] * len(self._head), *found, *[None] * len(self._tail)]

    def ids(self, text: str) -> NDArray[np.int64]:
        """All ids (n_tokens,) int64 of a query."""
        return np.array([*self._head, *self.user_ids(text), *self._tail], dtype=np.int64)


def check_query(text: object) -> str:
    """A query as a user may ask it.

    Raises:
        QueryError: not a string, empty, only white space, or not encodable as UTF-8.
    """
    if not isinstance(text, str):
        raise QueryError(f"a query must be a str, got {type(text).__name__}")
    if not text.strip():
        raise QueryError(f"a query must contain more than white space, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryError(f"a query must be valid Unicode: {error}") from error
    return text


def _special_tokens(tokenizer: Tokenizer) -> list[str]:
    return [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
