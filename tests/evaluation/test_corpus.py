"""Data sets that bring their pages, in the layouts of BEIR and ViDoRe."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from colpali_integrations import ColPali, MultiVectorStore
from colpali_integrations.errors import InputError, MissingExtraError
from colpali_integrations.evaluation import evaluate, read_questions
from colpali_integrations.stores import Entry
from tests.evaluation.data_sets import GRADES, PAGES, QUERIES, counted, write_vidore

pytest.importorskip("pyarrow", reason="it is in the extra `evaluate`")


@pytest.fixture(scope="module")
def vidore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vidore(tmp_path_factory.mktemp("vidore"))


def test_vidore_s_layout_is_read(vidore: Path) -> None:
    read = read_questions(vidore)
    assert [(one.id, one.text) for one in read] == [(id_, QUERIES[id_]) for id_ in ("q1", "q2", "q3")]
    assert {(one.id, answer.id): answer.grade for one in read for answer in one.answers} == {
        pair: grade for pair, grade in GRADES.items() if grade
    }
    assert read[0].metadata == {"language": "en"}
    corpus = read.corpus
    assert corpus is not None
    assert len(corpus) == 5
    assert sorted(page.id for page in corpus) == sorted(corpus.ids) == sorted(PAGES)
    assert all((page.image or b"").startswith(b"\x89PNG") for page in corpus)
    assert [page.id for page in corpus.pages(["c"])] == ["c"]


@pytest.mark.parametrize(
    "ids", [("_id", "_id", "corpus-id"), ("id", "id", "corpus-id"), ("corpus_id", "query_id", "corpus_id")]
)
def test_columns_have_several_names(ids: tuple[str, str, str], tmp_path: Path) -> None:
    read = read_questions(write_vidore(tmp_path, ids=ids, parts=1))
    assert ([one.id for one in read], read.corpus and sorted(read.corpus.ids)) == (["q1", "q2", "q3"], sorted(PAGES))


def write_beir(folder: Path) -> Path:
    rows = [{"_id": id_, "title": lines[0], "text": " ".join(lines[1:])} for id_, lines in PAGES.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [{"_id": id_, "text": text} for id_, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (folder / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{page}\t{grade}" for (query, page), grade in GRADES.items())]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_beir_s_texts_are_embedded_into_memory(tmp_path: Path, coltiny: ColPali) -> None:
    result = evaluate(write_beir(tmp_path), model=coltiny, k=1, configurations=["", "hybrid=0.5"])
    assert (result.questions, result.pages) == (3, 5)
    found = {outcome.asked.question.id: outcome.rank for outcome in result.results[0].outcomes}
    assert found["q2"] == 1
    assert found["q1"] == 2, "of the two equal pages the one of the higher id comes first"


def test_a_data_set_is_embedded_once_into_a_store_of_its_own(
    vidore: Path, tmp_path: Path, coltiny: ColPali, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(vidore, store=tmp_path / "store", k=2)
    with MultiVectorStore.open(tmp_path / "store") as store:
        assert len(store) == 5
        store.delete(["c"])  # as if the first run had been interrupted
    encoded = counted(monkeypatch)
    again = evaluate(vidore, store=tmp_path / "store", k=2, model=coltiny)
    assert len(encoded) == 1
    assert [one.outcomes for one in first.results] == [one.outcomes for one in again.results]
    float32 = evaluate(vidore, store=tmp_path / "store", k=2, datatype="float32")
    assert len(encoded) == 6, "from the pictures of the data set"
    assert [one.rank for one in float32.results[0].outcomes] == [one.rank for one in first.results[0].outcomes]
    assert len(float32.misses(k=1)) == 2
    assert '<img src="data:image' in replace(float32, k=[1]).to_html()


def test_a_store_with_other_pages_is_left_as_it_is(vidore: Path, tmp_path: Path, coltiny: ColPali) -> None:
    [vectors] = coltiny.embed_texts(["tide"])
    with MultiVectorStore.open(tmp_path / "store", model=coltiny) as store:
        store.add([(Entry(id="9", text="tide"), vectors)])
        with pytest.raises(InputError, match="2 of 3 questions name pages that cannot be found"):
            evaluate(vidore, store=store)
        assert len(store) == 1
        assert evaluate(vidore, store=store, on_error="skip").questions == 1


def test_tables_that_are_missing_or_contradict_are_named(vidore: Path, tmp_path: Path) -> None:
    folder = write_beir(tmp_path)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tz\t1\n")
    with pytest.raises(InputError, match="the qrels name 1 pages that the corpus lacks, such as 'z'"):
        read_questions(folder)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq9\t9\t1\n")
    with pytest.raises(InputError, match="no query has a right page"):
        read_questions(folder)
    (folder / "qrels" / "test.tsv").write_text("query\tcorpus-id\tscore\nq1\t9\t1\n")
    with pytest.raises(InputError, match="a row of qrels has no query_id; its columns are query, corpus_id, score"):
        read_questions(folder)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t9\tx\n")
    with pytest.raises(InputError, match="has the score 'x', which is no number"):
        read_questions(folder)
    (folder / "corpus.jsonl").write_text('{"text": "tide"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t9\t1\n")
    with pytest.raises(InputError, match="the corpus has no column id or corpus-id; its columns are text"):
        read_questions(folder)
    (folder / "corpus.jsonl").write_text("[]\n")
    with pytest.raises(InputError, match=r"corpus.jsonl, line 1: expected an object"):
        read_questions(folder)
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"corpus.parquet cannot be read as parquet"):
        read_questions(folder)
    (folder / "corpus.parquet").unlink()
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "9", "text": "\xff"}')
    with pytest.raises(InputError, match=r"cannot read .*corpus\.jsonl: .*utf-8"):
        read_questions(folder)
    for language in ("english", "french"):
        (folder / f"{language}-corpus").mkdir()
    with pytest.raises(InputError, match=r"several tables 'corpus' \(english-corpus, french-corpus\)"):
        read_questions(folder)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = write_vidore(tmp_path, parts=1)
    [file] = (folder / "corpus").iterdir()
    data = bytearray(file.read_bytes())
    data[100 : len(data) // 2] = bytes(len(data) // 2 - 100)
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read .*parquet"):
        assert list(read_questions(folder).corpus or [])


def test_parquet_needs_pyarrow(vidore: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"colpali-integrations\[evaluate\]"):
        read_questions(vidore)
