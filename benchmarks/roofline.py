"""The limit of pages per second: operations of a page's graph, and their rate by kind of node.

From the repository's root, after `python -m benchmarks.make_replica`::

    python -m benchmarks.roofline [--model FOLDER] [--rounds 5]      # -> results/roofline.md

ONNX Runtime's own profile says how long each node takes and what shapes it works on; multiplications and additions of
matrix products and convolutions follow from the shapes. They are compared with the rate of a square product (1024) in
the same runtime, process and threads. Every contestant that runs this graph in float32 on these cores must do these
operations, in any batches and workers, so their time at that rate is a lower bound for all contestants.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from benchmarks import machine
from benchmarks.encode import WORK, pages
from benchmarks.worker import NAME
from colpali_integrations import ColPali
from colpali_integrations.pages.images import load_image
from colpali_integrations.runtime.machine import available_cores

SIDE, PAGES = 1024, 3
Shapes = list[list[int]]


def square_product(threads: int) -> ort.InferenceSession:
    square = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE]) for name in ("a", "b", "c")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", square[:2], square[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def operations(kind: str, inputs: Shapes, outputs: Shapes) -> float:
    """Multiplications and additions of a node; 0 for nodes that are not made of them."""
    made = math.prod(outputs[0]) if outputs else 0
    if "MatMul" in kind or kind == "Gemm":
        return 2.0 * made * (inputs[0][-1] if inputs[0] else 0)
    if "Conv" in kind:
        return 2.0 * made * math.prod(inputs[1][1:])
    return 0.0


def shapes(told: list[dict[str, list[int]]]) -> Shapes:
    return [next(iter(one.values())) for one in told]


def read(profile: Path, runs: int) -> dict[str, tuple[float, float]]:
    """Seconds and operations per page, of all runs but the first, which warms up, by kind of node."""
    events = json.loads(profile.read_text())
    starts = [event["ts"] for event in events if event["name"] == "model_run"]
    assert len(starts) == runs + 1, f"{len(starts)} runs in the profile"
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= sorted(starts)[1]:
            told = event["args"]
            kind = told["op_name"]
            entry = found[kind]
            entry[0] += event["dur"] / 1e6 / runs
            entry[1] += operations(kind, shapes(told["input_type_shape"]), shapes(told["output_type_shape"])) / runs
    return {kind: (seconds, done) for kind, (seconds, done) in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=WORK / "colpali-quarter")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores())
    options = parser.parse_args()
    product = square_product(options.threads)
    square = {name: np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32) for name in ("a", "b")}
    model = ColPali.from_pretrained(NAME, local_dir=options.model, lazy_load=True)
    codec = model.family.pages
    feeds: list[Any] = [codec.feed([codec.prepare(load_image(path))]) for path in pages(PAGES)]
    with tempfile.TemporaryDirectory() as folder:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads
        plain = ort.InferenceSession(options.model / "model.onnx", settings, providers=["CPUExecutionProvider"])
        settings.enable_profiling, settings.profile_file_prefix = True, f"{folder}/profile"
        told = ort.InferenceSession(options.model / "model.onnx", settings, providers=["CPUExecutionProvider"])
        known = {value.name for value in plain.get_inputs()}
        feeds = [{name: value for name, value in feed.items() if name in known} for feed in feeds]
        for session in (plain, told):
            session.run(None, feeds[0])
        products, took, runs = [], [], 0
        for _ in range(options.rounds):
            for feed in feeds:
                began = time.perf_counter()
                plain.run(None, feed)
                took.append(time.perf_counter() - began)
                told.run(None, feed)
                runs += 1
                for _ in range(10):
                    began = time.perf_counter()
                    product.run(None, square)
                    products.append(time.perf_counter() - began)
        kinds = read(Path(told.end_profiling()), runs)
    peak = 2 * SIDE**3 / median(products)
    whole = median(took)
    seconds = sum(one for one, _ in kinds.values())
    done = sum(one for _, one in kinds.values())
    rows = [
        (kind, f"{one / seconds:.0%}", f"{ops / 1e9:.1f}", f"{ops / one / 1e9:.0f}", f"{ops / one / peak:.2f}")
        if ops
        else (kind, f"{one / seconds:.0%}", "-", "-", "-")
        for kind, (one, ops) in sorted(kinds.items(), key=lambda item: -item[1][0])[:12]
    ]
    table = machine.table(("node", "part of the time", "Gop a page", "Gop/s", "of a square product's rate"), rows)
    machine.write(
        "roofline.md",
        f"# What bounds a page: {options.model.name}, {options.threads} threads, batches of one\n\n"
        f"`python -m benchmarks.roofline`; {runs} pages. A square product of {SIDE} runs at {peak / 1e9:.0f} Gop/s "
        f"(median). A page takes {whole * 1e3:.0f} ms (median, without the profile) and {done / 1e9:.1f} Gop of matrix "
        f"products and convolutions, which at that rate would take {done / peak * 1e3:.0f} ms: no way of running this "
        f"graph in float32 on these cores can be more than {whole * peak / done:.2f} times as fast.\n\n"
        f"{table}\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
