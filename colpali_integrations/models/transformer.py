"""Base classes of the families with one transformer: prompts, pixels, and cutting outputs into multi-vectors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import EncodingError, ModelLoadError
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.family import PageCodec, Prepared
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.prompt import Vocabulary
from colpali_integrations.runtime.arrays import BuiltPair, Feed, Float32, GraphFiles, Graphs, Outputs

__all__ = ["PixelScale", "QueryCodec", "TransformerCodec", "TransformerFamily", "image_settings"]


def image_settings(directory: Path) -> tuple[dict[str, Any], Path]:
    """The settings of a folder's image processor, and the file that holds them.

    transformers 5 keeps them inside processor_config.json, earlier versions in preprocessor_config.json.

    Raises:
        ModelLoadError: neither file has them.
    """
    path = directory / "processor_config.json"
    settings = read_json(directory, path.name, optional=True).get("image_processor")
    earlier = directory / "preprocessor_config.json"
    if isinstance(settings, dict) and not earlier.is_file():
        return settings, path
    return {**(settings or {}), **read_json(directory, earlier.name)}, earlier


class PixelScale:
    """Scale uint8 pixels to the floats a model was trained on: ``(x * rescale_factor - mean) / std``, per channel.

    There are only 256 values per channel, so they are computed once, in the reference's order of operations (float64
    product, rounded to float32, then float32 arithmetic; transformers `image_transforms.rescale` and `normalize`),
    and looked up. The result equals the reference's bit for bit and costs one pass over the pixels.

    Args:
        config: the settings of an image processor.
        path: where they were read, for messages.
        fused: compute ``(x - mean / rescale_factor) / (std / rescale_factor)`` in float32, as processors on torchvision
            do (transformers `TorchvisionBackend.rescale_and_normalize`).

    Raises:
        ModelLoadError: `image_mean` or `image_std` is not a number or three of them.
    """

    def __init__(self, config: Mapping[str, Any], path: Path, *, fused: bool = False) -> None:
        factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
        fused = fused and config.get("do_normalize", True)
        values = np.arange(256, dtype=np.float64) * (1.0 if fused else factor)
        table = np.tile(values.astype(np.float32)[:, None], (1, 3))
        if config.get("do_normalize", True):
            try:
                mean, std = (
                    np.broadcast_to(np.asarray(config.get(name, 0.5), dtype=np.float32), (3,))
                    for name in ("image_mean", "image_std")
                )
            except ValueError as error:
                raise ModelLoadError(
                    f"{path}: image_mean and image_std must hold one number or three: {error}"
                ) from error
            unit = np.float32(1.0 / factor if fused else 1.0)
            table = (table - mean * unit) / (std * unit)
        self._table = np.ascontiguousarray(table.T)

    def __call__(self, image: Image.Image) -> Float32:
        """An RGB image as (3, height, width) float32."""
        pixels = np.asarray(image)
        scaled = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
        for channel in range(3):
            np.take(self._table[channel], pixels[:, :, channel], out=scaled[channel])
        return scaled


class TransformerCodec:
    """The part that queries and pages share: batching without padding, and one vector per token.

    Args:
        dim: length of a vector.
        inputs: gives the further inputs of a built graph from ids, int64 (batch, n_tokens); None for an export, whose
            inputs are a mask and token types.
        kept: tells from ids, int64 (n_tokens,), which tokens keep their vectors; None for all.
    """

    def __init__(
        self,
        dim: int,
        inputs: Callable[[NDArray[np.int64]], Feed] | None = None,
        kept: Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None = None,
    ) -> None:
        self._dim = dim
        self._inputs = inputs
        self._kept = kept

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """The items' arrays with a batch axis, plus the attention mask and the token types of unpadded rows."""
        feed = {name: np.stack([item.arrays[name] for item in batch]) for name in batch[0].arrays}
        if self._inputs is not None:
            return {**feed, **self._inputs(feed["input_ids"])}
        feed["attention_mask"] = np.ones_like(feed["input_ids"])
        # An input of some exports; PaliGemma's type 0 is the prefix, which attends in both directions.
        feed["token_type_ids"] = np.zeros_like(feed["input_ids"])
        return feed

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """Cut the graph's first output (batch, n_tokens, dim) into one (n_vectors, dim) array per item.

        Tokens of the prompt are included, as in the reference; those that are not `kept` are left out. Half-precision
        rows are scaled to length 1 again after the conversion, because rounding moves their length by up to 1e-3.

        Raises:
            EncodingError: the output has another shape, or no token of an item is kept.
        """
        name, embeddings = next(iter(outputs.items()))
        expected = (len(batch), len(batch[0].ids), self._dim)
        if embeddings.shape != expected:
            raise EncodingError(
                f"output {name!r} has shape {embeddings.shape}, expected {expected} (batch, tokens, dim); does the "
                "description's dim fit the model?"
            )
        rows = embeddings.astype(np.float32, copy=False)
        if embeddings.dtype == np.float16:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
        # Copies: a view would keep the whole batch in memory for as long as one of its items lives.
        return [row[self.kept(item.ids)] for row, item in zip(rows, batch, strict=True)]

    def kept(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of an item's tokens, (n_tokens,), have a vector in its result.

        Raises:
            EncodingError: none has one.
        """
        kept = np.ones(len(ids), np.bool_) if self._kept is None else self._kept(ids)
        if not kept.any():
            raise EncodingError("nothing is left of a text without the tokens that the model skips; it has no words")
        return kept


class QueryCodec(TransformerCodec):
    """Queries: the description's prefix, the user's text cut to length, augmentation tokens.

    The plain words of the prefix are tokenized together with the user's text, as in training.

    Args:
        vocabulary: the model's tokenizer.
        description: the prompts and the longest user text, in tokens.
        blank_pixels: (…) shape of one item's pixel_values for a text query.
        template: whether the reference lets the tokenizer add its own template (Idefics3 does, PaliGemma does not).
        inputs: as of `TransformerCodec`.
        kept: as of `TransformerCodec`.
        kind: what the warning of a cut text calls it; the advice for a "query" is another than for others.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        description: ModelDescription,
        *,
        blank_pixels: tuple[int, ...],
        template: bool,
        inputs: Callable[[NDArray[np.int64]], Feed] | None = None,
        kept: Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None = None,
        kind: str = "query",
    ) -> None:
        super().__init__(description.dim, inputs, kept)
        self._vocabulary = vocabulary
        self._blank = blank_pixels
        self._template = template
        self._around = description.query_prefix, description.query_suffix
        head, self._lead = vocabulary.split_special(description.query_prefix)
        before, after = vocabulary.template_ids() if template else ([], [])
        self._head = [*before, *vocabulary.prompt_ids(head)]
        self._tail = [*vocabulary.prompt_ids(description.query_suffix), *after]
        self._max_tokens = description.max_query_tokens
        self._limit = len(vocabulary.user_ids(self._lead)) + self._max_tokens
        self._kind = kind
        self._warned = False

    def check_seams(self, name: str) -> None:
        """Refuse a tokenizer that makes other tokens of the prompt and a text together than one after the other.

        Args:
            name: of the model, for messages.

        Raises:
            ModelLoadError: it does.
        """
        prefix, suffix = self._around
        if self.prepare("a").ids.tolist() != self._vocabulary.prompt_ids(f"{prefix}a{suffix}", template=self._template):
            raise ModelLoadError(
                f"the tokenizer of {name} makes other tokens of a text behind {prefix!r} than of the text alone, which "
                "is not supported for this family"
            )

    def prepare(self, item: str) -> Prepared:
        """Tokenize. Queries of equal length share a run, so that none needs padding."""
        user_ids = self._vocabulary.user_ids(self._lead + item)
        if len(user_ids) > self._limit and not self._warned:
            self._warned = True
            n_tokens = len(user_ids) - self._limit + self._max_tokens
            advice = (
                "Late interaction works best with a question, not a page; for longer texts set max_query_tokens in the "
                "model's description."
                if self._kind == "query"
                else "Split it into parts."
            )
            message = f"a {self._kind} of {n_tokens} tokens is cut to {self._max_tokens} (reported once). {advice}"
            warnings.warn(message, stacklevel=2)
        ids = np.array([*self._head, *user_ids[: self._limit], *self._tail], dtype=np.int64)
        return Prepared(len(ids), {"input_ids": ids})

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """(batch, n_tokens) ids, mask and types, and a blank image that a split graph ignores."""
        # Broadcast, not allocated: a split graph never touches it.
        blank = np.broadcast_to(np.float32(0), (len(batch), *self._blank))
        return {**super().feed(batch), "pixel_values": blank}

    def count(self, text: str, *, include_special: bool) -> int:
        """Number of vectors of a query, or of tokens of the user's own text alone, after truncation."""
        if include_special:
            return int(self.kept(self.prepare(text).ids).sum())
        return min(len(self._vocabulary.user_ids(text)), self._max_tokens)

    def pieces(self, text: str) -> list[str | None]:
        """The piece of the user's text that each vector of a query stands for, without white space around it.

        None for the prompt's own tokens and for those of white space. The bytes of a rare character are tokens of
        their own in some vocabularies; each of them stands for the whole character.
        """
        whole, start = self._lead + text, len(self._lead)
        spans = self._vocabulary.user_spans(whole)[: self._limit]
        # A token of the lead and the text together, such as a space that belongs to the next word, counts for the text.
        pieces = [whole[max(first, start) : end].strip() or None for first, end in spans]
        pieces = [*[None] * len(self._head), *pieces, *[None] * len(self._tail)]
        return pieces if self._kept is None else list(compress(pieces, self._kept(self.prepare(text).ids)))


class TransformerFamily:
    """Base of a family with one transformer, a merged export or a checkpoint's graphs. Texts are encoded as queries.

    Args:
        description: the model.
        directory: the folder of its files.
        queries: the codec of queries and texts.
        pages: the codec of pages.
        built: the graphs of a checkpoint; None for an export.
    """

    def __init__(
        self,
        description: ModelDescription,
        directory: Path,
        *,
        queries: QueryCodec,
        pages: PageCodec,
        built: BuiltPair | None = None,
    ) -> None:
        graph = directory / description.model_file
        self.graphs: Graphs = built or GraphFiles(graph, graph)
        self.queries = self.texts = queries
        self.pages = pages

    @staticmethod
    def adapt(
        base: ModelDescription, config: Mapping[str, Any], processor: Mapping[str, Any], hints: str
    ) -> ModelDescription:
        """Return `base`: checkpoints of most families differ only in the query prompt, which no file records."""
        return base

    def token_count(self, text: str, *, include_special: bool = True) -> int:
        """Number of tokens of a query, after truncation."""
        return self.queries.count(text, include_special=include_special)

    def query_tokens(self, text: str) -> list[str | None]:
        """The piece of `text` that each query vector stands for; None for the prompt and the augmentation."""
        return self.queries.pieces(text)
