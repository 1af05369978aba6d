"""atheris as the engine: inputs are kept where they reach new code of the package (the group `fuzz`, Python 3.11+)."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import NoReturn

import atheris

from tests.fuzz.engine import MOST_BYTES, MOST_SECONDS, SEEDS

__all__ = ["guided"]


def guided(name: str, seconds: float, faults: Path) -> NoReturn:
    """Run a target until a fault or for a number of seconds, and end the process.

    Args:
        name: of the target, whose module is first imported here, so that its code is instrumented.
        seconds: of the clock.
        faults: the folder of faults and of the inputs found.
    """
    with atheris.instrument_imports(include=["colpali_integrations"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus = faults / f"{name}-corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = target.seeds()

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        changed: bytes = target.mutate(bytes(data), Random(seed), seeds)
        return changed[:most]

    def call(data: bytes) -> None:
        target.outcome(data)

    arguments = [
        sys.argv[0],
        str(corpus),
        *([str(SEEDS / name)] if seeds else []),
        f"-max_total_time={seconds:.0f}",
        f"-timeout={MOST_SECONDS:.0f}",
        f"-rss_limit_mb={2 * MOST_BYTES // 10**6}",
        f"-artifact_prefix={faults}/{name}-",
    ]
    atheris.Setup(arguments, call, custom_mutator=mutate)
    atheris.Fuzz()
    sys.exit()
