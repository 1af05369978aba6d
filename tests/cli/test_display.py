"""The progress bar fits the terminal, time left included; facts are shown one per line."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from colpali_integrations.cli import display
from colpali_integrations.stores import Progress


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_the_time_left_is_not_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(display, "_err", lambda: console)
    progress = display.IndexProgress(quiet=False)
    progress(Progress(0, 99_999))
    [task] = progress.tasks
    assert task.start_time is not None
    task.start_time -= 5000  # 2.5 pages/s
    progress(Progress(12_345, 99_999, "quarterly-report-of-the-north.pdf, page 12345"))
    with console.capture() as capture:
        console.print(progress.get_renderable())
    [line] = capture.get().splitlines()
    assert line.rstrip().endswith(" left")
    assert "12345/99999" in line
    assert "2.5 pages/s  9:51:" in line
    assert len(line) <= width


def test_indexes_are_one_fact(capsys: pytest.CaptureFixture[str]) -> None:
    display.facts({"entries": 1234, "indexes": {"source": "text", "year": "number"}})
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert lines == [["entries", "1,234"], ["indexes", "source (text), year (number)"]]
