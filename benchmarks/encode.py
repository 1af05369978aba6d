"""Encoding, side by side with fastembed on the same ONNX file: latency, throughput, memory, first result.

From the repository's root, after `python -m benchmarks.make_replica`::

    python -m benchmarks.encode                      # everything, about 40 minutes on two busy cores
    python -m benchmarks.encode text memory          # some of it
    python -m benchmarks.encode images --rounds 5 --pages 24

Contestants take turns, each run in a process of its own; what is printed is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.process import Outcome, measure

HERE = Path(__file__).parent
WORK = HERE / "work"
PDFS = HERE.parent / "demo" / "pdfs"
QUESTIONS = HERE.parent / "demo" / "questions.json"
MIB = 2**20

OURS = "ours"
WHOLE = "ours, whole graph"
ONE = "ours, threads=1"
PEER = "fastembed"
# The same weights as a checkpoint in safetensors, by their precision.
BUILT = {f"ours, checkpoint {precision}": precision for precision in ("float32", "int8", "int8-dynamic")}


def contestant(name: str, folder: Path, **more: Any) -> dict[str, Any]:
    who = "fastembed" if name == PEER else "ours"
    given = {WHOLE: {"split_graph": False}, ONE: {"threads": 1}}.get(name, {})
    if name in BUILT:
        folder = folder.with_name(f"{folder.name}-checkpoint")
        given = {"precision": BUILT[name], "cache_dir": str(WORK)}
    return {"who": who, "folder": str(folder), "options": given, **more}


def queries(count: int) -> list[str]:
    """Questions of mixed length; all short enough for fastembed not to truncate them."""
    texts = [entry["question"] for entry in json.loads(QUESTIONS.read_text(encoding="utf-8"))["questions"]]
    short = [text for text in texts if len(text) <= 60]
    short += [" ".join(text.split()[: 2 + place % 4]) for place, text in enumerate(short)]
    return [short[place % len(short)] for place in range(count)]


def pages(count: int) -> list[str]:
    """Page images of the demo's PDFs at 150 dpi, as PNG files, made on first use."""
    folder = WORK / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    made = sorted(folder.glob("*.png"))
    if not made:
        from colpali_integrations.pages.pdf import pdf_page_count, pdf_pages

        for pdf in sorted(PDFS.glob("*.pdf")):
            for page in pdf_pages(pdf, pages=range(1, min(pdf_page_count(pdf), 6) + 1)):
                path = folder / f"{page.number:02d}-{pdf.stem}.png"  # documents take turns
                page.image.save(path)
        made = sorted(folder.glob("*.png"))
    return [str(made[place % len(made)]) for place in range(count)]


def difference(ours: Path, theirs: Path) -> float:
    """Greatest difference of a coordinate. The peer also returns rows for padding, after the real ones."""
    with np.load(ours) as a, np.load(theirs) as b:
        assert sorted(a) == sorted(b)
        return max(float(np.abs(a[name] - b[name][: len(a[name])]).max()) for name in a)


def ms(values: list[float]) -> str:
    return machine.spread(values, unit=1000)


def mib(values: list[float]) -> str:
    return machine.spread(values, unit=1 / MIB)


def text(folder: Path, options: argparse.Namespace) -> str:
    names = (OURS, WHOLE, PEER)
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for label, texts, calls in (("1 query", queries(1), 5), ("32 queries", queries(32), 1)):
            seconds: dict[str, list[float]] = {name: [] for name in names}
            cpu: dict[str, list[float]] = {name: [] for name in names}
            saved = {name: Path(temporary) / f"{place}.npz" for place, name in enumerate(names)}
            for _ in range(options.rounds):
                for name in names:
                    task = contestant(name, folder, what="text", texts=texts, batch_size=None, calls=calls)
                    outcome = measure({**task, "save": str(saved[name])}, watch=False)
                    seconds[name].append(median(outcome.result["seconds"]))
                    cpu[name].append(median(outcome.result["cpu"]))
            base = median(seconds[OURS])
            rows += [
                (f"{label}, {name}", ms(seconds[name]), ms(cpu[name]), f"{median(seconds[name]) / base:.1f}x")
                for name in names
            ]
            notes.append(
                f"{label}: greatest difference of a coordinate {difference(saved[OURS], saved[WHOLE]):.1e} from the "
                f"whole graph, {difference(saved[OURS], saved[PEER]):.1e} from fastembed"
            )
    table = machine.table(("text queries", "latency, ms", "CPU time, ms", "latency against ours"), rows)
    return f"{table}\n\nMedian of {options.rounds} processes a row (least to greatest). " + "; ".join(notes) + "."


def memory(folder: Path, options: argparse.Namespace) -> str:
    names = (OURS, PEER)
    added: dict[str, list[float]] = {name: [] for name in names}
    notes = []
    for _ in range(min(options.rounds, 2)):
        for name in names:
            task = contestant(name, folder, what="text_memory", texts=queries(256), batch_size=None)
            outcome = measure(task, most=options.most * 2**30)
            added[name].append(float(outcome.peaks["run"] - outcome.rests["run"]))
            if outcome.stopped:
                notes.append(f"{name} was {outcome.stopped}; its number is what it had added by then, a lower bound.")
    base = median(added[OURS])
    rows = [(name, mib(added[name]), f"{median(added[name]) / base:.1f}x") for name in names]
    table = machine.table(("256 queries in one call", "memory added, MiB", "against ours"), rows)
    return f"{table}\n\nEach with its default batch size (ours 64, fastembed 256). " + " ".join(dict.fromkeys(notes))


def images(folder: Path, options: argparse.Namespace) -> str:
    batches = options.batches or [None, 1]
    grid: list[tuple[str, int | None, int | None]] = [(OURS, parallel, b) for parallel in (None, 2) for b in batches]
    # fastembed's default of 16 leaves a worker idle on a short list of pages.
    grid += [(PEER, None, b) for b in batches] + [(PEER, 2, 4 if b is None else b) for b in batches]
    return compare(folder, options, grid, WORK / "images.jsonl")


def bulk(folder: Path, options: argparse.Namespace) -> str:
    """The settings for long work: one thread per run, as many runs as cores."""
    return compare(folder, options, [(ONE, 2, 1), (PEER, 2, 1), (OURS, 2, 1)], WORK / "bulk.jsonl")


def built(folder: Path, options: argparse.Namespace) -> str:
    """The checkpoint in each precision, the export, and fastembed at its two settings."""
    grid: list[tuple[str, int | None, int | None]] = [(name, None, 1) for name in (*BUILT, OURS, PEER)]
    return compare(folder, options, [*grid, (PEER, 2, 1)], WORK / "built.jsonl")


def compare(
    folder: Path, options: argparse.Namespace, grid: list[tuple[str, int | None, int | None]], kept: Path
) -> str:
    paths = pages(options.pages)
    found: dict[tuple[str, int | None, int | None], list[Outcome]] = {entry: [] for entry in grid}
    with tempfile.TemporaryDirectory() as temporary:
        saved = {name: Path(temporary) / f"{name}.npz" for name in (OURS, PEER)}
        if options.resume and kept.is_file():
            for line in kept.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                entry = (record["name"], record["parallel"], record["batch"])
                if entry in found and record["outcome"]["result"].get("n", len(paths)) == len(paths):
                    found[entry].append(Outcome(**record["outcome"]))
        else:
            kept.write_text("", encoding="utf-8")
        for turn in range(options.rounds):
            for entry in grid if turn % 2 == 0 else grid[::-1]:
                if len(found[entry]) > turn:
                    continue
                name, parallel, batch = entry
                task = contestant(name, folder, what="images", paths=paths, parallel=parallel, batch_size=batch)
                outcome = measure(task)
                found[entry].append(outcome)
                record = {"name": name, "parallel": parallel, "batch": batch, "outcome": vars(outcome)}
                with kept.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(record) + "\n")
        for name in (OURS, PEER):
            task = contestant(name, folder, what="images", paths=paths[:2], parallel=None, batch_size=1)
            measure({**task, "save": str(saved[name])}, watch=False)
        apart = difference(saved[OURS], saved[PEER])
    n = len(paths)
    rows = []
    rates = {}
    for entry, outcomes in found.items():
        name, parallel, batch = entry
        done = [outcome for outcome in outcomes if outcome.result]
        label = f"{name}, parallel={parallel}, batch {'default' if batch is None else batch}"
        if not done:
            rows.append((label, outcomes[0].stopped, "", "", "", ""))
            continue
        seconds = [outcome.result["seconds"] for outcome in done]
        rates[entry] = n / median(seconds)
        rows.append(
            (
                label,
                machine.spread([n / value for value in seconds], digits=2),
                machine.spread([outcome.result["cpu"] / n for outcome in done], digits=2),
                machine.spread([outcome.result["first"] for outcome in done], digits=1),
                mib([float(outcome.peaks["run"]) for outcome in done]),
                mib([float(outcome.peaks["run"] - outcome.rests["run"]) for outcome in done]),
            )
        )
    header = ("pages", "pages/s", "CPU s/page", "first result, s", "peak memory, MiB", "of it added by the run, MiB")
    table = machine.table(header, rows)
    best: dict[tuple[bool, int | None], float] = {}
    for (name, parallel, _), rate in rates.items():
        best[name == PEER, parallel] = max(rate, best.get((name == PEER, parallel), 0.0))
    ratios = ", ".join(
        f"parallel={parallel}: {best[False, parallel] / best[True, parallel]:.2f}x"
        for parallel in (None, 2)
        if (False, parallel) in best and (True, parallel) in best
    )
    return (
        f"{table}\n\n{n} pages of 150 dpi from PNG files, through a generator; {options.rounds} rounds. A pool of "
        f"processes is started within the call, as its user would see it. Pages/s of ours over fastembed's, each at "
        f"its fastest setting: {ratios}. Greatest difference of a coordinate between the two: {apart:.1e} (2 pages)."
    )


def first(folder: Path, options: argparse.Namespace) -> str:
    paths = pages(24)
    rows = []
    base = 0.0
    for name, batch in ((OURS, None), (OURS, 1), (PEER, None), (PEER, 4), (PEER, 1)):
        task = contestant(name, folder, what="first", paths=paths, parallel=2, batch_size=batch, n=options.long, take=8)
        outcomes = [measure(task) for _ in range(min(options.rounds, 2))]
        print(name, batch, outcomes, flush=True)
        done = [outcome.result for outcome in outcomes if outcome.result]
        label = f"{name}, batch {'default' if batch is None else batch}"
        peak = mib([float(outcome.peaks["run"]) for outcome in outcomes])
        if not done:
            rows.append((label, outcomes[0].stopped, "", "", peak, ""))
            continue
        seconds = [result["first"] for result in done]
        base = base or median(seconds)
        rows.append(
            (
                label,
                machine.spread(seconds, digits=1),
                machine.spread([float(result["pulled"]) for result in done]),
                machine.spread([float(result["later"]) for result in done]),
                peak,
                f"{median(seconds) / base:.1f}x",
            )
        )
    header = (
        f"generator of {options.long} pages, parallel=2",
        "first result, s",
        "pages pulled by then",
        "pages ahead after 8 results",
        "peak memory, MiB",
        "time against ours",
    )
    return machine.table(header, rows) + "\n\nThe generator reads PNG files of 150 dpi and yields PIL images."


SECTIONS: dict[str, tuple[str, Callable[[Path, argparse.Namespace], str]]] = {
    "text": ("Text queries", text),
    "memory": ("Memory added by queries", memory),
    "images": ("Pages", images),
    "bulk": ("Pages, the settings for long work", bulk),
    "built": ("Pages, from the checkpoint", built),
    "first": ("The first result of a long generator", first),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="all by default")
    parser.add_argument("--model", type=Path, default=WORK / "colpali-quarter", help="folder with the ONNX export")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=16)
    parser.add_argument("--batches", type=int, nargs="*", help="batch sizes of pages; the default and 1 if not given")
    parser.add_argument("--most", type=float, default=5, help="GiB at which the memory comparison stops a contestant")
    parser.add_argument("--resume", action="store_true", help="keep the page measurements that work/images.jsonl holds")
    parser.add_argument("--long", type=int, default=1000, help="pages of the long generator")
    options = parser.parse_args()
    folder = options.model.resolve()
    if not (folder / "model.onnx").is_file():
        parser.error(f"no model.onnx in {folder}; make it with: python -m benchmarks.make_replica")
    store = machine.RESULTS / "encode"
    store.mkdir(parents=True, exist_ok=True)
    for name in options.sections or SECTIONS:
        title, run = SECTIONS[name]
        body = run(folder, options)
        (store / f"{name}.md").write_text(f"## {title}\n\n{body}\n\n{machine.describe()}\n", encoding="utf-8")
    parts = [
        (store / f"{name}.md").read_text(encoding="utf-8") for name in SECTIONS if (store / f"{name}.md").is_file()
    ]
    head = (
        "# Encoding: ours against fastembed on the same ONNX file\n\nThe model is `make_replica.py`'s ColPali of a "
        "quarter of the real width. Made by `python -m benchmarks.encode`.\n"
    )
    machine.write("encode.md", "\n".join([head, *parts]))


if __name__ == "__main__":
    main()
