"""Write the two ONNX files, ``config.json`` and ``senses.npz`` of ColTiny from a checkpoint.

``python -m training.export --weights runs/final.pt --out colpali_integrations/models/coltiny/weights``

What happens on the way, each step measured and printed:

1. BatchNorm is folded into the convolutions.
2. The reader sees salient cells only: how many there are is an output's length.
3. Both heads are rotated into one orthonormal basis, the principal directions of the word vectors, and
   the weakest direction is dropped, so that the hinge's extra dimension ends at a round 128.
4. Weights are stored as float16, the reader's matrices and the table of spelling features as int8 with a
   scale for each row, and made float32 in the graph: half or a quarter of the bytes; ONNX Runtime does that
   once when it loads the file, so that inference runs in float32 at full speed.
5. The table of senses (`training/senses.py`) gets the written text encoder's vectors of its words, as int8 with a scale
   for each row: by them the words of a page are told.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from colpali_integrations.models.coltiny.words import (
    FEATURE_COUNT,
    MAX_WORD_FEATURES,
    fold,
    word_features,
    words,
)
from training.model import CELL, WORD_WEIGHT_RANGE, PageEncoder, WideBlock, WordEncoder, load_weights, word_batch

OPSET = 17
SCORING = {
    "longest_side": 1152,
    "cell": CELL,
    "salience_threshold": -2.5,
    "occurrence_cosine": 0.6,
    "cluster_cosine": 0.75,
    "k1": 0.6,
    "b": 0.9,
    "mean_occurrences": 311.0,
    "hinge": 0.3,
}
"""Constants of preprocessing and scoring, chosen on documents of the halves "dev" (see README.md)."""


def fold_batch_norm(module: nn.Module) -> None:
    """Replace every (convolution, BatchNorm) pair under ``module`` by one convolution, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential) and len(child) == 2 and isinstance(child[1], nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child[0], child[1]))
        else:
            fold_batch_norm(child)


@torch.no_grad()
def principal_basis(word: WordEncoder, vocabulary: list[str], *, keep: int) -> tuple[Tensor, float]:
    """Orthonormal directions (keep, dim) that hold most of the word vectors, and the share of energy lost."""
    vectors = torch.cat([word(*word_batch(vocabulary[i : i + 4096]))[0] for i in range(0, len(vocabulary), 4096)])
    energy, directions = torch.linalg.eigh((vectors.T @ vectors).double() / len(vectors))  # ascending
    basis = directions.T.flip(0)[:keep].float().contiguous()
    return basis, float(1 - energy.flip(0)[:keep].sum() / energy.sum())


class FoldedBlock(nn.Module):
    """A :class:`WideBlock` whose gain is part of its last convolution, so that the graph holds convolutions only."""

    def __init__(self, block: WideBlock) -> None:
        super().__init__()
        self.depthwise, self.expand, self.reduce = block.depthwise, block.expand, block.reduce
        gain = block.gain.detach().flatten()
        assert self.reduce.bias is not None
        with torch.no_grad():
            self.reduce.weight.mul_(gain[:, None, None, None])
            self.reduce.bias.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        return x + self.reduce(F.relu(self.expand(self.depthwise(x))))


class ExportPage(nn.Module):
    """Page encoder with folded BatchNorm and rotated head, which reads the salient cells only."""

    def __init__(self, page: PageEncoder, basis: Tensor, threshold: float) -> None:
        super().__init__()
        vector = nn.Linear(page.HIDDEN, len(basis))
        with torch.no_grad():
            vector.weight.copy_(basis @ page.vector.weight)
            vector.bias.copy_(basis @ page.vector.bias)
        page.vector = vector
        page.read = fuse_linear_bn_eval(page.read, page.read_norm)
        page.read_norm = nn.Identity()
        for blocks in (page.letters, page.words):
            for index, block in enumerate(blocks):
                blocks[index] = FoldedBlock(block)
        fold_batch_norm(page)
        self.page, self.threshold = page, threshold

    def forward(self, page: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (batch, 1, height, width) to unit vectors (n, dim) and salience (n,) of the n salient cells.

        The third output is int64 (n,), their places in the flattened (batch, height / 16, width / 16).
        """
        seen = self.page.see(page)
        salience = seen.salience.reshape(-1)
        cells = (salience > self.threshold).nonzero()[:, 0]
        vectors = self.page.vector(self.page.hidden(self.page.windows(seen, cells)))
        return F.normalize(vectors, dim=1), salience[cells], cells


class ExportWord(nn.Module):
    """Word encoder over a padded id matrix (the padding id's row is zero), rotated, weight clamped.

    Its table, most of the model's bytes, is stored as int8 with a scale for each row.
    """

    def __init__(self, word: WordEncoder, basis: Tensor) -> None:
        super().__init__()
        table = torch.cat([word.embedding.weight.detach(), torch.zeros(1, word.embedding.embedding_dim)])
        scale = table.abs().amax(1, keepdim=True).clamp(min=1e-6) / 127
        self.register_buffer("table", (table / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.word = word
        vector = nn.Linear(word.vector.in_features, len(basis))
        with torch.no_grad():
            vector.weight.copy_(basis @ word.vector.weight)
            vector.bias.copy_(basis @ word.vector.bias)
        word.vector = vector

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map ids (words, longest) to unit vectors (words, dim) and weights (words,)."""
        rows = F.embedding(features, self.table).float() * F.embedding(features, self.scale)
        vectors, weights = self.word.head(rows.sum(1))
        return vectors, weights.clamp(*WORD_WEIGHT_RANGE)


LARGE = 2**12
"""Numbers from which a layer's weights are stored as int8."""


def store_as_int8(model: onnx.ModelProto) -> None:
    """Store the weights of large layers as int8 with a scale for each output, multiplied out where used."""
    graph = model.graph
    weights = {
        node.input[1] for node in graph.node if node.op_type == "Conv" or (node.op_type == "Gemm" and _transposed(node))
    }
    for tensor in list(graph.initializer):
        array = numpy_helper.to_array(tensor)
        if tensor.name not in weights or array.size < LARGE:
            continue
        name, inputs = tensor.name, tuple(range(1, array.ndim))
        scale = np.abs(array).max(axis=inputs, keepdims=True).clip(1e-9) / 127
        tensor.CopyFrom(numpy_helper.from_array(np.round(array / scale).astype(np.int8), name + ".int8"))
        graph.initializer.append(numpy_helper.from_array(scale, name + ".scale"))
        wide = helper.make_node("Cast", [name + ".int8"], [name + ".wide"], name=name + ".cast", to=TensorProto.FLOAT)
        graph.node.insert(0, helper.make_node("Mul", [name + ".wide", name + ".scale"], [name], name=name + ".scaled"))
        graph.node.insert(0, wide)


def _transposed(gemm: onnx.NodeProto) -> bool:
    """Whether the second factor's rows are outputs, as PyTorch keeps them."""
    return any(attribute.name == "transB" and attribute.i == 1 for attribute in gemm.attribute)


def store_as_float16(model: onnx.ModelProto) -> None:
    """Store every float32 initializer of more than 64 numbers as float16, cast back where it is used.

    A table that is only gathered from is cast after the gather, so that it stays small in memory too.
    """
    graph = model.graph
    casts: list[onnx.NodeProto] = []
    for tensor in list(graph.initializer):
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.size <= 64:
            continue
        assert float(np.abs(array).max()) < 65504, f"{tensor.name} overflows float16"
        name, half = tensor.name, tensor.name + ".fp16"
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), half))
        users = [node for node in graph.node if name in node.input]
        if users and all(node.op_type == "Gather" and node.input[0] == name for node in users):
            for node in users:
                node.input[0] = half
                wide = node.output[0]
                node.output[0] = wide + ".fp16"
                cast = helper.make_node("Cast", [wide + ".fp16"], [wide], name=wide + ".cast", to=TensorProto.FLOAT)
                graph.node.insert(list(graph.node).index(node) + 1, cast)
        else:
            casts.append(helper.make_node("Cast", [half], [name], name=name + ".cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)
    # Shape inference left float32 entries for tensors that are float16 now.
    del graph.value_info[:]


def write_onnx(
    module: nn.Module, sample: Tensor, path: Path, *, names: tuple[str, ...], axes: dict[str, dict[int, str]]
) -> None:
    """Trace ``module`` on ``sample``, store it with float16 weights at ``path`` and check the file."""
    module.eval()
    torch.onnx.export(
        module, (sample,), str(path), input_names=[names[0]], output_names=list(names[1:]), dynamic_axes=axes,
        opset_version=OPSET, dynamo=False,
    )  # fmt: skip
    model = onnx.load(path)
    store_as_int8(model)
    store_as_float16(model)
    model.producer_name, model.producer_version, model.doc_string = "colpali-integrations training/export.py", "", ""
    for node in model.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@torch.no_grad()
def parity(page: PageEncoder, word: WordEncoder, basis: Tensor, folder: Path, vocabulary: list[str]) -> str:
    """How far the written files are from the encoders that they came from, on a printed page and 2,000 words.

    Compared are cosines between words and salient cells, which is all that scores are made of.
    """
    chosen = random.Random(0).sample(vocabulary, 2000)
    image = Image.new("L", (816, 1152), 255)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for line, y in enumerate(range(40, 1100, 18)):
        draw.text((40, y), " ".join(chosen[8 * line : 8 * line + 8]), font=font, fill=0)
    pixels = torch.from_numpy(np.asarray(image, np.float32) / 255)[None, None]
    ids = np.full((len(chosen), MAX_WORD_FEATURES), FEATURE_COUNT, np.int64)
    for row, features in zip(ids, map(word_features, chosen), strict=True):
        row[: len(features)] = features
    files = [ort.InferenceSession(str(folder / name)) for name in ("image.onnx", "text.onnx")]
    cells, salience, places = files[0].run(None, {"page": pixels.numpy()})
    vectors, weights = files[1].run(None, {"features": ids})
    seen = page.see(pixels)
    true_cells = page(page.windows(seen, torch.from_numpy(places)))[0].numpy()
    true_salience = seen.salience.reshape(-1)[places].numpy()
    true_vectors, true_weights = word(*word_batch(chosen))
    off = np.abs(vectors @ cells.T - true_vectors.numpy() @ true_cells.T)
    outside = 1 - np.square(true_cells @ basis.T.numpy()).sum(1).mean()
    weight_off = np.abs(true_weights.clamp(*WORD_WEIGHT_RANGE).numpy() - weights).max()
    return (
        f"parity over {len(places)} salient cells: cosines off by at most {off.max():.1e} (mean {off.mean():.1e}),"
        f" weights by {weight_off:.1e}, salience by {np.abs(salience - true_salience).max():.1e};"
        f" energy of cells outside the basis {outside:.1e}"
    )


def spell(table: Path, text: Path, out: Path) -> None:
    """Write the table of senses together with how the text encoder spells its words."""
    with np.load(table) as stored:
        arrays = {name: stored[name] for name in ("words", "senses", "sense_scales")}
    session = ort.InferenceSession(str(text))
    parts = []
    known = arrays["words"].tobytes().decode().split("\n")
    for start in range(0, len(known), 1000):
        some = known[start : start + 1000]
        ids = np.full((len(some), MAX_WORD_FEATURES), FEATURE_COUNT, np.int64)
        for row, features in zip(ids, map(word_features, some), strict=True):
            row[: len(features)] = features
        parts.append(session.run(["vectors"], {"features": ids})[0])
    vectors = np.concatenate(parts)
    scale = np.abs(vectors).max(axis=1) / 127
    arrays["spellings"] = np.round(vectors / scale[:, None]).astype(np.int8)
    arrays["spelling_scales"] = scale.astype(np.float16)
    np.savez_compressed(out, **arrays)


def word_list(path: Path) -> list[str]:
    """Distinct folded words of a word list, one or more words a line, in order of first appearance."""
    lines = path.read_text(encoding="utf-8", errors="ignore").splitlines()
    return list(dict.fromkeys(word for line in lines if fold(line) for word in words(line)))


def main() -> None:
    """Command line: see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--words", type=Path, default=Path("/usr/share/dict/american-english-large"))
    parser.add_argument("--senses", type=Path, default=Path("training/work/senses.npz"), help="from training.senses")
    parser.add_argument("--keep", type=int, default=127, help="directions kept of the encoders' 128")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change a scoring constant")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    page, word, extra = load_weights(options.weights)
    scoring: dict[str, float | int] = dict(SCORING)
    for pair in options.set:
        name, value = pair.split("=")
        scoring[name] = type(SCORING[name])(float(value))
    vocabulary = word_list(options.words)
    basis, lost = principal_basis(word, vocabulary, keep=options.keep)
    print(f"basis: {options.keep} directions, energy of word vectors lost {lost:.2e}")
    write_onnx(
        ExportPage(page, basis, float(scoring["salience_threshold"])), torch.rand(2, 1, 96, 160),
        options.out / "image.onnx", names=("page", "vectors", "salience", "cells"),
        axes={
            "page": {0: "batch", 2: "height", 3: "width"},
            "vectors": {0: "read"}, "salience": {0: "read"}, "cells": {0: "read"},
        },
    )  # fmt: skip
    write_onnx(
        ExportWord(word, basis), torch.randint(0, FEATURE_COUNT, (3, 40)), options.out / "text.onnx",
        names=("features", "vectors", "weights"),
        axes={"features": {0: "words", 1: "longest"}, "vectors": {0: "words"}, "weights": {0: "words"}},
    )  # fmt: skip
    # The modules were folded and rotated in place: compare with fresh ones.
    page, word, _ = load_weights(options.weights)
    print(parity(page, word, basis, options.out, vocabulary))
    spell(options.senses, options.out / "text.onnx", options.out / "senses.npz")
    config = {"family": "coltiny", "version": 2, "dim": options.keep + 1, "feature_padding": FEATURE_COUNT, **scoring}
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    sizes = {file.name: file.stat().st_size for file in sorted(options.out.iterdir()) if file.is_file()}
    print("bytes:", sizes, "total", sum(sizes.values()), "| step", extra.get("step"))


if __name__ == "__main__":
    main()
