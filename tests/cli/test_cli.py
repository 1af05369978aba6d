"""The commands as a script uses them: their output on stdout and stderr, and their exit codes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from colpali_integrations import ColPali, __version__
from colpali_integrations.cli.app import ExitCode, run
from colpali_integrations.cli.display import marked
from colpali_integrations.explain.snippet import snippet
from colpali_integrations.models import list_supported_models
from colpali_integrations.models.registry import find_model
from colpali_integrations.stores import Entry, MultiVectorStore, stored_settings
from tests.pages.strangers import frames, tiff
from tests.pages.test_pdf import encrypted
from tests.pages.test_viewer import HINDI
from tests.stores.documents import draw, make_folder, save_pdf
from tests.stores.stored_models import made_up


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("cli") / "documents")


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    store = folder.parent / "store"
    assert run(["index", str(folder), "--store", str(store), "--dpi", "100", "--quiet"]) == ExitCode.OK
    return store


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def test_index_prints_its_summary_on_stderr(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["index", str(folder), "--store", "index", "--dpi", "100", "--batch-size", "2", "--parallel", "1"]
    assert run(arguments) == ExitCode.OK
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Passed over: 1 file of another type")
    assert "\n3 pages added in " in captured.err
    assert captured.err.endswith("index holds 3 pages of 2 documents.\n")
    assert "\x1b" not in captured.err, "no bar and no colours when stderr is no terminal"
    assert run([*arguments, "--quiet"]) == ExitCode.OK
    assert capsys.readouterr() == ("", "")
    assert run(arguments) == ExitCode.OK
    assert capsys.readouterr().err.endswith("\n0 pages added, 3 present. index holds 3 pages of 2 documents.\n")


def test_search_as_json_prints_one_object_per_line(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "prices of bananas, apples", "--store", str(store), "-k", "2", "--json"]) == ExitCode.OK
    captured = capsys.readouterr()
    first, second = map(json.loads, captured.out.splitlines())
    scores = ["score", "relevance", "doubtful"]
    assert list(first) == ["id", "document_id", "source", "file_path", "page", *scores, "text", "metadata"]
    assert first["document_id"] == first["file_path"] == os.path.realpath(first["source"])
    assert first["text"] == "", "a scan"
    assert (first["metadata"]["page"], first["metadata"]["page_count"]) == (2, 2)
    assert (Path(first["source"]).name, first["page"]) == ("fruit.pdf", 2)
    assert first["score"] > second["score"]
    assert captured.err == ""


def test_pages_with_nothing_of_the_question_are_no_results(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "bananas", "--store", str(store), "--json"]) == ExitCode.OK
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert run(["search", "zeppelin", "--store", str(store)]) == ExitCode.INCOMPLETE
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"The index {store} has nothing of the question.\n")


def test_a_search_takes_the_weight_of_the_words(
    tmp_path: Path, coltiny: ColPali, capsys: pytest.CaptureFixture[str]
) -> None:
    with MultiVectorStore.open(tmp_path, model=coltiny) as opened:
        texts = {"1": "a harbour", "2": "a crane"}
        opened.add((Entry(id=id_, text=text), coltiny.embed_query(text)) for id_, text in texts.items())
    question = ["search", "harbour", "--store", str(tmp_path), "--json"]

    def found(*options: str) -> list[dict[str, Any]]:
        assert run([*question, *options]) == ExitCode.OK
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert {one["halves"]["weight"] for one in found("--hybrid-weight", "0.25")} == {0.25}
    assert {one["halves"]["weight"] for one in found("--hybrid", "--hybrid-weight", "rrf")} == {0.5}
    for wrong in ("1.5", "nan", "words"):
        assert run([*question, "--hybrid-weight", wrong]) == ExitCode.USAGE
        assert "neither a number from 0 to 1 nor rrf" in " ".join(capsys.readouterr().err.split())
    assert run([*question, "--no-hybrid", "--hybrid-weight", "0.5"]) == ExitCode.USAGE
    assert "leave out --no-hybrid" in " ".join(capsys.readouterr().err.split())


def test_search_writes_a_report(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    arguments = ["search", "prices of bananas, apples", "--store", str(store), "-k", "2"]
    assert run([*arguments, "--html", str(target)]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "fruit.pdf" in captured.out
    assert captured.err == f"Report: {target}\n"
    report = target.read_text(encoding="utf-8")
    assert report.count("<article") == 2
    assert 'aria-label="bananas: ' in report
    assert 'class="heat all"' in report

    opened: list[str] = []

    def browser(uri: str) -> bool:
        opened.append(uri)
        return len(opened) == 1

    monkeypatch.setattr("webbrowser.open", browser)
    assert run([*arguments, "--open", "--json"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2, "the path of the report is not among the results"
    assert captured.err.startswith("Report: ")
    written = Path(captured.err.removeprefix("Report: ").strip())
    assert opened == [written.as_uri()]
    assert written.read_text(encoding="utf-8") == report
    written.unlink()
    assert run([*arguments, "--html", str(target), "--open"]) == ExitCode.OK
    assert "No browser could be opened" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_refused_before_the_search(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    for target, message in (
        (tmp_path / "no" / "folder.html", f"there is no folder {tmp_path / 'no'}; make it"),
        (tmp_path, f"{tmp_path} is a folder; name a file in it"),
        (tmp_path / "report.html", f"writing {tmp_path / 'report.html'} is not permitted"),
    ):
        assert run(["search", "apples", "--store", str(store), "--html", str(target)]) == ExitCode.ERROR
        captured = capsys.readouterr()
        assert captured.out == "", "no result"
        assert f"Error: --html: {message}" in captured.err
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_a_report_lacks_are_told_in_the_words_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked.pdf").write_bytes(encrypted(user=b"sesame", owner=b"owner"))
    (tmp_path / "password").write_text("sesame")
    store, target = str(tmp_path / "store"), tmp_path / "report.html"
    password = ["--password-file", str(tmp_path / "password")]
    assert run(["index", str(tmp_path / "locked.pdf"), "--store", store, *password]) == ExitCode.OK
    capsys.readouterr()
    search = ["search", "secret", "--store", store, "--html", str(target)]
    assert run([*search, *password]) == ExitCode.OK
    assert capsys.readouterr().err == f"Report: {target}\n"
    assert run(search) == ExitCode.OK
    note = "is encrypted; pass --password-file FILE"
    assert f"No picture of 1 page in the report: {tmp_path / 'locked.pdf'} {note}" in capsys.readouterr().err
    assert note in target.read_text(encoding="utf-8")
    assert run([*search[:-2], "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["text"] == "Secret"


def test_index_as_json(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.pdf").write_text("not a PDF")
    arguments = ["index", str(tmp_path), str(folder), "--store", str(tmp_path / "s"), "--dpi", "100", "--json"]
    assert run(arguments) == ExitCode.INCOMPLETE
    captured = capsys.readouterr()
    [line] = captured.out.splitlines()
    report = json.loads(line)
    [failure] = report.pop("failures")
    assert failure["name"] == str(tmp_path / "broken.pdf")
    assert failure["error"]
    assert report.pop("seconds") > 0
    assert report == {
        **{"documents": 3, "added": 3, "copied": 0, "present": 0, "updated": 0, "replaced": 0, "removed": 0},
        **{"warnings": [], "passed_over": {"other_suffix": 1, "hidden": 1}, "twins": {}},
        **{"little_read": {}, "little_read_with_text": 0},
        **{"absent": 0, "pages": 3},
        "store": str(tmp_path / "s"),
    }
    assert "broken.pdf" in captured.err
    (tmp_path / "nothing").mkdir()
    assert run(["index", str(tmp_path / "nothing"), "--store", str(tmp_path / "t"), "--json"]) == ExitCode.INCOMPLETE
    assert json.loads(capsys.readouterr().out)["documents"] == 0


def test_index_makes_the_first_stage_that_is_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["index", str(folder), "--store", str(tmp_path / "store"), "--pages", "1", "--on-error", "skip"]
    run([*command, "--first-stage", "centroids", "--quiet"])
    settings = stored_settings(tmp_path / "store")
    assert settings is not None
    assert settings.first_stage == "centroids"
    run([*command, "--quiet"])  # the store's own by default
    capsys.readouterr()
    assert run([*command, "--first-stage", "ward"]) == ExitCode.ERROR
    assert "--first-stage centroids" in " ".join(capsys.readouterr().err.split())


def test_index_makes_the_language_that_is_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["index", str(folder / "fruit.pdf"), "--pages", "1", "--dpi", "50", "--quiet", "--store"]
    for name, expected in (("german", "german"), ("none", None)):
        assert run([*command, str(tmp_path / name), "--language", name]) == ExitCode.OK
        settings = stored_settings(tmp_path / name)
        assert settings is not None and settings.language == expected
    assert run([*command, str(tmp_path / "none"), "--language", "dutch"]) == ExitCode.ERROR
    assert "was made with --language none, and --language dutch was requested" in capsys.readouterr().err
    assert run([*command, str(tmp_path / "new"), "--language", "klingon"]) == ExitCode.ERROR
    assert "no stemmer for the language 'klingon'; pass --language none, which" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_debug_prints_the_traceback_of_an_error(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = ["search", "x", "--store", str(tmp_path / "nowhere")]
    for arguments in ([*nowhere, "--debug"], ["--debug", *nowhere]):
        assert run(arguments) == ExitCode.ERROR
        captured = capsys.readouterr()
        assert "Traceback" in captured.err
        assert captured.err.splitlines()[-1].startswith("Error: there is no store at")
    assert run(nowhere) == ExitCode.ERROR
    assert "Traceback" not in capsys.readouterr().err

    def broken(*arguments: object) -> None:
        raise RuntimeError("a cog fell out")

    monkeypatch.setattr("webbrowser.open", broken)
    search = ["search", "apples", "--store", str(store), "--json", "--open"]
    assert run(search) == ExitCode.ERROR
    captured = capsys.readouterr()
    report, error = captured.err.splitlines()
    assert error == (
        "Error: unexpected RuntimeError: a cog fell out; run it again with --debug to see where, and please report it"
    )
    Path(report.removeprefix("Report: ")).unlink()
    assert run([*search, "--html", str(tmp_path / "report.html"), "--debug"]) == ExitCode.ERROR
    assert "Traceback" in capsys.readouterr().err


def test_search_prints_a_table(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)  # from where the documents' paths are long
    assert run(["search", "railway timetable", "apples", "bananas", "-s", str(store)]) == ExitCode.OK
    base, header, best, *others = capsys.readouterr().out.splitlines()
    assert base == f"in {store.parent / 'documents'}"
    assert header.split() == ["#", "Relevance", "Document", "Page", "On", "the", "page"]
    rank, _, document, page, *text = best.split()
    assert (rank, document, page, text) == ("1", str(Path("deep/er/train.PNG")), "1", ["no", "text", "layer"])
    assert len(others) == 2


def test_a_row_is_one_line_in_a_pipe(
    tmp_path: Path, coltiny: ColPali, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    name = "minutes-of-the-harbour-office-" * 4 + ".pdf"
    entry = Entry(id="a", text="low tide in the harbour " * 9, metadata={"source": name, "page": 1})
    with MultiVectorStore.open(tmp_path, model=coltiny) as opened:
        opened.add([(entry, coltiny.embed_query("harbour"))])
    assert run(["search", "harbour", "--store", str(tmp_path)]) == ExitCode.OK
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "#" and name in row and row.count("low tide in the harbour") > 3


_NO_COUNTS = ("seconds", "store", "passed_over", "twins")


def indexed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """The report of an `index` without failures."""
    assert run(["index", *map(str, arguments), "--dpi", "100", "--json"]) == ExitCode.OK
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return {name: value for name, value in report.items() if value and name not in _NO_COUNTS}


def test_owners_have_documents_of_their_own_and_can_remove_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = [folder, "--store", tmp_path, "--exclude", "deep/*"]
    assert indexed(capsys, *index, "--metadata", "tenant=north", "--metadata", "year=2024") == {
        **{"documents": 1, "added": 2, "pages": 2}
    }
    assert indexed(capsys, *index, "--metadata", "tenant=south", "--pages", "2") == {
        **{"documents": 1, "copied": 1, "pages": 3}
    }
    own = indexed(capsys, folder / "fruit.pdf", "--store", tmp_path, "--document-id", "fruit", "--pages", "1-2")
    assert own == {"documents": 1, "copied": 2, "pages": 5}

    search = ["search", "apples, prices", "--store", str(tmp_path), "--json"]
    assert run([*search, "--filter", '{"tenant": "north", "year": {"$gt": 2000}}']) == ExitCode.OK
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert run([*search, "--filter", '{"tenant": "west"}']) == ExitCode.INCOMPLETE
    assert capsys.readouterr().err == f"The index {tmp_path} has no pages that match the filter.\n"

    remove = ["remove", "--store", str(tmp_path), "--json"]
    for arguments, removed, left in (
        (["--document-id", "fruit"], 2, 3),
        (["--filter", '{"tenant": "south"}'], 1, 2),
        (["--document-id", "fruit"], 0, 2),
    ):
        assert run([*remove, *arguments]) == (ExitCode.OK if removed else ExitCode.INCOMPLETE)
        assert json.loads(capsys.readouterr().out) == {"removed": removed, "pages": left}
    assert run([*remove, "--filter", '{"$and": []}']) == ExitCode.ERROR
    assert "fits every entry" in capsys.readouterr().err


def test_a_changed_file_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paper, store = tmp_path / "paper.pdf", tmp_path / "store"
    save_pdf(paper, draw("apples"), draw("bananas"), draw("cherries"))
    assert indexed(capsys, paper, "--store", store)["added"] == 3
    save_pdf(paper, draw("plums"), draw("pears"))
    assert indexed(capsys, paper, "--store", store) == {
        **{"documents": 1, "added": 2, "replaced": 2, "removed": 1, "pages": 2}
    }
    save_pdf(paper, draw("grapes"))
    assert run(["index", str(paper), "--store", str(store), "--dpi", "100"]) == ExitCode.OK
    assert ", 1 replaced, 1 removed. " in capsys.readouterr().err


def test_missing_fonts_are_told_and_force_embeds_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "poem.pdf").write_bytes(HINDI)
    (tmp_path / "shelf").symlink_to(tmp_path)
    index = ["index", str(tmp_path), "--store", str(tmp_path / "store")]
    assert run([*index, "--follow-symlinks"]) == ExitCode.OK
    captured = capsys.readouterr().err
    assert f"{tmp_path / 'poem.pdf'}: page 1: not drawn are characters of Absent" in captured
    assert captured.count("not drawn are characters") == 1
    assert "linked folder" not in captured
    assert run(index) == ExitCode.OK
    captured = capsys.readouterr().err
    assert f"1 linked folder ({tmp_path / 'shelf'}; see --follow-symlinks)" in captured
    assert "0 pages added, 1 present" in captured
    assert f"{tmp_path / 'poem.pdf'}: page 1: not drawn are characters of Absent" in captured, "as long as it is so"
    assert run([*index, "--quiet"]) == ExitCode.OK
    assert capsys.readouterr().err == ""
    assert run([*index, "--force", "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert (report["added"], report["replaced"], report["pages"]) == (1, 1, 1)
    assert report["passed_over"]["linked_folder"] == 1
    [warning] = report["warnings"]
    assert warning["name"] == str(tmp_path / "poem.pdf")
    assert "characters of Absent" in warning["warning"]


def test_a_file_that_is_indexed_with_other_metadata_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("apples", "grapes"):
        save_pdf(tmp_path / f"{name}.pdf", draw(name))
    index = ["index", "apples.pdf", "grapes.pdf", "--store", "my store"]
    assert run([*index, "--metadata", "year=2023"]) == ExitCode.OK
    assert "second time" not in capsys.readouterr().err
    assert run([*index, "--metadata", "year=2024"]) == ExitCode.OK
    captured = " ".join(capsys.readouterr().err.split())
    assert "Indexed a second time" in captured
    assert "its --document-id): apples.pdf (and 1 more file). " in captured
    command = captured.partition("remove that document: ")[2].partition(" 0 pages added")[0]
    assert run([*index, "--metadata", "year=2024", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["twins"] == {}, "nothing is new"
    program, *arguments = shlex.split(command)
    assert (program, arguments[:2]) == ("colpali-integrations", ["delete", "my store"])
    assert run(arguments) == ExitCode.OK
    with MultiVectorStore.open(tmp_path / "my store") as store:
        left = sorted((Path(entry.metadata["file_path"]).stem, entry.metadata["year"]) for entry in store.scroll())
    assert left == [("apples", 2024), ("grapes", 2023), ("grapes", 2024)]


def test_passwords_come_from_a_file_or_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked.pdf").write_bytes(encrypted(user=b"sesame", owner=b"owner"))
    (tmp_path / "password").write_text("sesame\n")
    index = [tmp_path / "locked.pdf", "--store", tmp_path / "store"]
    assert run(["index", *map(str, index)]) == ExitCode.INCOMPLETE
    assert "encrypted" in capsys.readouterr().err
    assert indexed(capsys, *index, "--password-file", tmp_path / "password")["added"] == 1
    search = ["search", "secret", "--store", str(tmp_path / "store"), "--html", str(tmp_path / "report.html")]
    for more, shown in ([], False), (["--password-file", str(tmp_path / "password")], True):
        assert run([*search, *more]) == ExitCode.OK
        assert ("is encrypted" not in (tmp_path / "report.html").read_text(encoding="utf-8")) is shown
    capsys.readouterr()
    monkeypatch.setenv("COLPALI_PDF_PASSWORD", "sesame")
    assert indexed(capsys, *index)["present"] == 1


def test_a_store_in_the_home_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert indexed(capsys, folder, "--store=~/index")["added"] == 3
    assert (tmp_path / "index").is_dir()
    MultiVectorStore.open("~/index").close()
    assert run(["search", "apples", "--store=~/index", "--html=~/found.html"]) == ExitCode.OK
    assert (tmp_path / "found.html").is_file()
    assert run(["search", "apples", "--store=~/nothing"]) == ExitCode.ERROR


def test_broken_documents_are_named_and_the_exit_code_is_3(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.pdf").write_text("not a PDF")
    arguments = ["index", str(tmp_path), str(folder), "--store", str(tmp_path / "store"), "--dpi", "100"]
    assert run(arguments) == ExitCode.INCOMPLETE
    captured = capsys.readouterr()
    skipped, passed_over, summary = captured.err.splitlines()
    assert skipped.startswith(f"Skipped {tmp_path / 'broken.pdf'}: is not a PDF")
    assert (
        passed_over == f"Passed over: 1 file of another type ({folder / 'notes.txt'}), 1 hidden ({folder / '.hidden'})."
    )
    assert summary.startswith("3 pages added")
    assert ", 1 document or page skipped. " in summary
    assert run([*arguments, "--quiet"]) == ExitCode.INCOMPLETE
    assert capsys.readouterr().err == f"{skipped}\n"
    assert run([*arguments, "--on-error", "raise"]) == ExitCode.ERROR
    assert "Error:" in capsys.readouterr().err


def test_a_failure_is_shown_when_it_happens(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.pdf").write_text("not a PDF")

    def interrupt(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rich.progress.Progress.update", interrupt)  # Ctrl-C after the first page
    arguments = ["index", str(tmp_path), str(folder), "--store", str(tmp_path / "store"), "--dpi", "100"]
    assert run(arguments) == ExitCode.INTERRUPTED
    skipped, interrupted = capsys.readouterr().err.splitlines()
    assert skipped.startswith(f"Skipped {tmp_path / 'broken.pdf'}: ")
    assert interrupted.startswith("Interrupted.")


def test_pages_beyond_the_end_of_one_of_several_documents(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = ["index", str(folder), "--store", str(tmp_path / "store"), "--dpi", "100"]
    assert run([*index, "--pages", "2"]) == ExitCode.OK
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("1 page added")
    assert ", 1 requested page beyond a document's end. " in error
    assert run([*index, "--pages", "3-4"]) == ExitCode.ERROR
    assert "no document has any of the requested pages; the longest has 2 pages" in capsys.readouterr().err
    alone = ["index", str(folder / "fruit.pdf"), "--store", str(tmp_path / "store"), "--pages", "1-3"]
    assert run(alone) == ExitCode.INCOMPLETE, "of a single document it is an error"
    assert "pages 1 to 2; page 3 was requested" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["page", "document_id", "source"])
def test_metadata_that_pages_have_is_refused(
    key: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = ["index", str(folder), "--store", str(tmp_path / "store"), "--metadata", f"{key}=9"]
    assert run(index) == ExitCode.ERROR
    error = capsys.readouterr().err
    assert f"each page has its own {key}, so a value of the caller is lost; use another name" in error
    assert not (tmp_path / "store").exists()


def test_empty_folders_and_empty_indexes_have_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["index", str(tmp_path), "--store", str(tmp_path / "store")]) == ExitCode.INCOMPLETE
    assert "No PDFs, Office files or images" in capsys.readouterr().err
    MultiVectorStore.open(tmp_path / "empty", model=find_model("coltiny")).close()
    assert run(["search", "x", "--store", str(tmp_path / "empty"), "--json"]) == ExitCode.INCOMPLETE
    assert capsys.readouterr() == ("", f"The index {tmp_path / 'empty'} has no pages.\n")


def test_expected_errors_are_one_line(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    other = made_up("elsewhere", family="paligemma", identity="0" * 16)
    MultiVectorStore.open(tmp_path / "other", model=other).close()
    for arguments, message in [
        (["search", "x", "--store", str(tmp_path / "nowhere")], "there is no store at"),
        (["search", "x", "--store", str(tmp_path / "file")], "is a file"),
        (["search", "x", "--store", str(tmp_path / "other")], "elsewhere"),
        (["search", "  ", "--store", str(store)], "white space"),
        (["index", str(tmp_path / "nowhere"), "--store", str(tmp_path / "store")], "no such file or folder"),
        (["index", str(tmp_path / "file"), "--store", str(tmp_path / "s"), "--model", "nonsense"], "nonsense"),
        (["index", str(tmp_path / "file"), "--store", str(tmp_path / "other"), "--model", "coltiny"], "another place"),
    ]:
        assert run(arguments) == ExitCode.ERROR, arguments
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("Error: ")
        assert message in captured.err
        assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *(["search", "x"], ["index"], ["nonsense"], ["search", "x", "--store", "y", "-k", "0"], []),
        *(["search", "x", "--store", "y", "--filter", "year"], ["search", "x", "--store", "y", "--filter", "[1]"]),
        *(["index", "x", "--store", "y", "--pages", "3-"], ["index", "x", "--store", "y", "--metadata", "tenant"]),
    ],
)
def test_wrong_usage_has_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert "Usage: colpali-integrations" in captured.out + captured.err


@pytest.mark.parametrize(
    "arguments", [["index", "", "--store", "s"], ["index", ".", "--store="], ["export", "m", ""], ["verify", ""]]
)
def test_an_empty_path_is_wrong_usage(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == ExitCode.USAGE
    assert "the path is empty" in capsys.readouterr().err


def test_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["index", "--help"], ["search", "-h"]):
        assert run(arguments) == ExitCode.OK
        shown = " ".join(capsys.readouterr().out.split())
        assert "Exit codes: 0 done; 1 error; 2 wrong usage; 3 nothing found" in shown


def test_models_prints_every_model_within_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["models", "--json"]) == ExitCode.OK
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [model["name"] for model in listed] == [model.name for model in list_supported_models()]
    assert run(["models"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for model in list_supported_models():
        assert model.name in shown
        assert f"license {model.license}" in " ".join(shown.split())


def test_an_interrupted_run_keeps_its_finished_pages(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rich.progress.Progress.update", interrupt)  # Ctrl-C after the first page
    assert run(["index", str(folder), "--store", str(tmp_path), "--dpi", "100"]) == ExitCode.INTERRUPTED
    assert "Interrupted" in capsys.readouterr().err
    with MultiVectorStore.open(tmp_path) as pages:
        assert len(pages) == 1


def test_an_interruption_during_the_imports_ends_the_process_quietly(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("print('importing', flush=True); import time; time.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell may have it ignored
    code = f"{heed}; from colpali_integrations.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=30)
    assert (output, error) == ("", "")
    assert process.returncode == -signal.SIGINT, "of which a shell makes 130"


def test_the_installed_script_and_its_exit_code(tmp_path: Path) -> None:
    """In a process of its own: the shell gets the code that `run` returns, and nothing else is printed."""
    command = [sys.executable, "-m", "colpali_integrations.cli"]
    process = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (0, f"colpali-integrations {__version__}\n", "")
    search = [*command, "search", "x", "-s", str(tmp_path)]
    process = subprocess.run(search, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (1, "")
    assert "Traceback" not in process.stderr


def test_a_terminal_without_unicode_gets_question_marks(store: Path) -> None:
    with MultiVectorStore.open(store) as pages:
        [railway] = pages.scroll({"page_count": 1})
        [vectors] = pages.vectors([railway.id])
        assert vectors is not None
        page = Entry(id="x", metadata={"source": "x.pdf", "page": 1}, text="Zürich, 東京 railway " * 20)
        pages.add([(page, 9 * vectors)])
    command = [sys.executable, "-m", "colpali_integrations.cli", "search", "railway", "-s", str(store)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = subprocess.run(command, capture_output=True, encoding="ascii", env=environment, check=False)
    with MultiVectorStore.open(store) as pages:
        assert pages.delete(["x"]) == 1
    assert (process.returncode, process.stderr) == (0, "")
    assert "Z?rich" in process.stdout


def test_without_the_extra_the_command_line_prints_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    command = [sys.executable, "-m", "colpali_integrations.cli", "models"]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert process.returncode == 1
    assert 'pip install "colpali-integrations[cli]"' in process.stderr
    assert "Traceback" not in process.stderr


def test_snippets_show_the_words_of_the_question() -> None:
    text = "The first part says nothing. " * 20 + "Here the\nprices of   bananas are given. " + "The end follows. " * 20
    shown = snippet(text, "What are the prices of bananas?", width=80)
    assert "prices of bananas" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert len(shown) <= 82
    assert snippet("short\ntext", "x", width=80) == "short text"
    assert snippet("", "x", width=80) == ""
    assert snippet("word " * 100, "nothing of it", width=22) == "word word word word…"
    assert snippet("x" * 500, "y", width=30) == "x" * 30 + "…"


def test_words_of_the_question_are_marked() -> None:
    text = marked("Bananas and the apple [of] bananas.", "the bananas of?")
    assert text.plain == "Bananas and the apple [of] bananas."
    assert [text.plain[span.start : span.end] for span in text.spans] == ["Bananas", "bananas"]


@pytest.mark.slow
def test_the_demo_answers_questions_about_own_documents(folder: Path) -> None:
    demo = Path(__file__).parents[2] / "demo" / "demo.py"
    command = [sys.executable, str(demo), str(folder), "-q", "railway", "-q", "apples"]
    process = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert "train.PNG, page 1" in lines[lines.index(" 1 railway") + 1]
    assert "fruit.pdf, page 1" in lines[lines.index(" 2 apples") + 1]


@pytest.mark.parametrize("command", [["models"], ["models", "--json"], ["--help"]])
def test_a_reader_that_stops_reading_is_no_error(command: list[str]) -> None:
    run_it = [sys.executable, "-m", "colpali_integrations.cli", *command]
    process = subprocess.Popen(run_it, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate()[1] == ""


def test_frames_sizes_and_formats_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scan.tif").write_bytes(tiff(frames(3)))
    Image.new("L", (40, 30)).save(tmp_path / "old.pcx")
    assert indexed(capsys, tmp_path, "--store", tmp_path / "index")["added"] == 3
    more = indexed(capsys, tmp_path, "--store", tmp_path / "index", "--image-format", "PCX")
    assert (more["added"], more["present"]) == (1, 3)
    small = ["--store", str(tmp_path / "other"), "--max-pixels", "34"]
    assert run(["index", str(tmp_path), *small]) == ExitCode.INCOMPLETE
    assert "--max-pixels 43" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["serve", "--store"], ["verify"]])
def test_the_url_of_a_server_is_no_folder(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper.pdf").touch()
    assert run([*command, "http://localhost:8765"]) == 2
    assert "is the URL of a server" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["paper.pdf"]


def test_an_interrupted_search_promises_no_pages(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MultiVectorStore, "search", interrupt)
    assert run(["search", "tide", "--store", str(store)]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "Interrupted.\n"
