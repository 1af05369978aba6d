"""Windows of running text, as the sense encoder's teacher reads them and as its student does (`distil.py`).

The text lies on the device as streams of numbers: its units, which are a word or a sign each, their tokens, and which
of them are words of the table. A window is a range of units. Windows are drawn, cut out and made noisy by index
arithmetic, thousands at once; nothing is done in Python for each.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

MOST_WORDS = 40
"""Words of the table that a student sees of a window."""
MOST_OF_A_WORD = 6
"""Tokens of a unit; what has more is a number or a code."""
HELD = 0.015
"""Share of the text, its end, that windows to judge by are drawn from and no others."""
SHORT, USUAL = 0.375, 0.5
"""Shares of the windows that are as long as a sentence or a question, and as a passage of a page; the rest are long."""
SHORT_TOKENS, USUAL_TOKENS, LONG_TOKENS = 40, 88, 128
"""What the teacher reads of each kind at most."""
NEAR = 600
"""Units within which half of the windows begin near one of a few places, so that a batch has some to tell apart."""

Numbers = NDArray[np.int64]


@dataclass
class Units:
    """Running text as words and signs.

    Attributes:
        ids: which kind each unit is.
        kinds: the spellings.
        paragraphs: the unit that each paragraph begins with.
        documents: the same of documents.
    """

    ids: Numbers
    kinds: list[str]
    paragraphs: Numbers
    documents: Numbers

    def sentences(self) -> Numbers:
        """The same of sentences."""
        stops = [number for number, kind in enumerate(self.kinds) if kind in {".", "?", "!"}]
        begins = np.union1d(np.flatnonzero(np.isin(self.ids, stops)) + 1, self.paragraphs)
        return begins[begins < len(self.ids)]


def units_of(text: str) -> Units:
    """Cut text of `sense_texts.py`, in lower case and without accents, as the teacher's tokens are."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one)).lower()
    numbers: dict[str, int] = {}
    ids: list[int] = []
    paragraphs, documents = [], []
    for document in plain.split("\n\n"):
        documents.append(len(ids))
        for line in document.split("\n"):
            paragraphs.append(len(ids))
            ids.extend(numbers.setdefault(unit, len(numbers)) for unit in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", line))
    begins = [np.unique([place for place in places if place < len(ids)]) for places in (paragraphs, documents)]
    return Units(np.array(ids), list(numbers), *begins)


def after(begins: Numbers, count: int) -> Numbers:
    """For each of ``count`` units where the next piece begins, or the text ends."""
    return np.append(begins, count)[np.searchsorted(begins, np.arange(count), side="right")]


class Tokens:
    """The teacher's tokens of each kind of unit."""

    def __init__(self, kinds: list[str], tokenizer: Tokenizer) -> None:
        coded = [one.ids[:MOST_OF_A_WORD] for one in tokenizer.encode_batch(kinds, add_special_tokens=False)]
        self._all = np.array([token for one in coded for token in one])
        self._count = np.array([len(one) for one in coded])
        self._first = np.cumsum(self._count) - self._count

    def of(self, units: Numbers) -> tuple[Numbers, Numbers]:
        """The tokens of units, one after the other, and where each unit's begin; and as the last where all end."""
        count = self._count[units]
        ends = np.cumsum(count)
        places = np.repeat(self._first[units] - (ends - count), count) + np.arange(ends[-1])
        return self._all[places], np.concatenate([[0], ends])


@dataclass
class Windows:
    """Windows of one kind: the unit that each begins with, the one after its last, what the teacher reads at most."""

    begin: Tensor
    end: Tensor
    tokens: int


class Text:
    """The streams on a device, and windows of them.

    Args:
        text: as `sense_texts.py` writes it.
        words: of the table.
        tokenizer: the teacher's.
        device: where everything lies and is drawn.
    """

    def __init__(self, text: str, words: list[str], tokenizer: Tokenizer, device: torch.device) -> None:
        units = units_of(text)
        count = len(units.ids)
        numbers = {word: number for number, word in enumerate(words)}
        table = np.array([numbers.get(kind, -1) for kind in units.kinds])[units.ids]
        own = table >= 0
        tokens = Tokens(units.kinds, tokenizer)
        running, begins = tokens.of(units.ids)
        alone, alone_begins = tokens.of(units.ids[own])
        held = units.documents[units.documents < (1 - HELD) * count][-1]

        def put(numbers: Numbers) -> Tensor:
            return torch.from_numpy(numbers.astype(np.int64)).to(device)

        self.device, self.count, self.held = device, count, int(held)
        self._special = [tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")]
        # The tokens of the text, then those of its words of the table alone, and where each unit's and each word's are.
        self._tokens = put(np.concatenate([running, alone]))
        self._tokens_of_unit, self._tokens_of_word = put(begins), put(alone_begins + len(running))
        # The words of the table: their numbers, which units they are, and how many stand before each unit.
        self._words = put(table[own])
        self._unit_of_word = put(np.append(np.flatnonzero(own), count))
        self._words_before = put(np.concatenate([[0], np.cumsum(own)]))
        # Where the document of each unit begins, and where its sentence, paragraph and document end.
        self._document = put(units.documents[np.searchsorted(units.documents, np.arange(count), side="right") - 1])
        self._next_sentence = put(after(units.sentences(), count))
        self._next_paragraph = put(after(units.paragraphs, count))
        self._next_document = put(after(units.documents, count))
        print(f"{count} units, {len(running)} tokens, {own.sum()} words of the table, {len(units.kinds)} kinds")

    def draw(self, size: int, *, held: bool = False) -> list[Windows]:
        """Windows of all kinds, ``size`` together; to judge by if ``held``, otherwise to learn from."""
        low, high = (self.held, self.count - 1) if held else (0, self.held - 1)
        few = self._from(low, high, max(1, size // 16))

        def begin(count: int) -> Tensor:
            near = few[self._from(0, len(few), count)] + self._from(-NEAR // 2, NEAR // 2, count)
            anywhere = self._from(low, high, count)
            return torch.where(self._chance(count) < 0.5, near, anywhere).clamp(low, high - 1)

        short, usual = int(size * SHORT), int(size * USUAL)
        return [
            self._short(begin(short), high),
            self._passages(begin(usual // 3), 8, 18, USUAL_TOKENS),
            self._passages(begin(usual - usual // 3), 16, 26, USUAL_TOKENS),
            self._passages(begin(size - short - usual), 26, MOST_WORDS, LONG_TOKENS),
        ]

    def _from(self, low: int, high: int, count: int) -> Tensor:
        return torch.randint(low, high, (count,), device=self.device)

    def _chance(self, count: int) -> Tensor:
        return torch.rand(count, device=self.device)

    def _short(self, begin: Tensor, high: int) -> Windows:
        """Sentences, the first words of sentences, and some words from anywhere, within a paragraph."""
        kind = self._chance(len(begin))
        begin = torch.where(kind < 0.7, self._next_sentence[begin].clamp(max=high - 1), begin)
        some = 4 + (13 * self._chance(len(begin)) ** 1.3).long()
        length = torch.where(kind < 0.35, SHORT_TOKENS - 4, some)
        limit = torch.where(kind < 0.55, self._next_sentence[begin], self._next_paragraph[begin])
        return Windows(begin, torch.minimum(begin + length, limit), SHORT_TOKENS)

    def _passages(self, begin: Tensor, least: int, most: int, tokens: int) -> Windows:
        """So many words of the table, within a document; where that ends sooner, the window begins sooner."""
        wanted = self._from(least, most + 1, len(begin))
        start, end = self._document[begin], self._next_document[begin]
        first = self._words_before[begin]
        last = torch.minimum(first + wanted, self._words_before[end])
        sooner = self._unit_of_word[torch.maximum(last - wanted, self._words_before[start])]
        begin = torch.where(last - first < wanted, torch.maximum(sooner, start), begin)
        end = torch.minimum(self._unit_of_word[last], end)
        return Windows(torch.minimum(begin, end - 1), end, tokens)

    def teacher(self, windows: Windows, alone: float = 0.0) -> tuple[Tensor, Tensor]:
        """Token ids (windows, tokens) and which are there; of a share ``alone`` of windows the student's words only."""
        words = self._words_before[windows.begin], self._words_before[windows.end]
        only = self._chance(len(windows.begin)) < alone
        begin = torch.where(only, self._tokens_of_word[words[0]], self._tokens_of_unit[windows.begin])
        end = torch.where(only, self._tokens_of_word[words[1]], self._tokens_of_unit[windows.end])
        length = (end - begin).clamp(max=windows.tokens - 2)[:, None]
        place = torch.arange(windows.tokens, device=self.device)[None]
        ids = self._tokens[(begin[:, None] + place - 1).clamp(0, len(self._tokens) - 1)]
        ids = torch.where(place == 0, self._special[0], torch.where(place == length + 1, self._special[1], ids))
        return ids, place <= length + 1

    def student(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """The words of the table (windows, MOST_WORDS) and how sure each is: 1, or 0 where there are no more."""
        begin, end = self._words_before[windows.begin], self._words_before[windows.end]
        place = torch.arange(MOST_WORDS, device=self.device)[None]
        ids = self._words[(begin[:, None] + place).clamp(max=len(self._words) - 1)]
        return ids, (place < (end - begin)[:, None]).float()


def noisy(ids: Tensor, sure: Tensor) -> tuple[Tensor, Tensor]:
    """Words as they may be read from a page: some lost, foreign or unsure, and of some windows each once only."""
    size, most = ids.shape

    def chance(columns: int) -> Tensor:
        return torch.rand(size, columns, device=ids.device)

    there = sure > 0
    lost = chance(most) < 0.5 * (chance(1) - 0.3).clamp(min=0)  # up to 35 %, none in 30 % of the windows
    few = (there & ~lost).sum(1, keepdim=True) < 2
    sure = sure * (~lost | few)
    foreign = there & (chance(most) < 1.2 * (chance(1) - 0.75).clamp(min=0))  # up to 30 %, in a quarter
    ids = torch.where(foreign, ids[torch.randperm(size, device=ids.device)], ids)
    again = ((ids[:, None] == ids[:, :, None]) & (sure[:, None] > 0)).tril(-1).any(2)
    sure = sure * ~(again & (chance(1) < 0.3))
    unsure = chance(most) < 0.1
    return ids, torch.where(unsure, sure * (0.2 + 0.8 * chance(most)), sure)


def shuffled(ids: Tensor, sure: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The words in chance order in a share of the windows; those that are not there stay last."""
    size, most = ids.shape
    mixed = (torch.rand(size, most, device=ids.device) + 2 * (sure == 0)).argsort(1)
    kept = torch.arange(most, device=ids.device)[None]
    order = torch.where(torch.rand(size, 1, device=ids.device) < share, mixed, kept)
    return ids.gather(1, order), sure.gather(1, order)
