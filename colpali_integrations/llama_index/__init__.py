"""ColPali for LlamaIndex: an embedding class, a reader of PDF pages, and image blocks for a multimodal chat."""

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

__all__ = [
    "ColPaliEmbedding",
    "PageImagePostprocessor",
    "PdfPageReader",
    "image_blocks",
    "page_message",
    "page_node",
]
