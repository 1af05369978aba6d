"""What `measure_compression` says about the ways to keep a store's pages."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from colpali_integrations import ColPali, MultiVectorStore
from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores import (
    Compression,
    CompressionStudy,
    Entry,
    SampleQuestion,
    compress_store,
    measure_compression,
    stored_settings,
)
from colpali_integrations.stores.upkeep import size_of
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
        asked = [SampleQuestion(text="diverging palettes", source="report.pdf", page=1)]
        study = measure_compression(
            store, sample=1, questions=[*asked, SampleQuestion(text="x", source="y.pdf", page=1)]
        )
        assert (study.asked, study.questions, study.pages) == ("questions", 1, 1)
        assert study.ways[0].ndcg == 1
        # Page 2 is second for the same question: 1 / log2(3).
        second = [SampleQuestion(text="diverging palettes", source="report.pdf", page=2)]
        study = measure_compression(store, sample=2, questions=second)
        assert study.ways[0].ndcg == pytest.approx(1 / math.log2(3), abs=1e-3)
        with pytest.raises(StoreError, match="no page of any of the 1 questions"):
            measure_compression(store, questions=[SampleQuestion(text="x", source="y.pdf", page=1)])
    assert stored_settings("my-index") is not None


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
