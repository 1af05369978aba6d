"""The real server of the tests, if there is one: `QDRANT_URL=http://localhost:6333 make test`.

`QDRANT_GRPC=1` takes gRPC and its port 6334; another number is the port. What the client cannot ask over gRPC stays
on REST. The client does not compare its version with the server's, which it would warn of.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.request import urlopen

__all__ = ["client_options", "server_url", "server_version"]


def server_url() -> str | None:
    """Its URL; None without a server."""
    return os.environ.get("QDRANT_URL")


def server_version() -> tuple[int, ...]:
    """Its version, such as (1, 18, 3)."""
    with urlopen(str(server_url())) as answer:
        return tuple(map(int, json.load(answer)["version"].split("-")[0].split(".")))


def client_options() -> dict[str, Any]:
    """The options for `QdrantClient`, beside the URL."""
    options: dict[str, Any] = {"check_compatibility": False, "timeout": 60}
    if port := int(os.environ.get("QDRANT_GRPC") or 0):
        options |= {"prefer_grpc": True, "grpc_port": 6334 if port == 1 else port}
    return options
