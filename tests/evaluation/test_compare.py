"""`evaluate`: its numbers against searches made by hand, its copies, its ties and its options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations import ColPali, MultiVectorStore, index_documents
from colpali_integrations.cli import words
from colpali_integrations.errors import ColPaliError, ConfigurationError, InputError, StoreError
from colpali_integrations.evaluation import Configuration, evaluate
from colpali_integrations.evaluation.metrics import METRICS
from colpali_integrations.scoring import max_sim
from colpali_integrations.stores import Entry, compress_store
from colpali_integrations.stores.settings import Datatype
from tests.evaluation.data_sets import counted
from tests.stores.stored_models import made_up

LINES: list[dict[str, Any]] = [
    {"question": "prices of bananas", "source": "fruit.pdf", "page": 2, "kind": "words"},
    {"question": "harvest of apples", "source": "fruit.pdf", "page": 1, "kind": "words"},
    {"question": "railway timetable", "source": "fruit.pdf", "pages": [1, 2], "kind": "wrong"},
]


def test_values_are_those_of_the_search(store: MultiVectorStore) -> None:
    with store:
        result = evaluate(LINES, store=store, k=[1, 2])
        [one] = result.results
        assert [outcome.rank for outcome in one.outcomes] == [1, 1, 2]
        for line, outcome in zip(LINES, one.outcomes, strict=True):
            hits = store.search(line["question"], 3)
            assert outcome.ranking == sorted(
                ((hit.id, hit.score) for hit in hits), key=lambda p: (p[1], p[0]), reverse=True
            )
            ids = [id_ for id_, _ in outcome.ranking]
            for k in (1, 2):
                for name, metric in METRICS.items():
                    assert outcome.values[f"{name}@{k}"] == metric(ids, outcome.asked.grades, k)
    assert one.means["hit@1"].mean == pytest.approx(2 / 3)
    assert [outcome.asked.question.text for outcome in result.misses()] == ["railway timetable"]
    assert result.misses(k=2) == []
    assert (result.questions, result.pages, result.model, result.k) == (3, 3, "coltiny", [1, 2])


CONFIGURATIONS = [
    "mode=exact",
    "blend: hybrid=0.2",
    "ward: first_stage=ward, first_vectors=2, mode=two_stage",
    "muvera: first_stage=muvera, mode=two_stage",
    "rows: first_stage=rows, mode=two_stage",
    "small: datatype=int8, pooling=2",
    "pooled: first_stage=rows, pooling=2, mode=two_stage",
    "tiny: datatype=binary",
    "copies: first_stage=int8, mode=two_stage",
    "float: datatype=float32",
]


def test_configurations_are_compared_with_the_first(store: MultiVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = counted(monkeypatch)
    with store:
        result = evaluate(LINES, store=store, configurations=CONFIGURATIONS, k=1)
        assert len(store) == 3
    assert len(embedded) == 3, "the pages are encoded once, for float32"
    first, *others = result.results
    assert [one.name for one in result.results] == [
        "mode=exact",
        *(text.partition(":")[0] for text in CONFIGURATIONS[1:]),
    ]
    assert first.differences == {}
    for one in others:
        change = one.differences["ndcg@1"]
        assert change.mean == pytest.approx(one.means["ndcg@1"].mean - first.means["ndcg@1"].mean)
        values = [(a.values["ndcg@1"], b.values["ndcg@1"]) for a, b in zip(one.outcomes, first.outcomes, strict=True)]
        assert (one.better, one.worse) == (sum(a > b for a, b in values), sum(a < b for a, b in values))
        if one.name != "tiny":
            assert one.means["ndcg@1"].mean == pytest.approx(2 / 3), one.name
    assert result.result("blend").outcomes[0].ranking[0][1] == 1.0, "a fused score"
    with pytest.raises(ConfigurationError, match="no configuration is named 'x'; there are mode=exact, blend"):
        result.result("x")


def test_float32_scores_the_vectors_of_the_model(store: MultiVectorStore, documents: Path, coltiny: ColPali) -> None:
    with store:
        result = evaluate(LINES, store=store, mode="exact", hybrid=False, datatype="float32")
        rounded = evaluate(LINES, store=store, mode="exact")
        entries = {entry.id: entry for entry in store.scroll()}
    for line, outcome, stored in zip(LINES, result.results[0].outcomes, rounded.results[0].outcomes, strict=True):
        query = coltiny.embed_query(line["question"])
        for id_, score in outcome.ranking:
            entry = entries[id_]
            path = Path(entry.metadata["file_path"])
            image = [path] if path.suffix == ".PNG" else None
            vectors = (
                coltiny.embed_images(image) if image else coltiny.embed_pdf(path, pages=[entry.page or 1], dpi=100)
            )
            assert score == pytest.approx(float(max_sim(query, next(iter(vectors)))), rel=1e-6)
        assert outcome.ranking[0][1] != stored.ranking[0][1]
        assert outcome.rank == stored.rank


def test_a_configuration_without_hybrid_is_that_of_a_search_for_a_text(coltiny: ColPali) -> None:
    texts = {"a": "low tide in the harbour", "b": "rates of tax", "c": "harbour dues and tax"}
    lines = [{"question": "tax in the harbour", "answers": [{"id": "b"}]}]
    with MultiVectorStore.open(model=coltiny) as store:
        entries = [Entry(id=id_, text=text) for id_, text in texts.items()]
        store.add(zip(entries, coltiny.embed_texts(texts.values()), strict=True))
        found = {hybrid: store.search("tax in the harbour", hybrid=hybrid) for hybrid in ("auto", False)}
        for given, hybrid in (({}, "auto"), ({"hybrid": "auto"}, "auto"), ({"hybrid": False}, False)):
            [one] = evaluate(lines, store=store, k=1, **given).results
            assert dict(one.outcomes[0].ranking) == {hit.id: pytest.approx(hit.score) for hit in found[hybrid]}
    assert [hit.score for hit in found["auto"]] != [hit.score for hit in found[False]]


def test_of_equal_scores_the_higher_id_comes_first(tmp_path: Path) -> None:
    with MultiVectorStore.open(model=made_up("one", dim=2)) as store:
        rows = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [1.0, 0.0], "d": [0.0, 1.0], "e": [0.5, 0.0]}
        store.add((Entry(id=id_), np.array([row])) for id_, row in rows.items())
        ranks = store.rank_batch([np.array([[1.0, 0.0]])], Configuration().options(1), depth=5)
        assert ranks == [{"a": 1.0, "c": 1.0, "e": 0.5, "b": 0.0, "d": 0.0}]


def test_ties_do_not_depend_on_the_store_s_order(coltiny: ColPali, tmp_path: Path) -> None:
    found = []
    for order in ("abcdef", "fedcba"):
        with MultiVectorStore.open(model=coltiny) as store:
            vectors, other = coltiny.embed_texts(["low tide at six", "rates of tax"])
            store.add([(Entry(id="0", text="rates of tax"), other)])  # a fusion scales from the lowest to the best
            store.add((Entry(id=id_, text="low tide"), vectors) for id_ in order)
            lines = [{"question": "tide", "answers": [{"id": "e"}]}]
            for hybrid in (False, 0.3):
                [one] = evaluate(lines, store=store, k=2, hybrid=hybrid).results
                assert [id_ for id_, _ in one.outcomes[0].ranking] == list("fedcba0")
                found.append(one.outcomes[0].values["ndcg@2"])
    assert found == [pytest.approx(0.6309297)] * 4


@pytest.mark.parametrize(
    ("datatype", "pooling"), [("int8", 1), ("int4", 1), ("int2", 1), ("binary", 1), ("int8", 2), ("float16", 3)]
)
def test_a_copy_scores_as_the_compressed_store(
    datatype: Datatype, pooling: int, folder: Path, tmp_path: Path, coltiny: ColPali
) -> None:
    copy = shutil.copytree(folder, tmp_path / "store")
    compress_store(copy, datatype=datatype, pool_factor=pooling)
    [expected] = evaluate(LINES, store=copy, model=coltiny, mode="exact", hybrid=False).results
    options: dict[str, Any] = {"datatype": datatype, "pooling": pooling, "mode": "exact", "hybrid": False}
    [found] = evaluate(LINES, store=folder, model=coltiny, **options).results
    [stored] = evaluate(LINES, store=folder, model=coltiny, mode="exact", hybrid=False).results
    for one, other, plain in zip(found.outcomes, expected.outcomes, stored.outcomes, strict=True):
        assert dict(one.ranking) == pytest.approx(dict(other.ranking), rel=1e-5)
        assert dict(one.ranking) != pytest.approx(dict(plain.ranking), rel=1e-5)


@pytest.fixture(scope="module", params=[("int8", 1), ("float16", 2), ("binary", 3)])
def compressed(folder: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("compressed") / "store")
    compress_store(copy, datatype=request.param[0], pool_factor=request.param[1])
    return copy


def scores(store: Path, coltiny: ColPali, **options: Any) -> list[dict[str, float]]:
    configuration = Configuration(hybrid=False, **options)
    [one] = evaluate(LINES, store=store, model=coltiny, configurations=[configuration]).results
    return [dict(outcome.ranking) for outcome in one.outcomes]


def test_float32_encodes_the_pages_of_a_compressed_store_anew(folder: Path, compressed: Path, coltiny: ColPali) -> None:
    expected = scores(folder, coltiny, datatype="float32")
    found = scores(compressed, coltiny, datatype="float32", pooling=1)
    assert found == [pytest.approx(one) for one in expected]
    pooled = scores(folder, coltiny, model=coltiny, datatype="float16", pooling=2)
    assert scores(folder, coltiny, datatype="float32", pooling=2) == [pytest.approx(one, rel=2e-3) for one in pooled]
    assert found != [pytest.approx(one) for one in scores(compressed, coltiny)]
    small = scores(compressed, coltiny, model=coltiny, datatype="int4", pooling=1)
    assert small == [pytest.approx(one, rel=1e-5) for one in scores(folder, coltiny, datatype="int4")]


def test_another_first_stage_scores_the_stored_vectors(compressed: Path, coltiny: ColPali) -> None:
    expected = scores(compressed, coltiny)
    found = scores(compressed, coltiny, first_stage="ward", mode="two_stage")
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3), "rounded to float16 once more"


@pytest.mark.parametrize("setting", ["datatype=float16", "datatype=int2", "pooling=2", "datatype=binary, pooling=4"])
def test_a_compressed_store_cannot_tell_of_other_vectors(setting: str, compressed: Path, coltiny: ColPali) -> None:
    message = f"the configuration '{setting}': .* keeps datatype=.* and pool_factor=.*; add model=coltiny"
    with pytest.raises(ConfigurationError, match=message) as raised:
        evaluate(LINES, store=compressed, model=coltiny, configurations=["", setting])
    assert raised.value.command == str(raised.value)
    evaluate(LINES, store=compressed, model=coltiny, configurations=["", f"{setting}, model=coltiny"])


def test_all_configurations_are_checked_before_one_runs(
    store: MultiVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[object] = []
    monkeypatch.setattr(MultiVectorStore, "rank_batch", lambda *arguments, **_: ran.append(arguments))
    with store:
        for wrong, message in (
            ("quick: mode=two_stage", "the configuration 'quick': mode=two_stage .* add first_stage=ward"),
            ("model=no-such-model", "the configuration 'model=no-such-model': "),
        ):
            with pytest.raises(ColPaliError, match=message) as raised:
                evaluate(LINES, store=store, configurations=["mode=exact", wrong])
            assert "--first-stage" not in words.message(raised.value)
        for options, message in (
            ({"over": "pages"}, "over must be"),
            ({"resamples": 0}, "resamples must be"),
            ({"by": "nokey"}, "by='nokey': no question has this key; choose one of 'document', 'kind'"),
        ):
            with pytest.raises(ConfigurationError, match=message):
                evaluate(LINES, store=store, **options)
    assert ran == []


def test_another_model_encodes_the_pages_once_and_keeps_them(
    store: MultiVectorStore, paligemma: ColPali, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configurations = [
        Configuration(name="own"),
        Configuration(name="other", model=paligemma),
        Configuration(name="pooled", model=paligemma, pooling=2),
    ]
    with store:
        first = evaluate(LINES, store=store, configurations=configurations, cache=tmp_path / "cache")
        monkeypatch.setattr(ColPali, "embed_pages", lambda *_, **__: iter(()))
        again = evaluate(LINES, store=store, configurations=configurations, cache=tmp_path / "cache")
    assert [one.outcomes for one in first.results] == [one.outcomes for one in again.results]
    assert first.result("other").outcomes[0].ranking != first.result("own").outcomes[0].ranking


def test_a_page_that_cannot_be_drawn_again_is_named(documents: Path, tmp_path: Path, coltiny: ColPali) -> None:
    copied = shutil.copytree(documents, tmp_path / "documents")
    with MultiVectorStore.open(model=coltiny) as store:
        index_documents([copied], model=coltiny, store=store, dpi=100)
        (copied / "fruit.pdf").unlink()
        told = r"^the configuration 'datatype=float32': .*fruit.pdf.* no file at .* from their files"
        with pytest.raises(InputError, match=told):
            evaluate(LINES, store=store, datatype="float32")
        assert evaluate(LINES, store=store).questions == 3


def test_intervals_over_documents_groups_and_what_is_left_out(store: MultiVectorStore) -> None:
    lines = [
        *LINES,
        {"question": "train", "source": "train.PNG", "kind": "words"},
        {"question": "x", "source": "x.pdf"},
    ]
    with store:
        with pytest.raises(InputError, match=r"has no document x.pdf"):
            evaluate(lines, store=store)
        result = evaluate(lines, store=store, k=1, by="kind", over="documents", on_error="skip")
        documents = evaluate(lines, store=store, k=1, by="document", on_error="skip")
    assert [problem.partition(":")[0] for problem in result.skipped] == ["question 5 ('x')"]
    assert documents.summary().startswith("4 questions, 1 left out, 3 pages")
    assert result.groups() == {"words": [(3, 1.0)], "wrong": [(1, 0.0)]}
    assert documents.groups() == {"fruit.pdf": [(3, pytest.approx(2 / 3))], "train.PNG": [(1, 1.0)]}
    assert "4 questions, 1 left out, 3 pages, coltiny; 95% intervals, intervals over documents" in str(result)
    mean = result.results[0].means["hit@1"]
    assert tuple(mean) == pytest.approx((0.75, 2 / 3, 1.0)), "two documents"


def test_the_results_are_json_and_a_table(store: MultiVectorStore) -> None:
    with store:
        result = evaluate(LINES, store=store, configurations=["plain:", "blend: hybrid=rrf"], k=1, by="kind")
    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (written["questions"], written["pages"], written["k"]) == (3, 3, [1])
    first = written["configurations"][0]["questions"][0]
    assert (first["question"], first["rank"], first["ndcg@1"], len(first["found"])) == ("prices of bananas", 1, 1.0, 1)
    assert (Path(first["wanted"][0]["source"]).name, first["wanted"][0]["page"]) == ("fruit.pdf", 2)
    assert written["groups"]["words"] == {"questions": 2, "ndcg@1": [1.0, 1.0]}
    lines = str(result).splitlines()
    assert lines[1].split() == ["configuration", "ndcg@1", "recall@1", "mrr@1", "hit@1", "difference", "better/worse"]
    assert lines[2].startswith("plain          .667 [.000, 1.000]")
    assert lines[3].endswith("0/0")


def test_a_filter_restricts_the_pages(store: MultiVectorStore) -> None:
    with store:
        result = evaluate(
            LINES[:2], store=store, where={"file_name": "fruit.pdf"}, configurations=["", "datatype=int8"]
        )
    assert result.pages == 2
    assert all(len(outcome.ranking) == 2 for one in result.results for outcome in one.outcomes)


def test_the_store_may_be_a_folder(folder: Path) -> None:
    before = sorted((file.name, file.stat().st_size) for file in folder.iterdir())
    assert evaluate(LINES, store=folder).questions == evaluate(LINES, store=folder, model="coltiny").questions == 3
    assert sorted((file.name, file.stat().st_size) for file in folder.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be a whole number of at least 1"),
        ({"k": []}, "k must be a whole number of at least 1, or several"),
        ({"configurations": []}, "expected at least one"),
        ({"configurations": ["mode=exact", "mode=exact"]}, "two configurations are named 'mode=exact'"),
        ({"configurations": ["mode=exact"], "hybrid": True}, "hybrid: pass configurations=, or the fields"),
        ({"over": "pages"}, "over must be 'questions' or 'documents'"),
        ({"hybird": 0.3}, "has no option 'hybird'; did you mean 'hybrid'"),
        ({"resamples": 0}, "resamples must be a whole number"),
        ({"first_page": -1}, "first_page must be"),
        ({"mode": "two_stage"}, "'mode=two_stage': mode=two_stage needs a first stage, and there is none"),
        ({"cache": ""}, "the path is empty"),
    ],
)
def test_wrong_options_are_one_clear_error(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ColPaliError, match=message):
        evaluate(LINES, store=folder, **options)


def test_a_store_is_needed(tmp_path: Path, store: MultiVectorStore, coltiny: ColPali) -> None:
    with pytest.raises(ConfigurationError, match=r"there are no pages to search: pass store="):
        evaluate(LINES)
    with pytest.raises(StoreError, match="there is no such store yet"):
        evaluate(LINES, store=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with store, pytest.raises(ConfigurationError, match="open the store with it"):
        evaluate(LINES, store=store, model=coltiny)
