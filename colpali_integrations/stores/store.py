"""`MultiVectorStore`: pages and their multi-vectors, kept by an engine and searched by MaxSim.

add     Entry, vectors --first_stage, Bm25--> Point --> Engine
search  query vectors, text --> Search --> Engine --> Scored --fusion, relevance--> Hit
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from colpali_integrations.errors import ConfigurationError, InputError, ModelNotFoundError, StoreError
from colpali_integrations.explain.regions import regions
from colpali_integrations.explain.similarity import SimilarityMaps, similarity_maps
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.shared import shared_model
from colpali_integrations.pages.identity import READER_KEYS
from colpali_integrations.scoring.bm25 import Bm25
from colpali_integrations.scoring.maxsim import relevance
from colpali_integrations.stores.engine import FIRST, FULL, Engine, Point
from colpali_integrations.stores.entries import Entry, Hit
from colpali_integrations.stores.filters import (
    DOCUMENT,
    ID,
    And,
    Condition,
    Filter,
    FilterLike,
    Operator,
    always,
    parse_filter,
)
from colpali_integrations.stores.first_stage import first_stage
from colpali_integrations.stores.fusion import Hybrid
from colpali_integrations.stores.hits import Hits
from colpali_integrations.stores.opening import ModelLike, fingerprint, open_engine
from colpali_integrations.stores.search import Mode, Searcher, SearchOptions
from colpali_integrations.stores.settings import Fingerprint, FirstStage, Settings

__all__ = ["MultiVectorStore"]

# A batch is stored whole or not at all, and is what a kill -9 can lose.
_BATCH_VECTORS, _BATCH_ENTRIES, _BATCH_SECONDS = 32_768, 64, 2.0


class MultiVectorStore:
    """Pages (and texts) with all their vectors, in a folder, on a Qdrant server or in memory.

    Make one with `open`. Vectors are kept as float16 and compared by dot product. Threads may share it; a folder
    belongs to one process at a time.

    Args:
        engine: keeps and searches the points.
        settings: how the store was made.

    Example:
        >>> from colpali_integrations import ColPali
        >>> from colpali_integrations.stores import Entry, index_documents
        >>> model = ColPali.from_pretrained()
        >>> store = MultiVectorStore.open(model=model)  # in memory
        >>> index_documents(["report.pdf"], model=model, store=store).added
        2
        >>> store.add([(Entry(id="note"), next(model.embed_texts("Low tide at six in the old harbour")))])
        1
        >>> [query] = model.embed_queries("diverging palettes")
        >>> [hit.entry.name for hit in store.search(query, 1, where={"page": {"$exists": True}})]
        ['report.pdf, page 1']
        >>> len(store), store.delete(["note"])
        (3, 1)
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.settings = settings
        self._engine = engine
        self._stage = first_stage(settings)
        self._bm25 = Bm25(language=settings.language)
        self._searcher = Searcher(engine, settings, self._stage, self._bm25)
        self._encoder: ColPali | None = None
        self._checked: ModelLike | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        model: ModelLike | None = None,
        url: str | None = None,
        client: Any = None,
        collection_name: str = "pages",
        first_stage: FirstStage | None = None,
        first_vectors: int | None = None,
        language: str | None = None,
        collection_options: Mapping[str, Any] | None = None,
        **client_options: Any,
    ) -> MultiVectorStore:
        """Open a store, or make it where there is none.

        Args:
            path: a folder, for the Qdrant engine inside this process.
            model: what the pages are embedded with: a `ColPali`, its description, or a registered name. Needed to
                make a store; checked when it exists. A `ColPali` also names the words in what `Hits` show.
            url: of a Qdrant server or cluster, instead of a folder. Without either the store is in memory.
            client: a ready `QdrantClient` instead of `url`.
            collection_name: of the collection on the server.
            first_stage: what a two-stage search scans first; see `Settings`. By default "ward", but "exact" in memory
                and for models with few vectors a page, such as ColTiny.
            first_vectors: how many vectors a page has there, for "ward"; 32 by default.
            language: of the texts, for BM25; "english" by default.
            collection_options: for a collection that is made on a server: `shard_number`, `replication_factor` and the
                other arguments of `QdrantClient.create_collection`.
            **client_options: for `QdrantClient`, with `url`: `api_key`, `prefer_grpc`, `timeout` and so on.

        Raises:
            StoreError: it cannot be opened, another process has it open, or it does not exist and `model` is missing.
            FingerprintError: it was made by another model; both are shown.
            ConfigurationError: it was made with another first stage or language, or arguments contradict each other.
            MissingExtraError: the engine is not installed.

        Example:
            >>> store = MultiVectorStore.open(model="coltiny")                   # in memory
            >>> with MultiVectorStore.open("my-index", model="coltiny") as store:  # in a folder
            ...     store.count({"page": 1})
            1
        """
        wanted = {
            "model": None if model is None else fingerprint(model),
            "first_stage": first_stage,
            "first_vectors": first_vectors,
            "language": language,
        }
        store = cls(*open_engine(path, url, client, collection_name, wanted, collection_options, client_options))
        if isinstance(model, ColPali):
            store._encoder = model
        return store

    @property
    def model(self) -> Fingerprint:
        """By which model the vectors were made."""
        return self.settings.model

    @property
    def where(self) -> str:
        """What and where the store is, for messages."""
        return self._engine.where

    def require(self, model: ModelLike) -> None:
        """Check that a model is the one that the store was made by.

        Raises:
            FingerprintError: it is another one; the message shows both and says what to do.
        """
        if model is not self._checked:
            self.model.require(fingerprint(model), where=self.where)
            self._checked = model

    # -- what is in it ------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._engine.count()

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, str) and self._engine.retrieve([id_])[0] is not None

    def count(self, where: FilterLike = None) -> int:
        """Number of entries that fit a filter; of all without one."""
        return self._engine.count(parse_filter(where))

    def get(self, ids: Sequence[str]) -> list[Entry | None]:
        """Entries in the order of `ids`; None for an unknown one."""
        return [
            None if payload is None else Entry.from_payload(payload) for payload in self._engine.retrieve(list(ids))
        ]

    def scroll(self, where: FilterLike = None) -> Iterator[Entry]:
        """All entries that fit a filter, read a piece at a time, in no particular order."""
        for payload in self._payloads(parse_filter(where)):
            yield Entry.from_payload(payload)

    def hashes(self, where: FilterLike = None) -> dict[str, str]:
        """Id and content hash of the entries that fit a filter: what need not be encoded again."""
        found = self._payloads(parse_filter(where), fields=("content_hash",))
        return {payload["id"]: payload.get("content_hash", "") for payload in found}

    def documents(self) -> dict[str, int]:
        """The ids of the documents, and the number of entries of each."""
        counts = Counter(payload.get("document_id") for payload in self._payloads(None, fields=("document_id",)))
        return {document: number for document, number in counts.items() if document is not None}

    def vectors(self, ids: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """All vectors of each entry, float32 (n, dim), as they were rounded to float16; None for an unknown id."""
        return self._engine.vectors(list(ids))

    def _payloads(self, where: Filter | None, fields: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        after = None
        while True:
            payloads, after = self._engine.scroll(where, after=after, fields=fields)
            yield from payloads
            if after is None:
                return

    # -- changing it --------------------------------------------------------------------------------------------

    def add(self, records: Iterable[tuple[Entry, ArrayLike]]) -> int:
        """Store entries with their vectors, in place of those with the same ids, in batches as they come.

        Args:
            records: entries with vectors (n, dim), n > 0. It may be a generator: what it gave before it failed or was
                interrupted is kept.

        Returns:
            How many were stored.

        Raises:
            StoreError: vectors of another shape or not finite in float16, metadata that JSON cannot hold, or the
                engine cannot write.
        """
        stored, size, since = 0, 0, time.monotonic()
        # By id, because of two entries with one id in a batch the later one counts.
        waiting: dict[str, Point] = {}
        try:
            for entry, vectors in records:
                point = self._point(entry, vectors)
                waiting[point.id] = point
                size += len(point.vectors[FULL])
                stored += 1
                if (
                    size >= _BATCH_VECTORS
                    or len(waiting) >= _BATCH_ENTRIES
                    or time.monotonic() - since >= _BATCH_SECONDS
                ):
                    batch, waiting, size = list(waiting.values()), {}, 0
                    self._engine.upsert(batch)
                    since = time.monotonic()
        finally:
            if waiting:
                self._engine.upsert(list(waiting.values()))
        return stored

    def delete(
        self, ids: Iterable[str] | None = None, *, where: FilterLike = None, document_id: str | None = None
    ) -> int:
        """Remove the entries that match all of the given criteria.

        Args:
            ids: unknown ones are passed over.
            where: a filter; one that holds of every entry whatever it is, such as `{"$and": []}`, is refused.
            document_id: of a document, whose pages are removed.

        Returns:
            The number of removed entries.

        Raises:
            InputError: no criterion, or a filter that holds of everything. To remove everything, pass
                `where={"$id": {"$exists": True}}`.
            StoreError: the engine cannot write.
        """
        wanted = None if ids is None else [ids] if isinstance(ids, str) else list(ids)
        condition = parse_filter(where)
        if condition is not None and always(condition):
            raise InputError(
                f"delete: the filter {where!r} holds of every entry; to remove everything, pass "
                "where={'$id': {'$exists': True}}"
            )
        parts = [] if condition is None else [condition]
        if wanted is not None:
            parts.append(Condition(ID, Operator.IN, tuple(dict.fromkeys(wanted))))
        if document_id is not None:
            parts.append(Condition(DOCUMENT, Operator.EQ, document_id))
        if not parts:
            raise InputError("delete: pass ids, where or document_id; nothing was given")
        if wanted == []:
            return 0
        found = [payload["id"] for payload in self._payloads(And(tuple(parts)), fields=())]
        self._engine.delete(found)
        return len(found)

    def update_metadata(self, document_id: str, metadata: Mapping[str, Any]) -> int:
        """Change the caller's metadata of a document, such as its tags; its identity and vectors stay.

        Args:
            document_id: of the document.
            metadata: new values by key; None removes a key. Keys that describe the page (`source`, `page`,
                `content_hash` and so on) cannot be changed.

        Returns:
            The number of changed entries; 0 for an unknown document.

        Raises:
            InputError: a key that describes the page.
            StoreError: metadata that JSON cannot hold, or the engine cannot write.

        Example:
            >>> with MultiVectorStore.open("my-index") as store:
            ...     [document] = store.documents()
            ...     store.update_metadata(document, {"year": 2024}), store.count({"year": 2024})
            (2, 2)
        """
        if fixed := sorted(READER_KEYS & metadata.keys()):
            raise InputError(f"update_metadata: {', '.join(fixed)} describe the page and cannot be changed")
        changed = 0
        for ids in _pieces(self.hashes({DOCUMENT: document_id})):
            records = []
            for entry, vectors in zip(self.get(ids), self.vectors(ids), strict=True):
                if entry is not None and vectors is not None:
                    values = {**entry.metadata, **metadata}
                    kept = {key: value for key, value in values.items() if value is not None or key not in metadata}
                    records.append((replace(entry, metadata=kept, grid=entry.grid), vectors))
            changed += self.add(records)
        return changed

    def optimize(self) -> None:
        """Give back the space of removed entries, and make quantised copies where the store has them. May take long."""
        self._engine.optimize()

    # -- searching ----------------------------------------------------------------------------------------------

    def search(
        self,
        query: str | ArrayLike,
        k: int = 10,
        *,
        where: FilterLike = None,
        mode: Mode = "auto",
        oversampling: float | None = None,
        min_relevance: float | None = None,
        hybrid: Hybrid = False,
        text: str | None = None,
    ) -> Hits:
        """Find the entries that answer a question.

        Args:
            query: the question, or its vectors (n, dim).
            k: number of entries at most; this and the following are those of `SearchOptions`.
            where: only entries that fit this filter.
            mode: "auto", "exact" or "two_stage".
            oversampling: the first stage hands on `oversampling * k` entries.
            min_relevance: leave out entries of a lower relevance, in [0, 1].
            hybrid: fuse the ranking with BM25's.
            text: the words of a question that is given as vectors, for `hybrid`, and for the words that `Hits` show.

        Returns:
            Hits, the best first; fewer than `k` if there are no more. A list that notebooks show with the pages'
            pictures, and that `to_html()` makes a file of.

        Raises:
            InputError: not vectors of the store's dim, or a filter that cannot be read.
            QueryError: an empty question.
            ConfigurationError: an option has an invalid value, or a question in words and a store that does not know
                its model.
            StoreError: the engine cannot be read.

        Example:
            >>> with MultiVectorStore.open("my-index") as store:
            ...     store.search("diverging palettes", 1)
            Hits(1): report.pdf, page 1 (0.75)
        """
        options = SearchOptions(
            k=k, where=where, mode=mode, oversampling=oversampling, min_relevance=min_relevance, hybrid=hybrid
        )
        return self.search_batch([query], options, texts=None if text is None else [text])[0]

    def search_batch(
        self,
        queries: Sequence[str | ArrayLike],
        options: SearchOptions | None = None,
        *,
        texts: Sequence[str] | None = None,
    ) -> list[Hits]:
        """Answer several questions in one pass of the engine.

        Args:
            queries: questions, or vectors (n, dim) of each.
            options: of the search.
            texts: the words of the questions, where `queries` are vectors.

        Raises:
            InputError: numbers of queries and texts that differ, and as `search`.
            ConfigurationError: as `search`.
            StoreError: as `search`.
        """
        options = options or SearchOptions()
        words = [query for query in queries if isinstance(query, str)]
        if words and len(words) == len(queries):
            texts, queries = words, list(self.encoder.embed_queries(words))
        if texts is not None and len(texts) != len(queries):
            raise InputError(f"{len(queries)} queries but {len(texts)} texts; pass one of each, or no texts")
        found = self._searcher.run(queries, options, texts)
        shown: Sequence[str | None] = texts or [None] * len(found)
        floor = options.min_relevance or 0.0
        return [
            self._shown([hit for hit in hits if hit.relevance >= floor][: options.k], query, text)
            for query, hits, text in zip(queries, found, shown, strict=True)
        ]

    @property
    def encoder(self) -> ColPali:
        """The model that encodes questions: the one that the store was opened with, or the registered one.

        Raises:
            ConfigurationError: the store's model is not registered here.
        """
        if self._encoder is None:
            try:
                self._encoder = shared_model(self.model.name)
            except ModelNotFoundError as error:
                raise ConfigurationError(
                    f"{self.where} was made by the model {self.model.name!r}, which is not registered here; open it "
                    "with model=ColPali.from_pretrained(<its folder>)"
                ) from error
            self.require(self._encoder)
        return self._encoder

    def score(self, query: ArrayLike, ids: Sequence[str]) -> dict[str, float]:
        """MaxSim of a query with stored entries, by id: for reranking without encoding. Unknown ids are left out."""
        return self._searcher.score(self._searcher.checked(query), ids)

    def relevance(self, query: ArrayLike, score: float) -> float:
        """A MaxSim of this query as a share of the highest possible, in [0, 1]; see `scoring.maxsim.relevance`."""
        return float(relevance(score, self._searcher.checked(query), best_match=self.model.best_match))

    def regions(
        self, query: ArrayLike, ids: Sequence[str], *, tokens: Sequence[str | None] | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """Where on each page the query is answered: by id the boxes of `explain.regions.regions`, JSON-safe.

        Args:
            query: its vectors, (n, dim).
            ids: of entries; those without places (texts) or unknown have no boxes.
            tokens: `ColPali.query_tokens(...)`: the words that the vectors stand for.

        Returns:
            By id a list of `Region.to_dict(...)`: fractions of the page, and points (for PDFs) or pixels.
        """
        array = self._searcher.checked(query)
        found: dict[str, list[dict[str, Any]]] = {}
        for entry, vectors in zip(self.get(ids), self.vectors(ids), strict=True):
            if entry is None or vectors is None:
                continue
            boxes = [] if entry.grid is None else regions(array, vectors, entry.grid, tokens=tokens)
            width, height = entry.metadata.get("width", 1), entry.metadata.get("height", 1)
            unit: Literal["points", "pixels"] = "points" if "dpi" in entry.metadata else "pixels"
            found[entry.id] = [box.to_dict(width, height, unit) for box in boxes]
        return found

    def similarity_maps(
        self, query: ArrayLike, ids: Sequence[str], *, tokens: Sequence[str | None] | None = None
    ) -> dict[str, SimilarityMaps]:
        """How well each place of each page matches each word: by id the maps of `explain.similarity`.

        Args:
            query: its vectors, (n, dim).
            ids: of entries; those without places (texts) or unknown have no maps.
            tokens: `ColPali.query_tokens(...)`: the words that the vectors stand for.

        Returns:
            By id `SimilarityMaps`, float32 (n, rows, columns) each.

        Raises:
            InputError: vectors of another dim, or another number of tokens than of vectors.
        """
        array = self._searcher.checked(query)
        return {
            entry.id: similarity_maps(array, vectors, entry.grid, tokens=tokens)
            for entry, vectors in zip(self.get(ids), self.vectors(ids), strict=True)
            if entry is not None and vectors is not None and entry.grid is not None
        }

    # -- the rest -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the folder or the connection. A store in memory is gone then."""
        self._engine.close()

    def __enter__(self) -> MultiVectorStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"MultiVectorStore({self.where}, model {self.model.name!r}, first stage {self.settings.first_stage!r})"

    def _shown(self, hits: list[Hit], query: ArrayLike, text: str | None) -> Hits:
        """Hits that can be shown: the names of the words come from the model, if they are of this query."""
        tokens = self._encoder.query_tokens(text) if self._encoder is not None and text and text.strip() else None
        if tokens is not None and len(tokens) != len(np.asarray(query)):
            tokens = None  # vectors of another text, such as of a hypothetical answer
        return Hits(hits, store=self, query=query, text=text, tokens=tokens)

    def _point(self, entry: Entry, vectors: ArrayLike) -> Point:
        array = np.asarray(vectors)
        dim = self.model.dim
        if array.ndim != 2 or not len(array) or array.shape[1] != dim or array.dtype.kind not in "fiu":
            raise StoreError(
                f"{entry.name}: expected vectors (n, {dim}) with n > 0, got shape {array.shape} of {array.dtype}; "
                f"{self.where} was made by {self.model.name!r}"
            )
        if entry.grid is not None and len(entry.grid) != len(array):
            raise StoreError(f"{entry.name}: a grid of {len(entry.grid)} places came with {len(array)} vectors")
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise StoreError(f"{entry.name}: vectors must be finite in float16 (at most 65504)")
        kept: dict[str, NDArray[Any]] = {FULL: half}
        if self._stage is not None:
            kept[FIRST] = self._stage.page(half.astype(np.float32), entry.grid)
        words = self._bm25.document(entry.text) if entry.has_text else None
        return Point(entry.id, kept, words if words is not None and len(words) else None, entry.to_payload())


def _pieces(ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(list(ids))
    while piece := list(islice(remaining, _BATCH_ENTRIES)):
        yield piece
