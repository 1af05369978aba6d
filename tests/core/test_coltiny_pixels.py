"""What the bundled model sees of a page: its ink, on white, wherever it stands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFont

from colpali_integrations import ColPali, max_sim, regions
from colpali_integrations.core.families.coltiny_pixels import even_light, look


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_light_is_in_range_keeps_order_and_makes_paper_white(grey: np.ndarray) -> None:
    light = even_light(grey)
    assert light.shape == grey.shape
    assert light.dtype == np.float32
    assert 0 <= light.min() <= light.max() <= 1
    paper = int(np.sort(grey, axis=None)[(grey.size - 1) // 2])
    assert (light[grey == paper] == 1).all()
    order = np.sort(np.unique(grey))
    shades = [float(light[grey == level][0]) for level in order]
    assert shades == sorted(shades, reverse=paper < 115), "one direction, no shade swapped"


def test_dark_pages_become_dark_print_on_white() -> None:
    slide = Image.new("L", (300, 200), 30)
    ImageDraw.Draw(slide).rectangle((100, 50, 140, 60), fill=250)
    paper = Image.new("L", (300, 200), 255)
    ImageDraw.Draw(paper).rectangle((100, 50, 140, 60), fill=0)
    seen, wanted = look(slide, 1152), look(paper, 1152)
    assert seen.pixels.shape == wanted.pixels.shape
    assert (seen.left, seen.top) == (wanted.left, wanted.top)
    assert np.abs(seen.pixels - wanted.pixels).max() < 0.1


@settings(deadline=None)
@given(
    x=st.integers(0, 340), y=st.integers(0, 250), width=st.integers(1, 60), height=st.integers(1, 50),
    longest=st.sampled_from([1152, 300, 5000]),
)  # fmt: skip
def test_all_ink_is_seen_where_it_stands(x: int, y: int, width: int, height: int, longest: int) -> None:
    image = Image.new("L", (400, 300), 255)
    ImageDraw.Draw(image).rectangle((x, y, x + width - 1, y + height - 1), fill=0)
    sight = look(image, longest)
    scale = sight.page[0] / 400
    assert sight.page[1] == pytest.approx(300 * scale)
    whole = min(longest / 400, 2)
    # Wide runs of ink are large print: the page is made smaller, down to a quarter.
    assert whole / 4.001 <= scale <= whole * 1.001
    assert scale == pytest.approx(whole) or width * whole > 3
    assert sight.pixels.shape[0] % 32 == sight.pixels.shape[1] % 32 == 0
    # Paper all around, the ink's edges where they are, to a pixel.
    assert np.abs(np.stack([sight.pixels[0], sight.pixels[-1]]) - 1).max() < 0.02
    inked = sight.pixels < 0.5
    if min(width, height) * scale > 2:
        rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
        assert columns[0] + sight.left == pytest.approx(x * scale, abs=1.01)
        assert columns[-1] + 1 + sight.left == pytest.approx((x + width) * scale, abs=1.01)
        assert rows[0] + sight.top == pytest.approx(y * scale, abs=1.01)
        assert rows[-1] + 1 + sight.top == pytest.approx((y + height) * scale, abs=1.01)


def test_a_blank_page_is_a_little_white() -> None:
    for level in (255, 128, 0):
        sight = look(Image.new("L", (816, 1152), level), 1152)
        assert sight.pixels.shape == (32, 32)
        assert (sight.pixels == 1).all()


@pytest.mark.parametrize("size", [40, 60, 90])
def test_print_that_is_large_throughout_is_made_smaller(coltiny: ColPali, size: int) -> None:
    """Its letters would be larger than what the model looks at."""
    page = Image.new("L", (1152, 700), 255)
    ImageDraw.Draw(page).multiline_text((60, 40), "bananas\nharbour crane", fill=0, font=ImageFont.load_default(size))
    sight = look(page, 1152)
    assert sight.page[0] < 1152
    found, other = coltiny.embed_queries(["bananas", "violin"])
    [seen] = coltiny.embed_pages([page])
    assert max_sim(found, [seen.vectors])[0] > 3 * max_sim(other, [seen.vectors])[0]
    [place] = regions(found, seen.vectors, seen.grid, tokens=["bananas"])
    assert place.box[3] < 0.35, "the upper line"
