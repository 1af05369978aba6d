"""Run the notebooks from top to bottom and save them with their outputs: `python notebooks/run.py [NAME ...]`."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def executed(path: Path, *, timeout: int = 600) -> nbformat.NotebookNode:
    """A notebook as it is after a run in its own folder, without times and without paths of this machine.

    Raises:
        CellExecutionError: a cell failed; the message shows it.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        coalesce_streams=True,
    )
    asyncio.run(client.async_execute())  # execute() leaves an event loop behind
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main() -> None:
    wanted = sys.argv[1:]
    for path in sorted(HERE.glob("*.ipynb")):
        if not wanted or path.name in wanted:
            notebook = executed(path)
            text = nbformat.writes(notebook) + "\n"
            assert not re.search(re.escape(str(HERE.parent)), text), f"{path.name} shows where it was run"
            path.write_text(text, encoding="utf-8")
            print(f"{path.name}: {len(text) // 1000} KB")


if __name__ == "__main__":
    main()
