"""Vectors of the pages for a configuration: the store's, or those of a model, as a store of its settings keeps them.

Pages are encoded once per model, into files: a run that is interrupted goes on, if the caller names their folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.evaluation.configurations import Configuration
from colpali_integrations.evaluation.corpus import Corpus
from colpali_integrations.explain.grid import PageEmbedding, PageGrid
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.shared import shared_model
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.reference import draw_page
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.machine import available_cores
from colpali_integrations.scoring.pooling import group_means, hierarchical_groups
from colpali_integrations.stores import Entry, MultiVectorStore, Progress
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.engine import FULL, Point, pieces
from colpali_integrations.stores.ingestion.progress import ProgressCallback
from colpali_integrations.stores.memory import MemoryEngine
from colpali_integrations.stores.model_choice import continued_options, stored_model
from colpali_integrations.stores.points import PointMaker
from colpali_integrations.stores.settings import COPIES, Settings

__all__ = ["Pages", "Pictures"]

_TOGETHER = 64  # pages whose vectors are read from the store at a time


@dataclass(frozen=True)
class Pictures:
    """How pages are drawn again.

    Attributes:
        corpus: the data set that holds the pictures; None draws pages from their files.
        access: how the files are opened.
    """

    corpus: Corpus | None = None
    access: PageAccess = DEFAULT_ACCESS

    def draw(self, entries: Mapping[str, Entry], *, dpi: float | None = None) -> Iterator[tuple[Entry, Image.Image]]:
        """The pictures of pages.

        Raises:
            InputError: a picture is missing or has changed since; the message names it.
        """
        held = {} if self.corpus is None else {id_ for id_ in self.corpus.ids if id_ in entries}
        if self.corpus is not None and held:
            for page in self.corpus.pages(held):
                if page.image is not None:
                    yield entries[page.id], load_image(page.image, **self.access.limits.options)
        for id_, entry in entries.items():
            if id_ not in held:
                yield entry, draw_page(entry.metadata, self.access, dpi=dpi)


class Pages:
    """The pages of a store, with vectors as configurations have them.

    Args:
        store: the store.
        entries: the pages and texts that are compared, by id.
        pictures: how they are drawn, for other models.
        folder: for the vectors of other models.
        progress: is called before the first page that is encoded, and after each.

    Attributes:
        exact: per question the exact scores of the store's own vectors, once a configuration has computed them.
    """

    def __init__(
        self,
        store: MultiVectorStore,
        entries: Mapping[str, Entry],
        pictures: Pictures,
        folder: Path,
        progress: ProgressCallback,
    ) -> None:
        self.store, self.entries = store, entries
        self._pictures, self._folder, self._progress = pictures, folder, progress
        self._questions: dict[ColPali, list[Float32]] = {}
        self.exact: list[dict[str, float]] = []

    def encoder(self, configuration: Configuration) -> ColPali:
        """The model of a configuration, which encodes its questions."""
        model = configuration.model
        if model is None:
            return self.store.encoder
        if isinstance(model, ColPali):
            return model
        options = continued_options(self.store.model, model, configuration.model_options)
        return shared_model(model, ModelOptions(**options))

    def questions(self, configuration: Configuration, texts: Sequence[str]) -> list[Float32]:
        """The vectors of the questions, which are encoded once per model."""
        model = self.encoder(configuration)
        if model not in self._questions:
            self._questions[model] = list(model.embed_queries(texts))
        return self._questions[model]

    def check(self, configuration: Configuration) -> None:
        """Open the model of a configuration, and check that it can be searched.

        Raises:
            ConfigurationError: the store does not have the vectors that it asks for.
            ModelError: its model cannot be opened.
        """
        self.encoder(configuration)
        settings = self._settings(configuration)
        if configuration.mode == "two_stage" and settings.first_stage == "exact":
            raise ConfigurationError(
                "mode=two_stage needs a first stage, and there is none; add first_stage=ward to the configuration, or "
                "take mode=exact"
            )

    def _settings(self, configuration: Configuration) -> Settings:
        """The settings of the store that a configuration searches."""
        stored = self.store.settings
        if configuration.is_stored:
            return stored
        changes = [name for name in ("datatype", "pooling") if getattr(configuration, name) is not None]
        if stored.is_compressed and changes and not configuration.encodes:
            raise ConfigurationError(
                f"{self.store.where} keeps datatype={stored.datatype} and pool_factor={stored.pool_factor}, of which "
                f"no other vectors can be made; add model={stored.model.name} to encode the pages anew from "
                f"their files, or leave out {' and '.join(changes)}"
            )
        settings = replace(
            stored,
            model=stored.model if configuration.model is None else stored_model(self.encoder(configuration)),
            # Vectors that were restored from codes are not coded again, which would round them twice.
            datatype=stored.datatype if configuration.encodes else "float16",
            pool_factor=configuration.pooling or stored.pool_factor,
            first_stage=configuration.first_stage or ("exact" if stored.is_foreign else stored.first_stage),
            first_vectors=configuration.first_vectors or stored.first_vectors,
        )
        if configuration.datatype == "float32":  # the copy in memory scores every page exactly
            in_folders = settings.first_stage in COPIES
            return replace(settings, datatype="float16", first_stage="exact" if in_folders else settings.first_stage)
        return replace(settings, datatype=configuration.datatype or settings.datatype)

    @contextmanager
    def searched(self, configuration: Configuration) -> Iterator[MultiVectorStore]:
        """The store that a configuration searches: the store itself, or a temporary copy."""
        if configuration.is_stored:
            yield self.store
            return
        settings, exact = self._settings(configuration), configuration.datatype == "float32"
        with tempfile.TemporaryDirectory(prefix="evaluate-", dir=self._folder) as folder:
            options: dict[str, Any] = {"schema": settings.schema, "manifest": settings.to_dict()}
            engine = MemoryEngine(**options) if exact else FolderEngine(Path(folder) / "store", **options)
            with MultiVectorStore(engine, settings) as copy:
                for points in self._points(configuration, settings, PointMaker(settings, engine.where)):
                    engine.upsert(points)
                engine.optimize()
                yield copy

    def _points(self, configuration: Configuration, settings: Settings, maker: PointMaker) -> Iterator[list[Point]]:
        """The points of the pages."""

        def point(pair: tuple[Entry, PageEmbedding]) -> Point:
            entry, page = pair
            if configuration.datatype != "float32":
                return maker.point(_light(entry, page.grid), page.vectors)
            vectors, grid = _pooled(page.vectors, page.grid, settings)
            made = maker.point(_light(entry, grid), vectors)  # in float16
            return replace(made, vectors={**made.vectors, FULL: vectors})

        pages = self._encoded(self.encoder(configuration)) if configuration.encodes else self._stored()
        with ThreadPoolExecutor(available_cores()) as threads:
            for some in pieces(pages, _TOGETHER):
                yield list(threads.map(point, some))

    def _stored(self) -> Iterator[tuple[Entry, PageEmbedding]]:
        for ids in pieces(self.entries, _TOGETHER):
            for id_, vectors in zip(ids, self.store.vectors(ids), strict=True):
                if vectors is not None:
                    entry = self.entries[id_]
                    yield entry, PageEmbedding(vectors, entry.grid)  # type: ignore[arg-type]

    # -- encoding -------------------------------------------------------------------------------------------------

    def _encoded(self, model: ColPali) -> Iterator[tuple[Entry, PageEmbedding]]:
        """The vectors of a model, of which those that are not in the folder are made first."""
        folder = self._folder / hashlib.sha256(repr(model.description.fingerprint).encode()).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
        files = {id_: folder / f"{_key(entry)}.npz" for id_, entry in self.entries.items()}
        missing = {id_: self.entries[id_] for id_, file in files.items() if not file.is_file()}
        self._encode_pages({id_: entry for id_, entry in missing.items() if entry.is_page}, files, model)
        self._encode_texts({id_: entry for id_, entry in missing.items() if not entry.is_page}, files, model)
        for id_, entry in self.entries.items():
            yield entry, _load(files[id_])

    def _encode_pages(self, entries: Mapping[str, Entry], files: Mapping[str, Path], model: ColPali) -> None:
        drawn: list[Entry] = []

        def pictures() -> Iterator[Image.Image]:
            for entry, picture in self._pictures.draw(entries):
                drawn.append(entry)
                yield picture

        if entries:
            self._progress(Progress(0, len(entries)))
        try:
            for done, page in enumerate(model.embed_pages(pictures()), 1):
                entry = drawn[done - 1]
                _save(files[entry.id], page)
                self._progress(Progress(done, len(entries), entry.name))
        except InputError as error:
            raise InputError(
                f"{error}. This configuration encodes the pages again, from their files: bring the file back, or leave "
                "this configuration out"
            ) from error

    def _encode_texts(self, entries: Mapping[str, Entry], files: Mapping[str, Path], model: ColPali) -> None:
        vectors = model.embed_texts([entry.text for entry in entries.values()]) if entries else iter(())
        for id_, one in zip(entries, vectors, strict=True):
            _save(files[id_], PageEmbedding(one, None))  # type: ignore[arg-type]


def encoding_folder(path: str | os.PathLike[str]) -> Path:
    """A caller's folder for vectors, which is made."""
    folder = user_path(path, ConfigurationError)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cache={os.fspath(path)!r} cannot be used as a folder: {error.strerror}") from error
    return folder


def _pooled(vectors: Float32, grid: PageGrid | None, settings: Settings) -> tuple[Float32, PageGrid | None]:
    """The vectors of a page pooled as `PointMaker` does it, in float32, and their grid."""
    if grid is None or settings.pool_factor == 1:
        return vectors, grid
    groups = hierarchical_groups(vectors, settings.pool_factor)
    return group_means(vectors, groups, normalize=settings.model.unit_length), replace(grid, groups=groups)


def _light(entry: Entry, grid: PageGrid | None) -> Entry:
    """The entry without metadata; a text that is only a page's name is none."""
    return Entry(id=entry.id, text=entry.text if entry.has_text else "", grid=grid)


def _key(entry: Entry) -> str:
    content = entry.content_hash if entry.is_page else entry.text
    return hashlib.sha256(f"{entry.id}\n{content}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _save(file: Path, page: PageEmbedding) -> None:
    """Write vectors and grid; a file that is there is whole."""
    buffer = BytesIO()
    grid = page.grid.to_json() if page.grid else None
    np.savez(buffer, vectors=page.vectors, grid=np.frombuffer(json.dumps(grid).encode(), np.uint8))
    part = file.with_suffix(".part")
    part.write_bytes(buffer.getvalue())
    part.replace(file)


def _load(file: Path) -> PageEmbedding:
    with np.load(file) as stored:
        grid = json.loads(stored["grid"].tobytes())
        return PageEmbedding(stored["vectors"], None if grid is None else PageGrid.from_json(grid))  # type: ignore[arg-type]
