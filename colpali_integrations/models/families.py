"""The table of model families: where each family's class is, and the version of its preprocessing.

Only strings, so that the registry can name families without importing any; see `loading.family_class`.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FAMILIES", "FamilyReference"]


class FamilyReference(NamedTuple):
    """One family.

    Attributes:
        module: the module of its class, below `colpali_integrations.models`.
        class_name: the name of the class, a `family.Family`.
        preprocessing: name and version of this package's own part in an embedding. A change that gives other vectors
            for the same files takes another version, so that existing indexes are refused.
    """

    module: str
    class_name: str
    preprocessing: str


FAMILIES = {
    "coltiny": FamilyReference("coltiny.family", "ColTinyFamily", "coltiny-6"),
    "idefics3": FamilyReference("idefics3", "Idefics3Family", "idefics3-1"),
    "paligemma": FamilyReference("paligemma", "PaliGemmaFamily", "paligemma-1"),
}
