"""ODT, ODS and ODP without references to anything outside of them.

| taken out | |
|---|---|
| links that lead out | linked pictures, sections, sheets, templates; the target of a hyperlink becomes "mailto:" |
| embedded files but for documents of the same kind (charts, formulas) | objects, programs, fonts; their pictures stay |
| scripts, events, frames of other pages, media, data sources | |
| formulas of cells | the stored value stays; a formula without one stays if it can reach nothing outside |
"""

from __future__ import annotations

from collections.abc import Mapping

from colpali_integrations.errors import OfficeError
from colpali_integrations.office.markup import Rule, local_name, rewritten
from colpali_integrations.office.references import is_base64_picture, is_formula_unsafe, is_outside, names_place
from colpali_integrations.office.svg import cleaned_svg, is_svg
from colpali_integrations.office.zips import is_markup, write_parts

__all__ = ["cleaned_odf"]

_DROPPED_FOLDERS = ("Basic/", "Configurations2/", "Dialogs/", "Fonts/", "Scripts/", "Thumbnails/", "Database/")
_DROPPED = frozenset(
    {
        *("scripts", "event-listeners", "event-listener", "plugin", "applet", "floating-frame", "object-ole", "audio"),
        *("sound", "video", "table-source", "cell-range-source", "section-source", "dde-source", "dde-link"),
        *("dde-connection-decl", "dde-connection-decls", "dde-connection", "database-display", "database-next"),
        *(
            "database-row-select",
            "database-row-number",
            "database-name",
            "database-source-table",
            "connection-resource",
        ),
        *("database-source-sql", "database-source-query", "template", "auto-reload", "hyperlink-behaviour"),
        *("font-face-src", "font-face-uri", "source-service", "server-map"),
    }
)
_LINKS = frozenset({"a", "image-map", "area-rectangle", "area-circle", "area-polygon"})
_FORMULAS = frozenset({"formula", "expression", "condition", "cell-content-validation"})
# Elements of conditional formats whose value is a formula.
_CONDITIONS = frozenset({"condition", "formatting-entry"})
_PLACES = frozenset({"image-data", "src", "resource", "schema", "target-location", "datasource"})  # of forms
_SETTINGS = frozenset({"LinkUpdateMode", "PrinterName", "PrinterSetup", "CurrentDatabaseDataSource", "MacroURL"})


def cleaned_odf(content: bytes) -> bytes:
    """A file without what leads out of it.

    Raises:
        OfficeError: it is damaged, encrypted, or beyond the limits of `zips`.
    """
    return write_parts(content, _part)


def _part(name: str, content: bytes) -> bytes | None:
    if name.startswith(_DROPPED_FOLDERS) or f"/{name}".find("/Configurations2/") >= 0:
        return None
    if not is_markup(content):
        return content
    if is_svg(content):
        return cleaned_svg(content)
    rule = _Manifest() if name == "META-INF/manifest.xml" else _Outside()
    try:
        return rewritten(content, rule)
    except OfficeError as error:
        raise error if isinstance(rule, _Manifest) else OfficeError(f"{error} (in {name})") from error


class _Manifest(Rule):
    def start(self, name: str, attributes: Mapping[str, str]) -> Mapping[str, str] | None:
        if local_name(name) == "encryption-data":
            raise OfficeError("is encrypted, and LibreOffice takes no password here; save it without one")
        return attributes


class _Outside(Rule):
    """Elements, attributes and settings that lead out."""

    def __init__(self) -> None:
        super().__init__()
        self._data: tuple[int, list[str]] | None = None  # a picture in the file: its position and its base64

    def start(self, name: str, attributes: Mapping[str, str]) -> Mapping[str, str] | None:
        local = local_name(name)
        names = {value for key, value in attributes.items() if local_name(key) == "name"}
        if local in _DROPPED or (local == "config-item" and _SETTINGS & names):
            return None
        if local == "binary-data":
            self._data = len(self.pieces), []
        has_value = any(local_name(key) == "value-type" for key in attributes)
        kept = {}
        for key, value in attributes.items():
            if local_name(key) == "href" and is_outside(value):
                if local in _LINKS:
                    kept[key] = "mailto:"
            elif local in _CONDITIONS and local_name(key) == "value" and is_formula_unsafe(value):
                continue
            elif key.startswith("xmlns") or _stays(local_name(key), value, has_value=has_value):
                kept[key] = value
        return kept

    def text(self, data: str) -> str:
        if self._data is not None:
            self._data[1].append(data)
        return data

    def end(self, name: str) -> None:
        if local_name(name) == "binary-data" and self._data is not None:
            position, pieces = self._data
            if not is_base64_picture("".join(pieces)):
                self.blank(position, len(self.pieces))
            self._data = None


def _stays(local: str, value: str, *, has_value: bool) -> bool:
    if local in _FORMULAS and (is_formula_unsafe(value) or (has_value and local == "formula")):
        return False
    return local == "href" or not (local in _PLACES or names_place(value))
