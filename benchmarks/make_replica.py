"""Write a ColPali of a quarter of the real width, for measurements: `work/colpali-quarter/`, and as a checkpoint.

The public models are gated or 6.5 GB large; speed and memory depend on shapes, not on trained weights. This model is
made by the reference's own class with random weights, exported as the public ones were, and laid out as on the Hub,
so that fastembed loads it too. Its proportions are those of ColPali 1.3 (PaliGemma 3B):

                     ColPali 1.3            here
    language         2048 wide, 18 layers   512 wide, 5 layers
    its MLP          16384                  4096
    its attention    8 heads of 256         2 heads of 256
    vision           1152 wide, 27 layers   288 wide, 7 layers
    its MLP          4304                   1076
    its attention    16 heads of 72         4 heads of 72
    vocabulary       257216                 257216
    page             448 x 448, 1024 patches, 1030 tokens, the same

Needs the `parity` dependency group (torch). From the repository's root::

    python -m benchmarks.make_replica
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tests.parity import configs, tiny_tokenizers

WORK = Path(__file__).parent / "work"
NAME = "colpali-quarter"
# Ids of the Gemma vocabulary in fastembed's code, and those of the page's prompt.
FIXED = {
    "<pad>": 0,
    "<eos>": 1,
    "<bos>": 2,
    "<unk>": 3,
    "\n": 108,
    "<s>": 204,
    "\u2581the": 573,
    "\u2581image": 2416,
    "Query": 5098,
    "Describe": 50721,
    ".": 235265,
    ":": 235292,
    "<image>": 257152,
}
VOCABULARY = 257216


def tokenizer() -> dict[str, Any]:
    """The small tokenizer of the parity fixtures with the real ids where they matter, and without a template.

    fastembed writes the first two ids of a query itself, which is right only where tokenizer.json adds no <bos>.
    """
    content = tiny_tokenizers.gemma()
    free = iter(number for number in range(300, VOCABULARY) if number not in FIXED.values())
    old: dict[str, int] = content["model"]["vocab"]
    new = {token: FIXED[token] if token in FIXED else next(free) for token in old}
    content["model"]["vocab"] = new
    for token in content["added_tokens"]:
        token["id"] = new[token["content"]]
    content["added_tokens"].sort(key=lambda token: int(token["id"]))
    content["post_processor"] = None
    return content


def model() -> Any:
    from tests.parity import models  # noqa: I001  (its shim must come before transformers)

    import torch
    from transformers import ColPaliConfig, ColPaliForRetrieval, GemmaConfig, PaliGemmaConfig, SiglipVisionConfig

    text = GemmaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=4096,
        num_hidden_layers=5,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=256,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    vision = SiglipVisionConfig(
        hidden_size=288,
        intermediate_size=1076,
        num_hidden_layers=7,
        num_attention_heads=4,
        image_size=448,
        patch_size=14,
        vision_use_head=False,
    )
    config = ColPaliConfig(
        vlm_config=PaliGemmaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=FIXED["<image>"],
            vocab_size=VOCABULARY,
            projection_dim=512,
            hidden_size=512,
        ),
        embedding_dim=128,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(models.SEED)
    made = ColPaliForRetrieval(config).eval()
    models.fill(made, models.SEED)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WORK / NAME)
    folder: Path = parser.parse_args().out

    made = model()
    import torch

    from tests.parity import export
    from tests.parity.graphs import PaliGemmaGraph

    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(made.config.to_json_string(use_diff=False)) | {"architectures": ["ColPaliForRetrieval"]}
    files = {
        "config.json": config,
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": configs.GEMMA_TOKENIZER,
        "special_tokens_map.json": configs.special_tokens_map(configs.GEMMA_TOKENIZER),
        "preprocessor_config.json": configs.SIGLIP,
    }
    checkpoint = folder.with_name(f"{folder.name}-checkpoint")
    made.save_pretrained(checkpoint)
    for name, content in files.items():
        for place in (folder, checkpoint):
            (place / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    ids = [FIXED["<image>"]] * 1024 + [2, 50721, 573, 2416, 235265, 108]
    example = (torch.tensor([ids] * 2), torch.rand(2, 3, 448, 448) * 2 - 1, torch.ones(2, len(ids)).long())
    export.torchscript(PaliGemmaGraph(made), example, folder / "model.onnx", PaliGemmaGraph.inputs, "embeddings")
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size / 1e6:9.2f} MB  {path.name}")


if __name__ == "__main__":
    main()
