"""Pixels equal those of transformers' PIL backend bit for bit, for pages of every shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from colpali_integrations.models.family import family_class
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.pages.images import load_image

from .cases import PAGES, Page, draw, page_named
from .conftest import Golden, skip_where_pillow_is_between, wanted_pixels
from .measures import fingerprint


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize("name", ["paligemma", "colmodernvbert", "colsmol"])
def test_pixels(golden: Callable[[str], Golden], name: str, page: Page) -> None:
    skip_where_pillow_is_between(name, page.name)
    reference = golden(name)
    description = describe_folder(reference.folder)
    family = family_class(description.family)(description, reference.folder)
    pixels = family.pages.prepare(load_image(draw(page))).pixels
    assert pixels.dtype == np.float32
    found, wanted = fingerprint(pixels), wanted_pixels(name, page.name)
    # The shape and the samples first: they say more than a hash when they differ.
    assert found["shape"] == wanted["shape"]
    assert found["samples"] == wanted["samples"]
    assert found["sha256"] == wanted["sha256"]


@pytest.mark.parametrize("name", ["paligemma", "colmodernvbert"])
def test_another_filter_gives_other_pixels(golden: Callable[[str], Golden], name: str) -> None:
    """The check above can fail: bilinear resizing gives other bytes."""
    reference = golden(name)
    facts = reference.facts["pages"]["a4-portrait"]
    size = (448, 448) if name == "paligemma" else (1536, 2048)
    resized = draw(page_named("a4-portrait")).resize(size, Image.Resampling.BILINEAR)
    pixels = (np.asarray(resized, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    assert fingerprint(pixels)["sha256"] != facts["sha256"]
