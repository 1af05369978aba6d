"""What the bundled model sees of a page: its ink, on white, wherever it stands."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFont

from colpali_integrations import ColPali, max_sim, regions
from colpali_integrations.errors import ImageError
from colpali_integrations.models.coltiny import pixels
from colpali_integrations.models.coltiny.pixels import Headline, Sight, even_light, look


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


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(20, 500), st.integers(20, 500)),
    boxes=st.lists(st.tuples(*[st.floats(0, 1)] * 4, st.integers(0, 255)), max_size=6),
    mode=st.sampled_from(["1", "L", "RGB"]),
    longest=st.sampled_from([1152, 100, 30]),
)
def test_pictures_in_bands_look_as_they_do_as_a_whole(
    size: tuple[int, int], boxes: list[tuple[float, float, float, float, int]], mode: str, longest: int
) -> None:
    image = Image.new("L", size, 230)
    for left, top, right, bottom, grey in boxes:
        xs, ys = sorted((left * size[0], right * size[0])), sorted((top * size[1], bottom * size[1]))
        ImageDraw.Draw(image).rectangle((xs[0], ys[0], xs[1], ys[1]), fill=grey)
    image = image.convert(mode)
    whole = look(image, longest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "_BAND", 1000)
        banded = look(image, longest)
    np.testing.assert_array_equal(banded.pixels, whole.pixels)
    others = [field.name for field in fields(Sight) if field.name != "pixels"]
    assert [getattr(banded, name) for name in others] == [getattr(whole, name) for name in others]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_large_picture_takes_little_memory_beside_itself(mode: str) -> None:
    """Pillow's memory cannot be seen by Python: what each step makes is counted."""
    page = Image.new(mode, (9000, 6000), "white")
    ImageDraw.Draw(page).rectangle((4000, 2000, 4500, 2600), fill="black")
    sizes: list[int] = []
    new = Image.Image._new

    def counted(self: Image.Image, core: Any) -> Image.Image:
        made = new(self, core)
        sizes.append(made.width * made.height)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "_new", counted)
        sight = look(page, 1152)
    assert sight.pixels.shape[0] < 200
    assert sizes
    assert max(sizes) <= pixels._BAND, "of 54 million pixels"


def test_a_thread_of_a_picture_is_refused() -> None:
    with pytest.raises(ImageError, match="is too narrow to be read: it has 2x400000 pixels; cut it into pages"):
        look(Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (400_000, 1))), 1152)


def test_a_blank_page_is_a_little_white() -> None:
    for level in (255, 128, 0):
        sight = look(Image.new("L", (816, 1152), level), 1152)
        assert sight.pixels.shape == (32, 32)
        assert (sight.pixels == 1).all()


def pages_of_large_print(size: int) -> list[Image.Image]:
    """Two lines with nothing else, and with a picture beside them that keeps them from being blocks of print."""
    page = Image.new("L", (1152, 700), 255)
    ImageDraw.Draw(page).multiline_text((60, 40), "bananas\nharbour crane", fill=0, font=ImageFont.load_default(size))
    framed = page.copy()
    ImageDraw.Draw(framed).rectangle((20, 20, 1130, 600), outline=0, width=6)
    return [page, framed]


@pytest.mark.parametrize("size", [40, 60, 90])
@pytest.mark.parametrize("kind", [0, 1])
def test_print_that_is_large_throughout_is_made_smaller(coltiny: ColPali, size: int, kind: int) -> None:
    """Its letters would be larger than what the model looks at."""
    page = pages_of_large_print(size)[kind]
    sight = look(page, 1152)
    assert (sight.page[0] < 1152, len(sight.headlines)) == ((True, 0) if kind else (False, 2))
    found, other = coltiny.embed_queries(["bananas", "violin"])
    [seen] = coltiny.embed_pages([page])
    assert max_sim(found, [seen.vectors])[0] > 3 * max_sim(other, [seen.vectors])[0]
    [place] = regions(found, seen.vectors, seen.grid, tokens=["bananas"])
    assert place.box[3] < 0.35, "the upper line"


@pytest.mark.parametrize("bar", [False, True])
@pytest.mark.parametrize("size", [48, 64, 90])
def test_a_slide_s_title_is_read_beside_its_small_print(coltiny: ColPali, size: int, bar: bool) -> None:
    slide = Image.new("RGB", (1280, 720), "white")
    draw = ImageDraw.Draw(slide)
    if bar:
        draw.rectangle((0, 30, 1280, 50 + round(1.5 * size)), fill=(20, 40, 120))
    draw.text((60, 40), "Harbour crane", fill="white" if bar else "black", font=ImageFont.load_default(size))
    draw.text((80, 400), "Bananas come every Tuesday", fill="black", font=ImageFont.load_default(20))
    [title] = look(slide, 1152).headlines
    assert title.scale > 1
    [seen] = coltiny.embed_pages([slide])
    boxes = {}
    for word in ("harbour", "bananas", "violin"):
        [query] = coltiny.embed_queries([word])
        boxes[word] = [region.box for region in regions(query, seen.vectors, seen.grid, tokens=[word] * len(query))]
    [harbour], [bananas] = boxes["harbour"], boxes["bananas"]
    left, top, _, bottom = draw.textbbox((60, 40), "Harbour", font=ImageFont.load_default(size))
    assert harbour[:2] == pytest.approx((left / 1280, top / 720), abs=0.03)
    assert harbour[3] == pytest.approx(bottom / 720, abs=0.03)
    assert bananas[1] > 0.5
    assert boxes["violin"] == []


def test_a_margin_or_another_slide_in_the_batch_changes_nothing_of_a_slide(coltiny: ColPali) -> None:
    slide = Image.new("L", (1000, 1152), 255)
    draw = ImageDraw.Draw(slide)
    draw.text((60, 40), "Harbour crane", fill=0, font=ImageFont.load_default(64))
    draw.text((80, 400), "Bananas come every Tuesday", fill=0, font=ImageFont.load_default(20))
    wide, blank = Image.new("L", (1152, 1152), 255), Image.new("L", (1000, 1152), 255)
    wide.paste(slide, (97, 0))
    assert look(wide, 1152).headlines
    [alone] = coltiny.embed_images([slide])
    [margin] = coltiny.embed_images([wide])
    np.testing.assert_allclose(margin, alone, atol=1e-3)
    for other in (wide, blank):
        np.testing.assert_allclose(list(coltiny.embed_images([other, slide]))[1], alone, atol=1e-3)


def test_points_of_what_is_seen_have_their_place_on_the_page() -> None:
    parts = (Headline(0, 64, 10.0, 20.0, 2.0),)
    sight = Sight(np.ones((128, 64), np.float32), -5.0, 100.0, (300.0, 300.0), parts)
    assert sight.on_page(3, 4) == (16, 28)
    assert sight.on_page(3, 64) == (-2, 164)


def test_a_page_of_large_lines_is_not_looked_at_twice() -> None:
    page = Image.new("L", (816, 1152), 255)
    draw = ImageDraw.Draw(page)
    for y in range(40, 1100, 60):
        draw.text((40, y), "Harbour crane", fill=0, font=ImageFont.load_default(56))
    sight = look(page, 1152)
    assert len(sight.headlines) == 18
    assert sight.pixels.shape[0] <= 1152
    assert sight.pixels[sight.headlines[-1].stop :].min() == 1
