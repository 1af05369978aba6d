"""A query skips the vision tower, and skipping it changes no bit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.runtime.graph import PIXELS, find_cut, read_graph, subgraph

from .cases import EMBEDDED_QUERIES, draw, page_named
from .conftest import FIXTURES, TOLERANCE, Golden

Load = Callable[..., ColPali]
_FILES = ["paligemma/model.onnx", "paligemma-fp16/model.onnx", "colmodernvbert/model_v2.onnx", "colsmol/model.onnx"]
_MODELS = [file.split("/")[0] for file in _FILES]


@pytest.mark.parametrize("file", _FILES)
def test_one_tensor_passes(file: str) -> None:
    """Both exporters' graphs fall apart at one tensor, and the text half holds nothing of the tower."""
    graph = read_graph(FIXTURES / file)
    cut = find_cut(graph)
    assert not isinstance(cut, str), cut
    assert len(cut) == 1
    halves = {half: subgraph(graph, cut, half=half).model.graph for half in ("pages", "text")}
    assert [value.name for value in halves["pages"].input] == [PIXELS]
    assert any(node.op_type == "Conv" for node in halves["pages"].node)
    assert PIXELS not in {name for node in halves["text"].node for name in node.input}
    assert not any(node.op_type == "Conv" for node in halves["text"].node)
    whole = {node.name for node in graph.model.graph.node}
    assert {node.name for half in halves.values() for node in half.node} <= whole


@pytest.mark.parametrize("name", _MODELS)
def test_queries_are_bit_identical(load: Load, name: str) -> None:
    split, whole = load(name), load(name, split_graph=False)
    assert split.splits_graph
    assert not whole.splits_graph
    for ours, theirs in zip(split.embed_queries(EMBEDDED_QUERIES), whole.embed_queries(EMBEDDED_QUERIES), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", _MODELS)
def test_pages_are_bit_identical(load: Load, name: str) -> None:
    pages = [draw(page_named(page)) for page in ("tall", "wide")]
    ours, theirs = load(name).embed_images(pages), load(name, split_graph=False).embed_images(pages)
    for left, right in zip(ours, theirs, strict=True):
        assert np.array_equal(left, right)


def _folder_with(graph: str, target: Path) -> Path:
    for file in (FIXTURES / "paligemma").iterdir():
        if file.suffix == ".json" or file.name == "model.onnx_data":
            shutil.copy(file, target)
    shutil.copy(FIXTURES / "paligemma-graphs" / graph, target / "model.onnx")
    return target


@pytest.mark.parametrize(("graph", "passing"), [("merged_by_shape.onnx", 2), ("torch_export.onnx", 1)])
def test_other_exports_of_the_family(tmp_path: Path, graph: str, passing: int) -> None:
    """Any export will do: another exporter, and one that reads the shape of a tensor inside the tower."""
    folder = _folder_with(graph, tmp_path)
    cut = find_cut(read_graph(folder / "model.onnx"))
    assert not isinstance(cut, str), cut
    assert len(cut) == passing
    pages = [draw(page_named(page)) for page in ("tall", "small", "grey")]
    with (
        ColPali.from_pretrained(folder, threads=2) as split,
        ColPali.from_pretrained(folder, threads=2, split_graph=False) as whole,
    ):
        assert split.splits_graph
        assert not whole.splits_graph
        for queries in (EMBEDDED_QUERIES, ["one", "two two", "one"]):
            ours, theirs = split.embed_queries(queries), whole.embed_queries(queries)
            assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))
        ours, theirs = split.embed_images(pages), whole.embed_images(pages)
        assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_another_exporter_gives_the_same_vectors(tmp_path: Path, golden: Callable[[str], Golden]) -> None:
    with ColPali.from_pretrained(_folder_with("torch_export.onnx", tmp_path), threads=2) as model:
        for position, vectors in enumerate(model.embed_queries(EMBEDDED_QUERIES)):
            np.testing.assert_allclose(vectors, golden("paligemma").query_vectors(position), rtol=0, atol=TOLERANCE)


def test_queries_are_faster(load: Load) -> None:
    """In so small a ColPali the tower is nearly all of the work."""

    def fastest(model: ColPali) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()  # of the processor: other programs do not count
            list(model.embed_queries(EMBEDDED_QUERIES[:1]))
            times.append(time.process_time() - start)
        return min(times)

    assert fastest(load("paligemma")) < fastest(load("paligemma", split_graph=False)) / 2
