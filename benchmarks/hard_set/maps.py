"""Maps as an old atlas has them, drawn and then scanned: letters of very different sizes, spread, slanted and curved.

The places are real (`maps.json`: names with longitude and latitude), coasts and roads are not: what is asked is on the
map as letters. Without a text layer, and the same for the same fonts.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.coltiny_set import DPI, scan

HERE = Path(__file__).parent
FONTS = "usr/share/fonts/opentype/linux-libertine"  # of the Debian package fonts-linuxlibertine (OFL)
SIZE = (1754, 1240)  # A4, across, at 150 dpi
MARGIN = 70


def entries() -> list[dict[str, Any]]:
    """The documents of maps, with the names and places of each map."""
    found: list[dict[str, Any]] = json.loads((HERE / "maps.json").read_text(encoding="utf-8"))
    return found


def pdf(name: str, fonts: Path) -> bytes:
    """The maps of one document, a page each, as a PDF of pictures.

    Args:
        name: "maps-a" or "maps-b".
        fonts: folder of the unpacked package of the fonts.
    """
    [document] = [one for one in entries() if one["name"] == name]
    pages = [scan(draw(one, fonts), f"{name}:{number}") for number, one in enumerate(document["maps"], 1)]
    written = io.BytesIO()
    pages[0].save(written, "PDF", resolution=DPI, save_all=True, append_images=pages[1:], quality=75)
    return written.getvalue()


def draw(entry: dict[str, Any], fonts: Path) -> Image.Image:
    """One map: its country in spaced letters across the sheet, its regions, waters and towns, and a cartouche."""
    sheet = Image.new("L", SIZE, 255)
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((MARGIN, MARGIN, SIZE[0] - MARGIN, SIZE[1] - MARGIN), outline=0, width=3)
    pen.rectangle((MARGIN + 12, MARGIN + 12, SIZE[0] - MARGIN - 12, SIZE[1] - MARGIN - 12), outline=0)

    def font(face: str, size: int) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(str(fonts / FONTS / f"LinLibertine_{face}.otf"), size)

    def place(east: float, north: float) -> tuple[float, float]:
        across = (east - entry["west"]) / (entry["east"] - entry["west"])
        down = (entry["north"] - north) / (entry["north"] - entry["south"])
        return 130 + across * (SIZE[0] - 260), 130 + down * (SIZE[1] - 260)

    _coasts(pen, entry["title"])
    name, east, north, angle = entry["country"]
    spread(sheet, name, place(east, north), font("R", 92), angle=angle, step=min(190.0, 1150 / len(name)), bend=0.0)
    for name, east, north in entry["regions"]:
        spread(sheet, name.upper(), place(east, north), font("R", 34), angle=-4, step=52, bend=0.0)
    for name, east, north, angle in entry["waters"]:
        spread(sheet, name, place(east, north), font("RI", 40), angle=angle, step=0, bend=14.0)
    for name, east, north in entry["towns"]:
        x, y = place(east, north)
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), outline=0, width=2)
        pen.text((x + 9, y - 14), name, font=font("R", 21), fill=0)
    _cartouche(pen, entry, font("RB", 46), font("RI", 26))
    return sheet


def _coasts(pen: ImageDraw.ImageDraw, seed: str) -> None:
    """Made-up lines: two coasts, a river and a road."""
    random = np.random.default_rng(list(seed.encode()))
    for width in (3, 3, 2, 1):
        steps = np.cumsum(random.normal(0, 16, (160, 2)), axis=0) + [10.0, 0.0] * np.arange(160)[:, None]
        start = random.uniform((100, 200), (300, SIZE[1] - 200))
        points = np.clip(start + steps, MARGIN + 20, np.array(SIZE) - MARGIN - 20)
        pen.line([tuple(point) for point in points.tolist()], fill=90, width=width)


def spread(
    sheet: Image.Image,
    text: str,
    centre: tuple[float, float],
    font: ImageFont.FreeTypeFont,
    *,
    angle: float,
    step: float,
    bend: float,
) -> None:
    """Draw letters along a line through `centre`, `step` pixels apart (0: their own width), turned with it."""
    widths = [step or font.getlength(letter) + 2 for letter in text]
    along = np.cumsum(widths) - np.array(widths) / 2 - sum(widths) / 2
    direction = math.radians(angle)
    for letter, distance, width in zip(text, along.tolist(), widths, strict=True):
        lean = bend * distance / max(sum(widths) / 2, 1)
        box = int(max(width, font.size) * 1.8)
        tile = Image.new("L", (box, box), 0)
        ImageDraw.Draw(tile).text((box / 2, box / 2), letter, font=font, fill=255, anchor="mm")
        tile = tile.rotate(-angle - lean, resample=Image.Resampling.BICUBIC)
        x = centre[0] + distance * math.cos(direction)
        y = centre[1] + distance * math.sin(direction) + abs(lean)
        sheet.paste(0, (int(x - box / 2), int(y - box / 2)), tile)


def _cartouche(
    pen: ImageDraw.ImageDraw, entry: dict[str, Any], large: ImageFont.FreeTypeFont, small: ImageFont.FreeTypeFont
) -> None:
    width = max(large.getlength(entry["title"]), small.getlength(entry["sheet"])) + 60
    left, top = SIZE[0] - MARGIN - 40 - width, SIZE[1] - MARGIN - 190
    pen.rectangle((left, top, left + width, top + 150), fill=255, outline=0, width=3)
    pen.text((left + width / 2, top + 55), entry["title"], font=large, fill=0, anchor="mm")
    pen.text((left + width / 2, top + 112), entry["sheet"], font=small, fill=0, anchor="mm")
