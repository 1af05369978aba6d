"""Real PDFs that ColTiny's training never touched, questions about their pages, and the pages as bad scans.

`documents.json` pins each document by package, path and SHA-256 and puts it in one half: constants may be chosen on
"dev" and are reported on "test". `questions.json` was written by reading the pages, before any system was run on them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
from PIL import Image, ImageFilter

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = HERE.parent / "work" / "coltiny_set"
DPI = 150  # what the package renders at by default
KINDS = ("paraphrase", "keywords", "table", "figure")


@dataclass(frozen=True)
class Document:
    """One PDF: where it comes from, which of its pages are used, and its half.

    Attributes:
        name: short name, by which questions refer to its pages.
        package: Debian package that carries it; None for a file of this repository.
        version: of the package that was read; the checksum decides.
        path: inside the package, or from the repository's root; ".gz" is unpacked.
        sha256: of the file at `path`.
        first: first page used, from 1.
        last: last page used.
        half: "dev" or "test".
        language: ISO 639-1 code.
        layout: what is on its pages, in words.
        license: of the document, where it is noted.
        scanned: whether its pages are used as bad scans (`scan`) without their text layer.
    """

    name: str
    package: str | None
    path: str
    sha256: str
    first: int
    last: int
    half: str
    language: str
    layout: str
    version: str = ""
    license: str = ""
    scanned: bool = False


@dataclass(frozen=True)
class Page:
    """One page: its document, its number there, its clean picture and its text layer."""

    document: Document
    number: int
    image: Path
    text: str

    @property
    def name(self) -> str:
        return f"{self.document.name}:{self.number}"


@dataclass(frozen=True)
class Question:
    """A query, its kind and every page that answers it, as `name:number`."""

    text: str
    kind: str
    pages: tuple[str, ...]

    @property
    def document(self) -> str:
        return self.pages[0].split(":")[0]


def documents(folder: Path = HERE) -> list[Document]:
    """The documents, in the file's order."""
    return [Document(**entry) for entry in json.loads((folder / "documents.json").read_text(encoding="utf-8"))]


def questions(folder: Path = HERE) -> list[Question]:
    """The questions, in the file's order."""
    entries = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    return [Question(entry["text"], entry["kind"], tuple(entry["pages"])) for entry in entries]


def fetch(folder: Path = WORK / "packages", of: Sequence[Document] | None = None) -> None:
    """Download the documents' Debian packages (apt-get, Debian 12) and unpack each in a folder of its own."""
    for document in documents() if of is None else of:
        if document.package and not (folder / document.package / document.path).exists():
            fetch_package(document.package, folder)


def fetch_package(package: str, folder: Path) -> None:
    """Download a Debian package and unpack it in `folder / package`."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True)
    archive = next(folder.glob(f"{package}_*.deb"))
    subprocess.run(["dpkg", "-x", archive, folder / package], check=True)


def read(document: Document, folder: Path = WORK / "packages") -> bytes:
    """The PDF's bytes.

    Raises:
        ValueError: the file is not the one that the questions were written for.
    """
    path = folder / document.package / document.path if document.package else ROOT / document.path
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != document.sha256:
        raise ValueError(f"{document.name}: SHA-256 is {found}, not {document.sha256}; is {document.package} newer?")
    return gzip.decompress(data) if path.suffix == ".gz" else data


def load(
    folder: Path = WORK / "packages",
    images: Path = WORK / "clean",
    of: Sequence[Document] | None = None,
    reading: Callable[[Document, Path], bytes] = read,
) -> list[Page]:
    """All pages in order; pictures that are missing are rendered at 150 dpi in grey."""
    images.mkdir(parents=True, exist_ok=True)
    pages = []
    for document in documents() if of is None else of:
        with pdfium.PdfDocument(reading(document, folder)) as pdf:
            for number in range(document.first, document.last + 1):
                page, image = pdf[number - 1], images / f"{document.name}-{number:03d}.png"
                if not image.exists():
                    drawn = page.render(scale=DPI / 72, grayscale=True).to_pil()
                    drawn = scan(drawn, f"{document.name}:{number}") if document.scanned else drawn
                    drawn.save(image, compress_level=1)
                text = "" if document.scanned else page.get_textpage().get_text_range()
                pages.append(Page(document, number, image, text))
    return pages


def scan(image: Image.Image, seed: str) -> Image.Image:
    """A clean page as a bad photocopier and a scanner would give it, the same for the same seed.

    In this order: grey paper with a slope of light, skew of up to 2 degrees, blur of 0.5 to 1 pixel, noise of 4 to 10
    grey levels, JPEG of quality 35 to 60.

    Args:
        image: grey page.
        seed: any text, such as the page's name.

    Returns:
        A grey image of the same size.
    """
    rng = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()[:16]))
    paper, ink = rng.uniform(195, 235), rng.uniform(20, 60)
    values = ink + np.asarray(image.convert("L"), np.float32) / 255 * (paper - ink)
    height, width = values.shape
    slope = rng.uniform(-12, 12, 2)
    values += slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)[None]
    turned = Image.fromarray(values.clip(0, 255).astype(np.uint8)).rotate(
        rng.uniform(-2, 2), resample=Image.Resampling.BICUBIC, fillcolor=int(paper)
    )
    blurred = np.asarray(turned.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.0))), np.float32)
    noisy = blurred + rng.normal(0, rng.uniform(4, 10), blurred.shape)
    written = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(written, "JPEG", quality=int(rng.integers(35, 61)))
    return Image.open(written).convert("L")


def scans(pages: list[Page], images: Path = WORK / "scans") -> list[Path]:
    """The pages' pictures as scans, made where they are missing."""
    images.mkdir(parents=True, exist_ok=True)
    paths = []
    for page in pages:
        path = images / page.image.name
        if not path.exists():
            with Image.open(page.image) as clean:
                scan(clean, page.name).save(path, compress_level=1)
        paths.append(path)
    return paths
