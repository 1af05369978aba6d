"""`Evaluation`: the results of all configurations, as a table, as JSON and as a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colpali_integrations._text import number
from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.evaluation.report import render
from colpali_integrations.evaluation.results import Outcome, Result, Unit, signed
from colpali_integrations.evaluation.vectors import Pictures
from colpali_integrations.explain.report import HtmlReport
from colpali_integrations.pages.access import Roots
from colpali_integrations.stores import Entry

__all__ = ["Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """The results of `evaluate`. Printed it is a table, and the last line of a notebook's cell shows its report.

    Attributes:
        results: per configuration; the others are compared with the first.
        k: the numbers of pages that count.
        pages: number of pages and texts that were compared.
        model: of the store.
        over: the unit of the intervals: "questions" or "documents".
        skipped: the problems of the questions that were left out.
        by: the key of the metadata that `groups` are by; None for none.

    Example:
        >>> from colpali_integrations.evaluation import evaluate
        >>> result = evaluate([{"question": "palettes", "source": "report.pdf", "page": 1}], store="my-index", k=1)
        >>> result.results[0].means["ndcg@1"].mean
        1.0
        >>> result.misses()
        []
    """

    results: Sequence[Result]
    k: Sequence[int]
    pages: int
    model: str
    over: Unit = "questions"
    skipped: Sequence[str] = ()
    by: str | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict, repr=False)
    pictures: Pictures = field(default_factory=Pictures, repr=False)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics; the first is the one that questions are compared by."""
        return list(self.results[0].means)

    @property
    def questions(self) -> int:
        """The number of questions."""
        return len(self.results[0].outcomes)

    def result(self, name: str | None = None) -> Result:
        """The result of a configuration by its name; None for the first.

        Raises:
            ConfigurationError: there is none of this name.
        """
        if name is None:
            return self.results[0]
        for one in self.results:
            if one.name == name:
                return one
        raise ConfigurationError(
            f"no configuration is named {name!r}; there are {', '.join(one.name for one in self.results)}"
        )

    def misses(self, name: str | None = None, *, k: int | None = None) -> list[Outcome]:
        """The questions of which a configuration has no right page among the first `k`.

        Args:
            name: of the configuration; None for the first.
            k: None for the first of the evaluation.
        """
        most = self.k[0] if k is None else k
        return [one for one in self.result(name).outcomes if one.rank is None or one.rank > most]

    def groups(self) -> dict[str, list[tuple[int, float]]]:
        """Per value of the metadata `by`: number of questions and mean of the first metric, per configuration."""
        found: dict[str, list[tuple[int, float]]] = {}
        metric = self.metrics[0]
        for result in self.results if self.by is not None else ():
            values: dict[str, list[float]] = {}
            for outcome in result.outcomes:
                values.setdefault(self._group(outcome), []).append(outcome.values[metric])
            for group, some in sorted(values.items()):
                found.setdefault(group, []).append((len(some), sum(some) / len(some)))
        return found

    def _group(self, outcome: Outcome) -> str:
        if self.by == "document":
            entry = self.entries.get(next(iter(outcome.asked.grades)))
            name = None if entry is None else entry.metadata.get("file_name")
            return name if isinstance(name, str) else outcome.asked.document
        value = outcome.asked.question.metadata.get(self.by or "")
        return "-" if value is None else str(value)

    def rows(self) -> list[dict[str, str]]:
        """The table, as texts by the names of columns."""
        rows = []
        for result in self.results:
            row = {"configuration": result.name, **{name: str(mean) for name, mean in result.means.items()}}
            if len(self.results) > 1:
                change = result.differences.get(self.metrics[0])
                row["difference"] = "" if change is None else signed(change)
                row["better/worse"] = "" if change is None else f"{result.better}/{result.worse}"
            rows.append(row)
        return rows

    def summary(self) -> str:
        """The line above the table."""
        unit = "" if self.over == "questions" else ", intervals over documents"
        skipped = f", {len(self.skipped)} left out" if self.skipped else ""
        questions, pages = number(self.questions, "question"), number(self.pages, "page")
        return f"{questions}{skipped}, {pages}, {self.model}; 95% intervals{unit}"

    def __str__(self) -> str:
        """The table as text."""
        rows = self.rows()
        widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
        lines = ["  ".join(name.ljust(width) for name, width in widths.items()).rstrip()]
        lines += ["  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip() for row in rows]
        return "\n".join([self.summary(), *lines])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-safe: the means, the differences, and per question the ranks and what was found."""
        return {
            "questions": self.questions,
            "pages": self.pages,
            "model": self.model,
            "k": list(self.k),
            "over": self.over,
            "skipped": list(self.skipped),
            "configurations": [self._result(one) for one in self.results],
            **({"by": self.by, "groups": self._groups()} if self.by is not None else {}),
        }

    def _groups(self) -> dict[str, Any]:
        return {
            group: {"questions": values[0][0], self.metrics[0]: [mean for _, mean in values]}
            for group, values in self.groups().items()
        }

    def _result(self, result: Result) -> dict[str, Any]:
        outcomes = [
            {
                "question": one.asked.question.text,
                **({"id": one.asked.question.id} if one.asked.question.id else {}),
                "wanted": [self._page(id_) for id_ in one.asked.grades],
                "rank": one.rank,
                "found": [{**self._page(id_), "score": round(score, 6)} for id_, score in one.ranking[: max(self.k)]],
                **one.values,
            }
            for one in result.outcomes
        ]
        return {
            "name": result.name,
            "means": {name: list(mean) for name, mean in result.means.items()},
            "differences": {name: list(mean) for name, mean in result.differences.items()},
            "better": result.better,
            "worse": result.worse,
            "questions": outcomes,
        }

    def _page(self, id_: str) -> dict[str, Any]:
        entry = self.entries.get(id_)
        if entry is None or entry.source is None:
            return {"id": id_}
        return {"id": id_, "source": entry.source, "page": entry.page}

    def to_html(
        self,
        name: str | None = None,
        *,
        limit: int = 20,
        found: int = 3,
        max_side: int = 700,
        password: str | None = None,
        max_pixels: int | None = None,
        image_formats: Iterable[str] | None = None,
        roots: Roots = None,
        wording: Callable[[ColPaliError], str] = str,
    ) -> HtmlReport:
        """Make a report as one HTML file: the tables, and for each miss the wanted page beside those that were found.

        Args:
            name: of the configuration whose misses are shown; None for the first.
            limit: the largest number of misses with pictures.
            found: number of found pages that are shown per miss.
            max_side: of a picture, in pixels.
            password: for encrypted PDFs; this and the following are by default those of the evaluation.
            max_pixels: of an image; see `pages.load_image`.
            image_formats: further formats of images; see `pages.load_image`.
            roots: as for `pages.page_image`.
            wording: tells the error of a page that cannot be drawn, which stands in its place.

        Returns:
            A string; `.save(path)` writes it.

        Raises:
            ConfigurationError: an option has an invalid value, or no configuration has the name.
        """
        own = self.pictures
        access = own.access.override(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots)
        pictures = Pictures(own.corpus, access)
        return render(self, self.result(name), pictures, limit=limit, found=found, max_side=max_side, wording=wording)

    def _repr_html_(self) -> str:
        """The report in notebooks."""
        return self.to_html(limit=5)._repr_html_()
