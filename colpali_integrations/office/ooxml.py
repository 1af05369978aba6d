"""DOCX, XLSX and PPTX without references to anything outside of them.

| taken out | |
|---|---|
| relationships that lead out | linked pictures, media, objects, workbooks; a hyperlink leads to "mailto:" |
| relationships to embedded files | objects, programs, fonts, HTML (`altChunk`); their pictures stay |
| fields of DOCX but page numbers and forms | INCLUDEPICTURE, LINK, DDE and others; the stored result stays |
| formulas of XLSX | the stored value stays; a formula without one stays if it can reach nothing outside |
| attributes that name an address or a path | such as those of VML |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from colpali_integrations.errors import OfficeError
from colpali_integrations.office.markup import Rule, local_name, rewritten
from colpali_integrations.office.references import is_field_kept, is_formula_unsafe, names_place
from colpali_integrations.office.svg import cleaned_svg, is_svg
from colpali_integrations.office.zips import is_markup, write_parts

__all__ = ["cleaned_ooxml"]

# Last parts of the types of relationships that are dropped even where they stay in the file.
_DROPPED_TYPES = frozenset(
    {
        *("aFChunk", "attachedTemplate", "audio", "connections", "control", "activeXControlBinary", "externalLink"),
        *("externalLinkPath", "font", "frame", "mailMergeHeaderSource", "mailMergeSource", "media", "oleObject"),
        *("package", "printerSettings", "queryTable", "recipientData", "subDocument", "vbaProject", "video"),
        *("webextension", "webextensiontaskpanes", "wordVbaData", "xlExternalLinkPath"),
    }
)
_DROPPED = frozenset({"OLEObject", "altChunk", "binData", "mailMerge", "ddeLink", "oleLink", "webPr", "dbPr"})
_DROPPED_ATTRIBUTES = frozenset({"src", "href", "althref"})  # of VML
# Their values are names that look like addresses.
_NAMES = frozenset({"uri", "Type", "ContentType", "PartName", "minVer", "schemaLocation"})
_LEAVES = re.compile(r"[a-z][a-z0-9+.\-]*:|//|.*\\", re.IGNORECASE | re.DOTALL)
_INSTRUCTIONS = frozenset({"instrText", "delInstrText"})
_FORMULAS = frozenset({"f", "formula", "formula1", "formula2", "definedName"})
_NESTED = frozenset({("f", "formula"), ("f", "formula1"), ("f", "formula2")})


def cleaned_ooxml(content: bytes, suffix: str) -> bytes:
    """A file without what leads out of it.

    Args:
        content: of the file.
        suffix: ".docx", ".xlsx" or ".pptx".

    Raises:
        OfficeError: it is damaged, or beyond the limits of `zips`.
    """
    return write_parts(content, partial(_part, suffix))


def _part(suffix: str, name: str, content: bytes) -> bytes | None:
    if not is_markup(content):
        return content
    if is_svg(content):
        return cleaned_svg(content)
    try:
        if name == "[Content_Types].xml":
            return rewritten(content, Rule())
        if name.lower().endswith(".rels"):
            return rewritten(content, _Relationships())
        return rewritten(content, {".docx": _Word, ".xlsx": _Sheet}.get(suffix, _Outside)())
    except OfficeError as error:
        if not name.lower().endswith((".xml", ".rels")):  # such as a page of HTML, and VML that is no XML
            return None
        raise OfficeError(f"{error} (in {name})") from error


class _Relationships(Rule):
    """The targets of a part."""

    def start(self, name: str, attributes: Mapping[str, str]) -> Mapping[str, str] | None:
        if local_name(name) != "Relationship":
            return attributes
        kind = attributes.get("Type", "").rpartition("/")[2]
        if kind in _DROPPED_TYPES:
            return None
        target = attributes.get("Target", "").strip()
        if attributes.get("TargetMode", "").lower() != "external" and not _LEAVES.match(target):
            return attributes
        # Any element may use the relationship of a hyperlink, so not even that keeps its target.
        kept = {**attributes, "Target": "mailto:", "TargetMode": "External"}
        return kept if kind == "hyperlink" else None


class _Outside(Rule):
    """Elements and attributes that lead out."""

    def start(self, name: str, attributes: Mapping[str, str]) -> Mapping[str, str] | None:
        if local_name(name) in _DROPPED:
            return None
        return {key: value for key, value in attributes.items() if _stays(key, value)}


def _stays(key: str, value: str) -> bool:
    local = local_name(key)
    if key.startswith("xmlns") or local in _NAMES:
        return True
    return local not in _DROPPED_ATTRIBUTES and not names_place(value)


class _Word(_Outside):
    """Fields of DOCX as well.

    The instruction of a field may be cut into pieces, with other fields among them. It ends where its result begins.
    A piece is written once the whole instruction is known to be harmless.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fields: list[list[tuple[int, str]]] = []  # of each open field: positions and texts of its instruction
        self._open: list[str] = []

    def start(self, name: str, attributes: Mapping[str, str]) -> Mapping[str, str] | None:
        kept = super().start(name, attributes)
        if kept is None:
            return None
        local = local_name(name)
        self._open.append(local)
        if local == "fldChar":
            self._at_mark({local_name(key): value for key, value in attributes.items()}.get("fldCharType", ""))
        if local == "fldSimple":
            return {key: value if is_field_kept(value) else "" for key, value in kept.items()}
        return kept

    def text(self, data: str) -> str:
        if not _INSTRUCTIONS & set(self._open):
            return data
        if self._fields and "delInstrText" not in self._open:
            self._fields[-1].append((len(self.pieces), data))
        return ""

    def end(self, name: str) -> None:
        self._open.pop()

    def _at_mark(self, kind: str) -> None:
        if kind == "begin":
            self._fields.append([])
        elif self._fields:
            self._judge(self._fields.pop())
            if kind == "separate":
                self._fields.append([])

    def _judge(self, instruction: list[tuple[int, str]]) -> None:
        if is_field_kept("".join(text for _, text in instruction)):
            for position, text in instruction:
                self.pieces[position] = text  # without a character that XML escapes


class _Sheet(_Outside):
    """Formulas of XLSX as well."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._formula: list[tuple[int, list[str]]] = []  # of each open formula: position and text
        self._formulas: list[tuple[int, int, str]] = []  # of the cell: positions and text
        self._has_value = False

    def start(self, name: str, attributes: Mapping[str, str]) -> Mapping[str, str] | None:
        kept, local = super().start(name, attributes), local_name(name)
        # Elements in the text of a formula would divide it; only those of validations and formats hold an "f".
        if kept is None or (self._open and self._open[-1] in _FORMULAS and (local, self._open[-1]) not in _NESTED):
            return None
        self._open.append(local)
        if local == "cfvo":
            kept = {key: value for key, value in kept.items() if not is_formula_unsafe(value)}
        if local == "c":
            self._formulas, self._has_value = [], False
        elif local in _FORMULAS:
            self._formula.append((len(self.pieces), []))
        return kept

    def text(self, data: str) -> str:
        local = self._open[-1] if self._open else ""
        if local in _FORMULAS:
            self._formula[-1][1].append(data)
        elif local == "v" and data.strip():
            self._has_value = True
        return data

    def end(self, name: str) -> None:
        local = self._open.pop()
        if local in _FORMULAS:
            begin, pieces = self._formula.pop()
            place = begin, len(self.pieces), "".join(pieces)
            if local == "f" and self._open[-1:] == ["c"]:
                self._formulas.append(place)
            elif is_formula_unsafe(place[2]):
                self.blank(place[0] + 1, place[1] - 1)
        elif local == "c":
            for first, end, formula in self._formulas:
                if self._has_value or is_formula_unsafe(formula):
                    self.blank(first, end)
