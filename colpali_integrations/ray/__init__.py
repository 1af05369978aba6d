"""Past one machine: pages embedded by Ray Data, into Parquet files or a Qdrant server.

    files --draw--> pages --PageEncoder (actors, one model each)--> multi-vectors --write--> Parquet | Qdrant

``pip install "colpali-integrations[ray]"``, with `qdrant` to write into a server. `embed_pages` is the whole of it; `draw_pages` and `PageEncoder` are its
parts, for a pipeline of your own.
"""

from __future__ import annotations

from colpali_integrations.core.errors import MissingExtraError

try:
    import pyarrow  # noqa: F401
    import ray.data  # noqa: F401
except ImportError as error:
    raise MissingExtraError(str(error.name), "ray", "Embedding with Ray") from None

from colpali_integrations.ray.drawing import draw_pages
from colpali_integrations.ray.embedding import QdrantServer, embed_pages
from colpali_integrations.ray.encoder import PageEncoder

__all__ = ["PageEncoder", "QdrantServer", "draw_pages", "embed_pages"]
