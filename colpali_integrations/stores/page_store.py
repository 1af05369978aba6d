"""A folder of pages with their multi-vectors: appended to, searched exactly, consistent after a kill.

    store/
      store.json        the commit point: format, model, generation, how many pages, vectors and bytes count
      pages-1.jsonl     one page a line: source, number, text, how many vectors (generation 1)
      vectors-1.f16     the vectors of all pages, one after the other, float16 (generation 1)
      lock              held while writing

New pages are appended to the two data files, these are forced to disk, and only then does a new `store.json` take the
place of the old one in a single rename. Whatever lies behind the counts of `store.json` was left by a writer that died,
is never read, and is cut off by the next writer. Deleting writes a new generation of both files and commits that.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import ArrayLike, NDArray

from colpali_integrations.core.errors import StoreError
from colpali_integrations.core.registry import ModelDescription
from colpali_integrations.core.scoring import max_sim
from colpali_integrations.stores.manifest import Manifest, cut, sync
from colpali_integrations.stores.records import Fingerprint, Hit, Page
from colpali_integrations.stores.snapshot import Snapshot

__all__ = ["PageStore"]

# A batch is committed when it holds so many pages or has waited so long: a kill loses no more than that.
_COMMIT_PAGES = 16
_COMMIT_SECONDS = 5.0


class _Record(NamedTuple):
    """A page on its way to disk."""

    page: Page
    vectors: NDArray[np.float16]
    line: bytes


class PageStore:
    """Pages and their multi-vectors in a folder, with exact MaxSim search.

    One process writes at a time; any number may read, and each sees the store as it was when it was opened or last
    written to by itself. Searches may run in several threads, also while another thread adds.

    Args:
        folder: where the store is, or will be.
        model: the model at hand. A new store is made with it; an existing one must have been made by it. None opens
            an existing store, whose `model` says which model its queries need.

    Raises:
        StoreError: no store there and no model given, or the files are unreadable.
        FingerprintError: the store was made by another model.

    Example:
        >>> import tempfile
        >>> from colpali_integrations.core.registry import find_model
        >>> store = PageStore(tempfile.mkdtemp(), model=find_model("coltiny"))
        >>> page = Page(source="a.pdf", page=1, width=595, height=842, content_hash="1f")
        >>> store.add([(page, np.eye(128, dtype=np.float32)[:3])])
        1
        >>> [(hit.page.name, hit.score) for hit in store.search(np.eye(128, dtype=np.float32)[:2], k=1)]
        [('a.pdf, page 1', 2.0)]
    """

    def __init__(self, folder: str | os.PathLike[str], *, model: ModelDescription | Fingerprint | None = None) -> None:
        self.folder = Path(folder)
        own = Fingerprint.of(model) if isinstance(model, ModelDescription) else model
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"{self.folder} is a file; a store is a folder")
        manifest = Manifest.load(self.folder)
        if manifest is None:
            if own is None:
                raise StoreError(f"there is no store at {self.folder}; index some pages into it first")
            manifest = Manifest(own)
        elif own is not None:
            manifest.model.require(own, where=str(self.folder))
        self._state = Snapshot.read(self.folder, manifest)

    @property
    def model(self) -> Fingerprint:
        """The model that made this store's vectors."""
        return self._state.manifest.model

    def __len__(self) -> int:
        return len(self._state.pages)

    def __iter__(self) -> Iterator[Page]:
        return iter(self._state.pages)

    def __contains__(self, key: object) -> bool:
        return key in self._state.keys

    def __getstate__(self) -> dict[str, object]:
        """A copy, pickled or not, opens the folder again: what it maps from disk does not travel."""
        return {"folder": self.folder, "model": self.model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the folder again."""
        self.__init__(state["folder"], model=state["model"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"PageStore({str(self.folder)!r}, model={self.model.name!r}, pages={len(self)})"

    def sources(self) -> dict[str, int]:
        """Every source with its number of pages, in the order of first addition."""
        counts: dict[str, int] = {}
        for page in self:
            counts[page.source] = counts.get(page.source, 0) + 1
        return counts

    def vectors(self, position: int) -> NDArray[np.float32]:
        """The stored vectors, (n, dim) float32, of the page at `position` (0-based, in the order of iteration)."""
        return self._state.vectors[position].astype(np.float32)

    def search(self, query: ArrayLike, *, k: int = 5) -> list[Hit]:
        """The `k` pages with the highest MaxSim, best first; every page is scored.

        Args:
            query: one query's vectors, (n, dim).
            k: how many.

        Returns:
            At most `k` hits; of equal scores the page added first comes first.

        Raises:
            StoreError: the query's shape does not fit, or `k` is not positive.
        """
        vectors = np.asarray(query, dtype=np.float32)
        if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != self.model.dim:
            raise StoreError(
                f"search: expected one query as (n, {self.model.dim}) with n > 0, got shape {vectors.shape}; "
                f"queries must be embedded by {self.model.name!r}"
            )
        if k < 1:
            raise StoreError(f"search: k must be at least 1, got {k}")
        state = self._state
        scores = max_sim(vectors, state.vectors)
        best = np.argsort(-scores, kind="stable")[:k]
        return [Hit(state.pages[index], float(scores[index])) for index in best]

    def add(self, records: Iterable[tuple[Page, ArrayLike]]) -> int:
        """Append pages with their vectors, committing as they come.

        A page whose key is stored already is skipped. The iterable may be a generator: what it gave before it
        failed or was interrupted is kept.

        Args:
            records: pages with their vectors, (n, dim) each with n > 0; kept as float16.

        Returns:
            How many pages were added.

        Raises:
            StoreError: vectors of another shape or not finite in float16, or another process is writing.
        """
        waiting, since = list[_Record](), time.monotonic()
        with self._writing():
            before, known = len(self), set(self._state.keys)
            try:
                for page, vectors in records:
                    if page.key in known:
                        continue
                    half = self._half(page, vectors)
                    waiting.append(_Record(page, half, _line(page, len(half))))
                    known.add(page.key)
                    if len(waiting) >= _COMMIT_PAGES or time.monotonic() - since >= _COMMIT_SECONDS:
                        batch, waiting, since = waiting, [], time.monotonic()
                        self._state = self._append(self._state, batch)
            finally:
                if waiting:
                    self._state = self._append(self._state, waiting)
            return len(self) - before

    def delete(self, source: str, *, keep: Collection[str] = ()) -> int:
        """Remove the pages of a source.

        Args:
            source: as the pages name it.
            keep: keys of pages to be kept, for a source that changed in part.

        Returns:
            How many pages were removed; 0 for an unknown source.

        Raises:
            StoreError: another process is writing.
        """
        return self._drop(lambda page: page.source == source and page.key not in keep)

    def _drop(self, unwanted: Callable[[Page], bool]) -> int:
        with self._writing():
            state = self._state
            kept = [
                _Record(page, vectors, _line(page, len(vectors)))
                for page, vectors in zip(state.pages, state.vectors, strict=True)
                if not unwanted(page)
            ]
            removed = len(state.pages) - len(kept)
            if removed:
                old = state.manifest
                empty = Manifest(old.model, old.generation + 1)
                cut(empty.vector_path(self.folder), 0)
                cut(empty.page_path(self.folder), 0)
                self._state = self._append(Snapshot.read(self.folder, empty), kept)
                for path in (old.vector_path(self.folder), old.page_path(self.folder)):
                    with contextlib.suppress(OSError):  # Windows refuses while a reader has it open
                        path.unlink()
            return removed

    def _half(self, page: Page, vectors: ArrayLike) -> NDArray[np.float16]:
        array = np.asarray(vectors)
        if array.ndim != 2 or not len(array) or array.shape[1] != self.model.dim:
            raise StoreError(
                f"{page.name}: expected vectors (n, {self.model.dim}) with n > 0, got shape {array.shape}; "
                f"the store was made by {self.model.name!r}"
            )
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise StoreError(f"{page.name}: vectors must be finite in float16 (at most 65504)")
        return half

    def _append(self, state: Snapshot, records: Sequence[_Record]) -> Snapshot:
        """Write behind the committed end, force it to disk, then commit."""
        old = state.manifest
        with self._reporting():
            with old.vector_path(self.folder).open("ab") as file:
                file.writelines(record.vectors.tobytes() for record in records)
                sync(file)
            with old.page_path(self.folder).open("ab") as file:
                file.writelines(record.line for record in records)
                sync(file)
        counts = [len(vectors) for vectors in (*state.vectors, *(record.vectors for record in records))]
        manifest = replace(
            old,
            pages=old.pages + len(records),
            vectors=sum(counts),
            page_bytes=old.page_bytes + sum(len(record.line) for record in records),
        )
        with self._reporting():
            manifest.save(self.folder)
        # Not read back from disk: reading all pages at every commit would make indexing quadratic.
        pages = [*state.pages, *(record.page for record in records)]
        return Snapshot.map(self.folder, manifest, pages, counts)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Name the store in what the operating system says."""
        try:
            yield
        except OSError as error:
            raise StoreError(f"cannot write to the store {self.folder}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the write lock, with the newest state read and the leavings of a dead writer cut off."""
        with self._reporting():
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", timeout=0):
                manifest = Manifest.load(self.folder)
                if manifest is None:
                    manifest = self._state.manifest
                    manifest.save(self.folder)
                manifest.model.require(self.model, where=str(self.folder))
                if manifest != self._state.manifest:
                    self._state = Snapshot.read(self.folder, manifest)
                with self._reporting():
                    cut(manifest.vector_path(self.folder), manifest.vector_bytes)
                    cut(manifest.page_path(self.folder), manifest.page_bytes)
                yield
        except Timeout as error:
            raise StoreError(f"another process is writing to the store {self.folder}; wait for it") from error


def _line(page: Page, vectors: int) -> bytes:
    try:
        return json.dumps({**page.to_dict(), "vectors": vectors}).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise StoreError(f"{page.name}: metadata must be what JSON can hold ({error})") from error
