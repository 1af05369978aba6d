"""Writes ``fixtures/colqwen3_5`` and ``fixtures/pplx_late``: tiny checkpoints on Qwen3.5, and their outputs.

``colqwen3_5`` is colpali-engine's ``ColQwen3_5`` in bfloat16 and shards, causal, with two heads of values per head of
keys and three layers in four of linear attention. ``pplx_late`` is sentence-transformers' ``MultiVectorEncoder`` over
``Qwen3_5Model`` in float32, saved by it in the layout of perplexity-ai/pplx-embed-v2-late: not causal, half of the
layers linear, prompts as special tokens, a chat template that adds nothing, and a list of skipped words.

The class computes parts in float32 even where its weights are float64, the delta rule above all. The goldens have all
of it in float64, the delta rule by its recurrence, token by token.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import string
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from . import torchvision_shim  # noqa: F401  # isort: skip  (must come before the libraries)

from colpali_engine.models import ColQwen3_5, ColQwen3_5Processor
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3_5Config,
    Qwen3_5Model,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen3_5 import modeling_qwen3_5 as classes

from . import goldens, qwen_vl, tiny_tokenizers
from .cases import (
    EMBEDDED_QUERIES,
    HOSTILE,
    LONG_QUERY,
    QUERIES,
    QWEN3_5_PROMPTS,
    STRIP,
    TEXTS,
    Prompt,
    draw,
    page_named,
)
from .qwen_vl import BUDGET, EMBEDDED, LAYERS, MOST, PAGES

PATCH, EDGE = 16, 32
KEPT = 3
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "patch_size": PATCH}
DIM = 128
_ENDS = re.compile(r"\.(o_proj|out_proj|down_proj|attn\.proj|mlp\.linear_fc2)\.")
# The texts of a message's parts in their order, with a picture's markers before; no role, no template's own words.
TEMPLATE = """
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- for part in message.content %}{{ part.text }}{% endfor %}
    {%- endif %}
{%- endfor %}
{%- for message in messages if message.role != 'system' %}
    {%- for part in message.content if part.type == 'image' %}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
    {%- endfor %}
    {%- for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}
{%- endfor %}
"""


def write(root: Path, save: Callable[..., None]) -> None:
    """Writes both folders.

    Args:
        root: Folder of the fixtures.
        save: Writes JSON to a path.
    """
    for name in ("colqwen3_5", "pplx_late"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    _colqwen3_5(root / "colqwen3_5", save)
    _pplx_late(root / "pplx_late", save)


def _colqwen3_5(folder: Path, save: Callable[..., None]) -> None:
    tokenizer = qwen_vl.make_tokenizer(folder)
    processor = ColQwen3_5Processor(qwen_vl.limited(MOST, EDGE, **HALF), tokenizer, Qwen3VLVideoProcessor())
    processor.save_pretrained(folder)
    heads = {"linear_num_key_heads": 1, "linear_num_value_heads": 2}
    model = ColQwen3_5(_config(tokenizer, **heads, full_attention_interval=4))
    _fill(model, seed=7)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="300KB")
    single = ColQwen3_5.from_pretrained(folder, dtype=torch.float32).eval()

    def reference(prompt: Prompt, query: str) -> list[int]:
        ids: list[int] = processor.process_queries([query])["input_ids"][0].tolist()
        return ids

    def run(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        model.rope_deltas = None  # positions of the page before
        with _exact(model):
            rows: torch.Tensor = model(**inputs)
        return rows

    queries = goldens.query_ids(tokenizer, QWEN3_5_PROMPTS, reference, template=False)
    pages = {page.name: qwen_vl.page_facts(processor, page, PATCH) for page in (*PAGES, STRIP)}
    cases = [*qwen_vl.embedded_cases(processor, qwen_vl.limited(BUDGET, EDGE, **HALF), queries["bare"])]
    cases.append(("long/0", {"input_ids": torch.tensor([reference(QWEN3_5_PROMPTS[0], LONG_QUERY)])}))
    facts = {"queries": queries, "pages": pages}
    qwen_vl.write_goldens(folder, save, facts, single, run, iter(cases), kept=KEPT)


def _pplx_late(folder: Path, save: Callable[..., None]) -> None:
    heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
    with tempfile.TemporaryDirectory() as backbone:
        tokenizer = _save_backbone(Path(backbone), is_causal=False, **heads, full_attention_interval=2)
        transformer = Transformer(backbone, query_length=1024, document_length=4096)
    transformer.processor.image_processor = qwen_vl.limited(BUDGET, EDGE, **HALF)
    head = Dense(
        in_features=32,
        out_features=DIM,
        bias=False,
        activation_function=torch.nn.Identity(),
        module_input_name="token_embeddings",
    )
    _fill(head, seed=9)
    mask = MultiVectorMask(skiplist_words=list(string.punctuation))
    encoder = MultiVectorEncoder(
        modules=[transformer, head, mask, Normalize("token_embeddings")],
        prompts={"query": "[Q] ", "document": "[D] "},
        device="cpu",
    )
    encoder.save_pretrained(str(folder), create_model_card=False)

    def ids(task: str, prompt: str, text: str) -> list[int]:
        numbers: list[int] = encoder.preprocess([text], prompt=prompt, task=task)["input_ids"][0].tolist()
        return numbers

    def run(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        task = "query" if inputs["input_ids"][0, 0] == tokenizer.convert_tokens_to_ids("[Q] ") else "document"
        model[0].auto_model.rope_deltas = None
        with _exact(model):
            made = model({**inputs}, task=task)
        rows: torch.Tensor = made["token_embeddings"][:, made["attention_mask"][0].bool()]
        return rows

    queries = {query: ids("query", "[Q] ", query) for query in QUERIES}
    texts = {text: ids("document", "[D] ", text) for text in (*QUERIES, *TEXTS, "...!")}
    for text in HOSTILE:  # the class takes spelt-out special tokens for such
        apart = goldens.as_text(tokenizer, text)
        queries[text], texts[text] = ([tokenizer.convert_tokens_to_ids(one), *apart] for one in ("[Q] ", "[D] "))
    facts = {"queries": {"pplx": queries}, "texts": texts, "skipped": mask._skiplist_ids.tolist()}
    qwen_vl.write_goldens(folder, save, facts, encoder, run, _late_cases(encoder), kept=KEPT)


def _late_cases(encoder: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for position, query in enumerate(EMBEDDED_QUERIES):
        if query not in HOSTILE:
            yield f"query/{position}", _inputs(encoder, query, "query")
    for position, text in enumerate((*TEXTS, "...!")):
        yield f"text/{position}", _inputs(encoder, text, "document")
    for page in (*map(page_named, EMBEDDED), STRIP):
        yield f"page/{page.name}", _inputs(encoder, draw(page).convert("RGB"), "document")


def _inputs(encoder: Any, item: Any, task: str) -> dict[str, Any]:
    made = encoder.preprocess([item], prompt=encoder.prompts[task], task=task)
    return {key: value for key, value in made.items() if isinstance(value, torch.Tensor)}


def _save_backbone(folder: Path, **text: Any) -> Any:
    content = tiny_tokenizers.qwen2()
    tiny_tokenizers.add_special(content, "[Q] ", "[D] ")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(path), pad_token="<|endoftext|>", eos_token="<|im_end|>", padding_side="left"
    )
    model = Qwen3_5Model(_config(tokenizer, **text))
    _fill(model, seed=8)
    model.save_pretrained(folder)
    images = qwen_vl.limited(BUDGET, EDGE, **HALF)
    Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=TEMPLATE).save_pretrained(folder)
    return tokenizer


def _config(tokenizer: Any, **text: Any) -> Qwen3_5Config:
    sizes = {
        **{"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": LAYERS},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
        **{"linear_key_head_dim": 32, "linear_value_head_dim": 32, "bos_token_id": None, "eos_token_id": None},
        "rope_parameters": {
            **{"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5, "mrope_section": [3, 3, 2]}
        },
    }
    vision = {
        **{"depth": LAYERS, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 32},
        **{"num_position_embeddings": 36},
    }
    return Qwen3_5Config(text_config={**sizes, **text}, vision_config=vision, **qwen_vl.token_ids(tokenizer))


def _fill(model: torch.nn.Module, seed: int) -> None:
    """Gives weights random values on which the output depends, and decays that reach over a hundred tokens."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith(("A_log", "dt_bias")):
                value = 0.5 * noise + (1 if name.endswith("A_log") else -3)
            elif parameter.dim() == 1:
                # Norms of the text model store their weights less 1, but for those of the delta rule.
                whole = "norm" in name and (name.startswith("visual") or "linear_attn" in name)
                value = float(whole and name.endswith("weight")) + 0.1 * noise
            elif "embed" in name and "proj" not in name:
                value = noise
            else:
                # Layers that end a branch are small: rounding grows from layer to layer where they are not.
                value = (0.4 if _ENDS.search(name) else 1.3) * noise / math.sqrt(parameter[0].numel())
            parameter.copy_(value)


@contextlib.contextmanager
def _exact(model: torch.nn.Module) -> Iterator[None]:
    """Lets the class compute all in float64 where the model's weights are float64."""
    if next(model.parameters()).dtype != torch.float64:
        yield
        return
    as_float, delta_rule, norm = torch.Tensor.float, classes.torch_chunk_gated_delta_rule, classes.Qwen3_5RMSNormGated
    gated = norm.forward

    def gated_norm(self: Any, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x * torch.nn.functional.silu(gate)

    torch.Tensor.float = lambda x: x if x.dtype == torch.float64 else as_float(x)
    classes.torch_chunk_gated_delta_rule, norm.forward = _recurrence, gated_norm
    try:
        yield
    finally:
        torch.Tensor.float = as_float
        classes.torch_chunk_gated_delta_rule, norm.forward = delta_rule, gated


def _recurrence(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, g: torch.Tensor, beta: torch.Tensor, **options: Any
) -> tuple[torch.Tensor, None]:
    """The gated delta rule (arXiv:2412.06464, equation 10), token by token."""
    times = value.shape[2] // key.shape[2]
    query, key = (one / torch.sqrt((one * one).sum(-1, keepdim=True) + 1e-6) for one in (query, key))
    query, key = (one.repeat_interleave(times, 2) for one in (query * query.shape[-1] ** -0.5, key))
    batch, tokens, heads, size = query.shape
    state = torch.zeros(batch, heads, size, value.shape[3], dtype=query.dtype)
    read = []
    for t in range(tokens):
        state = state * g[:, t].exp()[..., None, None]
        change = value[:, t] - torch.einsum("bhkv,bhk->bhv", state, key[:, t])
        state = state + torch.einsum("bhk,bhv->bhkv", key[:, t], change * beta[:, t, :, None])
        read.append(torch.einsum("bhkv,bhk->bhv", state, query[:, t]))
    return torch.stack(read, 1), None
