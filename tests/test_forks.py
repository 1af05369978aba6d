"""A child that is forked from a busy process works, and ends when it is asked to."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PAPER = Path(__file__).parents[1] / "demo" / "pdfs" / "hcl-colors.pdf"

# As a server that loads everything, serves, and forks its workers (gunicorn with preload_app).
_SERVER = """
import itertools, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")  # newer Pythons warn of any fork beside threads
from colpali_integrations import ColPali, MultiVectorStore, index_documents, pdf_pages
from colpali_integrations.pages import load_image

folder, paper = sys.argv[1:]
model = ColPali.from_pretrained()
store = MultiVectorStore.open(folder, model=model)
index_documents([paper], model=model, store=store, pages=[1, 2])
picture = folder + "/page.png"
next(pdf_pages(paper, dpi=40)).image.save(picture)

def work():
    [page] = pdf_pages(paper, dpi=30, pages=[1])
    assert len(next(model.embed_images(load_image(picture)))) > 3
    store.add([(store.get([hit.id])[0], vectors) for hit in store.search("palettes", 1)
               for vectors in store.vectors([hit.id])])
    return page.text[:20], len(store), [hit.id for hit in store.search("diverging palettes", 2)]

expected = work()
stop = threading.Event()
def busy(do):
    while not stop.is_set():
        do()
tasks = [lambda: list(pdf_pages(paper, dpi=60, pages=[1])), lambda: load_image(picture),
         lambda: model.embed_query("palettes"), lambda: store.search("palettes", 1), work]
threads = [threading.Thread(target=busy, args=(task,), daemon=True) for task in tasks]
for thread in threads:
    thread.start()
children = []
for _ in range(3):
    time.sleep(0.2)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        os.write(writing, b"right" if work() == expected else b"wrong")
        while True:
            time.sleep(0.05)
    os.close(writing)
    children.append((child, reading))
answers = [os.read(reading, 5) for _, reading in children]
for child, _ in children:
    os.kill(child, signal.SIGTERM)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _ in children]
stop.set()
for thread in threads:
    thread.join()
print(answers, codes, work() == expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_workers_of_a_busy_server_work_and_end(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, tmp_path / "store", PAPER], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        out, _ = process.communicate(timeout=240)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a child that hangs would outlive its parent
    assert out.decode().strip() == f"{[b'right'] * 3} [0, 0, 0] True"
