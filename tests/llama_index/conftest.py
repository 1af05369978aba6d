"""Fixtures of several modules."""

from __future__ import annotations

import pytest

from tests.llama_index.suite import CountingModel, counting_model


@pytest.fixture
def encoded() -> CountingModel:
    """The model of `counting_store()`, whose counts begin at 0."""
    counting_model().reset()
    return counting_model()
