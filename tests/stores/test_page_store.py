"""A store finds what max_sim finds, keeps what it acknowledged through a kill, and refuses another model's vectors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations.core.errors import FingerprintError, StoreError
from colpali_integrations.core.scoring import max_sim
from colpali_integrations.stores import Fingerprint, Page, PageStore

MODEL = Fingerprint(name="fake", family="coltiny", dim=16, description="0123456789abcdef")


def make_page(number: int, source: str = "report.pdf", text: str = "") -> Page:
    return Page(
        source=source, page=number, width=595.0, height=842.0, content_hash=f"{source}-{number}", text=text,
        metadata={"number": number},
    )  # fmt: skip


def make_records(count: int, *, source: str = "report.pdf", seed: int = 0) -> list[tuple[Page, NDArray[np.float32]]]:
    random = np.random.default_rng(seed)
    return [
        (make_page(number, source), random.standard_normal((random.integers(1, 40), 16), dtype=np.float32))
        for number in range(1, count + 1)
    ]


def test_search_ranks_as_exact_max_sim_over_ragged_pages(tmp_path: Path) -> None:
    records = make_records(700)
    store = PageStore(tmp_path, model=MODEL)
    assert store.add(records) == 700
    query = np.random.default_rng(1).standard_normal((9, 16), dtype=np.float32)
    # float16 is what the store promises to keep, so the truth is computed from it; one page at a time, unblocked.
    truth = np.array([float(max_sim(query, vectors.astype(np.float16))) for _, vectors in records])
    hits = store.search(query, k=20)
    assert [hit.page.page for hit in hits] == [int(index) + 1 for index in np.argsort(-truth, kind="stable")[:20]]
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(truth)[::-1][:20], rtol=1e-5)


def test_everything_is_there_after_reopening_without_the_model(tmp_path: Path) -> None:
    records = make_records(20)
    records[3] = (replace(records[3][0], text="Zeile eins\nline two\u2028\x85 ünï \U0001f600"), records[3][1])
    PageStore(tmp_path, model=MODEL).add(records)
    store = PageStore(tmp_path)
    assert store.model == MODEL
    assert list(store) == [page for page, _ in records]
    for position, (_, vectors) in enumerate(records):
        np.testing.assert_array_equal(store.vectors(position), vectors.astype(np.float16).astype(np.float32))


def test_pages_already_there_are_skipped(tmp_path: Path) -> None:
    store = PageStore(tmp_path, model=MODEL)
    assert store.add(make_records(5)) == 5
    assert store.add(make_records(8)) == 3
    assert store.add([*make_records(2, source="new.pdf"), *make_records(2, source="new.pdf")]) == 2
    assert len(store) == 10
    assert "report.pdf-8" in store
    assert "report.pdf-9" not in store
    assert store.sources() == {"report.pdf": 8, "new.pdf": 2}


def test_delete_removes_a_source_and_only_that(tmp_path: Path) -> None:
    store = PageStore(tmp_path, model=MODEL)
    kept = make_records(6, source="kept.pdf", seed=3)
    store.add([*make_records(4), *kept])
    assert store.delete("report.pdf") == 4
    assert store.delete("report.pdf") == 0
    reopened = PageStore(tmp_path)
    assert list(reopened) == list(store) == [page for page, _ in kept]
    query = kept[4][1]
    assert reopened.search(query, k=1)[0].page == kept[4][0]
    assert len(list(tmp_path.glob("*.f16"))) == 1
    assert store.delete("kept.pdf", keep={"kept.pdf-2"}) == 5
    assert [page.page for page in store] == [2]
    assert store.delete("kept.pdf") == 1
    assert len(PageStore(tmp_path)) == 0
    assert store.add(kept) == 6
    assert PageStore(tmp_path).search(query, k=1)[0].page == kept[4][0]


def test_an_empty_store_finds_nothing(tmp_path: Path) -> None:
    assert PageStore(tmp_path / "new", model=MODEL).search(np.ones((2, 16))) == []
    assert not (tmp_path / "new").exists(), "opening must not write"


@pytest.mark.parametrize(
    "other",
    [
        replace(MODEL, dim=32),
        replace(MODEL, family="paligemma"),
        replace(MODEL, description="fedcba9876543210", name="other"),
    ],
)
def test_another_model_is_refused_with_both_shown(tmp_path: Path, other: Fingerprint) -> None:
    PageStore(tmp_path, model=MODEL).add(make_records(1))
    with pytest.raises(FingerprintError) as caught:
        PageStore(tmp_path, model=other)
    for part in (str(MODEL), str(other), "another folder"):
        assert part in str(caught.value)


def test_the_same_model_under_another_name_is_accepted(tmp_path: Path) -> None:
    PageStore(tmp_path, model=MODEL).add(make_records(1))
    assert len(PageStore(tmp_path, model=replace(MODEL, name="a/local/folder"))) == 1


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((3, 8)), r"\(n, 16\).*\(3, 8\)"),
        (np.ones(16), r"\(16,\)"),
        (np.ones((0, 16)), r"\(0, 16\)"),
        (np.full((2, 16), np.nan), "finite"),
        (np.full((2, 16), 7e4), "65504"),
    ],
)
def test_unusable_vectors_are_refused_and_what_came_before_is_kept(
    tmp_path: Path, vectors: NDArray[np.float64], message: str
) -> None:
    store = PageStore(tmp_path, model=MODEL)
    with pytest.raises(StoreError, match=message):
        store.add([*make_records(2), (make_page(3), vectors)])
    assert [page.page for page in PageStore(tmp_path)] == [1, 2]


def test_metadata_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    page = replace(make_page(1), metadata={"image": object()})
    with pytest.raises(StoreError, match="JSON"):
        PageStore(tmp_path, model=MODEL).add([(page, np.ones((1, 16)))])


@pytest.mark.parametrize("query", [np.ones((2, 8)), np.ones((0, 16)), np.ones(16), np.ones((1, 2, 16))])
def test_a_query_of_another_shape_is_refused(tmp_path: Path, query: NDArray[np.float64]) -> None:
    store = PageStore(tmp_path, model=MODEL)
    store.add(make_records(1))
    with pytest.raises(StoreError, match="16"):
        store.search(query)


def test_k_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="k must be"):
        PageStore(tmp_path, model=MODEL).search(np.ones((2, 16)), k=0)


def test_what_a_generator_gave_before_it_failed_is_kept(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[Page, NDArray[np.float32]]]:
        yield from make_records(21)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PageStore(tmp_path, model=MODEL).add(failing())
    assert len(PageStore(tmp_path)) == 21


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_writer_leaves_a_consistent_store(tmp_path: Path) -> None:
    """The child says how many pages were committed, then is killed in the middle of an endless addition."""
    script = textwrap.dedent(
        """
        import sys, time, numpy as np
        from colpali_integrations.stores import Fingerprint, Page, PageStore
        def endless():
            number = 0
            while True:
                number += 1
                page = Page(source="x.pdf", page=number, width=1, height=1, content_hash=str(number))
                yield page, np.full((50, 16), number % 1000, dtype=np.float32)
                print(number, flush=True)
        PageStore(sys.argv[1], model=Fingerprint("fake", "coltiny", 16, "0123456789abcdef")).add(endless())
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    given = 0
    while given < 200:
        given = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    given = int((process.stdout.read().splitlines() or [str(given)])[-1])
    process.wait()
    process.stdout.close()
    # What a write cut short leaves behind, should the kill not have hit one.
    with (tmp_path / "vectors-1.f16").open("ab") as file:
        file.write(b"\1\2\3")
    with (tmp_path / "pages-1.jsonl").open("ab") as file:
        file.write(b'{"source": "x.p')
    store = PageStore(tmp_path, model=MODEL)
    assert given - 16 <= len(store) <= given + 1
    for position in (0, len(store) - 1):
        np.testing.assert_array_equal(store.vectors(position), np.full((50, 16), (position + 1) % 1000))
    assert store.add(make_records(3)) == 3
    reopened = PageStore(tmp_path)
    assert [page.source for page in reopened][-4:] == ["x.pdf", *["report.pdf"] * 3]
    np.testing.assert_array_equal(reopened.vectors(len(reopened) - 1), make_records(3)[2][1].astype(np.float16))


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    store = PageStore(tmp_path, model=MODEL)
    store.add(make_records(2))

    def adding() -> Iterator[tuple[Page, NDArray[np.float32]]]:
        yield from make_records(1, source="other.pdf")
        code = "import sys; from colpali_integrations.stores import PageStore; store = PageStore(sys.argv[1]); "
        code += "assert len(store) == 2; store.delete('report.pdf')"
        child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert "another process is writing" in child.stderr

    assert store.add(adding()) == 1
    assert len(PageStore(tmp_path)) == 3


def test_two_objects_on_one_folder_see_each_others_pages_when_they_write(tmp_path: Path) -> None:
    first, second = PageStore(tmp_path, model=MODEL), PageStore(tmp_path, model=MODEL)
    assert first.add(make_records(3)) == 3
    assert second.add(make_records(5)) == 2
    assert first.add(make_records(2, source="b.pdf")) == 2
    assert len(first) == len(PageStore(tmp_path)) == 7


def test_searching_while_adding(tmp_path: Path) -> None:
    store = PageStore(tmp_path, model=MODEL)
    records = make_records(300)
    store.add(records[:1])
    done = threading.Event()
    failures: list[BaseException] = []

    def search() -> None:
        try:
            while not done.is_set():
                assert store.search(np.ones((3, 16)), k=1)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    store.add(records)
    store.delete("nothing.pdf")
    done.set()
    thread.join()
    assert not failures
    assert len(store) == 300


def test_no_store_no_model(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        PageStore(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        PageStore(tmp_path / "file", model=MODEL)
    with pytest.raises(StoreError, match="cannot write to the store"):
        PageStore(tmp_path / "file" / "deeper", model=MODEL).add(make_records(1))


def test_a_failed_write_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    store = PageStore(tmp_path, model=MODEL)
    store.add(make_records(2))
    size = (tmp_path / "vectors-1.f16").stat().st_size

    def spoilt() -> Iterator[tuple[Page, NDArray[np.float32]]]:
        yield from make_records(4)
        (tmp_path / "pages-1.jsonl").rename(tmp_path / "aside")
        (tmp_path / "pages-1.jsonl").mkdir()

    with pytest.raises(StoreError, match="cannot write to the store"):
        store.add(spoilt())
    assert (tmp_path / "vectors-1.f16").stat().st_size > size, "the vectors were written, their pages could not be"
    assert len(store) == 2
    (tmp_path / "pages-1.jsonl").rmdir()
    (tmp_path / "aside").rename(tmp_path / "pages-1.jsonl")
    assert store.add(make_records(4)) == 2
    reopened = PageStore(tmp_path)
    for position, (page, vectors) in enumerate(make_records(4)):
        assert list(reopened)[position] == page
        np.testing.assert_array_equal(reopened.vectors(position), vectors.astype(np.float16))


def test_a_damaged_or_foreign_folder_is_named(tmp_path: Path) -> None:
    PageStore(tmp_path, model=MODEL).add(make_records(4))
    manifest = tmp_path / "store.json"
    good = manifest.read_text()
    for broken in ("{", "[]", "{}", json.dumps({**json.loads(good), "format": 99})):
        manifest.write_text(broken)
        with pytest.raises(StoreError, match="store"):
            PageStore(tmp_path)
    manifest.write_text(good)
    os.truncate(tmp_path / "vectors-1.f16", 10)
    with pytest.raises(StoreError, match="damaged"):
        PageStore(tmp_path)


@pytest.mark.parametrize("fields", [{"page": 0}, {"source": ""}, {"content_hash": ""}])
def test_a_page_that_could_not_be_found_again_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(StoreError):
        Page(**{**make_page(1).to_dict(), **fields})


def test_page_names() -> None:
    assert make_page(7, "folder/report.pdf").name == "report.pdf, page 7"
    assert make_page(7, "folder/report.pdf", text="  \n").content == "report.pdf, page 7"
    assert make_page(7, text=" Hello ").content == "Hello"
