"""Configurations: the ways to search that an evaluation compares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias, get_args

from colpali_integrations._options import checked_whole, shown, unknown_option
from colpali_integrations._text import parse_json
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.options import OPTION_NAMES
from colpali_integrations.stores.fusion import Hybrid
from colpali_integrations.stores.search import Mode, SearchOptions
from colpali_integrations.stores.settings import COPIES, FirstStage

__all__ = ["Configuration", "Datatype"]

Datatype: TypeAlias = Literal["float32", "float16", "int8", "int4", "int2", "binary"]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A way to search: how the pages' vectors are made and kept, and how they are searched.

    Fields that are None are those of the store. A configuration that differs from the store in its vectors is searched
    in a temporary copy; the store itself stays as it is.

    Attributes:
        name: in tables; by default the settings that differ from the defaults.
        model: another model, a `ColPali` or its name or folder. It encodes the pages from their files.
        model_options: options of `ColPali.from_pretrained`, such as `precision`, for a name or folder.
        datatype: of the pages' vectors. "float32" encodes the pages anew, because no store keeps it; the others are
            those of a store in a folder, as `stores.compress_store` makes it; see `stores.Settings`. A store that is
            compressed already has only its own, unless `model` encodes the pages anew.
        pooling: vectors per mean of similar vectors, the `pool_factor` of a store; 1 keeps all.
        first_stage: the vectors that a two-stage search scans first; see `stores.Settings`.
        first_vectors: number of those per page, for "ward".
        mode: "auto", "exact" or "two_stage"; see `stores.SearchOptions`.
        oversampling: the first stage hands on `oversampling * k` candidates.
        hybrid: fuse with BM25 over the texts, as in `SearchOptions`: True, a weight of the text, or "rrf"; "auto" as
            `MultiVectorStore.search` of a text has it, False for none.

    Raises:
        ConfigurationError: a field has an invalid value, or fields contradict each other.

    Example:
        >>> Configuration(mode="exact").label, Configuration(hybrid=0.2, pooling=3).label, Configuration().label
        ('mode=exact', 'pooling=3, hybrid=0.2', 'as stored')
        >>> Configuration.parse("blend: hybrid=0.2").label
        'blend'
    """

    name: str = ""
    model: ColPali | str | os.PathLike[str] | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    datatype: Datatype | None = None
    pooling: int | None = None
    first_stage: FirstStage | None = None
    first_vectors: int | None = None
    mode: Mode = "auto"
    oversampling: float | None = None
    hybrid: Hybrid = "auto"

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        _require_choice("datatype", self.datatype, get_args(Datatype))
        _require_choice("first_stage", self.first_stage, get_args(FirstStage))
        for name in ("pooling", "first_vectors"):
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, checked_whole(number, name))
        self.options(10)
        if self.model_options and not isinstance(self.model, str | os.PathLike):
            raise ConfigurationError(
                f"{', '.join(self.model_options)}: options of a model need model=, a name or folder"
            )
        if self.model_options.keys() - OPTION_NAMES:
            raise unknown_option("Configuration", self.model_options, OPTION_NAMES)
        if self.datatype == "float32" and self.first_stage in COPIES:
            raise ConfigurationError(
                f"datatype='float32' is searched in memory, without a first stage {self.first_stage!r}; leave one out"
            )

    @property
    def label(self) -> str:
        """The name, or the settings that differ from the defaults."""
        if self.name:
            return self.name
        values = {} if self.model is None else {"model": _model_name(self.model)}
        values |= self.model_options
        values |= {one: getattr(self, one) for one in _SEARCH if self._is_set(one)}
        return ", ".join(f"{name}={value}" for name, value in values.items()) or "as stored"

    @property
    def is_stored(self) -> bool:
        """Whether the store's own vectors are searched."""
        return not any(map(self._is_set, ("model", "datatype", "pooling", "first_stage", "first_vectors")))

    @property
    def encodes(self) -> bool:
        """Whether the pages are encoded anew, from their files."""
        return self.model is not None or self.datatype == "float32"

    def options(self, k: int, where: Any = None) -> SearchOptions:
        """The options of its search."""
        return SearchOptions(k=k, where=where, mode=self.mode, oversampling=self.oversampling, hybrid=self.hybrid)

    def _is_set(self, name: str) -> bool:
        return bool(getattr(self, name) != _DEFAULTS[name])

    @classmethod
    def parse(cls, text: str) -> Configuration:
        """The configuration of a text, as the command line has it: "name: key=value, key=value".

        Options of a model stand beside it: "model=Hcompany/NeoMME-260M-Retriever, precision=int8".

        Raises:
            ConfigurationError: it has another form, or as the constructor.
        """
        name, settings = _split_name(text)
        values: dict[str, Any] = {}
        for pair in filter(None, (part.strip() for part in settings.split(","))):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or not value:
                raise ConfigurationError(
                    f"{shown(pair)} is not of the form KEY=VALUE, in the configuration {shown(text)}"
                )
            values[key.replace("-", "_")] = _value(value)
        own = {one.name for one in fields(cls)} - {"name", "model_options"}
        options = {key: values.pop(key) for key in [*values] if key in OPTION_NAMES and key not in own}
        if values.keys() - own:
            raise unknown_option("a configuration", values, own | OPTION_NAMES, _GUESSES)
        if isinstance(values.get("model"), int | float):
            values["model"] = str(values["model"])
        return cls(name=name, model_options=options, **values)

    @classmethod
    def of(cls, value: Any) -> Configuration:
        """A configuration, or that of a text or of a dict of fields.

        Raises:
            ConfigurationError: it is none of these.
        """
        if isinstance(value, Configuration):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, Mapping):
            names = {one.name for one in fields(cls)}
            if value.keys() - names:
                raise unknown_option("Configuration", value, names, _GUESSES)
            return cls(**value)
        raise ConfigurationError(f"a configuration is a Configuration, its text or a dict, got {shown(value)}")

    def named(self, name: str) -> Configuration:
        """The same by another name."""
        return replace(self, name=name)


_DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(Configuration)} | {"model_options": {}}
_SEARCH = [name for name in _DEFAULTS if name not in ("name", "model", "model_options")]
_GUESSES = {
    **dict.fromkeys(("candidates", "prefetch", "rescore"), "candidates are oversampling= times k"),
    **dict.fromkeys(("dtype", "quantization", "data_type"), "use datatype="),
    **dict.fromkeys(("pool", "pool_factor", "token_pooling"), "use pooling="),
    **dict.fromkeys(("weight", "alpha", "hybrid_weight"), "the weight of the text is hybrid="),
    **dict.fromkeys(("k", "top_k"), "k is an option of evaluate"),
    "stage": "use first_stage=",
    "exact": "use mode='exact'",
}


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}")


def _model_name(model: ColPali | str | os.PathLike[str]) -> str:
    return model.description.name if isinstance(model, ColPali) else os.fspath(model)


def _split_name(text: str) -> tuple[str, str]:
    """The name before a colon, and the settings. The colon of a value, as in a Windows path, is behind an "="."""
    name, colon, settings = text.partition(":")
    if not colon or "=" in name:
        return "", text
    return name.strip(), settings


def _value(text: str) -> Any:
    """A value: JSON such as 0.2 or true, or else text.

    >>> _value("0.2"), _value("True"), _value("ward")
    (0.2, True, 'ward')
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = parse_json(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text
