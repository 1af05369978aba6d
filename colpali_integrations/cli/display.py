"""Output to the terminal: results on stdout, everything else on stderr."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from colpali_integrations.cli.doctor import Check, Status
from colpali_integrations.cli.snippet import marked, snippet
from colpali_integrations.models.registry import ModelDescription
from colpali_integrations.stores import Failure, Hit, IngestReport
from colpali_integrations.stores import Progress as IngestProgress

__all__ = [
    "IndexProgress",
    "check",
    "diagnosis",
    "error",
    "failures",
    "hits",
    "index_summary",
    "log_handler",
    "models",
    "note",
    "show_all_logs",
    "traceback",
]


# All names are as long as this, so that the bar beside them does not jump.
_NAME = "{:<28}"


def _out() -> Console:
    return Console(highlight=False)


def _err() -> Console:
    return Console(stderr=True, highlight=False)


def error(message: str) -> None:
    """An error, on stderr."""
    _err().print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)


def note(message: str) -> None:
    """A notice, on stderr."""
    _err().print(escape(message), soft_wrap=True)


def log_handler() -> logging.Handler:
    """Warnings of the package, on stderr, above a progress bar that may be running."""
    handler = RichHandler(console=_err(), show_time=False, show_path=False, markup=False)
    handler.setLevel(logging.WARNING)
    return handler


def show_all_logs() -> None:
    """Let the handlers of `log_handler` show everything from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RichHandler):
            handler.setLevel(logging.DEBUG)


def traceback() -> None:
    """The traceback of the current error, on stderr."""
    _err().print_exception(width=110)


def check(found: Check, *, heading: bool) -> None:
    """One check of doctor's; the first of its group under a heading."""
    console = _out()
    if heading:
        console.print(f"\n[bold]{found.group.capitalize()}[/]")
    signs = {Status.ok: ("✓", "green"), Status.note: ("·", "dim"), Status.problem: ("✗", "bold red")}
    sign, style = signs[found.status]
    if not console.encoding.lower().startswith("utf"):
        sign = {"✓": "+", "·": "-", "✗": "!"}[sign]
    line = Text.assemble("  ", (sign, style), " ", (found.name, "cyan"), "  ", found.detail)
    console.print(line, soft_wrap=True)
    if found.fix:
        console.print(
            Text(f"      {found.fix}", style="yellow" if found.status is Status.problem else "dim"), soft_wrap=True
        )


def diagnosis(problems: int) -> None:
    """Doctor's last line."""
    if problems:
        _out().print(f"\n[bold red]{problems} problem{'' if problems == 1 else 's'}[/]; the fix is below each.")
    else:
        _out().print("\n[bold green]No problems.[/]")


class _Speed(ProgressColumn):
    """Pages per second (seconds per page for a slow model) and the time left, averaged over the whole run.

    rich's own columns average over the last steps, which for pages that come in batches is either 0 s or a whole batch.
    """

    def render(self, task: Task) -> Text:
        if not task.completed or not task.elapsed or task.total is None:
            return Text("")
        speed = task.completed / task.elapsed
        shown = f"{speed:.1f} pages/s" if speed >= 1 else f"{1 / speed:.1f} s/page"
        minutes, seconds = divmod(round((task.total - task.completed) / speed), 60)
        hours, minutes = divmod(minutes, 60)
        left = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
        return Text.assemble((f"{shown:>11}", "cyan"), f"  {left} left", no_wrap=True)


class IndexProgress:
    """A bar with rate and time left; silent when stderr is no terminal, or when `quiet`. A progress callback."""

    def __init__(self, *, quiet: bool) -> None:
        console = _err()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=min(40, max(8, console.width - 66))),
            MofNCompleteColumn(),
            _Speed(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task(_NAME.format("Reading documents"), total=None)
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def __enter__(self) -> IndexProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, state: IngestProgress) -> None:
        """Show the state of an ingestion."""
        if state.done == 0:
            self._progress.reset(self._task, total=state.total, description=_NAME.format("Embedding pages"))
        elif state.total:  # failures come before the number of pages is known
            name = escape(_NAME.format(_short(state.name)))
            self._progress.update(self._task, completed=state.done, description=name)


def failures(items: Sequence[Failure]) -> None:
    """List the documents and pages that could not be indexed, with reasons."""
    if not items:
        return
    console = _err()
    noun = "document or page" if len(items) == 1 else "documents or pages"
    console.print(f"[bold yellow]Skipped {len(items)} {noun}:[/]")
    for item in items:
        name, reason = _relative(item.name), item.reason.removeprefix(item.name).strip(" :")
        console.print(f"  [yellow]{escape(name)}[/]: {escape(reason)}", soft_wrap=True)


def index_summary(report: IngestReport, store: Path, documents: Mapping[str, int], seconds: float) -> None:
    """One line: the outcome, and the number of pages that the index holds now."""
    parts = [f"[bold green]{report.added}[/] {_pages(report.added)} added"]
    if report.added and seconds:
        parts[0] += f" in {seconds:.1f} s ({report.added / seconds:.1f} pages/s)"
    counts = {name: getattr(report, name) for name in ("copied", "present", "updated", "replaced", "removed")}
    parts += [f"{number} {name}" for name, number in counts.items() if number]
    pages = sum(documents.values())
    shown = f"{pages} {_pages(pages)} of {len(documents)} document{'' if len(documents) == 1 else 's'}"
    _err().print(f"{', '.join(parts)}. [bold]{escape(_relative(str(store)))}[/] holds {shown}.", soft_wrap=True)


def hits(question: str, found: Sequence[Hit]) -> None:
    """A table of pages, the best first, with the words of the question marked in each page's text."""
    console = _out()
    base = _common_folder([hit.entry.source or hit.id for hit in found])
    if base:
        console.print(f"in {base}", style="dim", markup=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    table.add_column("#", justify="right", style="dim")
    table.add_column("Score", justify="right")
    table.add_column("Document", style="bold cyan", overflow="fold", max_width=40)
    table.add_column("Page", justify="right", style="bold")
    table.add_column("On the page", overflow="fold", ratio=1)
    room = max(40, console.width - 70)
    for rank, hit in enumerate(found, 1):
        entry, source = hit.entry, hit.entry.source or hit.id
        text = "" if entry.text == entry.name else snippet(entry.text, question, width=2 * room)
        shown = marked(text, question) if text else Text("no text layer", style="dim italic")
        document = source[len(base) :].lstrip("/\\") if base else _relative(source)
        table.add_row(str(rank), f"{hit.score:.2f}", escape(document), str(entry.page or ""), shown)
    console.print(table)


def models(descriptions: Sequence[ModelDescription]) -> None:
    """A row of facts per model, and below it its published figures and when to choose it."""
    console = _out()
    rows = [("MODEL", "FAMILY", "DIM", "WEIGHTS", "DOWNLOAD", "LICENSE"), *(_facts(model) for model in descriptions)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    console.print(lines[0], style="dim", markup=False, soft_wrap=True)
    for line, model in zip(lines[1:], descriptions, strict=True):
        text = Text(line)
        text.stylize("bold cyan", 0, len(model.name))
        console.print(text, soft_wrap=True)
        scores = ", ".join(f"{name} {value}" for name, value in model.vidore)
        notes = f"{model.summary} ViDoRe: {scores}." if scores else model.summary
        console.print(Padding(Text(notes, style="dim"), (0, 0, 1, 4)))


def _facts(model: ModelDescription) -> tuple[str, str, str, str, str, str]:
    download = _size(model.size_in_bytes) if model.repository else f"bundled ({_size(model.size_in_bytes)})"
    return model.name, model.family, str(model.dim), _count(model.parameters), download, model.license


def _pages(count: int) -> str:
    return "page" if count == 1 else "pages"


def _short(name: str) -> str:
    """A page's name in 28 characters, without its middle."""
    return name if len(name) <= 28 else f"{name[:13]}…{name[-14:]}"


def _relative(path: str) -> str:
    """The path relative to the working directory, if it is inside."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def _common_folder(sources: Sequence[str]) -> str:
    """The folder that all sources are in, to be printed once; "" where the relative paths are short."""
    if all(len(_relative(source)) <= 40 for source in sources):
        return ""
    try:
        return os.path.commonpath([os.path.dirname(source) for source in sources])  # noqa: PTH120 - these are strings
    except ValueError:  # several drives, or sources that are no paths
        return ""


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"
