"""Output to the terminal: results on stdout, everything else on stderr.

Names of files, texts of pages and messages come from elsewhere. They are printed by `printable`, and as `Text`, in
which rich looks for neither markup nor emoji.
"""

from __future__ import annotations

import io
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from traceback import format_exc
from types import MappingProxyType

import typer
from rich.console import Console, ConsoleRenderable
from rich.logging import RichHandler
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from colpali_integrations._logs import make_printable
from colpali_integrations._text import number, printable, split_name
from colpali_integrations.cli import words
from colpali_integrations.cli.common import NAME
from colpali_integrations.cli.doctor import Check, Status, size_text
from colpali_integrations.cli.places import StorePlace
from colpali_integrations.evaluation import Evaluation
from colpali_integrations.evaluation.metrics import decimal
from colpali_integrations.evaluation.results import signed
from colpali_integrations.explain.snippet import mark_words, snippet
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.stores import DocumentWarning, Failure, FoundDocuments, Hit, IngestReport
from colpali_integrations.stores import Progress as IngestProgress

__all__ = [
    "IndexProgress",
    "any_encoding",
    "check",
    "diagnosis",
    "error",
    "evaluation",
    "facts",
    "hits",
    "index_summary",
    "log_handler",
    "marked",
    "models",
    "note",
    "number",
    "passed_over",
    "pictures_missing",
    "result",
    "show_errors_alone",
    "traceback",
    "usage",
    "warnings",
]

# All names are as long as this, so that the bar beside them does not jump; on narrow terminals they are shorter.
_NAME = 28
_ENDLESS = 100_000  # columns of a line that need not fit into a terminal
_WAITING = "Waiting for the server"
# The columns beside name and bar, and the blanks between all: "99999/99999 pages", speed and time left.
_BESIDE, _LEAST_BAR, _MOST_BAR = 41, 8, 40


def _out() -> Console:
    return Console(highlight=False, emoji=False)


def _for_tables() -> Console:
    """As `_out`; in a pipe or a file without a width (COLUMNS) each row is one line, of which no word is broken."""
    console = _out()
    if not (console.is_terminal or os.environ.get("COLUMNS")):
        console.width = _ENDLESS
    return console


def _err() -> Console:
    return Console(stderr=True, highlight=False, emoji=False)


def _line(*parts: str | tuple[str, str]) -> Text:
    """Text of parts, each with or without a style."""
    styled = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((printable(text), style) for text, style in styled))


@contextmanager
def any_encoding() -> Iterator[None]:
    """Let stdout write characters that its encoding lacks, as on Windows in a pipe, by escapes, as stderr does."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or stream.errors != "strict":
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors="strict")


def error(message: str) -> None:
    """Print an error, on stderr."""
    _err().print(_line(("Error:", "bold red"), f" {message}"), soft_wrap=True)


def note(message: str) -> None:
    """Print a notice, on stderr."""
    _err().print(_line(message), soft_wrap=True)


def result(line: str) -> None:
    """Print one line of a result, on stdout."""
    typer.echo(printable(line))


def usage(name: str, options: Mapping[str, object] = MappingProxyType({}), *, folder: str | None = None) -> str:
    """Write how a model is used, here and in Python.

    >>> usage("my-model", {"precision": "int8"})
    "Use it by --model my-model --precision int8; in Python by ColPali.from_pretrained('my-model', precision='int8')."

    Args:
        name: of the model, or its folder.
        options: of `ColPali.from_pretrained`.
        folder: of the files of a registered model.
    """
    given = "".join(f", {option}={value!r}" for option, value in options.items())
    here = words.in_commands(f"ColPali.from_pretrained({folder or name!r}{given})")
    given += "" if folder is None else f", local_dir={folder!r}"
    return f"Use it by {here}; in Python by ColPali.from_pretrained({name!r}{given})."


def log_handler(level: int) -> logging.Handler:
    """Return a handler that prints log entries on stderr, above a progress bar that may be running.

    Not those about failures and fonts, which `IndexProgress` and `warnings` show.
    """
    handler = _LogHandler(level, console=_err(), show_time=False, show_path=False, markup=False)
    handler.addFilter(lambda entry: not (hasattr(entry, "failure") or hasattr(entry, "missing_fonts")))
    handler.addFilter(make_printable)  # entries of other libraries come through it too
    return handler


def show_errors_alone() -> None:
    """Print no log entry below an error until the end of the command, but all where `--debug` prints all."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LogHandler) and handler.level > logging.DEBUG:
            handler.setLevel(logging.ERROR)


class _LogHandler(RichHandler):
    """Entries in the words of the command line; a logger gives those that it has as `extra={"command": ...}`."""

    def render_message(self, record: logging.LogRecord, message: str) -> ConsoleRenderable:
        return super().render_message(record, printable(words.in_commands(getattr(record, "command", message))))


def traceback() -> None:
    """Print the traceback of the current error, on stderr."""
    lines = printable(format_exc().rstrip(), lines=True)
    _err().print(Text(lines), soft_wrap=True)


def check(result: Check, *, heading: bool) -> None:
    """Print one check of `doctor`; the first of its group under a heading."""
    console = _out()
    if heading:
        console.print(f"\n[bold]{result.group.capitalize()}[/]")
    sign, ascii_sign, style = {
        Status.ok: ("✓", "+", "green"),
        Status.note: ("·", "-", "dim"),
        Status.problem: ("✗", "!", "bold red"),
    }[result.status]
    if not console.encoding.lower().startswith("utf"):
        sign = ascii_sign
    console.print(_line("  ", (sign, style), " ", (result.name, "cyan"), f"  {result.detail}"), soft_wrap=True)
    if result.fix:
        style = "yellow" if result.status is Status.problem else "dim"
        console.print(_line((f"      {result.fix}", style)), soft_wrap=True)


def diagnosis(problems: int) -> None:
    """Print the last line of `doctor`."""
    if problems:
        _out().print(f"\n[bold red]{number(problems, 'problem')}[/]; the fix is below each.")
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
        left = timedelta(seconds=round((task.total - task.completed) / speed))
        return Text.assemble((f"{shown:>11}", "cyan"), f"  {left} left", no_wrap=True)


class IndexProgress(Progress):
    """A bar with rate and time left, and a progress callback; no bar when stderr is no terminal, or when `quiet`.

    A failure is printed at once, above the bar: an interrupted run has no end at which a list could stand.
    """

    def __init__(self, *, quiet: bool) -> None:
        console = _err()
        room = console.width - _BESIDE
        self._length = max(0, min(_NAME, room - _LEAST_BAR))
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=max(1, min(_MOST_BAR, room - self._length))),
            MofNCompleteColumn(),
            _Speed(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self.add_task(self._padded("Reading documents"), total=None)
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def _padded(self, name: str) -> str:
        return f"{_short(name, self._length):<{self._length}}"

    def __call__(self, state: IngestProgress) -> None:
        """Show the state of an ingestion, and the failure of its latest item."""
        if state.failure is not None:
            self.console.print(_failure(state.failure), soft_wrap=True)
        if state.waiting is not None:
            self.update(self._task, description=self._padded(_WAITING))
        elif not state.name:  # the beginning of the encoding, which failures may precede
            name = self._padded("Embedding pages")
            self.reset(self._task, total=state.total, completed=state.done, description=name)
        elif state.total:
            self.update(self._task, completed=state.done, description=self._padded(printable(state.name)))


class CountProgress(Progress):
    """A bar of a count, as a callback with the numbers that are done and of all; no bar as in `IndexProgress`."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        console = _err()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        super().__init__(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._task, self._name = self.add_task(name, total=None), name

    def __call__(self, done: int, total: int) -> None:
        """Show the numbers."""
        self.update(self._task, completed=done, total=total)

    def waiting(self, reason: str | None) -> None:
        """Show a wait for a server, or its end; the log has the reason."""
        self.update(self._task, description=self._name if reason is None else _WAITING)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for line in (head, *rows):
        cells = [
            f"{cell:<{width}}" if not place else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        result("  ".join(cells))


def _failure(failure: Failure) -> Text:
    name, reason = split_name(failure.name, words.reason(failure.error))
    return _line(("Skipped", "bold yellow"), " ", (_relative(name), "yellow"), f": {reason}")


def warnings(items: Sequence[DocumentWarning]) -> None:
    """List the documents that were indexed with a defect."""
    for item in items:
        message = words.in_commands(item.message)
        _err().print(_line((_relative(item.name), "yellow"), f": {message}"), soft_wrap=True)


def twins(documents: Mapping[str, str], store: StorePlace) -> None:
    """Print one line about files that the index holds twice, with the command that removes the first of the others."""
    if not documents:
        return
    name, other = next(iter(documents.items()))
    more = f" (and {number(len(documents) - 1, 'more file')})" if len(documents) > 1 else ""
    command = shlex.join([NAME, "delete", str(store), other])
    note(
        f"Indexed a second time, because a document is its path and its --metadata (or its --document-id): "
        f"{_relative(name)}{more}. If the other metadata are out of date, remove that document: {command}"
    )


def pictures_missing(reasons: Sequence[str]) -> None:
    """Say how many pages a report has without a picture, and why the first one has none; nothing if all have one."""
    if reasons:
        note(f"No picture of {number(len(reasons), 'page')} in the report: {reasons[0]}")


def passed_over(documents: FoundDocuments) -> None:
    """Print one line about the files and folders that the search did not take; none if it took all."""
    nouns = {
        "other_suffix": ("file of another type", "files of other types"),
        "hidden": ("hidden", "hidden"),
        "lock_file": ("lock file of an Office program", "lock files of Office programs"),
        "excluded": ("excluded", "excluded"),
        "linked_folder": ("linked folder", "linked folders"),
        "unreadable_folder": ("unreadable folder", "unreadable folders"),
        "not_a_file": ("device, pipe or broken link", "devices, pipes or broken links"),
    }
    parts = []
    for reason, names in nouns.items():
        if count := documents.passed_over.get(reason):
            some = [_relative(path) for path in documents.examples[reason]]
            shown = ", ".join(some) + (", ..." if count > len(some) else "")
            advice = "; see --follow-symlinks" if reason == "linked_folder" else ""
            parts.append(f"{number(count, *names)} ({shown}{advice})")
    if parts:
        note(f"Passed over: {', '.join(parts)}.")


def index_summary(report: IngestReport, store: StorePlace, documents: Mapping[str, int], seconds: float) -> None:
    """Print one line: the outcome, and the number of pages that the index holds now."""
    added = " added"
    if report.added and seconds:
        added += f" in {seconds:.1f} s ({report.added / seconds:.1f} pages/s)"
    counts = {name: getattr(report, name) for name in ("copied", "present", "updated", "replaced", "removed")}
    parts = [added, *(f"{count} {name}" for name, count in counts.items() if count)]
    skipped: tuple[str | tuple[str, str], ...] = ()
    if report.absent:
        parts.append(f"{number(report.absent, 'requested page')} beyond a document's end")
    if report.failures:
        skipped = (
            ", ",
            (number(len(report.failures), "document or page", "documents or pages"), "bold yellow"),
            " skipped",
        )
    content = f"{number(sum(documents.values()), 'page')} of {number(len(documents), 'document')}"
    pages, place = (number(report.added, "page"), "bold green"), (_relative(str(store)), "bold")
    _err().print(_line(pages, ", ".join(parts), *skipped, ". ", place, f" holds {content}."), soft_wrap=True)


def hits(question: str, results: Sequence[Hit]) -> None:
    """Print a table of pages, the best first, with the words of the question marked in each page's text.

    It has the relevance and not the score, which compares the pages of one question alone: the best of a hybrid search
    has one near 1 for a question that no page answers.
    """
    console = _for_tables()
    is_endless = console.width == _ENDLESS
    base = _common_folder([hit.entry.source or hit.id for hit in results])
    if base:
        console.print(_line((f"in {base}", "dim")), soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    table.add_column("#", justify="right", style="dim")
    table.add_column("Relevance", justify="right")
    table.add_column("Document", style="bold cyan", overflow="fold", max_width=None if is_endless else 40)
    table.add_column("Page", justify="right", style="bold")
    table.add_column("On the page", overflow="fold", ratio=1)
    room = 100 if is_endless else max(40, console.width - 70)
    for rank, hit in enumerate(results, 1):
        entry, source = hit.entry, hit.entry.source or hit.id
        text = "" if entry.text == entry.name else snippet(entry.text, question, width=2 * room)
        shown = marked(text, question) if text else Text("no text layer", style="dim italic")
        document = source[len(base) :].lstrip("/\\") if base else _relative(source)
        table.add_row(str(rank), f"{hit.relevance:.0%}", _line(document), str(entry.page or ""), shown)
    console.print(table)


_WIDE = 118  # columns in which all intervals fit


def evaluation(result: Evaluation) -> None:
    """Print the means of each configuration, a table per number of pages that count, and those of groups."""
    console = _for_tables()
    console.print(_line((result.summary(), "dim")), soft_wrap=True)
    for most in result.k:
        metrics = [name for name in result.metrics if name.endswith(f"@{most}")]
        table = _plain_table("Configuration", *metrics, *(["difference"] if len(result.results) > 1 else []))
        for one in result.results:
            means = [str(one.means[name]) for name in metrics]
            if console.width < _WIDE:  # of the others the mean alone
                means[1:] = [mean.partition(" ")[0] for mean in means[1:]]
            change = one.differences.get(metrics[0])
            change_cells = ["" if change is None else signed(change)] if len(result.results) > 1 else []
            table.add_row(_line(one.name), *means, *change_cells)
        console.print(table)
    if groups := result.groups():
        table = _plain_table(
            result.by or "", "questions", *(f"{result.metrics[0]} {one.name}" for one in result.results)
        )
        for group, values in groups.items():
            table.add_row(_line(group), str(values[0][0]), *(decimal(mean) for _, mean in values))
        console.print(table)


def _plain_table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    for place, name in enumerate(names):
        table.add_column(_line(name), style="bold cyan" if place == 0 else "", overflow="fold", no_wrap=place > 0)
    return table


def marked(text: str, question: str) -> Text:
    """Return the text with the words of the question in bold, as `mark_words` finds them."""
    text = printable(text)
    result = Text(text)
    for start, end in mark_words(text, question):
        result.stylize("bold yellow", start, end)
    return result


def serving(
    url: str, store: StorePlace, pages: int, *, has_key: bool, has_read_key: bool, is_writable: bool = True
) -> None:
    """Print where a server answers, and a request to try."""
    variable = "COLPALI_API_KEY" if has_key else "COLPALI_READ_API_KEY"
    key = f' -H "Authorization: Bearer ${variable}"' if has_key or has_read_key else ""
    may_change = is_writable and (has_key or not has_read_key)
    note(f"Serving {store} ({number(pages, 'page')}) at {url}; Ctrl-C stops it.")
    note(f"Open {url} in a browser to search{', and to add and delete documents' if may_change else ''}.")
    if may_change:
        note(f"Add: curl {url}/v1/documents{key} -F file=@report.pdf")
    if not is_writable:
        note(f"{store} is open for reading, so no caller can add or delete.")
    note(f"""Ask: curl {url}/v1/search{key} -H 'Content-Type: application/json' -d '{{"query": "your question"}}'""")
    if is_writable and not may_change:
        note("The API key only reads, so no caller can add or delete. Set COLPALI_API_KEY for one that may.")
    if not key:
        rights = "read, add and delete" if is_writable else "read"
        note(f"There is no API key: every user of this machine can {rights}. Set COLPALI_API_KEY for one.")


def facts(values: Mapping[str, object]) -> None:
    """Print one fact per line; not those that are unknown, such as the size of a store elsewhere."""
    values = {name: value for name, value in values.items() if value is not None}
    width = max(map(len, values), default=0) + 2
    for name, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        if isinstance(value, Mapping):
            shown = ", ".join(f"{key} ({_fact(one)})" for key, one in value.items())
        _out().print(_line((f"{name.replace('_', ' '):<{width}}", "dim"), shown), soft_wrap=True)


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def models(descriptions: Sequence[ModelDescription]) -> None:
    """Print the facts of each model, when to choose it, and its published figures."""
    console = _out()
    for model in descriptions:
        size = size_text(model.size_in_bytes)
        download = f"{size} to download" if model.repository else f"bundled ({size})"
        parameters = f"{_count(model.parameters)} parameters"
        facts = f"{model.family}, {parameters}, dim {model.dim}, {download}, license {model.license}"
        scores = ", ".join(f"{name} {value}" for name, value in model.vidore)
        summary = words.in_commands(model.summary)
        notes = f"{summary} ViDoRe: {scores}." if scores else summary
        console.print(_line((model.name, "bold cyan")))
        console.print(Padding(Text("\n").join([_line(facts), _line((notes, "dim"))]), (0, 0, 1, 4)))


def _short(name: str, length: int) -> str:
    """Shorten a page's name by cutting out its middle.

    >>> _short("quarterly-report.pdf, page 3", 20)
    'quarterly…df, page 3'
    """
    if len(name) <= length:
        return name
    end = length // 2
    return f"{name[: max(0, length - end - 1)]}…{name[len(name) - end :]}"[:length]


def _relative(path: str) -> str:
    """Make a path relative to the working directory, if it is inside."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def _common_folder(sources: Sequence[str]) -> str:
    """Return the folder of all sources, which is printed once; "" if their relative paths are short."""
    if all(len(_relative(source)) <= 40 for source in sources):
        return ""
    try:
        return os.path.commonpath([os.path.dirname(source) for source in sources])  # noqa: PTH120 - these are strings
    except ValueError:  # several drives, or sources that are not paths
        return ""


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"
