"""LangChain: a vector store of pages and texts with late interaction, a retriever, a reranker and message blocks.

| name | is a |
|---|---|
| `PdfPageLoader`, `PageImageBlobParser` | `BaseLoader`, `BaseBlobParser`: one Document per page |
| `ColPaliVectorStore` | `VectorStore`, in memory, in a folder, or on a Qdrant server |
| `ColPaliRetriever` | `VectorStoreRetriever`, with scores and regions |
| `ColPaliReranker` | `BaseDocumentCompressor` |
| `ColPaliEmbeddings` | `Embeddings`, also as multi-vectors |
| `PageSearchTool` | `BaseTool`: an agent's search for pages, with their pictures |
| `image_blocks` | content blocks of a `HumanMessage` |
| `page_evaluator`, `page_examples` | an evaluator and a data set for LangSmith |
| `draft_questions` | questions about pages, by a chat model |
| `to_html` | an HTML report of the results with their regions |

A chat model that accepts images answers a question from the pictures of pages:

>>> from langchain_core.messages import HumanMessage
>>> from langchain_core.runnables import RunnableLambda
>>> from colpali_integrations.langchain import ColPaliVectorStore, image_blocks
>>> from langchain_core.language_models import FakeListChatModel
>>> store = ColPaliVectorStore(path="my-index")
>>> ids = store.add_pdf("report.pdf")
>>> retriever = store.as_retriever(search_kwargs={"k": 1})
>>> def show(question):
...     pages = retriever.invoke(question)
...     blocks = image_blocks(pages, captions=True)
...     return [HumanMessage(content_blocks=[{"type": "text", "text": question}, *blocks])]
>>> chat_model = FakeListChatModel(responses=["divergingx, says page 1."])  # or your own, such as ChatAnthropic
>>> answer = RunnableLambda(show) | chat_model
>>> print(answer.invoke("Which function makes diverging palettes?").text)
divergingx, says page 1.
>>> store.close()
"""

from colpali_integrations.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("langchain-core", "langchain", "colpali_integrations.langchain") from error

from colpali_integrations.langchain.document_compressors import ColPaliReranker
from colpali_integrations.langchain.document_loaders import PageImageBlobParser, PdfPageLoader
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.evaluation import draft_questions, page_evaluator, page_examples
from colpali_integrations.langchain.retrievers import ColPaliRetriever
from colpali_integrations.langchain.tools import PageSearchTool
from colpali_integrations.langchain.utils import image_blocks, to_html
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore

__all__ = [
    "ColPaliEmbeddings",
    "ColPaliReranker",
    "ColPaliRetriever",
    "ColPaliVectorStore",
    "PageImageBlobParser",
    "PageSearchTool",
    "PdfPageLoader",
    "draft_questions",
    "image_blocks",
    "page_evaluator",
    "page_examples",
    "to_html",
]
