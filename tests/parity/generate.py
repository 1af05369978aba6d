"""Writes ``fixtures/``: tiny models, their ONNX exports and the references' outputs.

Run it from the repository's root with the dependency group ``parity`` installed::

    python -m tests.parity.generate

It checks every export against torch while it is at it and prints the differences. Two runs with the same
versions give the same files, but for ``versions.json``'s date.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from . import torchvision_shim  # noqa: F401  # isort: skip  (must come before the two libraries)

from colpali_engine.models import ColIdefics3Processor, ColModernVBertProcessor
from colpali_engine.models import ColPaliProcessor as EngineColPaliProcessor
from transformers import ColModernVBertProcessor as TransformersColModernVBertProcessor
from transformers import ColPaliProcessor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from . import (
    checkpoints,
    compression,
    configs,
    export,
    goldens,
    measures,
    models,
    neomme,
    qwen2_vl,
    qwen3_5,
    qwen3_vl,
    similarity,
    tiny_tokenizers,
    ultravbert,
)
from .cases import (
    EMBEDDED,
    EMBEDDED_QUERIES,
    IDEFICS3_PROMPTS,
    MAIN_PROMPT,
    PALIGEMMA_PROMPTS,
    Prompt,
    draw,
    page_named,
)
from .graphs import PaliGemmaGraph, TiledGraph, graph_of

logger = logging.getLogger("parity")

FIXTURES = Path(__file__).parent / "fixtures"
LIBRARIES = (
    "colpali_engine",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pillow",
    "scipy",
    "sentence_transformers",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
)


def _dump(path: Path, content: Any, *, indent: int | None = 2) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=indent, separators=None if indent else (",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def write_files(
    folder: Path, tokenizer: dict[str, Any], tokenizer_config: dict[str, Any], preprocessor: dict[str, Any]
) -> PreTrainedTokenizerFast:
    folder.mkdir(parents=True, exist_ok=True)
    _dump(folder / "tokenizer.json", tokenizer, indent=None)
    _dump(folder / "tokenizer_config.json", tokenizer_config)
    _dump(folder / "special_tokens_map.json", configs.special_tokens_map(tokenizer_config))
    _dump(folder / "preprocessor_config.json", preprocessor)
    left_out = {"tokenizer_class", "max_length"}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        **{key: value for key, value in tokenizer_config.items() if key not in left_out},
    )


def _config(model: Any, **more: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    content.update(more)
    return content


def _processor_arguments(preprocessor: dict[str, Any]) -> dict[str, Any]:
    names = {"processor_class", "image_processor_type", "do_convert_rgb"}
    return {key: value for key, value in preprocessor.items() if key not in names} | {"do_convert_rgb": True}


def _run(session: onnxruntime.InferenceSession, **inputs: np.ndarray) -> np.ndarray:
    out: np.ndarray = session.run(None, inputs)[0]
    return out


def _compare(name: str, left: np.ndarray, right: np.ndarray) -> None:
    difference = float(np.abs(left.astype(np.float32) - right.astype(np.float32)).max())
    logger.info("%-46s max |onnx - torch| = %.2e", name, difference)


def _sensitivity(name: str, vectors: dict[str, np.ndarray]) -> None:
    # A golden that hardly depends on the page would prove nothing.
    rows = [vectors[f"page/{page}/rows"] for page in EMBEDDED if f"page/{page}/rows" in vectors]
    spread = min(float(np.abs(a[:8] - b[:8]).max()) for position, a in enumerate(rows) for b in rows[:position])
    logger.info("%-46s two pages differ by at least %.2f", name, spread)
    if spread < 0.05:
        raise AssertionError(f"{name}: pages are too alike ({spread})")


def paligemma(root: Path) -> None:
    """Writes ``paligemma/`` (float32), ``paligemma-fp16/`` and their goldens.

    Args:
        root: Folder of the fixtures.
    """
    folder = root / "paligemma"
    content = tiny_tokenizers.gemma()
    tokenizer = write_files(folder, content, configs.GEMMA_TOKENIZER, configs.SIGLIP)
    vocabulary = len(tokenizer)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    model = models.colpali(vocabulary, image_token)
    _dump(folder / "config.json", _config(model, architectures=["ColPaliForRetrieval"]))

    image_processor = SiglipImageProcessorPil(**_processor_arguments(configs.SIGLIP))
    processor = ColPaliProcessor(image_processor, tokenizer)
    engine = EngineColPaliProcessor(image_processor, tokenizer)

    def reference(prompt: Prompt, query: str) -> list[int]:
        if prompt.suffix.endswith("\n"):
            processor.query_prefix = prompt.prefix
            made = processor.process_queries(text=[query])
        else:
            engine.query_prefix = prompt.prefix
            made = engine.process_queries([query])
        ids: list[int] = made["input_ids"][0].tolist()
        return ids

    queries = goldens.query_ids(tokenizer, PALIGEMMA_PROMPTS, reference, template=False)
    pixels = goldens.pixels(image_processor)
    page = draw(page_named("square"))
    image_ids = processor.process_images([page])["input_ids"][0].tolist()
    engine_ids = engine.process_images([page])["input_ids"][0].tolist()

    graph = PaliGemmaGraph(model)
    embed_page = goldens.on_torch(
        lambda ids, values: graph(ids, values, torch.ones_like(ids)),
    )
    # A query has no image: the class itself is called without pixel_values.
    embed_query = goldens.on_torch(
        lambda ids: (
            model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                token_type_ids=torch.zeros_like(ids),
                use_cache=False,
            ).embeddings
        )
    )
    arrays = goldens.page_vectors(embed_page, {name: (image_ids, pixels[name][0]) for name in EMBEDDED})
    _sensitivity("paligemma", arrays)
    for position, query in enumerate(EMBEDDED_QUERIES):
        arrays[f"query/{MAIN_PROMPT['paligemma']}/{position}"] = embed_query(queries[MAIN_PROMPT["paligemma"]][query])
    for prompt in PALIGEMMA_PROMPTS:
        arrays[f"query/{prompt.name}/0"] = embed_query(queries[prompt.name][EMBEDDED_QUERIES[0]])
    measures.save(folder / "golden.npz", arrays)
    golden = {
        "prompts": {prompt.name: {"prefix": prompt.prefix, "suffix": prompt.suffix} for prompt in PALIGEMMA_PROMPTS},
        "main_prompt": MAIN_PROMPT["paligemma"],
        "queries": queries,
        "image_prompt_runs": measures.runs(image_ids),
        "image_prompt_runs_colpali_engine": measures.runs(engine_ids),
        "pages": {name: measures.fingerprint(values) for name, (values, _) in pixels.items()},
    }
    _dump(folder / "golden.json", golden, indent=None)

    example = (torch.tensor([image_ids]), torch.tensor(pixels["square"][0])[None], torch.ones(1, 1030).long())
    _export_paligemma(graph, example, folder, arrays, queries, pixels, image_ids)
    half = PaliGemmaGraph(models.colpali(vocabulary, image_token).half())
    folder = root / "paligemma-fp16"
    write_files(folder, content, configs.GEMMA_TOKENIZER, configs.SIGLIP)
    flat = json.loads(model.config.vlm_config.to_json_string(use_diff=False))
    _dump(folder / "config.json", flat | {"architectures": ["ColPali"], "dtype": "float16"})
    _export_paligemma(half, example, folder, arrays, queries, pixels, image_ids)


def _export_paligemma(
    graph: PaliGemmaGraph,
    example: tuple[torch.Tensor, ...],
    folder: Path,
    arrays: dict[str, np.ndarray],
    queries: dict[str, dict[str, list[int]]],
    pixels: dict[str, tuple[np.ndarray, dict[str, Any]]],
    image_ids: list[int],
) -> None:
    export.torchscript(graph, example, folder / "model.onnx", PaliGemmaGraph.inputs, "embeddings")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    for name in EMBEDDED:
        ids = np.array([image_ids])
        out = _run(session, input_ids=ids, attention_mask=np.ones_like(ids), pixel_values=pixels[name][0][None])[0]
        _compare(f"{folder.name} page {name}", out[measures.kept_rows(len(out))], arrays[f"page/{name}/rows"])
    blank = np.zeros((1, 3, 448, 448), np.float32)
    for position, query in enumerate(EMBEDDED_QUERIES):
        ids = np.array([queries[MAIN_PROMPT["paligemma"]][query]])
        out = _run(session, input_ids=ids, attention_mask=np.ones_like(ids), pixel_values=blank)[0]
        _compare(f"{folder.name} query {position}", out, arrays[f"query/{MAIN_PROMPT['paligemma']}/{position}"])


def other_exports(root: Path) -> None:
    """Writes ``paligemma-graphs/``: other ONNX graphs of the same tiny ColPali, to be put in place of its model.onnx.

    They keep no weights of their own but those whose bytes are not in ``paligemma/model.onnx_data``.

    Args:
        root: Folder of the fixtures; ``paligemma/`` must be there.
    """
    owner, folder = root / "paligemma", root / "paligemma-graphs"
    folder.mkdir(parents=True, exist_ok=True)
    golden = json.loads((owner / "golden.json").read_text(encoding="utf-8"))
    image_ids = [token for token, count in golden["image_prompt_runs"] for _ in range(count)]
    vocabulary = len(json.loads((owner / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    model = models.colpali(vocabulary, image_ids[0])
    ids = torch.tensor([image_ids] * 2)
    example = (ids, torch.rand(2, 3, 448, 448), torch.ones_like(ids))
    with torch.no_grad():
        by_shape = models.MergedByShapeGraph(model, image_ids[0])
        target = folder / "merged_by_shape.onnx"
        export.torchscript(by_shape, example, target, PaliGemmaGraph.inputs, "embeddings")
        export.share_weights(target, owner / "model.onnx")
        graph = graph_of("paligemma", model)
        target = folder / "torch_export.onnx"
        export.dynamo(graph, example, target, PaliGemmaGraph.inputs, tiles=False, external=False)
        export.share_weights(target, owner / "model.onnx")


def tiled(root: Path, name: str) -> None:
    """Writes ``colmodernvbert/`` or ``colsmol/`` and its goldens.

    Args:
        root: Folder of the fixtures.
        name: Which of the two.
    """
    folder = root / name
    modern = name == "colmodernvbert"
    begin = "<|begin_of_text|>" if modern else "<|im_start|>"
    processor_class = "ColModernVBertProcessor" if modern else "ColIdefics3Processor"
    preprocessor = configs.idefics3(processor_class)
    tokenizer = write_files(
        folder,
        tiny_tokenizers.byte_level(begin=begin, template=modern),
        configs.MODERNBERT_TOKENIZER if modern else configs.SMOL_TOKENIZER,
        preprocessor,
    )
    _dump(folder / "processor_config.json", {"image_seq_len": 64, "processor_class": processor_class})
    ids_of = tokenizer.convert_tokens_to_ids
    image_processor = Idefics3ImageProcessorPil(**_processor_arguments(preprocessor))
    model: Any
    processor: Any
    if modern:
        special = {token: ids_of(token) for token in ("[PAD]", "[CLS]", "[SEP]")}
        model = models.colmodernvbert(len(tokenizer), ids_of("<image>"), special)
        processor = ColModernVBertProcessor(image_processor, tokenizer)
        other = TransformersColModernVBertProcessor(image_processor, tokenizer)
    else:
        model = models.colidefics3(len(tokenizer), ids_of("<image>"), ids_of("<|endoftext|>"))
        processor = ColIdefics3Processor(image_processor, tokenizer)
        other = None
    _dump(folder / "config.json", _config(model, architectures=[type(model).__name__]))

    def reference(prompt: Prompt, query: str) -> list[int]:
        ids: list[int] = processor.process_queries([query])["input_ids"][0].tolist()
        if other is not None and other.process_queries(text=[query])["input_ids"][0].tolist() != ids:
            raise AssertionError(f"colpali-engine and transformers disagree on {query!r}")
        return ids

    queries = goldens.query_ids(tokenizer, IDEFICS3_PROMPTS, reference, template=modern)
    pixels = goldens.pixels(image_processor)
    image_ids: dict[str, list[int]] = {}
    for page_name in pixels:
        made = processor.process_images([draw(page_named(page_name))])
        image_ids[page_name] = made["input_ids"][0].tolist()
        if not np.array_equal(made["pixel_values"][0].numpy(), pixels[page_name][0]):
            raise AssertionError(f"{page_name}: the processor's pixels are not the image processor's")

    def call(ids: torch.Tensor, values: torch.Tensor | None = None) -> torch.Tensor:
        more = {} if values is None else {"pixel_values": values}
        vectors: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), **more)
        return vectors

    chosen: Sequence[str] = EMBEDDED if modern else ("tall", "small")
    arrays = goldens.page_vectors(
        goldens.on_torch(call), {page_name: (image_ids[page_name], pixels[page_name][0]) for page_name in chosen}
    )
    _sensitivity(name, arrays)
    embed_query = goldens.on_torch(call)
    for position, query in enumerate(EMBEDDED_QUERIES):
        arrays[f"query/{MAIN_PROMPT[name]}/{position}"] = embed_query(queries[MAIN_PROMPT[name]][query])
    measures.save(folder / "golden.npz", arrays)
    golden = {
        "prompts": {prompt.name: {"prefix": prompt.prefix, "suffix": prompt.suffix} for prompt in IDEFICS3_PROMPTS},
        "main_prompt": MAIN_PROMPT[name],
        "queries": queries,
        "pages": {
            page_name: {
                **measures.fingerprint(values),
                **grid,
                "image_prompt_runs": measures.runs(image_ids[page_name]),
            }
            for page_name, (values, grid) in pixels.items()
        },
    }
    _dump(folder / "golden.json", golden, indent=None)
    _export_tiled(TiledGraph(model), folder, arrays, golden, image_ids, pixels, chosen)


def _export_tiled(
    graph: TiledGraph,
    folder: Path,
    arrays: dict[str, np.ndarray],
    golden: dict[str, Any],
    image_ids: dict[str, list[int]],
    pixels: dict[str, tuple[np.ndarray, dict[str, Any]]],
    chosen: Sequence[str],
) -> None:
    # Two rows of different lengths, so that nothing of the batch, the tiles or the padding is taken for constant.
    page = "tall"
    ids = torch.tensor([image_ids[page]] * 2)
    example = (ids, torch.ones_like(ids), torch.tensor(pixels[page][0])[None].repeat(2, 1, 1, 1, 1))
    target = folder / ("model_v2.onnx" if folder.name == "colmodernvbert" else "model.onnx")
    with torch.no_grad():
        export.dynamo(graph, example, target, TiledGraph.inputs, tiles=True, external=False)
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    for name in chosen:
        row = np.array([image_ids[name]])
        out = _run(session, input_ids=row, attention_mask=np.ones_like(row), pixel_values=pixels[name][0][None])[0]
        _compare(f"{folder.name} page {name}", out[measures.kept_rows(len(out))], arrays[f"page/{name}/rows"])
    blank = np.zeros((1, 1, 3, 512, 512), np.float32)
    prompt = golden["main_prompt"]
    for position, query in enumerate(EMBEDDED_QUERIES):
        row = np.array([golden["queries"][prompt][query]])
        out = _run(session, input_ids=row, attention_mask=np.ones_like(row), pixel_values=blank)[0]
        _compare(f"{folder.name} query {position}", out, arrays[f"query/{prompt}/{position}"])


def _page_inputs(name: str, page: str) -> dict[str, np.ndarray]:
    """Ids and pixels of a page by the processor of an export's fixture, without padding."""
    folder = FIXTURES / name
    content = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    picture = draw(page_named(page)).convert("RGB")
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    if name == "paligemma":
        image_processor = SiglipImageProcessorPil(**_processor_arguments(content))
        pixels = image_processor.preprocess(picture, return_tensors="np")["pixel_values"]
        coded = golden["image_prompt_runs"]
    else:
        tiled_processor = Idefics3ImageProcessorPil(**_processor_arguments(content))
        pixels = tiled_processor.preprocess(picture, return_tensors="np")["pixel_values"]
        coded = golden["pages"][page]["image_prompt_runs"]
    ids = [token for token, count in coded for _ in range(count)]
    return {"input_ids": np.array([ids]), "pixel_values": np.asarray(pixels, np.float32)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes all fixtures, or those named.

    Args:
        arguments: Of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "only",
        nargs="*",
        help="paligemma, paligemma-graphs, colmodernvbert, colsmol, neomme, qwen2_vl, qwen3_5, qwen3_vl, ultravbert, "
        "checkpoints, compression, similarity; all",
    )
    parser.add_argument("--out", type=Path, default=FIXTURES)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    torch.manual_seed(models.SEED)
    torch.set_num_threads(2)
    jobs = {
        "paligemma": lambda: paligemma(chosen.out),
        "paligemma-graphs": lambda: other_exports(chosen.out),
        "colmodernvbert": lambda: tiled(chosen.out, "colmodernvbert"),
        "colsmol": lambda: tiled(chosen.out, "colsmol"),
        "checkpoints": lambda: checkpoints.write(chosen.out, _dump, _page_inputs),
        "neomme": lambda: neomme.write(chosen.out, _dump),
        "qwen2_vl": lambda: qwen2_vl.write(chosen.out, _dump),
        "qwen3_5": lambda: qwen3_5.write(chosen.out, _dump),
        "qwen3_vl": lambda: qwen3_vl.write(chosen.out, _dump),
        "ultravbert": lambda: ultravbert.write(chosen.out, _dump),
        "compression": lambda: compression.write(chosen.out),
        "similarity": lambda: similarity.write(chosen.out),
    }
    for name in chosen.only or jobs:
        jobs[name]()
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    _dump(chosen.out / "versions.json", {"seed": models.SEED, "date": today, "libraries": versions})


if __name__ == "__main__":
    main()
