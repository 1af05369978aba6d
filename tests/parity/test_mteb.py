"""`MtebModel` in the real mteb, on a small data set in ViDoRe's format: the values of `evaluate`, question by question.

mteb needs PyTorch and Python 3.11, and is in no environment of the project: `pip install mteb` beside the reference
implementations (`make parity`), then `pytest tests/parity/test_mteb.py`. Nothing is fetched.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.evaluation import evaluate
from colpali_integrations.evaluation.mteb import MtebModel
from colpali_integrations.pages import open_pdf
from colpali_integrations.pages.reference import encode_png
from tests.conftest import PAPER

mteb = pytest.importorskip("mteb", reason="it needs PyTorch: see the docstring of this file")
parquet = pytest.importorskip("pyarrow.parquet")

CARD = """---
configs:
- config_name: corpus
  data_files: [{split: test, path: corpus/*.parquet}]
- config_name: queries
  data_files: [{split: test, path: queries/*.parquet}]
- config_name: default
  data_files: [{split: test, path: qrels/*.parquet}]
---
"""
DOCUMENTS = {PAPER: range(1, 13), PAPER.with_name("freedoom-manual.pdf"): range(1, 16)}


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pages, two of them twice, so that scores are equal; per page a question of some words of its text."""
    folder = tmp_path_factory.mktemp("vidore")
    corpus: list[dict[str, Any]] = []
    queries: list[dict[str, str]] = []
    qrels: list[dict[str, Any]] = []
    for path, numbers in DOCUMENTS.items():
        document = open_pdf(path)
        for number in numbers:
            id_ = str(len(corpus))
            corpus.append(
                {"_id": id_, "image": {"bytes": encode_png(document.render(number, 80)), "path": f"{id_}.png"}}
            )
            words = document.text(number).split()
            if len(words) > 12:
                queries.append({"_id": f"q{id_}", "text": " ".join(words[5:12])})
                qrels.append({"query-id": f"q{id_}", "corpus-id": id_, "score": 2})
                qrels.append({"query-id": f"q{id_}", "corpus-id": str(int(id_) // 2), "score": 1})
        document.close()
    corpus += [{**corpus[place], "_id": f"copy{place}"} for place in (3, 4)]
    _write(folder, corpus=corpus, queries=queries, qrels=qrels)
    return folder


def _write(folder: Path, **tables: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    (folder / "README.md").write_text(CARD)
    for name, rows in tables.items():
        (folder / name).mkdir()
        schema = pa.schema(
            [("_id", pa.string()), ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
        )
        table = pa.Table.from_pylist(rows, schema=schema if name == "corpus" else None)
        metadata = (
            {b"huggingface": json.dumps({"info": {"features": _FEATURES}}).encode()} if name == "corpus" else None
        )
        parquet.write_table(table.replace_schema_metadata(metadata), folder / name / "test.parquet")


_FEATURES = {"_id": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}


def _task(folder: Path) -> Any:
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    unknown = dict.fromkeys(
        [
            "reference",
            "date",
            "domains",
            "task_subtypes",
            "license",
            "annotations_creators",
            "dialect",
            "sample_creation",
        ]
    )
    metadata = TaskMetadata(
        name="SmallVidore",
        description="pages of two documents",
        dataset={"path": str(folder), "revision": "local"},
        type="DocumentUnderstanding",
        category="t2i",
        modalities=["text", "image"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_5",
        bibtex_citation=None,
        **unknown,
    )
    return type("SmallVidore", (AbsTaskRetrieval,), {"metadata": metadata})()


def test_mteb_measures_what_evaluate_measures(
    data_set: Path, tmp_path: Path, coltiny: ColPali, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")  # of mteb

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    task = _task(data_set)
    found = mteb.evaluate(MtebModel(coltiny), task, cache=None, prediction_folder=tmp_path, overwrite_strategy="always")
    [file] = tmp_path.rglob("*predictions.json")
    predictions = json.loads(file.read_text())["default"]["test"]
    grades = task.dataset["default"]["test"]["relevant_docs"] if task.dataset else _grades(data_set)
    theirs = pytrec_eval.RelevanceEvaluator(grades, {"ndcg_cut.5"}).evaluate(predictions)

    options: dict[str, Any] = {"mode": "exact", "hybrid": False, "datatype": "float32"}
    [ours] = evaluate(data_set, model=coltiny, k=5, **options).results
    assert len(theirs) == len(ours.outcomes) > 20
    for outcome in ours.outcomes:
        expected = theirs[outcome.asked.question.id]["ndcg_cut_5"]
        assert outcome.values["ndcg@5"] == pytest.approx(expected, abs=1e-6)
    mean = sum(one["ndcg_cut_5"] for one in theirs.values()) / len(theirs)
    assert ours.means["ndcg@5"].mean == pytest.approx(mean, abs=1e-6)
    scores = found.task_results[0].scores["test"][0]
    for name, metric in {
        "ndcg_at_5": "ndcg@5",
        "recall_at_5": "recall@5",
        "mrr_at_5": "mrr@5",
        "hit_rate_at_5": "hit@5",
    }.items():
        assert scores[name] == pytest.approx(ours.means[metric].mean, abs=5.1e-6), "mteb rounds to 5 digits"


def _grades(folder: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for row in parquet.read_table(folder / "qrels").to_pylist():
        grades.setdefault(row["query-id"], {})[row["corpus-id"]] = row["score"]
    return grades
