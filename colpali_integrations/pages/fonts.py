"""Fonts that a page lacks, and which scripts this machine has fonts for, as a test of what pdfium draws.

PDFs may name fonts without including them. pdfium has fonts of its own for Western European languages. For Chinese,
Japanese and Korean it takes certain fonts of the system, and others may need the very font that the PDF names.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from colpali_integrations.pages.isolation import IsolatedReader

__all__ = ["drawn_scripts", "missing_fonts_message"]

# Script, collection of characters (of Adobe), mapping from UTF-16, and a text.
_SCRIPTS = (
    ("Japanese", "Japan1", "UniJIS-UCS2-H", "日本"),
    ("Chinese (simplified)", "GB1", "UniGB-UCS2-H", "中文"),
    ("Chinese (traditional)", "CNS1", "UniCNS-UCS2-H", "中文"),
    ("Korean", "Korea1", "UniKS-UCS2-H", "한국"),
)


def drawn_scripts() -> dict[str, bool]:
    """Whether pages in each script are drawn if their PDF does not include its fonts.

    Raises:
        ConfigurationError: the process that reads PDFs does not start.

    Example:
        >>> list(drawn_scripts())
        ['Japanese', 'Chinese (simplified)', 'Chinese (traditional)', 'Korean']
    """
    with closing(IsolatedReader(_document(), None)) as reader:  # an open Pdf would log what is missing
        return {script: not reader.text(page).missing_fonts for page, (script, *_) in enumerate(_SCRIPTS, 1)}


def missing_fonts_message(names: Sequence[str]) -> str:
    """What is wrong with pages that lack fonts, and what to do.

    >>> missing_fonts_message(["Ryumin-Light"])
    'not drawn are characters of Ryumin-Light, a font neither in the file nor on this machine; `colpali-integrations ...
    """
    listed = f"{names[0]}, a font" if len(names) == 1 else f"{', '.join(names)}, fonts"
    return (
        f"not drawn are characters of {listed} neither in the file nor on this machine; `colpali-integrations doctor` "
        "says which fonts to install; then index the document again with force=True (--force)"
    )


def _document() -> bytes:
    """A PDF with a page per script. It has no table of offsets, which pdfium makes itself."""
    numbers = range(3, 3 + 4 * len(_SCRIPTS), 4)
    kids = " ".join(f"{number} 0 R" for number in numbers)
    objects = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count {len(_SCRIPTS)}>>"]
    for number, (_, collection, mapping, text) in zip(numbers, _SCRIPTS, strict=True):
        drawing = f"BT /F 20 Tf 10 10 Td <{text.encode('utf-16-be').hex()}> Tj ET"
        system = f"<</Registry(Adobe)/Ordering({collection})/Supplement 2>>"
        objects += [
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 40]/Contents {number + 1} 0 R"
            f"/Resources<</Font<</F {number + 2} 0 R>>>>>>",
            f"<</Length {len(drawing)}>>stream\n{drawing}\nendstream",
            f"<</Type/Font/Subtype/Type0/BaseFont/Absent/Encoding/{mapping}/DescendantFonts[{number + 3} 0 R]>>",
            f"<</Type/Font/Subtype/CIDFontType0/BaseFont/Absent/DW 1000/CIDSystemInfo{system}>>",
        ]
    written = "".join(f"{number} 0 obj\n{body}\nendobj\n" for number, body in enumerate(objects, 1))
    return f"%PDF-1.4\n{written}trailer\n<</Root 1 0 R/Size {len(objects) + 1}>>\n".encode("ascii")
