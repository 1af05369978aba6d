"""The pages that a data set brings with its questions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Corpus", "CorpusPage"]


@dataclass(frozen=True)
class CorpusPage:
    """A page or text of a data set.

    Attributes:
        id: in the data set.
        image: the bytes of the picture; None for a text.
        text: the text, if the data set has one.
    """

    id: str
    image: bytes | None = None
    text: str = ""


class Corpus:
    """The pages of a data set, read again by each iteration, so that the pictures of a large one are not held.

    Args:
        name: of the data set, for messages and as the source of its pages.
        read: a function that reads the pages.
        ids: of the pages.

    Attributes:
        key: by which the pages of the data set are known in a store, wherever its files are.
    """

    def __init__(
        self, name: str, read: Callable[[frozenset[str] | None], Iterator[CorpusPage]], ids: Sequence[str]
    ) -> None:
        self.name, self._read, self.ids = name, read, list(ids)
        self.key = hashlib.sha256("\n".join(self.ids).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[CorpusPage]:
        return self._read(None)

    def pages(self, ids: Iterable[str]) -> Iterator[CorpusPage]:
        """The pages of some ids, in the order of the data set."""
        wanted = frozenset(ids)
        return (page for page in self._read(wanted) if page.id in wanted)
