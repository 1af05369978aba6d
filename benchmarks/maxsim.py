"""MaxSim of one query with many pages: ours and every scorer that is installed, side by side.

From the repository's root, in an environment that has the scorers to compare with (those that are not installed are
left out; the first three are wanted)::

    pip install maxsim-cpu==0.1.0 fast-maxsim==0.2.0 torch==2.13.0 sentence-transformers==6.2.0 colpali-engine==0.3.18
    python -m benchmarks.maxsim [--pages 5000] [--rounds 7]      # -> results/maxsim.md

For each number of cores one process is bound to that many before anything is loaded, so that every scorer has the same
ones and may use them as it likes. Contestants take turns, the order turned round every other round. Memory is what the
first call adds to the process at its highest, with the libraries that it loads; contestants share a process, so what
an earlier one's allocator kept is not added again, and small numbers say little. "Packed" pages are laid out before
the clock starts, as an index would be.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from colpali_integrations.runtime.machine import available_cores

ROOT = Path(__file__).parent.parent
PEERS = ("maxsim-cpu", "fast-maxsim", "torch", "sentence-transformers", "colpali-engine")
ROWS, DIM, QUERY = 1030, 128, 20
COPY = "(no score: the pages read once, by a copy of four at a time)"
SIDE = 1024  # of the square matrices whose product gives the SGEMM rate


def contestants(query: Any, pages: Any, halves: Any) -> dict[str, Callable[[], Any]]:
    import numpy as np

    from colpali_integrations import max_sim
    from colpali_integrations.scoring import PackedPages, quantize_int8, top_pages

    small = quantize_int8(halves)
    packed, packed_small = PackedPages(pages), PackedPages(small)

    def reranked() -> Any:
        """Scores of int8, with those of the best 20 pages replaced by scores of their floats."""
        scores = max_sim(query, packed_small)
        best = top_pages(scores, 20)
        scores[best] = max_sim(query, [halves[index] for index in best])
        return scores

    listed, transposed = list(pages), np.ascontiguousarray(query.T)
    # Lengths between half a page and a page, the same mean for all contestants that can take them.
    lengths = np.random.default_rng(0).integers(ROWS // 2, ROWS, len(pages))
    ragged = [page[:length] for page, length in zip(listed, lengths, strict=True)]
    found: dict[str, Callable[[], Any]] = {
        "ours, float32": lambda: max_sim(query, pages),
        "ours, float32, packed": lambda: max_sim(query, packed),
        "ours, int8": lambda: max_sim(query, small),
        "ours, int8, packed": lambda: max_sim(query, packed_small),
        "ours, int8, packed, 20 reranked": reranked,
        "ours, float16 pages": lambda: max_sim(query, halves),
        "ours, float32, pages of 515 to 1030 vectors": lambda: max_sim(query, ragged),
        "numpy, page by page": lambda: np.array([(page @ transposed).max(axis=0).sum() for page in listed]),
    }
    for name in ("maxsim_cpu", "fast_maxsim"):
        try:
            module = __import__(name)
        except ImportError:
            continue
        label = name.replace("_", "-")
        found[label] = lambda module=module: module.maxsim_scores(query, pages)  # type: ignore[misc]
        found[f"{label}, pages of 515 to 1030 vectors"] = lambda module=module: (  # type: ignore[misc]
            module.maxsim_scores_variable(query, ragged)
        )
    found |= torch_contestants(query, pages)
    buffer = np.empty((4, ROWS, DIM), np.float32)

    def read() -> None:
        for start in range(0, len(pages) // 4 * 4, 4):
            np.copyto(buffer, pages[start : start + 4])

    return found | {COPY: read}


def torch_contestants(query: Any, pages: Any) -> dict[str, Callable[[], Any]]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(available_cores())
    one, many = torch.from_numpy(query), torch.from_numpy(pages)

    def einsum(block: int) -> Any:
        with torch.inference_mode():
            parts = [
                torch.einsum("qd,pnd->pqn", one, many[i : i + block]).amax(2).sum(1) for i in range(0, len(many), block)
            ]
            return torch.cat(parts).numpy()

    def flat(block: int) -> Any:
        with torch.inference_mode():
            parts = [
                (one @ many[i : i + block].reshape(-1, DIM).T).view(QUERY, -1, ROWS).amax(2).sum(0)
                for i in range(0, len(many), block)
            ]
            return torch.cat(parts).numpy()

    found: dict[str, Callable[[], Any]] = {
        "torch, einsum, 128 pages at once": lambda: einsum(128),
        "torch, one product, 32 pages at once": lambda: flat(32),
    }
    try:
        from sentence_transformers.util import maxsim
    except ImportError:
        pass
    else:
        found["sentence-transformers maxsim"] = lambda: maxsim([one], many).numpy()[0]
    try:
        from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor as Processor
    except (ImportError, RuntimeError):  # RuntimeError: a torchvision that does not fit torch
        pass
    else:
        listed = list(many)
        found["colpali-engine score_multi_vector"] = lambda: Processor.score_multi_vector(
            [one], listed, device="cpu"
        ).numpy()[0]
    return found


def sgemm_rates() -> dict[str, Callable[[], Any]]:
    """Square products by all libraries that have them; the fastest is the machine's rate."""
    import numpy as np

    left, right = (np.random.default_rng(seed).random((SIDE, SIDE), np.float32) for seed in (0, 1))
    found: dict[str, Callable[[], Any]] = {"numpy": lambda: left @ right}
    try:
        import torch
    except ImportError:
        return found
    one, other = torch.from_numpy(left), torch.from_numpy(right)
    return found | {"torch": lambda: one @ other}


def added_memory(call: Callable[[], Any]) -> tuple[int, Any]:
    """Bytes that a call adds to the process's resident memory at its peak, and its result."""
    import psutil

    process, over, peaks = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not over.wait(0.005):
            peaks.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    result = call()
    over.set()
    thread.join()
    return max(0, max(peaks) - before), result


def data(count: int) -> Any:
    """Pages as ColPali's would be, float16, made once and kept under work/."""
    import numpy as np

    from benchmarks.stores_data import Corpus

    file = ROOT / "benchmarks" / "work" / f"maxsim-{count}x{ROWS}.npy"
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        corpus = Corpus(count, ROWS, DIM)
        part = file.with_suffix(".part")
        made = np.lib.format.open_memmap(part, "w+", np.float16, (count, ROWS, DIM))
        for number in range(count):
            made[number] = corpus.page(number)
        made.flush()
        part.rename(file)
    return np.load(file)


def worker(cores: int, count: int, rounds: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    import numpy as np

    from benchmarks.stores_data import Corpus

    halves = data(count)
    pages = halves.astype(np.float32)
    corpus = Corpus(count, ROWS, DIM)
    query = np.ascontiguousarray(corpus.query(0)[:QUERY])
    running, gemms = contestants(query, pages, halves), sgemm_rates()
    exact = np.array([(page.astype(np.float64) @ query.T.astype(np.float64)).max(axis=0).sum() for page in pages])
    memory, errors, times = {}, {}, {name: [] for name in running}
    for name, call in running.items():
        memory[name], scores = added_memory(call)
        if name != COPY and "515" not in name:
            errors[name] = float(np.abs(np.asarray(scores) / exact - 1).max())
    gemm_times: dict[str, list[float]] = {name: [] for name in gemms}
    for number in range(rounds):
        order = list(running) if number % 2 == 0 else list(reversed(running))
        for name in order:
            start = time.perf_counter()
            running[name]()
            times[name].append(time.perf_counter() - start)
        for name, call in gemms.items():
            for _ in range(10):
                start = time.perf_counter()
                call()
                gemm_times[name].append(time.perf_counter() - start)
    rates = {name: 2 * SIDE**3 / median(seen) / 1e9 for name, seen in gemm_times.items()}
    recall = int8_recall(corpus, pages, halves) if cores == 1 else {}
    print(json.dumps({"times": times, "memory": memory, "errors": errors, "rates": rates, "recall": recall}))


def int8_recall(corpus: Any, pages: Any, halves: Any, *, queries: int = 50, k: int = 10) -> dict[str, float]:
    """The part of the exact best k pages that int8 finds, alone and after a rerank of its best 20 in float16."""
    import numpy as np

    from colpali_integrations import max_sim
    from colpali_integrations.scoring import quantize_int8, top_pages

    small, alone, reranked = quantize_int8(halves), [], []
    for number in range(queries):
        query = corpus.query(number)
        exact = top_pages(max_sim(query, pages), k)
        best = top_pages(max_sim(query, small), 20)
        alone.append(np.isin(exact, best[:k]).mean())
        best = best[top_pages(max_sim(query, [halves[index] for index in best]), k)]
        reranked.append(np.isin(exact, best).mean())
    return {"alone": float(np.mean(alone)), "reranked": float(np.mean(reranked))}


def report(cores: int, count: int, result: dict[str, Any]) -> str:
    per_page = {name: [value / count * 1e6 for value in seen] for name, seen in result["times"].items()}
    best, rate = median(per_page["ours, float32, packed"]), max(result["rates"].values())
    peer = median(per_page["maxsim-cpu"]) if "maxsim-cpu" in per_page else None
    flops = 2 * QUERY * ROWS * DIM
    rows = []
    for name, seen in per_page.items():
        middle, partly = median(seen), name == COPY or "515" in name
        rows.append(
            (
                name,
                machine.spread(seen),
                "-" if partly else f"{middle / best:.2f}",
                "-" if partly or peer is None else f"{peer / middle:.1f}x",
                "-" if partly or "int8" in name else f"{flops / middle / 1e3 / rate:.2f}",
                f"{result['memory'][name] / 2**20:,.0f}",
                "-" if partly else f"{result['errors'][name]:.0e}",
            )
        )
    rates = ", ".join(f"{value:.0f} by {name}" for name, value in result["rates"].items())
    header = (
        "scorer",
        "us/page",
        "time by ours, float32, packed",
        "speed by maxsim-cpu",
        "part of SGEMM",
        "memory of the first call, MiB",
        "largest relative error",
    )
    recall = result["recall"] and (
        f"\n\nRecall@10 of 50 queries by int8: {result['recall']['alone']:.3f}; after a rerank of 20 in float16: "
        f"{result['recall']['reranked']:.3f}."
    )
    return (
        f"## {cores} core{'s' if cores > 1 else ''}\n\nSGEMM of {SIDE} x {SIDE}: {rates} GF/s.\n\n"
        f"{machine.table(header, rows)}{recall or ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cores:
        worker(options.cores, options.pages, options.rounds)
        return
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this system cannot bind a process to a number of cores")
    if "OPENBLAS_CORETYPE" in os.environ:
        raise SystemExit("OPENBLAS_CORETYPE is set: numpy would not use what this processor can do")
    parts = []
    for cores in sorted({1, min(2, available_cores()), available_cores()}):
        command = [sys.executable, "-m", "benchmarks.maxsim", "--cores", str(cores)]
        command += ["--pages", str(options.pages), "--rounds", str(options.rounds)]
        said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        parts.append(report(cores, options.pages, json.loads(said.splitlines()[-1])))
    machine.PACKAGES = (*machine.PACKAGES, *PEERS)
    head = (
        f"# Exact MaxSim: a query of {QUERY} x {DIM} against {options.pages:,} pages of {ROWS} x {DIM}\n\n"
        f"`python -m benchmarks.maxsim`; medians of {options.rounds} alternating rounds, least and greatest in "
        f"brackets. {machine.describe()}\n"
    )
    machine.write("maxsim.md", "\n\n".join([head, *parts]))


if __name__ == "__main__":
    main()
