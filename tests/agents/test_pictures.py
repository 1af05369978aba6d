from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from colpali_integrations.agents.pictures import PagePicture, page_pictures
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.pages import PagedDocument
from tests.conftest import PAPER


def metadata_of(path: Path, pages: int) -> list[dict[str, Any]]:
    with PagedDocument(path) as document:
        return [dict(document.page(number).metadata) for number in range(1, pages + 1)]


def decoded(picture: PagePicture) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(picture.base64)))
    assert Image.MIME[image.format or ""] == picture.mime_type and image.size == picture.size
    return image.convert("RGB")


def noise(path: Path, size: tuple[int, int]) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("count", [1, 3, 5])
def test_pictures_keep_to_the_budget_and_are_readable(count: int) -> None:
    pages = metadata_of(PAPER, count)
    pictures = page_pictures(pages)
    assert (
        sum(len(picture.base64) for picture in pictures) == sum(picture.sent_bytes for picture in pictures) <= 380_000
    )
    sides = [max(decoded(picture).size) for picture in pictures]
    assert min(sides) >= (1000 if count <= 3 else 640)


@pytest.mark.parametrize("width", [float("nan"), -5.0, 0.0])
def test_a_size_in_metadata_that_is_none_is_passed_over(width: float) -> None:
    [page] = metadata_of(PAPER, 1)
    [picture] = page_pictures([{**page, "width": width, "height": width}])
    assert max(decoded(picture).size) >= 1000


def test_pages_that_do_not_fit_lose_quality_then_size_then_the_picture(tmp_path: Path) -> None:
    [page] = metadata_of(noise(tmp_path / "noise.png", (200, 1200)), 1)
    for budget, sides in ((380_000, range(1000, 1201)), (20_000, range(320, 1000))):
        pictures = page_pictures([page] * 2, budget)
        assert sum(len(picture.base64) for picture in pictures) <= budget
        assert all(max(picture.size) in sides for picture in pictures)
    [picture] = page_pictures([page], 100)
    assert not picture and "no room" in picture.problem


def test_a_simple_page_leaves_its_rest_to_the_others(tmp_path: Path) -> None:
    Image.new("RGB", (200, 1000), "white").save(tmp_path / "blank.png")
    [blank] = metadata_of(tmp_path / "blank.png", 1)
    [full] = metadata_of(noise(tmp_path / "noise.png", (200, 1000)), 1)
    budget = 60_000
    blank_picture, beside_blank = page_pictures([blank, full], budget)
    beside_full = page_pictures([full, full], budget)[0]
    assert blank_picture.sent_bytes < 5000
    assert beside_full.sent_bytes <= budget / 2 < beside_blank.sent_bytes


def test_a_page_of_few_colours_is_exact(tmp_path: Path) -> None:
    chart = Image.new("RGB", (700, 500), (250, 250, 245))
    for index in range(200):
        ImageDraw.Draw(chart).rectangle((3 * index, 500 - index, 3 * index + 2, 500), (index, 255 - index, 40))
    chart.save(tmp_path / "chart.png")
    [picture] = page_pictures(metadata_of(tmp_path / "chart.png", 1))
    assert picture.mime_type == "image/png"
    assert np.array_equal(np.asarray(decoded(picture)), np.asarray(chart))


def test_small_pages_of_a_pdf_are_drawn_large_and_small_images_are_not_enlarged(tmp_path: Path) -> None:
    Image.new("RGB", (100, 60), "navy").save(tmp_path / "card.pdf", resolution=72)
    Image.new("RGB", (100, 60), "navy").save(tmp_path / "card.png")
    [card], [image] = metadata_of(tmp_path / "card.pdf", 1), metadata_of(tmp_path / "card.png", 1)
    assert [max(picture.size) for picture in page_pictures([card, card, image])] == [834, 834, 100]  # 600 dpi at most


def test_a_page_that_cannot_be_drawn_has_a_reason_and_costs_nothing(tmp_path: Path) -> None:
    first, second = metadata_of(PAPER, 2)
    lost, without = page_pictures([{**first, "source": "lost.pdf", "file_path": "lost.pdf"}, second])
    assert not lost and "no file at 'lost.pdf'" in lost.problem
    assert decoded(without).size == decoded(page_pictures([second, second])[0]).size
    [outside] = page_pictures([first], roots=[tmp_path], wording=lambda error: "pass --root")
    assert outside == PagePicture(problem="pass --root")


def test_only_formats_that_the_chat_model_takes() -> None:
    [page] = metadata_of(PAPER, 1)
    assert page_pictures([page], formats=["jpeg"])[0].mime_type == "image/jpeg"
    for wrong in (["png"], ["gif", "jpeg"], "jpeg"):
        with pytest.raises(ConfigurationError, match="formats must be some of png, jpeg, webp"):
            page_pictures([page], formats=wrong)
    with pytest.raises(ConfigurationError, match="budget"):
        page_pictures([page], -1)
