"""Each target takes inputs of hypothesis, its seeds and inputs that once were faults; see `python -m tests.fuzz`."""

from __future__ import annotations

import warnings
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colpali_integrations.errors import InputError
from tests.fuzz.choices import Choices
from tests.fuzz.engine import SEEDS, Runner, Target
from tests.fuzz.targets import TARGETS

# Those of files and processes take milliseconds per call.
_CALLS = {"pdf": 15, "store": 15, "model_folder": 12, "parquet": 30, "rows": 50}
_CALLS |= dict.fromkeys(("image", "exif", "arrays", "onnx"), 100)
_CALLS |= dict.fromkeys(("answers", "foreign", "strict", "place", "collection"), 15)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_ends_well(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()

    @settings(max_examples=_CALLS.get(name, 200), deadline=None, database=None, derandomize=True)
    @given(st.integers(0, 2**32), st.binary(max_size=120))
    def check(number: int, data: bytes) -> None:
        random = Random(number)
        target.outcome(target.mutate(random.choice(seeds) if seeds else data, random, seeds))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow about damaged files, and of numpy about values beyond a type
        check()
        for data in seeds:
            target.outcome(data)


def test_a_runner_records_outcomes_and_faults() -> None:
    def call(data: bytes) -> None:
        if data == b"refused":
            raise InputError("no")
        if data:
            raise KeyError(data)

    runner = Runner(Target("none", call))
    for data in (b"", b"refused", b"a", b"b"):
        runner.call(data)
    record = runner.record
    assert dict(record.outcomes) == {"ok": 1, "InputError": 1, "fault": 2}
    [(description, data)] = record.faults.items()
    assert (description.partition(":")[0], data) == ("KeyError at test_fuzz.py", b"a")


def test_choices_reach_all_kinds_of_values() -> None:
    random = Random(1)
    values = [Choices(random.randbytes(200)).value() for _ in range(2000)]
    assert {type(value) for value in values} == {type(None), bool, int, float, str, list, dict}
    assert Choices(b"").value() is None


def test_seeds_are_small() -> None:
    files = [path for path in Path(SEEDS).rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) < 200_000
    assert {path.parent.name for path in files} <= set(TARGETS)


def test_a_picture_whose_exif_block_unmakes_it_is_refused() -> None:
    """Pillow cannot open the TIFF either; the target once took that for a fault of the package."""
    assert TARGETS["exif"].outcome(bytes.fromhex("d3c88032f6b106f4")) == "ImageError"
