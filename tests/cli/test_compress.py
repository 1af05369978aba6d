"""The command `compress`: it measures, compresses and deletes, and says what it did."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from colpali_integrations.cli.app import ExitCode, run
from colpali_integrations.cli.study_page import plot, study_page
from colpali_integrations.stores import Compression, CompressionStudy, MultiVectorStore, stored_settings
from tests.stores.test_compress import fill

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    fill(tmp_path / "store", 12, first_stage="exact", with_text=False)
    return tmp_path / "store"


def test_compress_and_delete_the_former_index(store: Path, capsys: Capture) -> None:
    assert run(["compress", str(store), "--datatype", "int4", "--pool", "2"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("12 entries: ") and "--delete-old removes it" in err
    settings = stored_settings(store)
    assert settings is not None and (settings.datatype, settings.pool_factor) == ("int4", 2)
    assert run(["compress", str(store), "--delete-old"]) == ExitCode.OK
    assert "removed." in capsys.readouterr().err
    assert [path.name for path in store.parent.iterdir()] == ["store"]
    assert run(["compress", str(store), "--delete-old", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"removed_bytes": 0}
    assert run(["compress", str(store), "--datatype", "int8"]) == ExitCode.ERROR
    assert "would not bring back" in capsys.readouterr().err
    assert run(["info", str(store), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["datatype"] == "int4"


def test_json(store: Path, capsys: Capture) -> None:
    assert run(["compress", str(store), "--datatype", "binary", "--delete-old", "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert (report["entries"], report["not_pooled"], report["old_path"]) == (12, 0, None)
    assert report["path"] == str(store)


def test_measure(store: Path, tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "study.html"
    command = ["compress", str(store), "--sample", "10", "--html", str(target), "--recall", "0.5"]
    assert run(command) == ExitCode.OK
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["datatype", "pool", "factor", "bytes", "per", "page", "recall@10"]
    assert lines[1][:4] == ["float16", "(as", "it", "is)"] and lines[1][-1] == "1.000"
    assert "Measured on 10 pages with 10 questions made of vectors of the pages" in err
    assert f"compress {store} --datatype" in err and "recall falls with the number of pages" in err
    assert "<svg" in target.read_text(encoding="utf-8")
    assert run([*command[:4], "--json", "--quiet"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert len([json.loads(line) for line in out.splitlines()]) == 30 and err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass --sample N"),
        (["--sample", "5", "--datatype", "int4"], "measures all ways"),
        (["--datatype", "int4", "--html", "x.html"], "are for --sample"),
        (["--sample", "5", "--first-page", "0"], "are for --questions"),
        (["--sample", "5", "--on-error", "skip"], "are for --questions"),
        (["--datatype", "int3"], "int3"),
    ],
)
def test_wrong_usage(store: Path, arguments: list[str], message: str, capsys: Capture) -> None:
    assert run(["compress", str(store), *arguments]) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_refused_before_the_measurement(store: Path, capsys: Capture) -> None:
    assert run(["compress", str(store), "--sample", "5", "--html", str(store / "none" / "ways.html")]) == ExitCode.ERROR
    out, err = capsys.readouterr()
    assert out == "" and "there is no folder" in err


def test_questions_are_those_of_evaluate(examples_folder: Path, capsys: Capture) -> None:
    with MultiVectorStore.open("my-index", read_only=True) as opened:
        [first] = [entry.id for entry in opened.scroll() if entry.page == 1]
    lines: list[dict[str, object]] = [
        {"question": "diverging palettes", "source": "report.pdf", "page": "1", "kind": "words", "id": 7},
        {"question": "seats", "source": "report.pdf", "pages": [1, 2]},
        {"question": "palettes", "answers": [{"id": first}, {"source": "report.pdf", "page": 2, "grade": 2}]},
    ]
    file = examples_folder / "asked.jsonl"
    file.write_text("\ufeff" + "\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    command = ["compress", "my-index", "--sample", "2", "--questions", str(file)]
    assert run(command) == ExitCode.OK
    out, err = capsys.readouterr()
    shown = [line.split() for line in out.splitlines()]
    assert shown[0][-1] == "nDCG@10" and shown[1][:4] == ["float16", "(as", "it", "is)"]
    assert 0 < float(shown[1][-1]) <= 1 and "2 pages with 3 questions of yours." in err
    file.write_text('{"question": "palettes", "source": "report.pdf", "page": 0}\n')
    assert run([*command, "--first-page", "0"]) == ExitCode.OK
    assert "with 1 question of yours." in capsys.readouterr().err


def test_questions_whose_pages_are_not_there(examples_folder: Path, capsys: Capture) -> None:
    file = examples_folder / "asked.jsonl"
    lines = [{"question": "palettes", "source": name, "page": 1} for name in ("report.pdf", "other.pdf")]
    file.write_text("\n".join(map(json.dumps, lines)))
    command = ["compress", "my-index", "--sample", "2", "--questions", str(file)]
    assert run(command) == ExitCode.ERROR
    assert "has no document other.pdf" in capsys.readouterr().err
    assert run([*command, "--on-error", "skip"]) == ExitCode.INCOMPLETE
    err = capsys.readouterr().err
    assert "Left out: question 2 ('palettes'): " in err and "with 1 question of yours." in err


@pytest.mark.parametrize("line", ['{"question": "x"}', "[]", "{", "[" * 100_000])
def test_questions_that_cannot_be_read(store: Path, tmp_path: Path, line: str, capsys: Capture) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(f'{{"question": "x", "source": "0.pdf", "page": 1}}\n\n{line}\n')
    assert run(["compress", str(store), "--sample", "5", "--questions", str(file)]) == ExitCode.ERROR
    assert "questions.jsonl, line 3: " in capsys.readouterr().err


def test_the_plot_places_each_way() -> None:
    ways = [
        Compression(datatype="float16", pool_factor=1, bytes_per_page=10_000, recall=1.0, ndcg=0.5),
        Compression(datatype="int4", pool_factor=1, bytes_per_page=1_000, recall=0.9, ndcg=0.4),
        Compression(datatype="binary", pool_factor=2, bytes_per_page=100, recall=0.8, ndcg=0.3),
    ]
    study = CompressionStudy(pages=3, questions=2, asked="questions", ways=ways)
    circles = [
        (float(one.attrib["cx"]), float(one.attrib["cy"]))
        for one in ElementTree.fromstring(plot(study, ways[1])).iter("circle")
        if one.find("title") is not None
    ]
    # Sizes are on a logarithmic scale from the left, recall from .8 at the bottom to 1 at the top.
    assert circles == [(700.0, 20.0), (380.0, 170.0), (60.0, 320.0)]
    page = study_page(study, ways[1], 0.9)
    assert (
        "<td>float16 (as it is)</td>" in page and "<td>0.500</td>" in page and '<tr class="best"><td>int4</td>' in page
    )
