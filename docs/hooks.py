"""MkDocs: draw the pictures of the concepts page before the pages are built."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def on_pre_build(config: Any) -> None:
    """Draw what is not there yet."""
    spec = importlib.util.spec_from_file_location("pictures", HERE / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    pictures.draw(HERE / "pictures")
