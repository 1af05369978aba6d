"""The warning that ColTiny reads little of a page: how often it comes for Latin script, and how often for others.

    apt-get update && python -m benchmarks.unread > benchmarks/results/unread.md

Pages in Latin script are those of `coltiny_set`, clean and as scans. Pages in other scripts are drawn here: the
translated messages of one Debian package, in the fonts of others. The constants were chosen on the half "dev", whose
texts and fonts are none of the half "test".
"""

from __future__ import annotations

import gettext
import random
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pypdfium2 as pdfium
from PIL import Image, ImageDraw, ImageFont, features

from benchmarks import coltiny_set, machine
from benchmarks.page_set import DPI, ROOT
from colpali_integrations import ColPali

WORK = Path(__file__).parent / "work" / "unread"
A4 = (1240, 1754)  # 150 dpi
MARGIN = 130
SIZES = (20, 26, 34, 44)  # pixels per em: 10 to 21 points
TRUETYPE = "usr/share/fonts/truetype"
OPENTYPE = "usr/share/fonts/opentype"

TEXTS = {"dev": ("apt", ["apt"]), "test": ("iso-codes", ["iso_3166-1", "iso_639-2", "iso_4217", "iso_15924"])}
LANGUAGES = {
    "Cyrillic": ["ru", "uk", "bg"],
    "Arabic": ["ar"],
    "Chinese": ["zh_CN", "zh_TW"],
    "Japanese": ["ja"],
    "Korean": ["ko"],
    "Greek": ["el"],
    "Vietnamese": ["vi"],
    "Polish": ["pl"],
    "German": ["de"],
    "Turkish": ["tr"],
}
LATIN = ["Vietnamese", "Polish", "German", "Turkish"]
REQUIRED = ["Cyrillic", "Arabic", "Chinese", "Japanese", "Korean"]
FONTS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "dev": {
        "Latin": [("fonts-dejavu-core", f"{TRUETYPE}/dejavu/DejaVuSans.ttf")],
        "Cyrillic": [
            ("fonts-dejavu-core", f"{TRUETYPE}/dejavu/DejaVuSans.ttf"),
            ("fonts-dejavu-core", f"{TRUETYPE}/dejavu/DejaVuSerif.ttf"),
            ("fonts-liberation", f"{TRUETYPE}/liberation/LiberationSerif-Regular.ttf"),
        ],
        "Arabic": [
            ("fonts-hosny-amiri", f"{OPENTYPE}/fonts-hosny-amiri/Amiri-Regular.ttf"),
            ("fonts-noto-core", f"{TRUETYPE}/noto/NotoNaskhArabic-Regular.ttf"),
        ],
        "Chinese": [("fonts-noto-cjk", f"{OPENTYPE}/noto/NotoSansCJK-Regular.ttc")],
        "Japanese": [("fonts-noto-cjk", f"{OPENTYPE}/noto/NotoSerifCJK-Regular.ttc")],
        "Korean": [("fonts-nanum", f"{TRUETYPE}/nanum/NanumGothic.ttf")],
        "Greek": [("fonts-dejavu-core", f"{TRUETYPE}/dejavu/DejaVuSerif.ttf")],
    },
    "test": {
        "Latin": [("fonts-noto-core", f"{TRUETYPE}/noto/NotoSerif-Regular.ttf")],
        "Cyrillic": [
            ("fonts-paratype", f"{TRUETYPE}/paratype/PTS55F.ttf"),
            ("fonts-paratype", f"{TRUETYPE}/paratype/PTF55F.ttf"),
            ("fonts-freefont-ttf", f"{TRUETYPE}/freefont/FreeSerif.ttf"),
        ],
        "Arabic": [
            ("fonts-kacst", f"{TRUETYPE}/kacst/KacstBook.ttf"),
            ("fonts-noto-core", f"{TRUETYPE}/noto/NotoKufiArabic-Regular.ttf"),
        ],
        "Chinese": [
            ("fonts-wqy-zenhei", f"{TRUETYPE}/wqy/wqy-zenhei.ttc"),
            ("fonts-arphic-uming", f"{TRUETYPE}/arphic/uming.ttc"),
        ],
        "Japanese": [
            ("fonts-ipafont-gothic", f"{OPENTYPE}/ipafont-gothic/ipag.ttf"),
            ("fonts-ipafont-mincho", f"{OPENTYPE}/ipafont-mincho/ipam.ttf"),
        ],
        "Korean": [("fonts-unfonts-core", f"{TRUETYPE}/unfonts-core/UnBatang.ttf")],
        "Greek": [("fonts-freefont-ttf", f"{TRUETYPE}/freefont/FreeSans.ttf")],
    },
}


@dataclass(frozen=True)
class Drawn:
    """A page in one script, its picture and its half."""

    name: str
    half: str
    script: str
    image: Image.Image


def unpacked(package: str) -> Path:
    """The folder that holds the files of a Debian package (apt-get, Debian 12)."""
    WORK.mkdir(parents=True, exist_ok=True)
    folder = WORK / package
    if not folder.exists():
        subprocess.run(["apt-get", "download", "-q", package], cwd=WORK, check=True, capture_output=True)
        archive = next(WORK.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg", "-x", archive, folder], check=True)
    return folder


def messages(half: str, language: str) -> list[str]:
    """The translated messages of one language, without marks of their formatting."""
    package, domains = TEXTS[half]
    found = []
    for domain in domains:
        catalogue = unpacked(package) / "usr/share/locale" / language / "LC_MESSAGES" / f"{domain}.mo"
        if catalogue.exists():
            with catalogue.open("rb") as file:
                translated = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
            found += [text for key, text in translated.items() if key and isinstance(text, str)]
    # Options, commands and names in Latin letters would be read on a page of any script.
    cleaned = (re.sub(r"%\w+|[<>|=%_\"“”«»\-]|\s+", " ", text).strip() for text in found)
    return sorted({text for text in cleaned if text})


def without_latin(text: str) -> str:
    return " ".join(re.sub(r"[A-Za-z0-9.,:;()/*\[\]{}']+", " ", text).split())


def drawn_pages(half: str) -> Iterator[Drawn]:
    """Pages of running text, each in one font and size."""
    if not features.check("raqm"):
        raise SystemExit("Pillow draws Arabic only with libfribidi: apt-get install libfribidi0")
    for script, languages in LANGUAGES.items():
        for language in languages:
            found = messages(half, language)
            if script not in LATIN:
                found = [text for text in map(without_latin, found) if len(text) > 2]
            for package, path in FONTS[half].get(script, FONTS[half]["Latin"]):
                for size in SIZES:
                    name = f"{script}-{language}-{Path(path).stem}-{size}"
                    chosen = random.Random(name).sample(found, len(found))
                    font = ImageFont.truetype(unpacked(package) / path, size)
                    yield Drawn(name, half, script, page(" ".join(chosen), font, script))


def page(text: str, font: ImageFont.FreeTypeFont, script: str) -> Image.Image:
    image = Image.new("L", A4, 255)
    pen = ImageDraw.Draw(image)
    glued = script in ("Chinese", "Japanese")
    parts = list(text) if glued else text.split(" ")
    width, y = A4[0] - 2 * MARGIN, MARGIN
    line = ""
    for part in parts:
        longer = f"{line}{'' if glued or not line else ' '}{part}"
        if font.getlength(longer) <= width:
            line = longer
            continue
        right_to_left = script == "Arabic"
        x = A4[0] - MARGIN if right_to_left else MARGIN
        pen.text((x, y), line, fill=0, font=font, anchor="ra" if right_to_left else "la")
        y += round(font.size * 1.5)
        line = part
        if y > A4[1] - MARGIN:
            break
    return image


def rasterised(path: Path) -> Iterator[Image.Image]:
    with pdfium.PdfDocument(path) as pdf:
        for number in range(len(pdf)):
            yield pdf[number].render(scale=DPI / 72).to_pil()


def row(model: ColPali, name: str, pages: Iterable[Image.Image]) -> tuple[int, int]:
    """Print how many of some pages the model reads little of; return both numbers."""
    marks = [model.reads_little(page) for page in model.embed_pages(pages)]
    print(f"| {name} | {len(marks)} | {sum(marks)} | {sum(marks) / len(marks):.1%} |", flush=True)
    return len(marks), sum(marks)


def main() -> None:
    coltiny_set.fetch()
    pages = coltiny_set.load()
    scans = dict(zip([page.name for page in pages], coltiny_set.scans(pages), strict=True))
    print("# Pages of which ColTiny reads little\n")
    print("Made by `python -m benchmarks.unread`, which says what the pages are. The constants were chosen on the half")
    print('"dev"; texts, fonts and documents of the half "test" are others.\n')
    print("| pages | number | little read | share |")
    print("|---|---|---|---|")
    with ColPali.from_pretrained() as model:
        for half in ("dev", "test"):
            ours = [page for page in pages if page.document.half == half]
            row(model, f"{half}: benchmarks/coltiny_set", (Image.open(page.image) for page in ours))
            row(model, f"{half}: the same as scans", (Image.open(scans[page.name]) for page in ours))
            others = list(drawn_pages(half))
            total = [0, 0]
            for script in LANGUAGES:
                chosen = [page.image for page in others if page.script == script]
                found = row(model, f"{half}: {script}, drawn", chosen)
                if script in REQUIRED:
                    total = [total[0] + found[0], total[1] + found[1]]
            print(f"| **{half}: Cyrillic, Arabic, CJK** | {total[0]} | {total[1]} | {total[1] / total[0]:.1%} |")
        for path in sorted((ROOT / "demo" / "pdfs").glob("*.pdf")):
            row(model, path.name, rasterised(path))
    print(
        "\nA page is little read where few of its words are near an English one. Polish and Turkish pages have few such"
    )
    print("words, and for some of them the warning is wrong.\n")
    print(machine.describe())


if __name__ == "__main__":
    main()
