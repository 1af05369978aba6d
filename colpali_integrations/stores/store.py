"""`MultiVectorStore`: pages and their multi-vectors, kept by an engine and searched by MaxSim.

`add` turns entries and vectors into the points of an `Engine`, with a first stage and the words for BM25. `search`
passes a question's vectors to the engine, fuses rankings and computes relevances.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import ArrayLike

from colpali_integrations._options import checked_flag
from colpali_integrations.errors import ConfigurationError, InputError, StoreError
from colpali_integrations.explain.similarity import SimilarityMaps
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.stores.adding import Adding, OnRefused
from colpali_integrations.stores.admission import Admission
from colpali_integrations.stores.collection_options import CollectionOptions
from colpali_integrations.stores.edits import criteria_of, refuse_fixed_keys, with_metadata
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.embedded.reports import RepairReport, VerifyReport
from colpali_integrations.stores.engine import Engine, OnOptimized, pieces, several_ids, strings
from colpali_integrations.stores.entries import Entry, Hit, field_of, id_of
from colpali_integrations.stores.filters import DOCUMENT, Filter, FilterLike, parse_filter
from colpali_integrations.stores.fusion import Hybrid
from colpali_integrations.stores.hits import Hits
from colpali_integrations.stores.layout import Layout, LayoutLike
from colpali_integrations.stores.model_check import ModelCheck, compare_page
from colpali_integrations.stores.model_choice import ModelLike, open_model
from colpali_integrations.stores.opening import open_engine
from colpali_integrations.stores.page_maps import maps_of_pages, regions_of_pages
from colpali_integrations.stores.place import place_of, with_secrets, without_secrets
from colpali_integrations.stores.points import PointMaker
from colpali_integrations.stores.qdrant.index_kinds import IndexKind
from colpali_integrations.stores.questions import Questions, decided
from colpali_integrations.stores.runs import running
from colpali_integrations.stores.scrolling import scrolled
from colpali_integrations.stores.search import Mode, Searcher, SearchOptions
from colpali_integrations.stores.settings import Datatype, FirstStage, Settings, StoredModel
from colpali_integrations.stores.upkeep import (
    StoreInfo,
    backup_store,
    folder_engine,
    gone,
    repair_store,
    size_of,
    verify_store,
)

__all__ = ["MultiVectorStore"]

_TOGETHER = 64  # entries whose metadata are changed together
_ONCE_MORE = "Try again: what is done stays done"


class MultiVectorStore:
    """Pages (and texts) with all their vectors, in a folder, on a Qdrant server or in memory.

    Make one with `open`. Vectors are kept as float16, or in fewer bits, and compared by dot product. Threads may share
    it. Any number of processes may open a folder: one writes at a time, and readers see its batches whole.

    Args:
        engine: storage and search of the points.
        settings: of the store.

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
        self._engine, self._admission = engine, Admission(engine, settings)
        self._points = PointMaker(settings, engine.where, engine.max_numbers, own_codes=engine.has_own_codes)
        self._searcher = Searcher(engine, settings, self._points.stage, self._points.bm25)
        self._questions = Questions(self._admission, engine.where)
        self._place: Mapping[str, Any] | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        model: ModelLike | None = None,
        url: str | Sequence[str] | None = None,
        client: Any = None,
        collection_name: str = "pages",
        first_stage: FirstStage | None = None,
        first_vectors: int | None = None,
        datatype: Datatype | None = None,
        pool_factor: int | None = None,
        language: str | None = None,
        read_only: bool = False,
        file_mode: int | None = None,
        collection_options: CollectionOptions | Mapping[str, Any] | None = None,
        indexes: Mapping[str, IndexKind] | None = None,
        auto_index: bool | None = None,
        layout: LayoutLike | None = None,
        writable: bool = False,
        **client_options: Any,
    ) -> MultiVectorStore:
        """Open a store, or create it if there is none.

        Args:
            path: a folder; or the URL of a server that `colpali-integrations serve` has started, "http://localhost:8765",
                whose store is used from here.
            model: the model of the pages: a `ColPali`, its description, a model's name, or the folder of one. A new
                store needs it; an existing one checks that it is of the same space. A `ColPali`, or the model of a name
                or folder, also encodes questions, at whatever precision. A `ColPali` names their words in reports of
                `Hits`.
            url: of a Qdrant server or cluster, instead of a folder. Without either the store is in memory. Several are
                the nodes of one cluster, of which the next one is asked while one is gone.
            client: a ready `QdrantClient` instead of `url`.
            collection_name: of the collection on the server.
            first_stage: the vectors that a two-stage search scans first; see `Settings`. By default "ward", but "exact"
                in memory and for models with few vectors per page, such as ColTiny.
            first_vectors: number of those vectors per page, for "ward"; 32 by default.
            datatype: of the stored vectors: "float16" by default, "int8", "int4", and, but for a server, "int2" or
                "binary"; see `Settings`.
            pool_factor: number of similar vectors of a page that are averaged when it is stored; 1 by default.
            language: of the texts, for the stems of BM25, or "none" to compare words as they are; "english" by default.
            read_only: for a folder: neither make nor change anything.
            file_mode: for a new folder: the permissions of its files, such as 0o640; a user who may read them may also
                enter the folder. 0o600 by default. Existing folders keep theirs.
            collection_options: for a collection on a server: `shard_number`, `replication_factor`, `graph` and others;
                see `CollectionOptions`.
            indexes: for a collection on a server, new or not: the metadata fields that get an index, and the kind of
                their values: {"year": "number", "title": "text", "open": "bool", "when": "datetime", "tenant":
                "tenant"}. Filters on them are faster, and a collection in strict mode, as on Qdrant Cloud, takes no
                other ones. `info()` lists the indexes; "source" and "page" always have one.
            auto_index: whether a filter on a field without an index makes one in a collection in strict mode, if the
                API key and the number of indexes permit it; True by default. Otherwise this process reads the payloads
                and decides, and logs a warning.
            layout: for a collection that another program has made: where it keeps the vectors, documents, pages,
                texts and pictures. It needs `model`, is read and searched, and stays as it is.
            writable: with `layout`: pages may be added, changed and removed, in the collection's own layout.
            **client_options: for `QdrantClient`, with `url`: `api_key`, `prefer_grpc`, `timeout` and so on. With
                `url` or `client`: `retry_seconds`, for how long calls are tried again while the server is away: a
                number, or one for single calls and one for runs such as `index_documents`, (5, 60) by default. With
                the URL of a server as `path`: `api_key_file`, as `ColPali.from_pretrained`.

        Raises:
            StoreError: it cannot be opened, or it does not exist and `model` is missing.
            FingerprintError: it was made by a model of another space; the message shows both. With `layout`: its
                vectors are of another length than the model's.
            ModelNotFoundError: `model` is a name that is not known.
            ModelLoadError: `model` is a folder without a model, or with one that is not supported; or it is a `ColPali`
                that cannot be loaded, for a new store, of which nothing is made then.
            ConfigurationError: it was made with another first stage, datatype, pooling or language, arguments
                contradict each other, or an option is unknown.
            MissingExtraError: qdrant-client is not installed, for `url`.

        Example:
            >>> store = MultiVectorStore.open(model="coltiny")                   # in memory
            >>> with MultiVectorStore.open("my-index", model="coltiny") as store:  # in a folder
            ...     store.count({"page": 1})
            1
        """
        options = {
            "model": model,
            "first_stage": first_stage,
            "first_vectors": first_vectors,
            "datatype": datatype,
            "pool_factor": pool_factor,
            "language": language,
        }
        folder_options = {"read_only": read_only or None, "file_mode": file_mode}
        places = (path, url, client, collection_name)
        auto = None if auto_index is None else checked_flag(auto_index, "auto_index")
        index_options = {"indexes": indexes, "auto_index": auto}
        foreign: dict[str, Any] = {"layout": None if layout is None else Layout.of(layout), "writable": writable}
        made = open_engine(
            *places, options, folder_options, collection_options, client_options, index_options, **foreign
        )
        store = cls(*made)
        others = {**client_options, **_given(foreign)}
        options_of_object = (others, index_options, collection_options)
        store._place = place_of(path, url, collection_name, folder_options, *options_of_object)
        store._admission.opened_with(model)
        store._questions.opened_with(model)
        return store

    @property
    def settings(self) -> Settings:
        """The properties that are fixed at the creation, and the revision of the model's weights, once it is known."""
        return self._admission.settings

    @property
    def model(self) -> StoredModel:
        """The model that made the vectors."""
        return self.settings.model

    @property
    def where(self) -> str:
        """The kind and place of the store, for messages."""
        return self._engine.where

    @property
    def max_numbers(self) -> int | None:
        """The most numbers that all vectors of a page may have, on a Qdrant server; None for no limit."""
        return self._engine.max_numbers

    def require_writable(self) -> None:
        """Check that the store was opened for changes, before work whose result is to be stored.

        Raises:
            StoreError: it is a folder that was opened with `read_only`, a collection that another program has made
                and that was opened without `writable`, or a collection on a Qdrant server whose API key may only read:
                the server is asked once.

        Example:
            >>> from colpali_integrations.errors import StoreError
            >>> with MultiVectorStore.open("my-index", read_only=True) as store:
            ...     try:
            ...         store.require_writable()
            ...     except StoreError as error:
            ...         print("read_only" in str(error))
            True
        """
        if (refusal := self._engine.refuses_changes) is not None:
            raise StoreError(refusal)

    def require_space(self, model: ModelLike) -> None:
        """Check that questions of a model can be compared with the store's pages.

        A `ColPali` that makes pages with other settings may ask; the first search logs a warning.

        Raises:
            FingerprintError: it is of another space; the message shows both and gives advice.
        """
        self._admission.require_space(model)

    def require_pages(self, model: ModelLike) -> None:
        """Check that pages of a model may be added: those of the same space that are made with the same settings.

        Raises:
            FingerprintError: it is of another space, or has another precision or size of pages; the message shows both
                and gives advice.
        """
        self._admission.require_pages(model)

    def check_model(
        self, id_: str, image: ImageSource, *, model: ColPali | str | os.PathLike[str] | None = None
    ) -> ModelCheck:
        """Encode a page, and compare it with the vectors that the store has of it: did this model make them?

        A collection that another program has made does not record its model, and vectors of another one give scores
        without a meaning.

        Args:
            id_: of the page's entry.
            image: its picture, any input of `ColPali.embed_images`, as it was encoded then.
            model: the model, or its name or folder; by default the one that encodes questions.

        Returns:
            The check; `ok` where the model fits.

        Raises:
            InputError: the store has no such entry, or no vectors of it.
            ImageError: the picture cannot be read.
            FingerprintError: the vectors of the model are of another length.

        Example:
            >>> from colpali_integrations import pdf_pages
            >>> [page] = pdf_pages("report.pdf", pages=[1])
            >>> with MultiVectorStore.open("my-index") as store:
            ...     [id_] = store.hashes({"page": 1})
            ...     check = store.check_model(id_, page)
            >>> check.ok, round(check.similarity, 1)
            (True, 1.0)
        """
        [stored] = self.vectors([id_])
        if stored is None:
            lacks = f"no vectors of the entry {id_!r}; name another" if id_ in self else f"no entry {id_!r}; name"
            raise InputError(f"{self.where} has {lacks} one that get() returns")
        return compare_page(id_, stored, image, self.encoder if model is None else open_model(model, self.model))

    # -- reading -------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._engine.count()

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, str) and self._engine.retrieve([id_])[0] is not None

    def count(self, where: FilterLike = None) -> int:
        """Number of entries that fit a filter; without one, of all entries."""
        return self._engine.count(parse_filter(where))

    def get(self, ids: Iterable[str]) -> list[Entry | None]:
        """Entries in the order of `ids`; None for an unknown one."""
        payloads = self._engine.retrieve(several_ids(ids))
        return [None if payload is None else Entry.from_payload(payload) for payload in payloads]

    def scroll(self, where: FilterLike = None) -> Iterator[Entry]:
        """Iterate over all entries that fit a filter, read in batches, in no particular order."""
        return map(Entry.from_payload, self._payloads(parse_filter(where)))

    def hashes(self, where: FilterLike = None) -> dict[str, str]:
        """Content hashes by id of the entries that fit a filter."""
        payloads = self._payloads(parse_filter(where), fields=("content_hash",))
        return {id_of(payload): field_of(payload, "content_hash") or "" for payload in payloads}

    def documents(self, where: FilterLike = None) -> dict[str, int]:
        """The ids of the documents among the entries that fit a filter, and the number of these entries of each."""
        return self._engine.documents(parse_filter(where))

    def vectors(self, ids: Iterable[str]) -> list[Float32 | None]:
        """The stored vectors of each entry, float32 (n, dim), as its datatype rounds them; None for an unknown id."""
        return self._engine.vectors(several_ids(ids))

    def _as_stored(self, vectors: Float32, *, is_page: bool) -> Float32:
        return self._points.as_stored(vectors, is_page=is_page)

    def _payloads(self, where: Filter | None, fields: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        return scrolled(self._engine, where, fields)

    # -- changing ------------------------------------------------------------------------------------------------------

    def add(
        self,
        records: Iterable[tuple[Entry, ArrayLike]],
        *,
        model: ModelLike | None = None,
        on_error: OnRefused | None = None,
        on_stored: Callable[[int], object] | None = None,
    ) -> int:
        """Store entries with their vectors, in place of those with the same ids, in batches as they come.

        Args:
            records: entries with vectors (n, dim), n > 0. It may be a generator: records that it yields before an
                error or an interruption are stored.
            model: that made the vectors, as for `require_pages`; None for the one that the store was opened with. A
                store that was opened without a model, or by a name, then checks nothing but the dim: vectors do not
                tell their model. To copy from another store, pass its `model`.
            on_error: called with each entry that the store refuses while it takes others, such as a page with more
                numbers than a Qdrant server takes, and the reason; None to raise an error once the others are stored.
            on_stored: called after each batch with the number of its entries that are in the store now.

        Returns:
            The number of stored records.

        Raises:
            StoreError: at once: vectors of another shape or not finite in float16, metadata that cannot be written as
                JSON, or the engine cannot write. Once the others are stored: the store refuses entries.
            FingerprintError: the model is of another space, or makes pages with other settings.
        """
        self.require_writable()
        made_by = self._admission.adding(model)

        def learn() -> None:
            if made_by is not None:
                self._admission.learn(made_by)

        return Adding(self._engine, self._points, learn, on_error, on_stored).run(records)

    def delete(
        self, ids: Iterable[str] | None = None, *, where: FilterLike = None, document_id: str | None = None
    ) -> int:
        """Remove the entries that match all of the given criteria.

        Args:
            ids: of entries; unknown ones are ignored.
            where: a filter; one that fits every possible entry, such as `{"$and": []}`, is refused.
            document_id: of the document that the entries belong to.

        Returns:
            The number of removed entries.

        Raises:
            InputError: no criterion, or a filter that fits every possible entry. To remove everything, pass
                `where={"$id": {"$exists": True}}`.
            StoreError: the engine cannot write.
        """
        chosen = None if ids is None else list(dict.fromkeys(strings(several_ids(ids))))
        criteria = criteria_of(chosen, where, document_id)
        self.require_writable()
        if chosen == []:
            return 0
        matching = [id_of(payload) for payload in self._payloads(criteria, fields=())]
        self._engine.delete(matching)
        return len(matching)

    @running(_ONCE_MORE)
    def update_metadata(self, document_id: str, metadata: Mapping[str, Any]) -> int:
        """Change the caller's metadata of a document, such as its tags; its identity and vectors stay.

        Args:
            document_id: of the document.
            metadata: new values by key; None removes a key. Keys that describe the page (`source`, `page`,
                `content_hash` and so on; the keys that a layout names) cannot be changed.

        Returns:
            The number of changed entries; 0 for an unknown document.

        Raises:
            InputError: a key that describes the page.
            StoreError: metadata that cannot be written as JSON, or the engine cannot write.

        Example:
            >>> with MultiVectorStore.open("my-index") as store:
            ...     [document] = store.documents()
            ...     store.update_metadata(document, {"year": 2024}), store.count({"year": 2024})
            (2, 2)
        """
        layout = self._engine.facts.get("layout")
        refuse_fixed_keys(metadata, None if layout is None else Layout.of(layout))
        self.require_writable()
        changed = 0
        for ids in pieces(self.hashes({DOCUMENT: document_id}), _TOGETHER):
            entries = [with_metadata(entry, metadata) for entry in self.get(ids) if entry is not None]
            self.update_entries(entries)
            changed += len(entries)
        return changed

    def update_entries(self, entries: Iterable[Entry]) -> None:
        """Replace stored entries by others of the same id and content; their vectors and words for BM25 stay.

        So it does not matter which model made the vectors of the store from which an entry comes.

        Args:
            entries: with the text and grid of the stored ones. Unknown ids, and entries whose content has changed in
                the store meanwhile, are ignored.

        Raises:
            StoreError: metadata that cannot be written as JSON, or the engine cannot write.
        """
        self._engine.update({entry.id: entry.to_payload() for entry in entries})

    @running(_ONCE_MORE)
    def optimize(self, progress: OnOptimized | None = None) -> None:
        """Release the space of removed entries, and make quantised copies for stores with them. It may take long.

        A Qdrant server does so by itself: then this waits until it has finished.

        Args:
            progress: called while waiting for a server, with the number of vectors that are indexed and of all.

        Raises:
            StoreError: the engine cannot be written, or a server cannot do it.

        Example:
            >>> with MultiVectorStore.open("my-index") as store:
            ...     store.optimize()
        """
        self._engine.optimize(progress)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Add many entries at once: a Qdrant server indexes nothing until the end of the block.

        It then indexes once what it would index again and again while the collection grows; `optimize` waits for it.
        Entries can be searched meanwhile, by scans. If the process is killed in the block, indexing stays off until
        the next `loading` ends or `optimize` is called. Other stores have nothing to put off.

        Raises:
            StoreError: the server cannot be reached, or the key may not change collections.

        Example:
            >>> with MultiVectorStore.open("my-index") as store, store.loading():
            ...     store.add([])
            0
        """
        with self._engine.loading():
            yield

    # -- searching -----------------------------------------------------------------------------------------------------

    def search(
        self,
        query: str | ArrayLike,
        k: int = 10,
        *,
        where: FilterLike = None,
        mode: Mode = "auto",
        oversampling: float | None = None,
        min_relevance: float | None = None,
        hybrid: Hybrid = "auto",
        text: str | None = None,
    ) -> Hits:
        """Find the entries that answer a question.

        Args:
            query: the question, or its vectors (n, dim).
            k: the largest number of entries; this and the following are those of `SearchOptions`.
            where: only entries that fit this filter.
            mode: "auto", "exact" or "two_stage".
            oversampling: the first stage passes on `oversampling * k` entries.
            min_relevance: leave out entries of a lower relevance, in [0, 1].
            hybrid: fuse the ranking with BM25's over the entries' texts. "auto" does so for a question in words, where
                the model's description says that it pays; see `SearchOptions`.
            text: the words of a question that is passed as vectors, for `hybrid` other than "auto" and for reports of
                `Hits`.

        Returns:
            A list of hits, the best first; fewer than `k` if there are no more. Notebooks show it with the pages'
            pictures, and `to_html()` turns it into a file.

        Raises:
            InputError: the vectors do not have the store's dim, or the filter cannot be read.
            QueryError: the question is empty.
            ConfigurationError: an option has an invalid value, or the question is text and the store's model is not
                registered here.
            StoreError: the engine cannot be read.

        Example:
            >>> with MultiVectorStore.open("my-index") as store:
            ...     store.search("diverging palettes", 1)
            Hits(1): report.pdf, page 1 (0.52)
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
        """Answer several questions together, which takes less time than one after another.

        Exact searches of a folder read its vectors once for all questions, and so do two stages with "ward", "rows" or
        "muvera" in the first one.

        Args:
            queries: questions, or vectors (n, dim) of each.
            options: of the search.
            texts: the words of the questions, where `queries` are vectors.

        Raises:
            InputError: numbers of queries and texts that differ, a text that is no string, and as `search`.
            ConfigurationError: as `search`.
            StoreError: as `search`.
        """
        asked = self._questions.asked(queries, texts, options or SearchOptions(), self._engine.has_words)
        self._admission.tell_settings()
        results = self._searcher.run(asked.vectors, asked.options, asked.texts)
        labels: Sequence[str | None] = asked.texts or [None] * len(results)
        return [self._attached(*one) for one in zip(results, asked.vectors, labels, strict=True)]

    def rank_batch(
        self,
        queries: Sequence[ArrayLike],
        options: SearchOptions,
        *,
        texts: Sequence[str] | None = None,
        depth: int = 0,
        textless: Collection[str] = (),
        exact: Sequence[Mapping[str, float]] | None = None,
    ) -> list[dict[str, float]]:
        """Score the entries that `search_batch` chooses from, without reading them: for evaluations.

        Args:
            queries: vectors (n, dim) of each question.
            options: of the search; `min_relevance` is ignored.
            texts: the words of the questions, for a hybrid search.
            depth: an exact search scores at least this many entries per question. The others score the candidates
                that they compare in full.
            textless: ids of the entries without words, for a hybrid search.
            exact: the exact scores of all entries that fit the filter, per question, of an earlier call: an exact
                search does not compute them again.

        Returns:
            Scores by id per question, the best first; equal scores in any order.

        Raises:
            InputError: as `search`.
            ConfigurationError: as `search`.
            StoreError: as `search`.
        """
        return self._searcher.rank(queries, options, texts, depth=depth, textless=textless, exact=exact)

    def decide_hybrid(self, options: SearchOptions, model: ColPali) -> SearchOptions:
        """Replace `hybrid="auto"` by what it stands for, for questions in words whose vectors a caller passes.

        Args:
            options: of the search; others than "auto" stay.
            model: that encodes the questions.

        Returns:
            Options with the `auto_hybrid` of the model's description where any entry has words, else with False.

        Raises:
            StoreError: the engine cannot be read.
        """
        return decided(options, model, self._engine.has_words)

    @property
    def encoder(self) -> ColPali:
        """The model that encodes questions: the one that the store was opened with, or the registered one.

        Raises:
            ConfigurationError: the store's model is not registered here.
        """
        return self._questions.encoder

    def score(self, query: ArrayLike, ids: Iterable[str]) -> dict[str, float]:
        """MaxSim of a query with stored entries, by id: for reranking without encoding. Unknown ids are left out."""
        self._admission.tell_settings()
        return self._searcher.score(self._searcher.checked(query), several_ids(ids))

    def regions(
        self, query: ArrayLike, ids: Iterable[str], *, tokens: Sequence[str | None] | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """Find the regions of each page that answer the query: boxes of `explain.regions.regions` by id, JSON-safe.

        Args:
            query: its vectors, (n, dim).
            ids: of entries; texts and unknown ids have no boxes.
            tokens: `ColPali.query_tokens(...)`: the words that the vectors stand for.

        Returns:
            By id a list of `Region.to_dict(...)`: fractions of the page, and points (for PDFs) or pixels.

        Raises:
            StoreError: another program has made the page, and not recorded which vector stands where.
        """
        return regions_of_pages(self._drawable(ids), self._searcher.checked(query), tokens)

    def similarity_maps(
        self, query: ArrayLike, ids: Iterable[str], *, tokens: Sequence[str | None] | None = None
    ) -> dict[str, SimilarityMaps]:
        """Compare each cell of each page with each word: maps of `explain.similarity` by id.

        Args:
            query: its vectors, (n, dim).
            ids: of entries; texts and unknown ids have no maps.
            tokens: `ColPali.query_tokens(...)`: the words that the vectors stand for.

        Returns:
            By id `SimilarityMaps`, float32 (n, rows, columns) each.

        Raises:
            InputError: the vectors have another dim, or the numbers of tokens and vectors differ.
            StoreError: another program has made the page, and not recorded which vector stands where.
        """
        return maps_of_pages(self._drawable(ids), self._searcher.checked(query), tokens)

    # -- care ----------------------------------------------------------------------------------------------------------

    def info(self) -> StoreInfo:
        """The model, the first stage, the numbers of entries, documents and bytes, and the indexes of a server."""
        size = size_of(self._engine.folder) if isinstance(self._engine, FolderEngine) else None
        entries, documents = len(self), len(self.documents())
        return StoreInfo(
            where=self.where,
            settings=self.settings,
            entries=entries,
            documents=documents,
            bytes=size,
            indexes=dict(self._engine.indexes),
            facts=dict(self._engine.facts),
        )

    @running(_ONCE_MORE)
    def prune(self, root: str | os.PathLike[str], *, delete: bool = False) -> dict[str, int]:
        """Find the documents recorded under a folder whose files are gone.

        Args:
            root: the folder. Documents elsewhere, and those without a file, are left alone.
            delete: remove their entries too.

        Returns:
            The number of entries per document.

        Raises:
            StoreError: `root` is missing or empty, as the folder of a disk that is not mounted; or the engine fails.

        Example:
            >>> with MultiVectorStore.open("my-index") as store:
            ...     store.prune(".")
            {}
        """
        found = gone(root, self.scroll)
        for document in found if delete else ():
            self.delete(document_id=document)
        return found

    def verify(self) -> VerifyReport:
        """Check everything that a store in a folder holds against its checksums; see `verify_store`.

        Raises:
            ConfigurationError: the store is not in a folder.
            StoreError: another process has kept the store locked for too long.
        """
        return verify_store(folder_engine(self._engine, "verify", writes=False).folder)

    def repair(self) -> RepairReport:
        """Drop the damaged entries of a store in a folder, and make the rest sound; see `repair_store`.

        Other objects and processes that have the store open need to open it again.

        Raises:
            ConfigurationError: the store is not in a folder.
            StoreError: its disk cannot be written, it was opened with `read_only=True`, or another process has
                kept the store locked for too long.
        """
        engine = folder_engine(self._engine, "repair")
        report = repair_store(engine.folder, settings=self.settings)
        if report.problems:
            engine.reopen()
        return report

    def backup(self, path: str | os.PathLike[str]) -> VerifyReport:
        """Copy a store in a folder while it is open, in the state of its last change, and check the copy.

        Writers wait for the last part only: the database, and the vectors that were added since the beginning.

        Args:
            path: a folder that is made, or an empty one. It is a store of its own.

        Returns:
            The report about the copy.

        Raises:
            ConfigurationError: the store is not in a folder.
            StoreError: `path` is not empty, the disk cannot be written, or the store has problems.

        Example:
            >>> with MultiVectorStore.open("my-index") as store:
            ...     store.backup("my-backup").ok
            True
        """
        return backup_store(folder_engine(self._engine, "backup").folder, path)

    # -- the rest ------------------------------------------------------------------------------------------------------

    def reopened(self) -> MultiVectorStore | None:
        """Open the store that another process has put in the place of this one, such as by `compress_store`.

        Returns:
            The new store, for the same model, beside this one, which its caller closes. None where the folder still
            holds this one, and for stores that are not in a folder.

        Raises:
            StoreError: there is no store in the folder any more, or it cannot be opened. None is made.
            FingerprintError: the new store was made by a model of another space.

        Example:
            >>> with MultiVectorStore.open("my-index") as store:
            ...     store.reopened() is None
            True
        """
        engine = self._engine
        if not isinstance(engine, FolderEngine) or not engine.is_replaced():
            return None
        store = MultiVectorStore.open(engine.folder, read_only=engine.read_only)  # without a model, so it makes none
        try:
            store.require_space(self.model)
            store._admission.opened_with(self._admission.default)
        except BaseException:
            store.close()
            raise
        store._questions.follow(self._questions)
        store._place = self._place
        return store

    def close(self) -> None:
        """Release the folder or the connection. A store in memory loses its entries."""
        self._engine.close()

    def __enter__(self) -> MultiVectorStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"MultiVectorStore({self.where}, model {self.model.name!r}, first stage {self.settings.first_stage!r})"

    # -- copies --------------------------------------------------------------------------------------------------------

    def __copy__(self) -> MultiVectorStore:
        """Make another object on the same store, like a copy of a connection."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> MultiVectorStore:
        return copy.copy(self)

    def __reduce__(self) -> Any:
        """Pickle the place, where another process opens the store again.

        Raises:
            ConfigurationError: there is none, or it may hold a secret.
        """
        if self._place is None:
            raise ConfigurationError(
                f"{self!r} cannot be pickled, because it has no place from which another process could open it; open "
                "it with path= or url="
            )
        model = self._questions.named or (self.model if self.settings.is_foreign else None)
        return _opened_again, (type(self), model, without_secrets(self._place))

    # -- help ----------------------------------------------------------------------------------------------------------

    def _drawable(self, ids: Iterable[str]) -> Iterator[tuple[Entry, Float32]]:
        """Entries and their vectors; an error where it is unknown which vector of a page stands where."""
        ids = several_ids(ids)
        for entry, vectors in zip(self.get(ids), self.vectors(ids), strict=True):
            if entry is None or vectors is None:
                continue
            if self.settings.is_foreign and not entry.is_page:
                raise StoreError(
                    f"{entry.name}: no regions or heatmaps, because the program that made {self.where} recorded no "
                    "grid, which says where on the page each vector stands; index the document into a store of this "
                    "package"
                )
            yield entry, vectors

    def _attached(self, hits: list[Hit], query: ArrayLike, text: str | None) -> Hits:
        """Hits with this store; the model names the words, if the vectors are those of `text`."""
        tokens, low = self._questions.tokens(text, query), self._questions.low_relevance
        return Hits(hits, store=self, query=query, text=text, tokens=tokens, low_relevance=low)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value}


def _opened_again(kind: type[MultiVectorStore], model: ModelLike | None, place: Mapping[str, Any]) -> MultiVectorStore:
    """Open a pickled store."""
    return kind.open(model=model, **with_secrets(place))
