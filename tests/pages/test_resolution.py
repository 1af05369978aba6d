"""The resolution for a picture of a wished size, also from metadata that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colpali_integrations.pages import page_image, pdf_pages
from colpali_integrations.pages.resolution import dpi_for_side

PDF = Path(__file__).parents[2] / "demo" / "pdfs" / "metropolis-slides.pdf"
A4 = {"dpi": 150.0, "width": 595.0, "height": 842.0}


def test_the_longest_side_has_so_many_pixels() -> None:
    [page] = pdf_pages(PDF, pages=[1])
    metadata = {"source": str(PDF), "page": 1, "dpi": 150.0, "width": page.width, "height": page.height}
    for side in (333, 700):
        assert abs(max(page_image(metadata, roots=PDF.parent, dpi=dpi_for_side(metadata, side)).size) - side) <= 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"width": 842.0, "height": 595.0}, 72 * 1000 / 842),
        ({"width": "842", "height": 595}, 72 * 1000 / 842),
        ({"width": 72.0, "height": 72.0}, 150.0),
        ({"width": 1e9, "height": 1.0}, 1.0),
        ({"width": float("inf"), "height": 1.0}, 1.0),
        ({"width": 5e-324, "height": 5e-324}, 150.0),
        *[({"width": value, "height": value}, None) for value in (0, -1.0, float("nan"), "wide", None, 10**400)],
        ({"height": None}, None),
    ],
)
def test_sizes_that_are_wrong_give_a_resolution_within_bounds_or_none(size: dict[str, Any], expected: float) -> None:
    assert dpi_for_side({**A4, **size}, 1000) == expected


def test_without_a_size_or_for_an_image_there_is_none() -> None:
    assert dpi_for_side({"dpi": 150.0}, 1000) is None
    assert dpi_for_side({"width": 640, "height": 480}, 1000) is None


def test_the_bounds_are_the_callers() -> None:
    assert dpi_for_side(A4, 10_000, least=10.0, most=600.0) == 600.0
    assert dpi_for_side(A4, 10, least=10.0, most=600.0) == 10.0
