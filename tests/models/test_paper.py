"""Pages without the vectors of plain paper: the others are the same, and each keeps its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from colpali_integrations import ColPali, max_sim, regions
from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError
from colpali_integrations.explain import PageGrid, similarity_maps
from colpali_integrations.models.paper import Ink
from colpali_integrations.stores import DocumentSource, MultiVectorStore, ingest

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"


def page() -> Image.Image:
    """Print in the upper left, a pale line further down, and a grain of noise on the paper."""
    made = Image.new("RGB", (620, 877), (250, 250, 245))
    draw = ImageDraw.Draw(made)
    for line in range(6):
        draw.rectangle((60, 80 + 24 * line, 240, 90 + 24 * line), fill=(20, 20, 20))
    draw.line((300, 500, 600, 500), fill=(250, 250, 200))
    noise = np.random.default_rng(0).integers(-4, 5, (877, 620, 3))
    return Image.fromarray((np.asarray(made).astype(int) + noise).clip(0, 255).astype(np.uint8))


def dropping(model: ColPali) -> ColPali:
    return ColPali(model.family, model._sessions, replace(model.description, drop_blank=True))


@pytest.mark.parametrize("name", ["paligemma", "colmodernvbert", "neomme", "colqwen2"])
def test_the_vectors_that_are_left_are_those_of_the_page(name: str) -> None:
    with ColPali.from_pretrained(FIXTURES / name, threads=1) as model:
        [whole], [inked] = model.embed_pages(page()), dropping(model).embed_pages(page())
        [alone] = dropping(model).embed_images(page())
    np.testing.assert_array_equal(alone, inked.vectors)
    assert len(inked.vectors) == len(inked.grid) < len(whole.vectors)
    cells = set(inked.grid.cells.tolist())
    kept = np.array([cell < 0 or cell in cells for cell in whole.grid.cells.tolist()])
    np.testing.assert_array_equal(inked.vectors, whole.vectors[kept])
    assert inked.grid == whole.grid.select(kept)
    marked = (np.abs(np.asarray(page()).astype(int) - [250, 250, 245]) > 16).any(axis=2)
    for vector in range(len(whole.grid)):
        if (box := whole.grid.box(vector)) is not None:
            left, right = (round(edge * 620) for edge in box[::2])
            top, bottom = (round(edge * 877) for edge in box[1::2])
            # A block of 8 pixels that only touches the cell keeps its vector.
            around = marked[max(0, top - 9) : bottom + 9, max(0, left - 9) : right + 9]
            assert kept[vector] or not marked[top:bottom, left:right].any()
            assert around.any() or not kept[vector]


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)), rows=st.integers(1, 5), columns=st.integers(1, 5),
    filled=st.sampled_from([(1.0, 1.0), (0.7, 1.0), (0.4, 0.9)]), x=st.floats(0, 0.999), y=st.floats(0, 0.999),
)  # fmt: skip
def test_a_single_pixel_marks_the_cells_that_it_is_in(
    size: tuple[int, int], rows: int, columns: int, filled: tuple[float, float], x: float, y: float
) -> None:
    picture = Image.new("RGB", size, "white")
    across, down = int(x * size[0]), int(y * size[1])
    picture.putpixel((across, down), (255, 255, 0))
    grid = PageGrid(rows, columns, np.arange(rows * columns), filled=filled)
    marks = Ink(picture).marks(grid) if size[0] * size[1] > 2 else np.ones(rows * columns, bool)
    column, row = (across + 0.5) / size[0] * filled[0] * columns, (down + 0.5) / size[1] * filled[1] * rows
    assert marks[int(row) * columns + int(column)]


def test_a_blank_page_keeps_the_vectors_of_its_prompt(paligemma: ColPali) -> None:
    [blank] = dropping(paligemma).embed_pages(Image.new("RGB", (300, 400), (240, 230, 200)))
    assert len(blank.vectors) > 0 and (blank.grid.cells < 0).all()


def test_places_stay_right(paligemma: ColPali) -> None:
    model = dropping(paligemma)
    [query] = model.embed_queries(["harbour"])
    [whole], [inked] = paligemma.embed_pages(page()), model.embed_pages(page())
    maps = [similarity_maps(query, *one).maps for one in (whole, inked)]
    there = ~np.isnan(maps[1])
    assert 0 < there.sum() < there.size
    # Products of matrices of other shapes: a BLAS may add in another order.
    np.testing.assert_allclose(maps[1][there], maps[0][there], rtol=0, atol=2e-6)
    for found in regions(query, *inked):
        assert 0 <= found.box[0] < found.box[2] <= 1


def test_a_store_goes_on_without_the_vectors_of_paper(tmp_path: Path) -> None:
    folder = FIXTURES / "neomme"
    model, keeping = (
        ColPali.from_pretrained(folder, drop_blank=True, threads=1),
        ColPali.from_pretrained(folder, lazy_load=True),
    )
    with MultiVectorStore.open(tmp_path / "store", model=model, first_stage="rows") as store:
        path = tmp_path / "page.png"
        page().save(path)
        assert ingest([DocumentSource(source=str(path))], store=store, model=model).added == 1
        [found] = store.search(model.embed_query("harbour"), 1)
        [stored] = store.vectors([found.entry.id])
        [entry] = store.scroll()
        assert stored is not None and entry.grid is not None and len(stored) == len(entry.grid)
        [expected] = model.embed_images(page())
        assert found.score == pytest.approx(float(max_sim(model.embed_query("harbour"), [expected])[0]), rel=2e-3)
        assert store.info().to_dict()["drop_blank"] is True
        with pytest.raises(FingerprintError, match="drop_blank"):
            ingest([DocumentSource(source=str(path))], store=store, model=keeping)
    with MultiVectorStore.open(tmp_path / "store", model=folder) as store:
        assert store.encoder.description.drop_blank


def test_coltiny_reads_ink_only() -> None:
    with pytest.raises(ConfigurationError, match="drop_blank: coltiny reads ink only"):
        ColPali.from_pretrained(drop_blank=True)


def test_a_selection_fits_its_grid() -> None:
    grid = PageGrid(1, 2, np.array([0, 1]), margins=np.array([[1, 0, 0, 0], [0, 2, 0, 0]]))
    assert grid.select(np.array([False, True])) == PageGrid(1, 2, np.array([1]), margins=np.array([[0, 2, 0, 0]]))
    for wrong in (grid, PageGrid(1, 2, np.array([0, 1]), groups=np.array([0, 0]))):
        with pytest.raises(InputError, match="kept must have one value per vector, 2, of a page that is not pooled"):
            wrong.select(np.array([True] if wrong is grid else [True, True]))
