"""Writes ``fixtures/neomme*``: tiny NeoMME checkpoints as transformers saves them, and what its classes give.

Each case has the multi-vectors (some rows, and all of them in projection) and the dense vector of the class in float64,
and how far the class in float32 is from them. That distance is the yardstick of the tests: rounding differs between
machines and operators, a fault does not hide below it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import torchvision_shim  # noqa: F401  # isort: skip  (must come before transformers)

from transformers import (
    NeoMMEConfig,
    NeoMMEForRetrieval,
    NeoMMEImageProcessor,
    NeoMMEProcessor,
    PreTrainedTokenizerFast,
)

from . import goldens, measures, tiny_tokenizers
from .cases import EMBEDDED_QUERIES, HOSTILE, LEADING_SPACE, LONG_PAGE, PAGES, QUERIES, TEXTS, Page, draw, page_named

TEMPLATE = """\
{%- set found = namespace(text='') -%}
{%- for message in messages -%}
    {%- if message.content is string -%}
        {%- set found.text = found.text + message.content -%}
    {%- else -%}
        {%- for part in message.content -%}
            {%- set found.text = found.text + (part.text if part.type == 'text' else image_token) -%}
        {%- endfor -%}
    {%- endif -%}
{%- endfor -%}
{%- if task == 'query' -%}
    {{- query_token + found.text + mask_token * 10 -}}
{%- elif task == 'document' -%}
    {{- document_token + found.text -}}
{%- else -%}
    {{- raise_exception('task must be query or document') -}}
{%- endif -%}
"""
# Text longer than the long window of 1,024 tokens, beside those of the tests' cases.
LONG_TEXT = TEXTS[-1] * 4
RESIZED = ("a4-portrait", "letter-landscape", "odd", "tall", "wide")
SAMPLED = 5
"""Every fifth level of a resized page is kept."""


def write(root: Path, save: Callable[..., None]) -> None:
    """Writes ``neomme/`` (bfloat16, shards) and ``neomme-float32/`` (one file, biases, other windows).

    Args:
        root: Folder of the fixtures.
        save: Writes JSON to a path.
    """
    for name in ("neomme", "neomme-float32"):
        _write(root, name, save)


def _write(root: Path, name: str, save: Callable[..., None]) -> None:
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    processor = _processor(folder)
    processor.save_pretrained(folder)
    config = NeoMMEConfig(vocab_size=len(processor.tokenizer), **_shape(name))
    model = NeoMMEForRetrieval(config)
    _fill(model, seed=len(name))
    if name == "neomme":
        model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="450KB")
    else:
        model.save_pretrained(folder)
    reference = {
        dtype: NeoMMEForRetrieval.from_pretrained(folder, dtype=torch.float32).eval().to(dtype)
        for dtype in (torch.float32, torch.float64)
    }
    arrays: dict[str, np.ndarray] = {}
    distances: dict[str, Any] = {}
    for case, inputs in _cases(processor, name):
        single, double = (_run(reference[dtype], inputs, dtype) for dtype in (torch.float32, torch.float64))
        arrays |= {f"{case}/{part}": values for part, values in double.items()}
        distances[case] = {part: float(np.abs(single[part] - double[part]).max()) for part in double}
    measures.save(folder / "golden.npz", arrays)
    golden: dict[str, Any] = {"distances": distances}
    if name == "neomme":  # the processors are the same
        levels = {page: _levels(processor, page) for page in RESIZED}
        measures.save(folder / "resized.npz", {page: sampled for page, (sampled, _) in levels.items()})
        golden |= {
            "queries": _ids(processor, "query"),
            "texts": _ids(processor, "document"),
            "pages": {page.name: _page_facts(processor, page) for page in (*PAGES, LONG_PAGE)},
            "resized": {page: shape for page, (_, shape) in levels.items()},
        }
    save(folder / "golden.json", golden, indent=None)


def _shape(name: str) -> dict[str, Any]:
    common = {"embedding_rank": 12, "head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
    if name == "neomme":
        return {**common, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 13}
    return {
        **common,
        **{"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 12, "embedding_dim": 64},
        **{"attention_bias": True, "mlp_bias": True, "sliding_window": 20, "residual_multiplier": 0.3},
        "per_layer_config": {4: {"sliding_window": 70}, 5: {"sliding_window": None}, 11: {"sliding_window": None}},
    }


def _processor(folder: Path) -> Any:
    content = tiny_tokenizers.neomme()
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    extra = {f"{kind}_token": f"<{short}>" for kind, short in _MARKERS.items()}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        **{f"{kind}_token": f"<{kind}>" for kind in ("pad", "bos", "eos", "unk", "mask")},
        extra_special_tokens=extra,
    )
    half = [0.5] * 3
    images = NeoMMEImageProcessor(max_side=2048, image_mean=half, image_std=half)
    return NeoMMEProcessor(images, tokenizer, chat_template=TEMPLATE)


_MARKERS = {"document": "doc", "image": "img", "query": "query", "row": "row"}


def _fill(model: torch.nn.Module, seed: int) -> None:
    """Gives every weight a random value on which the output depends; the class leaves many at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("lambdas"):
                value = torch.tensor([0.9, 0.2]) + 0.1 * noise
            elif name.endswith("alpha"):
                value = 0.5 * noise
            elif parameter.dim() == 1:
                value = (1.0 if name.endswith("norm.weight") else 0.0) + 0.1 * noise
            elif "embeddings.weight" in name:
                value = noise
            else:
                value = noise / math.sqrt(parameter.shape[1])
            parameter.copy_(value)


def _cases(processor: Any, name: str) -> Iterator[tuple[str, Any]]:
    for position, query in enumerate(EMBEDDED_QUERIES):
        if query not in HOSTILE:
            yield f"query/{position}", _chat(processor, query, "query")
    texts = (*TEXTS, LONG_TEXT) if name == "neomme" else TEXTS
    for position, text in enumerate(texts):
        yield f"text/{position}", _chat(processor, text, "document")
    for page in (*PAGES, LONG_PAGE):
        if max(page.width, page.height) < 2048:
            yield f"page/{page.name}", processor(images=[draw(page).convert("RGB")], return_tensors="pt")


def _chat(processor: Any, text: str, task: str) -> Any:
    messages = [{"role": "user", "content": text}]
    return processor.apply_chat_template(messages, task=task, tokenize=True, return_dict=True, return_tensors="pt")


def _run(model: Any, inputs: Any, dtype: torch.dtype) -> dict[str, np.ndarray]:
    given = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    with torch.no_grad():
        out = model(**given)
    rows = out.embeddings[0].numpy()
    return {
        "rows": rows[measures.few_rows(len(rows))],
        "projection": rows @ measures.directions(rows.shape[1]).astype(np.float64),
        "dense": out.dense_embeddings[0].numpy(),
    }


def _ids(processor: Any, task: str) -> dict[str, list[int]]:
    """Ids of every query; the class takes spelt-out special tokens for such, so these come from the tokenizer."""
    tokenizer = processor.tokenizer
    before = [tokenizer.convert_tokens_to_ids("<query>" if task == "query" else "<doc>")]
    after = [tokenizer.mask_token_id] * 10 if task == "query" else []

    def apart(text: str) -> list[int]:
        return [*before, *goldens.as_text(tokenizer, text), *after]

    texts = (*QUERIES, *LEADING_SPACE, *(TEXTS if task == "document" else ()))
    ids = {text: _chat(processor, text, task)["input_ids"][0].tolist() for text in texts}
    for text, found in ids.items():
        if found != apart(text):
            raise AssertionError(f"{task}: {text!r}: {found} != {apart(text)}")
    return ids | {text: apart(text) for text in HOSTILE}


def _page_facts(processor: Any, page: Page) -> dict[str, Any]:
    made = processor(images=[draw(page).convert("RGB")], return_tensors="np")
    return {
        **measures.fingerprint(made["pixel_values"]),
        "ids": measures.runs(made["input_ids"][0].tolist()),
        "positions": [measures.runs(axis.tolist()) for axis in made["position_ids"][:, 0]],
    }


def _levels(processor: Any, page: str) -> tuple[np.ndarray, list[int]]:
    """Grey levels of a page that torchvision reduces to a longest edge of 320 pixels: some of them, and their shape."""
    made = processor(images=[draw(page_named(page)).convert("RGB")], max_side=320, return_tensors="np")
    levels = np.rint(made["pixel_values"] * 127.5 + 127.5).astype(np.uint8)
    return levels.reshape(-1)[::SAMPLED], list(levels.shape)
