"""Draft questions about pages, by any chat model, for a person to correct."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeAlias

from PIL import Image

from colpali_integrations._options import checked_whole, shown
from colpali_integrations.errors import InputError
from colpali_integrations.evaluation.questions import Answer, Question
from colpali_integrations.evaluation.vectors import Pictures
from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.filters import FilterLike

__all__ = ["Ask", "draft", "sampled"]

Ask: TypeAlias = Callable[[str, Image.Image], str]
"""A chat model: from instructions and the picture of a page to its answer."""

_MOST_ANSWER, _ATTEMPTS = 100_000, 20  # characters of an answer, and brackets at which a list may begin
_MOST_TEXT = 6000  # characters of a page's text in a prompt
_PROMPT = (
    "The picture is a page of {name}. Write {count} that a person who has never seen this page might ask, and that "
    "this page answers. Each question names its subject, so that it is understood without the page: never write "
    '"this page", "the document", "the figure" or "according to". Ask for what only this page tells, in words of your '
    "own where they come naturally, and in the language of the page. Answer with a JSON list of strings and nothing "
    "else; with [] if the page holds nothing to ask for, as a cover, a blank page or a table of contents."
)
_TEXT = "\n\nThe text of the page, as far as it can be read:\n{text}"


def draft(
    store: MultiVectorStore,
    ask: Ask,
    *,
    count: int = 20,
    per_page: int = 1,
    where: FilterLike = None,
    seed: int = 0,
    pictures: Pictures | None = None,
) -> Iterator[Question]:
    """Write questions about pages of a store, drawn at random in turn from its documents.

    Args:
        store: with the pages.
        ask: the chat model.
        count: number of pages.
        per_page: number of questions per page.
        where: only pages that fit this filter.
        seed: of the draw.
        pictures: how the pages are drawn; None for the defaults.

    Yields:
        Questions with `"draft": true` in their metadata, as they come. A page of which the model has nothing to ask has
        none.

    Raises:
        InputError: the store has no pages, a page cannot be drawn, or the model answers something else.
    """
    several, most = checked_whole(per_page, "per_page"), checked_whole(count, "count")
    pages = sampled((entry for entry in store.scroll(where) if entry.is_page), most, seed)
    if not pages:
        raise InputError(f"{store.where} has no pages to draft questions about; index documents first")
    for entry in pages:
        [(_, picture)] = (pictures or Pictures()).draw({entry.id: entry})
        for text in _questions(ask(_prompt(entry, several), picture), entry)[:several]:
            yield Question(text=text, answers=[_answer(entry)], metadata={"draft": True})


def sampled(entries: Iterable[Entry], count: int, seed: int) -> list[Entry]:
    """Up to `count` pages, in turn from each document, at random within it."""
    chance = random.Random(seed)
    documents: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda one: one.id):
        documents[entry.document_id or entry.id].append(entry)
    stacks = list(documents.values())
    chance.shuffle(stacks)
    for stack in stacks:
        chance.shuffle(stack)
    found: list[Entry] = []
    while stacks and len(found) < count:
        found += [stack.pop() for stack in stacks]
        stacks = [stack for stack in stacks if stack]
    return found[:count]


def _prompt(entry: Entry, count: int) -> str:
    questions = "one question" if count == 1 else f"up to {count} questions"
    name = str(entry.metadata.get("file_name") or entry.name)
    text = _TEXT.format(text=entry.text[:_MOST_TEXT]) if entry.has_text else ""
    return _PROMPT.format(name=name, count=questions) + text


def _answer(entry: Entry) -> Answer:
    """The page as a reader of the file knows it."""
    source = entry.source
    return Answer(id=entry.id) if source is None or entry.page is None else Answer(source=source, page=entry.page)


def _questions(answer: str, entry: Entry) -> list[str]:
    """The questions in a model's answer: a JSON list, also in a block of code, or behind other words.

    Raises:
        InputError: there is no such list.
    """
    for match in islice(re.finditer(r"\[", answer[:_MOST_ANSWER]), _ATTEMPTS):
        try:
            values: Any = json.JSONDecoder().raw_decode(answer, match.start())[0]
        except (ValueError, RecursionError):
            continue
        if isinstance(values, list) and all(isinstance(one, str) for one in values):
            return [one.strip() for one in values if one.strip()]
    raise InputError(
        f"{entry.name}: expected a JSON list of questions from the chat model, got {shown(answer)}; try another model"
    )
