"""The command line advises in its own words: no message that it prints names code of Python."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import colpali_integrations
from colpali_integrations import ColPali, errors
from colpali_integrations.cli.app import ExitCode, app, run
from colpali_integrations.cli.words import OPTIONS, in_commands, message, reason
from colpali_integrations.errors import ColPaliError, MissingExtraError
from colpali_integrations.models import list_supported_models
from colpali_integrations.stores import MultiVectorStore, index_documents
from tests.pages.test_pdf import encrypted

PACKAGE = Path(colpali_integrations.__file__).parent
ROOMS = ("pages", "pdfium", "runtime", "scoring", "explain", "models", "stores")
Capture = pytest.CaptureFixture[str]

# Messages that the command line cannot get: beginnings, and why.
NOT_THERE = {
    "client must be a QdrantClient": "it passes no client",
    "a store is in one place": "it passes one",
    "collection_options are for": "it passes none",
    ": options of a server's client": "it passes them with a URL",
    ": for a collection on a Qdrant server": "it passes indexes with a URL",
    " is a URL, and fetching is off": "it reads files",
    "; pass allow_private_urls=True": "it fetches no URLs",
    "allow_private_urls needs": "it fetches no URLs",
    "a store whose url= has a password": "it pickles nothing",
    " cannot be pickled, because it has no place": "it pickles nothing",
    " is a PDF; pass its pages": "it reads pages of PDFs",
    "there is no such store yet": "it asks for the store before",
    "there is no store in": "it asks for the store before",
    " was opened with read_only=True": "commands that change a store open it to be changed",
    "a hybrid search needs": "it passes the question",
    " was made with first_stage='exact'": "it has no option for the mode of a search",
    "these hits are not attached": "it takes hits from a store",
    "The words of the question are not named": "it opens a store with a model",
    " failed to start; onnxruntime runs on": "it passes no providers",
    "use ": "wrong guesses of arguments, of which it has none",
    "pass providers=[": "wrong guesses of arguments, of which it has none",
    "register_model": "it registers nothing, and prints the other wording of errors that advise it",
}


@cache
def strings() -> list[tuple[str, str]]:
    """Texts of the rooms below the command line, with X for values, and the place of each.

    Not those of docstrings and reprs, nor those of calls that give the command line other words by `command`.
    """
    found = []
    for room in ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            file = path.relative_to(PACKAGE)
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            passed_over = {id(node) for one in nodes for node in without_words(one)}
            for node in nodes:
                if id(node) in passed_over:
                    continue
                place = f"{file}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.JoinedStr):
                    found.append((place, "".join(map(filled, node.values))))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                    found.append((place, node.value))
    return found


def without_words(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below a node that are no messages of the command line."""
    if isinstance(node, ast.Expr):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield from node.values
    elif isinstance(node, ast.FunctionDef) and node.name == "__repr__":
        yield from ast.walk(node)
    elif isinstance(node, ast.Call):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if "command" in keywords or "'command'" in keywords.get("extra", ""):
            yield from (below for argument in node.args for below in ast.walk(argument))


def filled(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    return "'X'" if isinstance(part, ast.FormattedValue) and part.conversion == ord("r") else "X"


@cache
def arguments() -> set[str]:
    """The names of the arguments that messages may advise."""
    functions = (ColPali.from_pretrained, ColPali.embed_images, MultiVectorStore.open, MultiVectorStore.search)
    return {name for one in (*functions, index_documents) for name in inspect.signature(one).parameters}


def python_in(text: str) -> list[str]:
    """The code of Python in a message, in the words of the command line."""
    if "<" in text or "SELECT" in text or " " not in text:  # HTML, SQL and URLs
        return []
    names = "|".join(sorted(arguments() - {"self"}))
    calls = r"(?:from_pretrained|register_model|repair_store|embed_\w+|ModelDescription)\("
    return re.findall(rf"(?<![\w<-])(?:{names})=\S*|{calls}", in_commands(text))


def is_there(text: str) -> bool:
    return not any(text.startswith((one, f"X{one}", f"'X'{one}")) for one in NOT_THERE)


def test_no_message_names_code_of_python() -> None:
    found = [(place, text) for place, text in strings() if is_there(text) and python_in(text)]
    assert found == []


def test_the_exceptions_are_needed() -> None:
    texts = [text for _, text in strings() if python_in(text)]
    assert [one for one in NOT_THERE if not any(text.startswith((one, f"X{one}", f"'X'{one}")) for text in texts)] == []


def test_the_options_exist() -> None:
    callbacks = [one.callback for one in app.registered_commands if one.callback is not None]
    known = {name for one in callbacks for name in inspect.signature(one).parameters}
    assert set(OPTIONS) <= known


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in errors.__all__ if name != "MissingExtraError"])
def test_every_error_has_words_for_the_command_line(kind: type[ColPaliError]) -> None:
    plain = kind("a.pdf is encrypted; pass password=...")
    assert (str(plain), message(plain)) == (
        *("a.pdf is encrypted; pass password=...", "a.pdf is encrypted; pass --password-file FILE"),
    )
    assert reason(kind("pass precision='int8'").at(3, "x")) == "pass --precision int8"
    other = pickle.loads(pickle.dumps(kind("call register_model(...)", command="write a file")))
    assert (str(other), message(other), reason(other)) == ("call register_model(...)", "write a file", "write a file")


def test_a_missing_extra_is_pickled_with_its_message() -> None:
    error = pickle.loads(pickle.dumps(MissingExtraError("typer", "cli", "The command line")))
    assert message(error) == str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pass precision='float32' for it", "pass --precision float32 for it"),
        ('pass precision="float32"', "pass --precision float32"),
        ("precision= makes int8 weights", "--precision makes int8 weights"),
        ("(max_num_visual_tokens=), or dim=320 or less", "(--max-num-visual-tokens), or --dim 320 or less"),
        ("pass allow_unused=['a', 'b.c']", "pass --allow-unused a --allow-unused b.c"),
        ("can be read in this process: isolate=False", "can be read in this process: --no-isolate"),
        ("ColPali.from_pretrained('my model')", "--model 'my model'"),
        ("or pass roots=[folder] to show the files of a folder", "or pass --root DIR to show the files of a folder"),
        ("is in none of the folders of roots=['/a', '/b']", "is in none of the folders of --root"),
        (
            "the server asks for an API key, give it as api_key= (401)",
            "the server asks for an API key, set QDRANT_API_KEY to it (401)",
        ),
        (
            "Open the store with a key that may write, by api_key=",
            "Open the store with a key that may write, in QDRANT_API_KEY",
        ),
        (
            "allow more time by timeout= (seconds)",
            'allow more time by "timeout", in seconds, in the "options" of its file',
        ),
        ("removed there (QdrantClient.get_collections), and", "removed there, and"),
        ("no code here: a=b, some_dim=3", "no code here: a=b, some_dim=3"),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert in_commands(text) == expected


def test_the_terminal_shows_options(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "locked.pdf").write_bytes(encrypted(user=b"sesame", owner=b"owner"))
    index = ["index", str(tmp_path / "locked.pdf"), "--store", str(tmp_path / "store")]
    assert run(index) == ExitCode.INCOMPLETE
    assert "is encrypted; pass --password-file FILE" in capsys.readouterr().err
    assert run([*index, "--json"]) == ExitCode.INCOMPLETE
    assert "is encrypted; pass --password-file FILE" in capsys.readouterr().out
    assert run(["models"]) == ExitCode.OK
    shown = " ".join(capsys.readouterr().out.split())
    assert "Try --precision int8 and --max-side 1440." in shown
    assert any("precision='int8'" in model.summary for model in list_supported_models())


def test_a_log_entry_has_words_for_the_command_line(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "colpali"}')
    (tmp_path / "model.onnx").write_bytes(b"graph")
    assert run(["doctor", "--model", str(tmp_path)]) == ExitCode.INCOMPLETE
    error = " ".join(capsys.readouterr().err.split())
    assert "For another one write it into a colpali_integrations.json in the folder" in error
    assert "register_model" not in error


def test_a_removal_names_its_options(tmp_path: Path, capsys: Capture) -> None:
    with ColPali.from_pretrained() as model:
        MultiVectorStore.open(tmp_path / "store", model=model).close()
    remove = ["remove", "--store", str(tmp_path / "store")]
    for nothing in ([], ["--filter", "{}"]):
        assert run([*remove, *nothing]) == ExitCode.USAGE
        assert "--document-id" in capsys.readouterr().err
    assert run([*remove, "--filter", '{"$and": []}']) == ExitCode.ERROR
    assert """pass --filter '{"$id": {"$exists": true}}'""" in capsys.readouterr().err
