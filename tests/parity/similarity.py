"""Goldens of colpali-engine's similarity maps, on the geometry that its own processors give a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import torchvision_shim  # noqa: F401  # isort: skip  (must come before the two libraries)

from colpali_engine.interpretability import get_similarity_maps_from_embeddings
from colpali_engine.models import ColModernVBertProcessor, ColPaliProcessor
from transformers import PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from . import configs
from .cases import draw, page_named
from .measures import save

PAGES = ("a4-portrait", "letter-landscape")
DIM = 4


def _tokenizer(folder: Path, config: dict[str, Any]) -> PreTrainedTokenizerFast:
    left_out = {"tokenizer_class", "max_length"}
    options = {key: value for key, value in config.items() if key not in left_out}
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **options)


def _options(preprocessor: dict[str, Any]) -> dict[str, Any]:
    names = {"processor_class", "image_processor_type", "do_convert_rgb"}
    return {key: value for key, value in preprocessor.items() if key not in names} | {"do_convert_rgb": True}


def write(root: Path) -> None:
    """Writes ``similarity/golden.npz``: vectors of small integers, so that the maps are equal to the last bit.

    Args:
        root: Folder of the fixtures; ``paligemma/`` and ``colmodernvbert/`` must be there.
    """
    random = np.random.default_rng(0)
    colpali = ColPaliProcessor(
        SiglipImageProcessorPil(**_options(configs.SIGLIP)),
        _tokenizer(root / "paligemma", configs.GEMMA_TOKENIZER),
    )
    modern = ColModernVBertProcessor(
        Idefics3ImageProcessorPil(**_options(configs.idefics3("ColModernVBertProcessor"))),
        _tokenizer(root / "colmodernvbert", configs.MODERNBERT_TOKENIZER),
    )
    query = random.integers(-3, 4, (2, DIM)).astype(np.int8)
    arrays: dict[str, np.ndarray] = {"query": query}
    for page in PAGES:
        image = draw(page_named(page))
        for name, processor in (("paligemma", colpali), ("colmodernvbert", modern)):
            batch = processor.process_images([image])
            count = batch["input_ids"].shape[1]
            vectors = random.integers(-9, 10, (count, DIM)).astype(np.int8)
            given = {
                "image_embeddings": torch.tensor(vectors, dtype=torch.float32)[None],
                "query_embeddings": torch.tensor(query, dtype=torch.float32)[None],
            }
            if name == "paligemma":
                [maps] = get_similarity_maps_from_embeddings(
                    **given,
                    n_patches=processor.get_n_patches(image_size=image.size, patch_size=14),
                    image_mask=processor.get_image_mask(batch),
                )
            else:
                [maps] = processor.get_similarity_maps_from_embeddings(
                    **given,
                    n_patches=processor.get_n_patches(image_size=(image.height, image.width)),
                    image_mask=processor.get_local_image_mask(batch),
                )
            arrays[f"{name}/{page}/vectors"] = vectors
            # colpali-engine's maps are (query vector, x, y).
            arrays[f"{name}/{page}/maps"] = maps.numpy().astype(np.int16)
    folder = root / "similarity"
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "golden.npz", arrays)
