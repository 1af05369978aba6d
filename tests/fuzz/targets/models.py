"""Targets that read the folders of models."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path

from colpali_integrations import ColPali
from colpali_integrations.models.builder.files import shard_names, weight_names
from colpali_integrations.models.builder.weights import read_header
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.runtime.arrays import GraphFiles
from colpali_integrations.runtime.graph_session import SessionConfig
from colpali_integrations.runtime.session import ModelSessions
from tests.fuzz import mutators
from tests.fuzz.choices import Choices, json_text
from tests.fuzz.engine import Target

_FIXTURES = Path(__file__).parents[2] / "parity" / "fixtures"
_MODELS = (
    "paligemma",
    "neomme",
    "colmodernvbert",
    "colqwen2",
    "colqwen3",
    "colqwen3_5",
    "pplx_late",
)
_KEYS = (
    "model_type",
    "architectures",
    "hidden_size",
    "vision_config",
    "text_config",
    "type",
    "path",
    "weight_map",
    "dim",
)


@cache
def work() -> Path:
    """A folder for the files of one call, in memory where the system has it."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _files(model: str) -> dict[str, bytes | Path]:
    """The small files of a fixture, and the paths of the large ones."""
    folder = _FIXTURES / model
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("golden")]
    return {str(path.relative_to(folder)): path if path.stat().st_size > 2**16 else path.read_bytes() for path in found}


def folder(data: bytes) -> None:
    """A model's folder of which one or two small files are changed: read like a user's, up to the first session."""
    choices = Choices(data)
    place = work() / "model"
    shutil.rmtree(place, ignore_errors=True)
    files = _files(choices.pick(_MODELS))
    small = [name for name, content in files.items() if isinstance(content, bytes)]
    chosen = {choices.pick(small) for _ in range(1 + choices.byte() % 2)}
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
        elif name not in chosen:
            path.write_bytes(content)
        elif choices.byte() % 8:
            path.write_bytes(_damaged(choices, content))
    describe_folder(place)
    ColPali.from_pretrained(place, lazy_load=True).token_count("the tide")


def _damaged(choices: Choices, content: bytes) -> bytes:
    try:
        parsed = json.loads(content)
    except ValueError:
        parsed = None
    if parsed is None or choices.byte() % 4 == 0:
        changed = bytearray(content)
        for _ in range(1 + choices.byte() % 4):
            changed[choices.below(len(changed) or 1) : choices.below(len(changed) or 1)] = choices.take(
                choices.byte() % 8
            )
        return bytes(changed)
    return json_text(choices.changed(parsed, _KEYS)).encode()


def weights(data: bytes) -> None:
    """The header of a safetensors file, and the index of shards."""
    choices = Choices(data)
    place = work()
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    header = choices.changed(
        {"__metadata__": {"format": "pt"}, "a.weight": entry, "b.weight": {**entry}}, ("shape", "dtype")
    )
    body = json_text(header).encode() if choices.byte() % 8 else choices.take(choices.byte())
    length = len(body) if choices.byte() % 8 else choices.integer() % 2**64
    file = place / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + body + bytes(choices.byte() % 48))
    index = {"metadata": {"total_size": 16}, "weight_map": {"a.weight": "model-00001-of-00002.safetensors"}}
    (place / "model.safetensors.index.json").write_text(json_text(choices.changed(index, ("weight_map",))))
    if choices.flag():
        read_header(file)
    else:
        shard_names(place)
        weight_names(place)


def onnx_file(data: bytes) -> None:
    """An ONNX file beside its weights: its graph is cut in two, and both halves become sessions."""
    place = work() / "onnx"
    place.mkdir(exist_ok=True)
    file = place / "model.onnx"
    file.write_bytes(data)
    (place / "weights.bin").write_bytes(bytes(64))
    ModelSessions(GraphFiles(pages=file, queries=file), SessionConfig(threads=1)).load()


TARGETS = [Target("model_folder", folder), Target("weights", weights), Target("onnx", onnx_file, mutators.of_bytes)]
