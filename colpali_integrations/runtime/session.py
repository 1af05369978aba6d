"""ONNX Runtime sessions: checked providers, and one copy of the weights, loaded once and shared by all threads.

`ModelSessions` has the sessions of one model on one device. A merged export is split in two: pages run the pages half
and then the text half, queries the text half alone. A model with one graph for pages and one for queries has two
sessions; a merged graph without a cut has one for both. Of graphs that are built, a pair runs as the halves of a
merged export do, and a single one has one session for both.

A lone run has all cores. Its threads wait for each other at every operator, and lose more when other programs take a
core from one of them. So several runs at once on a CPU share the cores: they call one session with fewer threads per
run, most often one (`benchmarks.under_load` measures it). The two kinds of sessions have copies of the weights of their
own, and a kind that was loaded but never run is released when the other one is needed.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import onnxruntime as ort

from colpali_integrations._failures import failing_as
from colpali_integrations._forks import keep_for_ever, renew_after_forks
from colpali_integrations._logs import package_logger
from colpali_integrations.errors import EncodingError, ModelLoadError, ProviderError
from colpali_integrations.runtime.arrays import BuiltPair, Feed, GraphFiles, Graphs, Outputs
from colpali_integrations.runtime.batching import Coalescer
from colpali_integrations.runtime.machine import available_cores, release_freed_memory
from colpali_integrations.runtime.shares import Shares

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from colpali_integrations.runtime.graph import Graph

__all__ = [
    *("ModelSessions", "Provider", "Runs", "SessionConfig", "check_onnxruntime", "preferred_provider"),
    "resolve_providers",
]

logger = package_logger(__name__)

Provider: TypeAlias = str | tuple[str, dict[str, Any]]
T = TypeVar("T")
# Providers already reported as unavailable; each is warned about once per process.
_fallen_back: set[str] = set()
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


def resolve_providers(providers: Sequence[Provider] | None) -> tuple[Provider, ...]:
    """Check the requested providers, or choose some for None.

    Raises:
        ProviderError: this build of onnxruntime does not have a provider.
        ConfigurationError: `providers` is not a non-empty list.
    """
    available = ort.get_available_providers()
    if providers is None:
        chosen = _automatic_providers()
        logger.debug("execution providers chosen: %s", ", ".join(chosen))
        return chosen
    for name in map(_provider_name, providers):
        if name not in available:
            raise ProviderError(
                f"{name} is not in this build of onnxruntime (it has: {', '.join(available)}). For NVIDIA GPUs: "
                "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
            )
    return tuple(providers)


def preferred_provider(providers: Sequence[Provider] | None) -> str:
    """The name of the first provider that is requested; for None, of the first that would be chosen."""
    return _provider_name((providers or _automatic_providers())[0])


def check_onnxruntime(lowest: str, model: str, *, installed: str = ort.__version__) -> None:
    """Refuse a version of onnxruntime without the operators of a model.

    Args:
        lowest: the first version that has them, as "1.26"; "" for any that this package permits.
        model: the model's name, for the message.
        installed: the version that is installed.

    Raises:
        ModelLoadError: it is older.

    Example:
        >>> check_onnxruntime("1.26", "my-model", installed="1.23.2")
        Traceback (most recent call last):
        colpali_integrations.errors.ModelLoadError: my-model needs onnxruntime 1.26 or later, and 1.23.2 is installed...
    """
    if lowest and _numbers(installed) < _numbers(lowest):
        raise ModelLoadError(
            f"{model} needs onnxruntime {lowest} or later, and {installed} is installed. Run pip install -U "
            f"'onnxruntime>={lowest}', which needs Python 3.11 or later (this is {platform.python_version()})"
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]


class ModelSessions:
    """The sessions of one model on one device, made at first use. Any number of threads may use them.

    Args:
        graphs: the ONNX files, or the graph or graphs to build.
        config: the options of the sessions.
        cores: cores that the runs of pages share; None for those that this process may use. Runs on a GPU share none:
            the driver schedules them.

    Attributes:
        coalescer: merges concurrent calls into one batch.
        on_cpu: whether the preferred provider is the CPU's.
    """

    def __init__(self, graphs: Graphs, config: SessionConfig, *, cores: int | None = None) -> None:
        self._graphs = graphs
        self._config = config
        self._cut = _Once(self._find_cut)
        self._alone = self._page_sessions(config)
        self._shared: tuple[int, _PageSessions] | None = None  # with the threads per run
        apart = isinstance(graphs, GraphFiles) and not graphs.merged
        self._queries = _Once(lambda: self._load("queries", config)) if apart else self._alone.whole
        self._learned: dict[int, dict[str, tuple[int, ...]]] = {}
        self.coalescer: Coalescer[Any, Any] = Coalescer()
        self.on_cpu = preferred_provider(config.providers) == "CPUExecutionProvider"
        self._cores = Shares(cores or available_cores())

    def load(self) -> None:
        """Make the sessions of lone pages and of queries now instead of at first use."""
        alone = self._alone
        for once in (alone.text, alone.tower) if self._has_tower else (self._queries, alone.whole):
            once.load()

    def pages(self, feed: Feed, runs: Runs | None = None, *, at_once: int = 1) -> Outputs:
        """Run a batch of pages as soon as there are cores for it.

        A second run on busy cores is not faster and takes as much memory again: on a ColPali of a quarter of the real
        width 125 MiB, beside the 140 MiB of the first.

        Args:
            feed: the inputs.
            runs: to end the run early.
            at_once: runs that the caller has at the same time, which share the cores.
        """
        threads = self._threads(at_once)
        with self._cores.hold(threads):
            sessions = self._sessions_of(threads)
            if not self._has_tower:
                return sessions.whole.get().run(feed, runs)
            features = sessions.tower.get().run(feed, runs)
            return sessions.text.get().run({**feed, **features}, runs)

    def queries(self, feed: Feed, runs: Runs | None = None) -> Outputs:
        """Run a batch of queries; `feed` has blank pixels too, which a split graph does not read."""
        if isinstance(self._graphs, BuiltPair):
            return self._alone.text.get().run(feed, runs)
        cut = self._cut.get()
        if not cut:
            return self._queries.get().run(feed, runs)
        return self._run_text_half(feed, [value.name for value in cut], runs)

    @property
    def splits(self) -> bool:
        """Whether queries skip the vision tower."""
        return not self._merged or bool(self._cut.get())

    @property
    def _has_tower(self) -> bool:
        """Whether a page runs through two graphs."""
        return isinstance(self._graphs, BuiltPair) or bool(self._cut.get())

    @property
    def _merged(self) -> bool:
        """Whether one exported graph encodes pages and queries, with a vision tower that queries do not need."""
        return isinstance(self._graphs, GraphFiles) and self._graphs.merged

    def _path(self, side: Literal["pages", "queries"]) -> Path:
        assert isinstance(self._graphs, GraphFiles)
        return self._graphs.pages if side == "pages" else self._graphs.queries

    def close(self) -> None:
        """Release the sessions' memory. The next use makes them again."""
        for once in (*self._alone, self._queries):
            once.clear()
        self._shared = None

    def _threads(self, at_once: int) -> int:
        """The threads of each of several runs at once; 0 on a GPU."""
        if not self.on_cpu:
            return 0
        return self._config.threads or max(1, self._cores.total // at_once)

    def _sessions_of(self, threads: int) -> _PageSessions:
        """The sessions with so many threads per run."""
        if threads in (0, self._config.threads or self._cores.total):
            return self._alone
        for once in self._alone:
            once.release_unused()
        if self._shared is None or self._shared[0] != threads:
            # Another number replaces them: each has a copy of the weights. Runs under way keep theirs until they end.
            self._shared = threads, self._page_sessions(replace(self._config, threads=threads))
        return self._shared[1]

    def _page_sessions(self, config: SessionConfig) -> _PageSessions:
        return _PageSessions(
            tower=_Once(lambda: self._load("pages", config, half="pages")),
            text=_Once(lambda: self._load("pages", config, half="text")),
            whole=_Once(lambda: self._load("pages", config)),
        )

    def _run_text_half(self, feed: Feed, cut: Sequence[str], runs: Runs | None) -> Outputs:
        """Run queries with zeros for the image features, which a query does not use."""
        text, batch = self._alone.text.get(), len(next(iter(feed.values())))
        shapes = self._learned.get(batch) or {name: text.guess_shape(name, batch) for name in cut}
        try:
            return text.run({**feed, **{name: text.zeros(name, shape) for name, shape in shapes.items()}}, runs)
        except EncodingError as error:
            if batch in self._learned or (runs is not None and runs.ended):
                raise
            reason = error
        logger.warning(
            "%s does not declare the shape of its image features, and a guess failed (%s); the vision tower runs once "
            "for batches of %d queries to learn it",
            self._path("pages").name,
            reason,
            batch,
        )
        features = self._alone.tower.get().run(feed, runs)
        self._learned[batch] = {name: features[name].shape for name in cut}
        return text.run({**feed, **features}, runs)

    def _find_cut(self) -> tuple[ValueInfoProto, ...]:
        if not (self._config.split and self._merged):
            return ()
        from colpali_integrations.runtime.graph import find_cut, read_graph  # onnx is slow to import

        with failing_as(ModelLoadError, self._path("pages")):
            cut = find_cut(read_graph(self._path("pages")))
        if isinstance(cut, str):
            logger.warning(
                "%s: queries run the vision tower too, because %s. Their vectors are right, but take long; another "
                "export of the model may be split",
                self._path("pages").name,
                cut,
            )
            return ()
        return cut

    def _load(
        self, side: Literal["pages", "queries"], config: SessionConfig, *, half: Literal["pages", "text"] | None = None
    ) -> _Session:
        if not isinstance(graphs := self._graphs, GraphFiles):
            built = (graphs.text if half == "text" else graphs.tower) if isinstance(graphs, BuiltPair) else graphs
            with failing_as(ModelLoadError, built.name):
                session = _Session(built.read(config.cache_dir), built.name, config)
            release_freed_memory()  # of weights that were converted to float32: half the size of a bfloat16 file
            return session
        from colpali_integrations.runtime.fusion import fuse_gelu
        from colpali_integrations.runtime.graph import read_graph, subgraph

        path = self._path(side)
        with failing_as(ModelLoadError, path):
            graph = read_graph(path)
            if self.on_cpu:
                fuse_gelu(graph.model)
            if half is not None:
                graph = subgraph(graph, self._cut.get(), half=half)
            return _Session(graph, str(path), config)


class _Session:
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
        providers = _with_device(resolve_providers(config.providers), config.device_id)
        # A graph that cannot be loaded is else tried once more on the CPU, with a note on the standard output.
        fallback = int([_provider_name(one) for one in providers] != ["CPUExecutionProvider"])
        content = graph.model.SerializeToString()
        try:
            self._session = ort.InferenceSession(content, options, providers=list(providers), enable_fallback=fallback)
        except Exception as error:  # onnxruntime's exceptions have no other common base class
            raise ModelLoadError(
                f"onnxruntime {ort.__version__} cannot load {name}: {error}. If the file was cut off, delete it and "
                "download it again."
            ) from error
        active = self._session.get_providers()
        requested = map(_provider_name, config.providers or ())
        if missing := [name for name in requested if name not in active]:
            raise ProviderError(
                f"{', '.join(missing)} failed to start; onnxruntime runs on {', '.join(active)}. "
                "Its driver or libraries are missing or too old (onnxruntime's log names them); pass "
                "providers=['CPUExecutionProvider'] to run on the CPU."
            )
        if config.providers is None and active[0] != _provider_name(providers[0]):
            _warn_of_fallback(_provider_name(providers[0]), active[0])
        else:
            logger.info("%s runs on %s", Path(name).name, active[0])
        # Otherwise the arena keeps the largest run's memory for ever: half as much again on a ColPali of a quarter of
        # the real width, where the time that shrinking takes was too short to measure.
        self._shrinks = config.enable_cpu_mem_arena and active[0] == "CPUExecutionProvider"
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feed: Feed, runs: Runs | None = None) -> dict[str, Any]:
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


class Runs:
    """The runs under way for one caller, which another thread can end.

    Without this, leaving a loop over pages early (or Ctrl-C) would wait for a run that can take half a minute.

    Attributes:
        ended: whether `end` was called.
    """

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._active: set[ort.RunOptions] = set()

    @contextmanager
    def one(self) -> Iterator[ort.RunOptions]:
        """Make the options of a run, which is under way as long as the context lasts."""
        options = ort.RunOptions()
        with self._lock:
            options.terminate = self.ended
            self._active.add(options)
        try:
            yield options
        finally:
            with self._lock:
                self._active.discard(options)

    def end(self) -> None:
        """End the runs under way at their next operator, and later runs at once; they raise EncodingError."""
        with self._lock:
            self.ended = True
            for options in self._active:
                options.terminate = True


class _Once(Generic[T]):
    """A value that is made once, at first use, even by concurrent threads."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: list[T] = []
        self._renew()
        renew_after_forks(self)

    def _renew(self) -> None:
        for value in self._values:
            keep_for_ever(value)
        self._lock = threading.Lock()
        self._values = []
        self._used = False

    def get(self) -> T:
        """The value, to use it."""
        self._used = True
        return self.load()

    def load(self) -> T:
        """Make the value."""
        for value in self._values:  # without the lock where it was made before
            return value
        with self._lock:
            if not self._values:
                self._values = [self._make()]
            return self._values[0]

    def clear(self) -> None:
        with self._lock:
            self._values = []
            self._used = False

    def release_unused(self) -> None:
        """Release a value that was made and never used."""
        if self._values and not self._used:
            self.clear()


class _PageSessions(NamedTuple):
    """The sessions that encode pages with one number of threads per run.

    Attributes:
        tower: the pages half of a graph in two.
        text: its text half.
        whole: a graph in one.
    """

    tower: _Once[_Session]
    text: _Once[_Session]
    whole: _Once[_Session]


def _warn_of_fallback(requested: str, active: str) -> None:
    level = logging.DEBUG if requested in _fallen_back else logging.WARNING
    _fallen_back.add(requested)
    logger.log(
        level,
        "%s failed to start; models run on %s. `colpali-integrations doctor` shows why, and providers=[%r] chooses it "
        "without this warning (logged once)",
        requested,
        active,
        active,
    )


def _automatic_providers() -> tuple[str, ...]:
    available = ort.get_available_providers()
    return tuple(name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available)


def _provider_name(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def _with_device(providers: tuple[Provider, ...], device_id: int | None) -> tuple[Provider, ...]:
    if device_id is None:
        return providers
    name = _provider_name(providers[0])
    options = {} if isinstance(providers[0], str) else providers[0][1]
    return ((name, {**options, "device_id": str(device_id)}), *providers[1:])
