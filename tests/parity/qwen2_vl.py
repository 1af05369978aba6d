"""Writes ``fixtures/colqwen2*``: tiny checkpoints as Qwen2-VL's and Qwen2.5-VL's are published, and their outputs.

``colqwen2`` is transformers' ``ColQwen2ForRetrieval`` in bfloat16 and shards; ``colqwen2_5`` is an adapter by PEFT of
colpali-engine's ``ColQwen2_5`` in ``colqwen2_5-base``, both with the names and the config.json of 2024. As for NeoMME,
each case has some rows and all rows in projection in float64, and how far the class in float32 is from them.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
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
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from . import goldens, measures, tiny_tokenizers
from .cases import EMBEDDED_QUERIES, HOSTILE, QWEN2_VL_PROMPTS, STRIP, Page, Prompt, draw, page_named

LAYERS = 12
PATCH = 14
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


def _tokenizer(folder: Path) -> Any:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(tiny_tokenizers.qwen2(), ensure_ascii=False), encoding="utf-8")
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path), pad_token="<|endoftext|>", eos_token="<|im_end|>", padding_side="left"
    )


def _colqwen2(folder: Path, save: Callable[..., None]) -> None:
    tokenizer = _tokenizer(folder)
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 4 * 784, "longest_edge": MOST * 784})
    processor = ColQwen2Processor(images, tokenizer)
    processor.save_pretrained(folder)
    vlm = Qwen2VLConfig(text_config=_text(tokenizer, 32), vision_config=_vision_2(), **_special(tokenizer))
    model = ColQwen2ForRetrieval(ColQwen2Config(vlm_config=vlm, embedding_dim=128))
    _fill(model, seed=2)
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
    facts = {"queries": queries, "pages": {page.name: _page_facts(processor, page) for page in (*PAGES, STRIP)}}
    for page in PAGES:
        ids = (made.process_images([draw(page).convert("RGB")])["input_ids"].tolist() for made in (processor, engine))
        if next(ids) != next(ids):
            raise AssertionError(f"colpali-engine and transformers disagree on {page.name}")
    _goldens(folder, save, facts, single, run, _cases(processor, queries["transformers"]))


def _colqwen2_5(folder: Path, base: Path, save: Callable[..., None]) -> None:
    tokenizer = _tokenizer(folder)
    tokenizer.save_pretrained(folder)
    settings = {**Qwen2VLImageProcessorPil().to_dict(), "min_pixels": 4 * 784, "max_pixels": MOST * 784}
    settings["size"] = {"min_pixels": 4 * 784, "max_pixels": MOST * 784}
    save(folder / "preprocessor_config.json", {**settings, "processor_class": "ColQwen2_5_Processor"})
    text, vision = _text(tokenizer, 16), _vision_2_5()
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_special(tokenizer))
    model = ColQwen2_5(config).eval()
    _fill(model, seed=5)
    weights = {name.replace("language_model.", "model."): value for name, value in model.state_dict().items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, base / "model.safetensors")
    rope = text.pop("rope_parameters")
    top = {**text, "rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", **_only(rope, "mrope_section")}}
    kind = {"model_type": "qwen2_5_vl", "architectures": ["ColQwen2_5"]}
    save(base / "config.json", {**top, **_special(tokenizer), **kind, "vision_config": vision})

    lora = LoraConfig(r=4, lora_alpha=8, target_modules=ADAPTED, task_type="FEATURE_EXTRACTION")
    adapted = get_peft_model(model, lora)
    _fill(adapted, seed=6, only="lora_")
    state = get_peft_model_state_dict(adapted)
    renamed = {name.replace("model.language_model.", "model.model."): value for name, value in state.items()}
    save_file({name: value.contiguous() for name, value in renamed.items()}, folder / "adapter_model.safetensors")
    content = {key: sorted(value) if isinstance(value, set) else value for key, value in lora.to_dict().items()}
    save(folder / "adapter_config.json", {**content, "base_model_name_or_path": "somebody/colqwen2.5-base"})
    single = adapted.merge_and_unload().eval()

    def run(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        out: torch.Tensor = model(**inputs)
        return out

    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 4 * 784, "longest_edge": MOST * 784})
    processor = ColQwen2_5_Processor(images, tokenizer, Qwen2VLVideoProcessor())
    queries = {query: processor.process_queries([query])["input_ids"][0].tolist() for query in EMBEDDED_QUERIES}
    facts = {"tensors": sorted(load_file(folder / "adapter_model.safetensors"))[:3]}
    _goldens(folder, save, facts, single, run, _cases(processor, queries))


def _only(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names}


def _special(tokenizer: Any) -> dict[str, int]:
    tokens = ("image_pad", "video_pad", "vision_start", "vision_end")
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {name: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in zip(names, tokens, strict=True)}


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


def _fill(model: torch.nn.Module, seed: int, only: str = "") -> None:
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


def _cases(processor: Any, queries: dict[str, list[int]]) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    for position, query in enumerate(EMBEDDED_QUERIES):
        if query not in HOSTILE:
            yield f"query/{position}", {"input_ids": torch.tensor([queries[query]])}
    small = copy.copy(processor)
    small.image_processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 4 * 784, "longest_edge": BUDGET * 784})
    for page in (*map(page_named, EMBEDDED), STRIP):
        yield f"page/{page.name}", dict(small.process_images([draw(page).convert("RGB")]))
    yield "whole/odd", dict(processor.process_images([draw(page_named("odd")).convert("RGB")]))


def _goldens(
    folder: Path,
    save: Callable[..., None],
    facts: dict[str, Any],
    single: Any,
    run: Callable[[Any, dict[str, Any]], torch.Tensor],
    cases: Iterator[tuple[str, dict[str, Any]]],
) -> None:
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
            found[dtype] = {"rows": rows[measures.few_rows(len(rows))], "projection": projection}
        arrays |= {f"{case}/{part}": values for part, values in found[torch.float64].items()}
        pairs = {part: (values, found[torch.float32][part]) for part, values in found[torch.float64].items()}
        distances[case] = {part: float(np.abs(a - b).max()) for part, (a, b) in pairs.items()}
    measures.save(folder / "golden.npz", arrays)
    save(folder / "golden.json", {**facts, "distances": distances}, indent=None)


def _page_facts(processor: Any, page: Page) -> dict[str, Any]:
    """Ids, grid and pixels of a page. A page stands twice in its pixels, as two equal frames; one is kept."""
    made = processor.process_images([draw(page).convert("RGB")])
    frames = made["pixel_values"][0].numpy().reshape(-1, 3, 2, PATCH * PATCH)
    if not np.array_equal(frames[:, :, 0], frames[:, :, 1]):
        raise AssertionError(f"{page.name}: the frames differ")
    return {
        **measures.fingerprint(np.ascontiguousarray(frames[:, :, 0]).reshape(len(frames), -1)),
        "grid": made["image_grid_thw"][0].tolist(),
        "ids": measures.runs(made["input_ids"][0].tolist()),
    }
