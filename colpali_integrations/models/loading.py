"""From a model's name or folder to the class of its family."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.family import Family

__all__ = ["family_class"]


def family_class(name: str) -> type[Family]:
    """The class of a family; its module is imported when a model of it is loaded.

    Args:
        name: a key of `families.FAMILIES`.
    """
    reference = FAMILIES[name]
    module = import_module(f"colpali_integrations.models.{reference.module}")
    return cast("type[Family]", getattr(module, reference.class_name))
