"""The number of encoders that fit into a cluster, beside the tasks that read and draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ray

from colpali_integrations.errors import ConfigurationError

__all__ = ["Workers", "cluster_nodes", "plan_workers"]

# More threads make the run of a page little faster; more encoders raise the throughput.
_THREADS = 4
_SHARE = 10_000  # Ray counts resources in ten thousandths


@dataclass(frozen=True)
class Workers:
    """Encoders, as requested from Ray.

    Attributes:
        least: number at the start.
        most: highest number; more than `least` where the cluster grows.
        cpus: Ray's `num_cpus` for each.
        threads: of a run of the model.
        gpus: Ray's `num_gpus` for each.
    """

    least: int
    most: int
    cpus: float
    threads: int
    gpus: float = 0


def cluster_nodes() -> list[tuple[int, float]]:
    """Return CPUs and GPUs of each running node, as Ray counts them."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(int(each.get("CPU", 0)), float(each.get("GPU", 0))) for each in resources]


def plan_workers(
    nodes: Sequence[tuple[int, float]],
    *,
    count: int | tuple[int, int] | None = None,
    threads: int | None = None,
    gpus: float = 0,
) -> Workers:
    """Plan as many encoders as the cores or GPUs suffice for, with less CPU requested for each than it uses.

    Ray starts the encoders first. If they took every CPU of the cluster, no file would ever be read (ray #44687). So
    the share of each leaves a whole CPU on a node that is full of encoders. This wastes no cores: Ray only counts
    shares, and an encoder runs all its threads.

    Args:
        nodes: CPUs and GPUs of each node.
        count: number of encoders; (least, most) for a cluster that grows; None for as many as fit.
        threads: of each; None for 4, or 1 beside a GPU and where nodes have fewer cores.
        gpus: of each; may be a fraction.

    Raises:
        ConfigurationError: an option has an invalid value, or there is no room for the requested number.

    Example:
        >>> plan_workers([(2, 0)])
        Workers(least=2, most=2, cpus=0.5, threads=1, gpus=0)
        >>> plan_workers([(0, 0), (16, 0), (16, 0)])  # a head that takes no work, two nodes
        Workers(least=8, most=8, cpus=3.75, threads=4, gpus=0)
        >>> plan_workers([(96, 8)], gpus=1)
        Workers(least=8, most=8, cpus=1.0, threads=1, gpus=1)
    """
    if gpus < 0 or (threads is not None and threads < 1):
        raise ConfigurationError(f"threads must be at least 1 and gpus at least 0, got {threads} and {gpus}")
    threads = threads or (1 if gpus or max((cores for cores, _ in nodes), default=0) < _THREADS else _THREADS)
    room = [int(cards / gpus) if gpus else cores // threads for cores, cards in nodes]
    fits = sum(room)
    least, most = count if isinstance(count, tuple) else (count, count) if count is not None else (fits, fits)
    if count is not None and not 1 <= least <= most:
        raise ConfigurationError(f"workers must be a number from 1 up, or (least, most), got {count!r}")
    # A cluster that grows may have no nodes yet; Ray requests them for the encoders.
    if not isinstance(count, tuple) and not 1 <= least <= fits:
        encoder = f"an encoder with gpus={gpus:g}" if gpus else f"an encoder of {threads} threads"
        raise ConfigurationError(
            f"{encoder if count is None else f'workers={count}'} is impossible: {_description(nodes)} have room for "
            f"{fits} (threads={threads}, gpus={gpus:g} for each). For a cluster that grows pass workers=(least, most)"
        )
    shares = [(cores - 1) / number for (cores, _), number in zip(nodes, room, strict=True) if number]
    cpus = max(0.0, min([float(threads), *shares]))
    return Workers(least, most, int(cpus * _SHARE) / _SHARE, threads, gpus)


def _description(nodes: Sequence[tuple[int, float]]) -> str:
    sizes = sorted({f"{cores} CPUs" + (f" and {cards:g} GPUs" if cards else "") for cores, cards in nodes})
    return f"{len(nodes)} node(s) of {' or '.join(sizes) or 'nothing'}"
