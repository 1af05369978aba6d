"""The words and sentences that synthetic pages are set from, and how rare each word is.

``python -m training.corpus --out training/work/corpus.json.gz``

Every source is a Debian package with a free licence (see SOURCES.md); no text of any PDF is read.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from colpali_integrations.models.coltiny.words import words

WORDNET = Path("/usr/share/wordnet")
MANUAL_PAGES = Path("/usr/share/man")
MANUAL_PACKAGES = ("manpages", "manpages-dev")
FOREIGN_MANUALS = ("manpages-de", "manpages-fr", "manpages-es")
WORD_LIST = Path("/usr/share/dict/american-english-large")
FOREIGN_WORD_LISTS = tuple(Path("/usr/share/dict") / name for name in ("ngerman", "french", "spanish"))
FOREIGN_LINES, FOREIGN_WORDS = 40_000, 60_000
"""Of each other language, so that English stays the most common."""

# What troff writes inside a line: font switches, sizes, named characters, strings.
_ROFF_INLINE = re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)|\\s[-+]?\d+|\\\*\(..|\\\*.|\\[&|^/,:]|\\c$")
_ROFF_NAMED = re.compile(r"\\\((\w\w)|\\\[(\w+)\]")
_NAMED = {"aq": "'", "dq": '"', "lq": '"', "rq": '"', "em": "-", "en": "-", "ha": "^", "ti": "~", "bu": "*", "mc": "u"}


@dataclass
class Corpus:
    """Text to set on synthetic pages.

    Attributes:
        lines: natural English text, one sentence or line each.
        foreign_lines: the same in German, French and Spanish.
        vocabulary: English words for uniform sampling, so that rare spellings are seen as often as common ones.
        foreign_vocabulary: the same in German, French and Spanish.
        frequency: in how many lines each folded word stands.
    """

    lines: list[str]
    foreign_lines: list[str]
    vocabulary: list[str]
    foreign_vocabulary: list[str]
    frequency: dict[str, int]

    def save(self, path: Path) -> None:
        """Write as gzipped JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8") as file:
            json.dump(self.__dict__, file)

    @classmethod
    def load(cls, path: Path) -> Corpus:
        """Read what :meth:`save` wrote."""
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return cls(**json.load(file))


def glosses() -> list[str]:
    """WordNet: each synset's first word and its gloss with examples."""
    lines = []
    for path in sorted(WORDNET.glob("data.*")):
        for line in path.read_text(encoding="utf-8", errors="ignore").splitlines():
            head, bar, gloss = line.partition("|")
            if bar:
                lines.append(f"{head.split()[4].replace('_', ' ')}: {gloss.strip()}")
    return lines


def plain(line: str) -> str:
    r"""One line of troff source as a reader sees it, or nothing for pure markup.

    >>> plain(r".B fork (\-\-all)")
    'fork (--all)'
    """
    if line.startswith((".", "'")):
        macro, _, line = line.partition(" ")
        if macro.lstrip(".'") not in {"B", "I", "BR", "IR", "RB", "RI", "BI", "IB", "SH", "SS", "IP", "TP"}:
            return ""
    line = _ROFF_INLINE.sub("", line).replace("\\-", "-").replace("\\e", "\\").replace("\\ ", " ")
    line = _ROFF_NAMED.sub(lambda found: _NAMED.get(found[1] or found[2], ""), line)
    return "" if '\\"' in line else line.replace('"', "").strip()


def manual_lines(packages: tuple[str, ...] = MANUAL_PACKAGES) -> list[str]:
    """Lines of at least four words of the manual pages that ``packages`` installed."""
    lines = []
    for package in packages:
        listing = Path(f"/var/lib/dpkg/info/{package}.list").read_text().split()
        for name in listing:
            path = Path(name)
            if path.suffix == ".gz" and MANUAL_PAGES in path.parents and path.is_file() and not path.is_symlink():
                with gzip.open(path, "rt", encoding="utf-8", errors="ignore") as file:
                    found = [plain(line.rstrip()) for line in file]
                lines.extend(line for line in found if len(line.split()) >= 4)
    return lines


def vocabulary() -> list[str]:
    """Words of three letters and more: SCOWL's large list and every word of WordNet's index."""
    found = {word for word in WORD_LIST.read_text(encoding="utf-8").split() if "'" not in word and len(word) > 2}
    for path in sorted(WORDNET.glob("index.*")):
        for line in path.read_text(encoding="utf-8", errors="ignore").splitlines():
            if not line.startswith(" "):
                found.update(part for part in line.split()[0].split("_") if len(part) > 2)
    return sorted(found)


def build(seed: int = 0) -> Corpus:
    """Collect all sources, in an order that only depends on ``seed``."""
    rng = random.Random(seed)
    lines = [*glosses(), *manual_lines()]
    rng.shuffle(lines)
    foreign_lines: list[str] = []
    for package in FOREIGN_MANUALS:
        found = sorted(set(manual_lines((package,))))
        foreign_lines += rng.sample(found, min(len(found), FOREIGN_LINES))
    foreign_words: list[str] = []
    for path in FOREIGN_WORD_LISTS:
        listed = [word for word in path.read_text(encoding="utf-8").split() if "'" not in word and len(word) > 2]
        foreign_words += rng.sample(listed, min(len(listed), FOREIGN_WORDS))
    frequency = Counter(word for line in (*lines, *foreign_lines) for word in set(words(line)))
    return Corpus(lines, foreign_lines, vocabulary(), foreign_words, dict(frequency))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("training/work/corpus.json.gz"))
    options = parser.parse_args()
    corpus = build()
    corpus.save(options.out)
    print(
        f"{len(corpus.lines)} + {len(corpus.foreign_lines)} lines, {len(corpus.vocabulary)} +"
        f" {len(corpus.foreign_vocabulary)} words, {len(corpus.frequency)} spellings counted"
    )


if __name__ == "__main__":
    main()
