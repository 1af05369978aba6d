"""The model families, by name; each is imported when a model of it is loaded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from colpali_integrations.core.families.base import Family

__all__ = ["FAMILIES", "family_class"]

FAMILIES = {
    "coltiny": "ColTinyFamily",
    "idefics3": "Idefics3Family",
    "paligemma": "PaliGemmaFamily",
}


def family_class(name: str) -> type[Family]:
    """The class of a family: `FAMILIES[name]` in the module of the same name in this folder."""
    return cast("type[Family]", getattr(import_module(f"{__name__}.{name}"), FAMILIES[name]))
