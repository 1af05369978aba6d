"""A checkpoint built from its safetensors, side by side with PyTorch and with an export: CPU seconds, load, memory.

The real shape of NeoMME-260M with random weights, in the environment of the parity fixtures (`make parity`)::

    python -m benchmarks.checkpoints make            # writes benchmarks/work/neomme, 2.6 GB
    python -m benchmarks.checkpoints time            # contestants take turns in one process
    python -m benchmarks.checkpoints load            # a process each, without PyTorch but for PyTorch's own

Spinning is off in ONNX Runtime; PyTorch's waiting threads spin, which its CPU seconds contain.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

WORK = Path(__file__).parent / "work" / "neomme"
GRIDS = {"page of 770 tokens": (32, 23), "page of 1,487 tokens": (45, 32), "page of 3,010 tokens": (64, 46)}
THREADS = 2
# Name to the checkpoint's data type and the precision.
BUILT = {
    "float32": ("float32", "float32"),
    "float32 from bfloat16": ("bfloat16", "float32"),
    "int8": ("bfloat16", "int8"),
    "int8-dynamic": ("bfloat16", "int8-dynamic"),
}
Inputs = dict[str, np.ndarray]
Run = Callable[[Inputs], np.ndarray]


def page(rows: int, columns: int) -> Inputs:
    from colpali_integrations.models.builder.neomme import page_positions

    ids = np.array([[5, 6, *([6] * columns + [8]) * rows]])
    pixels = np.random.default_rng(1).standard_normal((rows * columns, 3072), dtype=np.float32)
    return {"ids": ids, "places": page_positions(rows, columns), "pixels": pixels}


def query(n_tokens: int = 25) -> Inputs:
    ids = np.random.default_rng(2).integers(10, 1000, (1, n_tokens))
    return {"ids": ids, "places": np.tile(np.arange(n_tokens), (2, 1)), "pixels": np.zeros((0, 3072), np.float32)}


def torch_model() -> Any:
    from tests.parity import torchvision_shim  # noqa: F401  # isort: skip  (before transformers)
    import torch
    from transformers import NeoMMEForRetrieval

    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    return NeoMMEForRetrieval.from_pretrained(WORK / "float32", dtype=torch.float32).eval()


def make() -> None:
    """Write the checkpoint in both data types, and its TorchScript export."""
    from tests.parity import torchvision_shim  # noqa: F401  # isort: skip  (before transformers)
    import torch
    from transformers import NeoMMEConfig, NeoMMEForRetrieval

    torch.manual_seed(0)
    model = NeoMMEForRetrieval(NeoMMEConfig())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.5 if "embed" in name else parameter[0].numel() ** -0.5)
            elif name.endswith("alpha"):
                parameter.normal_(std=0.5)
            elif name.endswith("lambdas"):
                parameter.copy_(torch.tensor([0.9, 0.2]))
    model.to(torch.bfloat16).save_pretrained(WORK / "bfloat16")
    model = NeoMMEForRetrieval.from_pretrained(WORK / "bfloat16", dtype=torch.float32).eval()
    model.save_pretrained(WORK / "float32")

    class Rows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, pixel_values: Any) -> Any:
            return self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                pixel_values=pixel_values,
                output_dense=False,
            ).embeddings

    example = page(12, 9)
    names = ["input_ids", "attention_mask", "position_ids", "pixel_values"]
    torch.onnx.export(
        Rows().eval(),
        tuple(map(torch.tensor, _reference_inputs(example).values())),
        str(WORK / "torchscript.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=names,
        output_names=["embeddings"],
        dynamic_axes={**{key: {0: "b", 1: "s"} for key in names[:2]}, names[2]: {1: "b", 2: "s"}, names[3]: {0: "p"}},
    )


def _reference_inputs(inputs: Inputs) -> Inputs:
    ids = inputs["ids"]
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": inputs["places"][:, None],
        "pixel_values": inputs["pixels"],
    }


def contestant(name: str) -> Run:
    if name == "torch":
        import torch

        model = torch_model()

        def run(inputs: Inputs) -> np.ndarray:
            given = {key: torch.tensor(value) for key, value in _reference_inputs(inputs).items()}
            if not len(inputs["pixels"]):
                given["pixel_values"] = None
            rows: np.ndarray = model(**given, output_dense=False).embeddings[0].numpy()
            return rows

        return run
    import onnxruntime as ort

    if name == "torchscript":
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        session = ort.InferenceSession(str(WORK / "torchscript.onnx"), options, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, _reference_inputs(inputs))[0][0]  # type: ignore[no-any-return]
    from colpali_integrations.models.builder.checkpoint_graph import CheckpointGraph
    from colpali_integrations.models.builder.neomme import NeoMME
    from colpali_integrations.runtime.graph_session import SessionConfig
    from colpali_integrations.runtime.session import ModelSessions

    dtype, precision = BUILT[name]
    architecture = NeoMME(json.loads((WORK / dtype / "config.json").read_text(encoding="utf-8")))
    sessions = ModelSessions(
        CheckpointGraph(architecture, "encoder", WORK / dtype, precision),
        SessionConfig(threads=THREADS, cache_dir=str(WORK)),
    )
    sessions.load()

    def built(inputs: Inputs) -> np.ndarray:
        feed = architecture.feed(inputs["ids"], inputs["pixels"], inputs["places"])
        rows: np.ndarray = sessions.pages(feed)["embeddings"][0]
        return rows

    return built


def race(names: list[str], rounds: int, sizes: list[str]) -> None:
    runs = {name: contestant(name) for name in names}
    items = {"query of 25 tokens": query(), **{size: page(*grid) for size, grid in GRIDS.items()}}
    for title in sizes or list(items):
        cpu: dict[str, list[float]] = {name: [] for name in names}
        clock: dict[str, list[float]] = {name: [] for name in names}
        rows: dict[str, np.ndarray] = {}
        for _ in range(rounds):
            for name, run in runs.items():
                start, spent = time.perf_counter(), time.process_time()
                rows[name] = run(items[title])
                cpu[name].append(time.process_time() - spent)
                clock[name].append(time.perf_counter() - start)
        first = names[0]
        for name in names:
            cosine = (rows[name] * rows[first]).sum(-1)
            print(
                f"{title:21} {name:22} CPU {median(cpu[name]):7.3f} s (x{median(cpu[first]) / median(cpu[name]):.2f}), "
                f"clock {median(clock[name]):7.3f} s (x{median(clock[first]) / median(clock[name]):.2f}), difference "
                f"{np.abs(rows[name] - rows[first]).max():.1e}, cosine {cosine.mean():.5f} (least {cosine.min():.5f}), "
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


def memory() -> dict[str, int]:
    """MiB of this process: resident now, and at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(fields[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM")}


def load_once(name: str) -> None:
    """In a process of its own: seconds to load, and memory before, then, after a query and after a page."""
    if name == "torch":
        import torch  # noqa: F401
    else:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    before = memory()["VmRSS"]
    start = time.perf_counter()
    run = contestant(name)
    seconds = time.perf_counter() - start
    loaded = memory()
    run(query())
    asked = memory()["VmHWM"]
    run(page(*GRIDS["page of 1,487 tokens"]))
    facts = {"s": round(seconds, 2), "before": before, "loaded": loaded["VmRSS"], "peak of loading": loaded["VmHWM"]}
    print(f"{name:22} {json.dumps({**facts, 'after a query': asked, 'after 1,487 tokens': memory()['VmHWM']})}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["make", "time", "load", "load-once"])
    parser.add_argument("names", nargs="*", help="contestants: torch, torchscript, " + ", ".join(BUILT))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", action="append", default=[], help="only this item; may be repeated")
    given = parser.parse_args()
    every = ["torch", "torchscript", "float32", "int8", "int8-dynamic"]
    if given.command == "make":
        make()
    elif given.command == "time":
        race(given.names or every, given.rounds, given.size)
    elif given.command == "load-once":
        load_once(given.names[0])
    else:
        for name in given.names or ["torch", "torchscript", *BUILT]:
            for _ in range(2):  # the second time is warm
                subprocess.run([sys.executable, "-m", "benchmarks.checkpoints", "load-once", name], check=True)


if __name__ == "__main__":
    main()
