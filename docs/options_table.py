"""Write the table of docs/options.md from the signatures: `python docs/options_table.py`.

Rows are options, columns the entry points through which documents get into a store. A test checks that it is current.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from colpali_integrations.cli.app import index
from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliVectorStore, PdfPageLoader
from colpali_integrations.llama_index import ColPaliEmbedding, PdfPageReader
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaIndexStore
from colpali_integrations.ray import embed_pages
from colpali_integrations.stores import index_documents

PAGE = Path(__file__).parent / "options.md"
BEGIN, END = "<!-- options: begin -->\n", "<!-- options: end -->\n"

# Each with its other names.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "metadata": ("metadatas", "extra_info"),
    "document_id": (),
    "ids": (),
    "pages": (),
    "exclude": (),
    "password": ("password_file",),
    "roots": (),
    "isolate": (),
    "max_pixels": (),
    "image_formats": ("image_format",),
    "dpi": (),
    "include_image": (),
    "on_error": (),
    "progress": ("show_progress", "quiet"),
    "stop": (),
    "batch_size": ("embed_batch_size",),
    "parallel": ("num_workers", "workers"),
}


class EntryPoint(NamedTuple):
    """A column.

    Attributes:
        title: its heading.
        targets: functions and classes; the first that has an option counts.
        encoder: the class of its encoder, for options that no target has.
        without: parameters without effect.
    """

    title: str
    targets: tuple[Callable[..., Any], ...]
    encoder: Callable[..., Any] | None = None
    without: tuple[str, ...] = ()


ENTRY_POINTS = (
    EntryPoint("`index_documents`", (index_documents,)),
    EntryPoint("LangChain `add_pdf`", (ColPaliVectorStore.add_pdf,), ColPaliEmbeddings),
    EntryPoint("LangChain `add_documents`", (ColPaliVectorStore.add_documents,), ColPaliEmbeddings, ("batch_size",)),
    EntryPoint("LangChain `add_images`", (ColPaliVectorStore.add_images,), ColPaliEmbeddings),
    EntryPoint("LangChain `PdfPageLoader`", (PdfPageLoader,)),
    EntryPoint("LlamaIndex `PdfPageReader`", (PdfPageReader, PdfPageReader.lazy_load_data)),
    EntryPoint("LlamaIndex `add`", (LlamaIndexStore.add,), ColPaliEmbedding),
    EntryPoint("command line `index`", (index,)),
    EntryPoint("Ray `embed_pages`", (embed_pages,)),
)


def options_table() -> str:
    """The table, in Markdown."""
    head = ["option", *(entry_point.title for entry_point in ENTRY_POINTS)]
    rows = [[f"`{option}`", *(_cell(option, entry_point) for entry_point in ENTRY_POINTS)] for option in OPTIONS]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_table(text: str) -> str:
    """A page with the table between its marks replaced."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{options_table()}\n{END}{after}"


def _cell(option: str, entry_point: EntryPoint) -> str:
    """The default, with the parameter's name where it is another one; "-" where there is no such option."""
    is_command = index in entry_point.targets
    for target in (*entry_point.targets, *([entry_point.encoder] if entry_point.encoder else [])):
        found = _defaults(target)
        for name in (option, *OPTIONS[option]):
            if name not in found or (name in entry_point.without and target is not entry_point.encoder):
                continue
            shown = f"--{name.replace('_', '-')}" if is_command else name
            place = "of the encoder: " if target is entry_point.encoder else ""
            return f"{place}{'' if shown == option else f'`{shown}` '}`{_written(found[name])}`"
    return "-"


def _defaults(target: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of parameters, or of a pydantic model's fields."""
    fields = getattr(target, "model_fields", None)
    if fields is not None:
        return {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    return {name: parameter.default for name, parameter in inspect.signature(target).parameters.items()}


def _written(default: object) -> str:
    if isinstance(default, Enum):
        default = default.value
    return (
        f'"{default}"' if isinstance(default, str) else f"{default:g}" if isinstance(default, float) else str(default)
    )


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
