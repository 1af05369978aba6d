"""Metadata that frameworks pass around: pages, texts and exchanged pictures."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from PIL import Image

from colpali_integrations.pages.identity import file_digest, page_hash, text_key
from colpali_integrations.pages.metadata import content_key, describes_page, is_unchanged, page_number, picture_hash
from colpali_integrations.pages.reference import encode_base64

PICTURE, OTHER = (encode_base64(Image.new("RGB", (4, 4), colour)) for colour in ("red", "blue"))
PAGE = {"source": "a.pdf", "page": 3, "dpi": 100, "content_hash": "0" * 64, "text_hash": text_key("tide")}
WITH_PICTURE = {**PAGE, "image_base64": PICTURE, "image_hash": picture_hash(PICTURE)}


def own_key(encoded: str) -> str:
    return page_hash(file_digest(base64.b64decode(encoded)), 1)


@pytest.mark.parametrize(
    ("metadata", "key"),
    [
        (PAGE, "0" * 64 + "@100"),
        ({**PAGE, "page": 3.0}, "0" * 64 + "@100"),
        (WITH_PICTURE, "0" * 64 + "@100"),
        ({**WITH_PICTURE, "image_base64": OTHER}, own_key(OTHER)),
        ({**PAGE, "image_base64": PICTURE}, own_key(PICTURE)),
        ({**WITH_PICTURE, "content_hash": "of another reader"}, own_key(PICTURE)),
        ({"image_base64": PICTURE}, own_key(PICTURE)),
        ({"image_base64": "no base64!"}, page_hash(file_digest(b"no base64!"), 1)),
    ],
)
def test_a_page_has_the_key_of_its_document_or_of_another_picture(metadata: dict[str, Any], key: str) -> None:
    assert describes_page(metadata, "tide")
    assert content_key(metadata, "tide") == key
    assert is_unchanged(metadata, "tide") == (key == "0" * 64 + "@100")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {**PAGE, "text_hash": text_key("other")},
        {**WITH_PICTURE, "text_hash": text_key("other")},
        {**PAGE, "source": ""},
        {**PAGE, "page": True},
        {**PAGE, "page": "iii"},
        {**PAGE, "content_hash": "0" * 63},
        {"image_base64": ""},
    ],
)
def test_other_metadata_are_those_of_a_text(metadata: dict[str, Any]) -> None:
    assert not describes_page(metadata, "tide")
    assert content_key(metadata, "tide") == text_key("tide")


@pytest.mark.parametrize("value", [None, 0, -1, 1.5, float("nan"), float("inf"), True, "1"])
def test_only_whole_numbers_are_pages(value: Any) -> None:
    assert page_number({"page": value}) is None
    assert page_number({"page_count": 2.0}, "page_count") == 2
