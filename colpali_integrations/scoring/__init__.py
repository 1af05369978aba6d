"""Late interaction: MaxSim, packed and quantized pages, pooling, MUVERA, BM25."""

from colpali_integrations._public import publish
from colpali_integrations.scoring.centroids import CentroidPages, cluster_pages
from colpali_integrations.scoring.int8 import Int8Pages, quantize_int8
from colpali_integrations.scoring.maxsim import max_sim, relevance, top_pages
from colpali_integrations.scoring.muvera import Muvera
from colpali_integrations.scoring.packed import PackedPages
from colpali_integrations.scoring.pooling import grid_pool, hierarchical_pool, mean_pool, ward_pool

__all__ = [
    "CentroidPages",
    "Int8Pages",
    "Muvera",
    "PackedPages",
    "cluster_pages",
    "grid_pool",
    "hierarchical_pool",
    "max_sim",
    "mean_pool",
    "quantize_int8",
    "relevance",
    "top_pages",
    "ward_pool",
]

publish(globals())
