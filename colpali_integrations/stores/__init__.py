"""Where pages and their multi-vectors are kept and searched. Stores know the core and no framework."""

from colpali_integrations.stores.documents import find_documents
from colpali_integrations.stores.entries import Entry, Hit, page_key
from colpali_integrations.stores.filters import Filter, parse_filter
from colpali_integrations.stores.hits import Hits
from colpali_integrations.stores.indexing import Failure, IndexListener, IndexReport, index_documents
from colpali_integrations.stores.opening import stored_settings
from colpali_integrations.stores.settings import Fingerprint, Settings
from colpali_integrations.stores.store import MultiVectorStore

__all__ = [
    "Entry",
    "Failure",
    "Filter",
    "Fingerprint",
    "Hit",
    "Hits",
    "IndexListener",
    "IndexReport",
    "MultiVectorStore",
    "Settings",
    "find_documents",
    "index_documents",
    "page_key",
    "parse_filter",
    "stored_settings",
]
