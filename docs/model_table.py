"""Write the model table of docs/models.md from the registry: `python docs/model_table.py`.

A test checks that it is current.
"""

from __future__ import annotations

from pathlib import Path

from colpali_integrations.models import ModelDescription, list_supported_models
from colpali_integrations.models.families import FAMILIES

PAGE = Path(__file__).parent / "models.md"
BEGIN, END = "<!-- models: begin -->\n", "<!-- models: end -->\n"


def model_table() -> str:
    """The table, in Markdown."""
    names = "| model | download | parameters | dim | license | ViDoRe, published | choose it for |"
    head = f"{names}\n{'|---' * 7}|\n"
    sources = sorted(
        {source for model in list_supported_models() for source in model.vidore_source.split("; ") if source}
    )
    return head + "".join(map(_row, list_supported_models())) + f"\nSources of the figures: {'; '.join(sources)}.\n"


def with_table(text: str) -> str:
    """A page with the table between its marks replaced."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + model_table() + END + after


def _row(model: ModelDescription) -> str:
    name = f"`{model.name}`" + ("" if model.repository else " (bundled)")
    download = "none" if not model.repository else f"{model.size_in_bytes / 1e9:.1f} GB"
    figures = "; ".join(f"{metric} {value}" for metric, value in model.vidore) or "-"
    parameters = f"{model.parameters / 1e6:,.0f} M"
    lowest = FAMILIES[model.family].onnxruntime
    summary = model.summary + (f" Needs onnxruntime {lowest}, hence Python 3.11." if lowest else "")
    cells = (name, download, parameters, str(model.dim), model.license, figures, summary)
    return "| " + " | ".join(cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
