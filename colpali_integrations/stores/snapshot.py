"""A committed state of a page store, as searches see it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.core.errors import StoreError
from colpali_integrations.stores.manifest import Manifest
from colpali_integrations.stores.records import Page

__all__ = ["Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """Replaced as a whole, so that a search in another thread sees the state before a change or the one after it.

    Attributes:
        manifest: what was committed.
        pages: the pages, in the order of addition.
        vectors: for each page its vectors, (n, dim) float16, mapped from disk.
        keys: the pages' keys.
    """

    manifest: Manifest
    pages: list[Page]
    vectors: list[NDArray[np.float16]]
    keys: frozenset[str]

    @classmethod
    def read(cls, folder: Path, manifest: Manifest) -> Snapshot:
        """The pages that the manifest counts, from disk.

        Raises:
            StoreError: the data files are not what the manifest says.
        """
        pages, counts = list[Page](), list[int]()
        try:
            if manifest.pages:
                with manifest.page_path(folder).open("rb") as file:
                    lines = file.read(manifest.page_bytes).splitlines()
                for line in lines:
                    fields = json.loads(line)
                    counts.append(fields.pop("vectors"))
                    pages.append(Page(**fields))
            if len(pages) != manifest.pages or sum(counts) != manifest.vectors:
                raise ValueError(
                    f"{manifest.pages} pages with {manifest.vectors} vectors were expected, "
                    f"{len(pages)} with {sum(counts)} are there"
                )
            return cls.map(folder, manifest, pages, counts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"the store {folder} is damaged: {error}. Index its documents into a new folder"
            ) from error

    @classmethod
    def map(cls, folder: Path, manifest: Manifest, pages: list[Page], counts: Sequence[int]) -> Snapshot:
        """Map the vectors of pages that are known already; `counts` says how many each page has."""
        vectors = list[NDArray[np.float16]]()
        if manifest.vectors:
            shape = (manifest.vectors, manifest.model.dim)
            mapped = np.memmap(manifest.vector_path(folder), dtype=np.float16, mode="r", shape=shape)
            # Split as a plain array: slicing a memmap costs ten times as much.
            vectors = np.split(np.asarray(mapped), np.cumsum(counts)[:-1])
        return cls(manifest, pages, vectors, frozenset(page.key for page in pages))
