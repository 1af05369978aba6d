"""Write a torch module as an ONNX file with its weights beside it and without paths of the exporting machine."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch

from colpali_integrations.export.graphs import PaliGemmaGraph, TiledGraph

__all__ = ["slim", "write_onnx"]


def write_onnx(graph: PaliGemmaGraph | TiledGraph, example: dict[str, torch.Tensor], target: Path) -> None:
    """Export by torch.export; weights go to `<target>.data`, which has no limit of size.

    Args:
        graph: the module.
        example: inputs to trace with; a batch or number of tiles of 1 would become a constant of the graph.
        target: the file to write.
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
    """Remove stack traces and scopes: most of a small file, and they hold paths of the machine."""
    del model.graph.value_info[:]
    graphs = [model.graph, *model.functions]
    nodes = [node for graph in graphs for node in graph.node]
    for proto in [model, *graphs, *nodes, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        proto.doc_string = ""
        del proto.metadata_props[:]
