"""Marks tests of tiny models in 8-bit integers, which an older ONNX Runtime multiplies wrongly on some processors."""

import onnxruntime

from colpali_integrations.runtime.machine import byte_instructions

_INSTALLED = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])

ARE_WRONG = _INSTALLED < (1, 26) and "amx_int8" in (byte_instructions() or ())
REASON = (
    "onnxruntime before 1.26 returns wrong products on processors with AMX for layers of 17 to 31 outputs, which only "
    "such tiny models have"
)
