"""Visual document retrieval for LangChain and LlamaIndex: ColPali multi-vectors on ONNX Runtime, without PyTorch.

>>> from colpali_integrations import ColPali, max_sim, pdf_pages
>>> model = ColPali.from_pretrained()                            # ColTiny, bundled; or "Qdrant/colpali-v1.3-fp16"
>>> pages = list(model.embed_images(pdf_pages("report.pdf")))
>>> [query] = model.embed_queries(["diverging palettes"])
>>> print("page", max_sim(query, pages).argmax() + 1)
page 1
"""

from colpali_integrations.core.errors import ColPaliError
from colpali_integrations.core.images import load_image
from colpali_integrations.core.model import ColPali
from colpali_integrations.core.muvera import Muvera
from colpali_integrations.core.pdf import PdfPage, pdf_page_count, pdf_pages
from colpali_integrations.core.places import PageEmbedding, PageGrid, Region, regions
from colpali_integrations.core.pooling import grid_pool, hierarchical_pool, mean_pool, ward_pool
from colpali_integrations.core.registry import ModelDescription, find_model, list_supported_models, register_model
from colpali_integrations.core.scoring import max_sim

__all__ = [
    "ColPali",
    "ColPaliError",
    "ModelDescription",
    "Muvera",
    "PageEmbedding",
    "PageGrid",
    "PdfPage",
    "Region",
    "find_model",
    "grid_pool",
    "hierarchical_pool",
    "list_supported_models",
    "load_image",
    "max_sim",
    "mean_pool",
    "pdf_page_count",
    "pdf_pages",
    "regions",
    "register_model",
    "ward_pool",
]

__version__ = "0.1.0"
