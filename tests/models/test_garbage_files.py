"""Folders of models with damaged or hostile files are ModelLoadErrors, and never another exception."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ColPaliError, ModelLoadError

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
FOLDERS = [
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("paligemma", "colqwen2", "colultravbert-dense")),
    "neomme-float32",
]
WEIRD: list[Any] = [None, True, -1, 0, 10**30, 1e308, "x", [], {}, [[]], {"a": {}}, "\ud800"]
# Each raised another exception, in computing with it.
NUMBERS: dict[str, list[dict[str, Any]]] = {
    "neomme-float32": [
        *({"head_dim": 0}, {"head_dim": -1}, {"head_dim": 10**30}, {"num_key_value_heads": 0}, {"hidden_size": 0}),
        *({"norm_eps": 10**30}, {"patch_size": 10**30}, {"embedding_dim": 10**30}, {"residual_multiplier": "x"}),
    ],
    "colqwen2": [{"vlm_config": {"model_type": [[]]}}, {"text_config": []}],
    "colultravbert-dense": [{"skiplist_words": True}, {"skiplist_words": "\ud800"}, {"skiplist_tasks": None}],
}


def damaged(content: bytes, *, is_json: bool, seed: int) -> Iterator[bytes]:
    randoms = random.Random(seed)
    yield from (b"", content[: len(content) // 2], b"\xff\xfe{}", b"PK\x03\x04" + bytes(40), randoms.randbytes(200))
    if is_json:
        yield from (b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"9" * 5000 + b"}")
        yield from (json.dumps(value).encode() for value in randoms.sample(WEIRD, 3))
    else:
        flipped = bytearray(content)
        for _ in range(20):
            flipped[randoms.randrange(min(len(flipped), 4096))] ^= 0xFF
        yield bytes(flipped)


def opens_or_is_refused(folder: Path) -> None:
    with suppress(ColPaliError):
        ColPali.from_pretrained(folder).close()


@pytest.fixture(autouse=True)
def no_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLPALI_INTEGRATIONS_CACHE", str(tmp_path / "cache"))
    logging.disable(logging.WARNING)  # of prompts that a damaged folder does not record
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.filterwarnings("ignore:overflow encountered|invalid value encountered|divide by zero encountered")
@pytest.mark.parametrize("name", FOLDERS)
def test_damaged_files_are_errors_of_the_model(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(FIXTURES / name, folder)
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        content = path.read_bytes()
        for garbage in damaged(content, is_json=path.suffix == ".json", seed=number):
            path.write_bytes(garbage)
            opens_or_is_refused(folder)
        path.write_bytes(content)


@pytest.mark.parametrize("name", NUMBERS)
def test_values_of_a_configuration_that_cannot_be_are_errors(name: str, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / name, tmp_path / name)
    path = tmp_path / name / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for change in NUMBERS[name]:
        path.write_text(json.dumps({**config, **change}), encoding="utf-8")
        opens_or_is_refused(tmp_path / name)


def test_the_error_names_the_model_and_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "neomme-float32"
    shutil.copytree(FIXTURES / "neomme-float32", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "num_key_value_heads": 0}), encoding="utf-8")
    with pytest.raises(ModelLoadError, match=r"cannot read .*neomme-float32.*ZeroDivisionError") as raised:
        ColPali.from_pretrained(folder)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelLoadError, match=r"config\.json: too many levels"):
        ColPali.from_pretrained(folder)
