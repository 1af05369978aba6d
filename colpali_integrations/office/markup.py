"""XML written anew: what a rule leaves of it, without declarations of types, entities, comments and instructions.

Namespaces are not resolved, because attributes of Office files name prefixes. So a rule sees the names as they stand,
and compares the part behind the colon.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.parsers import expat
from xml.sax.saxutils import escape

from colpali_integrations.errors import OfficeError

__all__ = ["Rule", "local_name", "rewritten", "root_name"]

_MOST_LEVELS = 500
_PIECE = 4096
_IN_ATTRIBUTES = {'"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}


def local_name(name: str) -> str:
    """The part of a name behind its prefix.

    >>> local_name("w:instrText")
    'instrText'
    """
    return name.rpartition(":")[2]


def root_name(content: bytes) -> str:
    """The name of the outermost element, without its prefix; "" where a parser finds none.

    A search for its text would take what stands in a comment before it.

    >>> root_name(b"<!-- <svg > --><w:document>")
    'document'
    """
    names: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: names.append(name)
    for start in range(0, len(content), _PIECE):
        try:
            parser.Parse(content[start : start + _PIECE], False)
        except (expat.ExpatError, ValueError, LookupError):
            break
        if names:
            break
    return local_name(names[0]) if names else ""


class Rule:
    """Decides what stays of an XML file. This one leaves everything; others override its methods.

    Attributes:
        pieces: of the result so far. A method may remember a position in it, and `blank` what was written since.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def start(self, name: str, attributes: Mapping[str, str]) -> Mapping[str, str] | None:
        """The attributes that an element keeps, before it is written; None drops it with all in it."""
        return attributes

    def text(self, data: str) -> str:
        """What stays of a piece of text."""
        return data

    def end(self, name: str) -> None:
        """An element that was kept has been written."""

    def blank(self, first: int, end: int) -> None:
        """Take back the pieces between two positions."""
        self.pieces[first:end] = [""] * (end - first)


def rewritten(content: bytes, rule: Rule) -> bytes:
    r"""The XML that a rule leaves, in UTF-8.

    Args:
        content: of an XML file in any encoding that it declares.
        rule: which is used once.

    Raises:
        OfficeError: it is no XML, has more than 500 levels, or declares entities.

    Example:
        >>> rewritten(b"<a b='1'><!-- note -->&lt;</a>", Rule())
        b'<?xml version="1.0" encoding="UTF-8"?>\n<a b="1">&lt;</a>'
    """
    writer = _Writer(rule)
    try:
        writer.parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise OfficeError(f"is damaged: {error}") from error
    return ('<?xml version="1.0" encoding="UTF-8"?>\n' + "".join(rule.pieces)).encode("utf-8", "replace")


class _Writer:
    def __init__(self, rule: Rule) -> None:
        self._rule, self._level, self._dropped = rule, 0, 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._declared

    def _declared(self, name: str, system: str | None, public: str | None, has_subset: int) -> None:
        if has_subset:  # it may define entities, which grow without end or read files
            raise OfficeError("has declarations of XML entities, which no Office program writes")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise OfficeError(f"has more than {_MOST_LEVELS} levels of XML")
        kept = None if self._dropped else self._rule.start(name, attributes)
        if kept is None:
            self._dropped += 1
            return
        written = "".join(f' {key}="{escape(value, _IN_ATTRIBUTES)}"' for key, value in kept.items())
        self._rule.pieces.append(f"<{name}{written}>")

    def _end(self, name: str) -> None:
        self._level -= 1
        if self._dropped:
            self._dropped -= 1
            return
        self._rule.pieces.append(f"</{name}>")
        self._rule.end(name)

    def _text(self, data: str) -> None:
        if not self._dropped:
            self._rule.pieces.append(escape(self._rule.text(data)))
