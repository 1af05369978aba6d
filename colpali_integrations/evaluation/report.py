"""The report of an evaluation: tables, and the misses with the wanted page beside those that were found.

All texts of questions and pages are escaped; see `explain.report`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Protocol

from PIL import Image

from colpali_integrations._options import checked_whole
from colpali_integrations._text import number
from colpali_integrations.errors import ColPaliError
from colpali_integrations.evaluation.metrics import Mean, decimal
from colpali_integrations.evaluation.results import Outcome, Result, Unit, first_places, signed
from colpali_integrations.evaluation.vectors import Pictures
from colpali_integrations.explain.report import HtmlReport, html_page, picture_uri, theme_choice
from colpali_integrations.explain.snippet import snippet
from colpali_integrations.pages.resolution import dpi_for_side
from colpali_integrations.stores import Entry

__all__ = ["render"]

_STYLE = files("colpali_integrations.evaluation").joinpath("_report.css").read_text(encoding="utf-8")


class Evaluated(Protocol):
    """The members of an `Evaluation` that its report shows."""

    @property
    def results(self) -> Sequence[Result]:
        """Per configuration."""
        ...

    @property
    def k(self) -> Sequence[int]:
        """The numbers of pages that count."""
        ...

    @property
    def pages(self) -> int:
        """The number of pages."""
        ...

    @property
    def model(self) -> str:
        """The store's model."""
        ...

    @property
    def over(self) -> Unit:
        """The unit of the intervals."""
        ...

    @property
    def skipped(self) -> Sequence[str]:
        """The problems of questions that were left out."""
        ...

    @property
    def by(self) -> str | None:
        """The key of the groups."""
        ...

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The pages that the outcomes name."""
        ...

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        ...

    @property
    def questions(self) -> int:
        """The number of questions."""
        ...

    def misses(self, name: str | None = None) -> list[Outcome]:
        """The questions without a right page."""
        ...

    def groups(self) -> dict[str, list[tuple[int, float]]]:
        """Means per group."""
        ...


def render(
    evaluation: Evaluated,
    result: Result,
    pictures: Pictures,
    *,
    limit: int,
    found: int,
    max_side: int,
    wording: Callable[[ColPaliError], str],
) -> HtmlReport:
    """Make the report.

    Args:
        evaluation: all results.
        result: of the configuration whose misses are shown.
        pictures: how pages are drawn.
        limit: the largest number of misses with pictures.
        found: number of found pages per miss.
        max_side: of a picture, in pixels.
        wording: tells the error of a page that cannot be drawn.
    """
    limit, found = checked_whole(limit, "limit", 0), checked_whole(found, "found", 0)
    misses = evaluation.misses(result.name)
    cards = _Misses(evaluation, result, pictures, found, checked_whole(max_side, "max_side"), wording)
    shown = misses[:limit]
    more = f" The first {len(shown)} are shown." if len(shown) < len(misses) else ""
    title = f"{number(evaluation.questions, 'question')} on {number(evaluation.pages, 'page')}"
    about = f"Evaluation · {escape(evaluation.model)}"
    body = (
        f'<header><p class="about">{about}</p><h1>{escape(title)}</h1>'
        f'<p class="note">{escape(_explained(evaluation))}</p></header>\n'
        f'<div class="controls">{theme_choice()}</div>\n'
        + _section("Quality", _quality(evaluation))
        + (
            _section("Difference from the first configuration", _changes(evaluation))
            if len(evaluation.results) > 1
            else ""
        )
        + (_section(f"By {evaluation.by}", _groups(evaluation)) if evaluation.by is not None else "")
        + _section(
            f"Misses of {result.name}: {len(misses)} of {evaluation.questions}",
            f'<p class="note">Questions without a right page {first_places(evaluation.k[0])}.{more}</p>'
            + "".join(map(cards.card, shown)),
        )
        + _section("Rank of the first right page", _ranks(evaluation))
        + (_section("Questions left out", _left_out(evaluation.skipped)) if evaluation.skipped else "")
    )
    html = html_page(title, body, style=_STYLE)
    html.missing = tuple(cards.missing)
    return html


def _explained(evaluation: Evaluated) -> str:
    unit = "questions" if evaluation.over == "questions" else "whole documents"
    return (
        f"Each mean has a 95% interval from {unit} drawn at random with replacement. nDCG gives most to right pages at "
        "the top; recall is the share of right pages found, hit the share of questions with any, and MRR the mean of 1 "
        "over the rank of the first."
    )


def _section(title: str, content: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{content}</section>\n"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col">{escape(one)}</th>' for one in head)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(name: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row" dir="auto">{escape(name)}</th>{"".join(cells)}</tr>'


def _quality(evaluation: Evaluated) -> str:
    rows = []
    for result in evaluation.results:
        cells = [f"<td>{_mean(mean)}</td>" for mean in result.means.values()]
        rows.append(_row(result.name, cells))
    return _table(["Configuration", *evaluation.metrics], rows)


def _mean(mean: Mean) -> str:
    low, high = 100 * mean.low, 100 * mean.high
    return (
        f"<b>{decimal(mean.mean)}</b><small>{decimal(mean.low)} to {decimal(mean.high)}</small>"
        f'<span class="range" aria-hidden="true"><i style="left:{low:.1f}%;width:{max(high - low, 1):.1f}%"></i>'
        f'<b style="left:{100 * mean.mean:.1f}%"></b></span>'
    )


def _changes(evaluation: Evaluated) -> str:
    rows = []
    for result in evaluation.results[1:]:
        cells = [
            f'<td class="{_direction(change)}">{escape(signed(change))}</td>' for change in result.differences.values()
        ]
        cells.append(f"<td>{result.better} better, {result.worse} worse</td>")
        rows.append(_row(result.name, cells))
    note = '<p class="note">Coloured where the paired interval excludes 0.</p>'
    return note + _table(["Configuration", *evaluation.metrics, f"questions by {evaluation.metrics[0]}"], rows)


def _direction(change: Mean) -> str:
    return "up" if change.low > 0 else "down" if change.high < 0 else ""


def _groups(evaluation: Evaluated) -> str:
    rows = []
    for group, values in evaluation.groups().items():
        cells = [f"<td>{values[0][0]}</td>", *(f"<td>{decimal(mean)}</td>" for _, mean in values)]
        rows.append(_row(group, cells))
    names = [f"{evaluation.metrics[0]}, {result.name}" for result in evaluation.results]
    return _table([evaluation.by or "", "questions", *names], rows)


def _ranks(evaluation: Evaluated) -> str:
    rows = []
    for outcomes in zip(*(result.outcomes for result in evaluation.results), strict=True):
        first = outcomes[0]
        names = ", ".join(_name(evaluation.entries.get(id_), id_) for id_ in first.asked.grades)
        cells = [f'<td class="words" dir="auto">{escape(names)}</td>']
        cells += [f'<td class="{_good(one, evaluation.k[0])}">{one.rank or "not compared"}</td>' for one in outcomes]
        rows.append(_row(first.asked.question.text, cells))
    return _table(["Question", "right page", *(result.name for result in evaluation.results)], rows)


def _good(outcome: Outcome, k: int) -> str:
    return "down" if outcome.rank is None or outcome.rank > k else "up" if outcome.rank == 1 else ""


def _left_out(problems: Sequence[str]) -> str:
    return f'<ul class="left">{"".join(f"<li>{escape(one)}</li>" for one in problems)}</ul>'


def _name(entry: Entry | None, id_: str) -> str:
    return id_ if entry is None else entry.name


class _Misses:
    """The cards of misses; each page is drawn once."""

    def __init__(
        self,
        evaluation: Evaluated,
        result: Result,
        pictures: Pictures,
        found: int,
        max_side: int,
        wording: Callable[[ColPaliError], str],
    ) -> None:
        self._evaluation, self._result, self._pictures = evaluation, result, pictures
        self._found, self._max_side = found, max_side
        self._wording, self.missing = wording, list[str]()
        self._drawn: dict[str, str] = {}

    def card(self, outcome: Outcome) -> str:
        """A question with its right page and those that were found."""
        scores = dict(outcome.ranking)
        wanted = [
            self._page(id_, f"Wanted · {_rank_of(id_, outcome)}", scores.get(id_), outcome, "page wanted")
            for id_ in list(outcome.asked.grades)[:2]
        ]
        found = [
            self._page(id_, f"Found · rank {place}", score, outcome, "page")
            for place, (id_, score) in self._others(outcome)
        ]
        return (
            f'<article class="miss"><h4 dir="auto">{escape(outcome.asked.question.text)}</h4>'
            f"<p>{escape(self._elsewhere(outcome))}</p>"
            f'<div class="pages">{"".join([*wanted, *found])}</div></article>\n'
        )

    def _others(self, outcome: Outcome) -> list[tuple[int, tuple[str, float]]]:
        """The best pages with their ranks, without those that are shown as wanted."""
        others = [one for one in enumerate(outcome.ranking, 1) if one[1][0] not in outcome.asked.grades]
        return others[: self._found]

    def _elsewhere(self, outcome: Outcome) -> str:
        """The rank of the right page by the other configurations."""
        place = next(i for i, one in enumerate(self._result.outcomes) if one is outcome)
        others = {
            one.name: one.outcomes[place].rank for one in self._evaluation.results if one.name != self._result.name
        }
        shown = [f"{name}: {'not compared' if rank is None else f'rank {rank}'}" for name, rank in others.items()]
        return "; ".join(shown)

    def _page(self, id_: str, role: str, score: float | None, outcome: Outcome, style: str) -> str:
        entry = self._evaluation.entries.get(id_)
        number = "" if score is None else f" · score {score:.2f}"
        name = f'<p class="name"><b>{escape(role + number)}</b><span dir="auto">{escape(_name(entry, id_))}</span></p>'
        text = (
            snippet(entry.text, outcome.asked.question.text, width=200) if entry is not None and entry.has_text else ""
        )
        shown = f'<p class="text" dir="auto">{escape(text)}</p>' if text else ""
        return f'<div class="{style}">{name}{self._picture(id_, entry)}{shown}</div>'

    def _picture(self, id_: str, entry: Entry | None) -> str:
        if id_ not in self._drawn:
            self._drawn[id_] = "" if entry is None or not entry.has_picture else self._draw(entry)
        return self._drawn[id_]

    def _draw(self, entry: Entry) -> str:
        try:
            [(_, picture)] = self._pictures.draw({entry.id: entry}, dpi=dpi_for_side(entry.metadata, self._max_side))
        except ColPaliError as error:
            self.missing.append(self._wording(error))
            return f'<p class="missing" role="note">No picture: {escape(self.missing[-1])}</p>'
        picture.thumbnail((self._max_side, self._max_side), Image.Resampling.LANCZOS)
        return f'<img src="{picture_uri(picture)}" alt="{escape(entry.name)}">'


def _rank_of(id_: str, outcome: Outcome) -> str:
    ids = [found for found, _ in outcome.ranking]
    if id_ in ids:
        return f"rank {ids.index(id_) + 1}"
    if len(outcome.asked.grades) == 1 and outcome.rank is not None:
        return f"rank {outcome.rank}"
    return "not among the first" if outcome.rank is not None else "not compared"
