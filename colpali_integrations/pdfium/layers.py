"""Texts in hidden layers (optional content), which pdfium keeps in the text layer and does not name."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from colpali_integrations.pdfium.ink import Ink

__all__ = ["INVISIBLE", "hidden_texts"]

INVISIBLE = 3  # text render mode: neither filled nor stroked, as OCR writes over a scan

_MOST_LAYERS = 8
# CPU seconds: a drawing of many lines may take seconds, and the page has to be drawn as well.
_MOST_SECONDS = 2.0
_NAME_BYTES = 256


def hidden_texts(page: pypdfium2.PdfPage, unit: float, ink: Ink, depth: int) -> set[int]:
    """The addresses of the text objects in hidden layers: without them the page looks the same.

    So a text of a hidden layer is found also where another text is drawn in its place, as in documents of several
    languages. A page has one more small drawing per layer with text, up to eight, and none after two seconds: the text
    of the other layers stays.

    Args:
        page: of an open document.
        unit: its user unit, in points.
        ink: the drawing of the page.
        depth: of form XObjects.
    """
    layers: dict[bytes, list[Any]] = {}
    for text in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_TEXT], max_depth=depth):
        is_invisible = pdfium.FPDFTextObj_GetTextRenderMode(text) == INVISIBLE
        if not is_invisible and (layer := _layer(text.raw)) is not None:
            layers.setdefault(layer, []).append(text.raw)
    hidden: set[int] = set()
    end = time.process_time() + _MOST_SECONDS
    for texts in list(layers.values())[:_MOST_LAYERS]:
        if time.process_time() > end:
            break
        with _without(texts):
            is_hidden = Ink(page, unit).same_as(ink)
        if is_hidden:
            hidden.update(ctypes.cast(text, ctypes.c_void_p).value or 0 for text in texts)
    return hidden


def _layer(text: Any) -> bytes | None:
    """The names of the layers that a text object is in; None without any."""
    marks = [pdfium.FPDFPageObj_GetMark(text, index) for index in range(pdfium.FPDFPageObj_CountMarks(text))]
    layers = [mark for mark in marks if _read(pdfium.FPDFPageObjMark_GetName, mark) == "OC".encode("utf-16-le")]
    names = [_read(pdfium.FPDFPageObjMark_GetParamStringValue, mark, b"Name") for mark in layers]
    return b"\0\0".join(names) if names else None


def _read(function: Any, *arguments: Any) -> bytes:
    """A string of pdfium in UTF-16, without the end."""
    buffer, length = (ctypes.c_ushort * (_NAME_BYTES // 2))(), ctypes.c_ulong()
    if not function(*arguments, buffer, _NAME_BYTES, length):
        return b""
    return bytes(buffer)[: max(0, min(length.value, _NAME_BYTES) - 2)]


@contextmanager
def _without(texts: Sequence[Any]) -> Iterator[None]:
    for text in texts:
        pdfium.FPDFPageObj_SetIsActive(text, False)
    try:
        yield
    finally:
        for text in texts:
            pdfium.FPDFPageObj_SetIsActive(text, True)
