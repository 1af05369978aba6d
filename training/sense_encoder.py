"""What a run of words is about: a small transformer that answers as all-MiniLM-L6-v2 does to the text they stand in.

It sees only words of the table of senses, in any order, each as sure as it was read, and gives a unit vector. That is a
weighted sum of the words' senses, corrected by what the words say together. An unsure word is attended to less, by
degrees, and one of no certainty is not there, which is also what pads a shorter run. `distil.py` trains it, and
``python -m training.sense_encoder training/work/senses/student.pt training/work/senses/student.onnx`` exports it.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPSET = 17
LARGE = 4096
"""Numbers from which a matrix is stored as int8."""
NEVER = 1e-12
"""Least certainty: words below it have no part in the answer that float32 could tell."""


class Layer(nn.Module):
    """Attention among the words of a run, then a layer for each word, both added to what was there."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.qkv, self.mix = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.between, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, inner), nn.Linear(inner, width)
        nn.init.normal_(self.mix.weight, std=0.02)
        nn.init.normal_(self.down.weight, std=0.02)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map (runs, words, width) to the same shape; `bias` (runs, 1, 1, words) is added to attention's logits."""
        runs, words, width = x.shape
        parts = self.qkv(self.before(x)).view(runs, words, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        x = x + self.mix(seen.transpose(1, 2).reshape(runs, words, width))
        return x + self.down(F.gelu(self.up(self.between(x)), approximate="tanh"))


class SenseEncoder(nn.Module):
    """Runs of words to unit vectors.

    Args:
        words: of the table.
        columns: numbers of a word's sense.
        dim: numbers of an answer.
        width: of the transformer.
        inner: of its layers for each word.
        layers: how many.
        heads: of attention.
        places: how many places in a run are told apart; 0 for none, as where columns may be read across.
    """

    def __init__(
        self,
        words: int,
        columns: int = 112,
        dim: int = 127,
        *,
        width: int = 192,
        inner: int = 512,
        layers: int = 4,
        heads: int = 6,
        places: int = 0,
    ) -> None:
        super().__init__()
        self.shape = {
            "words": words, "columns": columns, "dim": dim, "width": width, "inner": inner, "layers": layers,
            "heads": heads, "places": places,
        }  # fmt: skip
        self.table = nn.Embedding(words, columns)
        self.weight = nn.Embedding(words, 1)
        self.plain = nn.Linear(columns, dim, bias=False)
        self.enter = nn.Linear(columns, width)
        self.place = nn.Parameter(torch.zeros(places, width)) if places else None
        self.layers = nn.ModuleList(Layer(width, inner, heads) for _ in range(layers))
        self.norm, self.share, self.leave = nn.LayerNorm(width), nn.Linear(width, 1), nn.Linear(width, dim)
        nn.init.normal_(self.leave.weight, std=0.002)
        nn.init.zeros_(self.leave.bias)

    def forward(self, ids: Tensor, sure: Tensor) -> Tensor:
        """Map the words (runs, words) and how sure each is, from 0 to 1, likewise, to unit vectors (runs, dim)."""
        senses = self.table(ids)
        alone = self.plain((senses * self.weight(ids) * sure[..., None]).sum(1)).float()
        return F.normalize(F.normalize(alone, dim=1) + self.together(senses, sure), dim=1)

    def together(self, senses: Tensor, sure: Tensor) -> Tensor:
        """What the words say together and none of them alone: float32 (runs, dim)."""
        x = self.enter(senses)
        if self.place is not None:
            x = x + self.place[: x.shape[1]]
        bias = sure.clamp(min=NEVER).log()[:, None, None]
        for layer in self.layers:
            x = layer(x, bias)
        x = self.norm(x)
        share = torch.sigmoid(self.share(x).float()) * sure[..., None]
        about: Tensor = self.leave((x * share).sum(1) / share.sum(1).clamp(min=NEVER)).float()
        return about


def save(path: Path, encoder: SenseEncoder, words: list[str], **notes: object) -> None:
    """Write the encoder in float16 and the words of its table, atomically: a killed run leaves a whole file."""
    weights = {name: value.detach().half().cpu() for name, value in encoder.state_dict().items()}
    part = path.with_suffix(".part")
    torch.save({"shape": encoder.shape, "weights": weights, "words": "\n".join(words), **notes}, part)
    part.rename(path)


def load(path: Path) -> tuple[SenseEncoder, list[str]]:
    """The encoder that :func:`save` wrote, and the words of its table."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    encoder = SenseEncoder(**stored["shape"])
    encoder.load_state_dict({name: value.float() for name, value in stored["weights"].items()})
    return encoder.eval(), stored["words"].split("\n")


def to_whole(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers of -127 to 127, with a scale for each row."""
    scale = matrix.abs().amax(1, keepdim=True).clamp(min=1e-9) / 127
    return (matrix / scale).round(), scale


class Whole(nn.Module):
    """A linear layer or a table with its matrix as int8."""

    def __init__(self, layer: nn.Linear | nn.Embedding) -> None:
        super().__init__()
        whole, scale = to_whole(layer.weight.detach())
        self.register_buffer("whole", whole.to(torch.int8))
        self.register_buffer("scale", scale)
        self.table = isinstance(layer, nn.Embedding)
        self.bias = None if self.table else layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Rows of the table for ids, or the linear layer's answer."""
        if self.table:
            return F.embedding(x, self.whole).float() * F.embedding(x, self.scale)
        return F.linear(x, self.whole.float() * self.scale, self.bias)


def large(encoder: SenseEncoder) -> dict[str, nn.Linear | nn.Embedding]:
    """The linear layers and tables that are stored as int8, by their names."""
    return {
        name: layer
        for name, layer in encoder.named_modules()
        if isinstance(layer, nn.Linear | nn.Embedding) and layer.weight.numel() >= LARGE and layer.weight.shape[1] > 1
    }


@torch.no_grad()
def round_to_int8(encoder: SenseEncoder) -> None:
    """Round the matrices as the file stores them."""
    for layer in large(encoder).values():
        whole, scale = to_whole(layer.weight)
        layer.weight.copy_(whole * scale)


def export(encoder: SenseEncoder, path: Path) -> None:
    """Write the encoder as ONNX: int64 `ids` and float32 `sure` (runs, words) to float32 `about` (runs, dim).

    Large matrices are int8 in the file, which ONNX Runtime multiplies out once when it loads it, the rest is float16.
    """
    import onnx

    from training.export import store_as_float16

    encoder = copy.deepcopy(encoder).eval()
    for name, layer in large(encoder).items():
        encoder.set_submodule(name, Whole(layer))
    ids, sure = torch.randint(0, encoder.shape["words"], (3, 9)), torch.rand(3, 9)
    torch.onnx.export(
        encoder, (ids, sure), str(path), input_names=["ids", "sure"], output_names=["about"],
        dynamic_axes={"ids": {0: "runs", 1: "words"}, "sure": {0: "runs", 1: "words"}, "about": {0: "runs"}},
        opset_version=OPSET, do_constant_folding=False, dynamo=False,
    )  # fmt: skip
    model = onnx.load(path)
    store_as_float16(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    export(load(options.student)[0], options.out)
    print(f"{options.out}: {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
