"""Read an ONNX graph without its weights, and split a merged export so that queries skip the vision tower.

A merged ColPali export has one graph for pages and queries, and running it for a text query runs the vision tower on a
blank image: nine tenths of the arithmetic are wasted. But everything that the tower computes depends on `pixel_values`
alone, so the graph can be cut in two:

    pixel_values --[ pages half ]--> image features --+
                                                      +--[ text half ]--> embeddings
    input_ids, attention_mask ------------------------+

A page runs both halves; a query runs the text half with zeros for the image features, which the graph masks out
because a query has no image tokens. Both halves have the nodes of the whole graph in their order, so their results are
bit-identical to those of the whole graph. Nodes that need only the *shape* of pixel_values stay in the text half: they
are cheap, and feeding their outputs would need the tower again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import onnx
import onnxruntime as ort
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from colpali_integrations.errors import ModelLoadError

__all__ = ["PIXELS", "Graph", "find_cut", "plain_session", "read_graph", "subgraph"]

PIXELS = "pixel_values"
# Operators whose output depends on the shape of their input alone.
_SHAPE_ONLY = {"Shape", "Size"}
# Initializers below this many bytes may be shapes, which type inference needs.
_SMALL = 1024


@dataclass(frozen=True)
class Graph:
    """A graph in memory, its external weights still on disk.

    Attributes:
        model: the graph; external tensors point into `weights`.
        weights: folder of the external data; None when all weights are inside `model`.
    """

    model: ModelProto
    weights: Path | None


def read_graph(path: Path) -> Graph:
    """Read an ONNX file, pointing its external data at the real files.

    The Hub's cache is a folder of symbolic links to files elsewhere, and onnxruntime >= 1.24 refuses external data
    outside the model's folder (microsoft/onnxruntime#27353). onnxruntime gets the graph as bytes anyway, so its
    external locations are rewritten to the linked files.

    Raises:
        ModelLoadError: the file is not an ONNX file, or its external data is missing or outside the model's folder.
    """
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no stable import path
        raise ModelLoadError(
            f"{path} is not an ONNX file, or is damaged ({error}). If it was cut off, delete it and download it again"
        ) from error
    external = [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    locations = [entry for tensor in external for entry in tensor.external_data if entry.key == "location"]
    if not locations:
        return Graph(model, None)
    files = {location: _external_file(path, location) for location in dict.fromkeys(entry.value for entry in locations)}
    # _external_file() followed every link, so onnxruntime finds plain files inside one folder.
    folder = Path(os.path.commonpath([file.parent for file in files.values()]))
    for entry in locations:
        entry.value = files[entry.value].relative_to(folder).as_posix()
    return Graph(model, folder)


def plain_session(model: ModelProto, *, arena: bool = True) -> ort.InferenceSession:
    """Make a session on the CPU that runs a small graph as it stands, in its caller's thread.

    Args:
        model: the graph.
        arena: let the session keep memory from one run to the next.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    # Optimizations save nothing in graphs of a few operators, and take long in graphs with a weight per page.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    return ort.InferenceSession(model.SerializeToString(), options, providers=providers, enable_fallback=0)


def find_cut(whole: Graph) -> tuple[ValueInfoProto, ...] | str:
    """Find where a merged graph can be cut.

    Returns:
        The tensors that pass from the pages half to the text half, or the reason why there is no cut.
    """
    graph = whole.model.graph
    inputs = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    if PIXELS not in inputs:
        return f"the graph has no input {PIXELS!r} (inputs: {', '.join(sorted(inputs))})"
    # Names of the tensors that depend on the values of the pixels, only on their shape, or on another input.
    values, shapes, others = {PIXELS}, set[str](), inputs - {PIXELS}
    made_by_pages: set[str] = set()
    for node in graph.node:
        read = _inputs(node)
        if read & others:
            others.update(node.output)
        elif node.op_type in _SHAPE_ONLY and read & (values | shapes):
            shapes.update(node.output)
        elif read & values:
            values.update(node.output)
            made_by_pages.update(node.output)
        elif read & shapes:
            shapes.update(node.output)
    needed = {value.name for value in graph.output}
    if needed & made_by_pages:
        return "an output of the graph depends on the pixels alone"
    for node in reversed(graph.node):
        if needed & set(node.output) and not made_by_pages & set(node.output):
            needed |= _inputs(node)
    cut = sorted(needed & made_by_pages)
    if not cut:
        return f"nothing that depends on {PIXELS!r} alone reaches the rest of the graph"
    return _typed(whole.model, cut)


def subgraph(graph: Graph, cut: Sequence[ValueInfoProto], *, half: Literal["pages", "text"]) -> Graph:
    """Make one half of a merged graph, with the weights that it uses.

    Args:
        graph: the whole graph, which does not change.
        cut: the tensors between the halves, from `find_cut`.
        half: which half.

    Returns:
        The half as a graph; the tensors of the cut are inputs of the text half.
    """
    source = graph.model.graph
    borders = {value.name for value in cut}
    outputs = borders if half == "pages" else {value.name for value in source.output}
    stop = set() if half == "pages" else borders
    nodes = _needed(source, outputs, stop)
    inputs = {name for node in nodes for name in _inputs(node)}
    model = ModelProto()
    for field in ("ir_version", "producer_name", "producer_version", "domain"):
        setattr(model, field, getattr(graph.model, field))
    model.opset_import.extend(graph.model.opset_import)
    model.functions.extend(graph.model.functions)
    part = model.graph
    part.name = f"{source.name}_{half}"
    part.node.extend(nodes)
    part.initializer.extend(tensor for tensor in source.initializer if tensor.name in inputs)
    part.sparse_initializer.extend(tensor for tensor in source.sparse_initializer if tensor.values.name in inputs)
    weights = {tensor.name for tensor in part.initializer}
    part.input.extend(value for value in source.input if value.name in inputs and value.name not in weights)
    if half == "pages":
        part.output.extend(cut)
    else:
        part.input.extend(cut)
        part.output.extend(source.output)
    computed = {name for node in nodes for name in node.output}
    part.value_info.extend(value for value in source.value_info if value.name in computed)
    return Graph(model, graph.weights)


def _needed(graph: GraphProto, outputs: set[str], stop: set[str]) -> list[NodeProto]:
    """List the nodes that `outputs` need, in the graph's order, going no further back than `stop`."""
    needed = outputs - stop
    nodes: list[NodeProto] = []
    # Nodes are stored in topological order, so one pass from the end suffices.
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed |= _inputs(node) - stop
    return nodes[::-1]


def _typed(model: ModelProto, names: Sequence[str]) -> tuple[ValueInfoProto, ...]:
    """Infer types and shapes of inner tensors with onnxruntime.

    An input must have a type, and exports rarely record those of inner tensors. Unlike onnx's inference, onnxruntime's
    handles its own operators too. It gets the graph with inputs in the place of the weights, so that it reads none.
    """
    source = model.graph
    nodes = _needed(source, set(names), set())
    used = {name for node in nodes for name in _inputs(node)}
    bare = ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import, functions=model.functions)
    bare.graph.name = "types"
    bare.graph.node.extend(nodes)
    bare.graph.output.extend(ValueInfoProto(name=name) for name in names)
    weights = {tensor.name for tensor in source.initializer}
    bare.graph.input.extend(value for value in source.input if value.name in used - weights)
    for tensor in source.initializer:
        if tensor.name not in used:
            continue
        if tensor.data_location != TensorProto.EXTERNAL and tensor.ByteSize() < _SMALL:
            bare.graph.initializer.append(tensor)  # perhaps the target of a Reshape
        else:
            bare.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return tuple(
        onnx.helper.make_tensor_value_info(
            value.name,
            TensorProto.DataType.Value(value.type.removeprefix("tensor(").removesuffix(")").upper()),
            [size if isinstance(size, int) else str(size) for size in value.shape],
        )
        for value in plain_session(bare).get_outputs()
    )


def _inputs(node: NodeProto) -> set[str]:
    """Collect the names that a node reads, also inside its subgraphs (If, Loop)."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for inner in _graphs(attribute):
            names |= _free_names(inner)
    return names


def _free_names(graph: GraphProto) -> set[str]:
    local = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    local |= {name for node in graph.node for name in node.output}
    used = {name for node in graph.node for name in _inputs(node)} | {value.name for value in graph.output}
    return used - local


def _graphs(attribute: AttributeProto) -> Iterator[GraphProto]:
    if attribute.type == AttributeProto.GRAPH:
        yield attribute.g
    elif attribute.type == AttributeProto.GRAPHS:
        yield from attribute.graphs


def _tensors(message: Any) -> Iterator[TensorProto]:
    """Yield every tensor in a model, wherever ONNX allows one: weights, constants, subgraphs, functions and so on."""
    if isinstance(message, TensorProto):
        yield message
    elif hasattr(message, "ListFields"):
        for _, value in message.ListFields():
            if not isinstance(value, str | bytes | int | float):
                for one in (value,) if hasattr(value, "ListFields") else value:
                    yield from _tensors(one)


def _external_file(model: Path, location: str) -> Path:
    """The file of external data, every link followed.

    A name with a backslash or a drive is a path on Windows; the asterisk begins onnxruntime's name for an address in
    memory.
    """
    relative = PurePosixPath(location)
    outside = f"{model} refers to external data outside its folder ({location!r}), which is refused"
    if relative.is_absolute() or ".." in relative.parts or re.search(r"[\\:*\0]", location):
        raise ModelLoadError(outside)
    file = model.parent / relative
    if not file.is_file():
        raise ModelLoadError(
            f"{model} has its weights in {location}, which is not in {model.parent}. Download that file too; a model "
            "description of your own must list it in additional_files"
        )
    real = file.resolve()
    if not real.is_relative_to(_home(model.parent.resolve())):
        raise ModelLoadError(f"{outside}: it is a link to {real}. Copy that file into the folder if you trust the link")
    return real


def _home(folder: Path) -> Path:
    """The folder that a model's files stay in: its own, or all of huggingface_hub's cache, where they are links."""
    for parent in (folder, *folder.parents):
        if parent.parent.name == "snapshots" and parent.parent.parent.name.startswith("models--"):
            return parent.parent.parent.parent
    return folder
