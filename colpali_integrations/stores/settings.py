"""Settings of a store, kept with its vectors: the fingerprint of its model, and its way of searching."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from colpali_integrations._options import checked_whole, shown
from colpali_integrations._version import __version__
from colpali_integrations.errors import ConfigurationError, FingerprintError, StoreError
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.fingerprint import Fingerprint, same_identity, typed_fields
from colpali_integrations.models.opened import Opened
from colpali_integrations.scoring.bm25 import TOKENIZER, stemmed_languages
from colpali_integrations.scoring.codes import VectorCode
from colpali_integrations.scoring.muvera import Muvera
from colpali_integrations.stores.engine import FIRST, FULL, VectorSpec
from colpali_integrations.stores.limits import MAX_DIM

__all__ = ["Datatype", "FirstStage", "Settings", "StoredModel"]

FirstStage: TypeAlias = Literal["exact", "ward", "rows", "muvera", "int8", "int4", "int2", "binary", "centroids"]
Datatype: TypeAlias = Literal["float16", "int8", "int4", "int2", "binary"]
BITS: Mapping[Datatype, int] = {"float16": 16, "int8": 8, "int4": 4, "int2": 2, "binary": 1}
"""Bits per number of each datatype."""
LAYOUT: Any = "layout"
"""The first stage of a collection that another program has made: the vectors that its `Layout` names. Callers cannot
choose it, so it is no `FirstStage`."""
COPIES: tuple[FirstStage, ...] = ("int8", "int4", "int2", "binary", "centroids")
"""First stages that the engine makes itself of all vectors."""
_NO_STEMMER = "none"
# Format 5 is format 4 with coded or pooled vectors, which readers of format 4 would take for float16 of the model.
# Format 3 had a fingerprint in one part, format 2 identified pages by their content, format 1 was a flat file.
_FORMAT, _COMPRESSED_FORMAT = 4, 5


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """The model that made the pages of a store, as the store records it.

    Attributes:
        name: the argument of `ColPali.from_pretrained`; for messages, not compared.
        family: the processor family.
        dim: length of a vector.
        fingerprint: identity of its vectors: their space, and the settings of the pages.
        query_prompt: prefix and suffix of a query; part of the fingerprint.
        best_match: `ModelDescription.best_match`, for relevance.
        unit_length: whether every vector has length 1.
        version: of this package at the creation of the store; for messages, not compared.

    Example:
        >>> from colpali_integrations.models import find_model
        >>> coltiny = StoredModel.of(find_model("coltiny"))
        >>> coltiny.same_space(StoredModel.of(find_model("Qdrant/colmodernvbert")))
        False
        >>> StoredModel.from_dict(coltiny.to_dict()) == coltiny
        True
    """

    name: str
    family: str
    dim: int
    fingerprint: Fingerprint
    query_prompt: str = ""
    best_match: float = 1.0
    unit_length: bool = True
    version: str = ""

    @classmethod
    def of(cls, model: ModelDescription) -> StoredModel:
        """The record of a model, by its description."""
        return cls(
            name=model.name,
            family=model.family,
            dim=model.dim,
            fingerprint=model.fingerprint,
            query_prompt=f"{model.query_prefix}...{model.query_suffix}",
            best_match=model.best_match,
            unit_length=model.unit_length,
            version=__version__,
        )

    def same_space(self, other: StoredModel) -> bool:
        """Whether vectors of both can be compared: questions of one with pages of the other."""
        return self.dim == other.dim and self.fingerprint.same_space(other.fingerprint)

    def same_pages(self, other: StoredModel) -> bool:
        """Whether both make the same vectors of a page, so that one index may hold pages of both."""
        return self.same_space(other) and self.fingerprint.pages.matches(other.fingerprint.pages)

    def joined(self, other: StoredModel) -> StoredModel:
        """This record with the revisions that only the other one knows, where both are of the same weights."""
        return replace(self, fingerprint=self.fingerprint.joined(other.fingerprint))

    def require_space(self, other: StoredModel, *, where: str) -> None:
        """Check that questions of `other` can be compared with the pages of this model, which is the store's.

        Args:
            other: the model of the caller.
            where: the store, for the message.

        Raises:
            FingerprintError: they are in another space; the message shows both and gives advice.
        """
        if self.same_space(other):
            return
        reason = f"{where} was made by {self}, and the model at hand is {other}. Their vectors cannot be compared"
        if self.name == other.name:
            raise FingerprintError(
                f"{reason}: {self.name!r} has changed; index again into a new store, or go back to the earlier model."
            )
        opened, elsewhere = Opened.recorded(self.name, self.fingerprint), f"make a new store with {other.name!r}"
        raise FingerprintError(
            f"{reason}: use the model {self.name!r}, {opened.call}, or {elsewhere} in another place.",
            command=f"{reason}: pass {opened.arguments}, or {elsewhere} in another place by --store.",
        )

    def require_pages(self, other: StoredModel, *, where: str, opened: Opened | None = None) -> None:
        """Check that pages of `other` may be added to those of this model, which is the store's.

        Args:
            other: the model of the caller.
            where: the store, for the message.
            opened: how the caller opened that model, for the advice.

        Raises:
            FingerprintError: they are in another space, or made with other settings; the message shows both and gives
                advice.
        """
        self.require_space(other, where=where)
        pages = self.fingerprint.pages
        if self.same_pages(other):
            return
        if opened is not None and same_identity(pages.weights, other.fingerprint.pages.weights):
            right = opened.with_pages(pages)
        else:
            right = Opened.recorded(self.name, self.fingerprint)
        reason = (
            f"{where} holds pages made by {self.beside(other)}, and the model at hand is {other.beside(self)}. It "
            "takes questions of both, and pages of one"
        )
        raise FingerprintError(
            f"{reason}: open the model with {right.call}, or index into a new store.",
            command=f"{reason}: pass {right.arguments}, or index into a new --store.",
        )

    def beside(self, other: StoredModel) -> str:
        """The name and the settings of pages, for messages; and the weights, where `other` has different ones."""
        pages, others = self.fingerprint.pages, other.fingerprint.pages
        weights = "" if same_identity(pages.weights, others.weights) else f", weights {pages.weights}"
        return f"{self.name} ({pages}{weights})"

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, JSON-safe."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoredModel:
        """Read the result of `to_dict`; keys of later versions are ignored.

        Raises:
            KeyError: a key is missing.
            TypeError: a value is of another type.
        """
        fields = typed_fields(values, _TYPES)
        if not 0 < (best := fields.get("best_match", 1.0)) <= sys.float_info.max:
            raise TypeError(f"best_match is {shown(best)}")
        fields["best_match"] = float(best)  # NumPy refuses integers of more than 64 bits
        return cls(**fields, fingerprint=Fingerprint.from_dict(values["fingerprint"]))

    def __str__(self) -> str:
        version = f", by version {self.version}" if self.version else ""
        return (
            f"{self.name} (family {self.family}, dim {self.dim}, query prompt {self.query_prompt!r}, space "
            f"{self.fingerprint.space}, {self.fingerprint.pages}{version})"
        )


_TYPES = {
    **dict.fromkeys(("name", "family", "query_prompt", "version"), str),
    **{"dim": int, "best_match": int | float, "unit_length": bool},
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The properties of a store that are fixed at its creation.

    Attributes:
        model: the model of its pages. A revision of its weights that is not known at the creation is added once.
        first_stage: the vectors that a two-stage search scans first: "ward", means of similar vectors of a page;
            "rows", means of the rows of its grid; "muvera", one vector; "int8", "int4", "int2" or "binary", small
            copies of all vectors that the engine makes itself, whose candidates get exact scores; "centroids", an index
            of them for large stores in folders (PLAID, arXiv 2205.09707); "exact", none: every search compares with all
            vectors. Averaging discards the weights that a model encodes in vector lengths: on 901 pages of manuals
            "ward" kept 62% of ColTiny's best ten among 100 candidates, on 10,000 ColPali-like pages 98%. For ColTiny
            take "exact", and from about 20,000 pages on "centroids". Of a collection that another program has made it
            is "layout".
        first_vectors: number of vectors per page in the first stage "ward".
        datatype: of the stored vectors: "float16"; or "int8", "int4", "int2" or "binary": integers of so many bits
            after a rotation, with which questions are compared as floats. In folders and in memory they are those of
            `scoring.codes`; a Qdrant server has a code of its own for "int8" and "int4", and none for the others.
        pool_factor: similar vectors of a page are averaged when it is stored, so many to one (`hierarchical_pool`); 1
            keeps all. Texts, and pages that come without a grid, keep theirs.
        language: of the texts, for the stems of BM25; "none", which is kept as None, compares words as they are.
        tokenizer: the version of the splitting of texts into words. A store keeps the one that it was made with, for
            its texts and for questions.
        distance: "dot" for MaxSim of the vectors as they are; "cosine" of vectors of length 1, in a collection that
            another program has made so.

    Raises:
        ConfigurationError: an unknown first stage, datatype or language, a number below 1, or a model whose vectors are
            too long.

    Example:
        >>> from colpali_integrations.models import find_model
        >>> colpali = StoredModel.of(find_model("Qdrant/colpali-v1.3-fp16"))
        >>> settings = Settings(model=colpali, first_stage="muvera")
        >>> {name: (vectors.dim, vectors.multi) for name, vectors in settings.schema.items()}
        {'full': (128, True), 'first': (10240, False)}
    """

    model: StoredModel
    first_stage: FirstStage = "exact"
    first_vectors: int = 32
    datatype: Datatype = "float16"
    pool_factor: int = 1
    language: str | None = "english"
    tokenizer: int = TOKENIZER
    distance: Literal["dot", "cosine"] = "dot"

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if self.first_stage not in (*get_args(FirstStage), LAYOUT):
            raise ConfigurationError(
                f"first_stage must be one of {', '.join(map(repr, get_args(FirstStage)))}, got {self.first_stage!r}"
            )
        datatype: object = self.datatype  # anything may come from callers without type checks
        if not isinstance(datatype, str) or datatype not in BITS:
            raise ConfigurationError(f"datatype must be one of {', '.join(map(repr, BITS))}, got {shown(datatype)}")
        if self.language == _NO_STEMMER:
            object.__setattr__(self, "language", None)
        elif self.language not in (None, "english") and self.language not in stemmed_languages():
            raise ConfigurationError(
                f"there is no stemmer for the language {shown(self.language)}; pass language='{_NO_STEMMER}', which "
                f"compares words as they are, or one of {', '.join(stemmed_languages())}"
            )
        for name in ("first_vectors", "pool_factor"):
            object.__setattr__(self, name, checked_whole(getattr(self, name), name))
        if not 1 <= self.model.dim <= MAX_DIM:
            raise ConfigurationError(f"vectors may have 1 to {MAX_DIM} numbers, those of the model {self.model.dim}")

    @property
    def schema(self) -> dict[str, VectorSpec]:
        """The vectors of a point."""
        copies = self.first_stage if self.first_stage in COPIES else None
        schema = {FULL: VectorSpec(dim=self.model.dim, quantization=copies, code=self.code)}
        if self.first_stage in ("ward", "rows"):
            schema[FIRST] = VectorSpec(dim=self.model.dim, coarse=True)
        elif self.first_stage == "muvera":
            schema[FIRST] = VectorSpec(dim=self.muvera.size, multi=False, coarse=True, longest=self.muvera.longest)
        return schema

    @property
    def code(self) -> VectorCode | None:
        """The code of the stored vectors; None for float16."""
        if self.datatype == "float16":
            return None
        return VectorCode(self.model.dim, BITS[self.datatype])

    @property
    def is_foreign(self) -> bool:
        """Whether another program has made the collection, which is read by a `Layout`."""
        return bool(self.first_stage == LAYOUT)

    @property
    def is_compressed(self) -> bool:
        """Whether the store keeps less than the model's vectors in float16."""
        return self.datatype != "float16" or self.pool_factor > 1

    @property
    def muvera(self) -> Muvera:
        """The encoder of the first stage "muvera", with the published parameters."""
        return Muvera(self.model.dim, d_proj=min(16, self.model.dim))

    def require(self, other: Settings, *, where: str) -> None:
        """Check that a store with these settings fits a request for `other`.

        Raises:
            FingerprintError: `other` has a model of another space.
            ConfigurationError: `other` has another first stage, datatype, pooling or language.
        """
        self.model.require_space(other.model, where=where)
        names = ["first_stage", "datatype", "pool_factor", "language"]
        names += ["first_vectors"] if self.first_stage == "ward" else []
        if differing := [name for name in names if getattr(self, name) != getattr(other, name)]:
            actual, requested = (
                ", ".join(f"{name}={getattr(settings, name) or _NO_STEMMER!r}" for name in differing)
                for settings in (self, other)
            )
            raise ConfigurationError(
                f"{where} was made with {actual}, and {requested} was requested. Leave these out to take the store's, "
                "or index anew into another place."
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, with the format's number."""
        fields = {name: value for name, value in asdict(self).items() if (name, value) != ("distance", "dot")}
        return {"format": _COMPRESSED_FORMAT if self.is_compressed else _FORMAT, **fields}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str) -> Settings:
        """Read the result of `to_dict`.

        Raises:
            StoreError: `values` have another format, or are damaged.
        """
        if values.get("format") not in (_FORMAT, _COMPRESSED_FORMAT):
            raise StoreError(
                f"{where} has format {values.get('format')!r}, this version reads {_FORMAT} and {_COMPRESSED_FORMAT}: "
                "index its documents into a new place, or use the version that made it"
            )
        tokenizer = values.get("tokenizer", 1)
        if isinstance(tokenizer, int) and tokenizer > TOKENIZER:
            raise StoreError(
                f"{where} splits texts into words in a way of a later version of this package (tokenizer {tokenizer}; "
                f"this one knows {TOKENIZER}): update it, or index its documents into a new place"
            )
        try:
            fields = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
            fields |= typed_fields(values, {"language": str | None})
            if fields.get("distance", "dot") not in ("dot", "cosine"):
                raise TypeError(f"distance is {shown(fields['distance'])}")
            fields["tokenizer"] = checked_whole(tokenizer, "tokenizer")
            return cls(**{**fields, "model": StoredModel.from_dict(values["model"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{where} has a damaged description ({error}); index its documents anew") from error
