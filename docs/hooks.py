"""MkDocs: draw the pictures of the concepts page before the pages are built, and keep the pages off the network."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# The theme loads this for search in pages that are opened from a file; ours stands beside the pages.
REMOTE, LOCAL = "https://unpkg.com/iframe-worker/shim", "frame_worker.js"


def on_pre_build(config: Any) -> None:
    """Draw the missing pictures."""
    spec = importlib.util.spec_from_file_location("pictures", HERE / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    pictures.draw(HERE / "pictures")


def on_post_page(output: str, **_: Any) -> str:
    """Replace the script that the theme would fetch.

    Raises:
        ValueError: the page fetches another one.
    """
    local = output.replace(REMOTE, LOCAL)
    if 'src="https://' in local:
        raise ValueError("a page fetches a script or picture from the network; see docs/hooks.py")
    return local


def on_post_template(output_content: str, **_: Any) -> str:
    """`on_post_page` for pages without a source, such as 404.html."""
    return output_content.replace(REMOTE, LOCAL)
