"""Writes ``fixtures/colqwen3*`` and ``fixtures/nemotron``: tiny checkpoints on Qwen3-VL, and their outputs.

``colqwen3`` is colpali-engine's ``ColQwen3`` in bfloat16 and shards, ``colqwen3-adapter`` an adapter by PEFT of the
same class in ``colqwen3-base``, float32, with the names of ``Qwen3VLForConditionalGeneration``. ``nemotron`` holds the
goldens of a model with the weights of ``colqwen3``: ``Qwen3VLModel`` without a mask and without the last norm, as the
code in NVIDIA's repositories describes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import torchvision_shim  # noqa: F401  # isort: skip  (must come before the libraries)

from colpali_engine.models import ColQwen3, ColQwen3Processor
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import Qwen3VLConfig, Qwen3VLVideoProcessor
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from . import goldens, measures, qwen_vl
from .cases import EMBEDDED_QUERIES, QWEN3_VL_PROMPTS, STRIP, Prompt
from .qwen_vl import ADAPTED, BUDGET, LAYERS, MOST, PAGES

PATCH, EDGE = 16, 32
KEPT = 3
GRIDS = ("1x1", "1x7", "9x4", "24x24", "25x40", "60x3")
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "patch_size": PATCH}


def write(root: Path, save: Callable[..., None]) -> None:
    """Writes all four folders.

    Args:
        root: Folder of the fixtures.
        save: Writes JSON to a path.
    """
    for name in ("colqwen3", "colqwen3-adapter", "colqwen3-base", "nemotron"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    _colqwen3(root / "colqwen3", save)
    _nemotron(root / "nemotron", root / "colqwen3", save)
    _adapter(root / "colqwen3-adapter", root / "colqwen3-base", save)


def _processor(folder: Path, tokenizer: Any) -> Any:
    return ColQwen3Processor(qwen_vl.limited(MOST, EDGE, **HALF), tokenizer, Qwen3VLVideoProcessor())


def _colqwen3(folder: Path, save: Callable[..., None]) -> None:
    tokenizer = qwen_vl.make_tokenizer(folder)
    processor = _processor(folder, tokenizer)
    processor.save_pretrained(folder)
    model = ColQwen3(_config(tokenizer, 32))
    qwen_vl.fill(model, seed=3)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="300KB")
    single = ColQwen3.from_pretrained(folder, dtype=torch.float32).eval()

    def reference(prompt: Prompt, query: str) -> list[int]:
        processor.query_prefix = prompt.prefix
        ids: list[int] = processor.process_queries([query])["input_ids"][0].tolist()
        return ids

    queries = goldens.query_ids(tokenizer, QWEN3_VL_PROMPTS, reference, template=False)
    pages = {page.name: qwen_vl.page_facts(processor, page, PATCH) for page in (*PAGES, STRIP)}
    cases = qwen_vl.embedded_cases(processor, qwen_vl.limited(BUDGET, EDGE, **HALF), queries["bare"])
    facts = {"queries": queries, "pages": pages, "taps": {grid: _taps(*map(int, grid.split("x"))) for grid in GRIDS}}
    qwen_vl.write_goldens(folder, save, facts, single, _run, cases, kept=KEPT)


def _taps(rows: int, columns: int) -> dict[str, Any]:
    """Where the patches of a page of so many tokens lie in the real models' table of positions."""
    grid = torch.tensor([[1, 2 * rows, 2 * columns]])
    taps, shares = get_vision_interpolation_indices_and_weights(
        grid, num_grid_per_side=48, mode="bilinear", align_corners=True, spatial_merge_size=2
    )
    return {"rows": measures.fingerprint(taps.numpy()), "shares": measures.fingerprint(shares.numpy())}


def _nemotron(folder: Path, weights: Path, save: Callable[..., None]) -> None:
    """Goldens and configuration; the tests take the weights, without the head, from the other folder."""
    tokenizer = qwen_vl.make_tokenizer(folder)
    single = ColQwen3.from_pretrained(weights, dtype=torch.float32).eval()
    single.language_model.norm = torch.nn.Identity()
    single.custom_text_proj = torch.nn.Identity()
    config = {**single.config.to_dict(), "model_type": "qwen3_vl_nemotron_embed", "pooling": "colbert"}
    save(folder / "config.json", {**config, "architectures": ["Qwen3VLNemotronEmbedModel"]})
    processor = _processor(folder, tokenizer)
    processor.image_processor.save_pretrained(folder)
    processor.visual_prompt_prefix = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>passage: <|im_end|>\n<|im_start|>assistant\n"
    )
    queries = {
        query: tokenizer(f"<|im_start|>user\nQuery: query: {query}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
        for query in EMBEDDED_QUERIES
    }

    def run(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if "pixel_values" in inputs:
            types, grid = inputs.pop("mm_token_type_ids"), inputs["image_grid_thw"]
            places, _ = model.get_rope_index(inputs["input_ids"], types, image_grid_thw=grid)
            inputs |= {"position_ids": places, "pixel_values": inputs["pixel_values"][0]}
        length = inputs["input_ids"].shape[1]
        # A mask of four axes is taken as it is, and this one hides nothing.
        inputs["attention_mask"] = torch.zeros(1, 1, length, length, dtype=next(model.parameters()).dtype)
        hidden = super(ColQwen3, model).forward(**inputs).last_hidden_state
        rows: torch.Tensor = torch.nn.functional.normalize(hidden, dim=-1)
        return rows

    cases = qwen_vl.embedded_cases(processor, qwen_vl.limited(BUDGET, EDGE, **HALF), queries)
    qwen_vl.write_goldens(folder, save, {}, single, run, cases, kept=KEPT)


def _adapter(folder: Path, base: Path, save: Callable[..., None]) -> None:
    tokenizer = qwen_vl.make_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    processor = _processor(folder, tokenizer)
    settings = {**processor.image_processor.to_dict(), "processor_class": "ColQwen3Processor"}
    save(folder / "preprocessor_config.json", settings)
    model = ColQwen3(_config(tokenizer, 16)).eval()
    qwen_vl.fill(model, seed=4)
    weights = {
        name if name.startswith("custom_text_proj") else f"model.{name}": value.contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, base / "model.safetensors")
    save(base / "config.json", {**model.config.to_dict(), "architectures": ["Qwen3VLForConditionalGeneration"]})

    lora = LoraConfig(r=4, lora_alpha=8, target_modules=ADAPTED, task_type="FEATURE_EXTRACTION")
    adapted = get_peft_model(model, lora)
    qwen_vl.fill(adapted, seed=6, only="lora_")
    state = get_peft_model_state_dict(adapted)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "adapter_model.safetensors")
    content = {key: sorted(value) if isinstance(value, set) else value for key, value in lora.to_dict().items()}
    save(folder / "adapter_config.json", {**content, "base_model_name_or_path": "somebody/colqwen3-base"})
    single = adapted.merge_and_unload().eval()
    queries = {query: processor.process_queries([query])["input_ids"][0].tolist() for query in EMBEDDED_QUERIES}
    cases = qwen_vl.embedded_cases(processor, qwen_vl.limited(BUDGET, EDGE, **HALF), queries)
    qwen_vl.write_goldens(folder, save, {}, single, _run, cases, kept=KEPT)


def _run(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    rows: torch.Tensor = model(**inputs)
    return rows


def _config(tokenizer: Any, width: int) -> Any:
    text = {
        **{"vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": width + 8},
        **{"num_hidden_layers": LAYERS, "num_attention_heads": width // 8, "num_key_value_heads": width // 16},
        **{"head_dim": 16, "bos_token_id": None, "eos_token_id": None},
        "rope_parameters": {
            **{"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True},
        },
    }
    vision = {
        **{"depth": LAYERS, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": width},
        **{"num_position_embeddings": 144, "deepstack_visual_indexes": [2, 5, 9]},
    }
    return Qwen3VLConfig(text_config=text, vision_config=vision, **qwen_vl.token_ids(tokenizer))
