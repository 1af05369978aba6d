"""LangChain: pages (and texts) in a vector store, found by late interaction, reranked, and shown to a chat model.

    PdfPageLoader -> ColPaliVectorStore -> ColPaliRetriever -> image_blocks -> a multimodal chat model
                                      any retriever -> ColPaliReranker -^

| name | is a |
|---|---|
| `PdfPageLoader`, `PageImageBlobParser` | `BaseLoader`, `BaseBlobParser`: one Document a page |
| `ColPaliVectorStore` | `VectorStore`, in memory, in a folder, or on a Qdrant server |
| `ColPaliRetriever` | `BaseRetriever`, with scores and places |
| `ColPaliReranker` | `BaseDocumentCompressor` |
| `ColPaliEmbeddings` | `Embeddings`, with all vectors too |
| `image_blocks` | content blocks of a `HumanMessage` |
| `to_html` | found pages with their places, for people |

A question answered from the pictures of pages, by any chat model that sees:

>>> from langchain_core.messages import HumanMessage
>>> from langchain_core.runnables import RunnableLambda
>>> from colpali_integrations.langchain import ColPaliVectorStore, image_blocks
>>> store = ColPaliVectorStore(path="my-index")                                             # doctest: +SKIP
>>> ids = store.add_pdf("report.pdf")                                                       # doctest: +SKIP
>>> retriever = store.as_colpali_retriever(k=3)                                             # doctest: +SKIP
>>> def show(question):
...     pages = retriever.invoke(question)
...     blocks = image_blocks(pages, captions=True)
...     return [HumanMessage(content_blocks=[{"type": "text", "text": question}, *blocks])]
>>> answer = RunnableLambda(show) | chat_model                                              # doctest: +SKIP
>>> print(answer.invoke("What was the revenue in the north?").text)                         # doctest: +SKIP
On page 7 it says 4.2 million.
"""

from colpali_integrations.core.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("langchain-core", "langchain", "colpali_integrations.langchain") from error

from colpali_integrations.langchain.document_loaders import PageImageBlobParser, PdfPageLoader
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.messages import image_blocks
from colpali_integrations.langchain.reports import to_html
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
    "to_html",
]
