"""Models: from a name or folder to `ColPali`, which encodes pages and queries."""

from colpali_integrations._public import publish
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.fingerprint import Fingerprint, PageSettings
from colpali_integrations.models.registry import find_model, list_supported_models, register_model

__all__ = [
    "ColPali",
    "Fingerprint",
    "ModelDescription",
    "PageSettings",
    "find_model",
    "list_supported_models",
    "register_model",
]

publish(globals())
