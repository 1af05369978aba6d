"""Frames of a TIFF in a store: each is a page, from its identity to its deletion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.pages import page_image
from colpali_integrations.stores import DocumentSource, MultiVectorStore, find_documents, index_documents, ingest
from tests.pages.strangers import Directory, encoded, frames, plain_tiff, tiff


@pytest.fixture(scope="module")
def model() -> Iterator[ColPali]:
    with ColPali.from_pretrained() as loaded:
        yield loaded


@pytest.fixture
def store(model: ColPali) -> Iterator[MultiVectorStore]:
    with MultiVectorStore.open(model=model) as opened:
        yield opened


def pages(store: MultiVectorStore) -> dict[int, int]:
    """The grey of each stored page, drawn from its metadata."""
    entries = sorted(store.scroll({}), key=lambda entry: entry.page or 0)
    return {entry.page or 0: page_image(entry.metadata).getpixel((0, 0))[0] for entry in entries}  # type: ignore[index]


def test_frames_are_stored_replaced_and_removed_as_pages(
    tmp_path: Path, model: ColPali, store: MultiVectorStore
) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(tiff(frames(3), compression="tiff_lzw"))
    report = index_documents(tmp_path, model=model, store=store)
    assert (report.documents, report.added, report.failures) == (1, 3, [])
    assert pages(store) == {1: 20, 2: 60, 3: 100}
    assert {entry.name for entry in store.scroll({})} == {f"scan.tif, page {number}" for number in (1, 2, 3)}
    assert index_documents(path, model=model, store=store).present == 3
    path.write_bytes(tiff(frames(2)))
    changed = index_documents(path, model=model, store=store)
    assert (changed.replaced, changed.removed) == (2, 1)
    assert pages(store) == {1: 20, 2: 60}
    assert store.delete(document_id=str(path)) == 2


def test_requested_frames_alone(tmp_path: Path, model: ColPali, store: MultiVectorStore) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(tiff(frames(4)))
    report = index_documents(path, model=model, store=store, pages=[4, 2, 9])
    assert pages(store) == {2: 60, 4: 140} or report.failures  # a page that does not exist fails the document
    assert index_documents(path, model=model, store=store, pages=[4, 2]).failures == []
    assert pages(store) == {2: 60, 4: 140}
    assert index_documents(path, model=model, store=store).added == 2


def test_a_bad_frame_fails_alone(tmp_path: Path, model: ColPali, store: MultiVectorStore) -> None:
    (tmp_path / "scan.tif").write_bytes(plain_tiff([Directory(10), Directory(20, t259=9999), Directory(30)]))
    report = index_documents(tmp_path, model=model, store=store)
    assert [failure.name for failure in report.failures] == ["scan.tif, page 2"]
    assert pages(store) == {1: 10, 3: 30}


def test_one_image_is_one_page(model: ColPali, store: MultiVectorStore, caplog: pytest.LogCaptureFixture) -> None:
    report = ingest([DocumentSource(source=tiff(frames(3)), name="scan.tif", one_image=True)], store=store, model=model)
    assert (report.added, len(store)) == (1, 1)
    assert "3 frames" in caplog.text


def test_limits_and_formats_come_from_the_call_or_the_model(tmp_path: Path, model: ColPali) -> None:
    (tmp_path / "large.png").write_bytes(encoded(Image.new("L", (40, 30))))
    (tmp_path / "old.pcx").write_bytes(encoded(Image.new("L", (40, 31)), "PCX"))
    with MultiVectorStore.open(model=model) as store:
        refused = index_documents(tmp_path, model=model, store=store, max_pixels=1000)
        assert [failure.name for failure in refused.failures] == ["large.png, page 1"]
        assert "max_pixels=1200" in refused.failures[0].reason
        assert index_documents(tmp_path, model=model, store=store, image_formats=["PCX"]).added == 2
    with (
        ColPali.from_pretrained(max_pixels=1000, image_formats=["PCX"]) as limited,
        MultiVectorStore.open(model=limited) as store,
    ):
        assert len(index_documents(tmp_path, model=limited, store=store).failures) == 2
        assert index_documents(tmp_path, model=limited, store=store, max_pixels=3000).added == 2
        with pytest.raises(ValueError, match="max_pixels=1200"):
            list(limited.embed_images(tmp_path / "large.png"))
    assert len(find_documents(tmp_path)) == 1
