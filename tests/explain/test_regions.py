"""Places: every family knows where its vectors stand, and the best ones become boxes on the page."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from colpali_integrations import ColPali, max_sim, regions
from colpali_integrations.errors import ColPaliError, ImageError, InputError, QueryError
from colpali_integrations.explain import PageEmbedding, PageGrid, Region, draw_regions
from colpali_integrations.explain.grid import Box
from colpali_integrations.models.coltiny.pixels import Sight
from colpali_integrations.models.coltiny.word_boxes import word_boxes
from colpali_integrations.models.family import Family
from colpali_integrations.models.idefics3 import token_grid
from colpali_integrations.models.prompt import Vocabulary
from tests.conftest import FIXTURES

NAMES = ("coltiny", "paligemma", "idefics3")


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> ColPali:
    found: ColPali = request.getfixturevalue(request.param)
    return found


@st.composite
def grids(draw: st.DrawFn) -> PageGrid:
    rows, columns, n = draw(st.integers(1, 80)), draw(st.integers(1, 80)), draw(st.integers(0, 60))
    cell, part = st.integers(-1, rows * columns - 1), st.floats(0, 1, exclude_min=True)
    margins = st.lists(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 4), min_size=n, max_size=n)
    return PageGrid(
        rows=rows,
        columns=columns,
        cells=np.array(draw(st.lists(cell, min_size=n, max_size=n)), np.int32),
        filled=(draw(part), draw(part)),
        margins=draw(st.none() | margins.map(lambda rows: np.array(rows, np.int64).reshape(-1, 4).astype(np.int32))),
        groups=draw(st.none() | st.lists(st.integers(0, 9), min_size=n, max_size=n).map(_without_gaps)),
    )


def _without_gaps(numbers: list[int]) -> NDArray[Any]:
    return np.unique(np.array(numbers, np.int64), return_inverse=True)[1].reshape(-1)


@given(grids())
@settings(max_examples=200, deadline=None)
def test_a_grid_is_restored_from_json(grid: PageGrid) -> None:
    assert PageGrid.from_json(json.loads(json.dumps(grid.to_json()))) == grid


def test_json_is_small() -> None:
    colpali = PageGrid(32, 32, np.r_[np.arange(1024), [-1] * 6].astype(np.int32))
    assert len(json.dumps(colpali.to_json())) < 150
    rng = np.random.default_rng(0)
    words = np.r_[rng.permutation(72 * 51)[:150], -1].astype(np.int32)
    margins = rng.integers(-2, 14, (151, 4)).astype(np.int32)
    assert len(json.dumps(PageGrid(72, 51, words, (0.9, 0.98), margins).to_json())) < 1100


@given(grids(), st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_json_raises_nothing_but_an_input_error(grid: PageGrid, data: st.DataObject) -> None:
    found = grid.to_json()
    key = data.draw(st.sampled_from(sorted(found)))
    kind = data.draw(st.sampled_from(["missing", "none", "text", "cut", "number"]))
    if kind == "missing":
        del found[key]
    elif kind == "cut" and isinstance(found[key], str):
        found[key] = found[key][: data.draw(st.integers(0, len(found[key]) - 1))]
    else:
        found[key] = {"none": None, "text": "ü", "number": data.draw(st.floats() | st.integers())}.get(kind, [])
    try:
        again = PageGrid.from_json(found)
    except InputError as error:
        assert "grid" in str(error)
    else:  # a number in the place of another, or an optional entry that is not there, may be a grid
        assert len(again) == len(grid)


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": True},
        {"rows": 2.5},
        {"rows": float("inf")},
        {"rows": 10**9, "columns": 10**9},
        {"n": -1},
        {"n": 2**40},
        {"filled": [1]},
        {"filled": [float("nan"), 1]},
        {"cells": packed(b"\xff" * 10)},  # far outside the grid
        {"cells": packed(bytes(5)) + packed(bytes(5))},
        {"cells": packed(bytes(10_000_000))},  # grows a thousandfold
        {"margins": packed(bytes(3))},
    ],
    ids=str,
)
def test_other_json_is_refused(wrong: dict[str, Any]) -> None:
    good = PageGrid(2, 2, np.array([0, 3])).to_json()
    with pytest.raises(InputError, match=r"grid"):
        PageGrid.from_json({**good, **wrong})


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def test_values_of_any_depth_and_size_are_refused() -> None:
    with pytest.raises(InputError, match="grid"):
        PageGrid.from_json({**PageGrid(2, 2, np.array([0])).to_json(), "rows": nested(3000)})
    for region in ({"box": nested(3000)}, {"box": [0, 0, 1, 2], "more": nested(3000)}, {"box": [0, 0, 1, 10**400]}):
        with pytest.raises(InputError, match="box"):
            draw_regions(Image.new("RGB", (9, 9)), [region])


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 0},
        {"columns": -1},
        {"cells": np.array([4])},
        {"cells": np.array([-2])},
        {"cells": np.array([[0]])},
        {"cells": np.array([0.0])},
        {"cells": np.array([2**40])},
        {"filled": (0.0, 1.0)},
        {"filled": (1.0, 1.1)},
        {"margins": np.zeros((3, 4), np.int32)},
        {"margins": np.zeros((1, 4))},
        {"groups": np.array([1])},
        {"groups": np.array([-1])},
        {"groups": np.array([0, 1])},
        {"groups": np.array([0.0])},
        {"cells": np.array([0, 1]), "groups": np.array([0, 2**31 - 1])},
    ],
    ids=str,
)
def test_invalid_grids_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        PageGrid(**{"rows": 2, "columns": 2, "cells": np.array([0]), **wrong})


def test_regions_of_pooled_vectors_are_those_of_means_in_every_cell() -> None:
    grid = PageGrid(2, 2, np.array([0, 1, 2, 3]), groups=np.array([0, 1, 1, 0]))
    means = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    query = np.array([[0.1, 0.9]], np.float32)
    spread = PageGrid(2, 2, grid.cells)
    assert regions(query, means, grid) == regions(query, means[[0, 1, 1, 0]], spread)
    with pytest.raises(InputError, match="4 page vectors but a grid of 2"):
        regions(query, means[[0, 1, 1, 0]], grid)


def test_a_grid_is_an_immutable_copy() -> None:
    cells = np.array([0, 1])
    grid = PageGrid(1, 2, cells)
    cells[0] = 1
    assert grid.cells.tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        grid.cells[0] = 1
    assert grid == PageGrid(1, 2, np.array([0, 1], np.int64))
    assert grid != PageGrid(1, 2, np.array([0, 1]), margins=np.zeros((2, 4), np.int32))
    assert grid != PageGrid(1, 2, np.array([0, 1]), groups=np.array([0, 0]))
    assert grid != PageGrid(1, 2, np.array([1, 1]))
    assert grid != PageGrid(1, 3, np.array([0, 1]))
    assert (grid == "grid") is False


def test_boxes_respect_padding_and_margins() -> None:
    grid = PageGrid(4, 4, np.array([5, 15, -1]), filled=(0.75, 1.0))
    assert grid.box(0) == pytest.approx((1 / 3, 1 / 4, 2 / 3, 1 / 2))
    assert grid.box(1) == (1.0, 0.75, 1.0, 1.0)  # all of it in the padding
    assert grid.box(2) is None
    reaching = PageGrid(4, 4, np.array([5, 0]), margins=np.array([[2, -1, 4, 0], [9, 9, 9, 9]]))
    assert reaching.box(0) == pytest.approx((0.125, 0.3125, 0.75, 0.5))
    assert reaching.box(1) == pytest.approx((0, 0, 3.25 / 4, 3.25 / 4))


# --- the families' geometry


def marked(at: tuple[int, int], size: tuple[int, int] = (816, 1152)) -> NDArray[np.uint8]:
    """A white page with a square of noise, 40 pixels wide, around a point."""
    page = np.full((size[1], size[0], 3), 255, np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    page[at[1] - 20 : at[1] + 20, at[0] - 20 : at[0] + 20] = noise
    return page


@pytest.fixture(scope="module", params=["paligemma", "idefics3"])
def model_and_blank(request: pytest.FixtureRequest) -> tuple[ColPali, PageEmbedding]:
    model: ColPali = request.getfixturevalue(request.param)
    [blank] = model.embed_pages(np.full((1152, 816, 3), 255, np.uint8))
    return model, blank


@pytest.mark.parametrize("at", [(30, 30), (790, 30), (400, 600), (130, 900), (700, 1120)], ids=str)
def test_painting_a_box_changes_the_vector_of_the_box(
    model_and_blank: tuple[ColPali, PageEmbedding], at: tuple[int, int]
) -> None:
    """Random weights: attention carries little of a patch to the others, so its own vector changes most."""
    model, blank = model_and_blank
    [painted] = model.embed_pages(marked(at))
    changed = np.linalg.norm(painted.vectors - blank.vectors, axis=1)
    changed[painted.grid.cells < 0] = 0
    box = painted.grid.box(int(changed.argmax()))
    assert box is not None
    x, y = at[0] / 816, at[1] / 1152
    # The 40 pixels' square covers parts of up to four cells; the nearest edges are within half of it.
    assert box[0] - 20 / 816 <= x <= box[2] + 20 / 816
    assert box[1] - 20 / 1152 <= y <= box[3] + 20 / 1152


def test_paligemma_s_grid(paligemma: ColPali) -> None:
    [page] = paligemma.embed_pages(marked((100, 100)))
    assert (page.grid.rows, page.grid.columns, page.grid.filled) == (32, 32, (1.0, 1.0))
    np.testing.assert_array_equal(page.grid.cells, [*range(1024), *[-1] * (len(page.vectors) - 1024)])
    assert page.grid.margins is None


@pytest.mark.parametrize(
    ("size", "tiles"), [((816, 1152), (4, 3)), ((1000, 700), (3, 4)), ((90, 100), (4, 4)), ((512, 2048), (4, 1))]
)
def test_idefics3_s_cells_follow_the_tiles(idefics3: ColPali, size: tuple[int, int], tiles: tuple[int, int]) -> None:
    """Against the markers in the prompt: <row_r_col_c> comes before its tile's tokens, <global-img> before the view."""
    rows, columns = tiles
    ready = idefics3.family.pages.prepare(Image.new("RGB", size, "white"))
    [page] = idefics3.embed_pages(Image.new("RGB", size, "white"))
    assert (page.grid.rows, page.grid.columns) == (rows * 8, columns * 8)
    vocabulary = Vocabulary(FIXTURES / "colmodernvbert")
    image = vocabulary.token_id("<image>")
    markers = {
        vocabulary.token_id(f"<row_{row + 1}_col_{column + 1}>"): (row, column)
        for row in range(rows)
        for column in range(columns)
    }
    tile, inner, placed = None, 0, 0
    for token, cell in zip(ready.ids.tolist(), page.grid.cells.tolist(), strict=True):
        if token != image:
            assert cell == -1
            tile, inner = markers.get(token), 0
            continue
        if tile is None:
            assert cell == -1, "the view of the whole page has no cell"
        else:
            assert divmod(cell, columns * 8) == (tile[0] * 8 + inner // 8, tile[1] * 8 + inner % 8)
            placed += 1
        inner += 1
    assert placed == rows * columns * 64
    assert sorted(page.grid.cells[page.grid.cells >= 0]) == list(range(rows * columns * 64))


def test_an_untiled_page_s_only_view_has_cells() -> None:
    pictures = np.array([False, True, True, True, True, False])
    assert token_grid(pictures, rows=0, columns=0, image_seq_len=4).cells.tolist() == [-1, 0, 1, 2, 3, -1]
    odd = token_grid(np.array([True] * 9), rows=1, columns=2, image_seq_len=3)
    assert (odd.rows, odd.columns, odd.cells.tolist()) == (1, 2, [0, 0, 0, 1, 1, 1, -1, -1, -1])


# --- ColTiny: words where they are printed


class Printed:
    """A page with words at known positions."""

    def __init__(self, words: dict[str, tuple[int, int]], *, size: tuple[int, int] = (816, 1152), em: int = 20) -> None:
        self.image = Image.new("L", size, 255)
        draw, font = ImageDraw.Draw(self.image), ImageFont.load_default(em)
        self.boxes: dict[str, Box] = {}
        for word, at in words.items():
            draw.text(at, word, font=font, fill=0)
            left, top, right, bottom = draw.textbbox(at, word, font=font)
            self.boxes[word] = (left / size[0], top / size[1], right / size[0], bottom / size[1])


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - both)


WORDS = {
    "harbour": (500, 900),
    "violin": (60, 40),
    "glacier": (640, 1100),
    "turbine": (300, 500),
    "orchard": (400, 500),
}


@pytest.mark.parametrize("size", [(816, 1152), (1000, 1130), (1632, 2304)], ids=str)
@pytest.mark.parametrize("inverse", [False, True], ids=["black on white", "white on black"])
def test_regions_are_the_printed_words(coltiny: ColPali, size: tuple[int, int], inverse: bool) -> None:
    """Also on a page whose width is no whole number of cells, and at twice the resolution."""
    scale = size[0] / 816
    page = Printed(
        {word: (int(x * scale), int(y * size[1] / 1152)) for word, (x, y) in WORDS.items()},
        size=size,
        em=int(20 * scale),
    )
    image = Image.eval(page.image, lambda grey: 255 - grey) if inverse else page.image
    [embedding] = coltiny.embed_pages(image)
    question = " ".join(WORDS)
    [query] = coltiny.embed_queries(question)
    found = regions(query, *embedding, tokens=coltiny.query_tokens(question))
    assert sorted(region.token or "" for region in found) == sorted(WORDS)
    for region in found:
        assert overlap(region.box, page.boxes[region.token or ""]) > 0.6, region
    assert [region.score for region in found] == sorted((region.score for region in found), reverse=True)
    # The vector of the whole question has no cell; the words share the rest.
    whole, words = (float(max_sim(asked, embedding.vectors)) for asked in (query, query[: len(WORDS)]))
    assert sum(region.score for region in found) == pytest.approx(words, abs=1e-5)
    assert sum(region.share for region in found) == pytest.approx(words / whole, abs=1e-5)


def test_words_that_the_page_does_not_have_give_no_region(coltiny: ColPali) -> None:
    [embedding] = coltiny.embed_pages(Printed({"harbour": (500, 900)}).image)
    [query] = coltiny.embed_queries("mitochondria harbour xylophone")
    [region] = regions(query, *embedding, tokens=coltiny.query_tokens("mitochondria harbour xylophone"))
    assert region.token == "harbour"
    [blank] = coltiny.embed_pages(Image.new("RGB", (816, 1152), "white"))
    assert regions(query, *blank) == []


def test_boxes_stop_at_gaps_rules_and_the_margins_of_the_page() -> None:
    page = np.ones((160, 640), np.float32)
    page[70:82, 100:150] = 0  # a word of one bar
    page[70:82, 152:180] = 0  # after a gap between letters: the same word
    page[70:82, 190:230] = 0  # after one between words: the next
    page[90:92, :] = 0  # a rule below
    page[:, 96:97] = 0  # and a frame on the left
    cells = np.array([[4, 8], [9, 30], [-1, -1]], np.int32)
    grid = word_boxes(Sight(page, 0.0, 0.0, (640.0, 160.0)), cells, 16)
    assert (grid.rows, grid.columns, grid.filled) == (10, 40, (1.0, 1.0))
    left, top, right, bottom = pixels(grid, 0, 640, 160)
    assert (left, top) == (100, 68)  # to quarters of a cell, outwards
    assert (right, bottom) == (180, 84)
    assert pixels(grid, 1, 640, 160) == (480, 144, 496, 160), "nothing is printed there: the cell"
    assert grid.box(2) is None
    edge = np.ones((16, 32), np.float32)
    edge[4:10, 0:32] = 0
    assert len(word_boxes(Sight(edge, 0.0, 0.0, (32.0, 16.0)), np.array([[0, 0]], np.int32), 16)) == 1


def test_boxes_do_not_depend_on_the_position_of_the_first_ink() -> None:
    page = np.ones((64, 160), np.float32)
    page[24:36, 40:90] = 0
    cells = np.array([[1, 4]], np.int32)  # x 64 to 80, y 16 to 32 of what the model saw
    grid = word_boxes(Sight(page, 101.0, 203.0, (810.0, 1152.0)), cells, 16)
    assert (grid.rows, grid.columns) == (72, 51)
    left, top, right, bottom = pixels(grid, 0, 810, 1152)
    for found, true in ((left, 141), (top, 227), (right, 191), (bottom, 239)):
        assert abs(found - true) <= 4, "a quarter of a cell"
    beyond = word_boxes(Sight(page, -90.0, -30.0, (810.0, 1152.0)), cells, 16)
    assert pixels(beyond, 0, 810, 1152)[:2] == (0, 0), "cut at the page's edges"


def pixels(grid: PageGrid, vector: int, width: int, height: int) -> tuple[int, ...]:
    """The box of a vector in pixels of a page of that size."""
    box = grid.box(vector)
    assert box is not None
    return tuple(round(part * size) for part, size in zip(box, (width, height) * 2, strict=True))


# --- regions


def test_regions_grow_over_neighbours_that_match_nearly_as_well() -> None:
    page = np.zeros((16, 2), np.float32)
    page[:, 0] = 0.3  # everything matches a little, as in models with unit vectors
    page[[5, 6, 9, 15], 0] = [0.9, 0.8, 0.4, 0.85]
    grid = PageGrid(4, 4, np.arange(16))
    query = np.array([[1.0, 0.0]], np.float32)
    [region] = regions(query, page, grid)
    assert region.token is None
    assert [region.score, region.share] == pytest.approx([0.9, 1.0])
    assert region.box == (0.25, 0.25, 0.75, 0.5)  # 15 is apart
    assert regions(query, page, grid, grow=1.0)[0].box == (0.25, 0.25, 0.5, 0.5)
    assert regions(query, page, grid, grow=0.1)[0].box == (0.25, 0.25, 0.75, 0.75)
    flat = np.full((16, 2), 0.5, np.float32)
    assert regions(query, flat, grid)[0].box == (0.0, 0.0, 0.25, 0.25), "a page without a peak is no region as a whole"


def test_growing_does_not_wrap_around_the_edge() -> None:
    page = np.zeros((9, 1), np.float32)
    page[[2, 3]] = [[1.0], [0.95]]  # the end of one row and the start of the next
    [region] = regions(np.ones((1, 1), np.float32), page, PageGrid(3, 3, np.arange(9)))
    assert region.box == pytest.approx((2 / 3, 0, 1, 1 / 3))


def test_prompt_tokens_and_punctuation_give_no_region_and_twins_are_one() -> None:
    grid, page = PageGrid(2, 2, np.arange(4)), np.eye(4, dtype=np.float32)
    query = page[[0, 1, 2, 1, 3]]
    found = regions(query, page, grid, tokens=[None, "tide", "?", "tide", "sea"])
    assert [(region.token, region.box) for region in found] == [
        ("tide", (0.5, 0.0, 1.0, 0.5)),
        ("sea", (0.5, 0.5, 1.0, 1.0)),
    ]
    assert [region.share for region in found] == pytest.approx([0.4, 0.2])
    assert len(regions(query, page, grid)) == 5


def test_vectors_without_a_cell_give_no_region() -> None:
    page = np.array([[1.0], [0.5], [0.2]], np.float32)
    grid = PageGrid(1, 2, np.array([-1, 1, 0]))
    [region] = regions(np.ones((1, 1), np.float32), page, grid)
    assert (region.score, region.share, region.box) == (0.5, 0.5, (0.5, 0.0, 1.0, 1.0))
    assert regions(np.ones((1, 1), np.float32), page, PageGrid(1, 1, np.array([-1, -1, -1]))) == []


def test_weak_matches_give_no_region() -> None:
    page, grid = np.array([[1.0, 0.0]], np.float32), PageGrid(1, 1, np.array([0]))
    assert regions(np.array([[-1.0, 0.0], [0.0, 1.0]], np.float32), page, grid, min_match=0) == []
    weak = np.array([[0.1, 0.995]], np.float32) * 7  # its length does not count
    assert regions(weak, page, grid) == []
    assert len(regions(weak, page, grid, min_match=0.09)) == 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_every_region_is_on_the_page_and_contains_its_best_cell(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns, n = rng.integers(1, [9, 9, 40]).tolist()
    grid = PageGrid(rows, columns, rng.integers(-1, rows * columns, n))
    page, query = rng.normal(size=(n, 3)).astype(np.float16), rng.normal(size=(4, 3)).astype(np.float32)
    tokens = ["a", "b", "c", "d"]
    matches = query @ page.astype(np.float32).T
    matches[:, grid.cells < 0] = -np.inf
    for region in regions(query, page, grid, tokens=tokens, grow=float(rng.random())):
        left, top, right, bottom = region.box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        row = matches[tokens.index(region.token or "")]
        assert region.score == pytest.approx(float(row.max()), abs=1e-5)
        cell = grid.box(int(row.argmax()))
        assert cell is not None
        assert overlap(cell, region.box) > 0
        assert 0 <= region.share <= 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokens": ["a"]}, "2 query vectors but 1 tokens"),
        ({"page_vectors": np.ones((2, 3))}, "pooled"),
        ({"page_vectors": np.ones((3, 2))}, "dim 3 and page_vectors 2"),
        ({"query_vectors": np.ones(3)}, "query_vectors"),
        ({"grow": 1.5}, "grow"),
        ({"min_match": -1.0}, "min_match"),
        ({"min_match": float("nan")}, "min_match"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any], says: str) -> None:
    good = {"query_vectors": np.ones((2, 3)), "page_vectors": np.ones((3, 3)), "grid": PageGrid(1, 3, np.arange(3))}
    with pytest.raises(InputError, match=says):
        regions(**{**good, **change})


def test_a_region_as_a_dict() -> None:
    region = Region("tide", 0.123456789, 0.5, (1 / 3, 0.25, 0.5, 0.75))
    found = region.to_dict(612, 792)
    assert json.loads(json.dumps(found)) == found
    assert found == {
        "token": "tide",
        "score": 0.123457,
        "share": 0.5,
        "box": [0.33333, 0.25, 0.5, 0.75],
        "points": [204.0, 198.0, 306.0, 594.0],
    }
    assert region.to_dict(300, 400, "pixels")["pixels"] == [100.0, 100.0, 150.0, 300.0]


# --- the model's side


def text_page(text: str, size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).multiline_text((10, 20), text, fill="black", font=ImageFont.load_default(20))
    return image


PAGES = [
    text_page("harbour crane", (300, 200)),
    text_page("violin", (200, 300)),
    text_page("tax return 1998", (320, 320)),
]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"batch_size": 3, "parallel": 2}], ids=str)
def test_pages_are_images_with_grids(model: ColPali, options: dict[str, Any]) -> None:
    plain, placed = list(model.embed_images(PAGES, **options)), list(model.embed_pages(PAGES, **options))
    assert len(plain) == len(placed) == 3
    for vectors, page in zip(plain, placed, strict=True):
        np.testing.assert_allclose(page.vectors, vectors, atol=2e-5)
        assert page.vectors.dtype == np.float32
        assert len(page.grid) == len(page.vectors)
        assert (page.grid.cells >= 0).any()
        assert PageGrid.from_json(page.grid.to_json()) == page.grid


def test_bad_pages_are_treated_as_by_embed_images(coltiny: ColPali) -> None:
    errors: list[ColPaliError] = []
    assert len(list(coltiny.embed_pages([PAGES[0], b"nothing"], on_error=errors.append))) == 1
    [bad] = errors
    assert isinstance(bad, ImageError)
    assert bad.index == 1
    with pytest.raises(ImageError):
        list(coltiny.embed_pages([b"nothing"]))
    assert len(list(coltiny.embed_pages([b"nothing", PAGES[0]], on_error="skip"))) == 1


@pytest.mark.parametrize(
    "text", ["what is the harbour's tide?", "naïve façade 🙂 1,000.00", "  two  spaces", "東京 page"]
)
def test_there_is_a_token_for_every_query_vector(model: ColPali, text: str) -> None:
    tokens = model.query_tokens(text)
    [vectors] = model.embed_queries([text])
    assert len(tokens) == len(vectors) == model.token_count(text)
    pieces = [token for token in tokens if token is not None]
    for piece in pieces:
        assert piece
        assert piece == piece.strip()
        assert not set("▁Ġ") & set(piece)


@pytest.mark.parametrize("name", ["paligemma", "idefics3"])
def test_pieces_are_the_user_s_text_and_nothing_of_the_prompt(name: str, request: pytest.FixtureRequest) -> None:
    model: ColPali = request.getfixturevalue(name)
    text = "Query: the <pad> of a serpentipede?"
    tokens = model.query_tokens(text)
    assert "".join(token or "" for token in tokens) == text.replace(" ", "")
    assert tokens[-10:] == [None] * 10
    assert model.query_tokens("x").count("x") == 1


def test_pieces_of_a_query_that_is_cut() -> None:
    model = ColPali.from_pretrained("Qdrant/colpali-v1.3-fp16", local_dir=FIXTURES / "paligemma", lazy_load=True)
    tokens = model.query_tokens("harbour " * 3000)
    with pytest.warns(UserWarning, match="is cut"):
        assert len(tokens) == len(model.family.queries.prepare("harbour " * 3000).ids)


def test_coltiny_s_tokens_are_its_words(coltiny: ColPali) -> None:
    family: Family = coltiny.family
    assert coltiny.query_tokens("How tall is the Größe?") == family.query_tokens("How tall is the Größe?")
    assert coltiny.query_tokens("How tall is the Größe?") == ["tall", "grosse", None]


@pytest.mark.parametrize("text", ["", " ", None, 3])
def test_no_tokens_of_no_query(model: ColPali, text: Any) -> None:
    with pytest.raises(QueryError):
        model.query_tokens(text)
