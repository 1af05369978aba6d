"""What in an Office file may make LibreOffice open another file or address."""

from __future__ import annotations

import base64
import binascii
import re

__all__ = ["is_base64_picture", "is_field_kept", "is_formula_unsafe", "is_outside", "is_picture", "names_place"]

# A scheme in front of a path, a path of Windows, a path of another machine, or one that leaves the document's folder.
_OUTSIDE = re.compile(r"[a-z][a-z0-9+.\-]*:|[/\\]|.*\\|(.*/)?\.\.(/|$)|.*%(2e|2f|3a|5c)", re.IGNORECASE | re.DOTALL)
_PLACE = re.compile(
    r".*(://|\\\\)|\s*(file|https?|ftps?|smb|dav|davs|webdav|vnd\.[a-z.\-]+|private|macro|javascript|package|cid|data):"
    r"|\s*//|\s*[a-z]:[\\/]",
    re.IGNORECASE | re.DOTALL,
)
# Functions that open an address or build a reference from text, and references to other files.
_UNSAFE = re.compile(
    r"WEBSERVICE|INDIRECT|FILTERXML|\bDDE\b|\bCALL\b|REGISTER|\bEXTERN|\bIMAGE\b|RTD|SQL\.REQUEST|MULTIPLE\.OPERATIONS"
    r"|://|\\\\|file:|'\s*#|#\s*\$|\.(xls|ods|csv|htm|xml|txt)|\[\d+\]|\|",
    re.IGNORECASE,
)
# Fields whose result depends on the page, and controls of forms, with nothing but a format.
_FIELD = re.compile(
    r"\s*((PAGE|NUMPAGES|SECTION|SECTIONPAGES)(\s+\\\*\s*(MERGEFORMAT|CHARFORMAT|arabic|arabicdash|roman|alphabetic|ordinal|"
    r"cardtext|ordtext|upper|lower|caps|firstcap))*|FORMTEXT|FORMCHECKBOX|FORMDROPDOWN)\s*",
    re.IGNORECASE,
)
_PICTURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"),
    *(b"\xd7\xcd\xc6\x9a", b"\x01\0\x09\0", b"VCLMTF"),  # WMF, and LibreOffice's own
)


def is_outside(target: str) -> bool:
    r"""Whether a reference of a package leads out of it.

    >>> is_outside("media/image1.png"), is_outside("file:///etc/passwd"), is_outside(r"..\x"), is_outside("a/../../b")
    (False, True, True, True)
    """
    return _OUTSIDE.match(target.strip()) is not None


def names_place(value: str) -> bool:
    r"""Whether a value of any attribute names an address or a path of a file.

    >>> names_place("http://host/x"), names_place(r"\\host\share"), names_place("rId7"), names_place("12:30")
    (True, True, False, False)
    """
    return _PLACE.match(value) is not None


def is_formula_unsafe(formula: str) -> bool:
    """Whether the result of a formula may come from outside of its document.

    >>> is_formula_unsafe('WEBSERVICE("http://host")'), is_formula_unsafe("SUM(A1:A3)")
    (True, False)
    """
    return _UNSAFE.search(formula) is not None


def is_field_kept(instruction: str) -> bool:
    r"""Whether the instruction of a field in a text stays; the stored result of any other field is shown.

    >>> is_field_kept(r"PAGE \* MERGEFORMAT"), is_field_kept("INCLUDETEXT report.docx")
    (True, False)
    """
    return _FIELD.fullmatch(instruction) is not None


def is_picture(content: bytes) -> bool:
    """Whether content begins as a picture that cannot refer to another file.

    Pictures of other formats are left out, such as PostScript, which LibreOffice gives to another program.
    """
    is_emf = content.startswith(b"\x01\0\0\0") and content[40:44] == b" EMF"
    is_webp = content.startswith(b"RIFF") and content[8:12] == b"WEBP"
    return content.startswith(_PICTURES) or is_emf or is_webp


def is_base64_picture(text: str) -> bool:
    """Whether base64 is that of a picture; see `is_picture`."""
    start = "".join(text[:200].split())
    try:
        # Strictly: LibreOffice may read what Python's decoder passes over.
        return is_picture(base64.b64decode(start[: len(start) // 4 * 4], validate=True))
    except (binascii.Error, ValueError):
        return False
