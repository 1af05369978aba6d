"""Pages look as in a viewer, and faults of a PDF end in a PdfError, never in a crash."""

from __future__ import annotations

import gc
import hashlib
import io
import logging
import os
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
from PIL import Image

from colpali_integrations import ColPali, pdf_pages
from colpali_integrations.errors import ConfigurationError, ImageError, InputError, PdfError
from colpali_integrations.pages.arguments import page_numbers
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.pages.paged import is_pdf
from colpali_integrations.pages.pdf import PdfPage, open_pdf, pdf_page_count
from colpali_integrations.pdfium import reader

DEMO = Path(__file__).parents[2] / "demo" / "pdfs"
PDFS = sorted(DEMO.glob("*.pdf"))


# PDFs written by hand (ISO 32000-1)


def write_pdf(objects: list[bytes], trailer: bytes = b"") -> bytes:
    """A file with the given objects, numbered from 1; the first is the catalogue."""
    content, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    count, start = len(objects) + 1, len(content)
    content += b"xref\n0 %d\n0000000000 65535 f \n%b" % (count, table)
    return content + b"trailer\n<</Size %d/Root 1 0 R%b>>\nstartxref\n%d\n%%%%EOF\n" % (count, trailer, start)


def stream(content: bytes) -> bytes:
    return b"<</Length %d>>stream\n%b\nendstream" % (len(content), content)


# A black square in the upper left corner of a page of 200 x 100 points.
CORNER = b"0 0 0 rg 0 80 20 20 re f "


def simple(
    page: bytes = b"/MediaBox[0 0 200 100]",
    *,
    drawing: bytes = CORNER + b"BT /F1 20 Tf 60 40 Td (Hello) Tj ET",
    catalogue: bytes = b"",
    more: list[bytes] | None = None,
    font: bytes = b"",
    trailer: bytes = b"",
) -> bytes:
    return write_pdf(
        [
            b"<</Type/Catalog/Pages 2 0 R%b>>" % catalogue,
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R%b/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>" % page,
            stream(drawing),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica%b>>" % font,
            *(more or []),
        ],
        trailer,
    )


def rc4(key: bytes, content: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for byte in content:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def encrypted(*, user: bytes, owner: bytes) -> bytes:
    """Standard security handler, revision 2, 40 bits (ISO 32000-1, 7.6.3)."""
    filler = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
    padded = (user + filler)[:32]
    owner_entry = rc4(hashlib.md5((owner + filler)[:32]).digest()[:5], padded)
    permissions, identity = (-64).to_bytes(4, "little", signed=True), b"0123456789abcdef"
    key = hashlib.md5(padded + owner_entry + permissions + identity).digest()[:5]
    object_key = hashlib.md5(key + (4).to_bytes(3, "little") + bytes(2)).digest()[:10]
    entries = [entry.hex().encode() for entry in (owner_entry, rc4(key, filler), identity)]
    return simple(
        drawing=rc4(object_key, CORNER + b"BT /F1 20 Tf 60 40 Td (Secret) Tj ET"),
        trailer=b"/Encrypt<</Filter/Standard/V 1/R 2/P -64/O<%b>/U<%b>>>/ID[<%b><%b>]" % (*entries, entries[-1]),
    )


def pages(source: Any, **options: Any) -> list[PdfPage]:
    return list(pdf_pages(source, **options))


def dark(page: PdfPage) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what is black on a page, as parts of its width and height."""
    ys, xs = np.nonzero(np.asarray(page.image.convert("L")) < 100)
    width, height = page.image.size
    return (xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height)


# Good documents


@pytest.mark.parametrize("path", PDFS, ids=lambda path: path.stem)
def test_demo_documents(path: Path) -> None:
    count = pdf_page_count(path)
    read = pages(path, dpi=20)
    assert [page.number for page in read] == list(range(1, count + 1))
    for page in read:
        assert page.image.mode == "RGB"
        assert page.source == str(path)
        assert page.page_count == count
        assert abs(page.image.width - page.width * 20 / 72) <= 1
        assert abs(page.image.height - page.height * 20 / 72) <= 1
        assert np.asarray(page.image).std() > 0, "a blank page"
        page.text.encode("utf-8")
        assert not {"\x00", "\ufffe", "\r"} & set(page.text)


def test_text_layers_and_their_absence() -> None:
    assert "Metropolis" in " ".join(page.text for page in pages(DEMO / "metropolis-slides.pdf", dpi=5))
    assert all(page.text == "" for page in pages(DEMO / "cfitsio-guide-rasterised.pdf", dpi=5))


@pytest.mark.parametrize(
    "kind",
    [
        lambda path: str(path),
        lambda path: path,
        lambda path: path.read_bytes(),
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
    ],
    ids=["str", "Path", "bytes", "bytearray", "memoryview", "BytesIO"],
)
def test_kinds_of_source(kind: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "ünïcode name.pdf"
    path.write_bytes(simple())
    source = kind(path)
    for _ in range(2):  # a file is rewound
        [page] = pages(source)
        assert page.text == "Hello"
        assert (page.width, page.height) == (200, 100)
    assert pdf_page_count(source) == 1


def test_open_file_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(simple())
    with path.open("rb") as file:
        file.read()
        assert len(pages(file)) == 1
        assert not file.closed


@pytest.mark.parametrize(
    ("turn", "corner"), [(0, "left top"), (90, "right top"), (180, "right bottom"), (270, "left bottom")]
)
def test_turned_pages(turn: int, corner: str) -> None:
    [page] = pages(simple(b"/MediaBox[0 0 200 100]/Rotate %d" % turn, drawing=CORNER), dpi=72)
    assert (page.width, page.height) == ((200, 100) if turn % 180 == 0 else (100, 200))
    assert page.image.size == (page.width, page.height)
    left, top, right, bottom = dark(page)
    assert left == 0 if "left" in corner else right == 1
    assert top == 0 if "top" in corner else bottom == 1
    assert (right - left) * (bottom - top) == pytest.approx(20 * 20 / (200 * 100))


def test_only_the_crop_box_is_shown() -> None:
    [page] = pages(simple(b"/MediaBox[0 0 200 100]/CropBox[10 50 110 100]", drawing=CORNER), dpi=72)
    assert page.image.size == (page.width, page.height) == (100, 50)
    assert dark(page) == (0, 0, 10 / 100, 20 / 50)


def test_form_values_are_drawn(caplog: pytest.LogCaptureFixture) -> None:
    field = (
        b"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(Ada)/Rect[50 20 150 60]/F 4/P 3 0 R"
        b"/DA(/F1 20 Tf 0 g)/AP<</N 7 0 R>>>>"
    )
    appearance = b"0 0 0 rg 0 0 100 40 re f"
    form = b"<</Type/XObject/Subtype/Form/BBox[0 0 100 40]/Length %d>>stream\n%b\nendstream" % (
        len(appearance),
        appearance,
    )
    document = simple(
        b"/MediaBox[0 0 200 100]/Annots[6 0 R]",
        drawing=b"",
        catalogue=b"/AcroForm<</Fields[6 0 R]/DR<</Font<</F1 5 0 R>>>>>>",
        more=[field, form],
    )
    [page] = pages(document, dpi=72)
    assert dark(page) == pytest.approx((0.25, 0.4, 0.75, 0.8), abs=0.02)
    with caplog.at_level(logging.WARNING):  # an XFA form: pypdfium2 would tell everybody how to build pdfium
        pages(DEMO / "dd-form-293.pdf", dpi=10)
    assert not caplog.records


def test_resolution() -> None:
    for dpi in (36, 72, 150.5, 300):
        [page] = pages(simple(), dpi=dpi)
        assert page.image.size == (int(np.ceil(200 * dpi / 72)), int(np.ceil(100 * dpi / 72)))


@pytest.mark.parametrize("dpi", [0, -1, float("nan"), float("inf")])
def test_impossible_resolutions_are_refused_at_once(dpi: float) -> None:
    with pytest.raises(ConfigurationError, match="dpi must be a positive number"):
        pdf_pages(simple(), dpi=dpi)


def test_huge_pages_are_drawn_smaller(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        [page] = pages(simple(b"/MediaBox[0 0 28800 14400]"))
    assert page.image.width * page.image.height <= 50_500_000
    assert page.image.width / page.image.height == pytest.approx(2, rel=0.01)
    assert (page.width, page.height) == (28800, 14400)
    assert "page 1 is 28800 x 14400 points; drawn at 25 dpi" in caplog.text


@pytest.mark.parametrize(
    "box", [b"0 0 0 0", b"0 0 1 1", b"0 0 0.001 0.001", b"100 100 0 0", b"0 0 1e9 1e9", b"0 0 99999999 0.01", b"a b"]
)
def test_strange_page_sizes(box: bytes) -> None:
    try:
        [page] = pages(simple(b"/MediaBox[%b]" % box), dpi=10)
    except PdfError as error:
        assert "page 1" in str(error)
    else:
        assert page.image.width >= 1
        assert page.image.height >= 1


def test_a_crop_box_outside_of_the_page_is_an_error_of_the_page() -> None:
    outside = simple(b"/MediaBox[0 0 200 100]/CropBox[500 500 600 600]")
    with pytest.raises(PdfError, match=r"page 1 cannot be drawn: it has no area \(0 x 0 points\)"):
        list(pdf_pages(outside))


def test_a_damaged_page_leaves_the_others_of_its_document() -> None:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>"
    pages = b"<</Type/Pages/Kids[3 0 R 9 0 R 3 0 R]/Count 3>>"  # there is no object 9
    damaged = write_pdf([b"<</Type/Catalog/Pages 2 0 R>>", pages, page])
    with PagedDocument(damaged, name="torn.pdf") as document:
        first, second, third = document.pages()
        assert first.draw().size == third.draw().size
        with pytest.raises(PdfError, match="page 2 cannot be drawn"):
            second.draw()
        with pytest.raises(PdfError, match="has pages 1 to 3; page 4"):
            document.page(4)


BROKEN_MAP = (
    b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap 1 begincodespacerange <00> <FF> endcodespacerange "
    b"5 beginbfchar <41> <D83D> <43> <D83DDE00> <44> <0000> <45> <FFFE> <47> <DC00D800> endbfchar endcmap end end"
)


def test_text_of_broken_character_maps_can_be_stored() -> None:
    document = simple(
        drawing=b"BT /F1 20 Tf 10 40 Td (ACDEGB) Tj ET",
        font=b"/Encoding/WinAnsiEncoding/ToUnicode 6 0 R",
        more=[stream(BROKEN_MAP)],
    )
    [page] = pages(document)
    assert page.text.encode("utf-8").decode("utf-8") == page.text
    assert "\x00" not in page.text
    assert "\ufffe" not in page.text
    assert "\U0001f600" in page.text
    assert page.text.endswith("B")


# Which pages


def test_pages_come_in_the_requested_order() -> None:
    path = DEMO / "metropolis-slides.pdf"
    assert [page.number for page in pages(path, dpi=5, pages=[3, 1, 3])] == [3, 1, 3]
    assert [page.number for page in pages(path, dpi=5, pages=(n for n in range(2, 4)))] == [2, 3]
    assert pages(path, dpi=5, pages=[]) == []
    [page] = pages(path, dpi=5, pages=np.array([2]))
    assert type(page.number) is int  # JSON knows no numpy


@pytest.mark.parametrize("number", [2, 10**9])
def test_missing_pages_are_errors(number: int) -> None:
    with pytest.raises(PdfError, match=f"pages 1 to 1; page {number} was requested"):
        pages(simple(), pages=[number])


def test_the_pages_before_a_missing_one_are_returned() -> None:
    read = pdf_pages(simple(), pages=[1, 2])
    assert next(read).number == 1
    with pytest.raises(PdfError):
        next(read)


@pytest.mark.parametrize(
    "wanted", ["1", "1-3", b"1", [1.0], np.array([1.0]), ["1"], [None], [True], [np.True_], [0], [2, -1], 1]
)
def test_invalid_page_numbers_are_refused(wanted: Any) -> None:
    with pytest.raises(ConfigurationError, match="pages: expected 1-based whole numbers"):
        pdf_pages(simple(), pages=wanted)


@pytest.mark.parametrize(
    "wanted", [range(1, 3), iter([1, 2]), np.array([1, 2]), (np.int64(1), np.uint8(2)), {1: "", 2: ""}]
)
def test_whole_numbers_of_any_iterable_are_pages(wanted: Any) -> None:
    assert page_numbers(wanted) == [1, 2]
    assert {type(number) for number in page_numbers([np.int64(1)]) or []} == {int}


def test_an_open_pdf_refuses_numbers_that_are_not_whole() -> None:
    with closing(open_pdf(simple())) as pdf:
        for number in (1.0, "1", True):
            with pytest.raises(ConfigurationError, match="expected 1-based whole numbers"):
                pdf.size(number)  # type: ignore[arg-type]
        assert pdf.size(np.int64(1)) == pdf.size(1)
        with pytest.raises(PdfError, match="page 0 was requested"):
            pdf.size(0)


# Bad documents


def zipped(kind: str) -> bytes:
    """A zip with the content types of an Office file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("[Content_Types].xml", f'<Types><Override ContentType="{kind}"/></Types>')
    return content.getvalue()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (io.BytesIO(), r"is empty \(0 bytes\)"),
        (b"hello, I am a text file\n" * 50, "is not a PDF, or is damaged"),
        (b"%PDF-1.7\n", "is not a PDF, or is damaged"),
        (write_pdf([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[]/Count 0>>"]), "no pages|damaged"),
        (write_pdf([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[]/Count 3>>"]), "page 1 cannot be drawn"),
        (write_pdf([b"<</Type/Catalog>>"]), "no pages|damaged"),
        ("missing.pdf", r"no PDF at missing\.pdf"),
        ("a\0b.pdf", r"not a path: .*null"),
        (DEMO, "no PDF at"),
        (None, "cannot use NoneType as a PDF"),
        (io.StringIO("text"), "cannot use StringIO as a PDF"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0][:30],  # without addresses, which differ per process
)
def test_clear_errors(source: Any, reason: str) -> None:
    for read in (pages, pdf_page_count) if "page 1" not in reason else (pages,):
        with pytest.raises(PdfError, match=reason):
            read(source)


NAMED = [
    (
        "slides.pdf",
        zipped("presentationml.presentation.main+xml"),
        "is a PPTX file and no PDF; rename it to end in .pptx",
    ),
    (
        "letter.pdf",
        zipped("wordprocessingml.document.main+xml"),
        "is a DOCX file and no PDF; rename it to end in .docx",
    ),
    ("all.pdf", zipped("nothing"), "is a ZIP archive and no PDF; unpack it"),
    ("photo.pdf", b"\x89PNG\r\n\x1a\n" + b"x" * 50, "is a PNG image and no PDF; rename it to end in .png"),
    ("login.pdf", b"\n<!DOCTYPE html><html>", "is an HTML page and no PDF; rename it to end in .html"),
    ("note.pdf", b"{\\rtf1 low tide}", "is an RTF file and no PDF; rename it to end in .rtf"),
]


@pytest.mark.parametrize(
    ("name", "content", "message"), NAMED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_file_of_another_kind_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for isolate in (True, False):
        with pytest.raises(PdfError, match=re.escape(f"{path} {message}")):
            open_pdf(path, isolate=isolate)


def test_empty_and_closed_files(tmp_path: Path) -> None:
    path = tmp_path / "empty.pdf"
    path.touch()
    with pytest.raises(PdfError, match=r"empty\.pdf is empty"):
        pages(path)
    file = io.BytesIO(simple())
    file.close()
    with pytest.raises(PdfError, match="closed file"):
        pages(file)


def test_passwords() -> None:
    locked = encrypted(user=b"open sesame", owner=b"ali baba")
    for read in (pages, pdf_page_count):
        with pytest.raises(PdfError, match=r"is encrypted; pass password="):
            read(locked)
        with pytest.raises(PdfError, match="is encrypted; the password is wrong"):
            read(locked, password="sesame")
    for password in ("open sesame", "ali baba"):
        [page] = pages(locked, password=password)
        assert page.text == "Secret"
        assert pdf_page_count(locked, password=password) == 1


def test_an_owner_password_alone_does_not_lock() -> None:
    [page] = pages(encrypted(user=b"", owner=b"ali baba"))
    assert page.text == "Secret"
    assert dark(page)[:2] == (0, 0)


@pytest.mark.parametrize("path", PDFS, ids=lambda path: path.stem)
def test_cut_off_documents_give_pages_or_a_pdf_error(path: Path) -> None:
    content = path.read_bytes()
    refused = 0
    for part in range(40):
        cut = content[: len(content) * part // 40]
        try:
            for page in pdf_pages(cut, dpi=10, pages=[1]):
                page.text.encode("utf-8")
        except PdfError:
            refused += 1
    assert refused > 0


def test_damaged_documents_give_pages_or_a_pdf_error() -> None:
    chance = random.Random(0)
    whole = [path.read_bytes() for path in PDFS] + [simple(), encrypted(user=b"", owner=b"x")]
    outcomes = {"pages": 0, "refused": 0}
    for _ in range(150):
        content = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 100)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        start = chance.randrange(len(content))
        del content[start : start + chance.choice([0, 1, 1000])]
        try:
            for page in pdf_pages(bytes(content), dpi=10):
                page.text.encode("utf-8")
                assert page.image.mode == "RGB"
                if page.number == 3:
                    break
            outcomes["pages"] += 1
        except PdfError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0, outcomes


# Life and death of documents


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> list[pypdfium2.PdfDocument]:
    """Every document that a reader opens in this process."""
    opened: list[pypdfium2.PdfDocument] = []

    class Recorded(reader._Document):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.append(self)

    monkeypatch.setattr(reader, "_Document", Recorded)
    return opened


def test_documents_are_closed(documents: list[pypdfium2.PdfDocument]) -> None:
    path = DEMO / "metropolis-slides.pdf"
    pages(path, dpi=5, isolate=False)
    pdf_page_count(path, isolate=False)
    abandoned = pdf_pages(path, dpi=5, isolate=False)
    next(abandoned)
    assert documents[-1].raw is not None
    del abandoned
    gc.collect()
    closed = pdf_pages(path, dpi=5, isolate=False)
    next(closed)
    assert isinstance(closed, Iterator)
    closed.close()  # type: ignore[attr-defined]
    with pytest.raises(PdfError):
        pages(path, dpi=5, pages=[999], isolate=False)
    with pytest.raises(PdfError):
        pages(write_pdf([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[]/Count 3>>"]), isolate=False)
    assert len(documents) == 6
    assert [document.raw for document in documents] == [None] * 6


def test_nothing_is_opened_before_the_first_page(documents: list[pypdfium2.PdfDocument]) -> None:
    unused = pdf_pages(DEMO / "metropolis-slides.pdf", isolate=False)
    assert not documents
    del unused


STRESS = """
import sys, threading
from colpali_integrations import pdf_pages

def everything(path):
    return [(page.number, page.text, page.image.tobytes()) for page in pdf_pages(path, dpi=40)]

def read(path):
    for _ in range(3):
        found.append(everything(path) == expected[path])

expected, found = {path: everything(path) for path in sys.argv[1:]}, []
threads = [threading.Thread(target=read, args=(path,)) for path in sys.argv[1:] * 2]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(0 if found == [True] * (3 * len(threads)) else 1)
"""


def test_threads_read_documents_at_the_same_time() -> None:
    """Two threads in pdfium end the process, hence a process of its own; without the lock this test fails."""
    names = ("metropolis-slides", "hcl-colors", "dd-form-293", "freedoom-manual")
    paths = [str(DEMO / f"{name}.pdf") for name in names]
    done = subprocess.run([sys.executable, "-c", STRESS, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pages_stay_valid_after_their_document() -> None:
    [page] = pages(simple(), dpi=72)
    gc.collect()
    assert page.image.getpixel((5, 5)) == (0, 0, 0)
    assert page.image.getpixel((199, 99)) == (255, 255, 255)


def test_pages_go_straight_into_a_model() -> None:
    path = DEMO / "metropolis-slides.pdf"
    with ColPali.from_pretrained() as model:
        vectors = list(model.embed_images(pdf_pages(path, dpi=50, pages=[1, 2])))
        [again] = model.embed_images(pages(path, dpi=50, pages=[2])[0].image)
        np.testing.assert_array_equal(vectors[1], again)
        with pytest.raises(ImageError, match="is a PDF; pass its pages"):
            list(model.embed_images([path]))


def test_names() -> None:
    page = PdfPage(Image.new("RGB", (1, 1)), 3, "", 1.0, 1.0, "report.pdf", 9)
    assert page.name == "report.pdf, page 3"


def test_a_page_that_cannot_be_read_is_skipped_when_a_pdf_is_encoded() -> None:
    hidden = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/CropBox[500 500 600 600]>>"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>"
    content = write_pdf(
        [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R 4 0 R 3 0 R]/Count 3>>", page, hidden]
    )
    with ColPali.from_pretrained() as model:
        assert len(list(model.embed_pdf(content, dpi=30, on_error="skip"))) == 2
        with pytest.raises(PdfError, match=r"item 1 \(\d+ bytes, page 2\): cannot be drawn: it has no area"):
            list(model.embed_pdf(content, dpi=30))
        with pytest.raises(PdfError, match="is not a PDF"):
            list(model.embed_pdf(b"text", on_error="skip"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "report"
    os.mkfifo(pipe)
    assert not is_pdf(pipe)
    with pytest.raises(PdfError, match="no PDF at"):
        pdf_page_count(pipe)
    with pytest.raises(InputError):
        PagedDocument(pipe)
