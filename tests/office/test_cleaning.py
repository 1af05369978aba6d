"""What is left of documents before LibreOffice opens them."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import pytest

from colpali_integrations.errors import OfficeError
from colpali_integrations.office.cleaning import cleaned
from colpali_integrations.office.formats import format_of
from colpali_integrations.office.notes import slide_notes
from colpali_integrations.office.rtf import cleaned_rtf
from colpali_integrations.office.web_pages import cleaned_html
from tests.office.documents import (
    VECTORS,
    Canaries,
    Slide,
    cell,
    docx,
    field,
    odp,
    ods,
    odt,
    paragraph,
    pptx,
    relationships,
    rewritten_part,
    row,
    shape,
    xlsx,
    zipped,
)

PLACES = Canaries(
    Path("/private/canary.txt"), Path("/private/canary.png"), Path("/private/canary.xlsx"), "http://canary"
)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def everything(content: bytes) -> str:
    """All texts of a document, decompressed."""
    if not content.startswith(b"PK"):
        return content.decode("latin-1")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return "\n".join(f"{name}: {archive.read(name).decode('latin-1')}" for name in archive.namelist())


@pytest.mark.parametrize("name", VECTORS)
def test_no_reference_is_left(name: str) -> None:
    suffix, make = VECTORS[name]
    document = make(PLACES)
    assert re.search(r"canary|127\.0\.0\.1", everything(document)), "the document has a reference"
    left = everything(cleaned(document, suffix).content)
    assert not re.search(r"canary|127\.0\.0\.1", left)
    assert "tides" in left or "tides" not in everything(document)


@pytest.mark.parametrize(
    ("pieces", "is_kept"),
    [
        ((r" PAGE  \* MERGEFORMAT ",), True),
        (("NUM", "PAGES"), True),
        (("PAGE INCLUDETEXT x",), False),
        (("INCLU", "DETEXT x"), False),
        (("DATE",), False),
    ],
)
def test_of_fields_those_of_page_numbers_stay(pieces: tuple[str, ...], is_kept: bool) -> None:
    left = rewritten_part(cleaned(docx(field(*pieces)), ".docx").content, "word/document.xml")
    assert ("".join(re.findall(r"<w:instrText[^>]*>([^<]*)<", left)) == "".join(pieces)) is is_kept
    assert "cached" in left


@pytest.mark.parametrize(
    "body",
    [
        '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText>INCLUDETEXT x</w:instrText></w:r>',
        "<w:r><w:instrText>INCLUDETEXT x</w:instrText></w:r>",
        "<w:r><w:instrText><w:b/>INCLUDETEXT x</w:instrText></w:r>",
        '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:delInstrText>PAGE </w:delInstrText></w:r>'
        '<w:r><w:instrText>INCLUDETEXT x</w:instrText></w:r><w:r><w:fldChar w:fldCharType="end"/></w:r>',
        '<w:fldSimple w:instr="INCLUDETEXT x"/>',
    ],
)
def test_a_field_that_is_written_otherwise_goes_too(body: str) -> None:
    document = docx(f"<w:p>{body}</w:p>")
    assert "INCLUDETEXT" not in everything(cleaned(document, ".docx").content)


def test_a_cell_shows_its_stored_value_in_the_place_of_its_formula() -> None:
    cells = row(cell("A1", "7", "1+1"), cell("B1", "", "SUM(A1:A1)"), cell("C1", "", 'WEBSERVICE("x")'))
    left = rewritten_part(cleaned(xlsx({"one": cells}), ".xlsx").content, "xl/worksheets/sheet1.xml")
    assert re.findall(r"<f>([^<]*)</f>", left) == ["SUM(A1:A1)"]
    assert "<v>7</v>" in left
    table = '<table:table table:name="one"><table:table-row><table:table-cell table:formula="of:=1+1" {0}/>'
    stored = table.format('office:value-type="float" office:value="7"') + "</table:table-row></table:table>"
    assert "of:=" not in everything(cleaned(ods(stored), ".ods").content)
    assert "of:=1+1" in everything(cleaned(ods(stored.replace('office:value-type="float"', "")), ".ods").content)


def test_programs_objects_and_fonts_are_left_out_and_pictures_stay() -> None:
    document = docx(
        paragraph("tides"),
        ("p", "image", "media/p.png", False),
        ("o", "oleObject", "embeddings/o.bin", False),
        ("v", "vbaProject", "vbaProject.bin", False),
        word__media__p_dot_png=PNG,
        word__media__program_dot_eps=b"%!PS-Adobe-3.0 EPSF-3.0",
        word__embeddings__o_dot_bin=b"\xd0\xcf\x11\xe0" + bytes(600),
        word__vbaProject_dot_bin=b"\xd0\xcf\x11\xe0" + bytes(600),
        word__embeddings__inner_dot_docx=docx(paragraph("inner")),
    )
    left = cleaned(document, ".docx").content
    with zipfile.ZipFile(io.BytesIO(left)) as archive:
        names = archive.namelist()
        assert archive.read("word/media/p.png") == PNG
    assert not [name for name in names if name.endswith((".bin", ".eps", ".docx"))]
    relations = rewritten_part(left, "word/_rels/document.xml.rels")
    assert re.findall(r'Id="(\w+)"', relations) == ["p"]


def test_prefixes_and_namespaces_stay_as_they_are() -> None:
    attribute = 'mc:Ignorable="w14" xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    document = docx(f"<w:p {attribute}><w:r><w:t>a &lt; b &amp; c</w:t></w:r></w:p>")
    assert f"<w:p {attribute}><w:r><w:t>a &lt; b &amp; c</w:t></w:r></w:p>" in everything(
        cleaned(document, ".docx").content
    )


def test_vector_pictures_keep_what_they_show() -> None:
    svg = b"""<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"><script>f()</script>
    <image xlink:href="http://canary/x"/><use xlink:href="#a"/><rect fill="url(#g)" style="fill:url(http://canary)"/></svg>"""
    left = everything(cleaned(odt("<text:p>tides</text:p>", Pictures__a_dot_svg=svg), ".odt").content)
    assert "canary" not in left
    assert "script>" not in left
    assert 'xlink:href="#a"' in left
    assert 'fill="url(#g)"' in left


def test_a_comment_does_not_make_another_part_a_picture() -> None:
    text = rewritten_part(docx(field("INCLUDETEXT canary")), "word/document.xml")
    links = relationships(("a", "image", "../../canary.png", True))
    hidden = [part.replace("?>", "?><!-- <svg > --><?a <svg >?>", 1) for part in (text, links)]
    document = docx("", word__document_dot_xml=hidden[0], word___rels__document_dot_xml_dot_rels=hidden[1])
    assert everything(document).count("<svg >") == 4
    assert "canary" not in everything(cleaned(document, ".docx").content)


@pytest.mark.parametrize(
    "formats",
    [
        '<cfvo type="formula" val="WEBSERVICE(canary)"/>',
        "<f>INDIRECT<f/>(A1)</f>",
        "<formula>INDIRECT<x/>(canary)</formula>",
        "<formula1><f>INDIRECT(canary)</f></formula1>",
    ],
)
def test_formulas_are_judged_wherever_they_stand(formats: str) -> None:
    left = everything(cleaned(xlsx({"one": row(f'<c r="A1">{formats}</c>')}), ".xlsx").content)
    assert not re.search("WEBSERVICE|INDIRECT", left)


def test_places_in_opendocument_that_are_no_links_are_left_out() -> None:
    body = (
        '<calcext:condition calcext:value="formula-is(INDIRECT(canary))"/><form:image form:image-data="/canary.png"/>'
        '<calcext:formatting-entry calcext:value="WEBSERVICE(canary)"/><c:config-item c:name="MacroURL">canary'
        "</c:config-item><xforms:instance src='../canary'/><calcext:condition calcext:value='&gt;7'/>"
    )
    left = everything(cleaned(odt(body), ".odt").content)
    assert "canary" not in left
    assert 'calcext:value="&gt;7"' in left


def test_macros_and_events_of_opendocument_are_left_out() -> None:
    body = (
        '<office:event-listeners><script:event-listener script:event-name="dom:load" '
        'xlink:href="vnd.sun.star.script:A.B"/>'
        "</office:event-listeners><text:p>tides</text:p>"
    )
    left = cleaned(odt(body, Basic__Standard__A_dot_xml="<a>Shell</a>", Scripts__python__a_dot_py="import os"), ".odt")
    assert not re.search("event-listener|Basic/|Scripts/|vnd.sun", everything(left.content))


@pytest.mark.parametrize(
    ("rtf", "left"),
    [
        (rb"{\rtf1{\field{\*\fldinst PAGE }{\fldrslt 1}}}", rb"{\rtf1{\field{\*\fldinst PAGE}{\fldrslt 1}}}"),
        (
            rb"{\rtf1{\field{\*\fldinst {\'49NCLUDE}{TEXT x}}{\fldrslt 1}}}",
            rb"{\rtf1{\field{\*\fldinst }{\fldrslt 1}}}",
        ),
        (rb"{\rtf1 a{\field{\*\fldinst INCLUDETEXT x", rb"{\rtf1 a{\field{\*\fldinst }}}"),
        (rb"{\rtf1 a{\object\objautlink{\*\objdata 01}{\result b}}}", rb"{\rtf1 a{\object{\result b}}}"),
        (rb"{\rtf1 a{\b\template x}b}c{\template}", rb"{\rtf1 ab}"),
        (rb"{\rtf1{\sp{\sn pibName}{\sv c}}{\sp{\sn fFilled}{\sv 0}}}", rb"{\rtf1{\sp{\sn fFilled}{\sv 0}}}"),
        (rb"{\rtf1{\pict\pngblip 89504e470d0a1a0a}}", rb"{\rtf1{\pict\pngblip 89504e470d0a1a0a}}"),
        (rb"{\rtf1{\pict\pngblip 2521505321}}", rb"{\rtf1}"),
        (rb"{\rtf1{\pict\pngblip\bin5 %!PS}}", rb"{\rtf1}"),
        (b"{\\rtf1{\\pict\\pngblip\\bin8 \x89PNG\r\n\x1a\n}}", rb"{\rtf1{\pict\pngblip 89504e470d0a1a0a}}"),
        (rb"{\rtf1{\*\a\bin9999999999 }{\field{\*\fldinst INCLUDETEXT x}}}", rb"{\rtf1{\*\a}}"),
        (rb"{\rtf1{\*\a\bin40 }{\field{\*\fldinst INCLUDETEXT x}}}}}}}", rb"{\rtf1{\*\a}}"),
        (rb"{\rtf1{\field{\sp\fldinst INCLUDETEXT x}{\fldrslt 1}}}", rb"{\rtf1{\field{\fldrslt 1}}}"),
        (rb"{\rtf1{\pict\pngblip{\a 89504e470d0a1a0a}3c737667}}", rb"{\rtf1}"),
        (
            rb"{\rtf1{\pict{\*\picprop{\sp{\sn a}{\sv 1}}}\pngblip{\*\blipuid 0a1b}89504e470d0a1a0a}}",
            rb"{\rtf1{\pict{\*\picprop{\sp{\sn a}{\sv 1}}}\pngblip{\*\blipuid }89504e470d0a1a0a}}",
        ),
        (rb"{\rtf1 \{\\\'e9\u233?}", rb"{\rtf1 \{\\\'e9\u233?}"),
    ],
)
def test_of_rtf_the_text_stays(rtf: bytes, left: bytes) -> None:
    assert cleaned_rtf(rtf) == left


def test_of_html_the_text_stays() -> None:
    page = "<title>T</title><h1 onclick=f()>Tides &amp; winds</h1><p style='color:red'>low<br>tide<script>f()</script>"
    left = cleaned_html(page.encode()).decode()
    assert left.endswith(
        '<body><title>T</title><h1>Tides &amp; winds</h1><p style="color:red">low<br>tide</body></html>'
    )
    assert "Möwe" in cleaned_html("<meta charset=iso-8859-1><p>Möwe".encode("iso-8859-1")).decode()
    data = "data:image/png;base64,iVBORw0KGgoAAAA="
    assert data in cleaned_html(f"<img src='{data}'>".encode()).decode()
    assert "src" not in cleaned_html(b"<img src='data:image/svg+xml;base64,PHN2Zz4='>").decode()


def test_notes_of_slides_that_are_shown() -> None:
    slides = Slide(shape("a"), "low tide\nat six"), Slide(shape("b"), "hidden", hidden=True), Slide(shape("c"))
    assert cleaned(pptx(*slides), ".pptx").notes == ["low tide\nat six", ""]
    boxes = Slide(shape("a"), "low tide", box="at six"), Slide(shape("b"), box="only a box")
    assert cleaned(pptx(*boxes), ".pptx").notes == ["low tide\nat six", "only a box"]
    notes = (
        '<presentation:notes><draw:frame presentation:class="notes"><draw:text-box><text:p>six</text:p></draw:text-box>'
    )
    notes += (
        '</draw:frame><draw:frame presentation:class="page-number"><text:p>7</text:p></draw:frame></presentation:notes>'
    )
    box = "<draw:frame><draw:text-box><text:p>in a box</text:p></draw:text-box></draw:frame></presentation:notes>"
    boxed = f'<draw:page draw:name="a">{notes.replace("</presentation:notes>", box)}</draw:page>'
    assert cleaned(odp(boxed), ".odp").notes == ["six\nin a box"]
    hidden = '<style:style style:name="h" style:family="drawing-page"><style:drawing-page-properties '
    hidden += 'presentation:visibility="hidden"/></style:style>'
    pages = f'<draw:page draw:name="a">{notes}</draw:page><draw:page draw:style-name="h"/><draw:page draw:name="b"/>'
    assert cleaned(odp(pages, hidden), ".odp").notes == ["six", ""]
    assert slide_notes(zipped({"a": "b"}), ".pptx") == []
    assert slide_notes(zipped({"_rels/.rels": relationships()}), ".pptx") == []


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        (b"PK\x03\x04 low tide", ".docx", "is no DOCX file, or is damaged or cut off"),
        (docx(paragraph("tides"))[:-30], ".docx", "is no DOCX file, or is damaged or cut off"),
        (b"<html><p>Tides", ".doc", "is an HTML page under another name; rename it to end in .html"),
        (zipped({"a.txt": "tides"}), "", "is no Office file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage\0".encode("utf-16-le"), ".docx", "is encrypted"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".doc", "is no DOC file"),
        (docx("<w:p>" * 600 + "</w:p>" * 600), ".docx", "more than 500 levels"),
        (docx("<w:p>"), ".docx", r"is damaged: .* \(in word/document.xml\)"),
        (docx(paragraph("a"), word__a_dot_xml="<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"), ".docx", "XML entities"),
    ],
)
def test_documents_that_are_refused(content: bytes, suffix: str, message: str) -> None:
    with pytest.raises(OfficeError, match=message):
        cleaned(content, suffix)


def test_an_encrypted_opendocument_is_refused() -> None:
    manifest = '<a xmlns:m="m"><m:file-entry><m:encryption-data/></m:file-entry></a>'
    document = zipped(
        {"mimetype": "application/vnd.oasis.opendocument.text", "META-INF/manifest.xml": manifest, "content.xml": "?"}
    )
    with pytest.raises(OfficeError, match="is encrypted"):
        cleaned(document, ".odt")


def test_a_zip_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colpali_integrations.office.zips.MOST_BYTES", 100_000)
    bomb = docx(paragraph("tides"), word__media__a_dot_png=PNG + bytes(200_000))
    assert len(bomb) < 10_000
    with pytest.raises(OfficeError, match="has more than 0 MB once it is decompressed"):
        cleaned(bomb, ".docx")
    monkeypatch.setattr("colpali_integrations.office.zips.MOST_PARTS", 3)
    with pytest.raises(OfficeError, match=r"has \d+ parts; 3 are allowed"):
        cleaned(bomb, ".docx")


def test_the_content_tells_the_format() -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    both = ole + "WordDocument\0Workbook\0".encode("utf-16-le")
    formats = [
        format_of(docx(""), ".doc"),
        format_of(rb"{\rtf1}", ".doc"),
        format_of(both, ".xls"),
        format_of(both, ""),
        format_of(b"<p>", ".html"),
    ]
    assert [one.suffix for one in formats if one] == [".docx", ".rtf", ".xls", ".doc", ".html"]
    assert [
        format_of(b"<p>", ""),
        format_of(b"", ".docx"),
        format_of(zipped({"mimetype": "application/epub+zip"}), ""),
    ] == [
        None,
        None,
        None,
    ]
