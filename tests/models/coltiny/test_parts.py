"""The parts of reading a page give, bit by bit, what plainer ways give that take longer."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.models.coltiny.family import _clusters, _most_salient
from colpali_integrations.models.coltiny.pixels import _Grey, even_light


def picture(size: tuple[int, int], seed: int, paper: int) -> Image.Image:
    """Paper with print of all greys, and rows between that are of one grey."""
    rng = np.random.default_rng(seed)
    levels = np.full(size[::-1], paper, np.uint8)
    for _ in range(4):
        top, left = int(rng.integers(size[1])), int(rng.integers(size[0]))
        block = levels[top : top + 5, left : left + 30]
        block[:] = rng.integers(0, 256, block.shape)
    levels[int(rng.integers(size[1]))] = rng.integers(256)
    return Image.fromarray(levels)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(3, 120), st.integers(3, 160)), seed=st.integers(0, 999),
    paper=st.sampled_from([255, 255, 250, 128, 20, 0]), scale=st.floats(0.2, 2.0), margin=st.integers(0, 24),
)  # fmt: skip
def test_a_region_is_that_of_the_whole_picture_on_paper(
    size: tuple[int, int], seed: int, paper: int, scale: float, margin: int
) -> None:
    image = picture(size, seed, paper)
    grey = _Grey(image)
    histogram = np.cumsum(image.histogram())
    assert grey.paper == np.searchsorted(histogram, size[0] * size[1] / 2)
    is_ink = [255 * (abs(level - grey.paper) > 40) for level in range(256)]
    assert grey.ink == image.point(is_ink).getbbox()
    if grey.ink is None:
        return
    left, top, right, bottom = grey.ink
    x0, y0 = left - margin / scale, top - margin / scale
    width, height = (math.ceil((side * scale + 2 * margin) / 32) * 32 for side in (right - left, bottom - top))
    region = (x0, y0, x0 + width / scale, y0 + height / scale)
    before = max(0, math.ceil(-x0)), max(0, math.ceil(-y0))
    whole = Image.new(
        "L",
        (before[0] + max(size[0], math.ceil(region[2])), before[1] + max(size[1], math.ceil(region[3]))),
        grey.paper,
    )
    whole.paste(image, before)
    across = (x0 + before[0], 0, region[2] + before[0], whole.height)
    narrow = whole.resize((width, whole.height), Image.Resampling.LANCZOS, across)
    expected = narrow.resize(
        (width, height), Image.Resampling.LANCZOS, (0, y0 + before[1], width, region[3] + before[1])
    )
    np.testing.assert_array_equal(grey.resized((width, height), region), np.asarray(expected))


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 20, 200, 254, 255]))
)
def test_light_is_divided_by_the_median(grey: NDArray[np.uint8]) -> None:
    paper = int(np.searchsorted(np.cumsum(np.bincount(grey.ravel(), minlength=256)), grey.size / 2))
    levels = grey.astype(np.float32) if paper >= 115 else 255 - grey.astype(np.float32)
    expected = np.minimum(levels / np.float32(paper if paper >= 115 else 255 - paper), 1)
    np.testing.assert_array_equal(even_light(grey), expected)


@given(data=st.data(), count=st.integers(0, 30))
def test_words_are_gathered_as_by_the_whole_matrix(data: st.DataObject, count: int) -> None:
    places = data.draw(
        st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=count, max_size=count, unique=True)
    )
    same = data.draw(arrays(np.bool_, (count, count)))
    place = np.array(places, np.int32).reshape(-1, 2)
    row, column = place.T
    near = (np.abs(row[:, None] - row) <= 1) & (np.abs(column[:, None] - column) <= 1)
    np.testing.assert_array_equal(_most_salient(place, same), ~np.tril(near & same, -1).any(axis=1))

    free, label = np.ones(count, bool), np.zeros(count, np.intp)
    leaders: list[int] = []
    for index in range(count):
        if free[index]:
            members = same[index] & free
            members[index] = True
            label[members] = len(leaders)
            leaders.append(index)
            free &= ~members
    found, of_each = _clusters(same)
    assert found.tolist() == leaders
    np.testing.assert_array_equal(of_each, label)
