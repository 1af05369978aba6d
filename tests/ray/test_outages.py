"""A server that is away during a run of a cluster."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.data
from PIL import Image

from colpali_integrations.errors import StoreError
from colpali_integrations.ray import QdrantServer, embed_pages
from colpali_integrations.stores import MultiVectorStore
from tests.stores.qdrant.stand_in import StandIn, stand_in

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context"),
    pytest.mark.filterwarnings("ignore:The minimum number of concurrent actors:UserWarning"),
]


@pytest.fixture
def pictures(tmp_path: Path) -> Any:
    """A dataset of eight small pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(8):
        dots = np.random.default_rng(number).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(dots).save(folder / f"{number}.png")
    return ray.data.read_binary_files(str(folder), include_paths=True)


def after_the_first_pages(server: StandIn, seconds: float | None) -> threading.Thread:
    """Stop a server once it has stored pages, and start it again after some seconds."""

    def outage() -> None:
        while not any(path.endswith("/points") and method == "PUT" for method, path, _ in [*server.asked]):
            time.sleep(0.005)
        server.stop()
        if seconds is not None:
            time.sleep(seconds)
            server.start()

    thread = threading.Thread(target=outage)
    thread.start()
    return thread


def test_writers_wait_for_a_server_that_was_away(pictures: Any) -> None:
    with stand_in() as server:
        output = QdrantServer([server.url], "manuals")
        thread = after_the_first_pages(server, 30)
        report = embed_pages(pictures, output=output, workers=1, batch_size=1, pages_per_file=1)
        thread.join()
        assert (report.added, report.failures) == (8, [])
        with MultiVectorStore.open(url=server.url, collection_name="manuals") as store:
            assert len({entry.id for entry in store.scroll()}) == len(store) == 8


def test_a_run_that_gives_up_says_how_to_go_on(pictures: Any) -> None:
    with stand_in() as server:
        output = QdrantServer(server.url, "manuals", {"retry_seconds": [1, 2]})
        thread = after_the_first_pages(server, None)
        with pytest.raises(
            StoreError, match=r"tried again for \d s\)\. .* stored by this run.*; run it again"
        ) as caught:
            embed_pages(pictures, output=output, workers=1, batch_size=1, pages_per_file=1)
        assert "'manuals' at " in str(caught.value)
        thread.join()
        server.start()
        report = embed_pages(pictures, output=output, workers=1)
        assert report.added + report.present == 8
        assert report.present >= 1
