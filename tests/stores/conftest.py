from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores.backends import BACKENDS, Open, opening


@pytest.fixture(params=BACKENDS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens a store of each kind; called again it opens the same one."""
    with opening(request.param, tmp_path) as open_:
        yield open_
