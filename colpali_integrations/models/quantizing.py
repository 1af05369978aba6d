"""Quantise a model's weights to int8: a quarter of the size and memory, faster on processors with byte products.

onnxruntime's dynamic quantization: weights of matrix products become int8, with one scale per column; their inputs are
measured and rounded at every run. No step is calibrated on particular pages. The loss in quality depends on the model;
measure it with `compare` on your own pages and questions.

Weights keep 7 bits (`reduce_range`). Processors with AVX2 and no VNNI add two products of bytes in 16 bits with
saturation; with 8 bits, embeddings would differ between processors.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._logs import without_entries
from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, InputError, ModelLoadError
from colpali_integrations.models.builder.files import DESCRIPTION_FILE
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.folder import new_folder, weight_files
from colpali_integrations.models.loading import find_files
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.runtime.arrays import Float32, GraphFiles
from colpali_integrations.scoring.maxsim import max_sim, top_pages

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Agreement", "Quantized", "check_not_exported", "compare", "quantize_model"]

# Operators of quantised exports.
_QUANTIZED = frozenset({"DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits", "QLinearMatMul", "QuantizeLinear"})
_PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True)
class Quantized:
    """The result of `quantize_model`.

    Attributes:
        folder: the folder of the quantised model.
        registered: the name to load it by, with `local_dir=folder`; None when the folder alone suffices.
        products: number of matrix products with int8 weights.
        bytes_before: size of the original ONNX files and their weights.
        bytes_after: size of those of the quantised model.
    """

    folder: Path
    registered: str | None
    products: int
    bytes_before: int
    bytes_after: int

    def load(self, **options: Any) -> ColPali:
        """Load the model; options are those of `ColPali.from_pretrained`."""
        if self.registered is None:
            return ColPali.from_pretrained(self.folder, **options)
        return ColPali.from_pretrained(self.registered, local_dir=self.folder, **options)


def quantize_model(
    name_or_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    local_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Quantized:
    """Write a model with int8 weights into a folder of its own.

    Needs memory for about three copies of the model. Vectors of the two models must not be mixed in one index; their
    fingerprints differ, so a store refuses the other model.

    Args:
        name_or_path: as in `ColPali.from_pretrained`.
        out: a folder that does not exist yet, or is empty; a link is followed.
        local_dir: as in `ColPali.from_pretrained`.
        revision: as in `ColPali.from_pretrained`.
        cache_dir: as in `ColPali.from_pretrained`.
        local_files_only: as in `ColPali.from_pretrained`.

    Raises:
        ConfigurationError: `out` exists and is not an empty folder, or cannot be written.
        ModelNotFoundError: as `ColPali.from_pretrained`.
        ModelLoadError: the model cannot be quantised.
    """
    import onnx

    from colpali_integrations.runtime.graph import read_graph

    with new_folder(out) as folder:
        options = ModelOptions(
            local_dir=local_dir, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        files = find_files(name_or_path, options)
        description, source = files.description, files.folder
        check_not_exported(description)
        graphs = files.family().graphs
        if not isinstance(graphs, GraphFiles):
            raise ModelLoadError(
                f"{description.name} is a checkpoint, not an ONNX export; from_pretrained(..., precision='int8') makes "
                "its int8 weights and keeps them",
                command=f"{description.name} is a checkpoint, not an ONNX export; leave out OUT: its int8 weights are "
                "kept in the cache",
            )
        paths = sorted({graphs.pages, graphs.queries})
        models: dict[Path, ModelProto] = {}
        for path in paths:
            graph = read_graph(path)
            _check(graph.model, path)
            models[path] = graph.model
            if graph.weights is not None:
                onnx.load_external_data_for_model(graph.model, os.fspath(graph.weights))
        weights = [file for path in paths for file in weight_files(path)]
        for name in {*description.files, "config.json", DESCRIPTION_FILE}:
            file = source / name
            if file.is_file() and file not in (*paths, *weights):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / name)
        products = 0
        for path, model in models.items():
            target = folder / path.relative_to(source)
            # A description that lists a file of weights beside the graph requires one again.
            products += _write_quantized(model, target, apart=any(file.name.startswith(path.name) for file in weights))
        bytes_after = sum(file.stat().st_size for file in folder.rglob("*.onnx*"))
    return Quantized(
        folder=user_path(out, ConfigurationError),
        registered=description.name if description.repository is not None else None,
        products=products,
        bytes_before=sum(file.stat().st_size for file in (*paths, *weights)),
        bytes_after=bytes_after,
    )


def check_not_exported(model: ModelDescription) -> None:
    """Refuse a folder that `export_model` wrote: its weights have the precision that was chosen then.

    Raises:
        ModelLoadError: it is one.
    """
    if model.origin is not None:
        raise ModelLoadError(
            f"{model.name} was exported from {model.origin.name} with precision={model.precision or 'float32'!r}; "
            f"quantize {model.origin.name}, or export it again with precision='int8'"
        )


def _write_quantized(model: ModelProto, target: Path, *, apart: bool) -> int:
    """Write a graph with int8 weights, and return the number of its quantised products.

    Args:
        model: the graph with its weights in memory; changed.
        target: the file to write.
        apart: write the weights into a file beside it, even where one file can hold both.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # A protobuf message cannot be larger than 2 GiB.
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > 2**30
    target.parent.mkdir(parents=True, exist_ok=True)
    # onnxruntime logs its advice to preprocess the model to the root logger, at every call.
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary, without_entries("", "pre-processing"):
        draft = Path(temporary) / target.name
        quantize_dynamic(
            model,
            draft,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
            extra_options={"MatMulConstBOnly": True},
        )
        quantized = onnx.load(os.fspath(draft))
    products: int = sum(node.op_type == "MatMulInteger" for node in quantized.graph.node)
    if not products:
        raise ModelLoadError(f"onnxruntime's quantization changed nothing in {target.name}")
    location = f"{target.name}_data" if large or apart else None
    onnx.save_model(quantized, os.fspath(target), save_as_external_data=location is not None, location=location)
    return products


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of two models agree, on some pages and questions.

    Attributes:
        pages: number of pages.
        questions: number of questions.
        page_cosines: float64 (n,), cosine of each vector of all pages with its counterpart.
        query_cosines: float64 (n,), the same of all questions.
        same_first: share of the questions for which both rank the same page first; NaN without questions.
        overlap: mean share of the first `k` pages that both have in common, whatever their order.
        k: 10, or the number of pages where there are fewer.
        rank_correlation: mean over the questions of Spearman's coefficient of the pages' scores; NaN for one page.
    """

    pages: int
    questions: int
    page_cosines: NDArray[np.float64]
    query_cosines: NDArray[np.float64]
    same_first: float
    overlap: float
    k: int
    rank_correlation: float


def compare(
    original: ColPali, other: ColPali, pages: Callable[[], Iterable[ImageSource]], questions: Sequence[str]
) -> Agreement:
    """Encode pages and questions with two models and compare the vectors and the ranking.

    Args:
        original: the reference.
        other: the model to judge, such as the quantised one.
        pages: makes an iterable of the pages; called twice, and read page by page. All vectors are held in memory.
        questions: to rank the pages by; may be empty.

    Raises:
        InputError: there is no page, or the models give different numbers of vectors.
        ColPaliError: a page or a question cannot be encoded.

    Example:
        >>> model = ColPali.from_pretrained()
        >>> page = np.full((64, 64), 255, np.uint8)
        >>> round(float(compare(model, model, lambda: [page], ["tower"]).query_cosines.min()), 3)
        1.0
    """
    models = (original, other)
    page_vectors = [list(model.embed_images(pages())) for model in models]
    query_vectors = [list(model.embed_queries(questions)) for model in models]
    if not page_vectors[0]:
        raise InputError("compare: expected at least one page, got none")
    scores = [max_sim(one, several) for one, several in zip(query_vectors, page_vectors, strict=True)]
    k = min(10, len(page_vectors[0]))
    return Agreement(
        pages=len(page_vectors[0]),
        questions=len(questions),
        page_cosines=_cosines("page", *page_vectors),
        query_cosines=_cosines("question", *query_vectors),
        same_first=_mean([a.argmax() == b.argmax() for a, b in zip(*scores, strict=True)]),
        overlap=_mean([np.isin(top_pages(a, k), top_pages(b, k)).mean() for a, b in zip(*scores, strict=True)]),
        k=k,
        rank_correlation=_mean([_spearman(a, b) for a, b in zip(*scores, strict=True)]),
    )


def _check(model: ModelProto, path: Path) -> None:
    """Refuse a graph without float32 weights to quantise."""
    from onnx import TensorProto

    if operators := sorted({node.op_type for node in model.graph.node} & _QUANTIZED):
        raise ModelLoadError(
            f"{path} is quantised already (it has {', '.join(operators)}); start from a float32 export"
        )
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = [
        types[node.input[1]] for node in model.graph.node if node.op_type in _PRODUCTS and node.input[1] in types
    ]
    if any(kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for kind in weights):
        raise ModelLoadError(
            f"{path} is a half precision export, and onnxruntime quantises the inputs of matrix products from float32 "
            "only; start from a float32 export"
        )
    if TensorProto.FLOAT not in weights:
        raise ModelLoadError(
            f"{path} has no matrix product with constant float32 weights, so there is nothing to quantise "
            "(convolutions are left alone: onnxruntime's dynamic ones are slower than float)"
        )


def _cosines(kind: str, originals: Sequence[Float32], others: Sequence[Float32]) -> NDArray[np.float64]:
    cosines = [np.empty(0)]
    for number, (a, b) in enumerate(zip(originals, others, strict=True), start=1):
        if a.shape != b.shape:
            raise InputError(
                f"compare: {kind} {number} has vectors {a.shape} by one model and {b.shape} by the other, so they "
                "cannot be paired; are these versions of one model?"
            )
        a, b = a.astype(np.float64), b.astype(np.float64)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines.append(np.where(lengths > 0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1), 1.0))
    return np.concatenate(cosines)


def _spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Correlation of ranks; of equal scores the first ranks higher."""
    if len(a) < 2:
        return float("nan")
    first, second = (
        np.argsort(np.argsort(-scores, kind="stable"), kind="stable").astype(np.float64) for scores in (a, b)
    )
    return float(np.corrcoef(first, second)[0, 1])


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
