"""Targets, and one call of a target with its outcome, whatever drives it: hypothesis, atheris or random mutations."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from colpali_integrations.errors import ColPaliError
from tests.fuzz import mutators

SEEDS = Path(__file__).parent / "seeds"
MOST_SECONDS = 5.0
MOST_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Target:
    """A function of bytes that has to end well.

    Attributes:
        name: on the command line, and of the folder of its seeds.
        call: the function. It returns, or raises an error of this package.
        mutate: makes other inputs from its seeds.
        refusals: further errors that refuse an input, such as those of the command line.
    """

    name: str
    call: Callable[[bytes], None]
    mutate: mutators.Mutator = mutators.of_choices
    refusals: tuple[type[Exception], ...] = ()

    def _refusals(self) -> tuple[type[Exception], ...]:
        return ColPaliError, *self.refusals

    def seeds(self) -> list[bytes]:
        """The inputs in its folder, in order."""
        return [path.read_bytes() for path in sorted((SEEDS / self.name).glob("*"))]

    def inputs(self, random: Random) -> Callable[[], bytes]:
        """A function that returns another input at each call."""
        seeds = self.seeds() or [b""]
        return lambda: self.mutate(random.choice(seeds), random, seeds)

    def outcome(self, data: bytes) -> str:
        """Call it: "ok" or the class of the error.

        Raises:
            Exception: a fault, such as an error that is not of this package.
        """
        try:
            self.call(data)
        except self._refusals() as error:
            return type(error).__name__
        return "ok"


@dataclass
class Record:
    """The calls of a target.

    Attributes:
        calls: their number.
        outcomes: how often each outcome came.
        cpu_seconds: of all calls and of making their inputs.
        slowest: CPU seconds of the slowest call.
        peak_bytes: the most memory of the process.
        faults: the first input of each fault, by its description.
    """

    calls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0
    slowest: float = 0.0
    peak_bytes: int = 0
    faults: dict[str, bytes] = field(default_factory=dict)

    def add(self, other: Record) -> None:
        """Add the calls of another run of the target."""
        self.calls += other.calls
        self.outcomes += other.outcomes
        self.cpu_seconds += other.cpu_seconds
        self.slowest = max(self.slowest, other.slowest)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.faults = {**other.faults, **self.faults}


def peak_memory() -> int:
    """The most memory that this process and the largest of its children have had, in bytes; 0 on Windows."""
    if sys.platform == "win32":
        return 0
    import resource

    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(own, children) * (1 if sys.platform == "darwin" else 1024)


def description(error: BaseException) -> str:
    """The class of an error and where it was raised, equal for inputs that fail alike."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "colpali_integrations" in frame.filename]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno} {last.name}"


class Runner:
    """Calls a target and records the outcomes.

    Args:
        target: the target.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.record = target, Record()
        self._start = self._most = peak_memory()

    def call(self, data: bytes) -> None:
        """Call once; a fault is recorded."""
        record = self.record
        before = time.process_time()
        try:
            outcome = self.target.outcome(data)
        except Exception as error:
            outcome = "fault"
            record.faults.setdefault(description(error), data)
        seconds = time.process_time() - before
        record.calls += 1
        record.outcomes[outcome] += 1
        if seconds > record.slowest:
            record.slowest = seconds
            if seconds > MOST_SECONDS:
                record.faults.setdefault(f"a call of more than {MOST_SECONDS:g} s", data)
        peak = peak_memory()
        if peak > self._most:
            self._most = record.peak_bytes = peak
            if peak > self._start + MOST_BYTES:
                record.faults.setdefault("more than 1 GB", data)
