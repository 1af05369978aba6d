"""Where pages and their multi-vectors are kept and searched. Stores know the core and no framework."""

from colpali_integrations.stores.indexing import Failure, IndexListener, IndexReport, find_documents, index_documents
from colpali_integrations.stores.page_store import PageStore
from colpali_integrations.stores.records import Fingerprint, Hit, Page

__all__ = [
    "Failure",
    "Fingerprint",
    "Hit",
    "IndexListener",
    "IndexReport",
    "Page",
    "PageStore",
    "find_documents",
    "index_documents",
]
