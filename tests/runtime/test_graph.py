"""The graph cut: its position, equal results, and graphs without a cut."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.errors import ModelLoadError
from colpali_integrations.runtime.arrays import GraphFiles
from colpali_integrations.runtime.graph import find_cut, read_graph, subgraph
from colpali_integrations.runtime.graph_session import SessionConfig
from colpali_integrations.runtime.session import ModelSessions

FIXTURES = Path(__file__).parent.parent / "parity" / "fixtures"
REAL = {"paligemma": "Qdrant/colpali-v1.3-fp16", "paligemma-fp16": "Qdrant/colpali-v1.3-fp16"} | {
    "colmodernvbert": "Qdrant/colmodernvbert"
}
BATCH, SIZE, DIM = 2, 4, 3
HALVES: tuple[Literal["pages", "text"], ...] = ("pages", "text")


def toy(
    path: Path, *, entangled: bool = False, pixels: str = "pixel_values", detached: bool = False, flat: bool = False
) -> Path:
    """A merged graph in small: pixels -> tower -> + ids -> output; the sum is masked where ids are 0.

    The text side reads the *shape* of the pixels too, as exports do for the batch size.
    """
    tower = helper.make_tensor("tower", TensorProto.FLOAT, [SIZE, DIM], np.arange(SIZE * DIM, dtype=np.float32))
    first = helper.make_tensor("first", TensorProto.INT64, [1], [0])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    tower_input = "mixed" if entangled else pixels
    nodes = [
        helper.make_node("Shape", [pixels], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"]),
        helper.make_node("Cast", ["batch"], ["batch_f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["input_ids"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Add", [pixels, "mask_row"], ["mixed"]),
        helper.make_node("MatMul", [tower_input, "tower"], ["features"]),
        helper.make_node("Unsqueeze", ["features", "axes"], ["features_3d"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask_3d"]),
        helper.make_node("Mul", ["features_3d", "mask_3d"], ["masked"]),
        helper.make_node("Add", ["masked", "mask_3d"], ["summed"]),
        helper.make_node("Add", ["mask_3d" if detached else "summed", "batch_f"], ["output"]),
    ]
    extra = []
    if flat:  # the features cross the cut as one row, and the text half knows how to fold it
        extra = [helper.make_tensor("row", TensorProto.INT64, [1], [-1])]
        extra += [helper.make_tensor("fold", TensorProto.INT64, [2], [1, DIM])]
        nodes[6:7] = [
            helper.make_node("Reshape", ["features", "row"], ["flat"]),
            helper.make_node("Shape", ["input_ids"], ["ids_shape"], end=1),
            helper.make_node("Concat", ["ids_shape", "fold"], ["folded_shape"], axis=0),
            helper.make_node("Reshape", ["flat", "folded_shape"], ["features_3d"]),
        ]
    nodes.insert(4, helper.make_node("ReduceSum", ["mask", "axes"], ["mask_row"], keepdims=1))
    last = helper.make_tensor("last", TensorProto.INT64, [1], [2])
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info(pixels, TensorProto.FLOAT, ["batch", SIZE]),
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", "tokens", DIM])],
        [tower, first, axes, last, *extra],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def feed(ids: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "pixel_values": rng.normal(size=(BATCH, SIZE)).astype(np.float32),
        "input_ids": np.full((BATCH, 5), ids, dtype=np.int64),
    }


def test_the_cut_is_between_the_tower_and_the_rest(tmp_path: Path) -> None:
    graph = read_graph(toy(tmp_path / "toy.onnx"))
    cut = find_cut(graph)
    assert not isinstance(cut, str)
    assert [value.name for value in cut] == ["features_3d"]
    pages, text = (subgraph(graph, cut, half=half).model.graph for half in HALVES)
    assert [node.op_type for node in pages.node] == ["MatMul", "Unsqueeze"]
    assert [tensor.name for tensor in pages.initializer] == ["tower", "axes"]
    assert "tower" not in {tensor.name for tensor in text.initializer}
    # pixel_values stays an input of the text half, for its shape alone
    assert [value.name for value in text.input] == ["pixel_values", "input_ids", "features_3d"]


def test_halves_equal_the_whole(tmp_path: Path) -> None:
    files = GraphFiles(*[toy(tmp_path / "toy.onnx")] * 2)
    split, whole = ModelSessions(files, SessionConfig()), ModelSessions(files, SessionConfig(split=False))
    assert split.splits
    assert not whole.splits
    np.testing.assert_array_equal(split.pages(feed(1))["output"], whole.pages(feed(1))["output"])
    np.testing.assert_array_equal(split.queries(feed(0))["output"], whole.queries(feed(0))["output"])


def test_an_undeclared_shape_of_the_features_is_learned_once_per_batch_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = GraphFiles(*[toy(tmp_path / "toy.onnx", flat=True)] * 2)
    split, whole = ModelSessions(files, SessionConfig()), ModelSessions(files, SessionConfig(split=False))
    for _ in range(2):
        np.testing.assert_array_equal(split.queries(feed(0))["output"], whole.queries(feed(0))["output"])
    assert split.splits
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "to learn it" in caplog.text
    np.testing.assert_array_equal(split.pages(feed(1))["output"], whole.pages(feed(1))["output"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"entangled": True}, "nothing that depends on 'pixel_values' alone reaches the rest"),
        ({"detached": True}, "nothing that depends on 'pixel_values' alone reaches the rest"),
        ({"pixels": "images"}, "the graph has no input 'pixel_values'"),
    ],
)
def test_a_graph_without_a_cut_runs_whole_and_logs_the_reason(
    options: dict[str, Any], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = toy(tmp_path / "toy.onnx", **options)
    engine = ModelSessions(GraphFiles(path, path), SessionConfig())
    given = feed(1)
    given["images"] = given["pixel_values"]
    with caplog.at_level(logging.WARNING):
        result = engine.queries(given)["output"]
    assert not engine.splits
    assert reason in caplog.text
    np.testing.assert_array_equal(
        result, ModelSessions(GraphFiles(path, path), SessionConfig(split=False)).queries(given)["output"]
    )


@pytest.mark.parametrize("folder", list(REAL))
def test_the_halves_of_real_exports_are_bit_identical_to_the_whole(folder: str) -> None:
    options: dict[str, Any] = {"local_dir": FIXTURES / folder, "threads": 1}
    split = ColPali.from_pretrained(REAL[folder], **options)
    whole = ColPali.from_pretrained(REAL[folder], split_graph=False, **options)
    assert split.splits_graph
    assert not whole.splits_graph
    image = Image.effect_noise((64, 32), 60)
    queries = ["harbour", "how do I tune a violin?", "the tax return of 1998"]
    for mine, theirs in zip(split.embed_queries(queries), whole.embed_queries(queries), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(next(split.embed_images(image)), next(whole.embed_images(image)))


def external(location: str, name: str = "secret") -> TensorProto:
    """A tensor of four floats in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def indices() -> TensorProto:
    return helper.make_tensor("indices", TensorProto.INT64, [4], [0, 1, 2, 3])


def in_a_subgraph(tensor: TensorProto) -> onnx.GraphProto:
    constant = helper.make_node("Constant", [], ["inner"], value=tensor)
    return helper.make_graph([constant], "inner", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [4])])


def put_somewhere(model: onnx.ModelProto, place: str, tensor: TensorProto) -> None:
    """Put a tensor into one of the places where ONNX allows one."""
    graph, node = model.graph, model.graph.node[0]
    sparse = helper.make_sparse_tensor(tensor, indices(), [4])
    if place == "initializer":
        graph.initializer.append(tensor)
    elif place == "sparse initializer":
        graph.sparse_initializer.append(sparse)
    elif place == "indices of a sparse initializer":
        graph.sparse_initializer.append(helper.make_sparse_tensor(indices(), tensor, [4]))
    elif place == "attribute":
        node.attribute.append(helper.make_attribute("x", tensor))
    elif place == "list of an attribute":
        node.attribute.append(helper.make_attribute("x", [tensor]))
    elif place == "sparse attribute":
        node.attribute.append(helper.make_attribute("x", sparse))
    elif place == "subgraph":
        node.attribute.append(helper.make_attribute("x", in_a_subgraph(tensor)))
    elif place == "list of subgraphs":
        node.attribute.append(helper.make_attribute("x", [in_a_subgraph(tensor)]))
    elif place == "attribute of another type":  # a reader may look at the field alone
        node.attribute.add(name="x", type=onnx.AttributeProto.INT).t.CopyFrom(tensor)
    elif place == "training":
        model.training_info.add().algorithm.initializer.append(tensor)
    else:
        constant = helper.make_node("Constant", [], ["y"], value=tensor)
        opsets = [helper.make_opsetid("", 17)]
        function = helper.make_function("local", "F", [], ["y"], [constant], opsets)
        if place == "default of a function":
            function = helper.make_function("local", "F", [], ["y"], [], opsets)
            function.attribute_proto.append(helper.make_attribute("x", tensor))
        model.functions.append(function)


PLACES = [
    *("initializer", "sparse initializer", "indices of a sparse initializer", "attribute", "list of an attribute"),
    *("sparse attribute", "subgraph", "list of subgraphs", "attribute of another type", "training", "function"),
    "default of a function",
]


@pytest.mark.parametrize("place", PLACES)
def test_external_data_stay_in_the_folder_wherever_they_stand(place: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "model.onnx"
    (tmp_path / "m" / "link").symlink_to(tmp_path / "secret")
    for location in ("../secret", str(tmp_path / "secret"), "a/../../secret", "link", "..\\secret", "C:secret"):
        model = onnx.load(toy(path))
        put_somewhere(model, place, external(location))
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelLoadError, match="outside its folder"):
            read_graph(path)
    model = onnx.load(toy(path))
    put_somewhere(model, place, external("inside"))
    path.write_bytes(model.SerializeToString())
    (tmp_path / "m" / "inside").write_bytes(bytes(16))
    assert read_graph(path).weights == tmp_path / "m"


def test_external_data_are_no_address_in_memory(tmp_path: Path) -> None:
    """onnxruntime reads from an address where the file has this name."""
    (tmp_path / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (tmp_path / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(bytes(16))
    (tmp_path / "other").write_bytes(bytes(16))
    model = onnx.load(toy(tmp_path / "model.onnx"))
    model.graph.initializer.extend([external("*/_ORT_MEM_ADDR_/*"), external("other", "other")])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelLoadError, match="outside its folder"):
        read_graph(tmp_path / "model.onnx")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "paligemma" / "model.onnx", tmp_path)
    with pytest.raises(ModelLoadError, match=r"weights in model\.onnx_data, which is not in"):
        read_graph(tmp_path / "model.onnx")


def test_a_file_that_is_not_onnx_is_named_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelLoadError, match=r"model\.onnx"):
        ModelSessions(GraphFiles(path, path), SessionConfig()).load()
