"""Writes ``fixtures/checkpoints``: tiny models as their libraries save them, and what their classes give in float64.

Only weights and config.json are kept; tokenizers and processors are those of the exports' fixtures. As for NeoMME, each
case has some rows, all rows in projection, and the distance of the class's float32 from them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import measures, models
from .cases import EMBEDDED_QUERIES, page_named
from .measures import few_rows

QUERIES = (0, 1, 3, 7)
LAYERS = 12


def write(root: Path, save: Callable[..., None], prepare: Callable[[str, str], dict[str, np.ndarray]]) -> None:
    """Writes every checkpoint.

    Args:
        root: Folder of the fixtures, in which the exports' are.
        save: Writes JSON to a path.
        prepare: An export's name and a page's to the inputs that its processor makes.
    """
    for name, dtype, pages in (
        ("paligemma", torch.bfloat16, ("square",)),
        ("colmodernvbert", torch.float32, ("tall", "small")),
        ("colsmol", torch.bfloat16, ("tall",)),
    ):
        folder = root / "checkpoints" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        golden = json.loads((root / name / "golden.json").read_text(encoding="utf-8"))
        model = _model(name, root / name)
        model.to(dtype).save_pretrained(folder)
        if name == "paligemma":  # of the others the loader of the library would make other classes
            single = type(model).from_pretrained(folder, dtype=torch.float32).eval()
        else:
            single = _model(name, root / name)
            single.load_state_dict({key: value.float() for key, value in model.state_dict().items()})
        single.config._attn_implementation = "eager"
        inputs: dict[str, dict[str, np.ndarray]] = {}
        for page in pages:
            inputs[f"page/{page}"] = prepare(name, page_named(page).name)
        for position in QUERIES:
            ids = golden["queries"][golden["main_prompt"]][EMBEDDED_QUERIES[position]]
            inputs[f"query/{position}"] = {"input_ids": np.array([ids])}
        floats = {case: _run(single, given, torch.float32, name) for case, given in inputs.items()}
        doubles = {case: _run(single.double(), given, torch.float64, name) for case, given in inputs.items()}
        arrays = {f"{case}/{part}": values for case, parts in doubles.items() for part, values in parts.items()}
        distances = {
            case: {part: float(np.abs(floats[case][part] - values).max()) for part, values in parts.items()}
            for case, parts in doubles.items()
        }
        measures.save(folder / "golden.npz", arrays)
        save(folder / "golden.json", {"distances": distances}, indent=None)


def _model(name: str, folder: Path) -> Any:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in content["added_tokens"]}
    vocabulary = len({**content["model"]["vocab"], **ids})
    if name == "paligemma":
        return models.colpali(vocabulary, ids["<image>"], layers=LAYERS)
    if name == "colmodernvbert":
        special = {token: ids[token] for token in ("[PAD]", "[CLS]", "[SEP]")}
        return models.colmodernvbert(vocabulary, ids["<image>"], special, layers=LAYERS)
    return models.colidefics3(vocabulary, ids["<image>"], ids["<|endoftext|>"], layers=LAYERS)


def _run(model: Any, inputs: dict[str, np.ndarray], dtype: torch.dtype, name: str) -> dict[str, np.ndarray]:
    given = {key: torch.as_tensor(value) for key, value in inputs.items()}
    given = {key: value.to(dtype) if value.is_floating_point() else value for key, value in given.items()}
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    if name == "paligemma":  # all tokens are prefix, so attention goes both ways (see README.md)
        given["token_type_ids"] = torch.zeros_like(given["input_ids"])
    with torch.no_grad():
        out = model(**given)
    rows = getattr(out, "embeddings", out)[0].numpy()
    directions = measures.directions(rows.shape[1]).astype(np.float64)
    return {"rows": rows[few_rows(len(rows))], "projection": rows @ directions}
