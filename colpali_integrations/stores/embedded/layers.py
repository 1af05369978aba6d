"""The layers of a store: which rows its block files have for each vector of a point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.scoring.codes import VectorCode
from colpali_integrations.scoring.int8 import quantize_int8
from colpali_integrations.stores.embedded.blocks import Layer
from colpali_integrations.stores.embedded.coarse import SCALE_BYTES
from colpali_integrations.stores.engine import Point, VectorSpec

__all__ = ["CODED_COPIES", "layer_rows", "layers_of"]


CODED_COPIES = {"int4": 4, "int2": 2}
"""Smaller copies that are rows of a `VectorCode`, and its bits."""


def layers_of(schema: Mapping[str, VectorSpec]) -> dict[str, Layer]:
    """The layers of a store by name, in the order of their numbers."""
    layers = {}
    for name, spec in schema.items():
        if spec.code is not None:
            layers[name] = Layer(name, np.uint8, spec.code.width, code=spec.code)
        elif spec.coarse:
            layers[name] = Layer(name, np.int8, spec.dim + SCALE_BYTES, coarse=True)
        else:
            layers[name] = Layer(name, np.float16 if spec.multi else np.float32, spec.dim)
        if spec.quantization == "int8":
            layers[f"{name}-int8"] = Layer(f"{name}-int8", np.int8, spec.dim)
            layers[f"{name}-scales"] = Layer(f"{name}-scales", np.float32, spec.dim + 1)
        elif spec.quantization in CODED_COPIES:
            code = VectorCode(spec.dim, CODED_COPIES[spec.quantization])
            copies = f"{name}-{spec.quantization}"
            layers[copies] = Layer(copies, np.uint8, code.width, code=code)
        elif spec.quantization == "binary":
            layers[f"{name}-binary"] = Layer(f"{name}-binary", np.uint8, (spec.dim + 7) // 8)
    return layers  # "centroids" has no rows


def layer_rows(point: Point, layers: Mapping[str, Layer]) -> dict[str, NDArray[Any]]:
    """The rows (n, width) of a point by layer; `layers` are all layers of the store by name."""
    rows: dict[str, NDArray[Any]] = {}
    for name, vectors in point.vectors.items():
        rows[name] = layers[name].rows_of(np.atleast_2d(vectors))
        if f"{name}-int8" in layers:
            copies = quantize_int8([vectors])
            rows[f"{name}-int8"] = copies.values
            rows[f"{name}-scales"] = np.concatenate([copies.scales[:, None], copies.centres], axis=1)
        for coded in (one for one in CODED_COPIES if f"{name}-{one}" in layers):
            rows[f"{name}-{coded}"] = layers[f"{name}-{coded}"].rows_of(vectors)
        if f"{name}-binary" in layers:
            rows[f"{name}-binary"] = np.packbits(vectors > 0, axis=1)
    return rows
