"""Similarity maps are colpali-engine's, on the geometry that its own processors give a page."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.explain import similarity_maps

from .cases import draw, page_named
from .conftest import FIXTURES


@pytest.mark.parametrize("page", ["a4-portrait", "letter-landscape"])
@pytest.mark.parametrize("name", ["paligemma", "colmodernvbert"])
def test_maps_are_equal(name: str, page: str, load: Callable[..., ColPali]) -> None:
    with np.load(FIXTURES / "similarity" / "golden.npz") as arrays:
        query, vectors, wanted = (arrays[key] for key in ("query", f"{name}/{page}/vectors", f"{name}/{page}/maps"))
    [(own, grid)] = load(name).embed_pages(draw(page_named(page)))
    # colpali-engine's prompt of a ColPali page is longer by one token, behind the picture's.
    found = similarity_maps(query, vectors[: len(own)], grid)
    assert found.maps.dtype == np.float32
    assert found.filled == (1.0, 1.0)
    np.testing.assert_array_equal(found.maps, wanted.transpose(0, 2, 1))  # theirs are (x, y)
