"""LangChain: embeddings, retriever, page loader and message blocks.

>>> from colpali_integrations.langchain import ColPaliEmbeddings, PdfPageLoader
>>> embeddings = ColPaliEmbeddings()
>>> pages = PdfPageLoader("report.pdf").load()                          # doctest: +SKIP
>>> vectors = embeddings.embed_images_multi_vector(pages)               # doctest: +SKIP
>>> query = embeddings.embed_query_multi_vector("revenue by region")
"""

from colpali_integrations.core.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("langchain-core", "langchain", "colpali_integrations.langchain") from error

from colpali_integrations.langchain.document_loaders import PageImageBlobParser, PdfPageLoader
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.messages import image_blocks
from colpali_integrations.langchain.rerankers import ColPaliReranker
from colpali_integrations.langchain.retrievers import ColPaliRetriever
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore

__all__ = [
    "ColPaliEmbeddings",
    "ColPaliReranker",
    "ColPaliRetriever",
    "ColPaliVectorStore",
    "PageImageBlobParser",
    "PdfPageLoader",
    "image_blocks",
]
