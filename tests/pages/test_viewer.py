"""Pages and their texts are those of a PDF viewer: units, forms, hidden text, missing fonts."""

from __future__ import annotations

import logging
import zlib
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations.errors import PdfError
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.pages.fonts import drawn_scripts
from colpali_integrations.pages.pdf import open_pdf
from colpali_integrations.pdfium import layers
from colpali_integrations.pdfium.names import LAYERS, USER_UNIT, FileNames
from colpali_integrations.pdfium.reader import PdfiumReader
from colpali_integrations.pdfium.text import clean
from tests.pages.test_pdf import DEMO, encrypted, pages, stream, write_pdf

FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"


def page_with(
    drawing: bytes,
    *,
    page: bytes = b"/MediaBox[0 0 200 100]",
    resources: bytes = b"",
    catalogue: bytes = b"",
    font: bytes = FONT,
    more: tuple[bytes, ...] = (),
) -> bytes:
    """A page with the font F1; objects of `more` are numbered from 6."""
    return write_pdf(
        [
            b"<</Type/Catalog/Pages 2 0 R%b>>" % catalogue,
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/Contents 4 0 R%b/Resources<</Font<</F1 5 0 R>>%b>>>>" % (page, resources),
            stream(drawing),
            font,
            *more,
        ]
    )


def write(text: str, x: float = 10, y: float = 40, size: float = 12) -> bytes:
    return b"BT /F1 %g Tf %g %g Td (%b) Tj ET " % (size, x, y, text.encode())


def text_of(content: bytes) -> str:
    with closing(PdfiumReader(content, None)) as reader:
        return reader.text(1).text


# Units


def in_units(unit: bytes, *, side: int = 200, more: tuple[bytes, ...] = ()) -> bytes:
    drawing = b"0 0 0 rg 0 0 %d %d re f" % (side // 10, side // 5)
    return page_with(drawing, page=b"/MediaBox[0 0 %d %d]%b" % (side, side // 2, unit), more=more)


def test_a_page_in_units_of_its_own_is_that_in_points() -> None:
    for unit in (2, 10):
        [here] = pages(in_units(b"/UserUnit %d" % unit), dpi=72)
        [there] = pages(in_units(b"", side=200 * unit), dpi=72)
        assert (here.width, here.height) == (there.width, there.height)
        np.testing.assert_array_equal(np.asarray(here.image), np.asarray(there.image))


@pytest.mark.parametrize(
    ("entry", "unit"),
    [
        (b"/UserUnit 2.5", 2.5),
        (b"/UserUnit 6 0 R", 3),
        (b"/UserUnit 0", 1),
        (b"/UserUnit -2", 1),
        (b"/UserUnit(4)", 1),
        (b"/UserUnit/Four", 1),
        (b"/PieceInfo<</A<</UserUnit 7>>/B(/UserUnit 8 \\( >>)>>", 1),
        (b"/PieceInfo<</A<</UserUnit 7>>>>/UserUnit 4/X<</Y()>>/Z<2f>", 4),
    ],
)
def test_valid_units_alone_are_applied(entry: bytes, unit: float) -> None:
    with closing(PdfiumReader(in_units(entry, more=(b"3",)), None)) as reader:
        assert reader.size(1) == (200 * unit, 100 * unit)


@given(st.floats(0.02, 75_000))
def test_sizes_are_in_points_whatever_the_unit(unit: float) -> None:
    with closing(PdfiumReader(in_units(b"/UserUnit %.6f" % unit), None)) as reader:
        width, height = reader.size(1)
        assert width == pytest.approx(200 * unit, rel=1e-4, abs=1e-4)
        assert height == width / 2


def test_limits_count_in_points(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        [page] = pages(in_units(b"/UserUnit 144"))
    assert "page 1 is 28800 x 14400 points; drawn at 25 dpi" in caplog.text
    assert 49_500_000 < page.image.width * page.image.height < 50_500_000
    with pytest.raises(PdfError, match=r"a page of 20 x 10 points has .* pass another dpi"):
        pages(in_units(b"/UserUnit 0.1"), dpi=5)


def compressed(objects: list[bytes]) -> bytes:
    """A file whose first objects are in a compressed stream of objects (ISO 32000-1, 7.5.7); the last is a stream."""
    offsets, body = [], b""
    for number, one in enumerate(objects[:-1], 1):
        offsets.append(b"%d %d" % (number, len(body)))
        body += one + b" "
    head = b" ".join(offsets) + b" "
    packed, count = zlib.compress(head + body), len(objects)
    content, places = b"%PDF-1.7\n", []
    for number, one in (
        (count, objects[-1]),
        (
            count + 1,
            b"<</Type/ObjStm/N %d/First %d/Filter/FlateDecode/Length %d>>stream\n%b\nendstream"
            % (count - 1, len(head), len(packed), packed),
        ),
    ):
        places.append(len(content))
        content += b"%d 0 obj\n%b\nendobj\n" % (number, one)
    rows = [(0, 0, 255), *((2, count + 1, index) for index in range(count - 1)), *((1, place, 0) for place in places)]
    rows.append((1, len(content), 0))
    table = b"".join(bytes([kind]) + place.to_bytes(2, "big") + bytes([index]) for kind, place, index in rows)
    entries = b"/Type/XRef/W[1 2 1]/Size %d/Root 1 0 R/Length %d" % (len(rows), len(table))
    return content + b"%d 0 obj\n<<%b>>stream\n%b\nendstream\nendobj\nstartxref\n%d\n%%%%EOF\n" % (
        *(count + 2, entries, table),
        len(content),
    )


@pytest.mark.parametrize("unit", [b"/UserUnit 3", b""])
def test_units_in_compressed_objects_are_found(unit: bytes, tmp_path: Path) -> None:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]%b/Contents 4 0 R>>" % unit
    content = compressed(
        [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page, stream(b"0 0 9 9 re f")]
    )
    assert b"UserUnit" not in content
    path = tmp_path / "plan.pdf"
    path.write_bytes(content)
    for source in (content, path):
        assert FileNames(source).may_have(USER_UNIT) is bool(unit)
        assert not FileNames(source).may_have(LAYERS)
        with closing(PdfiumReader(source, None)) as reader:
            assert reader.size(1) == ((600, 300) if unit else (200, 100))


def test_large_files_are_not_searched(tmp_path: Path) -> None:
    path = tmp_path / "large.pdf"
    with path.open("wb") as file:
        file.truncate(2**28 + 1)
    assert FileNames(path).may_have(USER_UNIT)


def test_names_may_be_wherever_they_cannot_be_searched() -> None:
    torn = compressed([b"<</Type/Catalog/Pages 2 0 R>>", b"(a)", stream(b"")]).replace(b"\x78\x9c", b"\x00\x00")
    for content in (torn, torn + b"/Encrypt 9 0 R", b"/ObjStm " * 200):
        assert FileNames(content).may_have(USER_UNIT)
    assert not FileNames(encrypted(user=b"", owner=b"x")).may_have(USER_UNIT)
    bomb = b"/Type/ObjStm>>stream\n" + zlib.compress(bytes(70_000_000), 1)
    assert FileNames(bomb).may_have(USER_UNIT), "no more than 64 MB are unpacked"


# Forms. What is drawn was compared with poppler's drawings of the same files.


APPEARANCE = b"<</Type/XObject/Subtype/Form/BBox[0 0 100 40]/Length 24>>stream\n0 0 0 rg 0 0 100 40 re f\nendstream"
WIDGET = b"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(Ada)/Rect[50 20 150 60]/P 3 0 R/DA(/F1 20 Tf 0 g)%b>>"


@pytest.mark.parametrize("form", [b"", b"/AcroForm<</Fields[]>>", b"/AcroForm<</Fields[6 0 R]>>"])
@pytest.mark.parametrize(
    ("entries", "pixels"),
    [
        (b"/F 4/AP<</N 7 0 R>>", 4000),
        (b"/AP<</N 7 0 R>>", 4000),
        (b"/F 2/AP<</N 7 0 R>>", 0),  # hidden
        (b"/F 32/AP<</N 7 0 R>>", 0),  # not for the screen
        (b"/AS/On/AP<</N<</On 7 0 R>>>>", 4000),
        (b"/AS/Off/AP<</N<</On 7 0 R>>>>", 0),
    ],
)
def test_fields_are_drawn_also_on_pages_that_were_split_off_their_form(
    entries: bytes, pixels: int, form: bytes
) -> None:
    page = b"/MediaBox[0 0 200 100]/Annots[6 0 R]"
    [drawn] = pages(page_with(b"", page=page, catalogue=form, more=(WIDGET % entries, APPEARANCE)), dpi=72)
    assert (np.asarray(drawn.image).min(axis=2) < 200).sum() == pixels


@pytest.mark.parametrize("form", [b"", b"/AcroForm<</Fields[]>>", b"/AcroForm<</Fields[6 0 R]>>"])
@pytest.mark.parametrize(
    ("entries", "text"),
    [(b"", "Name\nAda"), (b"/F 2", "Name"), (b"/F 32", "Name"), (b"/FT/Btn/V/On", "Name")],
)
def test_values_of_fields_follow_the_text(entries: bytes, text: str, form: bytes) -> None:
    page = b"/MediaBox[0 0 200 100]/Annots[6 0 R]"
    drawing = b"BT /F1 12 Tf 10 80 Td (Name) Tj ET"
    widget = WIDGET.replace(b"/FT/Tx/T(name)/V(Ada)", b"/T(name)") if b"/FT" in entries else WIDGET
    [read] = pages(page_with(drawing, page=page, catalogue=form, more=(widget % entries,)))
    assert read.text == text


@pytest.mark.parametrize("form", [b"", b"/AcroForm<</Fields[6 0 R]>>"])
def test_a_password_in_a_field_is_not_read(form: bytes) -> None:
    page = b"/MediaBox[0 0 200 100]/Annots[6 0 R]"
    [read] = pages(page_with(b"", page=page, catalogue=form, more=(WIDGET % b"/Ff 8192",)))
    assert read.text == ""


# Text that no viewer shows


def layered(drawing: bytes, state: bytes = b"/OFF[6 0 R]", page: bytes = b"") -> bytes:
    return page_with(
        drawing,
        page=b"/MediaBox[0 0 200 100]" + page,
        resources=b"/Properties<</L 6 0 R/M 7 0 R>>",
        catalogue=b"/OCProperties<</OCGs[6 0 R 7 0 R]/D<<%b>>>>" % state,
        more=(b"<</Type/OCG/Name(German)>>", b"<</Type/OCG/Name(English)>>"),
    )


def scanned(drawing: bytes) -> bytes:
    """A page that a white picture fills."""
    picture = (
        b"<</Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8/Length 1>>"
        b"stream\n\xff\nendstream"
    )
    image = b"q 200 0 0 100 0 0 cm /I Do Q "
    return page_with(image + drawing, resources=b"/XObject<</I 6 0 R>>", more=(picture,))


CROPPED = b"/MediaBox[0 0 200 100]/CropBox[0 0 90 100]"
SHOWN = write("shown", y=75)
BLACK_BAR, BLACK, WHITE = b"0 g 0 30 200 30 re f ", b"0 g ", b"1 g "
INLINE_PICTURE = b"q 200 0 0 100 0 0 cm BI /W 1/H 1/CS/G/BPC 8 ID \xff EI Q "
GERMAN = b"/OC /L BDC " + write("deutsch") + b"EMC "
HIDDEN = {
    "white on white": page_with(SHOWN + WHITE + write("secret")),
    "nearly white": page_with(SHOWN + b".99 g " + write("secret")),
    "black on black": page_with(SHOWN + BLACK_BAR + write("secret")),
    "covered": page_with(SHOWN + write("secret") + BLACK_BAR),
    "clipped": page_with(SHOWN + b"q 150 0 9 9 re W n " + write("secret") + b"Q"),
    "transparent": page_with(SHOWN + b"/G gs " + write("secret"), resources=b"/ExtGState<</G<</ca 0>>>>"),
    "invisible over nothing": page_with(SHOWN + b"3 Tr " + write("secret")),
    "outside of the crop box": page_with(SHOWN + write("secret", x=150), page=CROPPED),
    "outside of the page": page_with(SHOWN + write("secret", x=-300)),
    "in a hidden layer": layered(SHOWN + GERMAN),
    "in a hidden layer, turned": layered(SHOWN + GERMAN, page=b"/Rotate 270"),
    "in a hidden layer under other text": layered(write("shown") + GERMAN),
    "in one of two layers": layered(b"/OC /M BDC " + write("shown") + b"EMC " + GERMAN),
    "in large units": page_with(
        write("shown", 1, 7, 1) + WHITE + write("secret", 1, 2, 1), page=b"/MediaBox[0 0 20 10]/UserUnit 10"
    ),
}


@pytest.mark.parametrize("content", HIDDEN.values(), ids=HIDDEN)
def test_text_that_is_not_shown_stays_out(content: bytes) -> None:
    assert text_of(content) == "shown"
    with closing(pypdfium2.PdfDocument(content)) as document:  # else the test would show nothing
        assert any(word in document[0].get_textpage().get_text_range() for word in ("secret", "deutsch"))


def test_reading_layers_changes_no_drawing() -> None:
    content = layered(SHOWN + GERMAN + b"/OC /M BDC " + write("english", y=10) + b"EMC ")
    with closing(PdfiumReader(content, None)) as reader:
        before = bytes(reader.draw(1, 72).data)
        assert reader.text(1).text == "shown\nenglish"
        assert bytes(reader.draw(1, 72).data) == before


def test_the_search_for_hidden_layers_ends_after_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three hidden layers under other text, the first is judged at 1.5 s, the others stay."""
    hidden = ("one", "two", "three")
    drawing = b"".join(
        write("WWWWW", x=60 * at) + b"/OC /L%d BDC %bEMC " % (at, write(word, x=60 * at))
        for at, word in enumerate(hidden)
    )
    content = page_with(
        drawing,
        resources=b"/Properties<</L0 6 0 R/L1 7 0 R/L2 8 0 R>>",
        catalogue=b"/OCProperties<</OCGs[6 0 R 7 0 R 8 0 R]/D<</OFF[6 0 R 7 0 R 8 0 R]>>>>",
        more=tuple(b"<</Type/OCG/Name(%b)>>" % word.encode() for word in hidden),
    )
    assert not any(word in text_of(content) for word in hidden)
    clock = iter((0.0, 1.5, 3.0))
    monkeypatch.setattr(layers, "time", SimpleNamespace(process_time=lambda: next(clock)))
    text = text_of(content)
    assert [word in text for word in hidden] == [False, True, True]


VISIBLE = {
    "white on black": page_with(BLACK_BAR + WHITE + write("shown")),
    "colours of one brightness": page_with(b"0 1 0 rg 0 0 200 100 re f 1 .3 0 rg " + write("shown")),
    "pale": page_with(b".9 g " + write("shown", size=6)),
    "tiny": page_with(write("shown", size=0.5)),
    "a full box": page_with(write("-", size=72)),
    "a dot": page_with(write(".")),
    "slanted": page_with(b"BT /F1 12 Tf .7 .7 -.7 .7 50 20 Tm (shown) Tj ET"),
    "at the edge": page_with(write("shown", x=-0.5, y=0)),
    "over a scan": scanned(b"3 Tr " + write("shown")),
    "over a scan with a stamp": scanned(b"3 Tr " + write("shown") + b"0 Tr " + write("stamp", x=60)),
    "in a visible layer": layered(GERMAN, state=b""),
    "over a scan, in a visible layer": layered(INLINE_PICTURE + b"3 Tr " + GERMAN, state=b""),
    "on a tiny page": page_with(write("shown", 0, 0, 0.1), page=b"/MediaBox[0 0 .4 .2]"),
    "on a thin page": page_with(write("shown", 1, 1), page=b"/MediaBox[0 0 1000000 20]"),
    "a stroke": page_with(b"1 Tr " + write("shown")),
}


@pytest.mark.parametrize("content", VISIBLE.values(), ids=VISIBLE)
@pytest.mark.parametrize("turn", [b"", b"/Rotate 90", b"/Rotate 180"])
def test_text_that_is_shown_stays_in(content: bytes, turn: bytes) -> None:
    content = content.replace(b"/Contents", turn + b"/Contents")  # pdfium makes the table of offsets anew
    with closing(pypdfium2.PdfDocument(content)) as document:
        raw = clean(document[0].get_textpage().get_text_range())
    assert raw
    assert text_of(content) == raw


@given(st.lists(st.tuples(st.integers(0, 160), st.booleans()), min_size=1, max_size=6))
def test_each_line_is_judged_by_itself(lines: list[tuple[int, bool]]) -> None:
    drawing = b"".join(
        (BLACK if shown else WHITE) + write(f"line{row}", x=x, y=85 - 16 * row) for row, (x, shown) in enumerate(lines)
    )
    expected = {f"line{row}" for row, (_, shown) in enumerate(lines) if shown}
    assert set(text_of(page_with(drawing)).split()) == expected


def test_a_line_is_cut_where_the_crop_box_ends() -> None:
    content = page_with(write("one two three four five"), page=b"/MediaBox[0 0 200 100]/CropBox[0 0 55 100]")
    assert text_of(content) == "one two"


def test_accents_that_are_drawn_apart_are_read_with_their_letters() -> None:
    font = FONT[:-2] + b"/Encoding<</Differences[1/acute/circumflex/dieresis/cedilla/dotlessi 96/grave]>>>>"
    drawing = write("r\x01esistance parall`ele m\x02eme", y=60) + write("Gr\x03oe fa\x04con na\x03\x05ve a `list`")
    text = "résistance parallèle même\nGröe façon naïve a `list`"
    assert text_of(page_with(drawing, font=font)) == text
    hidden = b"1 g " + write("white", y=10)
    assert text_of(page_with(drawing + hidden, font=font)) == text


@pytest.mark.parametrize("name", ["dd-form-293", "freedoom-manual", "hcl-colors", "metropolis-slides"])
def test_no_text_of_real_documents_is_lost(name: str) -> None:
    path = DEMO / f"{name}.pdf"
    with closing(PdfiumReader(path, None)) as reader, closing(pypdfium2.PdfDocument(path)) as document:
        for number in range(1, min(reader.page_count, 6) + 1):
            text, missing, _ = reader.text(number)
            assert text.startswith(clean(document[number - 1].get_textpage().get_text_range()))
            assert not missing


# Fonts


def without_font(text: str, name: bytes = b"Absent") -> bytes:
    """A page whose font is not in the file. On no system pdfium replaces a font without a collection of characters."""
    codes = "".join(f"{ord(one):04x}" for one in text).encode()
    mapping = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap 1 begincodespacerange <0000> <FFFF> "
        b"endcodespacerange 1 beginbfrange <0000> <FFFF> <0000> endbfrange endcmap end end"
    )
    font = b"<</Type/Font/Subtype/Type0/BaseFont/%b/Encoding/Identity-H/DescendantFonts[6 0 R]/ToUnicode 7 0 R>>" % name
    descendant = b"<</Type/Font/Subtype/CIDFontType2/BaseFont/%b/DW 1000/CIDSystemInfo<</Registry(Adobe)" % name
    return page_with(
        b"BT /F1 20 Tf 10 40 Td <%b> Tj ET" % codes,
        font=font,
        more=(descendant + b"/Ordering(Identity)/Supplement 0>>>>", stream(mapping)),
    )


HINDI = without_font("हिन्दी")


def test_a_missing_font_is_named_and_the_text_stays(caplog: pytest.LogCaptureFixture) -> None:
    for isolate in (True, False):
        caplog.clear()
        with closing(open_pdf(HINDI, isolate=isolate)) as pdf, caplog.at_level(logging.WARNING):
            assert pdf.text(1) == "हिन्दी"
            assert pdf.missing_fonts(1) == ("Absent",)
            assert pdf.render(1, 72).getextrema() == ((255, 255),) * 3, "the page is blank"
        [record] = caplog.records
        assert "page 1: not drawn are characters of Absent" in record.getMessage()
    with PagedDocument(HINDI, name="poem.pdf") as document:
        [page] = document.pages()
        assert page.content == "हिन्दी"
        assert document.missing_fonts == {1: ("Absent",)}
    assert "poem.pdf, page 1: not drawn are characters of Absent" in caplog.text


@pytest.mark.parametrize("text", ["ab рус c", "Łódź", "日本", "ไทย", "ελλη"])
def test_letters_between_others_that_are_drawn_are_noticed(text: str) -> None:
    with closing(PdfiumReader(without_font(text), None)) as reader:
        assert reader.text(1) == (text, ("Absent",), True)


@pytest.mark.parametrize("text", ["latin", "\u00e9 \u2013 \u201cq\u201d"])
def test_fonts_of_western_languages_are_never_missing(text: str) -> None:
    with closing(PdfiumReader(without_font(text), None)) as reader:
        assert reader.text(1) == (text, (), True)


def test_names_of_fonts_cannot_break_a_log() -> None:
    with closing(open_pdf(without_font("हिन्दी", b"A#1b#0aB"))) as pdf:
        assert pdf.missing_fonts(1) == ("AB",)


def test_scripts_are_told_as_they_are_drawn() -> None:
    """`drawn_scripts` agrees with a drawing: pdfium takes the system's fonts for these scripts, if there are any."""
    font = b"<</Type/Font/Subtype/Type0/BaseFont/Ryumin-Light/Encoding/UniJIS-UCS2-H/DescendantFonts[6 0 R]>>"
    system = b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Japan1)/Supplement 2>>"
    descendant = b"<</Type/Font/Subtype/CIDFontType0/BaseFont/Ryumin-Light/DW 1000%b>>" % system
    [page] = pages(page_with(b"BT /F1 20 Tf 10 40 Td <65e5672c> Tj ET", font=font, more=(descendant,)), dpi=72)
    assert page.text == "日本"
    assert drawn_scripts()["Japanese"] is bool(np.asarray(page.image).min() < 128)
