"""Heatmaps: their arrays have the page's geometry, their peaks are MaxSim's, and they look like what they say."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from colpali_integrations import ColPali, max_sim, regions
from colpali_integrations.errors import ImageError, InputError, MissingExtraError
from colpali_integrations.explain import (
    PageGrid,
    Region,
    SimilarityMaps,
    draw_heatmap,
    draw_regions,
    plot_similarity_map,
    similarity_maps,
)
from colpali_integrations.explain.drawing import PALETTE, heat_colours, heat_limits
from tests.explain.test_regions import Printed


def peak(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Where the maximum is, as fractions of width and height."""
    row, column = np.unravel_index(int(np.nanargmax(values)), values.shape)
    return (column + 0.5) / values.shape[1], (row + 0.5) / values.shape[0]


def inside(point: tuple[float, float], box: tuple[float, float, float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def test_a_cell_has_its_best_match_and_nan_without_a_vector() -> None:
    grid = PageGrid(2, 2, np.array([3, -1, 3, 0]))
    found = similarity_maps(np.array([[1.0], [-1.0]]), np.array([[0.2], [9.0], [0.5], [0.1]]), grid).maps
    np.testing.assert_allclose(found[0], [[0.1, np.nan], [np.nan, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(found[1], [[-0.1, np.nan], [np.nan, -0.2]], rtol=1e-6)


def test_words_fill_the_cells_of_their_boxes() -> None:
    margins = np.array([[4, 0, 5, 0], [0, 0, 2, 0], [0, 0, 0, 0]])
    grid = PageGrid(3, 6, np.array([8, 12, -1]), filled=(0.9, 1.0), margins=margins)
    query = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    page = np.array([[0.9, -0.3], [0.1, 0.6], [0.0, 0.0]], np.float32)
    found = similarity_maps(query, page, grid, tokens=["harbour", None])
    wanted = np.array([[0] * 6, [0, 0.9, 0.9, 0.9, 0, 0], [0.1, 0.1, 0, 0, 0, 0]])
    np.testing.assert_allclose(found.maps[0], wanted, rtol=1e-6)
    assert found.maps[1].min() == 0, "the vector that ends a page of ColTiny's says 0"
    assert found.words == [0]
    np.testing.assert_array_equal(found.total, found.maps[0])
    assert grid.cells_of(2).tolist() == []


@pytest.mark.parametrize("name", ["coltiny", "paligemma", "idefics3"])
def test_every_family_has_its_geometry_and_the_peaks_are_max_sim_s(name: str, request: pytest.FixtureRequest) -> None:
    model: ColPali = request.getfixturevalue(name)
    page = Printed({"harbour": (500, 900), "violin": (60, 40)}).image
    ImageDraw.Draw(page).rectangle((300, 600, 420, 640), fill="black")
    text = "the harbour"
    [embedding] = model.embed_pages(page)
    [query] = model.embed_queries(text)
    tokens = model.query_tokens(text)
    found = similarity_maps(query, *embedding, tokens=tokens)
    assert found.maps.shape == (len(query), embedding.grid.rows, embedding.grid.columns)
    if name != "coltiny":
        assert found.maps.shape[1:] == {"paligemma": (32, 32), "idefics3": (32, 24)}[name]
        assert np.isfinite(found.maps).all()
    placed = embedding.vectors[embedding.grid.cells >= 0]
    best = (query @ placed.T).max(axis=1)
    np.testing.assert_allclose(best.sum(), max_sim(query, placed), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        found.maps.max(axis=(1, 2)), best.clip(0) if name == "coltiny" else best, rtol=1e-4, atol=1e-4
    )
    for region in regions(query, *embedding, tokens=tokens):
        [values] = [found.maps[i] for i in found.words if np.isclose(found.maps[i].max(), region.score, atol=1e-5)][:1]
        x, y = peak(values)
        assert inside((x / found.filled[0], y / found.filled[1]), region.box)


def test_coltiny_s_heatmap_is_strongest_on_the_printed_word(coltiny: ColPali) -> None:
    page = Printed({"harbour": (500, 900), "violin": (60, 40)})
    [embedding] = coltiny.embed_pages(page.image)
    [query] = coltiny.embed_queries("harbour violin")
    found = similarity_maps(query, *embedding, tokens=coltiny.query_tokens("harbour violin"))
    for word, box in page.boxes.items():
        values = found.on_page(word, size=(408, 576))
        assert values.shape == (576, 408)
        assert values.dtype == np.float32
        assert inside(peak(values), box)
        picture = np.asarray(draw_heatmap(page.image, found, word), np.int16)
        # Amber to crimson has less blue than the paper that it lies on; letters are dark in all channels alike.
        assert inside(peak(picture[:, :, 0] - picture[:, :, 2]), box)
    assert np.asarray(draw_heatmap(page.image, found)).shape == (1152, 816, 3)


def test_maps_are_selected_by_word_and_unknown_words_are_refused() -> None:
    maps = SimilarityMaps(np.arange(8, dtype=np.float32).reshape(2, 2, 2), ("tide", "?"))
    np.testing.assert_array_equal(maps.of("tide"), maps.maps[0])
    np.testing.assert_array_equal(maps.of(-1), maps.maps[1])
    np.testing.assert_array_equal(SimilarityMaps(maps.maps, ("sea", "sea")).of("sea"), maps.maps[1])
    np.testing.assert_array_equal(maps.of(), maps.maps[0])
    np.testing.assert_array_equal(SimilarityMaps(maps.maps, (None, None)).of(), maps.maps.sum(axis=0))
    with pytest.raises(InputError, match="has no token 'sea'; it has: 'tide'"):
        maps.of("sea")
    with pytest.raises(InputError, match="has 2 vectors"):
        maps.of(2)


def test_padding_is_cut_off_and_unknown_cells_are_the_lowest() -> None:
    values = np.array([[[0.1, 0.5, 9.0], [np.nan, 0.5, 9.0]]], np.float32)
    found = SimilarityMaps(values, (None,), (2 / 3, 1.0)).on_page(size=(2, 2))
    assert found[0, 0] < found[0, 1]
    # The padding's 9 is beyond the margin.
    assert found[:, 0].max() < 0.3


def test_arrays_that_do_not_fit_are_refused() -> None:
    grid = PageGrid(1, 2, np.arange(2))
    with pytest.raises(InputError, match="pooled"):
        similarity_maps(np.ones((1, 2)), np.ones((3, 2)), grid)
    with pytest.raises(InputError, match="2 tokens"):
        similarity_maps(np.ones((1, 2)), np.ones((2, 2)), grid, tokens=["a", "b"])


# --- pictures


def test_boxes_are_drawn_where_they_are_in_the_colour_of_their_word() -> None:
    page = Image.new("RGB", (400, 600), "white")
    found = draw_regions(page, [Region("tide", 0.5, 1.0, (0.25, 0.5, 0.5, 0.75)), {"box": [0, 0, 1, 0.1]}])
    assert page.getcolors() == [(400 * 600, (255, 255, 255))], "the page given stays as it is"
    blue = tuple(int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5))
    assert found.getpixel((98, 400)) == blue
    assert found.getpixel((201, 451)) == blue
    assert found.getpixel((97, 400)) == (255, 255, 255)
    assert found.getpixel((150, 400)) not in (blue, (255, 255, 255)), "a light tint inside"
    assert found.getpixel((250, 500)) == (255, 255, 255)
    label = np.asarray(found.crop((98, 270, 160, 298))).reshape(-1, 3)
    assert (label == blue).all(axis=1).any(), "its label stands above it"
    assert found.getpixel((0, 59)) != (255, 255, 255), "a box needs no word"
    assert draw_regions(page, [Region("tide", 0.5, 1.0, (0.25, 0.5, 0.5, 0.75))], labels=False).getpixel(
        (120, 290)
    ) == (255, 255, 255)


def test_labels_avoid_each_other_and_stay_on_the_page() -> None:
    page = Image.new("RGB", (300, 300), "white")
    one = [Region("harbour", 0.5, 1.0, (0.0, 0.0, 0.2, 0.1))]
    two = [*one, Region("tide", 0.5, 1.0, (0.0, 0.0, 0.2, 0.1))]
    orange = np.array([int(PALETTE[1][i : i + 2], 16) for i in (1, 3, 5)])

    def of_colour(picture: Image.Image) -> int:
        return int((np.asarray(picture) == orange).all(axis=2).sum())

    assert of_colour(draw_regions(page, two)) > of_colour(draw_regions(page, two, labels=False)) + 100
    assert draw_regions(page, two, scores=True).size == (300, 300)


def test_labels_are_readable() -> None:
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in PALETTE:
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5, f"white on {colour}: WCAG's least contrast of text"


@pytest.mark.parametrize(
    "wrong", [{}, {"box": [0, 0, 1]}, {"box": [0, 0, 1, 1.5]}, {"box": [0.5, 0, 0.1, 1]}, {"box": None}, 3], ids=str
)
def test_other_values_than_regions_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="region"):
        draw_regions(Image.new("RGB", (20, 20)), [wrong])


def test_an_unreadable_page_or_font_is_refused() -> None:
    with pytest.raises(ImageError):
        draw_regions(b"nothing", [])
    with pytest.raises(InputError, match="font"):
        draw_regions(Image.new("RGB", (20, 20)), [], font="nowhere.ttf")


def test_colours_grow_with_the_strength() -> None:
    colours = heat_colours(np.linspace(0, 1, 9, dtype=np.float32)[None])
    assert colours.shape == (1, 9, 4)
    assert colours[0, 0, 3] == 0
    assert (np.diff(colours[0, :, 3].astype(int)) > 0).all()
    assert heat_limits([np.full((2, 2), np.nan, np.float32)]) == (0.0, 1.0)
    page = Image.new("RGB", (8, 8), "white")
    flat = SimilarityMaps(np.ones((1, 2, 2), np.float32), (None,))
    assert draw_heatmap(page, flat).getcolors() == [(64, (255, 255, 255))], "a page without a peak does not glow"


# --- matplotlib


@pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="matplotlib (the extra plot) is not installed")
def test_the_plot_shows_page_and_map() -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    maps = SimilarityMaps(np.array([[[0.1, 0.2], [0.3, 0.9]]], np.float32), ("tide",))
    ax = plot_similarity_map(Image.new("RGB", (60, 80), "white"), maps, "tide")
    drawn: list[Any] = list(ax.images)
    assert [one.get_array().shape for one in drawn] == [(80, 60, 3), (80, 60)]
    heat = drawn[1]
    assert heat.get_clim() == pytest.approx((0.25, 0.9))
    assert ax.get_title() == "tide"
    ax.figure.canvas.draw()
    own = plt.figure().add_subplot()
    assert plot_similarity_map(Image.new("RGB", (6, 8)), maps, ax=own, limits=(0, 2), colorbar=False) is own
    assert own.images[1].get_clim() == (0, 2)
    assert own.get_title() == "all words"
    plt.close("all")


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    maps = SimilarityMaps(np.zeros((1, 1, 1), np.float32), (None,))
    with pytest.raises(MissingExtraError, match=r"colpali-integrations\[plot\]"):
        plot_similarity_map(Image.new("RGB", (6, 8)), maps)
