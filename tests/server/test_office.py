"""Uploads of Office files."""

from __future__ import annotations

from pathlib import Path

from tests.office.conftest import FakeSoffice, cache, fake_soffice  # noqa: F401 - fixtures
from tests.office.documents import Slide, pptx, shape
from tests.server.conftest import Start
from tests.server.test_documents import ended, send


def test_an_uploaded_office_file_is_stored_and_shown(
    start: Start,
    tmp_path: Path,
    fake_soffice: FakeSoffice,  # noqa: F811
) -> None:
    fake_soffice()
    server = start()
    (tmp_path / "deck.pptx").write_bytes(pptx(Slide(shape("a")), Slide(shape("b"), "low tide at six")))
    job = ended(server.client, send(server.client, tmp_path / "deck.pptx"))
    assert (job["state"], job["pages"]) == ("done", 2)
    query = {"query": "low tide at six", "k": 1, "filter": {"page": 2}}
    [hit] = server.client.post("/v1/search", json=query).json()["hits"]
    assert (hit["source"], hit["page"]) == ("deck.pptx", 2)
    picture = server.client.get(f"/v1/pages/{hit['id']}/image")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
