"""What the generators of checkpoints on Qwen's vision models share: tokenizer, weights, cases and their outputs."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import torchvision_shim  # noqa: F401  # isort: skip  (must come before the libraries)

from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from . import measures, tiny_tokenizers
from .cases import EMBEDDED_QUERIES, HOSTILE, STRIP, Page, draw, page_named

LAYERS = 12
BUDGET = 100
"""Tokens of a page in the goldens: several windows each way, with rests."""
MOST = 768
PAGES = tuple(
    page_named(name)
    for name in ("a4-portrait", "letter-landscape", "square", "pixel", "small", "exact-448", "large", "odd", "grey")
)
EMBEDDED = ("a4-portrait", "letter-landscape", "pixel", "small", "exact-448", "odd", "grey")
# The regular expression of the modules that colpali-engine's training scripts adapt.
ADAPTED = r"(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"


def make_tokenizer(folder: Path) -> Any:
    """Writes a small tokenizer in Qwen2's manner into a folder."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(tiny_tokenizers.qwen2(), ensure_ascii=False), encoding="utf-8")
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path), pad_token="<|endoftext|>", eos_token="<|im_end|>", padding_side="left"
    )


def token_ids(tokenizer: Any) -> dict[str, int]:
    """The entries of config.json for the tokens of pictures and videos."""
    tokens = ("image_pad", "video_pad", "vision_start", "vision_end")
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {name: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in zip(names, tokens, strict=True)}


def fill(model: torch.nn.Module, seed: int, only: str = "") -> None:
    """Gives weights random values on which the output depends; PEFT leaves half of an adapter at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if only not in name:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                norm = ("norm" in name or "ln_q" in name) and name.endswith("weight")
                value = float(norm) + 0.1 * noise
            elif "embed_tokens" in name:
                value = noise
            else:
                value = noise * (0.7 if only else 1.3) / math.sqrt(parameter[0].numel())
            parameter.copy_(value)


def limited(tokens: int, edge: int, **settings: Any) -> Any:
    """The image processor for pages of 4 to so many tokens of edge x edge pixels."""
    size = {"shortest_edge": 4 * edge**2, "longest_edge": tokens * edge**2}
    return Qwen2VLImageProcessorPil(size=size, **settings)


def embedded_cases(
    processor: Any, images: Any, queries: dict[str, list[int]]
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """The inputs of queries and pages by the name of their case.

    Args:
        processor: of the class.
        images: the image processor for pages of at most `BUDGET` tokens.
        queries: ids by query.
    """
    for position, query in enumerate(EMBEDDED_QUERIES):
        if query not in HOSTILE:
            yield f"query/{position}", {"input_ids": torch.tensor([queries[query]])}
    small = copy.copy(processor)
    small.image_processor = images
    for page in (*map(page_named, EMBEDDED), STRIP):
        yield f"page/{page.name}", dict(small.process_images([draw(page).convert("RGB")]))
    yield "whole/odd", dict(processor.process_images([draw(page_named("odd")).convert("RGB")]))


def write_goldens(
    folder: Path,
    save: Callable[..., None],
    facts: dict[str, Any],
    single: Any,
    run: Callable[[Any, dict[str, Any]], torch.Tensor],
    cases: Iterator[tuple[str, dict[str, Any]]],
    *,
    kept: int = 8,
) -> None:
    """Writes golden.npz and golden.json: the outputs in float64, and the distance of those in float32 from them.

    Args:
        folder: Of the fixture.
        save: Writes JSON to a path.
        facts: What else golden.json holds.
        single: The model in float32.
        run: Gives the vectors of a model for inputs.
        cases: Names and inputs.
        kept: How many rows of a case are kept whole.
    """
    arrays: dict[str, np.ndarray] = {}
    distances: dict[str, Any] = {}
    models = {torch.float32: single, torch.float64: copy.deepcopy(single).double()}
    for case, inputs in cases:
        found = {}
        for dtype, model in models.items():
            given = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
            with torch.no_grad():
                rows = run(model, {**given, "attention_mask": torch.ones_like(given["input_ids"])})[0].numpy()
            projection = rows.astype(np.float64) @ measures.directions(rows.shape[1]).astype(np.float64)
            found[dtype] = {"rows": rows[measures.few_rows(len(rows), kept)], "projection": projection}
        arrays |= {f"{case}/{part}": values for part, values in found[torch.float64].items()}
        pairs = {part: (values, found[torch.float32][part]) for part, values in found[torch.float64].items()}
        distances[case] = {part: float(np.abs(a - b).max()) for part, (a, b) in pairs.items()}
    measures.save(folder / "golden.npz", arrays)
    save(folder / "golden.json", {**facts, "distances": distances}, indent=None)


def page_facts(processor: Any, page: Page, patch: int) -> dict[str, Any]:
    """Ids, grid and pixels of a page. A page stands twice in its pixels, as two equal frames; one is kept."""
    made = processor.process_images([draw(page).convert("RGB")])
    frames = made["pixel_values"][0].numpy().reshape(-1, 3, 2, patch * patch)
    if not np.array_equal(frames[:, :, 0], frames[:, :, 1]):
        raise AssertionError(f"{page.name}: the frames differ")
    return {
        **measures.fingerprint(np.ascontiguousarray(frames[:, :, 0]).reshape(len(frames), -1)),
        "grid": made["image_grid_thw"][0].tolist(),
        "ids": measures.runs(made["input_ids"][0].tolist()),
    }
