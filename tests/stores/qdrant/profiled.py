"""Stand-ins of other kinds, on which all tests of servers run: `QDRANT_PROFILE=cloud make test`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version

from tests.stores.qdrant.grpc_stand_in import grpc_stand_in
from tests.stores.qdrant.profiles import PROFILES
from tests.stores.qdrant.stand_in import stand_in

__all__ = ["profiled"]


@contextmanager
def profiled(kind: str) -> Iterator[dict[str, str]]:
    """The environment's variables (see `real`) for a stand-in of the kind.

    Args:
        kind: "older" is two minor versions older than the client, "older-grpc" the same over gRPC; others are strict
            modes of `profiles`.
    """
    with ExitStack() as running:
        if not kind.startswith("older"):
            yield {"QDRANT_URL": running.enter_context(stand_in(profile=PROFILES[kind])).url}
            return
        major, minor, _ = version("qdrant-client").split(".", 2)
        server = running.enter_context(stand_in(f"{major}.{int(minor) - 2}.3"))
        found = {"QDRANT_URL": server.url}
        if kind == "older-grpc":
            found["QDRANT_GRPC"] = str(running.enter_context(grpc_stand_in(server)).port)
        yield found
