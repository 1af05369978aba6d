"""Office files made of few parts, and the ways in which one may refer to another file or to an address."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "VECTORS",
    "Canaries",
    "docx",
    "odp",
    "ods",
    "odt",
    "pptx",
    "relationships",
    "rewritten_part",
    "xlsx",
    "zipped",
]

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
A = "http://schemas.openxmlformats.org/drawingml/2006/main"
P = "http://schemas.openxmlformats.org/presentationml/2006/main"
S = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_EXTERNAL = ' TargetMode="External"'
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMES = (
    f'xmlns:w="{W}" xmlns:r="{OFFICE}" xmlns:a="{A}" xmlns:v="urn:schemas-microsoft-com:vml" '
    'xmlns:o="urn:schemas-microsoft-com:office:office" '
    'xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture" '
    'xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing"'
)
ODF = "urn:oasis:names:tc:opendocument:xmlns"
_ODF_NAMES = " ".join(
    [
        *(
            f'xmlns:{name}="{ODF}:{name}:1.0"'
            for name in ("office", "text", "table", "presentation", "script", "config")
        ),
        *(f'xmlns:style="{ODF}:style:1.0"', f'xmlns:draw="{ODF}:drawing:1.0"', f'xmlns:meta="{ODF}:meta:1.0"'),
        *(f'xmlns:svg="{ODF}:svg-compatible:1.0"', 'xmlns:xlink="http://www.w3.org/1999/xlink"'),
        *(f'xmlns:fo="{ODF}:xsl-fo-compatible:1.0"', 'xmlns:of="urn:oasis:names:tc:opendocument:xmlns:of:1.2"'),
        'xmlns:ooo="http://openoffice.org/2004/office" xmlns:dom="http://www.w3.org/2001/xml-events"',
    ]
)


@dataclass(frozen=True)
class Canaries:
    """What a document may try to reach.

    Attributes:
        text: a file with the secret text.
        picture: a picture in magenta.
        sheet: a spreadsheet with the secret text in its first cell.
        url: an address of a listening server on this machine.
    """

    text: Path
    picture: Path
    sheet: Path
    url: str


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else None)
    return file.getvalue()


def rewritten_part(content: bytes, name: str) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(name).decode("utf-8") if name in archive.namelist() else ""


def relationships(*targets: tuple[str, str, str, bool]) -> str:
    """Relationships of id, kind, target, and whether the target is external."""
    rows = (
        f'<Relationship Id="{id_}" Type="{OFFICE}/{kind}" Target="{target}"{_EXTERNAL if out else ""}/>'
        for id_, kind, target, out in targets
    )
    return f'{_HEAD}<Relationships xmlns="{PACKAGE}/relationships">{"".join(rows)}</Relationships>'


def _types(main: str, kind: str, further: Mapping[str, str] = {}) -> str:
    overrides = {f"/{main}": f"application/vnd.openxmlformats-officedocument.{kind}.main+xml", **further}
    rows = "".join(f'<Override PartName="{part}" ContentType="{type_}"/>' for part, type_ in overrides.items())
    defaults = {"rels": "application/vnd.openxmlformats-package.relationships+xml", "xml": "application/xml"}
    defaults |= {"png": "image/png", "html": "text/html"}
    rows += "".join(f'<Default Extension="{name}" ContentType="{type_}"/>' for name, type_ in defaults.items())
    return f'{_HEAD}<Types xmlns="{PACKAGE}/content-types">{rows}</Types>'


def docx(body: str, *targets: tuple[str, str, str, bool], **parts: str | bytes) -> bytes:
    """A text of a few paragraphs, given as the XML of its body."""
    document = f"{_HEAD}<w:document {_NAMES}><w:body>{body}<w:sectPr/></w:body></w:document>"
    given = {name.replace("__", "/").replace("_dot_", "."): content for name, content in parts.items()}
    return zipped(
        {
            "[Content_Types].xml": _types("word/document.xml", "wordprocessingml.document"),
            "_rels/.rels": relationships(("rId1", "officeDocument", "word/document.xml", False)),
            "word/document.xml": document,
            "word/_rels/document.xml.rels": relationships(*targets),
            **given,
        }
    )


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def field(*instruction: str, result: str = "cached") -> str:
    """A field of a text, whose instruction is cut into pieces."""
    pieces = "".join(f'<w:r><w:instrText xml:space="preserve">{one}</w:instrText></w:r>' for one in instruction)
    begin, separate, end = (f'<w:r><w:fldChar w:fldCharType="{kind}"/></w:r>' for kind in ("begin", "separate", "end"))
    return f"<w:p>{begin}{pieces}{separate}<w:r><w:t>{result}</w:t></w:r>{end}</w:p>"


def xlsx(sheets: Mapping[str, str], *targets: tuple[str, str, str, bool], **parts: str | bytes) -> bytes:
    """A workbook of sheets, given as the XML of their rows."""
    names = list(sheets)
    links = [(f"s{number}", "worksheet", f"worksheets/sheet{number}.xml", False) for number in range(1, len(names) + 1)]
    rows = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="s{n}"/>' for n, name in enumerate(names, 1))
    outside = "".join(f'<externalReference r:id="{id_}"/>' for id_, kind, _, _ in targets if kind == "externalLink")
    outside = f"<externalReferences>{outside}</externalReferences>" if outside else ""
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml."
    further = {f"/xl/worksheets/sheet{n}.xml": f"{kind}worksheet+xml" for n in range(1, len(names) + 1)}
    if outside:
        further["/xl/externalLinks/externalLink1.xml"] = f"{kind}externalLink+xml"
    return zipped(
        {
            "[Content_Types].xml": _types("xl/workbook.xml", "spreadsheetml.sheet", further),
            "_rels/.rels": relationships(("rId1", "officeDocument", "xl/workbook.xml", False)),
            "xl/workbook.xml": (
                f'{_HEAD}<workbook xmlns="{S}" xmlns:r="{OFFICE}"><sheets>{rows}</sheets>{outside}</workbook>'
            ),
            "xl/_rels/workbook.xml.rels": relationships(*links, *targets),
            **{
                f"xl/worksheets/sheet{n}.xml": (
                    f'{_HEAD}<worksheet xmlns="{S}"><sheetData>{sheet}</sheetData></worksheet>'
                )
                for n, sheet in enumerate(sheets.values(), 1)
            },
            **{name.replace("__", "/").replace("_dot_", "."): content for name, content in parts.items()},
        }
    )


def row(*cells: str, number: int = 1) -> str:
    return f'<row r="{number}">{"".join(cells)}</row>'


def cell(place: str, text: str = "", formula: str = "") -> str:
    shown = f"<f>{formula}</f>" if formula else ""
    return f'<c r="{place}" t="str">{shown}{f"<v>{text}</v>" if text else ""}</c>'


_LAYOUT_NAMES = f'xmlns:a="{A}" xmlns:r="{OFFICE}" xmlns:p="{P}"'
_TREE = (
    '<p:cSld><p:spTree><p:nvGrpSpPr><p:cNvPr id="1" name=""/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>'
    "{shapes}</p:spTree></p:cSld>"
)


def shape(text: str, place: str = "", number: int = 2) -> str:
    lines = "".join(f"<a:p><a:r><a:t>{line}</a:t></a:r></a:p>" for line in text.split("\n"))
    frame = '<a:xfrm><a:off x="457200" y="457200"/><a:ext cx="7315200" cy="914400"/></a:xfrm>'
    return (
        f'<p:sp><p:nvSpPr><p:cNvPr id="{number}" name="s"/><p:cNvSpPr/><p:nvPr>{place}</p:nvPr></p:nvSpPr>'
        f'<p:spPr>{frame}<a:prstGeom prst="rect"/></p:spPr><p:txBody><a:bodyPr/>{lines}</p:txBody></p:sp>'
    )


@dataclass(frozen=True)
class Slide:
    """A slide of `pptx`: the XML of its shapes, its notes, whether it is hidden, its further relationships, and a text.

    The text is that of a box on its page of notes.
    """

    shapes: str
    notes: str = ""
    hidden: bool = False
    targets: tuple[tuple[str, str, str, bool], ...] = ()
    box: str = ""


def pptx(*slides: Slide, **parts: str | bytes) -> bytes:
    kind = "application/vnd.openxmlformats-officedocument.presentationml."
    files: dict[str, str | bytes] = {}
    further = {
        "/ppt/slideMasters/slideMaster1.xml": f"{kind}slideMaster+xml",
        "/ppt/slideLayouts/slideLayout1.xml": f"{kind}slideLayout+xml",
    }
    for number, slide in enumerate(slides, 1):
        further[f"/ppt/slides/slide{number}.xml"] = f"{kind}slide+xml"
        show = ' show="0"' if slide.hidden else ""
        files[f"ppt/slides/slide{number}.xml"] = (
            f"{_HEAD}<p:sld {_LAYOUT_NAMES}{show}>{_TREE.format(shapes=slide.shapes)}</p:sld>"
        )
        links = [("l", "slideLayout", "../slideLayouts/slideLayout1.xml", False), *slide.targets]
        if slide.notes or slide.box:
            place = f"notesSlides/notesSlide{number}.xml"
            further[f"/ppt/{place}"] = f"{kind}notesSlide+xml"
            shapes = shape(slide.notes, '<p:ph type="body" idx="1"/>') + shape("7", '<p:ph type="sldNum" idx="2"/>', 3)
            shapes += shape(slide.box, number=4) if slide.box else ""
            files[f"ppt/{place}"] = f"{_HEAD}<p:notes {_LAYOUT_NAMES}>{_TREE.format(shapes=shapes)}</p:notes>"
            files[f"ppt/notesSlides/_rels/notesSlide{number}.xml.rels"] = relationships(
                ("s", "slide", f"../slides/slide{number}.xml", False)
            )
            links.append(("n", "notesSlide", f"../{place}", False))
        files[f"ppt/slides/_rels/slide{number}.xml.rels"] = relationships(*links)
    numbers = range(1, len(slides) + 1)
    ids = "".join(f'<p:sldId id="{255 + n}" r:id="p{n}"/>' for n in numbers)
    targets = [("m", "slideMaster", "slideMasters/slideMaster1.xml", False)]
    targets += [(f"p{n}", "slide", f"slides/slide{n}.xml", False) for n in numbers]
    colours = " ".join(
        f'{name}="{value}"'
        for name, value in {
            **{"bg1": "lt1", "tx1": "dk1", "bg2": "lt2", "tx2": "dk2", "hlink": "hlink", "folHlink": "folHlink"},
            **{f"accent{n}": f"accent{n}" for n in range(1, 7)},
        }.items()
    )
    return zipped(
        {
            "[Content_Types].xml": _types("ppt/presentation.xml", "presentationml.presentation", further),
            "_rels/.rels": relationships(("rId1", "officeDocument", "ppt/presentation.xml", False)),
            "ppt/presentation.xml": (
                f'{_HEAD}<p:presentation {_LAYOUT_NAMES}><p:sldMasterIdLst><p:sldMasterId id="2147483648" r:id="m"/>'
                f'</p:sldMasterIdLst><p:sldIdLst>{ids}</p:sldIdLst><p:sldSz cx="9144000" cy="6858000"/>'
                '<p:notesSz cx="6858000" cy="9144000"/></p:presentation>'
            ),
            "ppt/_rels/presentation.xml.rels": relationships(*targets),
            "ppt/slideMasters/slideMaster1.xml": (
                f"{_HEAD}<p:sldMaster {_LAYOUT_NAMES}>{_TREE.format(shapes='')}<p:clrMap {colours}/>"
                '<p:sldLayoutIdLst><p:sldLayoutId id="2147483649" r:id="y"/></p:sldLayoutIdLst></p:sldMaster>'
            ),
            "ppt/slideMasters/_rels/slideMaster1.xml.rels": relationships(
                ("y", "slideLayout", "../slideLayouts/slideLayout1.xml", False)
            ),
            "ppt/slideLayouts/slideLayout1.xml": (
                f'{_HEAD}<p:sldLayout {_LAYOUT_NAMES} type="blank">{_TREE.format(shapes="")}</p:sldLayout>'
            ),
            "ppt/slideLayouts/_rels/slideLayout1.xml.rels": relationships(
                ("m", "slideMaster", "../slideMasters/slideMaster1.xml", False)
            ),
            **files,
            **{name.replace("__", "/").replace("_dot_", "."): content for name, content in parts.items()},
        }
    )


def _odf(kind: str, body: str, styles: str, **parts: str | bytes) -> bytes:
    media = f"application/vnd.oasis.opendocument.{kind}"
    manifest = (
        f'{_HEAD}<manifest:manifest xmlns:manifest="{ODF}:manifest:1.0" manifest:version="1.3">'
        f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{media}"/>'
        '<manifest:file-entry manifest:full-path="content.xml" manifest:media-type="text/xml"/></manifest:manifest>'
    )
    element = {"text": "text", "spreadsheet": "spreadsheet", "presentation": "presentation"}[kind]
    content = (
        f'{_HEAD}<office:document-content {_ODF_NAMES} office:version="1.3">'
        f"<office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:{element}>{body}</office:{element}></office:body></office:document-content>"
    )
    given = {name.replace("__", "/").replace("_dot_", "."): part for name, part in parts.items()}
    return zipped({"mimetype": media, "META-INF/manifest.xml": manifest, "content.xml": content, **given})


def odt(body: str, **parts: str | bytes) -> bytes:
    return _odf("text", body, "", **parts)


def ods(body: str, **parts: str | bytes) -> bytes:
    return _odf("spreadsheet", body, "", **parts)


def odp(body: str, styles: str = "", **parts: str | bytes) -> bytes:
    return _odf("presentation", body, styles, **parts)


def _picture(link: str) -> str:
    """A picture in a text, by a relationship of its own or of another kind."""
    return (
        '<w:p><w:r><w:drawing><wp:inline><wp:extent cx="1800000" cy="1800000"/><wp:docPr id="1" name="p"/><a:graphic>'
        '<a:graphicData uri="http://schemas.openxmlformats.org/drawingml/2006/picture"><pic:pic><pic:nvPicPr>'
        f'<pic:cNvPr id="1" name="p"/><pic:cNvPicPr/></pic:nvPicPr><pic:blipFill><a:blip r:link="{link}"/><a:stretch>'
        '<a:fillRect/></a:stretch></pic:blipFill><pic:spPr><a:xfrm><a:off x="0" y="0"/>'
        '<a:ext cx="1800000" cy="1800000"/></a:xfrm><a:prstGeom prst="rect"/></pic:spPr></pic:pic></a:graphicData>'
        "</a:graphic></wp:inline></w:drawing></w:r></w:p>"
    )


def _slide_picture(link: str) -> str:
    return (
        f'<p:pic><p:nvPicPr><p:cNvPr id="4" name="p"/><p:cNvPicPr/><p:nvPr/></p:nvPicPr><p:blipFill>'
        f'<a:blip r:link="{link}"/><a:stretch><a:fillRect/></a:stretch></p:blipFill><p:spPr><a:xfrm>'
        '<a:off x="457200" y="2000000"/><a:ext cx="1800000" cy="1800000"/></a:xfrm>'
        '<a:prstGeom prst="rect"/></p:spPr></p:pic>'
    )


def _frame(inside: str) -> str:
    """A frame of OpenDocument in a paragraph."""
    place = 'svg:x="1cm" svg:y="1cm" svg:width="5cm" svg:height="5cm" text:anchor-type="paragraph"'
    return f"<text:p>tides<draw:frame {place}>{inside}</draw:frame></text:p>"


def _linked(href: str, name: str = "draw:image") -> str:
    return f'<{name} xlink:href="{href}" xlink:type="simple" xlink:show="embed" xlink:actuate="onLoad"/>'


def _page(inside: str) -> str:
    return (
        '<draw:page draw:name="one"><draw:frame svg:x="1cm" svg:y="1cm" svg:width="8cm" svg:height="3cm">'
        f"<draw:text-box><text:p>tides</text:p></draw:text-box></draw:frame>{inside}</draw:page>"
    )


def _on_page(inside: str) -> str:
    return f'<draw:frame svg:x="2cm" svg:y="6cm" svg:width="5cm" svg:height="5cm">{inside}</draw:frame>'


def _table(cells: str, source: str = "") -> str:
    return f'<table:table table:name="one">{source}<table:table-row>{cells}</table:table-row></table:table>'


def _formula(formula: str) -> str:
    return f'<table:table-cell table:formula="{formula}"/>'


def _external_workbook(target: Path | str) -> bytes:
    link = f'{_HEAD}<externalLink xmlns="{S}"><externalBook xmlns:r="{OFFICE}" r:id="rId1"><sheetNames>'
    link += '<sheetName val="one"/></sheetNames></externalBook></externalLink>'
    return xlsx(
        {"one": row(cell("A1", formula="[1]one!$A$1"), cell("B1", "tides"))},
        ("x1", "externalLink", "externalLinks/externalLink1.xml", False),
        **{
            "xl__externalLinks__externalLink1_dot_xml": link,
            "xl__externalLinks___rels__externalLink1_dot_xml_dot_rels": relationships(
                ("rId1", "externalLinkPath", str(target), True)
            ),
        },
    )


def _vml(attributes: str) -> str:
    return (
        '<w:p><w:r><w:pict><v:shape style="width:150pt;height:150pt" type="#_x0000_t75">'
        f"<v:imagedata {attributes}/></v:shape></w:pict></w:r></w:p>"
    )


VECTORS: Mapping[str, tuple[str, Callable[[Canaries], bytes]]] = {
    "docx-picture-url": (
        ".docx",
        lambda c: docx(paragraph("tides") + _picture("x"), ("x", "image", f"{c.url}/docx-picture", True)),
    ),
    "docx-picture-file": (
        ".docx",
        lambda c: docx(paragraph("tides") + _picture("x"), ("x", "image", c.picture.as_uri(), True)),
    ),
    "docx-picture-of-hyperlink": (
        ".docx",
        lambda c: docx(paragraph("tides") + _picture("x"), ("x", "hyperlink", f"{c.url}/docx-link", True)),
    ),
    "docx-picture-unc": (
        ".docx",
        lambda c: docx(paragraph("tides") + _picture("x"), ("x", "image", r"\\127.0.0.1\share\x.png", True)),
    ),
    "docx-includepicture": (
        ".docx",
        lambda c: docx(paragraph("tides") + field(" INCLUDE", f'PICTURE "{c.picture.as_uri()}" \\d ')),
    ),
    "docx-includepicture-url": (
        ".docx",
        lambda c: docx(paragraph("tides") + field(f' INCLUDEPICTURE "{c.url}/docx-field" \\d ')),
    ),
    "docx-includetext": (".docx", lambda c: docx(paragraph("tides") + field(f' INCLUDETEXT "{c.text}" '))),
    "docx-link": (
        ".docx",
        lambda c: docx(paragraph("tides") + field(f' LINK Excel.Sheet.8 "{c.sheet}" "one!A1" \\a ')),
    ),
    "docx-dde": (".docx", lambda c: docx(paragraph("tides") + field(f' DDEAUTO soffice "{c.sheet}" one.A1 '))),
    "docx-template": (
        ".docx",
        lambda c: docx(
            paragraph("tides"),
            ("s", "settings", "settings.xml", False),
            word__settings_dot_xml=f'{_HEAD}<w:settings {_NAMES}><w:attachedTemplate r:id="t"/></w:settings>',
            word___rels__settings_dot_xml_dot_rels=relationships(
                ("t", "attachedTemplate", f"{c.url}/docx-template", True)
            ),
        ),
    ),
    "docx-vml": (".docx", lambda c: docx(paragraph("tides") + _vml(f'src="{c.url}/docx-vml"'))),
    "docx-vml-relationship": (
        ".docx",
        lambda c: docx(paragraph("tides") + _vml('r:id="x"'), ("x", "image", f"{c.url}/docx-vml-id", True)),
    ),
    "docx-chunk": (
        ".docx",
        lambda c: docx(
            paragraph("tides") + '<w:altChunk r:id="h"/>',
            ("h", "aFChunk", "chunk.html", False),
            word__chunk_dot_html=f'<html><body><img src="{c.url}/docx-chunk"></body></html>',
        ),
    ),
    "docx-subdocument": (
        ".docx",
        lambda c: docx(paragraph("tides") + '<w:subDoc r:id="d"/>', ("d", "subDocument", c.text.as_uri(), True)),
    ),
    "docx-object": (
        ".docx",
        lambda c: docx(
            paragraph("tides")
            + '<w:p><w:r><w:object><v:shape id="s" style="width:150pt;height:150pt"/><o:OLEObject Type="Link" '
            'ProgID="Excel.Sheet.8" ShapeID="s" DrawAspect="Content" r:id="x" UpdateMode="Always"/>'
            "</w:object></w:r></w:p>",
            ("x", "oleObject", c.sheet.as_uri(), True),
        ),
    ),
    "xlsx-webservice": (
        ".xlsx",
        lambda c: xlsx({"one": row(cell("A1", "tides"), cell("B1", formula=f'_xlfn.WEBSERVICE("{c.url}/xlsx")'))}),
    ),
    "xlsx-indirect": (
        ".xlsx",
        lambda c: xlsx(
            {"one": row(cell("A1", "tides"), cell("B1", formula=f"INDIRECT(&quot;'{c.sheet.as_uri()}'#$one.A1&quot;)"))}
        ),
    ),
    "xlsx-external": (".xlsx", lambda c: _external_workbook(c.sheet.as_uri())),
    "xlsx-external-url": (".xlsx", lambda c: _external_workbook(f"{c.url}/xlsx-external.xlsx")),
    "pptx-picture": (
        ".pptx",
        lambda c: pptx(Slide(shape("tides") + _slide_picture("x"), targets=(("x", "image", f"{c.url}/pptx", True),))),
    ),
    "pptx-picture-file": (
        ".pptx",
        lambda c: pptx(
            Slide(shape("tides") + _slide_picture("x"), targets=(("x", "image", c.picture.as_uri(), True),))
        ),
    ),
    "odt-picture": (".odt", lambda c: odt(_frame(_linked(f"{c.url}/odt")))),
    "odt-picture-file": (".odt", lambda c: odt(_frame(_linked(c.picture.as_uri())))),
    "odt-picture-relative": (".odt", lambda c: odt(_frame(_linked(f"../../../../../../../..{c.picture}")))),
    "odt-section": (
        ".odt",
        lambda c: odt(
            f'<text:p>tides</text:p><text:section text:name="s">{_linked(c.text.as_uri(), "text:section-source")}'
            "<text:p>cached</text:p></text:section>"
        ),
    ),
    "odt-section-url": (
        ".odt",
        lambda c: odt(
            '<text:p>tides</text:p><text:section text:name="s">'
            f"{_linked(f'{c.url}/section.odt', 'text:section-source')}"
            "<text:p>cached</text:p></text:section>"
        ),
    ),
    "odt-frame": (".odt", lambda c: odt(_frame(_linked(c.text.as_uri(), "draw:floating-frame")))),
    "odt-frame-url": (".odt", lambda c: odt(_frame(_linked(f"{c.url}/frame.html", "draw:floating-frame")))),
    "odt-object": (".odt", lambda c: odt(_frame(_linked(c.sheet.as_uri(), "draw:object")))),
    "ods-source": (
        ".ods",
        lambda c: ods(
            _table(
                '<table:table-cell office:value-type="string"><text:p>tides</text:p></table:table-cell>',
                f'<table:table-source xlink:type="simple" xlink:href="{c.sheet.as_uri()}" table:table-name="one" '
                'table:refresh-delay="PT1S" table:mode="copy-all"/>',
            )
        ),
    ),
    "ods-webservice": (".ods", lambda c: ods(_table(_formula(f"of:=WEBSERVICE(&quot;{c.url}/ods&quot;)")))),
    "ods-external": (".ods", lambda c: ods(_table(_formula(f"of:=['{c.sheet.as_uri()}'#$one.A1]")))),
    "ods-dde": (
        ".ods",
        lambda c: ods(_table(_formula(f"of:=DDE(&quot;soffice&quot;;&quot;{c.sheet}&quot;;&quot;one.A1&quot;)"))),
    ),
    "odp-picture": (".odp", lambda c: odp(_page(_on_page(_linked(f"{c.url}/odp"))))),
    "odp-picture-file": (".odp", lambda c: odp(_page(_on_page(_linked(c.picture.as_uri()))))),
    "rtf-includepicture": (
        ".rtf",
        lambda c: (
            rb"{\rtf1 tides\par{\field{\*\fldinst INCLUDEPICTURE \\d %s}{\fldrslt cached}}}" % f'"{c.url}/rtf"'.encode()
        ),
    ),
    "rtf-includepicture-file": (
        ".rtf",
        lambda c: (
            rb"{\rtf1 tides\par{\field{\*\fldinst {INCLUDE}{PICTURE \\d %s}}{\fldrslt cached}}}"
            % f'"{c.picture.as_uri()}"'.encode()
        ),
    ),
    "rtf-after-many-bytes": (
        ".rtf",
        lambda c: (
            rb"{\rtf1 tides{\*\x\bin9999999999 }{\field{\*\fldinst INCLUDEPICTURE %s}{\fldrslt cached}}\par}"
            % f'"{c.picture.as_uri()}"'.encode()
        ),
    ),
    "rtf-in-a-shape": (
        ".rtf",
        lambda c: (
            rb"{\rtf1 tides{\field{\sp\fldinst INCLUDEPICTURE %s}{\fldrslt cached}}\par}"
            % f'"{c.picture.as_uri()}"'.encode()
        ),
    ),
    "rtf-includetext": (
        ".rtf",
        lambda c: rb"{\rtf1 tides\par{\field{\*\fldinst INCLUDETEXT %s}{\fldrslt cached}}}" % f'"{c.text}"'.encode(),
    ),
    "rtf-template": (
        ".rtf",
        lambda c: rb"{\rtf1{\*\template %s}tides\par}" % f"{c.url}/rtf-template".encode(),
    ),
    "html-picture": (".html", lambda c: f'<p>tides</p><img src="{c.url}/html">'.encode()),
    "html-picture-file": (".html", lambda c: f'<p>tides</p><img src="{c.picture.as_uri()}">'.encode()),
    "html-frame": (".html", lambda c: f'<p>tides</p><iframe src="{c.text.as_uri()}"></iframe>'.encode()),
    "html-style": (
        ".html",
        lambda c: (
            f'<link rel="stylesheet" href="{c.url}/css"><style>@import url({c.url}/import)</style>'
            f'<body background="{c.url}/background"><p style="background:url({c.url}/style)">tides</p>'.encode()
        ),
    ),
    "html-script": (
        ".html",
        lambda c: f'<script src="{c.url}/script"></script><p>tides</p><object data="{c.url}/object"></object>'.encode(),
    ),
}
"""By name: a suffix, and a function that makes a document which refers to one of the canaries."""
