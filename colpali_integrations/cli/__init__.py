"""The command line: `colpali-integrations index`, `search`, `remove`, `models`, `doctor` and others."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from colpali_integrations.errors import MissingExtraError

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave with its exit code; without the extra, print how to install it."""
    for stream in (sys.stdout, sys.stderr):
        # Pages hold text in any script, which some terminals cannot print: they get question marks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with _quiet_interrupts():
        try:
            from colpali_integrations.cli.app import run
        except ModuleNotFoundError as error:
            missing = MissingExtraError(str(error.name), "cli", "The command line")
            sys.exit(f"colpali-integrations: {missing}")
    sys.exit(run())


@contextmanager
def _quiet_interrupts() -> Iterator[None]:
    """Let Ctrl-C end the process at once while the package is imported, where Python would print a traceback."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as in the background of some shells
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
