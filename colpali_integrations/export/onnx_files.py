"""A torch module as an ONNX file, weights beside it, without what the exporter says of the machine it ran on."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch

from colpali_integrations.export.graphs import PaliGemmaGraph, TiledGraph

__all__ = ["slim", "write_onnx"]


def write_onnx(graph: PaliGemmaGraph | TiledGraph, example: dict[str, torch.Tensor], target: Path) -> None:
    """Export by torch.export; weights go to `<target>.data`, so that no size is too large.

    Args:
        graph: what is exported.
        example: inputs to trace with; batch and tiles greater than 1, or they would be taken for constants.
        target: file to write.
    """
    dynamic = torch.export.Dim.DYNAMIC
    free = {"input_ids": 2, "attention_mask": 2, "pixel_values": 2 if isinstance(graph, TiledGraph) else 1}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            tuple(example[name] for name in graph.inputs),
            str(target),
            dynamo=True,
            external_data=True,
            verbose=False,
            input_names=list(graph.inputs),
            output_names=["embeddings"],
            dynamic_shapes={name: dict.fromkeys(range(free[name]), dynamic) for name in graph.inputs},
        )
    model = onnx.load(str(target), load_external_data=False)
    slim(model)
    onnx.save_model(model, str(target))


def slim(model: onnx.ModelProto) -> None:
    """Take out stack traces and scopes: most of a small file, and they carry paths of the machine."""
    model.doc_string = ""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    for proto in [model.graph, *model.functions]:
        proto.doc_string = ""
        del proto.metadata_props[:]
        for node in proto.node:
            node.doc_string = ""
            del node.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]
