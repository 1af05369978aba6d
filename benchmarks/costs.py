"""What a page costs with the published shapes: floating-point operations, and CPU seconds and memory of look-alikes.

A look-alike has the widths of a published model and random weights; where the whole is too large it has a few layers.
In the environment of the parity fixtures (`make parity`)::

    python -m benchmarks.costs count [NAME ...]     # the operations per page
    python -m benchmarks.costs measure [NAME ...]   # and seconds and memory, into work/costs
    python -m benchmarks.costs table                # what was measured -> results/costs.md

and of a checkpoint at hand, without PyTorch::

    python -m benchmarks.costs folder FOLDER

The page is an A4 page drawn at 150 dpi, the default of `pdf_pages`. Operations are counted from the built graph
(`benchmarks.flops`), over files that have the sizes of the published weights and no content. Seconds of a model that is
larger than its look-alike are its operations at the look-alike's rate, and its memory is the bytes of its weights and
the look-alike's need beside its own.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import machine
from benchmarks.flops import count

WORK = Path(__file__).parent / "work" / "costs"
FIXTURES = Path(__file__).parents[1] / "tests" / "parity" / "fixtures"
PRECISIONS = ("float32", "int8", "int8-dynamic")
PAGE, LARGE_PAGE = (1240, 1754), (1654, 2339)
QUESTION = "revenue by region " * 7
THREADS = 2
ROUNDS = 2


@dataclass(frozen=True)
class Model:
    """A published shape.

    Attributes:
        make: gives the reference's class on the meta device, of the first arguments' layers where they are given, with
            the token ids of the fixture.
        fixture: the folder with tokenizer and processor.
        layers: of the look-alike: those of the text model and of the tower; None for the whole model.
        options: of the model, such as max_side.
        page: width and height of the page.
    """

    make: Callable[[dict[str, int], tuple[int, int] | None], Any]
    fixture: str
    layers: tuple[int, int] | None = None
    options: tuple[tuple[str, int], ...] = ()
    page: tuple[int, int] = PAGE


def _neomme(ids: dict[str, int], layers: tuple[int, int] | None) -> Any:
    from transformers import NeoMMEConfig, NeoMMEForRetrieval

    return NeoMMEForRetrieval(NeoMMEConfig())


def _colpali(ids: dict[str, int], layers: tuple[int, int] | None) -> Any:
    from transformers import ColPaliConfig, ColPaliForRetrieval, GemmaConfig, PaliGemmaConfig, SiglipVisionConfig

    text, tower = layers or (18, 27)
    vision = SiglipVisionConfig(
        **{"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": tower, "num_attention_heads": 16},
        **{"image_size": 448, "patch_size": 14, "vision_use_head": False},
    )
    gemma = GemmaConfig(
        **{"vocab_size": 257216, "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": text},
        **{"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256},
    )
    whole = PaliGemmaConfig(
        vision_config=vision,
        text_config=gemma,
        image_token_index=ids["<image>"],
        projection_dim=2048,
        hidden_size=2048,
    )
    return ColPaliForRetrieval(ColPaliConfig(vlm_config=whole, embedding_dim=128))


def _siglip_base(layers: int) -> Any:
    from transformers import SiglipVisionConfig

    return SiglipVisionConfig(
        **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": layers, "num_attention_heads": 12},
        **{"image_size": 512, "patch_size": 16},
    )


def _colmodernvbert(ids: dict[str, int], layers: tuple[int, int] | None) -> Any:
    from colpali_engine.models import ColModernVBert
    from transformers import ModernBertConfig, ModernVBertConfig

    depth, tower = layers or (22, 12)
    text = ModernBertConfig(
        **{"vocab_size": 50408, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": depth},
        **{"num_attention_heads": 12, "local_attention": 128, "global_attn_every_n_layers": 3},
    )
    config = ModernVBertConfig(
        text_config=text, vision_config=_siglip_base(tower), image_token_id=ids["<image>"], pixel_shuffle_factor=4
    )
    return ColModernVBert(config)


def _colsmol(width: int, depth: int, inner: int, heads: int, keys: int) -> Callable[..., Any]:
    def make(ids: dict[str, int], layers: tuple[int, int] | None) -> Any:
        from colpali_engine.models import ColIdefics3
        from transformers import Idefics3Config, LlamaConfig

        text_layers, tower = layers or (depth, 12)
        text = LlamaConfig(
            **{"vocab_size": 49280, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": text_layers},
            **{"num_attention_heads": heads, "num_key_value_heads": keys, "pad_token_id": 2},
        )
        vision = {**_siglip_base(tower).to_dict(), "model_type": "idefics3_vision"}
        return ColIdefics3(
            Idefics3Config(text_config=text, vision_config=vision, image_token_id=ids["<image>"], scale_factor=4)
        )

    return make


def _qwen_ids(ids: dict[str, int]) -> dict[str, int]:
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{name}_token_id": ids[f"<|{token}|>"] for name, token in names.items()}


def _qwen_text(width: int, depth: int, inner: int, heads: int, keys: int) -> dict[str, Any]:
    return {
        **{"vocab_size": 151936, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": depth},
        **{"num_attention_heads": heads, "num_key_value_heads": keys, "rms_norm_eps": 1e-6},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }


def _colqwen2(ids: dict[str, int], layers: tuple[int, int] | None) -> Any:
    from transformers import ColQwen2Config, ColQwen2ForRetrieval, Qwen2VLConfig

    text, tower = layers or (28, 32)
    vision = {"depth": tower, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4}
    whole = Qwen2VLConfig(text_config=_qwen_text(1536, text, 8960, 12, 2), vision_config=vision, **_qwen_ids(ids))
    return ColQwen2ForRetrieval(ColQwen2Config(vlm_config=whole, embedding_dim=128))


def _colqwen2_5(width: int, depth: int, inner: int, heads: int, keys: int) -> Callable[..., Any]:
    def make(ids: dict[str, int], layers: tuple[int, int] | None) -> Any:
        from colpali_engine.models import ColQwen2_5
        from transformers import Qwen2_5_VLConfig

        text, tower = layers or (depth, 32)
        vision = {
            **{"depth": tower, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16},
            # One layer of eight attends to all patches.
            **{"out_hidden_size": width, "window_size": 112, "fullatt_block_indexes": list(range(7, tower, 8))},
        }
        shape = _qwen_text(width, text, inner, heads, keys)
        return ColQwen2_5(Qwen2_5_VLConfig(text_config=shape, vision_config=vision, **_qwen_ids(ids)))

    return make


def _colqwen3(ids: dict[str, int], layers: tuple[int, int] | None) -> Any:
    """Qwen3-VL-4B's shape."""
    from colpali_engine.models import ColQwen3
    from transformers import Qwen3VLConfig

    text, tower = layers or (36, 24)
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    language = {**_qwen_text(2560, text, 9728, 32, 8), "head_dim": 128, "rope_parameters": rope}
    vision = {
        **{"depth": tower, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560},
        # The features of three layers are added to the first layers of the text model.
        **{"num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17] if tower > 17 else [0]},
    }
    return ColQwen3(Qwen3VLConfig(text_config=language, vision_config=vision, **_qwen_ids(ids)))


def _qwen3_5(ids: dict[str, int], text: int, tower: int, **attention: Any) -> Any:
    """The configuration of Qwen3.5-0.8B's widths."""
    from transformers import Qwen3_5Config

    language = {
        **{"vocab_size": 248320, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": text},
        **{"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256},
        **{"linear_num_key_heads": 16, "linear_num_value_heads": 16, **attention},
    }
    vision = {
        **{"depth": tower, "hidden_size": 768, "intermediate_size": 3072, "num_heads": 12, "out_hidden_size": 1024},
        **{"num_position_embeddings": 2304},
    }
    return Qwen3_5Config(text_config=language, vision_config=vision, **_qwen_ids(ids))


def _colqwen3_5(ids: dict[str, int], layers: tuple[int, int] | None) -> Any:
    """Three of four layers are linear attention."""
    from colpali_engine.models import ColQwen3_5

    return ColQwen3_5(_qwen3_5(ids, *(layers or (24, 12))))


def _pplx_late(ids: dict[str, int], layers: tuple[int, int] | None) -> Any:
    """Every second layer is linear attention: so it has the published 594,321,600 numbers, 153 tensors in the tower."""
    from transformers import Qwen3_5Model

    return Qwen3_5Model(_qwen3_5(ids, *(layers or (12, 12)), full_attention_interval=2, is_causal=False))


MODELS = {
    **{
        f"NeoMME-260M, max_side {side}": Model(_neomme, "neomme", options=(("max_side", side),))
        for side in (1024, 1440, 2048)
    },
    "NeoMME-260M, max_side 2048, 200 dpi": Model(_neomme, "neomme", page=LARGE_PAGE),
    "ColModernVBERT": Model(_colmodernvbert, "colmodernvbert", (7, 4)),
    "ColSmol-256M": Model(_colsmol(576, 30, 1536, 9, 3), "colsmol", (10, 4)),
    "ColSmol-500M": Model(_colsmol(960, 32, 2560, 15, 5), "colsmol", (10, 4)),
    "ColPali v1.3": Model(_colpali, "paligemma", (2, 3)),
    "ColQwen2 2B": Model(_colqwen2, "colqwen2", (2, 2)),
    "ColQwen2.5, ColNomic 3B": Model(_colqwen2_5(2048, 36, 11008, 16, 2), "colqwen2_5", (3, 8)),
    "ColQwen3.5, Vultron 0.8B": Model(_colqwen3_5, "colqwen3_5", (4, 4)),
    **{
        f"pplx-embed-v2-late-0.6b, {tokens} visual tokens": Model(
            _pplx_late, "pplx_late", (4, 4), (("max_num_visual_tokens", tokens),)
        )
        for tokens in (768, 1758)
    },
    "ColQwen3 4B": Model(_colqwen3, "colqwen3", (3, 3)),
    "ColNomic 7B": Model(_colqwen2_5(3584, 28, 18944, 28, 4), "colqwen2_5", (2, 8)),
}


# -- checkpoints with the shapes of a model ----------------------------------------------------------------------------


def write(name: str, folder: Path, *, look_alike: bool) -> Path:
    """Write config.json, tokenizer and processor, and random weights, or for the whole shape a file of their size."""
    from tests.parity import torchvision_shim  # noqa: F401  # isort: skip  (before the libraries)
    import torch

    chosen = MODELS[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in (FIXTURES / chosen.fixture).iterdir():
        if file.suffix in (".json", ".jinja") and not file.name.startswith(("golden", "adapter", "model", "config.")):
            shutil.copy(file, folder)
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    with torch.device("meta"):
        model = chosen.make({token["content"]: token["id"] for token in tokens}, chosen.layers if look_alike else None)
    config = {**json.loads(model.config.to_json_string(use_diff=False)), "architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shapes = {
        key: tuple(value.shape) for key, value in model.state_dict().items() if not key.endswith("lm_head.weight")
    }
    _write_weights(folder / "model.safetensors", shapes, np.random.default_rng(0) if look_alike else None)
    for module in (FIXTURES / chosen.fixture).glob("[0-9]_*/config.json"):  # of sentence-transformers
        _write_module(folder / module.parent.name, json.loads(module.read_text(encoding="utf-8")), config)
    return folder


def _write_module(folder: Path, module: dict[str, Any], config: dict[str, Any]) -> None:
    """Write a module of a backbone: its configuration, and the weights of a head."""
    folder.mkdir()
    if "out_features" in module:
        module["in_features"] = config["text_config"]["hidden_size"]
        shapes = {"linear.weight": (module["out_features"], module["in_features"])}
        _write_weights(folder / "model.safetensors", shapes, np.random.default_rng(1))
    (folder / "config.json").write_text(json.dumps(module), encoding="utf-8")


def _write_weights(path: Path, shapes: Mapping[str, tuple[int, ...]], random: np.random.Generator | None) -> None:
    """Write bfloat16 weights that keep the size of activations; without a generator, only the file's size."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            if random is None:
                break
            values = random.standard_normal(math.prod(shape), np.float32)
            values *= 1 if len(shape) < 2 else math.prod(shape[1:]) ** -0.5
            file.write((values.view(np.uint32) >> 16).astype(np.uint16).data)
        file.truncate(8 + len(text) + end)


# -- counting ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """A model's page and question.

    Attributes:
        vectors: of the page.
        page: operations of a page, by operator.
        question: operations of a question of 20 words.
        weights: numbers in the weights of matrix products, by part.
    """

    vectors: int
    page: Counter[str]
    question: int
    weights: int


def counted(folder: Path, options: Mapping[str, Any], size: tuple[int, int] = PAGE) -> Counted:
    """Count the operations of a page of a checkpoint's folder."""
    from colpali_integrations.models.loading import find_files
    from colpali_integrations.models.options import ModelOptions
    from colpali_integrations.runtime.arrays import BuiltPair

    files = find_files(folder, ModelOptions(**options))
    family = files.family()
    page = family.pages.feed([family.pages.prepare(Image.new("RGB", size, "white"))])
    query = family.queries.feed([family.queries.prepare(QUESTION)])
    graphs: Any = family.graphs
    parts = [graphs.tower, graphs.text] if isinstance(graphs, BuiltPair) else [graphs]
    total: Counter[str] = Counter()
    asked, weights, features = Counter[str](), 0, 0
    for part in parts:
        model = part.read(None).model
        declared = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
        width = {name: axes[-1].dim_value for name, axes in declared.items() if name not in page}  # from the tower
        shapes = {name: np.shape(page[name]) for name in declared if name not in width}
        total += count(model, shapes | {name: (features, size) for name, size in width.items()})
        if part is parts[-1]:
            shapes = {name: np.shape(query[name]) for name in declared if name not in width}
            asked = count(model, shapes | {name: (0, size) for name, size in width.items()})
        else:
            features = _features(page)
        weights += _weights(model)
    return Counted(page["input_ids"].shape[1], total, sum(asked.values()), weights)


def _features(page: Mapping[str, np.ndarray]) -> int:
    """Tokens of the picture: by far the most frequent id of a page."""
    return int(np.bincount(page["input_ids"].reshape(-1)).max())


def _weights(model: Any) -> int:
    """Numbers in the weights that a session keeps in memory; tables of embeddings stay in the file."""
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    return sum(math.prod(one.dims) for one in model.graph.initializer if one.external_data and one.name not in tables)


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(folder: Path, options: Mapping[str, Any], size: tuple[int, int], precision: str) -> dict[str, float]:
    """In a process of its own: CPU seconds of a page and of a question, and memory."""
    from colpali_integrations import ColPali

    before = memory()["VmRSS"]
    cache = folder / "cache"
    page = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
    with ColPali.from_pretrained(folder, threads=THREADS, precision=precision, cache_dir=cache, **options) as model:  # type: ignore[arg-type]
        loaded = memory()["VmRSS"]
        times = {"page": [], "question": []}  # type: dict[str, list[float]]
        for _ in range(ROUNDS):
            for name, run in (
                ("page", lambda: list(model.embed_images(page))),
                ("question", lambda: model.embed_query(QUESTION)),
            ):
                started = time.process_time()
                run()
                times[name].append(time.process_time() - started)
    facts = {f"{name} s": min(values) for name, values in times.items()}
    return {**facts, "loaded MB": loaded - before, "peak MB": memory()["VmHWM"] - before}


def memory() -> dict[str, float]:
    """Megabytes of this process: resident now, and at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM")}


def measured(name: str) -> dict[str, dict[str, float]]:
    """Measure a look-alike at each precision."""
    folder = WORK / f"look-alike-{MODELS[name].fixture}"
    write(name, folder, look_alike=True)
    found = {}
    for precision in PRECISIONS:
        command = [sys.executable, "-m", "benchmarks.costs", "once", name, precision]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[precision] = json.loads(done.stdout.splitlines()[-1])
        print(name, precision, found[precision], file=sys.stderr, flush=True)
    return found


# -- the table ---------------------------------------------------------------------------------------------------------


def facts(name: str, *, measuring: bool) -> dict[str, Any]:
    """The counts of a model and, by its look-alike, seconds and memory."""
    chosen = MODELS[name]
    options = dict(chosen.options)
    whole = counted(write(name, WORK / "shape", look_alike=False), options, chosen.page)
    found: dict[str, Any] = {**asdict(whole), "page": sum(whole.page.values())}
    if not measuring:
        return found
    times = measured(name)
    small = counted(WORK / f"look-alike-{chosen.fixture}", options, chosen.page) if chosen.layers else whole
    for precision, one in times.items():
        # 8-bit weights of blocks have a float32 scale per 256, those of rows one per row.
        more = (whole.weights - small.weights) * (4 if precision == "float32" else 1.03) / 1e6
        found[precision] = {
            "page": one["page s"] * found["page"] / sum(small.page.values()),
            "question": one["question s"] * whole.question / small.question,
            "loaded": one["loaded MB"] + more,
            "peak": one["peak MB"] + more,
        }
    found["layers"] = chosen.layers
    return found


def table() -> None:
    """Write the results of `measure`."""
    lines = []
    for name in MODELS:
        path = WORK / f"{name}.json"
        if not path.is_file():
            continue
        one = json.loads(path.read_text(encoding="utf-8"))
        cells = [f"{one[precision]['page']:.1f}" for precision in PRECISIONS]
        cells += [f"{one[precision]['question']:.2f}" for precision in PRECISIONS]
        cells += [f"{one[precision]['peak'] / 1e3:.1f}" for precision in PRECISIONS]
        share = "whole" if one["layers"] is None else "{} and {}".format(*one["layers"])
        lines.append(
            [name, f"{one['vectors']:,}", f"{one['page'] / 1e12:.2f}", f"{one['question'] / 1e9:.0f}", *cells, share]
        )
    head = ["model", "vectors", "TFLOP per page", "GFLOP per question"]
    for what in ("CPU s per page", "CPU s per question", "GB at most"):
        head += [f"{what}, {precision}" for precision in PRECISIONS]
    text = (__doc__ or "").partition("\n")[0]
    about = (
        "The page is A4 at 150 dpi but where the name says otherwise; a question has about 70 tokens. CPU seconds of "
        f"both cores together, the least of {ROUNDS} runs. The last column has the layers of the look-alike's text "
        "model and tower; seconds and memory of the whole are extrapolated from it, by operations and by bytes of "
        "weights."
    )
    machine.write(
        "costs.md", f"# {text}\n\n{machine.describe()}\n\n{about}\n\n{machine.table([*head, 'layers run'], lines)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["count", "measure", "once", "table", "folder"])
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    if given.command == "table":
        table()
    elif given.command == "folder":
        for folder in given.arguments:
            one = counted(Path(folder), {})
            tera = sum(one.page.values()) / 1e12
            print(f"{folder}: {one.vectors:,} vectors, {tera:.3f} TFLOP per page: {dict(one.page)}")
    elif given.command == "once":
        name, precision = given.arguments
        chosen = MODELS[name]
        folder = WORK / f"look-alike-{chosen.fixture}"
        print(json.dumps(measure(folder, dict(chosen.options), chosen.page, precision)))
    else:
        for name in given.arguments or MODELS:
            found = facts(name, measuring=given.command == "measure")
            print(f"{name}: {found['vectors']:,} vectors, {found['page'] / 1e12:.2f} TFLOP per page", flush=True)
            if given.command == "measure":
                (WORK / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
