"""Export a PyTorch checkpoint (ColPali, ColModernVBERT, ColSmol) to an ONNX folder that this package loads.

The only part of the package that uses PyTorch, in an extra of its own: ``pip install "colpali-integrations[export]"``.
Only the command `export` imports it, and exported folders load without it.
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
