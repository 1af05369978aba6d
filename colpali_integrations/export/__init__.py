"""From a PyTorch checkpoint to an ONNX folder that this package loads: ColPali, ColModernVBERT, ColSmol and their kin.

The one part of the package that uses PyTorch, in an extra of its own: ``pip install "colpali-integrations[export]"``.
Nothing else imports it, and what it writes needs none of it.
"""

from __future__ import annotations

from colpali_integrations.errors import MissingExtraError

try:
    import colpali_engine  # noqa: F401
    import onnxscript  # noqa: F401
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError(str(error.name), "export", "Exporting a checkpoint") from None

from colpali_integrations.export.exporting import Exported, export_model
from colpali_integrations.export.verify import Difference

__all__ = ["Difference", "Exported", "export_model"]
