"""The fingerprint of a model's vectors: the space that they are in, and the settings of its pages.

Vectors of one space can be compared. Precision and the size of a page move them within it, so that a question may be
asked at any of them; the pages of one index have one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import zip_longest
from typing import Any

__all__ = ["COMMIT", "Fingerprint", "PageSettings", "identity", "joined", "same_identity", "typed_fields"]

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A revision that stays; a branch and a tag may move."""

_FILES = "sha256:"
_IDENTITY = re.compile(r"[0-9a-f]+@[0-9a-fsh:,+]*")


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """The settings that decide a page's vectors within their space.

    Attributes:
        weights: an `identity` of the weights and prompts. It differs from that of the space for models that are trained
            for one space.
        precision: as in `ModelDescription`; None for an ONNX export, which has that of its files.
        max_side: as in `ModelDescription`.
        max_num_visual_tokens: as in `ModelDescription`.
        drop_blank: as in `ModelDescription`; None where all vectors of a page are kept.

    Example:
        >>> settings = PageSettings(weights="0123", precision="int8", max_side=1440)
        >>> str(settings), settings.options
        ('precision int8, max_side 1440', {'precision': 'int8', 'max_side': 1440})
    """

    weights: str
    precision: str | None = None
    max_side: int | None = None
    max_num_visual_tokens: int | None = None
    drop_blank: bool | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Those that are options of `ColPali.from_pretrained`, without those that are left to the model's files."""
        return {name: value for name, value in asdict(self).items() if name != "weights" and value is not None}

    def changed(self, settings: object) -> PageSettings:
        """These settings with those that a description or options set, None or False for none."""
        values = {one.name: getattr(settings, one.name) for one in fields(self) if one.name != "weights"}
        return replace(self, **{name: value for name, value in values.items() if value})

    def matches(self, other: PageSettings) -> bool:
        """Whether both make the same vectors of a page."""
        return self.options == other.options and same_identity(self.weights, other.weights)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.options.items()) or "settings of its files"


@dataclass(frozen=True)
class Fingerprint:
    """Identity of the vectors that a model makes, in two parts.

    Attributes:
        space: an `identity` of weights, prompts and dim; or the name of a space that several models are trained for.
        pages: what else decides the vectors of a page.

    Example:
        >>> from dataclasses import replace
        >>> from colpali_integrations.models import find_model
        >>> model = find_model("Hcompany/NeoMME-260M-Retriever")
        >>> exact, small = model.fingerprint, replace(model, precision="int8").fingerprint
        >>> exact.same_space(small), exact.pages.matches(small.pages)
        (True, False)
    """

    space: str
    pages: PageSettings

    @property
    def key(self) -> str:
        """16 hex digits of a hash of both parts, for caches."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def same_space(self, other: Fingerprint) -> bool:
        """Whether vectors of both can be compared."""
        return same_identity(self.space, other.space)

    def joined(self, other: Fingerprint) -> Fingerprint:
        """This fingerprint with the revisions that only the other one knows, where both are of the same weights."""
        weights = joined(self.pages.weights, other.pages.weights)
        return Fingerprint(joined(self.space, other.space), replace(self.pages, weights=weights))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fingerprint:
        """Read the result of `dataclasses.asdict`; keys of later versions are ignored.

        Raises:
            KeyError: a key is missing.
            TypeError: a value is of another type.
        """
        pages = typed_fields(values["pages"], _PAGE_TYPES)
        return cls(typed_fields(values, {"space": str})["space"], PageSettings(**pages))


def typed_fields(values: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """The values of known names, such as those of a file.

    Args:
        values: by name; unknown names are left out.
        types: by name, as for `isinstance`. A bool counts as a number only where bool is named.

    Raises:
        TypeError: a value is of another type.

    Example:
        >>> typed_fields({"dim": 128, "colour": "red"}, {"dim": int, "name": str})
        {'dim': 128}
    """
    known = {name: values[name] for name in types if name in values}
    for name, value in known.items():
        if not isinstance(value, types[name]) or (isinstance(value, bool) and types[name] not in _FLAGS):
            raise TypeError(f"{name} is {value!r}")
    return known


_FLAGS: tuple[Any, ...] = (bool, bool | None)
_PAGE_TYPES = {
    **{"weights": str, "precision": str | None, "drop_blank": bool | None},
    **dict.fromkeys(("max_side", "max_num_visual_tokens"), int | None),
}


def identity(values: Mapping[str, Any], *revisions: str | None) -> str:
    """Identify weights and their use: a hash of everything but the revisions, and the revisions.

    Args:
        values: JSON-safe.
        revisions: of the weights, and of the base of an adapter: a commit of 40 hex digits, or "sha256:" and a hash
            over the files. Others are unknown: None, as of a model that is only named, and a branch or a tag, which may
            move.

    Example:
        >>> identity({"dim": 128}, "sha256:0123abcd", "main")
        'b96be1a6caba8fc8@sha256:0123abcd+'
    """
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
    exact = (one if one and (one.startswith(_FILES) or COMMIT.fullmatch(one)) else "" for one in revisions)
    return f"{digest}@{'+'.join(exact)}"


def same_identity(one: str, other: str) -> bool:
    """Whether two identities, or names of spaces, are those of the same weights.

    Revisions of one kind must be equal. A commit is not compared with a hash of files, nor any revision with an unknown
    one.

    Example:
        >>> same_identity("d3b6@0123abc+", "d3b6@+"), same_identity("d3b6@0123abc+", "d3b6@4567def+")
        (True, False)
    """
    if not (_IDENTITY.fullmatch(one) and _IDENTITY.fullmatch(other)):
        return one == other
    (digest, revisions), (other_digest, other_revisions) = _parts(one), _parts(other)
    pairs = zip(revisions, other_revisions, strict=False)
    return digest == other_digest and all(a[kind] == b[kind] for a, b in pairs for kind in a.keys() & b.keys())


def joined(one: str, other: str) -> str:
    """The first of two identities with the revisions that only the other one knows; unchanged if they differ.

    Each revision then has a commit and a hash of files, where both kinds have been met.

    Example:
        >>> joined("d3b6@+4567def", "d3b6@sha256:0123abcd+4567def")
        'd3b6@sha256:0123abcd+4567def'
        >>> joined("d3b6@0123abc+", "d3b6@sha256:0123abcd+")
        'd3b6@0123abc,sha256:0123abcd+'
    """
    if one == other or not same_identity(one, other):
        return one
    (digest, revisions), (_, other_revisions) = _parts(one), _parts(other)
    nothing: dict[bool, str] = {}
    both = [{**b, **a} for a, b in zip_longest(revisions, other_revisions, fillvalue=nothing)]
    return f"{digest}@{'+'.join(','.join(a[kind] for kind in sorted(a)) for a in both)}"


def _parts(identity: str) -> tuple[str, list[dict[bool, str]]]:
    """The hash, and the revisions: of each its commit and its hash of files, under False and True."""
    digest, _, revisions = identity.partition("@")
    several = (revision.split(",") for revision in revisions.split("+"))
    return digest, [{one.startswith(_FILES): one for one in kinds if one} for kinds in several]
