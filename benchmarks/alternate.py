"""Two checkouts side by side, in alternating runs: time per question, per page and per indexed page, and peak memory.

A hybrid question is asked in a store of 2,000 pages, with 100 candidates; the time that its engine takes is subtracted.

A change of structure must not cost speed. From the repository's root, with another checkout beside it::

    git worktree add ../before 13f8784
    python -m benchmarks.alternate ../before . --rounds 5

Each run is a process of its own, whose working directory is the checkout; the checkouts take turns. The models are the
small PaliGemma of tests/parity, in which the package's own work weighs more than in a real one, and ColTiny. Printed
are medians over the rounds and the ratio of the second checkout to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

_WORKER = """
import json, resource, sys, time
from colpali_integrations import ColPali, pdf_pages
from colpali_integrations.stores import MultiVectorStore, index_documents
name, folder, questions, pages = sys.argv[1], sys.argv[2] or None, int(sys.argv[3]), int(sys.argv[4])
model = ColPali.from_pretrained(name, local_dir=folder)
texts = [f"which palettes suit ordered data of kind {number}" for number in range(questions)]
list(model.embed_queries(texts[:8]))
begin = time.perf_counter()
for text in texts:
    list(model.embed_queries(text))
single = (time.perf_counter() - begin) / questions
begin = time.perf_counter()
list(model.embed_queries(texts))
batched = (time.perf_counter() - begin) / questions
images = [page.image for page in pdf_pages("demo/pdfs/hcl-colors.pdf", dpi=100, pages=[1, 2, 3, 4])]
list(model.embed_images(images[:1]))
begin = time.perf_counter()
list(model.embed_images(images[number % 4] for number in range(pages)))
page = (time.perf_counter() - begin) / pages
store = MultiVectorStore.open(model=model)
begin = time.perf_counter()
assert index_documents(["demo/pdfs/hcl-colors.pdf"], model=model, store=store).added == 12
indexed = (time.perf_counter() - begin) / 12
begin = time.perf_counter()
assert index_documents(["demo/pdfs/hcl-colors.pdf"], model=model, store=store).present == 12
again = (time.perf_counter() - begin) / 12
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"ms per question": single * 1e3, "ms per question, batched": batched * 1e3, "ms per page": page * 1e3,
                  "ms per indexed page": indexed * 1e3, "ms per page, indexed again": again * 1e3, "peak MiB": peak}))
"""
_HYBRID = """
import json, sys, time
import numpy as np
from colpali_integrations import ColPali
from colpali_integrations.stores import Entry, MultiVectorStore
questions, random = int(sys.argv[1]), np.random.default_rng(0)
words = np.array([f"word{number}" for number in range(3000)])
draw = lambda number: words[np.minimum(random.zipf(1.3, number), 3000) - 1]
vectors = random.standard_normal((2000, 8, 128)).astype(np.float32)
store = MultiVectorStore.open(model=ColPali.from_pretrained("coltiny"))
vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
store.add((Entry(id=str(number), text=" ".join(draw(200)), metadata={"page": number}), one)
          for number, one in enumerate(vectors))
engine, inside = store._engine, 0.0
search = type(engine).search
def timed(self, searches):
    global inside
    begin = time.perf_counter()
    try:
        return search(self, searches)
    finally:
        inside += time.perf_counter() - begin
type(engine).search = timed
asked = [(random.standard_normal((20, 128)).astype(np.float32), " ".join(draw(6))) for _ in range(questions)]
for query, text in asked[:20]:
    store.search(query, 10, text=text, hybrid=True)
beyond, whole = [], []
for query, text in asked:
    inside, begin = 0.0, time.perf_counter()
    store.search(query, 10, text=text, hybrid=True)
    whole.append(time.perf_counter() - begin)
    beyond.append(whole[-1] - inside)
print(json.dumps({"ms per question": float(np.median(whole)) * 1e3,
                  "ms per question beyond its engine": float(np.median(beyond)) * 1e3}))
"""
_MODELS = {
    "PaliGemma of tests/parity": ("Qdrant/colpali-v1.3-fp16", "tests/parity/fixtures/paligemma"),
    "ColTiny": ("coltiny", ""),
}


def run(tree: Path, script: str, *arguments: str) -> dict[str, float]:
    """One process in a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--pages", type=int, default=40)
    arguments = parser.parse_args()
    trees = [arguments.first.resolve(), arguments.second.resolve()]
    print(f"| model | measure | {arguments.first} | {arguments.second} | ratio |\n|---|---|---:|---:|---:|")
    questions, pages = str(arguments.questions), str(arguments.pages)
    kinds: dict[str, tuple[str, ...]] = {
        label: (_WORKER, name, folder, questions, pages) for label, (name, folder) in _MODELS.items()
    }
    kinds["hybrid search"] = (_HYBRID, questions)
    for label, script in kinds.items():
        rounds: list[list[dict[str, float]]] = [[], []]
        for number in range(arguments.rounds):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                rounds[side].append(run(trees[side], *script))
        for measure in rounds[0][0]:
            before, after = (median(one[measure] for one in side) for side in rounds)
            print(f"| {label} | {measure} | {before:.2f} | {after:.2f} | {after / before:.3f} |", flush=True)


if __name__ == "__main__":
    main()
