"""Each frame of a TIFF is a page, found in linear time, whatever the file looks like."""

from __future__ import annotations

import io
import random
import struct
from array import array
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from colpali_integrations.errors import ImageError
from colpali_integrations.pages import PagedDocument, _walks, load_image, page_image
from colpali_integrations.pages.tiff import TiffFrames
from tests.pages.strangers import Directory, encoded, frames, mutated, noise, plain_tiff, tiff


def greys(content: bytes | Path) -> list[int | str]:
    """The grey of each page, or the error of a page that cannot be read."""
    found: list[int | str] = []
    with PagedDocument(content) as document:
        for page in document.pages():
            try:
                found.append(page.draw().getpixel((0, 0))[0])  # type: ignore[index]
            except ImageError as error:
                found.append(str(error))
    return found


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("by_path", [True, False])
def test_pages_are_the_frames_that_pillow_finds(compression: str, by_path: bool, tmp_path: Path) -> None:
    content = tiff(frames(4), compression=compression)
    path = tmp_path / "scan.tif"
    path.write_bytes(content)
    with Image.open(path) as image:
        expected = []
        for number in range(image.n_frames):
            image.seek(number)
            expected.append(image.getpixel((0, 0)))
    assert greys(path if by_path else content) == expected == [20, 60, 100, 140]


def test_pages_are_read_in_any_order_and_again(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((4, 3 + number), 9 * number, np.uint8)) for number in range(3)]
    with PagedDocument(tiff(pictures, compression="tiff_lzw")) as document:
        for number in (3, 1, 2, 1, 3):
            picture = document.page(number).draw()
            assert (picture.width, picture.getpixel((0, 0))) == (2 + number, (9 * number - 9,) * 3)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_orders_and_bigtiff(order: str, big: bool) -> None:
    content = plain_tiff([Directory(10), Directory(20), Directory(30)], order=order, big=big)
    if big and order == ">":  # Pillow reads no BigTIFF of this byte order, so its pages fail one by one
        assert PagedDocument(content).page_count == 3
        return
    assert greys(content) == [10, 20, 30]


def test_a_loop_of_directories_ends() -> None:
    content = plain_tiff([Directory(10), Directory(20)], last=8)
    assert greys(content) == [10, 20]


def test_a_damaged_frame_fails_alone() -> None:
    damaged = Directory(20, t259=9999)  # an unknown compression
    assert greys(plain_tiff([Directory(10), damaged, Directory(30)]))[::2] == [10, 30]
    first, second = greys(plain_tiff([damaged, Directory(30)]))
    assert "page 1" in str(first)
    assert second == 30


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_first_frame_that_libtiff_cannot_open_harms_no_other(compression: str) -> None:
    content = bytearray(tiff(frames(3), compression=compression))
    (first,) = struct.unpack_from("<I", content, 4)
    for entry in range(struct.unpack_from("<H", content, first)[0]):
        if struct.unpack_from("<H", content, first + 2 + 12 * entry)[0] == 273:
            struct.pack_into("<H", content, first + 2 + 12 * entry, 60000)  # no positions of strips any more
    found = greys(bytes(content))
    assert isinstance(found[0], str)
    assert found[1:] == [60, 100]


def test_a_chain_that_leaves_the_file_is_a_page_that_fails() -> None:
    first, second = greys(plain_tiff([Directory(10)], last=10**6))
    assert first == 10
    assert "beyond the end of the file" in str(second)


def test_thumbnails_and_masks_are_no_pages() -> None:
    """TIFF 6.0, NewSubfileType: 1 is a reduced copy, 2 one of several pages, 4 a mask. Some writers mark pages by 1."""
    big = {"t256": 4, "t257": 4, "t278": 4, "t279": 16}
    pages = [Directory(10, **big), Directory(99, t254=1), Directory(98, t254=4), Directory(30, t254=2)]
    assert TiffFrames(io.BytesIO(plain_tiff(pages))).count == 2
    assert TiffFrames(io.BytesIO(plain_tiff([Directory(1, t254=1), Directory(2, t254=1)]))).count == 2


def test_directories_that_overlap_are_refused() -> None:
    """Each of them counts 65535 entries, so that reading all would take gigabytes."""
    size = 800_000
    content = bytearray(b"II*\0" + struct.pack("<I", 8) + bytes(size))
    at = 8
    for _ in range(50):
        struct.pack_into("<H", content, at, 60_000)
        struct.pack_into("<I", content, at + 2 + 60_000 * 12, at + 8)
        at += 8
    with pytest.raises(ImageError, match="overlap"):
        PagedDocument(bytes(content))


class Counting(io.BytesIO):
    """A file that counts the bytes that are read, up to a thousand per call: Pillow asks for a block of 64 KB."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.total += min(len(content), 1000)
        return content


def test_work_is_linear_in_the_number_of_frames() -> None:
    """Pillow reads the directories of all frames before the one that it seeks, and here 200 MB."""
    content = plain_tiff([Directory(number % 256) for number in range(2000)])
    file = Counting(content)
    found = TiffFrames(file)
    assert found.count == 2000
    assert file.total < 2 * len(content)
    for number in range(1, 2001, 50):
        file.total = 0
        image = Image.open(found.frame(file, number))
        assert image.getpixel((0, 0)) == (number - 1) % 256
        assert file.total < 5000


def test_pages_that_are_drawn_one_by_one_share_a_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[int] = []
    walk = TiffFrames._walk

    def counted(frames: TiffFrames, file: IO[bytes]) -> array[int]:
        walked.append(frames._size)
        return walk(frames, file)

    monkeypatch.setattr(TiffFrames, "_walk", counted)

    def drawn(name: str, *numbers: int) -> list[int]:
        pages = [{"source": str(tmp_path / name), "page": number, "page_count": 9} for number in numbers]
        return [page_image(page, roots=tmp_path).getpixel((0, 0))[0] for page in pages]  # type: ignore[index]

    path = tmp_path / "a.tif"
    path.write_bytes(tiff(frames(4), compression="tiff_lzw"))
    (tmp_path / "link.tif").symlink_to(path)
    assert drawn("a.tif", 1, 3, 2, 3) + drawn("link.tif", 4) == [20, 100, 60, 100, 140]
    assert len(walked) == 1
    assert all(known._patched is None for known in _walks._frames.values())  # no content of a file is kept
    content = plain_tiff([Directory(70), Directory(80)])
    path.write_bytes(content)
    assert drawn("a.tif", 1, 2) == [70, 80]
    assert len(walked) == 2
    for number in range(9):
        (tmp_path / f"{number}.tif").write_bytes(content)
        assert drawn(f"{number}.tif", 2, 1) == [80, 70]
    assert (len(walked), len(_walks._frames)) == (11, _walks._KEPT)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
def test_a_compressed_frame_is_read_without_the_others(compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mode, kind = ("1", "group4") if compression == "group4" else ("L", compression)
    pictures = [noise((60, 50), 1).rotate(90 * turn, expand=True).convert(mode) for turn in range(4)]
    content = tiff(pictures, compression=kind, tiffinfo={278: 8})
    file = Counting(content)
    found = TiffFrames(file)
    drawn = []
    for number in range(1, found.count + 1):
        file.total = 0
        drawn.append(Image.open(found.frame(file, number)).convert("L"))
        assert file.total < len(content) / 2
    monkeypatch.setattr(TiffFrames, "_parts", lambda *_: None)  # the whole file
    found = TiffFrames(file)
    for number, picture in enumerate(drawn, 1):
        assert Image.open(found.frame(file, number)).convert("L").tobytes() == picture.tobytes()


@given(st.integers(0, 2**32))
def test_damaged_frames_are_what_they_are_in_the_whole_file(number: int) -> None:
    chance = random.Random(number)
    whole = tiff(frames(3), compression=chance.choice(["tiff_lzw", "tiff_adobe_deflate", "packbits"]))
    content = mutated(whole, chance, 8, len(whole))
    seen = []
    for parts in (TiffFrames._parts, lambda *_: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TiffFrames, "_parts", parts)
            try:
                seen.append([value if isinstance(value, int) else None for value in greys(content)])
            except ImageError:
                seen.append([])
    assert seen[0] == seen[1]


def test_metadata_and_redrawing(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(tiff(frames(3), compression="tiff_lzw"))
    with PagedDocument(path, metadata={"tenant": "north"}) as document:
        pages = [page.metadata for page in document.pages()]
        assert len({page.id for page in document.pages()}) == 3
        with pytest.raises(ImageError, match="pages 1 to 3; page 4 was requested"):
            document.page(4)
    assert [(page["page"], page["page_label"], page["page_count"]) for page in pages] == [
        (1, "1", 3),
        (2, "2", 3),
        (3, "3", 3),
    ]
    assert len({page["content_hash"] for page in pages}) == 3
    assert [page_image(page).getpixel((0, 0)) for page in pages] == [(20,) * 3, (60,) * 3, (100,) * 3]
    with pytest.raises(ImageError, match="page 9 was requested"):
        page_image({"source": str(path), "page": 9}, roots=[path.parent])
    path.write_bytes(tiff(frames(4)))
    with pytest.raises(ValueError, match="has changed"):
        page_image(pages[2])


def test_frames_of_other_formats_are_no_pages(caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("GIF", "PNG", "WEBP"):
        several = encoded(frames(3)[0], kind, save_all=True, append_images=frames(3)[1:])
        with PagedDocument(several, name=f"film.{kind}") as document:
            assert document.page_count == 1
            assert document.page(1).draw().getpixel((0, 0)) == (20, 20, 20)
    assert caplog.text.count("3 frames") == 3


def test_one_image_is_the_first_frame_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    content = tiff(frames(3))
    assert load_image(content).getpixel((0, 0)) == (20, 20, 20)
    assert "3 frames" in caplog.text
    caplog.clear()
    with Image.open(io.BytesIO(content)) as image:
        assert load_image(image).getpixel((0, 0)) == (20, 20, 20)
        assert "several frames" in caplog.text
        caplog.clear()
        image.seek(2)  # a caller who goes through the frames
        assert load_image(image).getpixel((0, 0)) == (100, 100, 100)
    assert not caplog.records


def test_a_page_of_a_tiff_without_its_end() -> None:
    """Some writers leave out the position after the last directory."""
    content = plain_tiff([Directory(10), Directory(20)])
    at = content.rindex(struct.pack("<HHII", 279, 4, 1, 1)) + 12
    moved = content[:at]
    with PagedDocument(moved) as document:
        assert document.page_count == 2


@pytest.mark.parametrize("content", [b"II*\0", b"II*\0\0\0\0\0", b"MM\0*\0\0\0\x08"])
def test_a_tiff_without_frames_is_refused(content: bytes) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(content)
