"""Adds the pixels under an older Pillow to the goldens: Pillow 13 rounds some resized pixels differently by one level.

The references resize with whatever Pillow is installed, and so does the package; equal means equal under one Pillow.
Run with that Pillow before the others on the path, after `generate.py`::

    pip install --no-deps --target /some/folder pillow==12.0.0
    PYTHONPATH=/some/folder python -m tests.parity.older_pillow
"""

from __future__ import annotations

import json
from pathlib import Path

import PIL

from . import torchvision_shim  # noqa: F401  # isort: skip  (must come before the two libraries)

from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from . import configs, goldens
from .generate import _processor_arguments
from .measures import fingerprint

TARGET = Path(__file__).parent / "fixtures" / "pixels_pillow12.json"


def main() -> None:
    """Writes the file."""
    tiled = Idefics3ImageProcessorPil(**_processor_arguments(configs.idefics3("")))
    square = SiglipImageProcessorPil(**_processor_arguments(configs.SIGLIP))
    content = {
        name: {page: fingerprint(values) for page, (values, _) in goldens.pixels(processor).items()}
        for name, processor in (("paligemma", square), ("idefics3", tiled))
    }
    text = json.dumps({"pillow": PIL.__version__, **content}, separators=(",", ":"))
    TARGET.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
