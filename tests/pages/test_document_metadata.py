"""Documents as pages: identity, metadata, and what a closed document holds."""

from __future__ import annotations

import weakref
from pathlib import Path

from colpali_integrations.pages.document import PagedDocument
from tests.stores.documents import draw


def test_a_closed_image_holds_no_pixels(tmp_path: Path) -> None:
    draw("violin").save(tmp_path / "a.png")
    document = PagedDocument(tmp_path / "a.png")
    picture = weakref.ref(document.page(1).draw())
    assert picture() is not None
    document.close()
    assert picture() is None
    assert document.page(1).draw().size == (700, 300)


def test_extra_metadata_are_stored_and_do_not_identify(tmp_path: Path) -> None:
    draw("violin").save(tmp_path / "a.png")
    plain = PagedDocument(tmp_path / "a.png", metadata={"tenant": "north"})
    with PagedDocument(
        tmp_path / "a.png", metadata={"tenant": "north"}, extra_metadata={"tenant": "?", "n": 1}
    ) as more:
        assert more.document_id == plain.document_id
        assert more.page(1).metadata == {**plain.page(1).metadata, "n": 1}
