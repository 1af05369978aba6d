"""Accents that a text layer has apart from their letters are put together with them, and other text stays as it is."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations._accents import composed_accents

SIGNS = {
    **{"\u0301": "´", "\u0302": "ˆ", "\u0303": "˜", "\u0304": "¯", "\u0306": "˘", "\u0307": "˙"},
    **{"\u0308": "¨", "\u030a": "˚", "\u030b": "˝", "\u030c": "ˇ", "\u0300": "`"},
}
# Letters of Latin alphabets with one accent above.
LETTERS = [
    letter
    for letter in map(chr, range(0xC0, 0x180))
    if len(pair := unicodedata.normalize("NFD", letter)) == 2 and pair[1] in SIGNS
]


def apart(word: str) -> str:
    """A word as TeX's first encoding has it."""
    return "".join(
        SIGNS[pair[1]] + pair[0] if len(pair := unicodedata.normalize("NFD", letter)) == 2 else letter
        for letter in word
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("r´esistance", "résistance"),
        ("d´ej`a", "déjà"),
        ("parall`ele", "parallèle"),
        ("citt`a, cos`ı", "città, così"),
        ("mˆeme", "même"),
        ("GR¨OSSE", "GRÖSSE"),
        ("fa¸con", "façon"),
        ("Franc¸ois, Franc¸e, S¸ahin, ¸Sahin", "François, Françe, Şahin, Şahin"),
        ("na¨ıve, m´ınimo", "naïve, mínimo"),
        ("ma˜nana", "mañana"),
        ("ˇCesk´y, H˚al, ˙zal, Erd˝os, ˘gı, r¯ıga", "Český, Hål, żal, Erdős, ğı, rīga"),
        ("(´etat)\n´ecole", "(état)\nécole"),
    ],
)
def test_accents_and_letters_are_put_together(written: str, meant: str) -> None:
    assert composed_accents(written) == meant
    assert composed_accents(meant) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("´ e", "´\ne", "e´", "´", "x ´", "´1", "30˚", "5´e", "2ˆe", "(x)ˆa", "xˆ2", "x˚q"),
        *("http://host/˜anna", r"\ˆa", "it´s", "user´s page", "don´t", "l´âme"),
        *("a `list` of `os`", "``text''", "html`a`", "x`elem`ys", "`a", "`", "```python\na = 1\n```"),
        *("´e\u0323", "a`e\u0323", "ı", "¸", "x¸", "¸x", ""),
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert composed_accents(text) == text


@given(
    before=st.sampled_from("bdfhxz"),
    letters=st.text(st.one_of(st.sampled_from(LETTERS), st.sampled_from("bdxz")), max_size=12),
)
def test_what_was_taken_apart_is_put_together(before: str, letters: str) -> None:
    word = before + letters + "x"  # not "it´s"
    if apart(word).count("`") < 2 and not any("`" + letter in apart(word) for letter in "nNwWyY"):
        assert composed_accents(apart(word)) == word


@given(st.text(st.one_of(st.sampled_from("".join(SIGNS.values()) + "¸aeıcs \n"), st.characters()), max_size=40))
def test_only_accents_and_letters_beside_them_change(text: str) -> None:
    composed = composed_accents(text)
    assert composed.split() == composed_accents(" ".join(text.split())).split()
    if not set(text) & {*SIGNS.values(), "¸"}:
        assert composed == text


def test_many_accents_take_linear_time() -> None:
    before = time.process_time()
    for text in ("´", "`", "`a", "a`", "´e", "c¸", "a" * 20 + "´s", "`" + "a" * 10_000):
        composed_accents(text * (200_000 // len(text)))
    assert time.process_time() - before < 5
