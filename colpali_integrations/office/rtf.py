"""RTF without references to anything outside of it.

| taken out | |
|---|---|
| fields but page numbers and forms | INCLUDEPICTURE, LINK, DDE and others; the stored result stays |
| data of embedded and linked objects | their pictures stay |
| templates, tables of files, sources of mail merges, properties of shapes that name a file | |
| pictures in formats other than those of `references.is_picture` | |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from colpali_integrations.errors import OfficeError
from colpali_integrations.office.references import is_field_kept, is_picture, names_place

__all__ = ["cleaned_rtf"]

_MOST_LEVELS = 500
_TOKEN = re.compile(rb"\\([A-Za-z]+)(-?\d{1,10})? ?|\\'([0-9A-Fa-f]{2})|\\([^A-Za-z])|([{}])|([^\\{}]+)|\\", re.DOTALL)
_DROPPED = frozenset(
    {
        *("objdata", "objclass", "objname", "objalias", "objtopic", "objsect", "oleclsid", "template", "nextfile"),
        *("filetbl", "file", "private", "datafield", "datastore", "mailmerge", "hl", "hlloc", "hlsrc", "hlfr"),
        *("htmltag", "mhtmltag", "fontemb", "fontfile", "xmlnstbl", "wgrffmtfilter", "userprops", "fname", "falt"),
        *("linkval", "gridtbl", "do"),
    }
)
# Words that say how an object is linked, or that its data follow.
_LEFT_OUT = frozenset({"objautlink", "objlink", "objsub", "objpub", "objocx", "objhtml", "objupdate", "linkself"})
_JUDGED = frozenset({"fldinst", "sp", "pict"})
_NAMED_FILE = re.compile("Name|hyperlink|pihl", re.IGNORECASE)
_BITMAP = b"\x28\0\0\0"  # without the header of a file


@dataclass
class _Group:
    """An open group.

    Attributes:
        first: position of its beginning in the result.
        kind: the word of `_JUDGED` that it has, by which it is judged at its end; "" for another group.
        text: of a group that is judged, without control words.
    """

    first: int
    kind: str = ""
    text: list[bytes] = field(default_factory=list)


def cleaned_rtf(content: bytes) -> bytes:
    r"""A text without what leads out of it.

    Raises:
        OfficeError: it has more than 500 levels.

    Example:
        >>> cleaned_rtf(rb"{\rtf1 a{\field{\*\fldinst INCLUDETEXT x.txt}{\fldrslt b}}}")
        b'{\\rtf1 a{\\field{\\*\\fldinst }{\\fldrslt b}}}'
    """
    cleaner = _Cleaner()
    for token, data in _tokens(content):
        if not cleaner.take(token, data):
            break
    return cleaner.result()


def _tokens(content: bytes) -> Iterator[tuple[re.Match[bytes], bytes]]:
    """The tokens, and the bytes that follow a `bin`."""
    position = 0
    while (token := _TOKEN.match(content, position)) is not None:
        position, data = token.end(), b""
        if token[1] == b"bin" and token[2] is not None:
            data = content[position : position + max(0, int(token[2]))]
            position += len(data)
        yield token, data


class _Cleaner:
    def __init__(self) -> None:
        self._result: list[bytes] = []
        self._groups: list[_Group] = []
        self._dropped = 0  # number of open groups in one that is dropped, and with it

    def take(self, token: re.Match[bytes], data: bytes) -> bool:
        """Take a token; returns whether the document goes on after it."""
        brace = token[5]
        if brace == b"{":
            self._begin()
        elif brace == b"}":
            if not self._groups:
                return False
            self._end()
            return bool(self._groups)
        elif not self._dropped:
            self._keep(token, data)
        return True

    def result(self) -> bytes:
        """The document; groups that are still open end."""
        while self._groups:
            self._end()
        return b"".join(self._result)

    def _begin(self) -> None:
        if len(self._groups) >= _MOST_LEVELS:
            raise OfficeError(f"has more than {_MOST_LEVELS} levels")
        self._groups.append(_Group(len(self._result)))
        if self._dropped:
            self._dropped += 1
        else:
            self._result.append(b"{")

    def _end(self) -> None:
        group = self._groups.pop()
        if self._dropped:
            self._dropped -= 1
            return
        self._result.append(b"}")
        if group.kind == "fldinst":
            instruction = b"".join(group.text).decode("latin-1").strip()
            kept = instruction.upper() if is_field_kept(instruction) else ""
            self._result[group.first :] = [rb"{\*\fldinst ", kept.replace("\\", r"\\").encode("ascii"), b"}"]
        elif group.kind and not _is_kept(group):
            del self._result[group.first :]

    def _keep(self, token: re.Match[bytes], data: bytes) -> None:
        word = (token[1] or b"").decode("ascii")
        group = self._groups[-1] if self._groups else None
        # A group has one meaning in documents that programs write. LibreOffice takes the last word, and not the first.
        if group is not None and (word in _DROPPED or (word in _JUDGED and group.kind)):
            del self._result[group.first :]
            self._dropped = 1
            return
        if group is not None and word in _JUDGED:
            group.kind = word
        if word in _LEFT_OUT:
            return
        text, kept = _text(token, word, data), token[0]
        judging = next((one for one in reversed(self._groups) if one.kind), None)
        is_pict = judging is not None and judging.kind == "pict"
        if is_pict and (token[4] is not None or token[3] is not None or word == "u" or (text and judging is not group)):
            # Only the plain digits of the picture itself count: LibreOffice may read others in their place.
            text, kept = b"", token[0] if token[4] == b"*" else b""
        elif word == "bin":
            # As digits: LibreOffice may count the bytes otherwise, and take some of them for words.
            kept = b" " + text if is_pict else b""
        if judging is not None and text:
            judging.text.append(text)
        self._result.append(kept)


def _text(token: re.Match[bytes], word: str, data: bytes) -> bytes:
    """The characters that a token stands for; those beyond Latin-1 become question marks."""
    if token[3] is not None:
        return bytes([int(token[3], 16)])
    if word == "u" and token[2] is not None:
        return chr(int(token[2]) % 65536).encode("latin-1", "replace")
    if word == "bin":
        return data.hex().encode()
    return token[6] or token[4] or b""


def _is_kept(group: _Group) -> bool:
    text = b"".join(group.text)
    if group.kind == "sp":
        shown = text.decode("latin-1")
        return not _NAMED_FILE.search(shown) and not names_place(shown) and "file:" not in shown.lower()
    digits = b"".join(text.split())
    try:
        picture = bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))
    except ValueError:
        return False
    return is_picture(picture) or picture.startswith(_BITMAP)
