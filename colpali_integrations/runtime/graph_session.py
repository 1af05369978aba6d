"""The ONNX Runtime session of one graph, and its options."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import EncodingError, ModelLoadError, ProviderError
from colpali_integrations.runtime.arrays import Feed
from colpali_integrations.runtime.machine import available_cores
from colpali_integrations.runtime.providers import (
    Provider,
    provider_name,
    resolve_providers,
    warn_of_fallback,
    with_device,
)
from colpali_integrations.runtime.runs import Runs

if TYPE_CHECKING:
    from colpali_integrations.runtime.graph import Graph

__all__ = ["GraphSession", "SessionConfig"]

logger = package_logger(__name__)

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class SessionConfig:
    """Options of the sessions.

    Attributes:
        providers: execution providers in order of preference, each a name or (name, options). None selects CUDA where
            this build of onnxruntime has it, otherwise the CPU.
        device_id: the device of the first provider; None leaves the choice to the provider.
        threads: threads per run; None for one per core that this process may use, divided among the runs that a caller
            has at once.
        enable_cpu_mem_arena: take the memory of a run from an arena, which is faster. It shrinks after each run.
        split: cut merged exports so that queries skip the vision tower.
        cache_dir: where files that are made for a built graph are kept; None for a default.
    """

    providers: tuple[Provider, ...] | None = None
    device_id: int | None = None
    threads: int | None = None
    enable_cpu_mem_arena: bool = True
    split: bool = True
    cache_dir: str | None = None


class GraphSession:
    """An onnxruntime session that accepts unused inputs and casts arrays to the types of its inputs."""

    def __init__(self, graph: Graph, name: str, config: SessionConfig) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = config.threads or available_cores()
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = config.enable_cpu_mem_arena
        options.log_severity_level = 3
        # Spinning threads would take cores from the threads that decode the next pages, and from the caller's.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if graph.weights is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", os.fspath(graph.weights)
            )
        providers = with_device(resolve_providers(config.providers), config.device_id)
        # A graph that cannot be loaded is else tried once more on the CPU, with a note on the standard output.
        fallback = int([provider_name(one) for one in providers] != ["CPUExecutionProvider"])
        content = graph.model.SerializeToString()
        try:
            self._session = ort.InferenceSession(content, options, providers=list(providers), enable_fallback=fallback)
        except Exception as error:  # onnxruntime's exceptions have no other common base class
            raise ModelLoadError(
                f"onnxruntime {ort.__version__} cannot load {name}: {error}. If the file was cut off, delete it and "
                "download it again."
            ) from error
        active = self._session.get_providers()
        requested = map(provider_name, config.providers or ())
        if missing := [name for name in requested if name not in active]:
            raise ProviderError(
                f"{', '.join(missing)} failed to start; onnxruntime runs on {', '.join(active)}. "
                "Its driver or libraries are missing or too old (onnxruntime's log names them); pass "
                "providers=['CPUExecutionProvider'] to run on the CPU."
            )
        if config.providers is None and active[0] != provider_name(providers[0]):
            warn_of_fallback(provider_name(providers[0]), active[0])
        else:
            logger.info("%s runs on %s", Path(name).name, active[0])
        # Otherwise the arena keeps the largest run's memory for ever: half as much again on a ColPali of a quarter of
        # the real width, where the time that shrinking takes was too short to measure.
        self._shrinks = config.enable_cpu_mem_arena and active[0] == "CPUExecutionProvider"
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feed: Feed, runs: Runs | None = None) -> dict[str, Any]:
        """Run the graph; `runs` may end it early.

        Raises:
            ModelLoadError: the feed lacks an input.
            EncodingError: the run fails or is ended.
        """
        if missing := self._inputs.keys() - feed.keys():
            raise ModelLoadError(
                f"the graph has inputs that its family does not provide: {', '.join(sorted(missing))}; "
                "is the description's family right?"
            )
        arrays = {
            name: np.ascontiguousarray(feed[name], dtype=_DTYPES.get(value.type))
            for name, value in self._inputs.items()
        }
        try:
            with (runs or Runs()).one() as options:
                if self._shrinks:
                    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
                return dict(zip(self._outputs, self._session.run(None, arrays, options), strict=True))
        except Exception as error:  # onnxruntime's exceptions have no other common base class
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise EncodingError(f"onnxruntime failed on {shapes}: {error}") from error

    def guess_shape(self, name: str, batch: int) -> tuple[int, ...]:
        """Guess a shape for an input that a query does not use: the batch first, 1 for an axis of unknown length."""
        declared = self._inputs[name].shape
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in declared]
        if declared and not isinstance(declared[0], int):
            shape[0] = batch
        return tuple(shape)

    def zeros(self, name: str, shape: tuple[int, ...]) -> Any:
        """Make zeros of an input's type."""
        return np.zeros(shape, dtype=_DTYPES.get(self._inputs[name].type, np.float32))
