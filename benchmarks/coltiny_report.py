"""The tables of `benchmarks.coltiny_quality`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.coltiny_set import KINDS
from benchmarks.page_set import Page, Question
from benchmarks.ranking import first, interval, ndcg, ratio_interval

OURS, WORDS = "ColTiny, MaxSim", "BM25, stemmed, the PDF's own text"
ALONE = "ColTiny, MaxSim of its words alone"
UNSTEMMED = "BM25, the PDF's own text"
Values = NDArray[np.float64]


@dataclass
class Measured:
    """Results: rankings by condition and system, and the cost per page."""

    pages: list[Page]
    asked: list[Question]
    systems: dict[str, dict[str, list[list[int]]]]
    fused: dict[str, list[list[int]]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    vectors: dict[str, list[int]] = field(default_factory=dict)
    programs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        place = {page.name: index for index, page in enumerate(self.pages)}
        half = {page.document.name: page.document.half for page in self.pages}
        self.relevant = [{place[name] for name in question.pages} for question in self.asked]
        self.kind = np.array([question.kind for question in self.asked])
        self.half = np.array([half[question.document] for question in self.asked])
        self.document = np.array([question.document for question in self.asked])

    def gains(self, rankings: Sequence[Sequence[int]], k: int = 5) -> Values:
        """nDCG@k of each question; k = 1 gives recall@1: is the first page a relevant one?"""
        pairs = zip(rankings, self.relevant, strict=True)
        if k == 1:
            return np.array([first(ranking, relevant) for ranking, relevant in pairs])
        return np.array([ndcg(ranking, relevant, k) for ranking, relevant in pairs])


def cell(values: Values) -> str:
    low, high = interval(values)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def _overall(found: Measured, condition: str) -> str:
    rows = []
    for name, rankings in found.systems[condition].items():
        gains = found.gains(rankings)
        halves = [f"{gains[found.half == half].mean():.3f}" for half in ("dev", "test")]
        rows.append((name, cell(gains), cell(found.gains(rankings, 10)), cell(found.gains(rankings, 1)), *halves))
    return machine.table(("system", "nDCG@5", "nDCG@10", "recall@1", "nDCG@5, dev", "nDCG@5, test"), rows)


def _by_kind(found: Measured, condition: str) -> str:
    header = ["nDCG@5", *(f"{kind} ({int((found.kind == kind).sum())})" for kind in KINDS)]
    rows = []
    for name, rankings in found.systems[condition].items():
        gains = found.gains(rankings)
        rows.append((name, *(cell(gains[found.kind == kind]) for kind in KINDS)))
    return machine.table(header, rows)


def _shares(found: Measured) -> str:
    """ColTiny's MaxSim as a share of others, paired, by kind and by half."""
    groups = {"all": np.ones(len(found.asked), bool), **{kind: found.kind == kind for kind in KINDS}}
    groups |= {f"all, {half}": found.half == half for half in ("dev", "test")}
    clean, scanned = (found.systems[condition] for condition in ("clean", "scans"))
    pairs = [("clean", OURS, name, clean, clean) for name in clean if name.startswith(("BM25", "MiniLM"))]
    pairs += [("clean", OURS, ALONE, clean, clean), ("scans", OURS, ALONE, scanned, scanned)]
    pairs += [("scans", OURS, name, scanned, scanned) for name in scanned if name.startswith(("BM25", "MiniLM"))]
    whole = [name for name in scanned if name in clean and (name == OURS or not name.startswith("ColTiny"))]
    pairs += [("scans", name, f"{name}, clean", scanned, clean) for name in whole]
    fused = next(iter(name for name in clean if name.startswith("hybrid")), None)
    if fused:
        pairs += [("clean", fused, WORDS, clean, clean)]
    rows = []
    for condition, name, other, ours, theirs in pairs:
        a, b = found.gains(ours[name]), found.gains(theirs[other.removesuffix(", clean")])
        shares = ["{:.2f} [{:.2f}, {:.2f}]".format(*ratio_interval(a[mask], b[mask])) for mask in groups.values()]
        rows.append((f"{name} ({condition})", other, *shares))
    return machine.table(("nDCG@5 of", "as a share of", *groups), rows)


def _bars(found: Measured) -> str:
    clean, scanned = found.gains(found.systems["clean"][OURS]), found.gains(found.systems["scans"][OURS])
    rows = []

    def bar(what: str, measured: str, wanted: str, met: bool) -> None:
        rows.append((what, measured, wanted, "met" if met else "**missed**"))

    for name in (UNSTEMMED, WORDS):
        words = found.gains(found.systems["clean"][name])
        for kind, mask in (("keywords", found.kind == "keywords"), ("all questions", found.kind != "")):
            for half in ("test", "both halves"):
                chosen = mask & ((found.half == half) | (half == "both halves"))
                ratio, low, high = ratio_interval(clean[chosen], words[chosen])
                what = f"{kind}, {half}: share of {name}"
                bar(what, f"{ratio:.3f} [{low:.3f}, {high:.3f}]", ">= 0.97", ratio >= 0.97)
    ratio, low, high = ratio_interval(scanned, clean)
    bar("scans: share of its own clean score", f"{ratio:.3f} [{low:.3f}, {high:.3f}]", ">= 0.93", ratio >= 0.93)
    if "Tesseract, clean" in found.seconds:
        times = median(found.seconds["Tesseract, clean"]) / median(found.seconds["ColTiny, clean"])
        bar("times as fast as Tesseract (medians of CPU seconds)", f"{times:.1f}", ">= 5", times >= 5)
    vectors = float(np.mean(found.vectors["clean"]))
    bar("vectors a page (mean)", f"{vectors:.0f}", "<= 200", vectors <= 200)
    return machine.table(("bar", "measured", "wanted", ""), rows)


def _costs(found: Measured) -> str:
    rows = []
    for name, seconds in found.seconds.items():
        low, mid, high = np.quantile(seconds, [0.1, 0.5, 0.9])
        rows.append((name, f"{mid:.3f}", f"{low:.3f} to {high:.3f}", f"{np.mean(seconds):.3f}"))
    sizes = []
    for condition, counts in found.vectors.items():
        low, mid, high = np.quantile(counts, [0.1, 0.5, 0.9])
        kilobytes = np.mean(counts) * 128 * 2 / 1000
        spread = (f"{np.mean(counts):.0f}", f"{mid:.0f}", f"{low:.0f} to {high:.0f}", max(counts))
        sizes.append((condition, *spread, f"{kilobytes:.1f} KB", f"{kilobytes / 2:.1f} KB"))
    return "\n\n".join(
        (
            machine.table(("CPU seconds a page, one thread", "median", "80 % lie in", "mean"), rows),
            machine.table(
                ("vectors a page", "mean", "median", "80 % lie in", "most", "float16 (mean)", "int8 (mean)"), sizes
            ),
        )
    )


def _by_document(found: Measured) -> str:
    columns = [(condition, name) for condition in found.systems for name in found.systems[condition]]
    columns = [pair for pair in columns if pair[1] in (OURS, WORDS, "BM25, stemmed, Tesseract")]
    rows = []
    for document in dict.fromkeys(page.document for page in found.pages):
        mask = found.document == document.name
        means = [f"{found.gains(found.systems[c][name])[mask].mean():.2f}" for c, name in columns]
        pages = document.last - document.first + 1
        row = (f"{document.name} ({document.half}, {document.language})", document.layout, pages, int(mask.sum()))
        rows.append((*row, *means))
    header = ("document", "layout", "pages", "questions", *(f"{name}, {condition}" for condition, name in columns))
    return machine.table(header, rows)


def _failures(found: Measured, count: int = 15) -> str:
    """Questions that stemmed BM25 answers from perfect text and ColTiny does not find, the widest gap first."""
    ours, words = (found.gains(found.systems["clean"][name], 10) for name in (OURS, WORDS))
    rows = []
    for index in np.argsort(ours - words, kind="stable")[:count]:
        ranking = found.systems["clean"][OURS][index]
        place = next((str(rank + 1) for rank, page in enumerate(ranking) if page in found.relevant[index]), "> 10")
        shown = found.pages[ranking[0]].name if ranking else "none"
        question = found.asked[index]
        text = question.text.replace("|", "\\|")
        rows.append((text, question.kind, ", ".join(question.pages), place, shown, f"{words[index]:.2f}"))
    header = ("question", "kind", "pages", "rank of the first right page", "shown first", "nDCG@10 of BM25")
    return machine.table(header, rows)


def write(found: Measured, name: str, model: str) -> None:
    """Choose the fusion on "dev", then write every table."""
    if found.fused:
        dev = {way: found.gains(rankings)[found.half == "dev"].mean() for way, rankings in found.fused.items()}
        way = max(dev, key=lambda key: dev[key])
        found.systems["clean"][f"hybrid ColTiny + BM25 ({way}), the PDF's own text"] = found.fused[way]
    missing = [what for what in ("Tesseract", "MiniLM") if not any(what in s for s in found.systems["clean"])]
    documents = list(dict.fromkeys(page.document for page in found.pages))
    counts = ", ".join(f"{int((found.kind == kind).sum())} {kind}" for kind in KINDS)
    parts = [
        "# ColTiny on real pages it never saw",
        "`python -m benchmarks.coltiny_quality --fetch`",
        machine.describe() + "".join(f" {program}." for program in found.programs) + f" Model files {model}.",
        f"{len(found.pages)} pages of {len(documents)} documents, {len(found.asked)} questions ({counts}), every "
        "question over all pages. Training read no PDF page at all. The questions were written from the pages, their "
        "figures looked at, before any system was run; one reader judged which pages answer, from the documents and "
        "not from pooled results, so some page that answers may be missing. Pages at 150 dpi. Scans are the same "
        "pages on grey paper, turned by up to 2 degrees, "
        "blurred, noisy, JPEG. Brackets: 95 % bootstrap intervals over questions; shares are paired. recall@1: the "
        "first page is a relevant one. Tesseract reads with the document's own language. The hybrid's fusion is "
        'chosen on the documents of "dev", and so were the constants of scoring, on those of the 420 manual pages of '
        "training/evaluation.json too; the test half was in view meanwhile, as after every change of the model. "
        "Two-stage searches score 30 candidates with all vectors; MUVERA and the means are built from the vectors as "
        "they are, hinge and lengths included. `survival`'s text layer lacks the ligatures (fi, ff): its text is no "
        "perfect one.",
        *([f"Left out, as their programs are missing: {', '.join(missing)}."] if missing else []),
        "## Targets",
        _bars(found),
        "## Born-digital pages",
        _overall(found, "clean"),
        _by_kind(found, "clean"),
        "## The same pages as scans",
        _overall(found, "scans"),
        _by_kind(found, "scans"),
        "## Shares, paired",
        _shares(found),
        "## What a page costs",
        "Every eighth page, turn by turn, from the same picture: decoding, resizing and the network for ColTiny; the "
        "whole process for Tesseract.",
        _costs(found),
        "## By document (nDCG@5)",
        _by_document(found),
        "## Where ColTiny fails and BM25 on the PDF's own text does not",
        _failures(found),
    ]
    machine.write(name, "\n\n".join(parts))
