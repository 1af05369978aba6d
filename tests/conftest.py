"""Models small enough to load in every test run; real architectures, random weights (see tests/parity)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from colpali_integrations import ColPali
from colpali_integrations.core import registry

FIXTURES = Path(__file__).parent / "parity" / "fixtures"


@pytest.fixture(scope="session")
def coltiny() -> ColPali:
    return ColPali.from_pretrained()


@pytest.fixture(scope="session")
def paligemma() -> ColPali:
    return ColPali.from_pretrained("Qdrant/colpali-v1.3-fp16", local_dir=FIXTURES / "paligemma")


@pytest.fixture(scope="session")
def idefics3() -> ColPali:
    return ColPali.from_pretrained("Qdrant/colmodernvbert", local_dir=FIXTURES / "colmodernvbert")


@pytest.fixture
def own_registry() -> Iterator[None]:
    """A registry that forgets what the test registers."""
    before = dict(registry._models)
    yield
    registry._models.clear()
    registry._models.update(before)
