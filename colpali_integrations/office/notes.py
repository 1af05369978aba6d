"""The speaker's notes of a presentation, which a PDF of its slides does not have."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

__all__ = ["slide_notes"]


def slide_notes(content: bytes, suffix: str) -> list[str]:
    """The notes of each slide that is shown, in order; "" for a slide without any.

    Args:
        content: of a file that was cleaned, so that its XML declares nothing.
        suffix: of its format.

    Returns:
        The notes; empty for other formats, and for a file whose slides cannot be found.
    """
    read = {".pptx": _of_pptx, ".odp": _of_odp}.get(suffix)
    if read is None:
        return []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return list(read(archive))
    except (KeyError, ValueError, ElementTree.ParseError):  # a file without slides, which LibreOffice judges
        return []


def _of_pptx(archive: zipfile.ZipFile) -> Iterator[str]:
    [presentation, *_] = [target for kind, _, target in _related(archive, "") if kind == "officeDocument"]
    targets = {id_: target for _, id_, target in _related(archive, presentation)}
    for entry in _elements(_xml(archive, presentation), "sldId"):
        slide = targets[_attributes(entry)["id", True]]
        if _attributes(_xml(archive, slide)).get(("show", False)) in ("0", "false"):
            continue
        notes = [target for kind, _, target in _related(archive, slide) if kind == "notesSlide"]
        yield "\n".join(filter(None, (_body(_xml(archive, one)) for one in notes)))


def _related(archive: zipfile.ZipFile, part: str) -> Iterator[tuple[str, str, str]]:
    """Kind, id and part of each relationship of a part."""
    folder, name = posixpath.split(part)
    for one in _xml(archive, posixpath.join(folder, "_rels", f"{name}.rels")):
        target = posixpath.normpath(posixpath.join("/", folder, one.get("Target", "")))
        yield one.get("Type", "").rpartition("/")[2], one.get("Id", ""), target.lstrip("/")


def _body(notes: ElementTree.Element) -> str:
    """The text of a page of notes and of text boxes on it, without the number, date and picture of its slide."""
    shapes = [shape for shape in _elements(notes, "sp") if _has_notes(shape)]
    paragraphs = [paragraph for shape in shapes for paragraph in _elements(shape, "p")]
    lines = ("".join(text.text or "" for text in _elements(paragraph, "t")) for paragraph in paragraphs)
    return "\n".join(line for line in lines if line.strip())


def _has_notes(shape: ElementTree.Element) -> bool:
    """Whether a shape is the notes' own place, or a text box that an author has drawn beside it."""
    kinds = [place.get("type", "body") for place in _elements(shape, "ph")]
    return kinds[:1] in (["body"], [])


def _of_odp(archive: zipfile.ZipFile) -> Iterator[str]:
    content = _xml(archive, "content.xml")
    hidden = {
        _attributes(style).get(("name", True))
        for style in _elements(content, "style")
        if any(_attributes(one).get(("visibility", True)) == "hidden" for one in style)
    }
    for page in _elements(content, "page"):
        if _attributes(page).get(("style-name", True)) in hidden:
            continue
        frames = [frame for notes in _elements(page, "notes") for frame in _elements(notes, "frame")]
        # A frame without a class is a text box that an author has drawn.
        texts = [frame for frame in frames if _attributes(frame).get(("class", True)) in ("notes", None)]
        lines = ("".join(one.itertext()) for frame in texts for one in _elements(frame, "p"))
        yield "\n".join(line for line in lines if line.strip())


def _xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(archive.read(name))


def _elements(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (one for one in root.iter() if one.tag.rpartition("}")[2] == name)


def _attributes(element: ElementTree.Element) -> Mapping[tuple[str, bool], str]:
    """By the name without its namespace, and whether it has one."""
    return {(key.rpartition("}")[2], key.startswith("{")): value for key, value in element.attrib.items()}
