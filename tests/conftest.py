"""Models small enough to load in every test run; real architectures, random weights (see tests/parity)."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pypdfium2
import pytest

from colpali_integrations import ColPali
from colpali_integrations.models import find_model, register_model, registry
from colpali_integrations.stores import index_documents

PAPER = Path(__file__).parents[1] / "demo" / "pdfs" / "hcl-colors.pdf"
FIXTURES = Path(__file__).parent / "parity" / "fixtures"


def pytest_configure(config: pytest.Config) -> None:
    """With QDRANT_PROFILE, run the tests of servers on a stand-in of another kind, such as "cloud"; see `profiled`."""
    if profile := os.environ.get("QDRANT_PROFILE"):
        from tests.stores.qdrant.profiled import profiled

        running = ExitStack()
        config.add_cleanup(running.close)
        os.environ |= running.enter_context(profiled(profile))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while all modules are imported, and later only in what the tests make."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def no_unclosed_loop() -> None:
    """Keep `asyncio.get_event_loop()` outside of a loop from making one that no test closes, an error at its end."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session", autouse=True)
def own_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which commands record what they have read, instead of the user's."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def coltiny() -> ColPali:
    return ColPali.from_pretrained()


@pytest.fixture(scope="session")
def paligemma() -> ColPali:
    return ColPali.from_pretrained("Qdrant/colpali-v1.3-fp16", local_dir=FIXTURES / "paligemma")


@pytest.fixture(scope="session")
def idefics3() -> ColPali:
    return ColPali.from_pretrained("Qdrant/colmodernvbert", local_dir=FIXTURES / "colmodernvbert")


@pytest.fixture(scope="session")
def one_space(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders "large" and "small": two checkpoints whose descriptions say that they are trained for one space."""
    large, small = (tmp_path_factory.mktemp("one-space") / name for name in ("large", "small"))
    shutil.copytree(FIXTURES / "colqwen2", large)
    shutil.copytree(FIXTURES / "colqwen2_5-base", small)
    for file in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(FIXTURES / "colqwen2_5" / file, small)
    image_prompt = "<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe the image.<|im_end|><|endoftext|>"
    description = {"family": "qwen2_vl", "space": "tests/one-space", "image_prompt": image_prompt}
    for folder in (large, small):
        (folder / "colpali_integrations.json").write_text(json.dumps({"description": description}))
    return large, small


@pytest.fixture
def own_registry() -> Iterator[None]:
    """A registry that forgets what the test registers."""
    before = dict(registry._models)
    yield
    registry._models.clear()
    registry._models.update(before)


@pytest.fixture
def two_revisions(own_registry: None, tmp_path: Path) -> list[dict[str, Any]]:
    """The options `model_name` and `local_dir` of two revisions of one registered model, "me/mine"."""
    register_model(replace(find_model("Hcompany/NeoMME-260M-Retriever"), name="me/mine", dim=64))
    first = FIXTURES / "neomme-float32"
    other = shutil.copytree(first, tmp_path / "other revision")
    (other / "config.json").write_bytes((first / "config.json").read_bytes() + b" ")
    return [{"model_name": "me/mine", "local_dir": folder, "threads": 1} for folder in (first, other)]


@pytest.fixture(scope="session")
def examples_template(tmp_path_factory: pytest.TempPathFactory, coltiny: ColPali) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    few_pages(folder / "report.pdf", [3, 7])
    (folder / "reports").mkdir()
    few_pages(folder / "reports" / "2024.pdf", [12])
    (folder / "questions.jsonl").write_text(
        '{"question": "diverging palettes", "source": "report.pdf", "page": 1, "kind": "words"}\n'
        '{"question": "who has a seat in the parliament", "source": "report.pdf", "page": 2, "kind": "paraphrase"}\n'
    )
    index_documents([folder / "report.pdf"], model=coltiny, store=folder / "my-index")
    return folder


@pytest.fixture
def examples_folder(examples_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the documentation's examples are run in.

    It holds report.pdf (two pages of a real paper: on palettes, and on the seats in a parliament), reports/2024.pdf,
    my-index, in which report.pdf is indexed, and questions.jsonl, with two questions about it.
    """
    folder = tmp_path / "examples"
    shutil.copytree(examples_template, folder)
    monkeypatch.chdir(folder)
    return folder


def few_pages(target: Path, pages: list[int]) -> None:
    with pypdfium2.PdfDocument(PAPER) as paper, pypdfium2.PdfDocument.new() as few:
        few.import_pages(paper, [page - 1 for page in pages])
        few.save(target)
