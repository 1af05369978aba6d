"""A store of two documents, in the folder of which pages are shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from colpali_integrations import ColPali
from colpali_integrations.agents.tools import PageTools
from colpali_integrations.pages.access import PageAccess
from colpali_integrations.stores import MultiVectorStore, index_documents
from colpali_integrations.stores.current import CurrentStore
from tests.conftest import few_pages


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory, coltiny: ColPali) -> Path:
    """The folder of the documents "report.pdf" (on palettes, and on the seats in a parliament) and "notes/geyser.pdf".

    Its "index" holds both, with a year each.
    """
    folder = tmp_path_factory.mktemp("library")
    (folder / "notes").mkdir()
    few_pages(folder / "report.pdf", [3, 7])
    few_pages(folder / "notes" / "geyser.pdf", [6, 8, 11])
    for path, year in (("report.pdf", 2020), ("notes/geyser.pdf", 2024)):
        index_documents([folder / path], model=coltiny, store=folder / "index", metadata={"year": year})
    return folder


@pytest.fixture(scope="session")
def tools(library: Path, coltiny: ColPali) -> Iterator[PageTools]:
    with MultiVectorStore.open(library / "index", model=coltiny, read_only=True) as store:
        yield PageTools(CurrentStore(store), access=lambda: PageAccess.of(roots=[library]))
