"""Writes ``fixtures/colqwen2*``: tiny checkpoints as Qwen2-VL's and Qwen2.5-VL's are published, and their outputs.

``colqwen2`` is transformers' ``ColQwen2ForRetrieval`` in bfloat16 and shards; ``colqwen2_5`` is an adapter by PEFT of
colpali-engine's ``ColQwen2_5`` in ``colqwen2_5-base``, both with the names and the config.json of 2024. As for NeoMME,
each case has some rows and all rows in projection in float64, and how far the class in float32 is from them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import torchvision_shim  # noqa: F401  # isort: skip  (must come before the libraries)

from colpali_engine.models import ColQwen2_5, ColQwen2_5_Processor
from colpali_engine.models import ColQwen2Processor as EngineColQwen2Processor
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import (
    ColQwen2Config,
    ColQwen2ForRetrieval,
    ColQwen2Processor,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from . import goldens, qwen_vl
from .cases import EMBEDDED_QUERIES, QWEN2_VL_PROMPTS, STRIP, Prompt, draw
from .qwen_vl import ADAPTED, BUDGET, LAYERS, MOST, PAGES

PATCH, EDGE = 14, 28


def write(root: Path, save: Callable[..., None]) -> None:
    """Writes all three folders.

    Args:
        root: Folder of the fixtures.
        save: Writes JSON to a path.
    """
    for name in ("colqwen2", "colqwen2_5", "colqwen2_5-base"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    _colqwen2(root / "colqwen2", save)
    _colqwen2_5(root / "colqwen2_5", root / "colqwen2_5-base", save)


def _colqwen2(folder: Path, save: Callable[..., None]) -> None:
    tokenizer = qwen_vl.make_tokenizer(folder)
    images = qwen_vl.limited(MOST, EDGE)
    processor = ColQwen2Processor(images, tokenizer)
    processor.save_pretrained(folder)
    vlm = Qwen2VLConfig(text_config=_text(tokenizer, 32), vision_config=_vision_2(), **qwen_vl.token_ids(tokenizer))
    model = ColQwen2ForRetrieval(ColQwen2Config(vlm_config=vlm, embedding_dim=128))
    qwen_vl.fill(model, seed=2)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="250KB")
    single = ColQwen2ForRetrieval.from_pretrained(folder, dtype=torch.float32).eval()

    def run(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if "image_grid_thw" in inputs:  # the class itself would count 0, 1, 2 ... for pages, as no checkpoint learnt it
            types = (inputs["input_ids"] == vlm.image_token_id).long()
            places, _ = model.vlm.get_rope_index(inputs["input_ids"], types, image_grid_thw=inputs["image_grid_thw"])
            inputs = {**inputs, "position_ids": places}
        out: torch.Tensor = model(**inputs).embeddings
        return out

    engine = EngineColQwen2Processor(images, tokenizer, Qwen2VLVideoProcessor())

    def reference(prompt: Prompt, query: str) -> list[int]:
        if prompt.name == "transformers":
            made = processor.process_queries(text=[query])
        else:
            engine.query_prefix = prompt.prefix
            made = engine.process_queries([query])
        ids: list[int] = made["input_ids"][0].tolist()
        return ids

    queries = goldens.query_ids(tokenizer, QWEN2_VL_PROMPTS, reference, template=False)
    facts = {
        "queries": queries,
        "pages": {page.name: qwen_vl.page_facts(processor, page, PATCH) for page in (*PAGES, STRIP)},
    }
    for page in PAGES:
        ids = (made.process_images([draw(page).convert("RGB")])["input_ids"].tolist() for made in (processor, engine))
        if next(ids) != next(ids):
            raise AssertionError(f"colpali-engine and transformers disagree on {page.name}")
    cases = qwen_vl.embedded_cases(processor, qwen_vl.limited(BUDGET, EDGE), queries["transformers"])
    qwen_vl.write_goldens(folder, save, facts, single, run, cases)


def _colqwen2_5(folder: Path, base: Path, save: Callable[..., None]) -> None:
    tokenizer = qwen_vl.make_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    settings = {**Qwen2VLImageProcessorPil().to_dict(), "min_pixels": 4 * 784, "max_pixels": MOST * 784}
    settings["size"] = {"min_pixels": 4 * 784, "max_pixels": MOST * 784}
    save(folder / "preprocessor_config.json", {**settings, "processor_class": "ColQwen2_5_Processor"})
    text, vision = _text(tokenizer, 16), _vision_2_5()
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **qwen_vl.token_ids(tokenizer))
    model = ColQwen2_5(config).eval()
    qwen_vl.fill(model, seed=5)
    weights = {name.replace("language_model.", "model."): value for name, value in model.state_dict().items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, base / "model.safetensors")
    rope = text.pop("rope_parameters")
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    top = {**text, "rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    kind = {"model_type": "qwen2_5_vl", "architectures": ["ColQwen2_5"]}
    save(base / "config.json", {**top, **qwen_vl.token_ids(tokenizer), **kind, "vision_config": vision})

    lora = LoraConfig(r=4, lora_alpha=8, target_modules=ADAPTED, task_type="FEATURE_EXTRACTION")
    adapted = get_peft_model(model, lora)
    qwen_vl.fill(adapted, seed=6, only="lora_")
    state = get_peft_model_state_dict(adapted)
    renamed = {name.replace("model.language_model.", "model.model."): value for name, value in state.items()}
    save_file({name: value.contiguous() for name, value in renamed.items()}, folder / "adapter_model.safetensors")
    content = {key: sorted(value) if isinstance(value, set) else value for key, value in lora.to_dict().items()}
    save(folder / "adapter_config.json", {**content, "base_model_name_or_path": "somebody/colqwen2.5-base"})
    single = adapted.merge_and_unload().eval()

    def run(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        out: torch.Tensor = model(**inputs)
        return out

    images = qwen_vl.limited(MOST, EDGE)
    processor = ColQwen2_5_Processor(images, tokenizer, Qwen2VLVideoProcessor())
    queries = {query: processor.process_queries([query])["input_ids"][0].tolist() for query in EMBEDDED_QUERIES}
    facts = {"tensors": sorted(load_file(folder / "adapter_model.safetensors"))[:3]}
    cases = qwen_vl.embedded_cases(processor, qwen_vl.limited(BUDGET, EDGE), queries)
    qwen_vl.write_goldens(folder, save, facts, single, run, cases)


def _text(tokenizer: Any, width: int) -> dict[str, Any]:
    return {
        **{"vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": width + 8},
        **{"num_hidden_layers": LAYERS, "num_attention_heads": width // 8, "num_key_value_heads": width // 16},
        **{"rms_norm_eps": 1e-6, "bos_token_id": None, "eos_token_id": None, "use_sliding_window": False},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [1, 1, 2]},
    }


def _vision_2() -> dict[str, Any]:
    return {"depth": LAYERS, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}


def _vision_2_5() -> dict[str, Any]:
    return {
        **{"depth": LAYERS, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 16},
        **{"window_size": 112, "fullatt_block_indexes": [3, 7, 11]},
    }
