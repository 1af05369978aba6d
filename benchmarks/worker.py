"""One contestant at one task, in a separate process that `process.measure` starts."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

NAME = "Qdrant/colpali-v1.3-fp16"  # whose prompt both use


def say(**what: Any) -> None:
    sys.__stdout__.write(json.dumps(what) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def phase(name: str) -> None:
    """Announce a phase to the parent process, and wait until it has read the memory."""
    say(phase=name)
    sys.stdin.readline()


class Ours:
    def __init__(self, folder: str, *, parallel: int | None, options: dict[str, Any]) -> None:
        from colpali_integrations import ColPali

        if (Path(folder) / "model.onnx").is_file():
            self._model = ColPali.from_pretrained(NAME, local_dir=folder, **options)
        else:
            self._model = ColPali.from_pretrained(folder, **options)
        self._parallel = parallel

    def texts(self, texts: list[str], batch_size: int | None) -> list[Any]:
        return list(self._model.embed_queries(texts, batch_size=batch_size))

    def images(self, images: Iterable[Any], batch_size: int | None) -> Iterator[Any]:
        return self._model.embed_images(images, batch_size=batch_size, parallel=self._parallel)


class FastEmbed:
    def __init__(self, folder: str, *, parallel: int | None, options: dict[str, Any]) -> None:
        from fastembed import LateInteractionMultimodalEmbedding

        # With workers the parent's own model would only add to the memory.
        self._model = LateInteractionMultimodalEmbedding(
            NAME, specific_model_path=folder, lazy_load=parallel is not None, **options
        )
        self._parallel = parallel

    def texts(self, texts: list[str], batch_size: int | None) -> list[Any]:
        more = {} if batch_size is None else {"batch_size": batch_size}
        return list(self._model.embed_text(texts, **more))

    def images(self, images: Iterable[Any], batch_size: int | None) -> Iterator[Any]:
        more = {} if batch_size is None else {"batch_size": batch_size}
        return iter(self._model.embed_image(images, parallel=self._parallel, **more))


def cpu_seconds() -> float:
    """CPU seconds of this process and its descendants, including those that have ended."""
    import psutil

    me = psutil.Process()
    own = me.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for one in me.children(recursive=True):
        try:
            times = one.cpu_times()
            # A pool's server counts the workers that have ended.
            total += times.user + times.system + times.children_user + times.children_system
        except psutil.Error:
            continue
    return total


def busy_seconds() -> float:
    """CPU seconds of all processes of the machine since it started, without those of `benchmarks.load`."""
    import psutil

    times = psutil.cpu_times()
    total = float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
    for one in psutil.process_iter(["cmdline", "cpu_times"]):
        if "benchmarks.load" in (one.info["cmdline"] or []):
            total -= one.info["cpu_times"].user + one.info["cpu_times"].system
    return total


def text(model: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each call, after one to warm up."""
    texts, batch = task["texts"], task["batch_size"]
    made = model.texts(texts, batch)
    _save(task, made)
    seconds, cpu = [], []
    phase("run")
    for _ in range(task["calls"]):
        start, start_cpu = time.perf_counter(), time.process_time()
        model.texts(texts, batch)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return {"seconds": seconds, "cpu": cpu}


def text_memory(model: Any, task: dict[str, Any]) -> dict[str, Any]:
    model.texts(task["texts"][:1], None)
    phase("run")
    made = model.texts(task["texts"], task["batch_size"])
    return {"n": len(made)}


def images(model: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Pages from files, as a generator, so that no contestant treats a short list as a special case.

    `others` is the share of the machine's cores that programs other than contestants and load took.
    """
    if task["parallel"] is None or task["who"] == "ours":
        # Warm up, with the sessions that several pages have; a pool of processes is made anew for each call.
        list(model.images(task["paths"][: task["parallel"] or 1], 1))
    phase("run")
    start_busy, start, start_cpu = busy_seconds(), time.perf_counter(), cpu_seconds()
    first = cpu = 0.0
    made = []
    for vectors in model.images((path for path in task["paths"]), task["batch_size"]):
        made.append(vectors)
        first = first or time.perf_counter() - start
        if len(made) == len(task["paths"]):
            cpu = cpu_seconds() - start_cpu  # before a pool of processes is gone
    seconds = time.perf_counter() - start
    others = (busy_seconds() - start_busy - cpu) / seconds / (os.cpu_count() or 1)
    _save(task, made)
    return {"seconds": seconds, "first": first, "cpu": cpu, "n": len(made), "others": others}


def first(model: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Time to the first result of a long generator of drawn pages, and how many pages it took."""
    from PIL import Image

    pulled = 0

    def pages() -> Iterator[Any]:
        nonlocal pulled
        for number in range(task["n"]):
            pulled += 1
            with Image.open(task["paths"][number % len(task["paths"])]) as image:
                yield image.convert("RGB")

    phase("run")
    start = time.perf_counter()
    results = model.images(pages(), task["batch_size"])
    next(results)
    seconds = time.perf_counter() - start
    seen = pulled
    taken = 1
    for _ in results:
        taken += 1
        if taken == task["take"]:
            break
    return {"first": seconds, "pulled": seen, "later": pulled - taken, "taken": taken}


def _save(task: dict[str, Any], made: list[Any]) -> None:
    if task.get("save"):
        import numpy as np

        np.savez(task["save"], **{f"{place:04d}": vectors for place, vectors in enumerate(made)})


def main() -> None:
    logging.disable(logging.WARNING)
    task = json.loads(sys.argv[1])
    maker = Ours if task["who"] == "ours" else FastEmbed
    model = maker(task["folder"], parallel=task.get("parallel"), options=task.get("options") or {})
    tasks = {"text": text, "text_memory": text_memory, "images": images, "first": first}
    say(result=tasks[task["what"]](model, task))
    sys.stdin.readline()
    os._exit(0)  # a pool that still works on a long generator is not waited for


if __name__ == "__main__":
    assert Path.cwd().joinpath("benchmarks").is_dir(), "run from the repository's root"
    main()
