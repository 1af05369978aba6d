"""Text from elsewhere (names, metadata, messages of libraries) for terminals and logs; numbers; JSON from elsewhere."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["encodable", "is_unicode", "number", "parse_json", "printable", "split_name"]

# Control characters, which terminals obey (C0, DEL, C1); separators that begin a new line; bidirectional overrides and
# isolates, which show a text in another order; surrogates, which no encoding can write.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PAGE = re.compile(r"(?P<document>.*)(?P<page>, page \d+)", re.DOTALL)
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


def printable(text: str, *, lines: bool = False) -> str:
    r"""Replace characters that change a terminal, forge a line of a log or cannot be written by Python's escapes.

    Args:
        text: the text.
        lines: keep line breaks and tabs, in a text of several lines.

    Example:
        >>> printable("a\x1b[2J\nb.pdf")
        'a\\x1b[2J\\nb.pdf'
        >>> printable("two\nlines", lines=True)
        'two\nlines'
    """
    return _UNSAFE.sub(lambda found: found[0] if lines and found[0] in "\n\t" else _escaped(found[0]), text)


def encodable(text: str) -> str:
    r"""Replace lone surrogates, which `print` cannot write, by Python's escapes.

    >>> encodable("a\ud800b")
    'a\\ud800b'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def is_unicode(text: str) -> bool:
    r"""Whether UTF-8 has the text: it holds no half of a surrogate pair, which Python makes of undecodable names.

    >>> is_unicode("ä"), is_unicode("a\udce4")
    (True, False)
    """
    return text.isascii() or _SURROGATE.search(text) is None


def number(count: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun.

    >>> number(1, "page"), number(2, "entry", "entries")
    ('1 page', '2 entries')
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def split_name(name: str, reason: str) -> tuple[str, str]:
    """The name of an item and the reason of its failure, in which the item is not named a second time.

    Args:
        name: of a file, or of a page of it.
        reason: a message, which may begin with the same file, perhaps with its folder.

    Returns:
        The name, with the folder if the reason has it, and the rest of the reason.

    Example:
        >>> split_name("pic.png, page 1", "/data/pic.png is no image")
        ('/data/pic.png, page 1', 'is no image')
        >>> split_name("report.pdf, page 3", "report.pdf, page 3 cannot be drawn: it has no area")
        ('report.pdf, page 3', 'cannot be drawn: it has no area')
        >>> split_name("report.pdf", "no file at 'report.pdf'")
        ('report.pdf', "no file at 'report.pdf'")
    """
    name = encodable(name)  # as errors have it
    found = _PAGE.fullmatch(name)
    document, page = (found["document"], found["page"]) if found else (name, "")
    last = re.split(r"[/\\]", document)[-1]
    if not last:
        return name, reason
    folder = r"(?:(?:[/~.]|\w:)[^:\n]*?[/\\]|[^\s:]*[/\\])?"
    pattern = rf"({re.escape(document)}|{folder}{re.escape(last)})(, page \d+)?(?:: | )(.+)"
    match = re.fullmatch(pattern, reason, re.DOTALL)
    return (name, reason) if match is None else (f"{match[1]}{match[2] or page}", match[3])


def parse_json(text: str | bytes | bytearray) -> Any:
    """Read JSON from elsewhere.

    Raises:
        ValueError: it is not JSON, or has too many levels, for which `json.loads` has another error.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too many levels of objects and lists") from None


def _escaped(character: str) -> str:
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
