"""Writes ``fixtures/colultravbert*``: tiny ColUltraVBERTs as sentence-transformers saves them, and their outputs.

The class is ``MultiVectorEncoder`` over transformers' ``UltraVBertModel``. ``colultravbert`` is in bfloat16 and shards,
and takes the hidden states for vectors; ``colultravbert-dense`` is in float32 with a linear layer, words without
vectors, prompts as a message of the system, shared heads of keys, and the config.json of the first checkpoints (a
window and a rotary base per layer). As for NeoMME, a case has some rows, all rows in projection, and the distance of
the class in float32 from float64.

The published files were not at hand: tokenizers and chat templates have the mechanics of SmolVLM's and ModernVBERT's.

torchvision resizes the pages, across first. The vectors are of pages that Pillow resizes in that order by the same
steps, and ``resized.npz`` has levels of torchvision's.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import torchvision_shim  # noqa: F401  # isort: skip  (must come before the libraries)

from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from transformers import (
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    UltraVBertConfig,
    UltraVBertImageProcessor,
    UltraVBertModel,
)
from transformers.models.ultrabert import UltrabertConfig
from transformers.models.ultravbert.image_processing_ultravbert import get_resize_output_image_size

from . import configs, goldens, measures, models, tiny_tokenizers
from .cases import EMBEDDED_QUERIES, HOSTILE, LEADING_SPACE, PAGES, QUERIES, TEXTS, Page, draw, page_named

NAMES = ("colultravbert", "colultravbert-dense")
RESIZED = ("letter-landscape", "odd", "tall", "grey")
EMBEDDED = {"colultravbert": ("letter-landscape", "small", "tall", "grey"), "colultravbert-dense": ("small", "odd")}
SAMPLED = 97
"""Every 97th level of a resized page is kept."""
LAYERS = 13
# The template of SmolVLM, and one that writes prompts and the task out.
_SMOL = """\
<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}\
{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}\
{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}\
{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""
_TASKS = """\
{%- for message in messages -%}
    {%- for part in message.content -%}{{- part.text if part.type == 'text' else '<image>' -}}{%- endfor -%}
{%- endfor -%}
{%- if task == 'query' -%}{{- '<end_of_utterance>' * 10 -}}{%- endif -%}
"""


class PillowResized(UltraVBertImageProcessor):  # type: ignore[misc]
    """The reference's processor with its resizing done by Pillow, across first."""

    def resize(self, image: torch.Tensor, size: Any, resample: Any = None, **_: Any) -> torch.Tensor:
        """Resizes a batch of pictures; arguments and result as of the base."""
        height, width = (size.height, size.width)
        if size.longest_edge:
            height, width = get_resize_output_image_size(image, resolution_max_side=size.longest_edge)

        def one(picture: np.ndarray) -> np.ndarray:
            drawn = Image.fromarray(picture)
            return np.asarray(drawn.resize((width, drawn.height), resample).resize((width, height), resample))

        pictures = [one(picture) for picture in image.permute(0, 2, 3, 1).numpy()]
        return torch.as_tensor(np.stack(pictures)).permute(0, 3, 1, 2)


def write(root: Path, save: Callable[..., None]) -> None:
    """Writes both folders.

    Args:
        root: Folder of the fixtures.
        save: Writes JSON to a path.
    """
    for name in NAMES:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
        _write(root / name, save)


def _write(folder: Path, save: Callable[..., None]) -> None:
    plain = folder.name == "colultravbert"
    encoder = _encoder(plain)
    encoder.save_pretrained(str(folder), create_model_card=False)
    if plain:
        for file in folder.glob("model*.safetensors"):
            file.unlink()
        encoder[0].auto_model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="250KB")
    else:
        _as_first_saved(folder)
    by_torchvision = _opened(folder)
    single = _opened(folder)
    single[0].processor.image_processor = _pillow(by_torchvision[0].processor.image_processor)
    arrays: dict[str, np.ndarray] = {}
    distances: dict[str, Any] = {}
    cases = list(_cases(single, EMBEDDED[folder.name]))
    floats = {case: _run(single, inputs, torch.float32) for case, inputs in cases}
    doubles = {case: _run(single.double(), inputs, torch.float64) for case, inputs in cases}
    for case, parts in doubles.items():
        arrays |= {f"{case}/{part}": values for part, values in parts.items()}
        distances[case] = {part: float(np.abs(floats[case][part] - values).max()) for part, values in parts.items()}
    measures.save(folder / "golden.npz", arrays)
    facts: dict[str, Any] = {
        "distances": distances,
        "queries": _ids(single, "query"),
        "texts": _ids(single, "document"),
        "pages": {page.name: _page_facts(single, page) for page in PAGES},
    }
    if plain:
        levels = {page: _levels(by_torchvision, page) for page in RESIZED}
        measures.save(folder / "resized.npz", levels)
        facts["grids"] = _grids()
        facts["apart"] = {page: _apart(by_torchvision, single, page) for page in ("letter-landscape", "grey")}
    save(folder / "golden.json", facts, indent=None)


def _encoder(plain: bool) -> Any:
    with tempfile.TemporaryDirectory() as backbone:
        _save_backbone(Path(backbone), plain)
        transformer = Transformer(backbone, **({} if plain else {"query_length": 40, "document_length": 512}))
    modules: list[Any] = [transformer]
    if not plain:
        head = Dense(32, 160, activation_function=torch.nn.Identity(), module_input_name="token_embeddings")
        models.fill(head, seed=models.SEED + 6)
        modules += [head, MultiVectorMask(skiplist_words=[".", ",", "?"])]
    prompts = {} if plain else {"query": "Find: ", "document": "Page: "}
    return MultiVectorEncoder(modules=[*modules, Normalize("token_embeddings")], prompts=prompts, device="cpu")


def _save_backbone(folder: Path, plain: bool) -> None:
    content = tiny_tokenizers.byte_level(begin="<|im_start|>" if plain else "<|begin_of_text|>", template=not plain)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    settings = configs.SMOL_TOKENIZER if plain else configs.MODERNBERT_TOKENIZER
    left_out = {"tokenizer_class", "max_length"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        **{key: value for key, value in settings.items() if key not in left_out},
    )
    images = UltraVBertImageProcessor(size={"longest_edge": 1536}, max_image_tiles=7)
    processor = Idefics3Processor(images, tokenizer, image_seq_len=64, chat_template=_SMOL if plain else _TASKS)
    processor.save_pretrained(folder)
    pad = tokenizer.pad_token_id
    text = UltrabertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4 if plain else 2,
        sliding_window=100 if plain else 30,
        max_position_embeddings=4096,
        pad_token_id=pad,
        bos_token_id=pad,
        eos_token_id=pad,
    )
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=512,
        patch_size=16,
        vision_use_head=False,
    )
    image = tokenizer.convert_tokens_to_ids("<image>")
    model = UltraVBertModel(UltraVBertConfig(text_config=text, vision_config=vision, image_token_id=image))
    models.fill(model, seed=models.SEED + 5)
    model.save_pretrained(folder)


def _as_first_saved(folder: Path) -> None:
    """Puts the windows and rotary bases of the text model as the first checkpoints have them, one per layer."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    text = config["text_config"]
    kinds, reach, rope = (text.pop(key) for key in ("layer_types", "sliding_window", "rope_parameters"))
    text["attention_windows"] = [reach if kind == "sliding_attention" else 0 for kind in kinds]
    text["rope_theta"] = [rope[kind]["rope_theta"] for kind in kinds]
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _opened(folder: Path) -> Any:
    """The encoder of a folder in float32, as its file is loaded, with attention in plain steps."""
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    return MultiVectorEncoder(str(folder), device="cpu", model_kwargs=options)


def _pillow(images: Any) -> PillowResized:
    settings = {key: value for key, value in images.to_dict().items() if key != "image_processor_type"}
    return PillowResized(**settings)


def _made(encoder: Any, item: Any, task: str) -> dict[str, Any]:
    """What the encoder makes of a text or page before it runs."""
    made: dict[str, Any] = encoder.preprocess([item], prompt=encoder.prompts.get(task), task=task)
    return {**made, "task": task}


def _cases(encoder: Any, pages: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for position, query in enumerate(EMBEDDED_QUERIES):
        if query not in HOSTILE:
            yield f"query/{position}", _made(encoder, query, "query")
    for position, text in enumerate(TEXTS):
        yield f"text/{position}", _made(encoder, text, "document")
    for page in pages:
        yield f"page/{page}", _made(encoder, draw(page_named(page)).convert("RGB"), "document")


def _run(encoder: Any, inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, np.ndarray]:
    rows = _rows(encoder, inputs, dtype)
    directions = measures.directions(rows.shape[1]).astype(np.float64)
    return {"rows": rows[measures.few_rows(len(rows))], "projection": rows @ directions}


def _rows(encoder: Any, inputs: dict[str, Any], dtype: torch.dtype = torch.float32) -> np.ndarray:
    given = {
        key: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in inputs.items()
        if key != "task"
    }
    with torch.no_grad():
        made = encoder(given, task=inputs["task"])
    rows: np.ndarray = made["token_embeddings"][0][made["attention_mask"][0].bool()].numpy()
    return rows


def _ids(encoder: Any, task: str) -> dict[str, list[int]]:
    """Ids of every text.

    The class takes special tokens that a text spells out for such; here they are text, between the ids that the class
    puts before and after every text, and cut as others are.
    """
    tokenizer = encoder[0].processor.tokenizer
    longest = encoder[0].query_length if task == "query" else encoder[0].document_length
    texts = (*QUERIES, *(TEXTS if task == "document" else ()))
    ids = {text: _made(encoder, text, task)["input_ids"][0].tolist() for text in texts}
    prompt = encoder.prompts.get(task) or "User: "
    one, other = (ids[text] for text in ("page", "revenue"))
    after = next(i for i in range(len(one)) if one[-i - 1] != other[-i - 1])
    before = len(one) - after - len(goldens.as_text(tokenizer, f"{prompt}page"))

    def apart(text: str) -> list[int]:
        body = goldens.as_text(tokenizer, prompt + text)
        room = len(body) if longest is None else longest - before - after
        return [*one[:before], *body[:room], *one[len(one) - after :]]

    for text, found in ids.items():
        if found != apart(text):
            raise AssertionError(f"{task}: {text!r}: {found} != {apart(text)}")
    return ids | {text: apart(text) for text in (*HOSTILE, *LEADING_SPACE)}


def _grids() -> list[list[int]]:
    """Width and height of pages, and the rows and columns of tiles that the class's defaults make of them."""
    images = UltraVBertImageProcessor()
    sizes = [(width, height) for width in (1, 333, 700, 1024, 2480, 4000) for height in (1, 100, 842, 1024, 3508, 6000)]
    grids = []
    for width, height in sizes:
        _, rows, columns = images.get_number_of_image_patches(height, width)
        grids.append([width, height, rows, columns])
    return grids


def _page_facts(encoder: Any, page: Page) -> dict[str, Any]:
    made = _made(encoder, draw(page).convert("RGB"), "document")
    return {
        **measures.fingerprint(made["pixel_values"][0].numpy()),
        "ids": measures.runs(made["input_ids"][0].tolist()),
    }


def _levels(encoder: Any, page: str) -> np.ndarray:
    """Some of the grey levels of a page that torchvision resizes."""
    pixels = _made(encoder, draw(page_named(page)).convert("RGB"), "document")["pixel_values"][0].numpy()
    levels: np.ndarray = np.rint(pixels * 127.5 + 127.5).astype(np.uint8).reshape(-1)[::SAMPLED]
    return levels


def _apart(by_torchvision: Any, by_pillow: Any, page: str) -> float:
    """How far the vectors of torchvision's pixels are from those of Pillow's, the largest component."""
    picture = draw(page_named(page)).convert("RGB")
    by_pillow.float()
    first, second = (_rows(one, _made(one, picture, "document")) for one in (by_torchvision, by_pillow))
    return float(np.abs(first - second).max())
