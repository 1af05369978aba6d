"""Data sets that bring their pages: BEIR's and ViDoRe's layout, and LlamaIndex's `EmbeddingQAFinetuneDataset`.

A folder has three tables, as parquet, JSON Lines or tab-separated values, each a file or a folder of files:

| table | columns |
|---|---|
| `corpus` | an id, and `image` (with the picture inside) or `text`, perhaps with `title` |
| `queries` | an id, and `query` or `text` |
| `qrels` (or `default`) | the ids of a query and a page, and `score`, the grade |
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from colpali_integrations._failures import failing_as
from colpali_integrations._options import shown
from colpali_integrations._text import parse_json
from colpali_integrations.errors import InputError, MissingExtraError
from colpali_integrations.evaluation.corpus import Corpus, CorpusPage
from colpali_integrations.evaluation.questions import Answer, Question, Questions

__all__ = ["qa_questions", "read_folder"]

_BATCH = 16  # rows of pictures that are in memory at a time
_TABLES = {"corpus": ("corpus",), "queries": ("queries", "query"), "qrels": ("qrels", "default")}
_SUFFIXES = (".parquet", ".jsonl", ".tsv")


def qa_questions(data: Mapping[str, Any], *, where: str) -> Questions:
    """The questions and texts of an `EmbeddingQAFinetuneDataset`, or of its JSON.

    Args:
        data: with `queries`, `corpus` and `relevant_docs`.
        where: its place, for messages.

    Raises:
        InputError: a query without relevant documents.
    """
    right, texts = data["relevant_docs"], {str(id_): str(text) for id_, text in data["corpus"].items()}
    grades = {}
    for id_, ids in right.items():
        if not isinstance(ids, list | tuple):
            raise InputError(f"{where}: relevant_docs of {shown(id_)} must be a list of ids, got {shown(ids)}")
        grades[str(id_)] = dict.fromkeys(map(str, ids), 1.0)
    nothing: Mapping[str, Any] = {}
    asked = ((str(id_), str(text), nothing) for id_, text in data["queries"].items())
    corpus = Corpus(where, lambda _: (CorpusPage(id_, None, text) for id_, text in texts.items()), list(texts))
    return _questions(asked, grades, where, corpus)


def read_folder(folder: Path) -> Questions:
    """The questions and the corpus in a folder of BEIR's or ViDoRe's layout.

    Raises:
        InputError: a table or a column is missing.
        MissingExtraError: pyarrow is not installed, for parquet files.
    """
    files = {name: _files(folder, name, names) for name, names in _TABLES.items()}
    grades: dict[str, dict[str, float]] = {}
    for row in _rows(files["qrels"]):
        query, page = (_cell(row, names, "qrels", folder) for names in (_QUERY_IDS, _PAGE_IDS))
        if (grade := _grade(row.get("score", 1), folder)) > 0:
            grades.setdefault(str(query), {})[str(page)] = grade
    id_column, ids = _ids(files["corpus"], folder)
    corpus = Corpus(str(folder), lambda wanted: _corpus_pages(files["corpus"], id_column, wanted), ids)
    known = set(ids)
    if unknown := sorted({id_ for pages in grades.values() for id_ in pages} - known):
        raise InputError(f"{folder}: the qrels name {len(unknown)} pages that the corpus lacks, such as {unknown[0]!r}")
    return _questions(_queries(files["queries"], folder), grades, str(folder), corpus)


def _questions(
    asked: Iterable[tuple[str, str, Mapping[str, Any]]],
    grades: Mapping[str, Mapping[str, float]],
    where: str,
    corpus: Corpus,
) -> Questions:
    """The questions that have a right page; data sets have others, which benchmarks leave out."""
    questions = Questions(where=where, corpus=corpus)
    for id_, text, metadata in asked:
        if right := grades.get(id_):
            answers = [Answer(id=page, grade=grade) for page, grade in right.items()]
            questions.append(Question(text=text, answers=answers, id=id_, metadata=metadata))
    if not questions:
        raise InputError(f"{where}: no query has a right page; do the ids of queries and qrels agree?")
    return questions


# -- tables ---------------------------------------------------------------------------------------------------------

_QUERY_IDS, _PAGE_IDS = ("query_id",), ("corpus_id",)
_IDS, _TEXTS = ("id", "query_id", "corpus_id"), ("text", "query")


def _files(folder: Path, table: str, names: Sequence[str]) -> list[Path]:
    """The files of a table: `corpus.jsonl`, or those in a folder `corpus` or `english-corpus`."""
    for name in names:
        with failing_as(InputError, folder):
            here = [path for path in sorted(folder.iterdir()) if _is_named(path, name)]
        folders = [path for path in here if path.is_dir()]
        if len(folders) > 1:
            several = ", ".join(path.name for path in folders)
            raise InputError(
                f"{folder} has several tables {name!r} ({several}); copy one of each into a folder of its own"
            )
        found = [path for path in here if path.suffix in _SUFFIXES]
        found += [path for one in folders for path in sorted(one.rglob("*")) if path.suffix in _SUFFIXES]
        if found:
            return found
    raise InputError(
        f"{folder} has no table {' or '.join(map(repr, names))} ({', '.join(_SUFFIXES)}); a data set is a folder with "
        "corpus, queries and qrels, and a file of questions is JSON Lines"
    )


def _is_named(path: Path, name: str) -> bool:
    stem = path.name if path.is_dir() else path.stem
    return re.fullmatch(rf"(.*-)?{name}", stem) is not None


def _normal(column: str) -> str:
    return column.replace("-", "_").lstrip("_").lower()


def _cell(row: Mapping[str, Any], names: Sequence[str], table: str, folder: Path) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise InputError(f"{folder}: a row of {table} has no {' or '.join(names)}; its columns are {', '.join(row)}")


def _grade(value: Any, folder: Path) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder}: a row of qrels has the score {shown(value)}, which is no number") from error


def _queries(files: Sequence[Path], folder: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for row in _rows(files):
        id_, text = _cell(row, _IDS, "queries", folder), _cell(row, _TEXTS, "queries", folder)
        others = {key: value for key, value in row.items() if isinstance(value, str | int | float | bool)}
        yield str(id_), str(text), {key: value for key, value in others.items() if key not in (*_IDS, *_TEXTS)}


def _ids(files: Sequence[Path], folder: Path) -> tuple[str, list[str]]:
    """The name of the corpus's column of ids, and the ids."""
    names = [name for file in files[:1] for name in _columns(file)]
    by_normal = {_normal(name): name for name in names}
    column = next((by_normal[name] for name in ("id", "corpus_id") if name in by_normal), None)
    if column is None:
        raise InputError(f"{folder}: the corpus has no column id or corpus-id; its columns are {', '.join(names)}")
    return column, [str(row[_normal(column)]) for row in _rows(files, [column])]


def _corpus_pages(files: Sequence[Path], id_column: str, wanted: frozenset[str] | None) -> Iterator[CorpusPage]:
    for row in _rows(files, wanted=wanted, id_column=id_column):
        picture = row.get("image")
        data = picture.get("bytes") if isinstance(picture, Mapping) else picture
        if data is not None and not isinstance(data, bytes):
            raise InputError(
                f"the page {row[_normal(id_column)]}: expected the picture's bytes in image, got {shown(data)}"
            )
        texts = [row.get(name) for name in ("title", "text")] if data is None else [row.get("markdown")]
        yield CorpusPage(str(row[_normal(id_column)]), data, "\n".join(str(one) for one in texts if one))


def _columns(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return list(_parquet(file).schema_arrow.names)
    return [str(name) for name in next(_guarded(_plain_rows(file), file), {})]


def _rows(
    files: Sequence[Path],
    columns: Sequence[str] | None = None,
    *,
    wanted: frozenset[str] | None = None,
    id_column: str = "",
) -> Iterator[dict[str, Any]]:
    """Rows with names of columns in lower case, words joined by "_"; of parquet only the `wanted` ids are converted."""
    for file in files:
        is_parquet = file.suffix == ".parquet"
        rows = _parquet_rows(file, columns, wanted, id_column) if is_parquet else _plain_rows(file)
        for row in _guarded(rows, file):
            yield {_normal(str(key)): value for key, value in row.items()}


def _guarded(rows: Iterator[dict[str, Any]], file: Path) -> Iterator[dict[str, Any]]:
    """Rows whose foreign errors name the file."""
    while True:
        with failing_as(InputError, file):
            row = next(rows, None)
        if row is None:
            return
        yield row


def _parquet_rows(
    file: Path, columns: Sequence[str] | None, wanted: frozenset[str] | None, id_column: str
) -> Iterator[dict[str, Any]]:
    for batch in _parquet(file).iter_batches(batch_size=_BATCH, columns=columns):
        if wanted is None or not wanted.isdisjoint(map(str, batch.column(id_column).to_pylist())):
            yield from batch.to_pylist()


def _plain_rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".tsv":
            yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            return
        for number, line in enumerate(lines, 1):
            try:
                row = parse_json(line)
            except ValueError as error:
                raise InputError(f"{file}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise InputError(f"{file}, line {number}: expected an object, got {shown(row)}")
            yield row


def _parquet(file: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "evaluate", "a data set in parquet files") from error
    try:
        return ParquetFile(file)
    except (ArrowException, OSError) as error:
        raise InputError(f"{file} cannot be read as parquet: {error}") from error
