"""The regions of a page that answer a question: grids, boxes, similarity maps, pictures and reports."""

from colpali_integrations._public import publish
from colpali_integrations.explain.agreement import BoxAgreement, annotated_boxes, best_agreement, box_agreement
from colpali_integrations.explain.drawing import draw_heatmap, draw_regions
from colpali_integrations.explain.grid import PageEmbedding, PageGrid
from colpali_integrations.explain.plotting import plot_similarity_map
from colpali_integrations.explain.regions import Region, regions
from colpali_integrations.explain.similarity import SimilarityMaps, similarity_maps

__all__ = [
    "BoxAgreement",
    "PageEmbedding",
    "PageGrid",
    "Region",
    "SimilarityMaps",
    "annotated_boxes",
    "best_agreement",
    "box_agreement",
    "draw_heatmap",
    "draw_regions",
    "plot_similarity_map",
    "regions",
    "similarity_maps",
]

publish(globals())
