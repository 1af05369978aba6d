"""Lets a torchvision wheel built for CUDA be imported beside a CPU build of torch.

colpali-engine and transformers import torchvision for image processors that are not used here (the goldens come
from the PIL backend). A wheel whose compiled part cannot load leaves two operators undeclared and fails on import.
Import this module before either library.
"""

from __future__ import annotations

import sys

import torch

_library: torch.library.Library | None = None

try:
    import torchvision  # type: ignore[import-not-found, unused-ignore]
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    for _name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[_name]
    _library = torch.library.Library("torchvision", "DEF")
    for _operator in ("nms", "qnms"):
        _library.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
