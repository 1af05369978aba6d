"""ColTiny's two encoders: pixels to cell vectors, words to vectors of the same space.

Both are trained from random weights. Their vectors meet in one space: the vector of a 16 x 16 pixel
cell points to the vector of the word whose centre lies in that cell, so MaxSim over the cells of a
page asks "does this page say the word, as far as it can be read?".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colpali_integrations.core.families.coltiny_words import FEATURE_COUNT, word_features

CELL = 16
"""Side in pixels of the square cell that one page vector stands for (four strides of two)."""
WORD_WEIGHT_RANGE = (0.05, 1.1)
"""Bounds of a query word's learned weight, so that no word is mute or drowns the rest."""


class _DepthwiseGradient(torch.autograd.Function):
    """Depthwise convolution whose weight gradient is taken in float32, channels last.

    oneDNN's bfloat16 kernel for that one gradient is so slow on CPUs that it takes a quarter of a training step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        weight = weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, None, 1, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        shape = (None, [1, 1], list(ctx.padding), [1, 1], False, [0, 0], x.shape[1])
        backward = torch.ops.aten.convolution_backward
        to_x = backward(gradient, x, weight, *shape, [True, False, False])[0]
        to_weight = backward(gradient.float(), x.float(), weight.float(), *shape, [False, True, False])[1]
        return to_x, to_weight, None


class DepthwiseConv(nn.Conv2d):
    """A convolution of each channel by itself, with stride 1 and no bias; see :class:`_DepthwiseGradient`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        if not self.training:
            return super().forward(x)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.bfloat16)
        return _DepthwiseGradient.apply(x, self.weight, self.padding)


def conv_norm(
    inputs: int, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A padded convolution without bias followed by BatchNorm, which export folds into one convolution."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    kind = DepthwiseConv if groups == inputs and stride == 1 and groups > 1 else nn.Conv2d
    conv = kind(inputs, outputs, (height, width), stride, (height // 2, width // 2), groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class DenseResidual(nn.Module):
    """Two 3 x 3 convolutions with a skip connection: letter strokes at a quarter of the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels, 3)
        self.second = conv_norm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class WideBlock(nn.Module):
    """ConvNeXt-like block whose depthwise kernel is wider than high, as words are."""

    def __init__(self, channels: int, kernel: tuple[int, int], *, expansion: int = 2) -> None:
        super().__init__()
        self.depthwise = conv_norm(channels, channels, kernel, groups=channels)
        self.expand = nn.Conv2d(channels, channels * expansion, 1)
        self.reduce = nn.Conv2d(channels * expansion, channels, 1)
        self.gain = nn.Parameter(torch.full((1, channels, 1, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        return x + self.gain * self.reduce(F.relu(self.expand(self.depthwise(x))))


class PageEncoder(nn.Module):
    """Greyscale page to one unit vector and one salience logit for each 16 x 16 cell."""

    def __init__(self, *, dim: int = 128) -> None:
        super().__init__()
        self.stem = conv_norm(1, 24, 3, stride=2)
        self.down4 = conv_norm(24, 48, 3, stride=2)
        self.strokes = DenseResidual(48)
        self.down8 = conv_norm(48, 128, 3, stride=2)
        self.letters = nn.Sequential(*[WideBlock(128, (5, 7)) for _ in range(3)])
        self.down16 = conv_norm(128, 256, 3, stride=2)
        self.words = nn.Sequential(*[WideBlock(256, (3, 9)) for _ in range(3)], WideBlock(256, (3, 7)))
        self.norm = nn.BatchNorm2d(256)
        self.head = nn.Conv2d(256, dim + 1, 1)

    def forward(self, page: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pages.

        Args:
            page: float (batch, 1, height, width), 0 black to 1 white, sides multiples of 16.

        Returns:
            Unit vectors (batch, dim, height / 16, width / 16) and salience logits (batch, height / 16,
            width / 16); a positive logit says "a word is centred in this cell".
        """
        x = F.relu(self.stem(page))
        x = self.strokes(F.relu(self.down4(x)))
        x = self.letters(F.relu(self.down8(x)))
        x = self.words(F.relu(self.down16(x)))
        out = self.head(self.norm(x)).float()
        return F.normalize(out[:, :-1], dim=1), out[:, -1]


class WordEncoder(nn.Module):
    """Sum of spelling features (see ``word_features``), a residual MLP, a unit vector and a weight."""

    def __init__(self, *, hidden: int = 192, dim: int = 128) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(FEATURE_COUNT, hidden, mode="sum")
        nn.init.normal_(self.embedding.weight, 0, 0.08)
        self.norm_in = nn.LayerNorm(hidden)
        self.expand = nn.Linear(hidden, 512)
        self.reduce = nn.Linear(512, hidden)
        self.norm_out = nn.LayerNorm(hidden)
        self.vector = nn.Linear(hidden, dim)
        self.weight = nn.Sequential(nn.Linear(hidden, 64), nn.ReLU(), nn.Linear(64, 1))

    def head(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Summed features (words, hidden) to unit vectors (words, dim) and weights (words,)."""
        x = self.norm_in(x)
        x = self.norm_out(x + self.reduce(F.gelu(self.expand(x))))
        # The weight only observes the vector's features: regressing it must not bend the shared space.
        return F.normalize(self.vector(x), dim=1), self.weight(x.detach()).squeeze(1)

    def forward(self, ids: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Encode words given as concatenated feature ids (total,) and each word's start (words,)."""
        return self.head(self.embedding(ids, offsets))


_FEATURES: dict[str, list[int]] = {}


def word_batch(words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Feature ids and offsets of ``words`` for :class:`WordEncoder`; features are remembered."""
    ids: list[int] = []
    offsets: list[int] = []
    for word in words:
        features = _FEATURES.get(word)
        if features is None:
            features = _FEATURES[word] = word_features(word)
        offsets.append(len(ids))
        ids.extend(features)
    return torch.tensor(ids), torch.tensor(offsets)


# The study that found this design named its modules by single letters; its weights start ours.
_STUDY_PAGE = {
    "d1.": "down4.", "r1.a.": "strokes.first.", "r1.b.": "strokes.second.", "d2.": "down8.", "s3.": "letters.",
    "d3.": "down16.", "s4.": "words.", "nb.": "norm.",
}  # fmt: skip
_STUDY_BLOCK = {".dw.": ".depthwise.", ".p1.": ".expand.", ".p2.": ".reduce."}
_STUDY_WORD = {
    "emb.": "embedding.", "ln.": "norm_in.", "a.": "expand.", "b.": "reduce.", "ln2.": "norm_out.", "o.": "vector.",
    "w.": "weight.",
}  # fmt: skip


def _rename(name: str, prefixes: dict[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            name = new + name[len(old) :]
            break
    for old, new in _STUDY_BLOCK.items():
        name = name.replace(old, new)
    return name[:-2] + ".gain" if name.endswith(".g") else name


def load_weights(path: str | Path) -> tuple[PageEncoder, WordEncoder, dict[str, object]]:
    """Read a checkpoint of ``train.py`` (or of the study before it) into two encoders in eval mode.

    Returns:
        The page encoder, the word encoder, and the checkpoint's other entries (step, seconds, ...).
    """
    state = torch.load(path, map_location="cpu", weights_only=False)
    page, word = PageEncoder(), WordEncoder()
    if "img" in state:
        page.load_state_dict({_rename(k, _STUDY_PAGE): v for k, v in state["img"].items()})
        word.load_state_dict({_rename(k, _STUDY_WORD): v for k, v in state["txt"].items()})
    else:
        page.load_state_dict(state["page"])
        word.load_state_dict(state["word"])
    rest = {k: v for k, v in state.items() if k not in {"img", "txt", "page", "word"}}
    return page.eval(), word.eval(), rest
