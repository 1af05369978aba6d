"""The values of a page's form fields. They are drawn as annotations, and so no text layer has them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

__all__ = ["field_values"]

_WITH_TEXT = (pdfium.FPDF_FORMFIELD_TEXTFIELD, pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX)
_NOT_SHOWN = pdfium.FPDF_ANNOT_FLAG_HIDDEN | pdfium.FPDF_ANNOT_FLAG_NOVIEW
# ISO 32000-1, table 228.
_PASSWORD = 1 << 13


def field_values(page: pypdfium2.PdfPage) -> list[str]:
    """The texts that were filled into the fields of a page, in the order of its annotations.

    Buttons, passwords and fields that are not shown are left out.

    Args:
        page: of a document whose forms were initialised.
    """
    values: list[str] = []
    for index in range(pdfium.FPDFPage_GetAnnotCount(page)):
        annotation = pdfium.FPDFPage_GetAnnot(page, index)
        try:
            values += _values(page.formenv, annotation)
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)
    return values


def _values(form: pypdfium2.PdfFormEnv | None, annotation: Any) -> Iterator[str]:
    if pdfium.FPDFAnnot_GetSubtype(annotation) != pdfium.FPDF_ANNOT_WIDGET:
        return
    if pdfium.FPDFAnnot_GetFlags(annotation) & _NOT_SHOWN:
        return
    kind = pdfium.FPDF_FORMFIELD_UNKNOWN if form is None else pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in _WITH_TEXT:
        if not pdfium.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD:
            yield from _text(lambda *buffer: pdfium.FPDFAnnot_GetFormFieldValue(form, annotation, *buffer))
    # A page that was split off its form: pdfium knows no field of it, but the annotation has its own value.
    elif kind <= pdfium.FPDF_FORMFIELD_UNKNOWN and _is_string(annotation, b"V") and not _flags(annotation) & _PASSWORD:
        yield from _text(lambda *buffer: pdfium.FPDFAnnot_GetStringValue(annotation, b"V", *buffer))


def _is_string(annotation: Any, key: bytes) -> bool:
    return bool(pdfium.FPDFAnnot_GetValueType(annotation, key) == pdfium.FPDF_OBJECT_STRING)


def _flags(annotation: Any) -> int:
    """The flags of the field, of which an annotation may have its own."""
    value = ctypes.c_float()
    return int(value.value) if pdfium.FPDFAnnot_GetNumberValue(annotation, b"Ff", value) else 0


def _text(read: Callable[..., int]) -> Iterator[str]:
    """The text that pdfium writes, in UTF-16, into a buffer of the length that it tells; nothing without letters."""
    buffer = ctypes.create_string_buffer(max(2, read(None, 0)))
    read(ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), len(buffer))
    text = buffer.raw.decode("utf-16-le", "replace").rstrip("\0")
    if text.strip():
        yield text
