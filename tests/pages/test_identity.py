"""Hashes and ids, whose recipes must stay because stores contain them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from colpali_integrations.errors import InputError
from colpali_integrations.pages.identity import file_digest, page_hash, page_id, page_key, page_name, text_key

SLIDES = Path(__file__).parents[2] / "demo" / "pdfs" / "metropolis-slides.pdf"


def test_hashes_are_of_content_and_page() -> None:
    digest = file_digest(SLIDES)
    assert digest == file_digest(str(SLIDES)) == file_digest(SLIDES.read_bytes())
    hashes = {page_hash(digest, number) for number in range(1, 34)}
    assert len(hashes) == 33
    assert all(len(one) == 64 and set(one) <= set("0123456789abcdef") for one in hashes)
    # Stores hold these, so the recipe must stay. From coreutils: h=$(printf abc | sha256sum | cut -d' ' -f1);
    # printf "$h#page=2" | sha256sum
    assert page_hash(file_digest(b"abc"), 2) == "4c99d9edba72f2db0ff2b8bfc1a30a32c304e535c1b37fe9d96cfa061cd8c584"
    with pytest.raises(InputError, match="cannot read"):
        file_digest("no/such/file")
    with pytest.raises(InputError, match="cannot read"):
        file_digest("a\0b")


def test_a_digest_is_cached_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first, status = file_digest(path), path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the same inode, size and time: not seen
    assert file_digest(path) == first
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert file_digest(path) == file_digest(b"two")


def test_pages_of_a_document_differ_and_documents_do() -> None:
    ids = {page_id(document, number) for document in ("/a.pdf", "/b.pdf", "/a.pdf\n1") for number in range(1, 20)}
    assert len(ids) == 57


def test_keys_of_pages_images_and_texts_differ() -> None:
    assert len({page_key("ab", None), page_key("ab", 72), page_key("ab", 150.0), text_key("ab")}) == 4
    assert page_key("ab", 150) == page_key("ab", 150.0)
    assert text_key("\ud800") != text_key("\ud801")


def test_a_name_contains_the_file_and_not_the_folder() -> None:
    assert page_name("reports/2024.pdf", 7) == "2024.pdf, page 7"
    assert page_name("slides.pdf", 1) == "slides.pdf, page 1"
