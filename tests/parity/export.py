"""Writes a model as ONNX in the file layout of the public repositories."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from onnx.external_data_helper import convert_model_to_external_data


def torchscript(
    graph: torch.nn.Module, example: tuple[torch.Tensor, ...], target: Path, names: tuple[str, ...], output: str
) -> None:
    """Exports with the TorchScript exporter, as the public ColPali exports were.

    Args:
        graph: Takes the inputs by position.
        example: Inputs to trace with.
        target: File to write; tensors of 1 KiB or more go to ``<target>_data`` beside it.
        names: Names of the inputs.
        output: Name of the output.
    """
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask", output)}
    axes["pixel_values"] = {0: "batch"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            example,
            str(target),
            dynamo=False,
            opset_version=17,
            input_names=list(names),
            output_names=[output],
            dynamic_axes=axes,
        )
    _slim(target, external=True)


def dynamo(
    graph: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    target: Path,
    names: tuple[str, ...],
    *,
    tiles: bool,
    external: bool,
) -> None:
    """Exports with the torch.export-based exporter (opset 20, IR version 10).

    The public ColModernVBERT export needs onnxruntime 1.19 for its IR version, which points to this exporter; its
    graph also runs with an empty batch of tiles, which a TorchScript export of this model does not.

    Args:
        graph: Takes the inputs by position.
        example: Inputs to trace with; batch and tiles greater than 1, or they would be taken for constants.
        target: File to write.
        names: Names of the inputs.
        tiles: Whether pixel_values has an axis of tiles.
        external: Whether large tensors go to ``<target>_data`` beside it.
    """
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {name: {0: dynamic, 1: dynamic} for name in ("input_ids", "attention_mask")}
    shapes["pixel_values"] = {0: dynamic, 1: dynamic} if tiles else {0: dynamic}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            example,
            str(target),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=list(names),
            output_names=["embeddings"],
            dynamic_shapes={name: shapes[name] for name in names},
        )
    _slim(target, external=external)


def _slim(target: Path, *, external: bool) -> None:
    """Removes stack traces and scopes: most of a small file, and they hold paths of the machine."""
    model = onnx.load(str(target))
    del model.graph.value_info[:]
    graphs = [model.graph, *model.functions]
    nodes = [node for graph in graphs for node in graph.node]
    for proto in [model, *graphs, *nodes, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        proto.doc_string = ""
        del proto.metadata_props[:]
    target.unlink()
    data = target.with_name(target.name + "_data")
    data.unlink(missing_ok=True)
    if external:
        convert_model_to_external_data(model, all_tensors_to_one_file=True, location=data.name, size_threshold=1024)
    onnx.save_model(model, str(target))
    if external:
        data.chmod(target.stat().st_mode)  # onnx makes it readable by its owner only


def share_weights(target: Path, owner: Path) -> None:
    """Lets a graph use the external data of another where the bytes are equal, so that they are kept once.

    Args:
        target: Graph with its weights inside or in ``<target>_data``, which is removed.
        owner: Graph whose external data is named ``<owner>_data``; both must lie in one folder to be loaded.
    """
    positions: dict[bytes, dict[str, str]] = {}
    data = owner.with_name(owner.name + "_data").read_bytes()
    for tensor in onnx.load(str(owner), load_external_data=False).graph.initializer:
        entry = {item.key: item.value for item in tensor.external_data}
        if entry:
            start = int(entry.get("offset", 0))
            positions[data[start : start + int(entry["length"])]] = entry
    model = onnx.load(str(target))
    for tensor in model.graph.initializer:
        entry = positions.get(tensor.raw_data, {})
        if entry:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in entry.items():
                tensor.external_data.add(key=key, value=value)
    target.unlink()
    target.with_name(target.name + "_data").unlink(missing_ok=True)
    target.write_bytes(model.SerializeToString())
