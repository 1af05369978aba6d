"""A test set: real PDFs, questions about their pages, and the pages as bad scans. A folder has one each.

`documents.json` pins each document by package, path and SHA-256 and puts it in one half: constants may be chosen on
"dev" and are reported on "test". `questions.json` was written by reading the pages, before any system was run on them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
from PIL import Image, ImageFilter

ROOT = Path(__file__).parents[1]
DPI = 150  # what the package renders at by default
MAPS = "maps"  # the path of a document that is drawn, by the fonts of its package


@dataclass(frozen=True)
class Document:
    """One PDF: where it comes from, which of its pages are used, and its half.

    Attributes:
        name: short name, by which questions refer to its pages.
        package: Debian package that carries it; None for a file of this repository.
        version: of the package that was read; the checksum decides.
        path: inside the package, or from the repository's root; ".gz" is unpacked. "maps": it is drawn.
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


class PageSet:
    """The documents, questions and pages of a folder.

    Args:
        folder: with `documents.json` and `questions.json`.
        images: name of the folder of the pages' pictures, in `work`.
        draw: makes the PDF of a document with the path "maps", by its name and the folder of its package.

    Attributes:
        folder: as given.
        work: where packages are unpacked and pictures are kept.
    """

    def __init__(
        self, folder: Path, *, images: str = "clean", draw: Callable[[str, Path], bytes] | None = None
    ) -> None:
        self.folder, self.work = folder, folder.parent / "work" / folder.name
        self._images, self._draw = self.work / images, draw

    def documents(self) -> list[Document]:
        """The documents, in the file's order."""
        entries = json.loads((self.folder / "documents.json").read_text(encoding="utf-8"))
        return [Document(**entry) for entry in entries]

    def questions(self) -> list[Question]:
        """The questions, in the file's order."""
        entries = json.loads((self.folder / "questions.json").read_text(encoding="utf-8"))
        return [Question(entry["text"], entry["kind"], tuple(entry["pages"])) for entry in entries]

    def fetch(self, packages: Path | None = None) -> None:
        """Download the documents' Debian packages (apt-get, Debian 12) and unpack each in a folder of its own."""
        packages = packages or self.work / "packages"
        for document in self.documents():
            if document.package:
                unpacked = packages / document.package
                if not (unpacked if document.path == MAPS else unpacked / document.path).exists():
                    fetch_package(document.package, packages)

    def read(self, document: Document, packages: Path | None = None) -> bytes:
        """The PDF's bytes.

        Raises:
            ValueError: the file is not the one that the questions were written for.
        """
        packages = packages or self.work / "packages"
        if document.path == MAPS and self._draw is not None:
            return self._draw(document.name, packages / str(document.package))
        path = packages / document.package / document.path if document.package else ROOT / document.path
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != document.sha256:
            raise ValueError(
                f"{document.name}: SHA-256 is {found}, not {document.sha256}; is {document.package} newer?"
            )
        return gzip.decompress(data) if path.suffix == ".gz" else data

    def load(self, packages: Path | None = None, images: Path | None = None) -> list[Page]:
        """All pages in order; pictures that are missing are rendered at 150 dpi in grey, and scans are made."""
        images = images or self._images
        images.mkdir(parents=True, exist_ok=True)
        pages = []
        for document in self.documents():
            with pdfium.PdfDocument(self.read(document, packages)) as pdf:
                for number in range(document.first, document.last + 1):
                    page, image = pdf[number - 1], images / f"{document.name}-{number:03d}.png"
                    if not image.exists():
                        drawn = page.render(scale=DPI / 72, grayscale=True).to_pil()
                        drawn = scan(drawn, f"{document.name}:{number}") if document.scanned else drawn
                        drawn.save(image, compress_level=1)
                    text = "" if document.scanned else page.get_textpage().get_text_range()
                    pages.append(Page(document, number, image, text))
        return pages

    def scans(self, pages: list[Page], images: Path | None = None) -> list[Path]:
        """The pages' pictures as scans, made where they are missing."""
        images = images or self.work / "scans"
        images.mkdir(parents=True, exist_ok=True)
        paths = []
        for page in pages:
            path = images / page.image.name
            if not path.exists():
                with Image.open(page.image) as clean:
                    scan(clean, page.name).save(path, compress_level=1)
            paths.append(path)
        return paths


def fetch_package(package: str, folder: Path) -> None:
    """Download a Debian package and unpack it in `folder / package`."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True)
    archive = next(folder.glob(f"{package}_*.deb"))
    subprocess.run(["dpkg", "-x", archive, folder / package], check=True)


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
