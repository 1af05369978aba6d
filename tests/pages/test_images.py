"""Images of all kinds become RGB as a viewer shows them, or an ImageError."""

from __future__ import annotations

import base64
import io
import logging
import os
import random
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import ImageError
from colpali_integrations.pages.images import image_name, load_image
from colpali_integrations.pages.rgb import to_rgb

# A picture whose every pixel differs, so that a turn, a mirror or a swapped axis shows.
PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3) * 2
PICTURE = Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source: Any) -> NDArray[np.uint8]:
    image = load_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


PNG = encoded(PICTURE)


class Unseekable(io.RawIOBase):
    """A pipe or a network body: it can be read once, from the front."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._rest.read(size)


def read_before(content: bytes) -> io.BytesIO:
    file = io.BytesIO(content)
    file.read(9)
    return file


class Holder:
    image = PICTURE


SOURCES: dict[str, Callable[[Path], Any]] = {
    "path as str": str,
    "Path": lambda path: path,
    "bytes": lambda path: PNG,
    "bytearray": lambda path: bytearray(PNG),
    "memoryview": lambda path: memoryview(PNG),
    "memoryview with gaps": lambda path: np.repeat(np.frombuffer(PNG, dtype=np.uint8), 2)[::2].data,
    "BytesIO": lambda path: io.BytesIO(PNG),
    "BytesIO read before": lambda path: read_before(PNG),
    "unseekable file": lambda path: Unseekable(PNG),
    "PIL": lambda path: PICTURE,
    "PIL not yet loaded": lambda path: Image.open(io.BytesIO(PNG)),
    "ndarray": lambda path: PIXELS,
    "ndarray channels first": lambda path: PIXELS.transpose(2, 0, 1),
    "ndarray Fortran order": lambda path: np.asfortranarray(PIXELS),
    "ndarray with negative strides": lambda path: PIXELS[::-1, ::-1][::-1, ::-1],
    "object with an image": lambda path: Holder(),
    "data URI": lambda path: "data:image/png;base64," + base64.b64encode(PNG).decode(),
    "data URI in lines": lambda path: "data:image/png;base64," + base64.encodebytes(PNG).decode(),
    "data URI without =": lambda path: "data:image/png;base64," + base64.b64encode(PNG).decode().rstrip("="),
    "data URI in capitals": lambda path: "DATA:image/png;BASE64," + base64.b64encode(PNG).decode(),
    "data URI with parameters": lambda path: "data:image/png;name=a.png;base64," + base64.b64encode(PNG).decode(),
    "data URI, both encodings": lambda path: (
        "data:image/png;base64," + urllib.parse.quote(base64.b64encode(PNG).decode(), safe="")
    ),
    "data URI percent-encoded": lambda path: "data:image/png," + urllib.parse.quote_from_bytes(PNG),
    "file URL": lambda path: path.as_uri(),
    "file URL with host": lambda path: path.as_uri().replace("file://", "FILE://localhost"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_gives_the_same_pixels(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a page ünïcode %20.png"
    path.write_bytes(PNG)
    np.testing.assert_array_equal(pixels(SOURCES[kind](path)), PIXELS)


def test_open_file_is_rewound_and_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        file.read()
        np.testing.assert_array_equal(pixels(file), PIXELS)
        np.testing.assert_array_equal(pixels(file), PIXELS)
        assert not file.closed


def test_the_source_is_not_changed() -> None:
    picture, array = PICTURE.copy(), PIXELS.copy()
    array.flags.writeable = False
    result = load_image(picture)
    result.putpixel((0, 0), (255, 255, 255))
    load_image(array).putpixel((0, 0), (255, 255, 255))
    np.testing.assert_array_equal(np.asarray(picture), PIXELS)
    np.testing.assert_array_equal(array, PIXELS)


class Slow(io.BytesIO):
    """A file on a slow disk: other threads get their turn between the rewinding and the reading."""

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(0.002)
        return super().read(size)


@pytest.mark.parametrize("share", ["one lazy picture", "one open file"])
def test_threads_may_share_a_source(share: str) -> None:
    expected = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(expected), compress_level=1)
    for _ in range(5):
        source = Image.open(io.BytesIO(content)) if share == "one lazy picture" else Slow(content)
        with ThreadPoolExecutor(4) as threads:
            for result in threads.map(pixels, [source] * 8):
                np.testing.assert_array_equal(result, expected)


# Modes


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_opaque_modes_convert_as_pillow_does(mode: str) -> None:
    image = PICTURE.convert("RGB").convert(mode) if mode != "LAB" else Image.new("LAB", (7, 5), (120, 30, 200))
    np.testing.assert_array_equal(pixels(image), np.asarray(image.convert("RGB")))


def test_cmyk_file_is_not_inverted() -> None:
    white = Image.new("CMYK", (3, 2), (0, 0, 0, 0))
    assert pixels(encoded(white, "TIFF")).min() == 255
    assert pixels(encoded(white, "JPEG")).min() == 255
    assert pixels(encoded(Image.new("CMYK", (3, 2), (0, 0, 0, 255)), "TIFF")).max() == 0


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 40), (51, 212)])
@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_transparency_is_composited_on_white(mode: str, alpha: int, expected: int) -> None:
    """By hand: 40 at alpha 51/255 = 0.2 on white is 0.2 * 40 + 0.8 * 255 = 212."""
    image = Image.new("RGBA", (3, 2), (40, 40, 40, alpha))
    if mode in ("LA", "La"):
        image = image.convert("LA").convert(mode)
    elif mode == "PA":
        palette = Image.new("P", (3, 2), 0)
        palette.putpalette([40, 40, 40])
        image = palette.convert("PA")
        image.putalpha(alpha)
    else:
        image = image.convert(mode)
    assert image.mode == mode
    # Premultiplied storage rounds the colour before it is divided back.
    margin = 1 if mode in ("La", "RGBa") else 0
    assert np.abs(pixels(image).astype(int) - expected).max() <= margin


def test_transparent_png_keeps_its_opaque_pixels() -> None:
    page = np.zeros((4, 4, 4), dtype=np.uint8)
    page[1:3, 1:3] = (10, 20, 30, 255)
    result = pixels(encoded(Image.fromarray(page)))
    assert (result[0] == 255).all()
    assert (result[1:3, 1:3] == (10, 20, 30)).all()


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"], ids=["one index", "an alpha per index"])
@pytest.mark.parametrize("through_file", [False, True])
def test_palette_transparency(transparency: int | bytes, through_file: bool) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    if through_file:
        result = pixels(encoded(image, transparency=transparency))
    else:
        image.info["transparency"] = transparency
        result = pixels(image)
    assert result.tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("mode", "key", "other", "shown"),
    [("RGB", (0, 0, 0), (1, 2, 3), [1, 2, 3]), ("L", 0, 9, [9] * 3), ("1", 0, 1, [255] * 3)],
)
def test_one_transparent_colour(mode: str, key: Any, other: Any, shown: list[int]) -> None:
    image = Image.new(mode, (2, 1), other)
    image.putpixel((1, 0), key)
    assert pixels(encoded(image, transparency=key)).tolist() == [[shown, [255, 255, 255]]]


def test_one_transparent_level_of_16_bits() -> None:
    image = Image.fromarray(np.array([[0, 300, 301, 65535]], dtype=np.uint16))
    assert pixels(encoded(image, transparency=300))[0, :, 0].tolist() == [0, 255, 1, 255]


SAMPLES = np.array([[0, 128, 129, 257, 300, 32767, 32768, 65407, 65535]], dtype=np.uint16)
SCALED = [0, 0, 1, 1, 1, 127, 128, 255, 255]  # sample / 257, to the nearest


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_files_are_scaled_not_clipped(kind: str) -> None:
    image = Image.fromarray(SAMPLES)
    # Older Pillow writes PPM of 32 bits alone, as 16.
    content = encoded(image.convert("I") if kind == "PPM" else image, kind)
    assert pixels(content)[0, :, 1].tolist() == SCALED


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N", "I"])
def test_16_bit_modes_are_scaled_in_every_byte_order(mode: str) -> None:
    if mode == "I":
        image = Image.fromarray(SAMPLES.astype(np.int32))
    else:
        order = {"I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2")
        image = Image.frombytes(mode, (SAMPLES.shape[1], 1), SAMPLES.astype(order).tobytes())
    assert image.mode == mode
    assert pixels(image)[0, :, 2].tolist() == SCALED


def test_16_bit_values_out_of_range_are_refused() -> None:
    for value in (-1, 65536):
        with pytest.raises(ImageError, match=r"0\.\.65535"):
            load_image(Image.fromarray(np.array([[value]], dtype=np.int32)))


def test_float_images() -> None:
    image = Image.fromarray(np.array([[0, 0.25, 1]], dtype=np.float32))
    assert pixels(encoded(image, "TIFF"))[0, :, 0].tolist() == [0, 64, 255]
    image = Image.fromarray(np.array([[0, 64, 255]], dtype=np.float32))
    assert pixels(image)[0, :, 0].tolist() == [0, 64, 255]
    for value in (np.nan, np.inf, -0.5, 255.5):
        with pytest.raises(ImageError, match="float image"):
            load_image(Image.fromarray(np.array([[value]], dtype=np.float32)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    """The stored picture is the upright one moved the other way (EXIF 2.3, tag 0x0112)."""
    turns: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
        1: lambda up: up,
        2: lambda up: up[:, ::-1],
        3: lambda up: up[::-1, ::-1],
        4: lambda up: up[::-1],
        5: lambda up: up.transpose(1, 0, 2),
        6: lambda up: np.rot90(up, 1),
        7: lambda up: up[::-1, ::-1].transpose(1, 0, 2),
        8: lambda up: np.rot90(up, -1),
    }
    upright = np.zeros((24, 40, 3), dtype=np.uint8)
    upright[:12, :20], upright[:12, 20:], upright[12:, :20] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(turns[orientation](upright)))
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    result = pixels(encoded(image, kind, exif=exif, **options)).astype(int)
    assert result.shape == upright.shape
    assert np.abs(result - upright).max() <= (8 if kind == "JPEG" else 0)


# Arrays


@settings(deadline=None)
@given(
    hnp.arrays(
        dtype=st.sampled_from(["u1", "<u2", ">u2", "?", "<f2", "<f4", ">f4", "<f8", ">f8"]),
        shape=st.one_of(
            st.tuples(st.integers(1, 6), st.integers(1, 6)),
            st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3])),
        ),
        elements={"min_value": 0, "max_value": 1},
    ).flatmap(
        lambda array: st.just(array) if array.dtype.kind in "f?" else hnp.arrays(dtype=array.dtype, shape=array.shape)
    )
)
def test_arrays_are_scaled_to_the_nearest_level(array: NDArray[Any]) -> None:
    """value / largest value * 255, whatever the type, byte order and layout."""
    largest = {"u": 255 if array.dtype.itemsize == 1 else 65535, "b": 1, "f": 1}[array.dtype.kind]
    exact = array.astype(np.float64) / largest * 255
    shown = exact[..., None] if array.ndim == 2 else exact
    result = pixels(array)
    assert result.shape == (*array.shape[:2], 3)
    # float32 arithmetic may tip a tie; nothing may be further off than half a level.
    assert np.abs(result - shown).max() <= 0.5 + 1e-4
    # Strides do not matter.
    doubled = np.repeat(np.repeat(array, 2, axis=0), 2, axis=1)[::2, ::2]
    doubled.flags.writeable = False
    np.testing.assert_array_equal(pixels(doubled), result)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(4))))
def test_arrays_with_alpha_are_composited_on_white(array: NDArray[np.uint8]) -> None:
    alpha = array[..., 3:].astype(np.float64) / 255
    exact = alpha * array[..., :3] + (1 - alpha) * 255
    assert np.abs(pixels(array) - exact).max() <= 1  # Pillow composites in integers


@given(st.integers(5, 9), st.integers(5, 9), st.sampled_from([1, 3, 4]))
def test_channels_first_is_recognised(height: int, width: int, channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(array), pixels(array.transpose(2, 0, 1)))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (np.zeros((4, 0, 3), np.float32), "shape"),
        (np.zeros((5, 5, 2), np.uint8), "shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4), np.int32), "int32"),
        (np.zeros((4, 4), np.int8), "int8"),
        (np.zeros((4, 4), np.complex64), "complex64"),
        (np.zeros((4, 4), object), "object"),
        (np.full((4, 4), 255.0), "for 0..255 pass uint8"),
        (np.full((4, 4), -0.1), r"\[0, 1\]"),
        (np.full((4, 4), np.nan), "nan"),
        (np.full((4, 4), np.inf, np.float16), "inf"),
    ],
)
def test_other_arrays_are_refused(array: NDArray[Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        load_image(array)


# What is not an image


def test_urls_are_off_by_default() -> None:
    for url in ("http://127.0.0.1/a.png", "HTTPS://127.0.0.1/a.png"):
        with pytest.raises(ImageError, match="allow_urls=True"):
            load_image(url)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "is empty"),
        (b"hello, I am a text file\n" * 9, "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"%PDF-1.7\n", r"PDF; pass its pages: embed_images\(pdf_pages"),
        (b"\xef\xbb\xbf\n%PDF-1.7\n", "is a PDF"),
        ("", "cannot read"),
        ("missing.png", r"cannot read missing\.png: No such file"),
        ("a\0b.png", r"null (byte|character)"),
        ("a\udcffb.png", "cannot read"),
        (base64.b64encode(PNG * 30).decode(), "is it base64"),
        ("file://elsewhere/share/a.png", "another machine"),
        ("file://[elsewhere/a.png", "malformed file: URL.*IPv6"),
        ("file://[" + "a" * 999, "malformed file: URL"),
        ("data:image/png;base64", "no comma"),
        ("data:image/png,\udcff", "malformed data URI"),
        ("data:image/png;base64,!!!!", "malformed base64"),
        ("data:image/png;base64,ééé", "malformed base64"),
        ("data:image/png;base64,A", "malformed base64"),
        ("data:,", "is empty"),
        ("data:text/plain,hello", "not an image"),
        (None, "cannot use NoneType"),
        (7, "cannot use int"),
        ([PICTURE], "cannot use list"),
        (io.StringIO("text"), "binary mode"),
        (Image.new("RGB", (0, 5)), "no pixels"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0][:30],  # without addresses, which differ per process
)
def test_clear_errors(source: Any, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        load_image(source)
    assert len(str(caught.value)) < 400


def test_directory_and_closed_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot read"):
        load_image(tmp_path)
    file = io.BytesIO(PNG)
    file.close()
    with pytest.raises(ImageError, match="closed file"):
        load_image(file)
    (tmp_path / "page.txt").write_text("text", encoding="utf-8")
    with (tmp_path / "page.txt").open(encoding="utf-8") as text, pytest.raises(ImageError, match="binary mode"):
        load_image(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_cut_off_files_are_refused_wherever_they_end(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    pixels(content)
    # The last bytes of both formats only say that this is the end.
    for length in range(0, len(content) - 16, 7 if kind == "PNG" else 3):
        with pytest.raises(ImageError):
            load_image(content[:length])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000", "PPM", "TGA", "ICO", "PCX", "SGI", "DDS"]
)
def test_damaged_files_give_an_image_or_an_image_error(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    chance = random.Random(0)
    refused = 0
    for trial in range(150):
        damaged = bytearray(content[: chance.randrange(1, len(content))] if trial % 3 == 0 else content)
        for _ in range(chance.randint(0, 5)):
            damaged[chance.randrange(min(len(damaged), 200))] = chance.randrange(256)
        try:
            assert load_image(bytes(damaged), image_formats=[kind]).mode == "RGB"
        except ImageError:
            refused += 1
    assert 5 < refused < 150


def test_of_several_frames_the_first_is_used_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "lime", "blue")]
    content = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        assert pixels(content)[0, 0].tolist() == [255, 0, 0]
    assert "3 frames" in caplog.text
    caplog.clear()
    with Image.open(io.BytesIO(content)) as image:
        image.seek(2)  # a caller who goes through the frames knows what he does
        assert pixels(image)[0, 0].tolist() == [0, 0, 255]
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        pixels(PNG)
    assert not caplog.records


def test_names_in_messages() -> None:
    assert image_name("scan.png") == "scan.png"
    assert image_name(Path("a/b.png")) == str(Path("a/b.png"))
    assert image_name(b"12345") == "5 bytes"
    assert image_name(np.zeros((2, 3), np.uint16).data) == "12 bytes"
    assert image_name(np.zeros((2, 3))) == "array (2, 3) of float64"
    assert image_name(Image.new("L", (4, 5))) == "L image of 4x5"
    assert image_name(io.BytesIO()) == "BytesIO"
    assert len(image_name("data:image/png;base64," + "A" * 9999)) < 60
    assert len(image_name("x" * 9999)) < 60


def test_to_rgb_leaves_rgb_alone() -> None:
    assert to_rgb(PICTURE) is PICTURE


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "scan.png"
    os.mkfifo(pipe)
    for path in (pipe, os.devnull):
        with pytest.raises(ImageError, match="it is a device or a pipe, and not a file"):
            load_image(path)
