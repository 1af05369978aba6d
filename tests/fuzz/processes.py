"""A target in a process of its own, so that a crash or a hang is a fault of that target."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.fuzz.engine import Record, Runner

__all__ = ["FAULTS", "watched"]

FAULTS = Path("build") / "fuzz"
_HANG_SECONDS = 120.0
_REPORT_SECONDS = 5.0
_MOST_ADDRESSES = 6 * 2**30  # more is a MemoryError, and the machine stays alive
# Targets that run code in C which could crash: the input is written before each call.
_IN_C = ("pdf", "image", "exif", "store", "arrays", "model_folder", "onnx", "parquet", "rows")


def run(name: str, calls: int, seconds: float, seed: int, reports: Connection) -> None:
    """Call a target until it had so many calls and so many CPU seconds, and send its record every few seconds."""
    from tests.fuzz.targets import TARGETS

    warnings.simplefilter("ignore")
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, _MOST_ADDRESSES))
    runner = Runner(TARGETS[name])
    inputs = TARGETS[name].inputs(Random(seed))
    last = Path(FAULTS, f"{name}.last")
    sent = 0.0
    start = time.process_time()
    while runner.record.calls < calls or runner.record.cpu_seconds < seconds:
        data = inputs()
        now = time.monotonic()
        if now - sent > _REPORT_SECONDS or name in _IN_C:
            last.write_bytes(data)
        runner.call(data)
        times = os.times()
        runner.record.cpu_seconds = time.process_time() - start + times.children_user + times.children_system
        if now - sent > _REPORT_SECONDS:
            sent = now
            reports.send(runner.record)
    reports.send(runner.record)
    reports.close()
    os._exit(0)  # of the workers of PDFs only the kernel's end matters


def _answers(reports: Connection) -> bool:
    """Whether there is a report in time, without the time in which the whole machine or this program is stopped."""
    return any(reports.poll(1) for _ in range(round(_HANG_SECONDS)))


def watched(name: str, calls: int, seconds: float, seed: int) -> Record:
    """Run a target in another process; a crash or a hang is a fault."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=run, args=(name, calls, seconds, seed, theirs))
    Path(FAULTS, f"{name}.last").write_bytes(b"")
    process.start()
    theirs.close()
    record = Record()
    try:
        while _answers(ours):
            record = ours.recv()
        record.faults[f"no answer for {_HANG_SECONDS:g} s"] = Path(FAULTS, f"{name}.last").read_bytes()
        process.kill()
    except EOFError:
        process.join()
        if process.exitcode:
            record.faults[f"a crash, exit code {process.exitcode}"] = Path(FAULTS, f"{name}.last").read_bytes()
    return record
