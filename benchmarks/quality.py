"""How good the bundled model is: sight, words, and both, on two sets of pages and questions, by kind of question.

From the repository's root, on Debian 12 (the documents' packages come by apt-get)::

    python -m benchmarks.quality --fetch        # -> results/quality.md; some minutes

The first set is that of `benchmarks.coltiny_quality`; the second, `benchmarks.hard_set`, has the kinds of pages and
questions that readers found weak. Searches are the product's own: a store in memory, ColTiny, English stems.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import coltiny_set, hard_set, machine
from benchmarks.coltiny_quality import MODEL, bm25, digest, encode, places
from benchmarks.page_set import Page, Question
from benchmarks.ranking import difference_interval, first, interval, ndcg
from colpali_integrations import ColPali
from colpali_integrations.stores import Entry, MultiVectorStore, SearchOptions

SIGHT, WORDS = "sight (`hybrid=False`)", "words (BM25, English stems, text layer)"
AUTO, RANKS = '`hybrid="auto"`', '`hybrid="rrf"` (reciprocal ranks)'
FIXED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
SHOWN = (SIGHT, WORDS, AUTO)
Array = NDArray[np.float64]


@dataclass
class Answered:
    """A set of questions with the rankings of each system, as positions of pages.

    Attributes:
        name: of the set.
        pages: all of its pages.
        asked: its questions.
        rankings: by system, one per question.
    """

    name: str
    pages: list[Page]
    asked: list[Question]
    rankings: Mapping[str, Sequence[Sequence[int]]]

    def __post_init__(self) -> None:
        place = {page.name: number for number, page in enumerate(self.pages)}
        document = {page.document.name: page.document for page in self.pages}
        self._relevant = [{place[name] for name in question.pages} for question in self.asked]
        self.groups = {
            "kind": np.array([question.kind for question in self.asked]),
            "half": np.array([document[question.document].half for question in self.asked]),
            "document": np.array([question.document for question in self.asked]),
        }

    def gains(self, system: str) -> Array:
        """nDCG@5 per question."""
        pairs = zip(self.rankings[system], self._relevant, strict=True)
        return np.array([ndcg(ranking, relevant, 5) for ranking, relevant in pairs])

    def firsts(self, system: str) -> Array:
        """1 per question whose first page is a right one."""
        pairs = zip(self.rankings[system], self._relevant, strict=True)
        return np.array([first(ranking, relevant) for ranking, relevant in pairs])


def answer(name: str, model: ColPali, pages: list[Page], asked: list[Question], vectors: Sequence[Any]) -> Answered:
    """Search for every question over all pages of the set."""
    texts = [question.text for question in asked]
    queries = list(model.embed_queries(texts))
    store = MultiVectorStore.open(model=model)
    entries = (Entry(id=str(number), text=page.text.strip()) for number, page in enumerate(pages))
    store.add(zip(entries, vectors, strict=True))

    def search(**options: Any) -> list[list[int]]:
        return places(store.search_batch(queries, SearchOptions(**options), texts=texts))

    rankings = {
        SIGHT: search(hybrid=False),
        WORDS: bm25([page.text for page in pages], texts, "english"),
        AUTO: search(hybrid=model.description.auto_hybrid),
        RANKS: search(hybrid="rrf"),
        **{f"`hybrid={weight}`": search(hybrid=weight) for weight in FIXED},
    }
    return Answered(name, pages, asked, rankings)


def overall(found: Answered) -> str:
    """Every system: nDCG@5 and the share of questions whose first page is right, and the gain over sight."""
    sight = found.gains(SIGHT)
    rows = []
    for system in found.rankings:
        gains = found.gains(system)
        low, high = interval(gains)
        halves = [f"{gains[found.groups['half'] == half].mean():.3f}" for half in ("dev", "test")]
        right = f"{int(found.firsts(system).sum())} of {len(gains)}"
        paired = "" if system == SIGHT else signed(gains, sight)
        rows.append((system, f"{gains.mean():.3f} [{low:.3f}, {high:.3f}]", *halves, right, paired))
    header = ("ranking", "nDCG@5", "dev", "test", "first page right", "nDCG@5 above sight, paired")
    return machine.table(header, rows)


def signed(ours: Array, theirs: Array) -> str:
    """A paired difference with its interval."""
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference_interval(ours, theirs))


def both(one: Answered, two: Answered) -> str:
    """The gain over sight by half, the questions of both sets together."""
    rows = []
    for system in one.rankings:
        if system != SIGHT:
            cells = []
            for half in ("dev", "test"):
                gains, sight = (
                    np.concatenate([found.gains(name)[found.groups["half"] == half] for found in (one, two)])
                    for name in (system, SIGHT)
                )
                cells.append(signed(gains, sight))
            rows.append((system, *cells))
    return machine.table(("nDCG@5 above sight, both sets", "dev", "test"), rows)


def by(found: Answered, group: str, half: str | None = None) -> str:
    """The systems of `SHOWN` by kind or document."""
    rows = []
    for value in dict.fromkeys(found.groups[group].tolist()):
        mask = found.groups[group] == value
        if half is not None:
            mask &= found.groups["half"] == half
        if not mask.any():
            continue
        cells = [
            f"{found.gains(system)[mask].mean():.3f} ({int(found.firsts(system)[mask].sum())})" for system in SHOWN
        ]
        paired = signed(found.gains(AUTO)[mask], found.gains(SIGHT)[mask])
        rows.append((value, int(mask.sum()), *cells, paired))
    return machine.table((group, "questions", *SHOWN, '`hybrid="auto"` above sight, paired'), rows)


def missed(found: Answered) -> str:
    """The questions of the second set whose first page is wrong by every system shown, by kind."""
    wrong = ~np.any([found.firsts(system) > 0 for system in SHOWN], axis=0)
    lines = [
        f"- {question.kind}: {question.text} ({', '.join(question.pages)})"
        for question, none in zip(found.asked, wrong.tolist(), strict=True)
        if none
    ]
    return "\n".join(lines)


def encoded(model: ColPali, name: str, pages: list[Page]) -> Sequence[Any]:
    """Vectors of the pages, or those of an earlier run of the same model."""
    kept = coltiny_set.WORK / "vectors" / f"{digest(MODEL)}-{name}-{len(pages)}.npz"
    return encode(model, [page.image for page in pages], kept)


def measured(model: ColPali) -> list[Answered]:
    """Both sets, answered by a model."""
    sets = (("first", coltiny_set.load(), coltiny_set.questions()), ("second", hard_set.load(), hard_set.questions()))
    return [answer(name, model, pages, asked, encoded(model, name, pages)) for name, pages, asked in sets]


def described(found: Answered) -> str:
    """How many pages and questions a set has."""
    documents = len({page.document.name for page in found.pages})
    textless = sum(not page.text.strip() for page in found.pages)
    return f"{len(found.pages)} pages of {documents} documents ({textless} without text), {len(found.asked)} questions."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fetch", action="store_true", help="download the documents' packages first (Debian 12)")
    if parser.parse_args().fetch:
        coltiny_set.fetch()
        hard_set.fetch()
    model = ColPali.from_pretrained("coltiny", threads=1)
    one, two = measured(model)
    kinds = machine.table(("kind", "what the question says"), hard_set.KINDS.items())
    text = [
        "# How good is the bundled model?",
        "`python -m benchmarks.quality --fetch`",
        f"{machine.describe()} Model files {digest(MODEL)}.",
        "ColTiny by the product's own searches in a store in memory: by sight (MaxSim), by both (`hybrid=`), and BM25 "
        "of the text layer alone, which finds no page without one. Every question over all pages of its set; brackets: "
        "95 % bootstrap intervals over questions, paired where two rankings are compared; in parentheses the number of "
        "questions whose first page is right. One reader wrote the questions from the pages and judged which pages "
        "answer, before any system was run; a page that answers in another language than the question's counts only "
        "where the question is an English one about foreign pages. One question of the second set was replaced "
        'after the first run, because its words lay beyond the edge of the page. `"auto"` stands for '
        f"`hybrid={model.description.auto_hybrid}` with this model, whose constants were chosen on the dev halves of "
        "these sets and of a third one ([fusion](fusion.md)); nothing was chosen here.",
        both(one, two),
        "## First set: manuals, papers, slides, forms",
        described(one),
        overall(one),
        by(one, "kind"),
        "## Second set: scans, maps, slides, forms, cards, letters, music, in five languages",
        described(two),
        overall(two),
        kinds,
        by(two, "kind"),
        "### Its test half by kind",
        by(two, "kind", "test"),
        "### By document",
        by(two, "document"),
        "## Questions of the second set that no ranking answers first",
        missed(two),
    ]
    machine.write("quality.md", "\n\n".join(text))


if __name__ == "__main__":
    main()
