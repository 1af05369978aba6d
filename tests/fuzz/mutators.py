"""Changes of inputs that keep enough of their structure to be read on."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

from tests.fuzz.choices import Choices

Mutator: TypeAlias = Callable[[bytes, Random, Sequence[bytes]], bytes]

_NUMBERS = (b"0", b"-1", b"1", b"255", b"65536", b"2147483647", b"4294967296", b"99999999999999999999", b"1e99")


def changed_bytes(choices: Choices, content: bytes) -> bytes:
    """A copy with up to four other bytes, and perhaps without its end."""
    changed = bytearray(content)
    for _ in range(1 + choices.byte() % 4 if changed else 0):
        changed[choices.below(len(changed))] = choices.byte()
    if choices.byte() % 8 == 0:
        del changed[choices.below(len(changed) + 1) :]
    return bytes(changed)


def of_bytes(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Flip, set, insert, repeat, drop and cut bytes, or splice two inputs.

    Args:
        data: an input.
        random: the source of all decisions.
        others: inputs to splice with.
    """
    changed = bytearray(data)
    for _ in range(1 << random.randrange(5)):
        at = random.randrange(len(changed) + 1)
        kind = random.randrange(8)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
        elif kind == 2:
            changed[at:at] = random.randbytes(1 + random.randrange(8))
        elif kind == 3:
            del changed[at : at + 1 + random.randrange(16)]
        elif kind == 4 and len(changed) < 2**20:
            changed[at:at] = changed[at : at + random.randrange(64)] * (1 + random.randrange(4))
        elif kind == 5:
            width = random.choice((2, 4, 8))
            value = random.choice((0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1))
            changed[at : at + width] = value.to_bytes(width, random.choice(("big", "little")))
        elif kind == 6 and random.randrange(8) == 0:
            del changed[at:]
        elif kind == 7 and others:
            other = random.choice(others)
            start = random.randrange(len(other) + 1)
            changed[at : at + random.randrange(64)] = other[start : start + random.randrange(256)]
    return bytes(changed)


def of_choices(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Decisions of `Choices`: mostly new ones."""
    if random.randrange(4) or not data:
        return random.randbytes(4 + random.randrange(200))
    return of_bytes(data, random, others)


def of_png(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Change, drop, double and swap chunks; checksums fit."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return of_bytes(data, random, others)
    chunks, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += length + 12
    for _ in range(1 + random.randrange(3)):
        index, kind = random.randrange(len(chunks)), random.randrange(6)
        name, content = chunks[index]
        if name == b"IDAT" and kind < 3:
            chunks[index] = name, zlib.compress(of_bytes(_inflated(content), random, ()))
        elif kind < 4:
            chunks[index] = name, of_bytes(content, random, ())
        elif kind == 4 and len(chunks) > 1:
            chunks.pop(index)
        else:
            chunks.insert(index, random.choice(chunks))
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return data[:8] + b"".join(parts)


def _inflated(content: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, 2**20)
    except zlib.error:  # a chunk that was changed already
        return content


def of_pdf(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Replace numbers, names and references between objects; pdfium rebuilds the table of objects."""
    kind = random.randrange(4)
    if kind == 0:
        return of_bytes(data, random, others)
    pattern = (rb"-?\d+(\.\d+)?", rb"/[A-Za-z]+", rb"\d+ 0 R")[kind - 1]
    places = list(re.finditer(pattern, data))
    if not places:
        return of_bytes(data, random, others)
    for place in sorted(random.sample(places, min(len(places), 1 + random.randrange(4))), key=lambda one: -one.start()):
        other = random.choice(_NUMBERS) if kind == 1 else random.choice(places)[0]
        data = data[: place.start()] + other + data[place.end() :]
    return data
