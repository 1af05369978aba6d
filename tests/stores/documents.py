"""Small documents with a few words per page, for tests that index and search."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from colpali_integrations import ColPali
from colpali_integrations.stores import MultiVectorStore, index_documents

DPI = 100


def draw(*lines: str) -> Image.Image:
    page = Image.new("RGB", (700, 300), "white")
    pen = ImageDraw.Draw(page)
    for row, line in enumerate(lines):
        pen.text((40, 40 + 60 * row), line, fill="black", font=ImageFont.load_default(size=26))
    return page


def save_pdf(path: Path, *pages: Image.Image) -> Path:
    pages[0].save(path, save_all=True, append_images=list(pages[1:]), resolution=DPI)
    return path


def make_folder(folder: Path) -> Path:
    """fruit.pdf with two pages, deep/er/train.PNG, and what is to be passed over."""
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    save_pdf(folder / "fruit.pdf", draw("Harvest of apples"), draw("Prices of bananas", "in the market"))
    draw("The railway timetable").save(folder / "deep" / "er" / "train.PNG")
    draw("secret").save(folder / ".hidden" / "secret.png")
    (folder / "notes.txt").write_text("apples")
    return folder


def make_store(root: Path, model: ColPali) -> MultiVectorStore:
    """The folder of `make_folder` in root/documents, indexed into root/store."""
    store = MultiVectorStore.open(root / "store", model=model)
    assert index_documents([make_folder(root / "documents")], model=model, store=store, dpi=DPI).added == 3
    return store
