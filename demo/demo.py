"""Find pages of real PDFs by typed questions, through LangChain and through LlamaIndex, offline.

python demo/demo.py                                  the demo's documents and questions (see pdfs/LICENSES.md)
python demo/demo.py report.pdf                       your own documents; prompts for questions
python demo/demo.py report.pdf -q "revenue in 2024"  your own documents and questions
python demo/demo.py --model FOLDER_OR_NAME           another model; with --precision int8 for a checkpoint

`make demo`, `make demo PDF=report.pdf` and `make demo MODEL=FOLDER_OR_NAME PRECISION=int8` make an environment first,
and then do the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from colpali_integrations import ColPali, ColPaliError
from colpali_integrations.cli.display import IndexProgress, marked
from colpali_integrations.explain.report import DOUBTFUL
from colpali_integrations.explain.snippet import snippet
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.retrievers import ColPaliRetriever as LangChainRetriever
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.llama_index.retrievers import ColPaliRetriever as LlamaIndexRetriever
from colpali_integrations.models.builder.quantization import PRECISIONS
from colpali_integrations.stores import MultiVectorStore, index_documents

HERE = Path(__file__).parent
TOP = 3

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Question:
    """A question, with the pages that answer it for the questions of the demo."""

    text: str
    file: str = ""
    pages: tuple[int, ...] = ()

    def answered_by(self, result: Result) -> bool:
        return result.file == self.file and result.page in self.pages


@dataclass(frozen=True)
class Result:
    """A page that a framework's retriever returned."""

    file: str
    page: int
    score: float = field(compare=False)  # the relevance from LangChain, the fused score from LlamaIndex
    text: str
    doubtful: bool  # whether no page of the answer seems to have it


def main() -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    logging.getLogger("pypdfium2").setLevel(logging.ERROR)  # it warns of forms, whose pages are drawn anyway
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("documents", nargs="*", type=Path, metavar="PDF", help="PDFs, images or folders of your own")
    parser.add_argument("-q", "--question", action="append", default=[], help="may be given several times")
    parser.add_argument("--model", default="coltiny", help="a model's name or folder (default: %(default)s)")
    parser.add_argument("--precision", choices=PRECISIONS, help="of a checkpoint in safetensors (default: float32)")
    parser.add_argument("--store", type=Path, help="keep the index in this folder, for further runs")
    options = parser.parse_args()
    try:
        with folder(options.store) as store_folder:
            model = {"model_name": options.model, "precision": options.precision}
            demonstrate(options.documents, options.question, model, store_folder)
    except ColPaliError as error:
        console.print(f"[bold red]Error:[/] {escape(str(error))}")
        return 1
    except (KeyboardInterrupt, EOFError):
        console.print()
        return 130
    return 0


def demonstrate(documents: list[Path], questions: list[str], model: dict[str, Any], folder: Path) -> None:
    embeddings = ColPaliEmbeddings(**model)
    with index(documents or [HERE / "pdfs"], embeddings.model, folder) as store:
        if not len(store):
            raise ColPaliError("there is no page to search")
        vectorstore = ColPaliVectorStore(embeddings, store=store)
        langchain = LangChainRetriever(vectorstore=vectorstore, search_kwargs={"k": TOP})
        if questions or documents:
            for number, question in enumerate(map(Question, questions or typed_questions()), 1):
                show(number, question, ask_langchain(langchain, question.text))
        else:
            embed_model = ColPaliEmbedding(**model)  # of the same options, so it is the same model in memory
            compare(langchain, LlamaIndexRetriever(store, embed_model=embed_model, similarity_top_k=TOP))


def compare(langchain: LangChainRetriever, llama_index: LlamaIndexRetriever) -> None:
    """Ask the questions of the demo through both frameworks, and count right answers and equal results."""
    questions = demo_questions()
    half = len(questions) // 2
    started = time.perf_counter()
    through_langchain = [ask_langchain(langchain, question.text) for question in questions]
    seconds = time.perf_counter() - started
    through_llama_index = [ask_llama_index(llama_index, question.text) for question in questions]

    console.print(Rule("Through LangChain: [cyan]ColPaliRetriever(vectorstore=...).invoke(question)[/]", align="left"))
    for number, (question, results) in enumerate(zip(questions[:half], through_langchain, strict=False), 1):
        show(number, question, results)
    console.print(Rule("Through LlamaIndex: [cyan]ColPaliRetriever(store).retrieve(question)[/]", align="left"))
    for number, (question, results) in enumerate(
        zip(questions[half:], through_llama_index[half:], strict=True), half + 1
    ):
        show(number, question, results)

    console.print(Rule("In short", align="left"))
    answers = list(zip(questions, through_langchain, strict=True))
    first = sum(question.answered_by(results[0]) for question, results in answers)
    among = sum(any(map(question.answered_by, results)) for question, results in answers)
    equal = sum(one == other for one, other in zip(through_langchain, through_llama_index, strict=True))
    console.print(
        f"Right page first for [bold]{first} of {len(questions)}[/] questions, among the first {TOP} for "
        f"[bold]{among}[/]; {1000 * seconds / len(questions):.0f} ms per question.\n"
        f"LangChain and LlamaIndex gave the same pages for {equal} of {len(questions)}."
    )


def index(documents: list[Path], model: ColPali, folder: Path) -> MultiVectorStore:
    """Index documents; the model reads only the pixels, and text layers are stored for display."""
    parameters = f"{model.description.parameters / 1e6:,.0f} M parameters, " if model.description.parameters else ""
    console.print(f"Indexing with [bold cyan]{escape(model.description.name)}[/] ({parameters}from pixels alone)")
    store = MultiVectorStore.open(folder, model=model)
    with IndexProgress(quiet=False) as progress:
        report = index_documents(documents, model=model, store=store, progress=progress)
    model.close()  # frees the vision tower; questions load their side again
    speed = f" in {progress.seconds:.0f} s, {report.added / progress.seconds:.1f} pages/s" if report.added else ""
    counts = [f"{escape(Path(document).name)} ({pages})" for document, pages in store.documents().items()]
    console.print(f"{len(store)} pages{speed}: {', '.join(counts)}\n")
    return store


def ask_langchain(retriever: LangChainRetriever, question: str) -> list[Result]:
    found = [(page.metadata, page.page_content) for page in retriever.invoke(question)]
    return [
        Result(page["file_name"], page["page"], page["relevance_score"], text, page["doubtful"]) for page, text in found
    ]


def ask_llama_index(retriever: LlamaIndexRetriever, question: str) -> list[Result]:
    found = [(node.metadata, node.score or 0.0, node.text) for node in retriever.retrieve(question)]
    return [
        Result(page["file_name"], page["page"], score, text, page.get("doubtful", False)) for page, score, text in found
    ]


def show(number: int, question: Question, results: Sequence[Result]) -> None:
    """Print the question, the pages with their scores, and a passage of the first page."""
    console.print(f"[bold]{number:2} {escape(question.text)}[/]")
    if results and results[0].doubtful:
        console.print(f"     [yellow]{DOUBTFUL}[/]")
    for rank, page in enumerate(results):
        mark = "[green]✓[/]" if question.answered_by(page) else " "
        console.print(f"   {mark} [cyan]{page.score:5.2f}[/]  {escape(page.file)}, page {page.page}")
        if rank == 0 and page.text != f"{page.file}, page {page.page}":
            text = marked(snippet(page.text, question.text, width=min(100, console.width - 14)), question.text)
            console.print("           ", text, style="dim")
    console.print()


def demo_questions() -> list[Question]:
    entries = json.loads((HERE / "questions.json").read_text(encoding="utf-8"))["questions"]
    return [Question(entry["question"], entry["file"], tuple(entry["pages"])) for entry in entries]


def typed_questions() -> Iterator[str]:
    """Read questions from the keyboard (or a pipe), until an empty line or the end."""
    while True:
        prompt = "[bold]Your question[/] (empty to end): " if sys.stdin.isatty() else ""
        try:
            question = console.input(prompt).strip()
        except EOFError:
            return
        if not question:
            return
        yield question


@contextmanager
def folder(path: Path | None) -> Iterator[Path]:
    if path is not None:
        yield path
        return
    # Windows does not remove a file that is still mapped; the system clears its temporary files itself.
    with tempfile.TemporaryDirectory(prefix="colpali-demo-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


if __name__ == "__main__":
    raise SystemExit(main())
