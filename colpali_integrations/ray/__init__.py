"""Embedding on the machines of a Ray cluster, into Parquet files or a Qdrant server.

`embed_pages` runs the whole pipeline: `draw_pages` draws the pages of files, actors with a `PageEncoder` each embed
them, and tasks write the multi-vectors. `draw_pages` and `PageEncoder` also serve pipelines of your own;
`parquet_pages` reads the files back, for a store.
"""

from __future__ import annotations

from colpali_integrations.errors import MissingExtraError

try:
    import pyarrow  # noqa: F401
    import ray.data  # noqa: F401
except ImportError as error:
    raise MissingExtraError(str(error.name).partition(".")[0], "ray", "Embedding with Ray") from None

from colpali_integrations.ray.encoder import PageEncoder
from colpali_integrations.ray.outputs import parquet_pages
from colpali_integrations.ray.pages import draw_pages
from colpali_integrations.ray.pipeline import QdrantServer, embed_pages

__all__ = ["PageEncoder", "QdrantServer", "draw_pages", "embed_pages", "parquet_pages"]
