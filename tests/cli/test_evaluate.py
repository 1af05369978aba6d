"""The command `evaluate`: its table, its files, its exit codes, and errors before the work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from langchain_core.language_models import FakeListChatModel

from colpali_integrations.cli.app import ExitCode, run
from tests.evaluation.data_sets import write_vidore
from tests.stores.documents import make_folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("evaluate") / "documents")
    store = folder.parent / "store"
    assert run(["index", str(folder), "--store", str(store), "--dpi", "100", "--quiet"]) == ExitCode.OK
    return store


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


LINES = (
    {"question": "prices of bananas", "source": "fruit.pdf", "page": 2, "kind": "words"},
    {"question": "harvest of apples", "source": "fruit.pdf", "page": 1, "draft": True},
    {"question": "railway timetable", "source": "fruit.pdf", "page": 1},
)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return file


def test_a_table_compares_configurations(store: Path, questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(questions), "--store", str(store), "-k", "1", "--by", "document"]
    assert run([*arguments, "-c", "mode=exact", "-c", "blend: hybrid=0.2"]) == ExitCode.OK
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "3 questions, 3 pages, coltiny; 95% intervals"
    assert lines[1].split() == ["Configuration", "ndcg@1", "recall@1", "mrr@1", "hit@1", "difference"]
    assert lines[2].split()[:4] == ["mode=exact", ".667", "[.000,", "1.000]"]
    assert lines[3].split()[-3:] == [".000", "[.000,", ".000]"]
    assert lines[-1].split() == ["fruit.pdf", "3", ".667", ".667"]
    assert "1 question without a right page in first place; --html FILE shows them." in captured.err
    assert '1 of 3 questions is a draft: correct it, and remove its "draft".' in captured.err


def test_a_row_is_one_line_in_a_pipe(
    store: Path, questions: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    name = "a configuration with a name of many words, of which none is broken"
    assert run(["evaluate", str(questions), "-s", str(store), "-c", "mode=exact", "-c", f"{name}: hybrid=0.2"]) == 0
    _, _, first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("mode=exact  ") and second.startswith(f"{name}  ")
    assert second.count("[") == 5, "all intervals"


def test_one_question_is_no_plural(store: Path, questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions.write_text(json.dumps(LINES[1]) + "\n")
    arguments = ["evaluate", str(questions), "--store", str(store), "--filter", '{"page": 1, "file_name": "fruit.pdf"}']
    assert run(arguments) == ExitCode.OK
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == "1 question, 1 page, coltiny; 95% intervals"
    assert "1 of 1 question is a draft" in captured.err


def test_json_and_a_report(store: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    arguments = ["evaluate", str(questions), "-s", str(store), "--k", "1", "--k", "5", "--json", "--html", str(report)]
    assert run(arguments) == ExitCode.OK
    captured = capsys.readouterr()
    written = json.loads(captured.out)
    assert (written["questions"], written["k"]) == (3, [1, 5])
    assert f"Report: {report}" in captured.err
    assert '<article class="miss">' in report.read_text(encoding="utf-8")


def test_questions_of_missing_files_are_named_or_skipped(
    store: Path, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with questions.open("a") as file:
        file.write(json.dumps({"question": "x", "source": "fruits.pdf", "page": 1}) + "\n")
    arguments = ["evaluate", str(questions), "--store", str(store)]
    assert run(arguments) == ExitCode.ERROR
    error = capsys.readouterr().err
    assert "question 4 ('x'): " in error
    assert "did you mean fruit.pdf? Correct it, or pass --on-error skip" in error
    assert run([*arguments, "--on-error", "skip"]) == ExitCode.INCOMPLETE
    captured = capsys.readouterr()
    assert captured.out.startswith("3 questions, 1 left out, 3 pages")
    assert "Left out: question 4 ('x')" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl"], "none.jsonl cannot be read: No such file"),
        (["{questions}", "-c", "hybird=1"], "a configuration has no option 'hybird'; did you mean 'hybrid'"),
        (["{questions}", "--html", "none/report.html"], "there is no folder"),
        (["{questions}", "--html", "."], "is a folder; name a file in it"),
        (["{questions}", "--store", "none"], "there is no store at none"),
        (["{questions}", "--over", "pages"], "over must be 'questions' or 'documents'"),
        (["{questions}", "--by", "nokey"], "--by 'nokey': no question has this key; choose one of 'document', 'draft'"),
        (["{questions}", "-c", "mode=two_stage"], "'mode=two_stage': mode=two_stage needs a first stage"),
        (["{questions}", "--draft", "openai:gpt-5"], "exists already, and drafts would replace it"),
        (["new.jsonl", "--draft", "openai:gpt-5"], "pip install langchain langchain-openai"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    store: Path,
    questions: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)  # as if langchain were not installed
    given = [one.format(questions=questions) for one in arguments]
    assert run(["evaluate", *(["--store", str(store)] if "--store" not in given else []), *given]) == ExitCode.ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert message in captured.err


def test_a_data_set_brings_its_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow", reason="it is in the extra `evaluate`")
    folder = write_vidore(tmp_path / "vidore")
    for _ in range(2):
        assert run(["evaluate", str(folder), "--store", str(tmp_path / "new"), "--by", "language"]) == ExitCode.OK
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "3 questions, 5 pages, coltiny; 95% intervals"
        assert lines[-1].split()[0] == "en"


def test_a_chat_model_that_cannot_be_opened_is_an_error(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(name: str) -> None:
        raise RuntimeError("there is no key")

    module = ModuleType("langchain.chat_models")
    module.init_chat_model = refusing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "langchain", ModuleType("langchain"))
    monkeypatch.setitem(sys.modules, "langchain.chat_models", module)
    arguments = ["evaluate", str(tmp_path / "draft.jsonl"), "--store", str(store), "--draft", "any:model"]
    assert run(arguments) == ExitCode.ERROR
    assert capsys.readouterr().err == "Error: the chat model 'any:model' cannot be opened: there is no key\n"


def test_drafts_are_written_for_a_person(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("langchain.chat_models")
    module.init_chat_model = lambda name: FakeListChatModel(responses=[f'["{name}?"]', "no list"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "langchain", ModuleType("langchain"))
    monkeypatch.setitem(sys.modules, "langchain.chat_models", module)
    target = tmp_path / "draft.jsonl"
    arguments = ["evaluate", str(target), "--store", str(store), "--draft", "any:model"]
    assert run([*arguments, "--sample", "1"]) == ExitCode.OK
    assert "1 question in" in capsys.readouterr().err
    line = json.loads(target.read_text())
    assert Path(line["source"]).name in ("fruit.pdf", "train.PNG")
    assert (line["question"], line["draft"], Path(line["source"]).name in ("fruit.pdf", "train.PNG")) == (
        "any:model?",
        True,
        True,
    )
    target.unlink()
    assert run(arguments) == ExitCode.ERROR, "the second page's answer is no list"
    assert len(target.read_text().splitlines()) == 1, "and the first page's question is kept"
