"""Targets that read PDFs, pictures and the messages of the processes that read PDFs."""

from __future__ import annotations

import io
import json
import math
import struct
import threading
from collections.abc import Sequence
from contextlib import closing
from random import Random
from typing import Any

from PIL import Image, UnidentifiedImageError

from colpali_integrations.pages._process import Reply, WorkerEndedError
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.isolation import IsolatedReader, WorkerPool, _Slot
from colpali_integrations.pages.pdf import open_pdf
from colpali_integrations.pdfium.limits import Limits
from colpali_integrations.pdfium.messages import HEAD_BYTES, lengths, unpack
from tests.fuzz import mutators
from tests.fuzz.choices import Choices
from tests.fuzz.engine import Target

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000")


def pdf(data: bytes) -> None:
    """The text, label, size and picture of two pages, read in a worker process."""
    with closing(open_pdf(data)) as opened:
        for number in range(1, min(2, opened.page_count) + 1):
            opened.text(number)
            opened.label(number)
            width, height = opened.size(number)
            assert math.isfinite(width)
            assert math.isfinite(height)
            opened.render(number, 20)


def image(data: bytes) -> None:
    """Pictures of all formats."""
    assert load_image(data).mode == "RGB"


def exif(data: bytes) -> None:
    """Pictures with damaged EXIF blocks: the picture, turned or not, or an `ImageError`."""
    choices = Choices(data)
    format_ = choices.pick(("PNG", "JPEG", "WEBP", "TIFF"))
    orientation = choices.byte() % 10
    block = bytearray(
        b"Exif\0\0" + _EXIF[choices.byte() % 2] + struct.pack("<HHIH", 0x0112, 3, 1, orientation) + b"\0" * 6
    )
    for _ in range(choices.byte() % 6):
        block[6 + choices.below(len(block) - 6)] = choices.byte()
    block += choices.rest()[:64]
    written = io.BytesIO()
    try:
        _PICTURE.save(written, format_, exif=bytes(block))
    except Exception:  # Pillow's writer reads the block of a TIFF itself
        return
    try:
        with Image.open(written) as image:
            size = image.size  # the block of a TIFF may replace its own size
    except UnidentifiedImageError:  # and all else that makes it one
        size = None
    loaded = load_image(written.getvalue())
    assert size is not None
    assert loaded.size in (size, size[::-1])


_EXIF = (b"II*\0\x08\0\0\0\x01\0", b"MM\0*\0\0\0\x08\0\x01")
_PICTURE = Image.new("RGB", (4, 3), "red")


class _Process:
    """Stands in for a worker process whose replies are the bytes of an input."""

    over_memory = "it takes too much memory"
    alive = True
    answered = 0
    id = 0

    def __init__(self, replies: bytes) -> None:
        self._replies = io.BytesIO(replies)

    def ask(self, fields: object, data: bytes = b"", *, seconds: float) -> Reply:
        try:
            fields_length, data_length = lengths(self._replies.read(HEAD_BYTES).ljust(HEAD_BYTES, b"\0"))
            answer = unpack(self._replies.read(min(fields_length, 2**16)))
            return Reply(answer, bytearray(self._replies.read(min(data_length, 2**16))), 0.0)
        except (EOFError, ValueError) as error:
            raise WorkerEndedError("it breaks the process that reads PDFs") from error

    def pixels(self, reply: Reply, length: int) -> memoryview:
        return memoryview(reply.data)[:length]

    def free(self, used: int) -> None:
        pass

    def kill(self) -> None:
        pass


class _PlayedSlot(_Slot):
    def __init__(self, replies: bytes) -> None:
        super().__init__(Limits())
        self._process = _Process(replies)

    def _running(self) -> tuple[Any, bool]:
        return self._process, True


class _PlayedPool(WorkerPool):
    def __init__(self, replies: bytes) -> None:
        self._slots, self._lock, self._waiting = [_PlayedSlot(replies)], threading.Lock(), []


def replies(data: bytes) -> None:
    """Replies of a worker process that a PDF has taken over."""
    choices = Choices(data)
    messages = []
    for fields, content in _REPLIES:
        fields = choices.changed(fields, ("error", "memory", "cpu"))
        body = json.dumps(fields).encode() if choices.byte() % 16 else choices.take(choices.byte())
        content = content if choices.byte() % 8 else choices.take(choices.byte())
        messages.append(struct.pack(">IQ", len(body), len(content)) + body + content)
    reader = IsolatedReader(b"%PDF", None, _PlayedPool(b"".join(messages)))
    assert 0 <= reader.page_count <= 1_000_000
    assert all(map(math.isfinite, reader.size(1)))
    assert isinstance(reader.text(1).text, str)
    assert isinstance(reader.label(1), str)
    picture, dpi = reader.draw(1, 72.0)
    assert picture.size == (2, 2) or picture.width * picture.height < 2**16
    assert math.isfinite(dpi)


_REPLIES: list[tuple[dict[str, Any], bytes]] = [
    ({"page_count": 1, "cpu": 0.1, "grown": 0}, b""),
    ({"width": 612.0, "height": 792.0, "cpu": 0.1, "grown": 0}, b""),
    ({"missing_fonts": ["F"], "cpu": 0.1, "grown": 0}, b"Ebbe"),
    ({"label": "iv", "cpu": 0.1, "grown": 0}, b""),
    ({"width": 2, "height": 2, "stride": 6, "dpi": 72.0, "cpu": 0.1, "grown": 0}, bytes(12)),
]


def _of_pictures(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    mutate = mutators.of_png if data.startswith(b"\x89PNG") and random.randrange(4) else mutators.of_bytes
    return mutate(data, random, others)


TARGETS = [
    Target("pdf", pdf, mutators.of_pdf),
    Target("image", image, _of_pictures),
    Target("exif", exif),
    Target("replies", replies),
]
