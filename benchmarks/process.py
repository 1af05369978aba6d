"""One measurement in a separate process, with the memory of its process tree read from outside.

Memory is PSS (proportional set size): pages that several processes share are counted once in all, so that a mapped
weight file does not count twice for two workers, and a copy of it does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
INTERVAL = 0.05  # seconds between two looks at the memory, each of some milliseconds of CPU
LEAST_FREE = 2.5 * 2**30  # bytes of free memory below which a measurement is stopped


@dataclass
class Outcome:
    """The output of a worker, and the measurements of its process.

    Attributes:
        result: the worker's own numbers; empty when it was stopped.
        peaks: greatest PSS in bytes in each phase, by its name; "start" is the first.
        rests: PSS in bytes at the beginning of each phase, while the worker waits.
        stopped: why it was stopped, or "".
    """

    result: dict[str, Any] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    rests: dict[str, int] = field(default_factory=dict)
    stopped: str = ""


def pss(process: psutil.Process) -> int:
    """PSS of a process and all its descendants, in bytes."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            with Path(f"/proc/{one.pid}/smaps_rollup").open(encoding="ascii") as lines:
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
        except (OSError, StopIteration, psutil.Error):
            continue  # it has ended
    return total


class _Watch(threading.Thread):
    def __init__(self, process: psutil.Process, outcome: Outcome, most: float, interval: float) -> None:
        super().__init__(daemon=True)
        self._most = most
        self._interval = interval
        self.phase = "start"
        self._process = process
        self._outcome = outcome
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(self._interval):
            try:
                seen = pss(self._process)
                phase = self.phase
                self._outcome.peaks[phase] = max(self._outcome.peaks.get(phase, 0), seen)
                full = psutil.virtual_memory().available < LEAST_FREE
                if full or seen > self._most:
                    why = "the machine's memory was nearly full" if full else "that is enough to know"
                    self._outcome.stopped = f"stopped at {seen / 2**30:.1f} GiB ({why})"
                    kill(self._process)
                    return
            except psutil.Error:
                return


def kill(process: psutil.Process) -> None:
    try:
        tree = [*process.children(recursive=True), process]
    except psutil.Error:
        return
    for one in tree:
        try:
            one.kill()
        except psutil.Error:
            continue


def measure(
    task: dict[str, Any], *, watch: bool = True, most: float = float("inf"), interval: float = INTERVAL
) -> Outcome:
    """Run `python -m benchmarks.worker` on a task and wait for it.

    Args:
        task: see worker.py.
        watch: whether to look at the memory, which takes a few per cent of a core.
        most: bytes of memory at which the measurement is stopped.
        interval: seconds between two looks at the memory.
    """
    outcome = Outcome()
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker", json.dumps(task)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"},
    )
    process = psutil.Process(child.pid)
    watcher = _Watch(process, outcome, most, interval)
    if watch:
        watcher.start()
    assert child.stdin is not None and child.stdout is not None
    try:
        for line in child.stdout:
            said = json.loads(line)
            if "phase" in said:
                time.sleep(0.1)  # let go of what was just freed
                outcome.rests[said["phase"]] = pss(process)
                watcher.phase = said["phase"]
                child.stdin.write("\n")
                child.stdin.flush()
            else:
                outcome.result = said["result"]
                break
    finally:
        watcher.over.set()
        kill(process)
        child.wait()
    if not outcome.result and not outcome.stopped:
        raise RuntimeError(f"the worker failed on {task}")
    return outcome
