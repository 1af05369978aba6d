"""What a store keeps about a page, what it answers with, and by which model its vectors were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from colpali_integrations.core.errors import FingerprintError, StoreError
from colpali_integrations.core.page_meta import page_name
from colpali_integrations.core.registry import ModelDescription

__all__ = ["Fingerprint", "Hit", "Page", "page_key"]


def page_key(content_hash: str, dpi: float | None) -> str:
    """By what a store knows a page: drawn at another resolution it is another page. An image has no resolution.

    >>> page_key("1f", 150.0)
    '1f@150'
    """
    return content_hash if dpi is None else f"{content_hash}@{dpi:g}"


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page without its pixels: enough to find it again, to show it and to recognise it.

    Attributes:
        source: the path (or URI) of the document or image.
        page: 1-based number within the source; 1 for an image.
        width: in points for a PDF page, in pixels for an image.
        height: as `width`.
        content_hash: what tells one page from another, wherever its document lies; see `core.page_meta.page_hash`.
        text: the text layer, "" where there is none.
        page_count: number of pages of the source.
        dpi: the resolution at which a PDF page was drawn; None for an image.
        metadata: anything else that JSON can hold.
    """

    source: str
    page: int
    width: float
    height: float
    content_hash: str
    text: str = ""
    page_count: int = 1
    dpi: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what could not be found again.

        Raises:
            StoreError: no source, no hash, or a page number below 1.
        """
        if not self.source or not self.content_hash:
            raise StoreError(f"a page needs a source and a content_hash, got {self.source!r} and {self.content_hash!r}")
        if self.page < 1:
            raise StoreError(f"page numbers are 1-based, got {self.page} for {self.source}")

    @property
    def name(self) -> str:
        """The page as a person would name it: "report.pdf, page 7"."""
        return page_name(self.source, self.page)

    @property
    def key(self) -> str:
        """By what a store knows the page, see `page_key`."""
        return page_key(self.content_hash, self.dpi)

    @property
    def content(self) -> str:
        """The text layer, or the page's name where it has none: a page must never look empty to a framework."""
        return self.text.strip() or self.name

    @property
    def reference(self) -> dict[str, Any]:
        """JSON-safe metadata with the keys of `core.page_meta`, from which `page_image` draws the page again."""
        found = {
            "source": self.source,
            "page": self.page,
            "page_count": self.page_count,
            "width": self.width,
            "height": self.height,
            "dpi": self.dpi,
            "content_hash": self.content_hash,
        }
        return {**self.metadata, **{key: value for key, value in found.items() if value is not None}}

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, JSON-safe."""
        return {**asdict(self), "metadata": dict(self.metadata)}


@dataclass(frozen=True)
class Hit:
    """A page that was found.

    Attributes:
        page: the page.
        score: MaxSim, the sum over the query's vectors of their best dot product on the page. It grows with the
            number of query vectors: it ranks the pages of one query and compares nothing else.
    """

    page: Page
    score: float


@dataclass(frozen=True)
class Fingerprint:
    """By which model the vectors of a store were made; vectors of two models must never meet.

    Attributes:
        name: what `ColPali.from_pretrained` was called with; shown to people, not compared.
        family: the processor family.
        dim: length of a vector.
        description: hash over everything that decides an embedding (`ModelDescription.fingerprint`).
    """

    name: str
    family: str
    dim: int
    description: str

    @classmethod
    def of(cls, model: ModelDescription) -> Fingerprint:
        """The fingerprint of a model's description."""
        return cls(name=model.name, family=model.family, dim=model.dim, description=model.fingerprint)

    def require(self, other: Fingerprint, *, where: str) -> None:
        """Check that `other` is the same model; `self` is the store's.

        Args:
            other: the model at hand.
            where: the store, for the message.

        Raises:
            FingerprintError: it is another model; the message shows both and says what to do.
        """
        if (self.family, self.dim, self.description) == (other.family, other.dim, other.description):
            return
        raise FingerprintError(
            f"the store {where} was made by {self}, and the model at hand is {other}. Their vectors cannot be "
            f"compared: use the model {self.name!r}, or make a new store with {other.name!r} in another folder."
        )

    def __str__(self) -> str:
        return f"{self.name} (family {self.family}, dim {self.dim}, description {self.description})"
