"""ColPali for LlamaIndex: page reader, embedding class, retriever, and image blocks for a multimodal chat.

>>> from colpali_integrations.llama_index import ColPaliEmbedding, PdfPageReader
>>> from llama_index.core.indices.multi_modal import MultiModalVectorStoreIndex
>>> embedding = ColPaliEmbedding()
>>> index = MultiModalVectorStoreIndex(
...     PdfPageReader().load_data("report.pdf"), embed_model=embedding, image_embed_model=embedding
... )  # doctest: +SKIP
>>> index.as_retriever().text_to_image_retrieve("revenue by region")  # doctest: +SKIP

One pooled vector a page fits any LlamaIndex store; `ColPaliRetriever` compares all vectors, and finds better.
"""

from colpali_integrations.core.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "llama_index":
        raise  # llama-index-core is there, something that it needs is not: its own message names it
    raise MissingExtraError("llama-index-core", "llama-index", "colpali_integrations.llama_index") from error

from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.llama_index.messages import PageImagePostprocessor, image_blocks, page_message
from colpali_integrations.llama_index.pages import page_node
from colpali_integrations.llama_index.readers import PdfPageReader
from colpali_integrations.llama_index.retrievers import ColPaliRetriever

__all__ = [
    "ColPaliEmbedding",
    "ColPaliRetriever",
    "PageImagePostprocessor",
    "PdfPageReader",
    "image_blocks",
    "page_message",
    "page_node",
]
