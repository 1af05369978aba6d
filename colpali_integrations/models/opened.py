"""How a model is opened, in Python and on the command line: for advice that can be run as it stands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from colpali_integrations.models.base import is_repository
from colpali_integrations.models.description import ModelDescription, Origin
from colpali_integrations.models.fingerprint import Fingerprint, PageSettings
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.registry import registered_model

__all__ = ["Opened"]

_PAGES = tuple(one.name for one in fields(PageSettings) if one.name != "weights")
# Options that decide which model it is; the others are of the machine.
_SHOWN = ("local_dir", "revision", "base", "dim", "allow_unused", *_PAGES)


@dataclass(frozen=True)
class Opened:
    """A model, and the options to open it with.

    Attributes:
        name: of the model.
        source: its name, repository or folder, as `ColPali.from_pretrained` takes it; None for a folder somewhere.
        options: of `ColPali.from_pretrained`.
        origin: the checkpoint of an exported folder; None for other models.
        precision: that of an exported folder, which is fixed.

    Example:
        >>> opened = Opened("large", "models/large", {"base": "me/base", "precision": "int8"})
        >>> opened.call
        "ColPali.from_pretrained('models/large', base='me/base', precision='int8')"
        >>> opened.arguments
        '--model models/large --base me/base --precision int8'
    """

    name: str
    source: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    precision: str | None = None

    @classmethod
    def by(cls, source: str, options: ModelOptions, description: ModelDescription) -> Opened:
        """The opening of a model that was described from a caller's name or folder and options."""
        chosen = {name: value for name in _SHOWN if (value := getattr(options, name)) not in (None, False)}
        fixed = None if description.origin is None else description.precision or "float32"
        return cls(description.name, source, chosen, description.origin, fixed)

    @classmethod
    def recorded(cls, name: str, fingerprint: Fingerprint) -> Opened:
        """The opening of a model by the name and the fingerprint that a store records."""
        registered = registered_model(name, None)
        known = is_repository(name) or (registered is not None and registered.fingerprint.same_space(fingerprint))
        return cls(name, name if known else None, fingerprint.pages.options)

    def with_pages(self, pages: PageSettings) -> Opened:
        """The opening of the same weights for pages of other settings."""
        if self.origin is not None and self.precision != pages.precision:
            return Opened(self.origin.name, self.origin.repository, pages.options)
        kept = {name: value for name, value in self.options.items() if name not in _PAGES}
        fixed = () if self.origin is None else ("precision",)
        chosen = {name: value for name, value in pages.options.items() if name not in fixed}
        return replace(self, options={**kept, **chosen})

    @property
    def call(self) -> str:
        """The call in Python."""
        source = f"<the folder of {self.name!r}>" if self.source is None else repr(self.source)
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"ColPali.from_pretrained({source}{options})"

    @property
    def arguments(self) -> str:
        """The options of a command."""
        words = [f"--model {f'<the folder of {self.name!r}>' if self.source is None else shlex.quote(self.source)}"]
        for name, value in self.options.items():
            several = value if isinstance(value, tuple) else (value,)
            option = f"--{name.replace('_', '-')}"
            words += [option if one is True else f"{option} {shlex.quote(str(one))}" for one in several]
        return " ".join(words)
