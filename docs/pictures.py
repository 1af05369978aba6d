"""Draw the pictures of the concepts page with ColTiny, from a page of the demo: `python docs/pictures.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from colpali_integrations import ColPali, pdf_pages, regions
from colpali_integrations.scoring import ward_pool

ROOT = Path(__file__).parents[1]
PDF, PAGE = ROOT / "demo" / "pdfs" / "hcl-colors.pdf", 3
QUESTION = "diverging palettes"
WIDTH = 900
PRINT = (0.15, 0.04, 0.87, 0.79)  # of the page, without its margins
BLUE, ORANGE = (66, 82, 175), (221, 95, 10)


def draw(folder: Path) -> None:
    """Write the pictures that `folder` lacks."""
    names = ("multi_vector.png", "max_sim.png", "pooling.png")
    if all((folder / name).is_file() for name in names):
        return
    folder.mkdir(exist_ok=True)
    [page] = pdf_pages(PDF, pages=[PAGE])
    with ColPali.from_pretrained() as model:
        [embedding] = model.embed_pages([page])
        [query] = model.embed_queries(QUESTION)
        tokens = model.query_tokens(QUESTION)
    small = page.image.resize((WIDTH, round(WIDTH * page.image.height / page.image.width)), Image.Resampling.LANCZOS)
    boxes = [embedding.grid.box(vector) for vector in range(len(embedding.grid))]
    _boxed(small, [(box, BLUE, 1) for box in boxes if box]).save(folder / names[0], optimize=True)
    found = regions(query, *embedding, tokens=tokens)
    _boxed(small, [(region.box, ORANGE, 3) for region in found]).save(folder / names[1], optimize=True)
    _matrix(embedding.vectors, ward_pool(embedding.vectors, 32, normalize=False)).save(folder / names[2], optimize=True)


def _boxed(
    picture: Image.Image, boxes: list[tuple[tuple[float, float, float, float], tuple[int, int, int], int]]
) -> Image.Image:
    """Copy a picture in few colours, with boxes given as fractions of the page."""
    marked = picture.copy()
    pen = ImageDraw.Draw(marked)
    for (left, top, right, bottom), colour, line in boxes:
        edges = (left * marked.width, top * marked.height, right * marked.width, bottom * marked.height)
        pen.rectangle(edges, outline=colour, width=line)
    left, top, right, bottom = PRINT
    edges = (left * marked.width, top * marked.height, right * marked.width, bottom * marked.height)
    return marked.crop(tuple(map(round, edges))).quantize(64)


def _matrix(vectors: np.ndarray, pooled: np.ndarray) -> Image.Image:
    """Draw both multi-vectors as grey matrices, one row per vector and four pixels per number."""
    rows = []
    for array in (vectors, pooled):
        grey = np.clip(128 + 400 * array, 0, 255).astype(np.uint8)
        rows.append(np.kron(grey, np.ones((4, 4), np.uint8)))
    gap = np.full((rows[0].shape[0], 24), 255, np.uint8)
    right = np.full_like(rows[0], 255)
    right[: rows[1].shape[0]] = rows[1]
    return Image.fromarray(np.concatenate([rows[0], gap, right], axis=1))


if __name__ == "__main__":
    draw(ROOT / "docs" / "pictures")
