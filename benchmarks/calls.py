"""Counts of the calls behind one user action: project files and functions entered, PDFs opened, pages rendered."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest.mock import patch

PDFS = Path(__file__).parent.parent / "demo" / "pdfs"
SLIDES = PDFS / "metropolis-slides.pdf"  # 33 pages
QUESTIONS: dict[str, dict[str, Any]] = {"invoke": {}, "invoke, hybrid with regions": {"hybrid": True, "regions": True}}
LEFT_OUT = {"<module>", "<lambda>", "<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>"}


class Tracer:
    """The functions of a folder that all threads enter while it records.

    Threads that exist before `install` is called are not traced, so install it before any work begins.

    Attributes:
        entered: code objects of the functions entered since `record` began.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = f"{folder}/"
        self._recording = False
        self.entered: set[CodeType] = set()

    def install(self) -> None:
        """Trace this thread and all threads that start later."""
        threading.setprofile(self._enter)
        sys.setprofile(self._enter)

    def uninstall(self) -> None:
        """End the tracing of this thread and of threads not yet started."""
        sys.setprofile(None)
        threading.setprofile(None)

    @contextmanager
    def record(self) -> Iterator[Tracer]:
        """Forget earlier calls, and record those of the block."""
        self.entered = set()
        self._recording = True
        try:
            yield self
        finally:
            self._recording = False

    @property
    def files(self) -> set[str]:
        """Paths of the files entered."""
        return {code.co_filename for code in self.entered}

    def __str__(self) -> str:
        return f"{len(self.files)} / {len(self.entered)}"

    def listing(self) -> Iterator[str]:
        """`file: function, function, ...` per file, in the order of their lines."""
        for file in sorted(self.files):
            codes = sorted((code for code in self.entered if code.co_filename == file), key=lambda c: c.co_firstlineno)
            yield f"{file.removeprefix(self._folder)}: {', '.join(code.co_name for code in codes)}"

    def _enter(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        ours = self._recording and event == "call" and code.co_filename.startswith(self._folder)
        if ours and code.co_name not in LEFT_OUT:
            self.entered.add(code)


class PdfCounter:
    """Counts PDFs opened and pages rendered by pypdfium2 while it is active.

    Example:
        with PdfCounter() as counter:
            store.add_pdf("report.pdf")
        print(counter)  # opened / rendered
    """

    def __init__(self) -> None:
        self.opened = self.rendered = 0
        self._patches: list[Any] = []

    def __enter__(self) -> PdfCounter:
        import pypdfium2

        opening, rendering = pypdfium2.PdfDocument.__init__, pypdfium2.PdfPage.render

        def opened(*args: Any, **options: Any) -> None:
            self.opened += 1
            opening(*args, **options)

        def rendered(*args: Any, **options: Any) -> Any:
            self.rendered += 1
            return rendering(*args, **options)

        self._patches = [
            patch.object(pypdfium2.PdfDocument, "__init__", opened),
            patch.object(pypdfium2.PdfPage, "render", rendered),
        ]
        for each in self._patches:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._patches:
            each.stop()

    def __str__(self) -> str:
        return f"{self.opened} / {self.rendered}"


def one_page(target: Path, number: int) -> Path:
    """Write one page of a demo paper, by its 1-based number, as a PDF of its own."""
    import pypdfium2

    with pypdfium2.PdfDocument(PDFS / "hcl-colors.pdf") as paper, pypdfium2.PdfDocument.new() as single:
        single.import_pages(paper, [number - 1])
        single.save(target)
    return target


def measure(package: Path, folder: Path, *, listed: bool = False) -> dict[str, str]:
    """Trace one page and two questions through the LangChain store in a folder, and count over a 33-page PDF.

    Args:
        package: the folder of `colpali_integrations`, which must be first on the import path.
        folder: an empty folder for PDFs.
        listed: print the functions entered.

    Returns:
        "files / functions" or "opened / rendered" per measure.
    """
    tracer = Tracer(package)
    tracer.install()
    try:
        return _measured(tracer, folder, listed)
    finally:
        tracer.uninstall()


def _measured(tracer: Tracer, folder: Path, listed: bool) -> dict[str, str]:
    from colpali_integrations.langchain import ColPaliVectorStore

    first, second = one_page(folder / "first.pdf", 3), one_page(folder / "second.pdf", 7)
    with ColPaliVectorStore(path=folder / "warm-up") as store:  # models and modules are loaded once per process
        store.add_pdf(first)
    results = {}
    with ColPaliVectorStore(path=folder / "traced") as store:
        store.add_pdf(first)
        with tracer.record():
            store.add_pdf(second)
        results["add_pdf"] = _shown("add_pdf", tracer, listed)
        for name, options in QUESTIONS.items():
            retriever = _retriever(store, options)
            retriever.invoke("seats in a parliament")
            with tracer.record():
                retriever.invoke("diverging palettes of maps")
            results[name] = _shown(name, tracer, listed)
    with PdfCounter() as counter:
        ColPaliVectorStore().add_pdf(SLIDES, dpi=20)
    return results | {"33 pages": str(counter)}


def _retriever(store: Any, options: dict[str, Any]) -> Any:
    if hasattr(store, "as_colpali_retriever"):  # in checkouts before the rooms
        return store.as_colpali_retriever(**options)
    return store.as_retriever(search_kwargs=options)


def _shown(name: str, tracer: Tracer, listed: bool) -> str:
    if listed:
        print(f"{name}: {tracer}", *tracer.listing(), sep="\n  ")
    return str(tracer)
