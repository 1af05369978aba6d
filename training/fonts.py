"""Which font files synthetic pages are set in, by class, from the Debian packages listed in SOURCES.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

ROOTS = (Path("/usr/share/fonts"), Path("/usr/share/texmf/fonts/opentype"))
_PATTERNS: dict[str, tuple[str, ...]] = {
    "serif": (
        "LiberationSerif-", "NimbusRoman-.*otf", "FreeSerif", r"C059.*otf", r"P052.*otf", "URWBookman.*otf",
        r"DejaVuSerif(-|Condensed)", "Caladea", "CharisSIL", "EBGaramond12", "GFSDidot", "GFSArtemisia", "GenBas",
        r"NotoSerif-(Regular|Bold|Italic|BoldItalic|Light|Medium)\.", "LinLibertine_R",
        "JunicodeTwoBeta-(Regular|Bold)",
        "Tinos", r"cmun(rm|bx|ti|sl|bl|bi)\.", r"cmun(rm|sl)\.", r"lmroman(10|12|9|8|17)-(regular|bold|italic)\.",
        "lmroman10", "texgyre(termes|pagella|bonum|schola)-", "Vollkorn-(Regular|Italic|Bold)", "OldStandard",
        "RobotoSlab-", "AveriaSerif",
    ),
    "sans": (
        "LiberationSans-", "NimbusSans-.*otf", "FreeSans", r"DejaVuSans(-Bold|-Oblique|-BoldOblique)?\.ttf",
        "DejaVuSansCondensed", "Carlito", "Cantarell-(Regular|Bold)", r"Lato-(Regular|Bold|Italic|Light|Medium)\.",
        "Inter-(Regular|Bold|Italic|Medium|Light)", r"NotoSans-(Regular|Bold|Italic|BoldItalic|Light|Medium)\.",
        "OpenSans-(Regular|Bold|Italic|Light|Semibold)", "Roboto-(Regular|Bold|Italic|Light|Medium)", "Arimo",
        "LinBiolinum_R", "texgyre(heros|adventor)-", "texgyreheros", r"cmun(ss|sx|si)\.", "lmsans10",
        r"Go-(Regular|Bold|Italic|Medium)\.", "URWGothic.*otf", "NimbusSansNarrow.*otf", "Quicksand", "Andika-",
        "Comfortaa", r"Play-", "NationalPark", "B612-",
    ),
    "mono": (
        "LiberationMono", "NimbusMonoPS.*otf", "FreeMono", "DejaVuSansMono", "DejaVuSansMono", r"cmun(tt|tb|it|tx)\.",
        r"lmmono(10|9|8|12)-", r"lmmono(lt|slant)", "Inconsolata", "Hack-", r"JetBrainsMono-(Regular|Bold|Italic)\.",
        r"NotoSansMono-(Regular|Bold)\.", "FiraCode-(Regular|Bold)", "Go-Mono", "Cousine", "texgyrecursor",
        "Courier Prime", "Anonymous", "Monoid-", "mononoki-", "FantasqueSansMono-", "LeagueMono-(Regular|Bold)",
        "3270-", "B612Mono-",
    ),
}  # fmt: skip
_STYLED = re.compile(r"bold|italic|obl|bi\b|bx|ti\.|sl\.|It\b|slant", re.IGNORECASE)


@dataclass(frozen=True)
class Face:
    """One font file of a class."""

    path: Path
    styled: bool
    """Bold, italic or slanted."""


def families() -> dict[str, list[list[Face]]]:
    """Class name to families, each a list of faces; a family whose fonts are not installed is left out.

    Raises:
        SystemExit: a class has no font at all.
    """
    files = sorted(
        path for root in ROOTS if root.is_dir() for path in root.rglob("*") if path.suffix.lower() in {".otf", ".ttf"}
    )
    found: dict[str, list[list[Face]]] = {}
    for kind, patterns in _PATTERNS.items():
        groups = [
            [Face(path, bool(_STYLED.search(path.name))) for path in files if re.match(pattern, path.name)]
            for pattern in patterns
        ]
        found[kind] = [group for group in groups if group]
        if not found[kind]:
            raise SystemExit(f"no {kind} font is installed; install the packages of training/SOURCES.md")
    return found


@lru_cache(4000)
def font(path: Path, size: float) -> ImageFont.FreeTypeFont:
    """The font at ``size`` pixels, laid out without ligatures so that every letter keeps its own box."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
