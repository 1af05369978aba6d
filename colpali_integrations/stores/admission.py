"""Which models may ask a store, and which may add pages: checks against the record of the model that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from colpali_integrations._logs import package_logger
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.fingerprint import Fingerprint
from colpali_integrations.stores.engine import Engine
from colpali_integrations.stores.model_choice import ModelLike, stored_model
from colpali_integrations.stores.settings import Settings, StoredModel

__all__ = ["Admission"]

logger = package_logger(__name__)

# Stores, their fingerprints, and those of models with other settings that ask them; each is logged once per process.
_told: set[tuple[str, Fingerprint, Fingerprint]] = set()


class Admission:
    """The checks of one store, and its settings.

    A store that was made by a mere name does not know the revision of its weights. It learns that of the first model
    that adds entries, and refuses others from then on.

    Args:
        engine: of the store.
        settings: of the store.

    Attributes:
        settings: of the store, with the revisions that it has learned.
        default: the model of vectors that are added without one; None where nothing is known of it.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine, self.settings = engine, settings
        self._asking: ColPali | None = None
        self._untold: ColPali | None = None
        self.default: ModelLike | None = None

    def opened_with(self, model: ModelLike | None) -> None:
        """Check the model that a store is opened with; it also made the vectors that are added without a model.

        A name tells only the settings of its registration, and is not compared with those of the pages.
        """
        if isinstance(model, ColPali):
            self.require_space(model)
        if isinstance(model, ColPali | ModelDescription | StoredModel):
            self.default = model

    def require_space(self, model: ModelLike) -> None:
        """See `MultiVectorStore.require_space`."""
        if model is self._asking:
            return
        asking = stored_model(model)
        if self.settings.model.joined(asking) != self.settings.model:
            # Another process may have added entries since the store was opened.
            self._set(self._engine.change_manifest(lambda manifest: manifest))
        self.settings.model.require_space(asking, where=self._engine.where)
        if isinstance(model, ColPali):
            self._asking = self._untold = model

    def require_pages(self, model: ModelLike) -> None:
        """See `MultiVectorStore.require_pages`."""
        self._require_pages(stored_model(model), model)

    def _require_pages(self, made_by: StoredModel, model: ModelLike) -> None:
        opened = model.opened if isinstance(model, ColPali) else None
        self.settings.model.require_pages(made_by, where=self._engine.where, opened=opened)

    def adding(self, model: ModelLike | None) -> StoredModel | None:
        """The checked record of the model whose vectors are added; None where the caller tells nothing of it.

        Args:
            model: of the caller; None for the one that the store was opened with.
        """
        if (given := model or self.default) is None:
            return None
        made_by = stored_model(given)
        if model is None and isinstance(given, ModelDescription):
            # It tells only the settings that it has: others may have been options of the model.
            own, pages = made_by.fingerprint, self.settings.model.fingerprint.pages.changed(given)
            made_by = replace(made_by, fingerprint=replace(own, pages=replace(pages, weights=own.pages.weights)))
        self._require_pages(made_by, given)
        return made_by

    def learn(self, made_by: StoredModel) -> None:
        """Record the revisions of a model that is about to add entries, where the store does not know any.

        Raises:
            FingerprintError: another thread or process has recorded other ones.
        """

        def learned(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
            model = self._settings_of(manifest).model
            model.require_pages(made_by, where=self._engine.where)
            fingerprint = asdict(model.joined(made_by).fingerprint)
            return {**manifest, "model": {**manifest["model"], "fingerprint": fingerprint}}

        stored = self.settings.model  # once, because another thread may replace it
        stored.require_pages(made_by, where=self._engine.where)
        if stored.joined(made_by) != stored:
            self._set(self._engine.change_manifest(learned))

    def tell_settings(self) -> None:
        """Log once per process that questions are encoded with other settings than the store's pages."""
        model, self._untold = self._untold, None
        if model is None:
            return
        stored, asking, where = self.settings.model, stored_model(model), self._engine.where
        both = where, stored.fingerprint, asking.fingerprint
        if both not in _told and not stored.same_pages(asking):
            _told.add(both)
            logger.warning(
                "%s holds pages made by %s, and questions are encoded by %s; both are of one space, and scores differ "
                "a little from those of the pages' own settings",
                *(where, stored.beside(asking), asking.beside(stored)),
            )

    def _set(self, manifest: Mapping[str, Any]) -> None:
        settings = self._settings_of(manifest)
        if settings != self.settings:
            self.settings, self._asking = settings, None

    def _settings_of(self, manifest: Mapping[str, Any]) -> Settings:
        return Settings.from_dict(manifest, where=self._engine.where)
