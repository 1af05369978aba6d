"""One local Ray for all tests, with two cores and a GPU that Ray counts but that does not exist."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
import ray
import ray.data
from PIL import Image

from tests.conftest import PAPER


@pytest.fixture(scope="package")
def local_ray(examples_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start Ray in a folder of documents, as `examples_folder`: its workers have the same current directory."""
    where = tmp_path_factory.mktemp("ray") / "examples"
    shutil.copytree(examples_template, where)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # no network
        patch.setenv("RAY_AUTH_MODE", "disabled")  # by default a token is written into the home folder
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as later versions do; others warn of it
        ray.init(
            address="local",  # not the Ray of another process of the tests
            num_cpus=2,
            num_gpus=1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=200 * 2**20,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield where
        ray.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with two pages of a PDF, a picture, and two damaged files."""
    documents = tmp_path / "in"
    documents.mkdir()
    with pypdfium2.PdfDocument(PAPER) as paper, pypdfium2.PdfDocument.new() as few:
        few.import_pages(paper, [2, 6])
        few.save(documents / "paper.pdf")
    stripes = np.zeros((60, 80, 3), np.uint8)
    stripes[::7] = 255
    Image.fromarray(stripes).save(documents / "stripes.png")
    shutil.copy(PAPER, documents / "torn.pdf")
    with (documents / "torn.pdf").open("r+b") as file:
        file.truncate(2000)
    (documents / "words.png").write_bytes(b"no picture")
    return documents
