"""References to pages, such as "report.pdf#page=3", and the pictures that they draw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess
from colpali_integrations.pages.document import DEFAULT_DPI
from colpali_integrations.pages.files import open_file
from colpali_integrations.pages.formats import DEFAULT_LIMITS, formats_of
from colpali_integrations.pages.identity import file_digest, page_hash, page_key, page_name, real_path
from colpali_integrations.pages.paged import is_paged
from colpali_integrations.pages.reference import draw_page, encode_png, names_picture, page_file

__all__ = ["PNG", "PageReference", "unchanged_type"]

PNG = "image/png"
# Formats that every provider of chat models accepts; other pictures are sent as PNG.
_SENT_UNCHANGED = {"PNG": PNG, "JPEG": "image/jpeg", "WEBP": "image/webp"}
_REFERENCE = re.compile(
    r"(?P<source>.+)#page=(?P<page>\d+)(?:&dpi=(?P<dpi>\d+(?:\.\d+)?))?(?:&sha256=(?P<sha256>[0-9a-f]{16}))?(?:&[^#]*)?",
    re.DOTALL,
)


class PageReference:
    """A page that is drawn when its `image` is first read; the picture stays in memory with this object.

    The string of a page of a PDF is "report.pdf#page=3&dpi=150&sha256=1f0c...": the fragment that PDF viewers
    understand (RFC 8118, section 3), and 16 digits of the page's content hash. If the file has changed since, drawing
    the page raises an error instead of returning the wrong picture.

    Args:
        metadata: `source`, `page` and perhaps `file_path`, `dpi` and `content_hash`; see `pages.document`.
        known: draw only a file that the metadata know by its `content_hash`: they may be those of a store.

    Example:
        >>> PageReference.parse("reports/2024.pdf#page=7&dpi=100").name
        '2024.pdf, page 7'
        >>> PageReference.parse("scan.png") is None
        True
    """

    def __init__(self, metadata: Mapping[str, Any], *, known: bool = False) -> None:
        self.metadata, self._known = metadata, known

    @classmethod
    def parse(cls, text: str) -> PageReference | None:
        """The page that a string refers to; None for any other string, such as the path of an existing file."""
        match = _REFERENCE.fullmatch(text)
        if match is None or text.startswith("data:") or Path(text).is_file():
            return None
        if text.startswith(("http://", "https://")) and match["sha256"] is None:
            return None  # with a content hash it is the source of a page whose metadata have its file
        optional = {"dpi": match["dpi"] and float(match["dpi"]), "content_hash": match["sha256"]}
        metadata = {"source": match["source"], "page": int(match["page"])}
        return cls({**metadata, **{name: value for name, value in optional.items() if value is not None}})

    @cached_property
    def image(self) -> Image.Image:
        """The picture; raises the errors of `draw`."""
        return self.draw()

    def draw(self, access: PageAccess = DEFAULT_ACCESS, *, dpi: float | None = None) -> Image.Image:
        """Draw the picture, at the reference's resolution or at `dpi`.

        Args:
            access: how the file is opened.
            dpi: as for `page_image`.

        Raises:
            InputError: the file is missing, has changed since it was indexed, or is outside of the permitted folders.
            PdfError: the file cannot be read, or has no such page.
        """
        return draw_page(self.metadata, access, dpi=dpi, known=self._known)

    def encode(self, access: PageAccess = DEFAULT_ACCESS, *, dpi: float | None = None) -> tuple[bytes, str]:
        """Content and MIME type of the picture for a chat model: an image file unchanged, or a PNG.

        Args:
            access: as for `draw`.
            dpi: as for `draw`.

        Raises:
            InputError: as `draw`.
        """
        if "image_base64" not in self.metadata and not names_picture(self.metadata):
            path, number = page_file(self.metadata, access, known=self._known)
            if number == 1 and (kind := unchanged_type(path)):
                return Path(path).read_bytes(), kind
        return encode_png(self.draw(access, dpi=dpi)), PNG

    @property
    def key(self) -> str:
        """Equal for pages of equal vectors; see `pages.identity.page_key`."""
        whole = self.completed().metadata
        return page_key(whole["content_hash"], whole.get("dpi"))

    def completed(self, access: PageAccess = DEFAULT_ACCESS) -> PageReference:
        """The reference with the content hash of its file, the file's real path and the resolution of a PDF.

        Raises:
            InputError: the file cannot be read, has changed, or is outside of the permitted folders.
        """
        if self.is_complete:
            return self
        path, number = page_file(self.metadata, access, known=self._known)
        found: dict[str, Any] = {"file_path": real_path(path), "content_hash": page_hash(file_digest(path), number)}
        if is_paged(path):
            found["dpi"] = self.metadata.get("dpi") or DEFAULT_DPI
        return PageReference({**self.metadata, **found})

    @property
    def is_complete(self) -> bool:
        """Whether the reference has the whole content hash of its page."""
        content_hash = self.metadata.get("content_hash")
        return isinstance(content_hash, str) and len(content_hash) == 64

    @property
    def name(self) -> str:
        """The name of the page in messages."""
        return page_name(self.metadata["source"], self.metadata["page"])

    def __str__(self) -> str:
        text = f"{self.metadata['source']}#page={self.metadata['page']}"
        if "dpi" in self.metadata:
            text += f"&dpi={self.metadata['dpi']:g}"
        # LlamaIndex's hash of an ImageNode covers path and text but no metadata: by this, an upserting document store
        # recognises a scan that was replaced under its old name.
        if "content_hash" in self.metadata:
            text += f"&sha256={self.metadata['content_hash'][:16]}"
        return text


def unchanged_type(path: str) -> str | None:
    """The MIME type of an image file that every chat model accepts, by its first bytes; files of these have one page.

    None for any other file, also one that cannot be read: drawing it raises the error.
    """
    if is_paged(path):  # as in drawing
        return None
    try:
        with open_file(path) as file:
            prefix = file.read(16)
    except (OSError, ValueError):
        return None
    return _SENT_UNCHANGED.get(next(formats_of(prefix, "", DEFAULT_LIMITS), ""))
