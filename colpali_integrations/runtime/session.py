"""The ONNX Runtime sessions of a model: one copy of the weights, loaded once and shared by all threads.

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

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from colpali_integrations._failures import failing_as
from colpali_integrations._logs import package_logger
from colpali_integrations.errors import EncodingError, ModelLoadError
from colpali_integrations.runtime.arrays import BuiltPair, Feed, GraphFiles, Graphs, Outputs
from colpali_integrations.runtime.batching import Coalescer
from colpali_integrations.runtime.graph_session import GraphSession, SessionConfig
from colpali_integrations.runtime.machine import available_cores, release_freed_memory
from colpali_integrations.runtime.once import Once
from colpali_integrations.runtime.providers import preferred_provider
from colpali_integrations.runtime.runs import Runs
from colpali_integrations.runtime.shares import Shares

if TYPE_CHECKING:
    from onnx import ValueInfoProto

__all__ = ["ModelSessions"]

logger = package_logger(__name__)


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
        self._cut = Once(self._find_cut)
        self._alone = self._page_sessions(config)
        self._shared: tuple[int, _PageSessions] | None = None  # with the threads per run
        apart = isinstance(graphs, GraphFiles) and not graphs.merged
        self._queries = Once(lambda: self._load("queries", config)) if apart else self._alone.whole
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
            tower=Once(lambda: self._load("pages", config, half="pages")),
            text=Once(lambda: self._load("pages", config, half="text")),
            whole=Once(lambda: self._load("pages", config)),
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
    ) -> GraphSession:
        if not isinstance(graphs := self._graphs, GraphFiles):
            built = (graphs.text if half == "text" else graphs.tower) if isinstance(graphs, BuiltPair) else graphs
            with failing_as(ModelLoadError, built.name):
                session = GraphSession(built.read(config.cache_dir), built.name, config)
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
            return GraphSession(graph, str(path), config)


class _PageSessions(NamedTuple):
    """The sessions that encode pages with one number of threads per run.

    Attributes:
        tower: the pages half of a graph in two.
        text: its text half.
        whole: a graph in one.
    """

    tower: Once[GraphSession]
    text: Once[GraphSession]
    whole: Once[GraphSession]
