"""The real server of the tests, if there is one: `QDRANT_URL=http://localhost:6333 make test`.

`QDRANT_GRPC=1` takes gRPC and its port 6334; another number is the port. What the client cannot ask over gRPC stays
on REST. The client does not compare its version with the server's, which it would warn of.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["client_options", "server_url"]


def server_url() -> str | None:
    """Its URL; None without a server."""
    return os.environ.get("QDRANT_URL")


def client_options() -> dict[str, Any]:
    """The options for `QdrantClient`, beside the URL."""
    options: dict[str, Any] = {"check_compatibility": False, "timeout": 60}
    if port := int(os.environ.get("QDRANT_GRPC") or 0):
        options |= {"prefer_grpc": True, "grpc_port": 6334 if port == 1 else port}
    return options
