"""Peak memory of decoding, in bytes per pixel, beside the bytes that are counted: `python -m tests.pages.peaks`."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from colpali_integrations.pages import load_image
from colpali_integrations.pages.decoding import _decoding_bytes, _exif_orientation, open_picture
from colpali_integrations.pages.formats import ImageLimits
from tests.pages.strangers import encoded

WIDTH, HEIGHT = 3000, 2000


def pictures() -> dict[str, Callable[[], bytes]]:
    grey = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 256, (250, 375), np.uint8), 8, 0), 8, 1)
    one = Image.fromarray(grey)
    rgb, rgba = Image.merge("RGB", [one] * 3), Image.merge("RGBA", [one] * 4)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "1 bit": lambda: encoded(one.convert("1"), compress_level=1),
        "palette with transparency": lambda: encoded(one.convert("P"), transparency=0, compress_level=1),
        "RGB": lambda: encoded(rgb, compress_level=1),
        "RGB turned": lambda: encoded(rgb, exif=turned, compress_level=1),
        "RGBA": lambda: encoded(rgba, compress_level=1),
        "16 bits": lambda: encoded(deep, compress_level=1),
        "JPEG": lambda: encoded(rgb, "JPEG"),
        "progressive JPEG": lambda: encoded(rgb, "JPEG", progressive=True),
        "progressive CMYK": lambda: encoded(rgb.convert("CMYK"), "JPEG", progressive=True),
        "WebP": lambda: encoded(rgba, "WEBP", method=0, quality=10),
        "JPEG 2000": lambda: encoded(rgb, "JPEG2000", quality_layers=[400]),
        "TIFF in one strip": lambda: encoded(rgb, "TIFF", compression="tiff_lzw", tiffinfo={278: HEIGHT}),
        "TIFF of floats": lambda: encoded(one.convert("F"), "TIFF"),
    }


def memory(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure(make: Callable[[], bytes]) -> tuple[float, float]:
    """Peak and counted bytes, per pixel, in a process of its own."""
    reader, writer = os.pipe()
    file = Path(tempfile.gettempdir()) / f"peaks-{os.getpid()}"
    if os.fork() == 0:  # so that no memory is free in the process that is measured
        file.write_bytes(make())
        os._exit(0)
    os.wait()
    content = file.read_bytes()
    file.unlink()
    if os.fork() == 0:
        picture = open_picture(io.BytesIO(content), "", ImageLimits())
        counted = _decoding_bytes(picture, _exif_orientation(picture))
        del picture
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before = memory("VmRSS")
        load_image(content)
        found = [(memory("VmHWM") - before) / (WIDTH * HEIGHT), counted / (WIDTH * HEIGHT)]
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.wait()
    os.close(writer)
    with os.fdopen(reader) as numbers:
        peak, counted = json.load(numbers)
    return peak, counted


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: measure(make) for name, make in pictures().items()}))
