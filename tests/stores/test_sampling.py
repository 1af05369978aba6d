"""What `measure_compression` says about the ways to keep a store's pages."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from random import Random

import pytest

from colpali_integrations import ColPali, MultiVectorStore
from colpali_integrations.errors import ConfigurationError, InputError, StoreError
from colpali_integrations.stores import (
    Compression,
    CompressionStudy,
    Entry,
    SampleQuestion,
    compress_store,
    measure_compression,
    stored_settings,
)
from colpali_integrations.stores.upkeep import folder_engine, size_of
from tests.stores.backends import MODEL, page
from tests.stores.test_compress import fill


def way(size: float, recall: float, datatype: str = "int8", factor: int = 1) -> Compression:
    return Compression(datatype=datatype, pool_factor=factor, bytes_per_page=size, recall=recall)  # type: ignore[arg-type]


def test_the_smallest_way_that_reaches_a_recall_is_recommended() -> None:
    ways = [way(100, 1.0, "float16"), way(60, 0.99), way(50, 0.95), way(40, 0.97, "int4"), way(30, 0.5, "binary")]
    study = CompressionStudy(pages=1, questions=1, asked="text", ways=ways)
    assert study.recommended() == ways[1]
    assert study.recommended(0.96) == ways[3]
    assert study.recommended(1) == ways[0]
    assert study.recommended(0) == ways[4]
    assert study.front() == [ways[0], ways[1], ways[3], ways[4]]
    with pytest.raises(ConfigurationError, match="recall"):
        study.recommended(1.5)


def test_sizes_are_those_that_compressed_stores_have(tmp_path: Path) -> None:
    """The files of small stores have pages of SQLite that are not full, so within a few percent."""
    fill(tmp_path / "store", 60, first_stage="exact", with_text=False)
    with MultiVectorStore.open(tmp_path / "store") as store:
        study = measure_compression(store, sample=60)
    assert (study.pages, study.questions, study.asked) == (60, 60, "vectors")
    sizes = {(one.datatype, one.pool_factor): one.bytes_per_page for one in study.ways}
    assert len(sizes) == len(study.ways) == 30
    assert sizes["float16", 1] == pytest.approx(size_of(tmp_path / "store") / 60, abs=1)
    compress_store(tmp_path / "store", datatype="int4")
    assert sizes["int4", 1] == pytest.approx(size_of(tmp_path / "store") / 60, rel=0.05)


def test_the_space_of_removed_pages_is_not_counted(tmp_path: Path) -> None:
    """Nor that in pages of the database that are half empty."""
    chance = Random(0)
    with MultiVectorStore.open(tmp_path / "store", model=MODEL, first_stage="int8") as store:
        notes = ["".join(chance.choices("abcdefghij klmnop", k=1500)) for _ in range(600)]
        entries = (Entry(id=str(number), metadata={"note": note}) for number, note in enumerate(notes))
        store.add((entry, page(number)) for number, entry in enumerate(entries))
        store.delete([str(number) for number in range(600) if chance.random() < 0.8])
        before, left = size_of(tmp_path / "store") / len(store), len(store)
        study = measure_compression(store, sample=60)
    sizes = {(one.datatype, one.pool_factor): one.bytes_per_page for one in study.ways}
    compress_store(tmp_path / "store", datatype="int4")
    assert sizes["int4", 1] == pytest.approx(size_of(tmp_path / "store") / left, rel=0.03)
    assert sizes["float16", 1] < before / 2


def test_segments_count_with_the_share_of_pages_that_are_there(tmp_path: Path) -> None:
    fill(tmp_path / "store", 100, first_stage="centroids", with_text=False)
    with MultiVectorStore.open(tmp_path / "store") as store:
        engine = folder_engine(store._engine, "measure")
        without = engine.fixed_bytes()
        store.optimize()
        [segment] = (tmp_path / "store").glob("centroids-*")
        size = segment.stat().st_size
        assert engine.fixed_bytes() == pytest.approx(without + size, abs=16384)  # the database is vacuumed too
        before = engine.fixed_bytes() - engine._database.used_bytes()
        assert before == size
        store.delete([str(number) for number in range(75)])
        assert engine.fixed_bytes() - engine._database.used_bytes() == round(size / 4)


def test_texts_count_as_compressed_stores_pack_them(tmp_path: Path) -> None:
    letters = Random(0)
    with MultiVectorStore.open(tmp_path / "store", model=MODEL) as store:
        texts = [" ".join(letters.choices(("harbour", "lighthouse", "tide"), k=2000)) for _ in range(60)]
        store.add((Entry(id=str(number), text=text), page(number)) for number, text in enumerate(texts))
        engine = folder_engine(store._engine, "measure")
        gain = engine.packing_gain([str(number) for number in range(60)])
    assert gain == pytest.approx(sum(len(one) - len(zlib.compress(one.encode(), 9)) for one in texts) / 60, abs=50)
    compress_store(tmp_path / "store", datatype="int4")
    with MultiVectorStore.open(tmp_path / "store") as store:
        assert folder_engine(store._engine, "measure").packing_gain(["0"]) == 0


def test_recall_falls_with_the_bits_and_the_pooling(tmp_path: Path) -> None:
    fill(tmp_path / "store", 200, first_stage="exact", with_text=False)
    with MultiVectorStore.open(tmp_path / "store") as store:
        study = measure_compression(store, sample=150, seed=1)
        assert measure_compression(store, sample=150, seed=1) == study
    recall = {(one.datatype, one.pool_factor): one.recall for one in study.ways}
    assert recall["float16", 1] == 1 and recall["int8", 1] > 0.97
    assert recall["int8", 1] > recall["int4", 1] > recall["int2", 1] > recall["binary", 1]
    assert recall["float16", 1] > recall["float16", 2] > recall["float16", 6]
    assert study.ways[0].recall == 1 and study.ways[0].ndcg is None


def test_questions_are_those_of_the_caller_or_words_of_the_pages(examples_folder: Path) -> None:
    del examples_folder  # the working directory
    with MultiVectorStore.open("my-index", model=ColPali.from_pretrained()) as store:
        assert measure_compression(store, sample=2).asked == "text"
        first, second = sorted(store.scroll(), key=lambda entry: entry.page or 0)
        text = "diverging palettes"
        study = measure_compression(store, sample=1, questions=[SampleQuestion(text=text, grades={first.id: 1})])
        assert (study.asked, study.questions, study.pages) == ("questions", 1, 1)
        assert study.ways[0].ndcg == 1
        # Page 2 is second for the same question: 1 / log2(3).
        study = measure_compression(store, sample=2, questions=[SampleQuestion(text=text, grades={second.id: 1})])
        assert study.ways[0].ndcg == pytest.approx(1 / math.log2(3), abs=1e-3)
        # Both answer, the second page better: (1 + 3 / log2(3)) / (3 + 1 / log2(3)).
        both = SampleQuestion(text=text, grades={first.id: 1, second.id: 3})
        study = measure_compression(store, sample=2, questions=[both])
        assert study.ways[0].ndcg == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)), abs=1e-3)
        with pytest.raises(StoreError, match="has no entry 'y', which a question names"):
            measure_compression(store, questions=[SampleQuestion(text="x", grades={"y": 1})])
    assert stored_settings("my-index") is not None


@pytest.mark.parametrize("grades", [{}, {"a": 0}, {"a": math.nan}, {"a": math.inf}])
def test_a_question_has_graded_entries(grades: dict[str, float]) -> None:
    with pytest.raises(InputError, match="the question 'x' needs the grade"):
        SampleQuestion(text="x", grades=grades)


def test_the_way_of_the_store_is_always_shown() -> None:
    ways = [way(100, 1.0, "float16"), way(60, 1.0), way(50, 0.95)]
    assert CompressionStudy(pages=1, questions=1, asked="text", ways=ways).front() == ways


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    with MultiVectorStore.open(tmp_path / "store", model=MODEL) as store:
        with pytest.raises(StoreError, match="is empty"):
            measure_compression(store)
        with pytest.raises(ConfigurationError, match="sample"):
            measure_compression(store, sample=0)
    with MultiVectorStore.open(model=MODEL) as store:
        store.add([(Entry(id="1"), page(1))])
        with pytest.raises(StoreError, match="no files"):
            measure_compression(store)
    small = MultiVectorStore.open(tmp_path / "small", model=MODEL, datatype="int4")
    with small, pytest.raises(StoreError, match="compressed already"):
        measure_compression(small)
