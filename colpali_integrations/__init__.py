"""Visual document retrieval for LangChain and LlamaIndex: ColPali multi-vectors on ONNX Runtime, without PyTorch.

>>> from colpali_integrations import ColPali, max_sim
>>> model = ColPali.from_pretrained()                            # ColTiny, bundled; or "Qdrant/colpali-v1.3-fp16"
>>> pages = list(model.embed_pdf("report.pdf"))
>>> query = model.embed_query("diverging palettes")
>>> print("page", max_sim(query, pages).argmax() + 1)
page 1

These names are loaded at first use. All others are in `colpali_integrations.errors`, `.pages`, `.models`,
`.scoring`, `.explain`, `.stores`, `.langchain`, `.llama_index` and `.ray`.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from colpali_integrations._version import __version__ as __version__

# From version 1.29 on, onnxruntime reports every process that imports it to its maker, unless this is set before the
# import (https://github.com/microsoft/onnxruntime/pull/27379). The threads that report do not survive a fork: a forked
# process would wait for them at its end, for ever.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from colpali_integrations.errors import ColPaliError
    from colpali_integrations.explain import regions
    from colpali_integrations.models import ColPali
    from colpali_integrations.pages import pdf_pages
    from colpali_integrations.scoring import max_sim
    from colpali_integrations.stores import MultiVectorStore, index_documents

__all__ = ["ColPali", "ColPaliError", "MultiVectorStore", "index_documents", "max_sim", "pdf_pages", "regions"]

_ROOMS = {
    "ColPali": "models",
    "ColPaliError": "errors",
    "MultiVectorStore": "stores",
    "index_documents": "stores",
    "max_sim": "scoring",
    "pdf_pages": "pages",
    "regions": "explain",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
