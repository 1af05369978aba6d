"""A model's weights as int8: a quarter of the size and of the memory, faster where the processor multiplies bytes well.

onnxruntime's dynamic quantization: weights of matrix products become int8, one scale a column; what they are multiplied
by is measured and rounded at every run. Nothing is calibrated, so nothing is fitted to particular pages. What it costs
differs between models: `compare` tells it on pages and questions of the user's own.

Weights keep 7 bits (`reduce_range`). Processors with AVX2 and no VNNI add two products of bytes in 16 bits and cut off
what does not fit; with 8 bits a model would give other embeddings on them than elsewhere.
"""

from __future__ import annotations

import glob
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError, InputError, ModelLoadError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.folder import DESCRIPTION_FILE
from colpali_integrations.models.loading import family_class, find_files
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.scoring.maxsim import max_sim, top_pages

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Agreement", "Quantized", "compare", "quantize_model"]

# What onnxruntime has no float kernel for and a quantised export is made of.
_QUANTIZED = frozenset({"DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits", "QLinearMatMul", "QuantizeLinear"})
_PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True)
class Quantized:
    """What `quantize_model` made.

    Attributes:
        folder: where the model is.
        registered: the name to load it by, with `local_dir=folder`; None when the folder alone suffices.
        products: matrix products whose weights are int8 now.
        bytes_before: of the model's ONNX files and their weights.
        bytes_after: the same, of the quantised model.
    """

    folder: Path
    registered: str | None
    products: int
    bytes_before: int
    bytes_after: int

    def load(self, **options: Any) -> ColPali:
        """The model; options are those of `ColPali.from_pretrained`."""
        if self.registered is None:
            return ColPali.from_pretrained(self.folder, **options)
        return ColPali.from_pretrained(self.registered, local_dir=self.folder, **options)


def quantize_model(
    name_or_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    local_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Quantized:
    """Write a model with int8 weights into a folder of its own.

    The model is in memory about three times while this works. Vectors of the two models must not meet in one index:
    their fingerprints differ, so a store refuses it.

    Args:
        name_or_path: as in `ColPali.from_pretrained`.
        out: a folder that does not exist yet, or is empty.
        local_dir: as in `ColPali.from_pretrained`.
        cache_dir: as in `ColPali.from_pretrained`.
        local_files_only: as in `ColPali.from_pretrained`.

    Raises:
        ConfigurationError: `out` is there and not empty.
        ModelNotFoundError: as `ColPali.from_pretrained`.
        ModelLoadError: the model cannot be quantised; the message says why.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from colpali_integrations.runtime.graph import read_graph

    target = Path(out).expanduser()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigurationError(f"{target} is there already; name a folder that does not exist yet")
    options = ModelOptions(local_dir=local_dir, cache_dir=cache_dir, local_files_only=local_files_only)
    description, source = find_files(name_or_path, options)
    family = family_class(description.family)(description, source)
    graphs = sorted({family.graphs.pages, family.graphs.queries})
    whole: dict[Path, ModelProto] = {}
    for path in graphs:
        graph = read_graph(path)
        _check(graph.model, path)
        whole[path] = graph.model
        if graph.weights is not None:
            onnx.load_external_data_for_model(graph.model, os.fspath(graph.weights))
    weights = {file.relative_to(source).as_posix() for path in graphs for file in _weights_of(path)}
    target.parent.mkdir(parents=True, exist_ok=True)
    products = 0
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        made = Path(temporary) / "model"
        for name in {*description.files, "config.json", DESCRIPTION_FILE} - weights:
            file = source / name
            if file.is_file() and file not in graphs:
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, made / name)
        for path, model in whole.items():
            # A message of protobuf's cannot be larger than 2 GiB, with anything in it.
            large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > 2**30
            draft = Path(temporary) / "draft" / path.name
            draft.parent.mkdir(exist_ok=True)
            with _without_advice():
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
            found = sum(node.op_type == "MatMulInteger" for node in quantized.graph.node)
            if not found:
                raise ModelLoadError(f"onnxruntime's quantization changed nothing in {path}")
            products += found
            place = made / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            # A description that lists a file of weights beside the graph finds one again.
            apart = large or any(name.startswith(path.relative_to(source).as_posix()) for name in weights)
            onnx.save_model(
                quantized,
                os.fspath(place),
                save_as_external_data=apart,
                location=f"{path.name}_data" if apart else None,
            )
            shutil.rmtree(draft.parent)
        if target.exists():
            target.rmdir()
        made.rename(target)
    return Quantized(
        folder=target,
        registered=description.name if description.repository is not None else None,
        products=products,
        bytes_before=sum(file.stat().st_size for path in graphs for file in (path, *_weights_of(path))),
        bytes_after=sum(file.stat().st_size for file in target.rglob("*.onnx*")),
    )


@dataclass(frozen=True)
class Agreement:
    """How far a model's outputs are those of another, on some pages and questions.

    Attributes:
        pages: how many were compared.
        questions: how many were compared.
        page_cosines: float64 (n,), of each vector of all pages with its counterpart.
        query_cosines: float64 (n,), of each vector of all questions.
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
    """Encode pages and questions with two models and compare what comes out.

    Args:
        original: what should be met.
        other: what is judged, such as the quantised model.
        pages: makes an iterable of the pages; called twice, and read page by page. All vectors are held in memory.
        questions: to rank the pages by; may be empty.

    Raises:
        InputError: there is no page, or the two give different numbers of vectors, which are no versions of one model.
        ColPaliError: a page or a question cannot be encoded.

    Example:
        >>> model = ColPali.from_pretrained()
        >>> page = np.full((64, 64), 255, np.uint8)
        >>> round(float(compare(model, model, lambda: [page], ["tower"]).query_cosines.min()), 3)
        1.0
    """
    of_pages, of_questions = [], []
    for model in (original, other):
        of_pages.append(list(model.embed_images(pages())))
        of_questions.append(list(model.embed_queries(questions)))
    if not of_pages[0]:
        raise InputError("compare: expected at least one page, got none")
    scores = [max_sim(asked, shown) for asked, shown in zip(of_questions, of_pages, strict=True)]
    k = min(10, len(of_pages[0]))
    overlap = [np.isin(top_pages(a, k), top_pages(b, k)).mean() for a, b in zip(*scores, strict=True)]
    return Agreement(
        pages=len(of_pages[0]),
        questions=len(questions),
        page_cosines=_cosines(of_pages[0], of_pages[1], "page"),
        query_cosines=_cosines(of_questions[0], of_questions[1], "question"),
        same_first=_mean([a.argmax() == b.argmax() for a, b in zip(*scores, strict=True)]),
        overlap=_mean(overlap),
        k=k,
        rank_correlation=_mean([_spearman(a, b) for a, b in zip(*scores, strict=True)]),
    )


def _check(model: ModelProto, path: Path) -> None:
    """Refuse what dynamic quantization cannot do, or would do badly."""
    from onnx import TensorProto

    if found := sorted({node.op_type for node in model.graph.node} & _QUANTIZED):
        raise ModelLoadError(f"{path} is quantised already (it has {', '.join(found)}); start from a float32 export")
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


def _weights_of(graph: Path) -> list[Path]:
    """Files that hold weights of a graph: they are named after it."""
    return [file for file in graph.parent.glob(f"{glob.escape(graph.name)}?*") if file.is_file()]


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep onnxruntime's advice to preprocess the model, given to the root logger at every call, from the user."""
    root = logging.getLogger()

    def keep(record: logging.LogRecord) -> bool:
        return "pre-processing" not in record.getMessage()

    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def _cosines(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]], what: str) -> NDArray[np.float64]:
    found = []
    for number, (a, b) in enumerate(zip(one, other, strict=True), start=1):
        if a.shape != b.shape:
            raise InputError(
                f"compare: {what} {number} has vectors {a.shape} by one model and {b.shape} by the other, so they "
                "cannot be paired; are these versions of one model?"
            )
        a, b = a.astype(np.float64), b.astype(np.float64)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        found.append(np.where(lengths > 0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1), 1.0))
    return np.concatenate(found) if found else np.empty(0)


def _spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Correlation of ranks; of equal scores the first counts as the better."""
    if len(a) < 2:
        return float("nan")
    first, second = (
        np.argsort(np.argsort(-scores, kind="stable"), kind="stable").astype(np.float64) for scores in (a, b)
    )
    return float(np.corrcoef(first, second)[0, 1])


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
