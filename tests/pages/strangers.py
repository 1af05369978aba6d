"""Image files as a stranger may write them: promised sizes, frames, EXIF data."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{} loop\nshowpage\n%%EOF\n"


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(
    width: int, height: int, *, rows: int | None = None, colour: int = 0, bits: int = 1, extra: bytes = b""
) -> bytes:
    """A black PNG of any size, of a few kilobytes: `colour` 0 is grey, 2 RGB, 3 a palette, 6 RGBA; `rows` for fewer."""
    samples = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    row = bytes((width * bits * samples + 7) // 8 + 1)
    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(row) for _ in range(height if rows is None else rows)), packer.flush()])
    palette = chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\0") if colour == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + palette + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def frames(count: int, size: tuple[int, int] = (7, 5)) -> list[Image.Image]:
    """Pictures of one grey each, with another grey per frame."""
    return [Image.new("L", size, 20 + 40 * index % 230) for index in range(count)]


def tiff(pictures: Sequence[Image.Image], **options: Any) -> bytes:
    return encoded(pictures[0], "TIFF", save_all=True, append_images=list(pictures[1:]), **options)


class Directory:
    """A frame of `plain_tiff`: entries (tag, type, count, value), and where the next directory is."""

    def __init__(self, grey: int, **tags: int) -> None:
        self.grey, self.tags = grey, tags

    def entries(self, at: int) -> list[tuple[int, int, int, int]]:
        values = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: at, 277: 1, 278: 1, 279: 1}
        values |= {int(name[1:]): value for name, value in self.tags.items()}
        return [(tag, 4, 1, value) for tag, value in sorted(values.items())]


def plain_tiff(directories: Sequence[Directory], *, order: str = "<", big: bool = False, last: int = 0) -> bytes:
    """A TIFF of frames of one pixel; `last` is the position after the last directory, 0 for the end."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HHHQ" if big else f"{order}HI", *_head(big))
    parts, position = [head], len(head)
    for index, directory in enumerate(directories):
        entries = directory.entries(0)
        length = struct.calcsize("<QQ" if big else "<HI") + len(entries) * (20 if big else 12)
        grey_at = position + length
        following = last if index == len(directories) - 1 else grey_at + 2
        fields = b"".join(
            struct.pack(f"{order}HHQQ" if big else f"{order}HHII", *one) for one in directory.entries(grey_at)
        )
        count = struct.pack(f"{order}Q" if big else f"{order}H", len(entries))
        parts += [
            count,
            fields,
            struct.pack(f"{order}Q" if big else f"{order}I", following),
            bytes([directory.grey, 0]),
        ]
        position = grey_at + 2
    return b"".join(parts)


def _head(big: bool) -> tuple[int, ...]:
    return (43, 8, 0, 16) if big else (42, 8)


def mutated(content: bytes, chance: random.Random, start: int, end: int) -> bytes:
    """Some bytes of `content[start:end]` replaced."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(start, end)] = chance.randrange(256)
    return bytes(changed)


def noise(size: tuple[int, int], bands: int) -> Image.Image:
    shape = (size[1], size[0], bands) if bands > 1 else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
