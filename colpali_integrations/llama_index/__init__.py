"""ColPali for LlamaIndex: page reader, vector store, index, retriever, reranker, embedding class, pictures for a chat.

>>> from colpali_integrations.llama_index import ColPaliRetriever, ColPaliVectorStore, PdfPageReader
>>> store = ColPaliVectorStore(path="llama-index")
>>> ids = store.add(PdfPageReader().load_data("report.pdf"))
>>> retriever = ColPaliRetriever(store, similarity_top_k=1)
>>> retriever.retrieve("diverging palettes")[0].metadata["page"]
1
>>> from llama_index.core.llms import MockLLM
>>> from llama_index.core.query_engine import RetrieverQueryEngine
>>> llm = MockLLM(is_chat_model=True)  # replace it by a model that reads images, such as OpenAI or Anthropic
>>> engine = RetrieverQueryEngine.from_args(retriever, llm=llm, multimodal=True)
>>> [node.metadata["page"] for node in engine.query("diverging palettes").source_nodes]
[1]
>>> store.client.close()

`ColPaliVectorStore` keeps all vectors of a page and compares them all. `ColPaliEmbedding` gives one pooled vector per
page, which fits any other LlamaIndex store and ranks worse.
"""

from colpali_integrations.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "llama_index":
        raise  # llama-index-core is installed, and the error names the missing package that it needs
    raise MissingExtraError("llama-index-core", "llama-index", "colpali_integrations.llama_index") from error

from colpali_integrations.llama_index.agent import PageAgent
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding, DeferredEmbedding
from colpali_integrations.llama_index.indices import ColPaliIndex
from colpali_integrations.llama_index.postprocessor import ColPaliRerank, PageImagePostprocessor
from colpali_integrations.llama_index.readers import PdfPageReader
from colpali_integrations.llama_index.retrievers import ColPaliRetriever
from colpali_integrations.llama_index.schema import page_node
from colpali_integrations.llama_index.tools import PageSearchTool
from colpali_integrations.llama_index.utils import image_blocks, page_message, to_html
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore

__all__ = [
    "ColPaliEmbedding",
    "ColPaliIndex",
    "ColPaliRerank",
    "ColPaliRetriever",
    "ColPaliVectorStore",
    "DeferredEmbedding",
    "PageAgent",
    "PageImagePostprocessor",
    "PageSearchTool",
    "PdfPageReader",
    "image_blocks",
    "page_message",
    "page_node",
    "to_html",
]
