"""Found pages as the answer of a tool: per page its name, its text and its picture, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from colpali_integrations._options import checked_whole, shown
from colpali_integrations.agents.captions import caption
from colpali_integrations.agents.pictures import BUDGET, PagePicture, page_pictures
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess

__all__ = [
    "DESCRIPTION",
    "MAX_TEXT",
    "NAME",
    "PICTURES_FOLLOW",
    "SEEMS_UNANSWERED",
    "FoundPage",
    "Images",
    "Presentation",
    "nothing_found",
]

NAME = "search_pages"
"""The name by which an agent calls a search for pages."""
DESCRIPTION = (
    "Find the pages of the indexed documents that answer a question. The answer has the name of each page, the best "
    'first, such as "report.pdf, page 7", its text and its picture. Read tables, charts and scans from the pictures. '
    "Name the pages that you take an answer from."
)
"""What an agent learns about the search."""
MAX_TEXT = 4000
"""Characters of a page's text by default: a full page of print."""
SEEMS_UNANSWERED = (
    "No page seems to answer this question; these are the closest. Ask in other words, or in the language of the "
    "documents. If no page answers then either, say that it is not there."
)
"""What an agent is told before the pages of a search that is `doubtful`; see `stores.Hits.doubtful`."""
PICTURES_FOLLOW = "The pictures of these pages are in the user's next message."

Images: TypeAlias = Literal["tool", "user", False]
"""Where the pictures of a tool's answer are: in it, in a message of the user that follows, or nowhere."""


@dataclass(frozen=True, kw_only=True)
class FoundPage:
    """A page, or a text, as an agent sees it.

    Attributes:
        name: such as "report.pdf, page 7", for citations.
        text: the text layer; the name again, or "", for a scan.
        metadata: from which `pages.page_image` draws the page; None for a text.
        problem: the reason why a page has no picture.
    """

    name: str
    text: str
    metadata: Mapping[str, Any] | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """How a tool shows pages to an agent.

    Args:
        images: "tool" to show the pictures in the tool's answer, "user" to show them in a message of the user, which
            chat APIs need that take only text from tools; False for none.
        budget: bytes of all pictures of an answer, in base64.
        max_text: characters of the text of a page; 0 for none.
        access: how the files of pages are opened.

    Raises:
        ConfigurationError: an option has an invalid value.

    Example:
        >>> page = FoundPage(name="report.pdf, page 2", text="Seats in the parliament", metadata=None)
        >>> [(text, picture)] = Presentation(max_text=5).parts([page])
        >>> text.splitlines()
        ['report.pdf, page 2', 'Seats [18 more characters]']
    """

    images: Images = "tool"
    budget: int = BUDGET
    max_text: int = MAX_TEXT
    access: PageAccess = DEFAULT_ACCESS

    def __post_init__(self) -> None:
        if self.images not in ("tool", "user") and self.images is not False:  # 0 and True are other values
            raise ConfigurationError(f"images must be 'tool', 'user' or False, got {shown(self.images)}")
        checked_whole(self.budget, "budget")
        checked_whole(self.max_text, "max_text", 0)

    def parts(self, pages: Sequence[FoundPage], *, pictures: bool = False) -> list[tuple[str, PagePicture | None]]:
        """The text of each page, under its name, and its picture.

        Args:
            pages: in the order of the answer.
            pictures: whether to draw them. A page whose picture cannot be drawn has the reason in its text.
        """
        drawn = self._drawn(pages) if pictures else {}
        parts: list[tuple[str, PagePicture | None]] = []
        for index, page in enumerate(pages):
            picture = drawn.get(index)
            problem = page.problem if picture is None else picture.problem
            lines = [caption(page.name), _shortened(page, self.max_text)]
            if pictures and problem:
                lines.append(f"[no picture: {caption(problem)}]")
            parts.append(("\n".join(line for line in lines if line), picture or None))
        return parts

    def captions(self, pages: Sequence[FoundPage]) -> list[tuple[str, PagePicture | None]]:
        """The name and the picture of each page, for a message that shows the pictures beside the tool's answer."""
        return replace(self, max_text=0).parts(pages, pictures=True)

    def _drawn(self, pages: Sequence[FoundPage]) -> dict[int, PagePicture]:
        metadata = {index: page.metadata for index, page in enumerate(pages) if page.metadata is not None}
        access = self.access
        options: dict[str, Any] = {"password": access.password, "limits": access.limits, "roots": access.folders}
        return dict(zip(metadata, page_pictures(list(metadata.values()), self.budget, **options), strict=True))


def nothing_found(document: str | None) -> str:
    """The answer of a search without results, which tells the agent what to do next.

    Args:
        document: the name of the document that the agent searched; None for all.

    Example:
        >>> nothing_found(None)
        'No page was found.'
    """
    if document is None:
        return "No page was found."
    return (
        f"No page was found in {document!r}. Search all documents, without document, to see the names of the documents."
    )


def _shortened(page: FoundPage, most: int) -> str:
    text = page.text.strip()
    if text == page.name or not most:
        return ""
    return text if len(text) <= most else f"{text[:most].rstrip()} [{len(text) - most} more characters]"
