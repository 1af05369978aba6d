"""The README's picture: a question's boxes and heatmap on a page of the demo, drawn by the package itself.

python docs/report_picture.py        writes docs/places.webp
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from colpali_integrations import ColPali, pdf_pages, regions
from colpali_integrations.explain import draw_heatmap, draw_regions, similarity_maps

HERE = Path(__file__).parent
QUESTION = "which palettes suit ordered data, sequential or diverging?"
DOCUMENT, PAGE = HERE.parent / "demo" / "pdfs" / "hcl-colors.pdf", 1
WIDTH = 760


def main() -> None:
    """Write the picture."""
    model = ColPali.from_pretrained()
    [page] = pdf_pages(DOCUMENT, pages=[PAGE])
    [embedding] = model.embed_pages([page])
    [query] = model.embed_queries([QUESTION])
    tokens = model.query_tokens(QUESTION)
    boxes = draw_regions(page.image, regions(query, *embedding, tokens=tokens))
    heat = draw_heatmap(page.image, similarity_maps(query, *embedding, tokens=tokens))
    # The upper half of the page, twice.
    width, height = page.image.size
    part = (round(0.1 * width), round(0.1 * height), round(0.9 * width), round(0.62 * height))
    size = (WIDTH, round(WIDTH * (part[3] - part[1]) / (part[2] - part[0])))
    picture = Image.new("RGB", (2 * WIDTH + 20, size[1]), "white")
    for place, drawn in ((0, boxes), (WIDTH + 20, heat)):
        picture.paste(drawn.crop(part).resize(size, Image.Resampling.LANCZOS), (place, 0))
    picture.save(HERE / "places.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
