"""Marks tests of models with linear attention, which need a newer ONNX Runtime than the package."""

import onnxruntime
import pytest

from colpali_integrations.models.families import FAMILIES

_LOWEST = FAMILIES["qwen3_5"].onnxruntime
_INSTALLED = [int(part) for part in onnxruntime.__version__.split(".")[:2]]

NEEDS_LINEAR_ATTENTION = pytest.mark.skipif(
    [int(part) for part in _LOWEST.split(".")] > _INSTALLED,
    reason=f"Qwen3.5 needs onnxruntime {_LOWEST} or later, hence Python 3.11 or later",
)
