"""Stores of pages and their multi-vectors, without an import of any framework."""

from colpali_integrations._public import publish
from colpali_integrations.stores.collection_options import CollectionOptions
from colpali_integrations.stores.compress import CompressReport, compress_store, delete_old_store
from colpali_integrations.stores.copying import CopyReport, copy_store
from colpali_integrations.stores.embedded.reports import LostEntry, Problem, RepairReport, VerifyReport
from colpali_integrations.stores.entries import Entry, Hit
from colpali_integrations.stores.filters import Filter, parse_filter
from colpali_integrations.stores.folders import FoundDocuments, find_documents
from colpali_integrations.stores.fusion import Halves
from colpali_integrations.stores.hits import Hits
from colpali_integrations.stores.indexing import index_documents, read_documents
from colpali_integrations.stores.ingest import ingest
from colpali_integrations.stores.ingestion.failures import Failure
from colpali_integrations.stores.ingestion.progress import Progress
from colpali_integrations.stores.ingestion.report import DocumentWarning, IngestReport
from colpali_integrations.stores.items import DocumentSource, Item
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.model_check import ModelCheck
from colpali_integrations.stores.opening import stored_settings
from colpali_integrations.stores.sampling import Compression, CompressionStudy, SampleQuestion, measure_compression
from colpali_integrations.stores.search import SearchOptions
from colpali_integrations.stores.settings import Settings, StoredModel
from colpali_integrations.stores.store import MultiVectorStore
from colpali_integrations.stores.upkeep import StoreInfo, repair_store, verify_store

__all__ = [
    "CollectionOptions",
    "CompressReport",
    "Compression",
    "CompressionStudy",
    "CopyReport",
    "DocumentSource",
    "DocumentWarning",
    "Entry",
    "Failure",
    "Filter",
    "FoundDocuments",
    "Halves",
    "Hit",
    "Hits",
    "IngestReport",
    "Item",
    "Layout",
    "LostEntry",
    "ModelCheck",
    "MultiVectorStore",
    "Problem",
    "Progress",
    "RepairReport",
    "SampleQuestion",
    "SearchOptions",
    "Settings",
    "StoreInfo",
    "StoredModel",
    "VerifyReport",
    "compress_store",
    "copy_store",
    "delete_old_store",
    "find_documents",
    "index_documents",
    "ingest",
    "measure_compression",
    "parse_filter",
    "read_documents",
    "repair_store",
    "stored_settings",
    "verify_store",
]

publish(globals())
