"""Images from strangers: formats, promised sizes, EXIF data, and files that are none."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from colpali_integrations.errors import ConfigurationError, ImageError, InputError
from colpali_integrations.pages import PagedDocument, load_image, page_image
from colpali_integrations.pages.formats import FORMATS, MAX_PIXELS, ImageLimits, image_suffixes, refusal
from colpali_integrations.pages.paged import is_pdf
from colpali_integrations.stores import find_documents
from tests.pages.strangers import EPS, Directory, chunk, encoded, mutated, noise, plain_tiff, png

# -- formats --------------------------------------------------------------------------------------------------------


def has_avif() -> bool:
    return "avif" in features.modules and bool(features.check("avif"))


@pytest.mark.parametrize("name", FORMATS)
def test_every_suffix_of_the_formats_is_pillows(name: str) -> None:
    if name == "AVIF" and not has_avif():
        pytest.skip("this Pillow has no AVIF")
    known = Image.registered_extensions()
    assert {known.get(suffix, name) for suffix in FORMATS[name]} <= {
        name,
        *({"JPEG": ("MPO",), "BMP": ("DIB",)}.get(name, ())),
    }


@pytest.mark.parametrize("suffix", sorted(image_suffixes()))
def test_suffixes_are_read_by_name_and_in_folders(suffix: str, tmp_path: Path) -> None:
    [name] = [name for name, suffixes in FORMATS.items() if suffix in suffixes]
    if name == "AVIF" and not has_avif():
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"page{suffix.upper()}"
    path.write_bytes(encoded(Image.new("RGB", (16, 8), (0, 0, 250)), name))
    assert find_documents(tmp_path) == [path]
    for picture in (load_image(path), PagedDocument(path).page(1).draw()):
        assert picture.size == (16, 8)
        assert picture.getpixel((3, 3))[2] > 200  # type: ignore[index]


def test_tga_has_no_mark_so_its_suffix_counts(tmp_path: Path) -> None:
    content = encoded(Image.new("RGB", (3, 2), "red"), "TGA")
    path = tmp_path / "page.tga"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert load_image(file).getpixel((0, 0)) == (255, 0, 0)
    assert PagedDocument(content, name="s3://shelf/page.tga").page(1).draw().size == (3, 2)
    assert load_image(content, image_formats=["TGA"]).size == (3, 2)
    with pytest.raises(ImageError, match="not an image"):
        load_image(content)


@pytest.mark.parametrize("name", ["page.png", "page.eps", "page.tga", "page"])
def test_postscript_is_not_run_under_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("Ghostscript was started"))
    path = tmp_path / name
    path.write_bytes(EPS)
    for read in (load_image, lambda source: PagedDocument(source).page(1).draw(), lambda source: load_image(EPS)):
        with pytest.raises(ImageError, match=r"PostScript|not an image|damaged"):
            read(path)
    with pytest.raises(ImageError, match=r"PostScript|not an image"):
        page_image({"source": str(path), "page": 1}, roots=[path.parent])
    with Image.open(io.BytesIO(EPS)) as unread, pytest.raises(ImageError, match="runs Ghostscript"):
        load_image(unread)


def test_another_format_is_read_if_the_caller_names_it(tmp_path: Path) -> None:
    path = tmp_path / "page.pcx"
    Image.new("RGB", (3, 2), "red").save(path)
    with pytest.raises(ImageError, match=r"may be PCX.*image_formats=\['PCX'\]"):
        load_image(path)
    assert load_image(path, image_formats=["pcx"]).getpixel((0, 0)) == (255, 0, 0)
    assert page_image({"source": str(path), "page": 1}, image_formats="PCX", roots=[path.parent]).size == (3, 2)
    assert (find_documents(tmp_path), find_documents(tmp_path, image_formats=["pcx"])) == ([], [path])
    for wrong in (["NONE"], "HEIFF", [3]):
        with pytest.raises(ConfigurationError, match="image_formats"):
            load_image(path, image_formats=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "advice"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0", "install pillow-heif"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", r"Pillow 11\.3 or later"),
        (b"8BPS\0\1\0\0\0\0\0\0", r"image_formats=\['PSD'\]"),
        (b"<svg xmlns='http", "is not an image"),
        (b"", "is not an image"),
    ],
)
def test_refusals_name_the_next_step(prefix: bytes, advice: str) -> None:
    with pytest.raises(AssertionError, match=advice):
        raise AssertionError(refusal(prefix))


# -- sizes ----------------------------------------------------------------------------------------------------------


def test_an_a0_fax_is_read_without_a_warning() -> None:
    fax = png(9933, 14043)
    assert len(fax) < 50_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(fax).size == (9933, 14043)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png(13377, 13377, rows=0, colour=3), "178.9 megapixels"),
        (png(20_000, 20_000, rows=0), "400.0 megapixels"),
        (png(12_000, 12_000, rows=0, colour=6, bits=8), "1,152 MB"),
        (png(1, 161_000_000, rows=0), "161.0 megapixels"),
        (png(1, 67_000_000, rows=0, bits=8), "1,407 MB"),  # a pointer per row
        (plain_tiff([Directory(10, t256=20_000, t257=20_000)]), "400.0 megapixels"),
        # libtiff unpacks a whole tile, of a picture of one pixel
        (plain_tiff([Directory(10, t259=8, t322=40_000, t323=40_000, t324=8, t325=1)]), "1,600 MB"),
    ],
    ids=["palette with transparency", "grey", "RGBA", "one column", "short rows", "TIFF", "tile"],
)
def test_promises_of_too_many_pixels_are_refused_by_the_header(
    content: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the pixels were read"))
    with pytest.raises(ImageError, match=reason):
        load_image(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with Image.open(io.BytesIO(content)) as image, pytest.raises(ImageError, match=reason):
        load_image(image)


def test_max_pixels_moves_the_limit_and_messages_say_to_what() -> None:
    content = encoded(Image.new("RGBA", (30, 20)))
    with pytest.raises(ImageError, match=r"0\.0 megapixels \(30x20, mode RGBA\).*pass max_pixels=854 "):
        load_image(content, max_pixels=853)
    assert load_image(content, max_pixels=854).size == (30, 20)
    assert load_image(encoded(Image.new("L", (30, 20))), max_pixels=600).size == (30, 20)
    with pytest.raises(ImageError, match="max_pixels=601"):
        load_image(encoded(Image.new("L", (601, 1))), max_pixels=600)
    for wrong in (0, -1, 1.5, True, "600"):
        with pytest.raises(ConfigurationError, match="max_pixels"):
            load_image(content, max_pixels=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("scans", ["one", "progressive", "a scan per colour"])
def test_a_jpeg_of_several_scans_takes_more(scans: str) -> None:
    content = encoded(noise((32, 32), 3), "JPEG", progressive=scans == "progressive", subsampling=0)
    if scans == "a scan per colour":  # the header of such a file; the rest does not matter for its size
        at = content.index(b"\xff\xda")
        content = content[:at] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + content[at + 14 :]
    if scans == "one":
        assert load_image(content, max_pixels=32 * 32).size == (32, 32)
        return
    with pytest.raises(ImageError, match=f"max_pixels={-(-(32 * 32 * 10 + 32 * 8) // 6)} "):
        load_image(content, max_pixels=32 * 32)


def test_pictures_in_memory_have_no_limit() -> None:
    assert load_image(Image.new("L", (30, 20)), max_pixels=1).size == (30, 20)
    assert load_image(np.zeros((20, 30), np.uint8), max_pixels=1).size == (30, 20)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "GIF"])
def test_pillows_own_limit_plays_no_part_and_stays(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(noise((40, 30), 1), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=load_image, args=[content]) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert load_image(content).size == (40, 30)
        for thread in threads:
            thread.join()
    assert Image.MAX_IMAGE_PIXELS == 100


def test_texts_that_unpack_to_megabytes_are_refused() -> None:
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000), 9))
    with pytest.raises(ImageError, match="damaged"):
        load_image(png(3, 2, extra=bomb))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell the peak of memory")
def test_decoding_takes_no_more_memory_than_is_counted() -> None:
    """Peaks of forked processes. Each may take 30 MB beside its pictures of 6 megapixels."""
    done = subprocess.run([sys.executable, "-m", "tests.pages.peaks"], capture_output=True, text=True, check=True)
    peaks: dict[str, tuple[float, float]] = json.loads(done.stdout)
    assert len(peaks) > 8
    for name, (peak, counted) in peaks.items():
        assert 0.4 * counted < peak < counted + 5, f"{name}: {peak:.1f} bytes per pixel, counted {counted:.1f}"


# -- EXIF -----------------------------------------------------------------------------------------------------------


def exif_block(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = orientation, "a camera", 300.0
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 10:00:00"
    return exif.tobytes()


BLOCK = exif_block()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_damaged_exif_data_refuse_no_picture(kind: str, seed: int) -> None:
    block = mutated(BLOCK, random.Random(seed), 6, len(BLOCK))
    picture = load_image(encoded(Image.new("RGB", (8, 4), "white"), kind, exif=block))
    assert picture.size in [(8, 4), (4, 8)]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_damaged_exif_data_refuse_no_tiff(seed: int) -> None:
    """The picture's own tags stand in the same directory; the damages are in the EXIF directory and the orientation."""
    content = encoded(Image.new("RGB", (8, 4), "white"), "TIFF", exif=BLOCK)
    at = content.find(b"2024:05:01")  # Pillow before 11 writes no EXIF directory into a TIFF
    chance = random.Random(seed)
    damaged = content if at < 0 else mutated(content, chance, at - 30, at + 10)
    entry = content.index(b"\x12\x01\x03\x00\x01\x00\x00\x00\x06")
    if chance.random() < 0.5:
        damaged = damaged[: entry + 8] + bytes([chance.randrange(256)]) + damaged[entry + 9 :]
    assert load_image(damaged).size in [(8, 4), (4, 8)]


def test_exif_data_that_are_no_tiff_leave_the_picture_as_it_is() -> None:
    block = b"XX*\0" + BLOCK[10:]
    picture = noise((8, 4), 3)
    result = load_image(encoded(picture, exif=b"Exif\0\0" + block))
    assert result.tobytes() == picture.tobytes()


def test_an_orientation_behind_the_pixels_of_a_png() -> None:
    """It is known only when they are read, and then a turned copy must still be within the limit."""
    picture = noise((8, 4), 3)
    content = encoded(picture)
    end = content.index(b"IEND") - 4
    content = content[:end] + chunk(b"eXIf", BLOCK[6:]) + content[end:]
    assert load_image(content).tobytes() == picture.transpose(Image.Transpose.ROTATE_270).tobytes()
    with pytest.raises(ImageError, match="max_pixels=64 "):
        load_image(content, max_pixels=63)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_turned_picture_is_turned_once(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    once = load_image(encoded(noise((8, 4), 3), kind, exif=exif))
    assert once.size == (4, 8)
    assert load_image(once).tobytes() == once.tobytes()
    assert load_image(encoded(once)).tobytes() == once.tobytes()


# -- files that are none --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_sockets_and_devices_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, server, link = tmp_path / "a.png", tmp_path / "b.tif", tmp_path / "c.jpg"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("b.tif")
        assert find_documents(tmp_path) == []
        for path in (pipe, server, link, Path(os.devnull), Path("/dev/stdin"), Path("/proc/self/maps")):
            if path == Path("/dev/stdin") and path.is_file():
                continue  # of this process it is a file
            assert not is_pdf(path)
            for read in (load_image, PagedDocument, lambda source: load_image(Path(source).as_uri())):
                with pytest.raises(InputError, match=r"device or a pipe|file of the kernel|No such"):
                    read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(3, 2))
    opened = os.open

    def exchanged(name: str, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return opened(name, flags)

    monkeypatch.setattr(os, "open", exchanged)
    with pytest.raises(ImageError, match=r"device or a pipe"):
        load_image(path)


def test_limits_are_values() -> None:
    assert ImageLimits() == ImageLimits(MAX_PIXELS, [])
    assert ImageLimits(image_formats="psd").override(5, None) == ImageLimits(5, ["PSD"])
    assert ImageLimits(5).options == {"max_pixels": 5, "image_formats": ()}
