"""HTML without references: its text, its structure, its colours, and pictures that are in the file itself."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser

from colpali_integrations.office.references import is_base64_picture

__all__ = ["cleaned_html"]

_TAGS = frozenset(
    {
        *(
            "a",
            "abbr",
            "address",
            "article",
            "aside",
            "b",
            "big",
            "blockquote",
            "body",
            "br",
            "caption",
            "center",
            "cite",
        ),
        *(
            "code",
            "col",
            "colgroup",
            "dd",
            "del",
            "dfn",
            "dir",
            "div",
            "dl",
            "dt",
            "em",
            "figcaption",
            "figure",
            "font",
        ),
        *("footer", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html", "i", "img", "ins", "kbd", "li"),
        *("main", "mark", "menu", "nav", "ol", "p", "pre", "q", "s", "samp", "section", "small", "span", "strike"),
        *(
            "strong",
            "sub",
            "sup",
            "table",
            "tbody",
            "td",
            "tfoot",
            "th",
            "thead",
            "title",
            "tr",
            "tt",
            "u",
            "ul",
            "var",
        ),
    }
)
_ATTRIBUTES = frozenset(
    {
        *(
            "align",
            "alt",
            "bgcolor",
            "border",
            "cellpadding",
            "cellspacing",
            "class",
            "color",
            "colspan",
            "dir",
            "face",
        ),
        *(
            "height",
            "id",
            "lang",
            "nowrap",
            "rowspan",
            "size",
            "span",
            "start",
            "style",
            "type",
            "valign",
            "value",
            "width",
        ),
    }
)
_WITHOUT_END = frozenset({"br", "col", "hr", "img"})
# Elements whose content is no text of the page.
_SKIPPED = frozenset(
    {"script", "style", "iframe", "object", "applet", "noframes", "noscript", "svg", "math", "template"}
)
_UNSAFE_STYLE = re.compile(r"url|import|expression|@|\\|//|:\s*image|src", re.IGNORECASE)
_DATA = re.compile(r"\s*data:image/(png|jpeg|gif|bmp);base64,", re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:\-]+)", re.IGNORECASE)
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def cleaned_html(content: bytes) -> bytes:
    """A page without what leads out of it, in UTF-8.

    Args:
        content: of the page, in the encoding that it names; otherwise in UTF-8 or Windows-1252.

    Example:
        >>> cleaned_html(b"<p onclick='f()'>Tides <img src='file:///etc/passwd'></p>").split(b"</head>")[1]
        b'<body><p>Tides </p></body></html>'
    """
    cleaner = _Cleaner()
    cleaner.feed(_decoded(content))
    cleaner.close()
    body = "".join(cleaner.pieces)
    head = '<!DOCTYPE html><html><head><meta http-equiv="content-type" content="text/html; charset=utf-8"></head>'
    return f"{head}<body>{body}</body></html>".encode("utf-8", "replace")


def _decoded(content: bytes) -> str:
    named = _CHARSET.search(content[:4096])
    encodings = [encoding for mark, encoding in _MARKS if content.startswith(mark)]
    encodings += [named[1].decode("ascii")] if named else []
    for encoding in (*encodings, "utf-8"):
        try:
            return content.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return content.decode("cp1252", "replace")


class _Cleaner(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._skipped: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED:
            self._skipped.append(tag)
        elif not self._skipped and tag in _TAGS - {"html", "head", "body"}:
            kept = {name: value or "" for name, value in attrs if _stays(tag, name, value or "")}
            if tag == "img" and "src" not in kept:
                self.pieces.append(escape(kept.get("alt", "")))
                return
            written = "".join(f' {name}="{escape(value)}"' for name, value in kept.items())
            self.pieces.append(f"<{tag}{written}>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _SKIPPED:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._skipped:
            del self._skipped[self._skipped.index(tag) :]
        elif not self._skipped and tag in _TAGS - _WITHOUT_END - {"html", "head", "body"}:
            self.pieces.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.pieces.append(escape(data, quote=False))


def _stays(tag: str, name: str, value: str) -> bool:
    if tag == "img" and name == "src":
        data = _DATA.match(value)
        return data is not None and is_base64_picture(value[data.end() :])
    return name in _ATTRIBUTES and not (name == "style" and _UNSAFE_STYLE.search(value))
