"""Read the public test files of pdf.js, qpdf and Pillow as `index_documents` does, all in one process.

    apt-get update && python -m benchmarks.corpora > benchmarks/results/corpora.md

The files come from Debian's source packages (`apt-get source`, Debian 12) and are not part of this repository. Each is
opened, and the text of each page is read and its picture drawn, PDFs in worker processes with their limits. Many of the
files are damaged on purpose: a `ColPaliError` is right for them, and any other exception, a crash of this process or a
file that takes minutes is not.
"""

from __future__ import annotations

import argparse
import logging
import re
import resource
import subprocess
import tarfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from benchmarks import machine
from colpali_integrations.errors import ColPaliError
from colpali_integrations.stores import DocumentSource

WORK = Path(__file__).parent / "work" / "corpora"
SOURCES = "deb-src http://deb.debian.org/debian bookworm main\n"
# Package, and the folders of its test files in its source.
CORPORA = {
    "pdf.js": ("pdf.js", ("test/pdfs/",)),
    "qpdf": ("qpdf", ("qpdf/qtest/", "examples/qtest/", "libtests/qtest/")),
    "Pillow": ("pillow", ("Tests/images/",)),
}
NO_PICTURES = {"", ".txt", ".md", ".py", ".html", ".ttf", ".icc"}
# Messages of worker processes that were ended, see pages/_process.py.
ENDED = {"crash": re.compile(r"process that reads PDFs|signal|it ends"), "limit": re.compile(r"it takes (?:more|too)")}


@dataclass
class Result:
    """What became of the files of a corpus.

    Attributes:
        files: number of files.
        pages: number of pages that were read and drawn.
        failures: number of errors by class and kind.
        faults: files with another exception.
        slowest: seconds and name of the slowest file.
    """

    files: int = 0
    pages: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


def fetch() -> None:
    """Download and unpack the test files of each package."""
    lists = WORK / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    sources = WORK / "sources.list"
    sources.write_text(SOURCES)
    places = {"Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "/dev/null", "Dir::State::lists": lists}
    apt = ["apt-get", "-q", *(part for name, value in places.items() for part in ("-o", f"{name}={value}"))]
    if all((WORK / name).exists() for name in CORPORA):
        return
    subprocess.run([*apt, "update"], check=True, capture_output=True)
    for name, (package, folders) in CORPORA.items():
        subprocess.run([*apt, "source", "--download-only", package], check=True, capture_output=True, cwd=WORK)
        archive = next(path for path in WORK.glob(f"{package}_*.orig.tar.*") if path.suffix != ".asc")
        with tarfile.open(archive) as source:
            inside = [one for one in source if one.isfile() and one.name.partition("/")[2].startswith(folders)]
            source.extractall(WORK / name, members=inside, filter="data")


def documents(corpus: str) -> Iterator[Path]:
    """The PDFs of a corpus, and of Pillow's all files but texts, programs and fonts."""
    for path in sorted((WORK / corpus).rglob("*")):
        suffix = path.suffix.lower()
        if path.is_file() and (suffix not in NO_PICTURES if corpus == "Pillow" else suffix == ".pdf"):
            yield path


def kind(error: ColPaliError) -> str:
    ended = [name for name, pattern in ENDED.items() if pattern.search(str(error))]
    return f"{type(error).__name__} ({ended[0]})" if ended else type(error).__name__


def read(path: Path, result: Result, dpi: float, most: int) -> None:
    """Read the first pages of a file; its errors go to the result."""
    source = DocumentSource(source=path, dpi=dpi)
    start = time.monotonic()
    try:
        with source.open() as document:
            for item in islice(source.items(document), most):
                try:
                    item.entry().to_payload()
                    if item.draw is not None:
                        item.draw()
                    result.pages += 1
                except ColPaliError as error:
                    result.failures[kind(error)] += 1
    except ColPaliError as error:
        result.failures[kind(error)] += 1
    except Exception as error:
        result.faults.append(f"{path.name}: {type(error).__name__}: {error}")
    result.files += 1
    result.slowest = max(result.slowest, (time.monotonic() - start, path.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dpi", type=float, default=150)
    parser.add_argument("--pages", type=int, default=20, help="at most so many pages per document")
    options = parser.parse_args()
    logging.getLogger("colpali_integrations").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # of Pillow about damaged files
    fetch()
    print("# Test files of pdf.js, qpdf and Pillow\n")
    print(f"Made by `python -m benchmarks.corpora --dpi {options.dpi:g} --pages {options.pages}`.")
    print("Debian 12: " + ", ".join(sorted(path.name for path in WORK.glob("*.dsc"))) + ".\n")
    print("| corpus | files | pages | failures by class | other exceptions | slowest file |")
    print("|---|---|---|---|---|---|")
    faults: list[str] = []
    for corpus in CORPORA:
        result = Result()
        for path in documents(corpus):
            read(path, result, options.dpi, options.pages)
        failures = ", ".join(f"{name} {count}" for name, count in result.failures.most_common()) or "none"
        seconds, name = result.slowest
        counts = f"{result.files} | {result.pages} | {failures} | {len(result.faults)}"
        print(f"| {corpus} | {counts} | {seconds:.1f} s, {name} |", flush=True)
        faults += result.faults
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"\nThe process that read all files needed at most {peak / 1e6:.0f} MB.")
    print(*(f"\n- {fault}" for fault in faults), sep="")
    print(machine.describe())


if __name__ == "__main__":
    main()
