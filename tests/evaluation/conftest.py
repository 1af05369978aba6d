"""A store of five pages in two documents, and questions about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from colpali_integrations import ColPali, MultiVectorStore, index_documents
from tests.stores.documents import make_folder


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fruit.pdf with two pages ("apples", "bananas"), and a scan."""
    return make_folder(tmp_path_factory.mktemp("evaluation") / "documents")


@pytest.fixture(scope="session")
def folder(documents: Path, coltiny: ColPali) -> Path:
    """The folder of the store, which no test changes."""
    target = documents.parent / "store"
    index_documents([documents], model=coltiny, store=target, dpi=100)
    return target


@pytest.fixture
def store(folder: Path, coltiny: ColPali) -> MultiVectorStore:
    return MultiVectorStore.open(folder, model=coltiny, read_only=True)
