"""Accents that stand beside their letter as characters of their own, as text layers of older TeX documents have them.

Fonts in TeX's first encoding (OT1) have no accented letters: a page of "résistance" draws an accent and an e over each
other, and its text layer says "r´esistance". The accent stands before its letter; only a cedilla may also follow it.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["composed_accents"]

_MARKS = {
    "`": "\u0300",
    "\u00b4": "\u0301",  # acute
    "\u02c6": "\u0302",  # circumflex
    "\u02dc": "\u0303",  # tilde
    "\u00af": "\u0304",  # macron
    "\u02d8": "\u0306",  # breve
    "\u02d9": "\u0307",  # dot
    "\u00a8": "\u0308",  # diaeresis
    "\u02da": "\u030a",  # ring
    "\u02dd": "\u030b",  # double acute
    "\u02c7": "\u030c",  # caron
    "\u00b8": "\u0327",  # cedilla
}
_DOTLESS = {"\u0131": "i", "\u0237": "j"}
_ACCENTS = "".join(_MARKS).replace("`", "").replace("\u00b8", "")
_LETTER = r"[^\W\d_](?![\u0300-\u036f])"
_PAIR = re.compile(
    # A word between two backticks is code.
    r"`\w+`"
    # A backtick in prose is a quotation mark, but for one inside a word.
    r"|(?<=[^\W\d_])`[aeiouAEIOU\u0131](?![\u0300-\u036f])"
    # "it´s" has an apostrophe. Behind these signs stand powers, units, commands of TeX and the names of a URL's users.
    rf"|(?<![\d/\\)\]}}])[{_ACCENTS}](?!(?<=[^\W\d_]\u00b4)s(?![\w`\u00b8{_ACCENTS}])){_LETTER}"
    rf"|[cCsStT]\u00b8(?![cCsStT])|\u00b8{_LETTER}"
)


def composed_accents(text: str) -> str:
    """Put accents and the letters directly beside them together, where Unicode has such a letter.

    Args:
        text: any text; a blank or a line break divides an accent from a letter.

    Returns:
        The text in the same words; unchanged where no accent stands alone.

    Example:
        >>> composed_accents("R´esistances parall`eles, Gr¨oße, fa¸con, na¨ıve")
        'Résistances parallèles, Größe, façon, naïve'
        >>> composed_accents("a `list`, it´s, 3 ´ x, /˜anna")
        'a `list`, it´s, 3 ´ x, /˜anna'
    """
    return text if text.isascii() and "`" not in text else _PAIR.sub(_composed, text)


def _composed(pair: re.Match[str]) -> str:
    if len(pair[0]) != 2:
        return pair[0]  # code
    letter, accent = sorted(pair[0], key=_MARKS.__contains__)
    whole = unicodedata.normalize("NFC", _DOTLESS.get(letter, letter) + _MARKS[accent])
    is_plain = unicodedata.is_normalized("NFD", letter)  # "l´âme" has an apostrophe
    return whole if len(whole) == 1 and is_plain else pair[0]
