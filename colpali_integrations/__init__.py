"""Visual document retrieval for LangChain and LlamaIndex: ColPali multi-vectors on ONNX Runtime, without PyTorch.

>>> from colpali_integrations import ColPali, max_sim, pdf_pages
>>> model = ColPali.from_pretrained()                            # ColTiny, bundled; or "Qdrant/colpali-v1.3-fp16"
>>> pages = list(model.embed_images(pdf_pages("report.pdf")))
>>> [query] = model.embed_queries(["diverging palettes"])
>>> print("page", max_sim(query, pages).argmax() + 1)
page 1
"""

from colpali_integrations.errors import ColPaliError
from colpali_integrations.explain.drawing import draw_heatmap, draw_regions
from colpali_integrations.explain.plotting import plot_similarity_map
from colpali_integrations.explain.regions import PageEmbedding, PageGrid, Region, regions
from colpali_integrations.explain.similarity import SimilarityMaps, similarity_maps
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.registry import ModelDescription, find_model, list_supported_models, register_model
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.pdf import PdfPage, pdf_page_count, pdf_pages
from colpali_integrations.scoring.int8 import Int8Pages, quantize_int8
from colpali_integrations.scoring.maxsim import max_sim, top_pages
from colpali_integrations.scoring.muvera import Muvera
from colpali_integrations.scoring.packed import PackedPages
from colpali_integrations.scoring.pooling import grid_pool, hierarchical_pool, mean_pool, ward_pool

__all__ = [
    "ColPali",
    "ColPaliError",
    "Int8Pages",
    "ModelDescription",
    "Muvera",
    "PackedPages",
    "PageEmbedding",
    "PageGrid",
    "PdfPage",
    "Region",
    "SimilarityMaps",
    "draw_heatmap",
    "draw_regions",
    "find_model",
    "grid_pool",
    "hierarchical_pool",
    "list_supported_models",
    "load_image",
    "max_sim",
    "mean_pool",
    "pdf_page_count",
    "pdf_pages",
    "plot_similarity_map",
    "quantize_int8",
    "regions",
    "register_model",
    "similarity_maps",
    "top_pages",
    "ward_pool",
]

__version__ = "0.1.0"
