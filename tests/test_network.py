"""Nothing is sent anywhere that the caller did not ask for: what a process connects to, as the kernel sees it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from tests.conftest import few_pages

ROOT = Path(__file__).parents[1]
# Reports come from a thread that waits; onnxruntime's comes within ten seconds.
WORK = """
import time
from colpali_integrations import ColPali, MultiVectorStore, index_documents
from colpali_integrations.cli.app import run
with ColPali.from_pretrained() as model:
    index_documents("paper.pdf", model=model, store="folder")
    with MultiVectorStore.open("folder", model=model) as store:
        assert store.search("low tide", 1)
assert run(["index", "paper.pdf", "--store", "cli", "--quiet"]) == 0
assert run(["search", "tide", "--store", "cli", "--html", "report.html"]) == 0
from colpali_integrations.langchain import ColPaliVectorStore, image_blocks
with ColPaliVectorStore(path="langchain") as store:
    store.add_pdf("paper.pdf")
    assert image_blocks(store.as_retriever().invoke("tide"))
from colpali_integrations.llama_index import ColPaliIndex, PdfPageReader, page_message
nodes = ColPaliIndex(PdfPageReader().load_data("paper.pdf")).as_retriever().retrieve("tide")
assert page_message("tide", nodes)
import colpali_integrations.ray
time.sleep(30)
"""


def traced(code: str, folder: Path) -> subprocess.Popen[bytes]:
    """Run code in a process with a new home folder and no variable that turns a report off."""
    home = folder / "home"
    home.mkdir(parents=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)}
    trace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(folder / "trace")]
    return subprocess.Popen(
        [*trace, sys.executable, "-c", code], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )


def connections(folder: Path) -> list[str]:
    """The calls that leave this machine: not those to local services (AF_UNIX) and to the kernel (AF_NETLINK)."""
    trace = (folder / "trace").read_text(encoding="utf-8", errors="replace")
    return [line for line in trace.splitlines() if re.search(r"sa_family=(?!AF_UNIX|AF_LOCAL|AF_NETLINK)", line)]


@pytest.mark.slow
def test_indexing_and_searching_connect_to_nothing(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    if subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], check=False).returncode:
        pytest.skip("processes may not be traced here")
    quiet, reporting = tmp_path / "quiet", tmp_path / "reporting"
    processes = [traced(WORK, quiet)]
    few_pages(quiet / "paper.pdf", [1, 2])
    reports = tuple(map(int, ort.__version__.split(".")[:2])) >= (1, 29)
    if reports:
        processes.append(traced("import time, onnxruntime\ntime.sleep(30)", reporting))
    assert [process.wait(300) for process in processes] == [0] * len(processes)
    assert connections(quiet) == []
    if reports:  # without the switch that this package sets; so the trace shows what it should
        assert connections(reporting)
