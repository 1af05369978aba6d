"""Exported folders of saved checkpoints give the embeddings of the libraries' own classes.

Needs PyTorch, which `make test` never installs: `make parity`, then run these with its environment.
"""

from __future__ import annotations

import doctest
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting is the one thing that needs PyTorch (make parity)")

from tests.parity import torchvision_shim  # noqa: F401  # isort: skip  (must come before the two libraries)

import torch

from colpali_integrations import ColPali
from colpali_integrations.cli.app import run
from colpali_integrations.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from colpali_integrations.export import Exported, export_model, verify
from colpali_integrations.models.folder import describe_folder
from tests.parity import configs, models, tiny_tokenizers
from tests.parity.generate import write_files

pytestmark = pytest.mark.filterwarnings("ignore")  # those of three large libraries are not ours to mend


def paligemma(folder: Path, *, engine: bool) -> Any:
    """A tiny ColPali as transformers or colpali-engine saves it."""
    tokenizer = write_files(folder, tiny_tokenizers.gemma(), configs.GEMMA_TOKENIZER, configs.SIGLIP)
    model = models.colpali(len(tokenizer), tokenizer.convert_tokens_to_ids("<image>"))
    if engine:
        from colpali_engine.models import ColPali as Engine

        config = model.config.vlm_config
        config._attn_implementation = "eager"
        model = Engine(config).eval()
        models.fill(model, models.SEED)
    model.save_pretrained(folder)
    return model


def tiled(folder: Path, *, modern: bool) -> Any:
    """A tiny ColModernVBERT or ColSmol as colpali-engine saves it."""
    processor = "ColModernVBertProcessor" if modern else "ColIdefics3Processor"
    begin = "<|begin_of_text|>" if modern else "<|im_start|>"
    tokenizer = write_files(
        folder,
        tiny_tokenizers.byte_level(begin=begin, template=modern),
        configs.MODERNBERT_TOKENIZER if modern else configs.SMOL_TOKENIZER,
        configs.idefics3(processor),
    )
    (folder / "processor_config.json").write_text(json.dumps({"image_seq_len": 64, "processor_class": processor}))
    ids = tokenizer.convert_tokens_to_ids
    if modern:
        model = models.colmodernvbert(
            len(tokenizer), ids("<image>"), {token: ids(token) for token in ("[PAD]", "[CLS]", "[SEP]")}
        )
    else:
        model = models.colidefics3(len(tokenizer), ids("<image>"), ids("<|endoftext|>"))
    model.save_pretrained(folder)
    return model


def as_adapter(base: Path, model: Any, folder: Path, targets: str) -> None:
    """LoRA weights on a saved base, as colpali-engine's training leaves them."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    torch.manual_seed(1)
    adapted.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        if (base / name).exists():
            (folder / name).write_bytes((base / name).read_bytes())


def assert_good(made: Exported) -> None:
    assert made.difference is not None
    assert made.difference.agrees("float32"), made.difference
    assert made.difference.pages < 1e-4
    assert made.difference.questions < 1e-4


def test_transformers_colpali(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paligemma(tmp_path / "in", engine=False)
    made = export_model(tmp_path / "in", tmp_path / "out")
    assert_good(made)
    assert made.kind == "transformers.ColPaliForRetrieval"
    description = describe_folder(tmp_path / "out")
    assert description.query_prefix == "<bos>Question: "
    assert description.image_prompt == "<image><bos>Describe the image.\n"
    caplog.clear()
    with caplog.at_level(logging.WARNING, "colpali_integrations"), ColPali.from_pretrained(tmp_path / "out") as model:
        assert model.dim == 128
    assert not caplog.text  # the folder says its prompts: nothing is guessed


def test_colpali_engine_colpali_and_an_adapter_on_it(tmp_path: Path) -> None:
    model = paligemma(tmp_path / "base", engine=True)
    made = export_model(tmp_path / "base", tmp_path / "plain")
    assert_good(made)
    assert not made.known_prompts
    assert made.prompts.image_prompt == "<image><bos><bos>Describe the image.\n"
    as_adapter(tmp_path / "base", model, tmp_path / "adapter", r".*language_model.*(q_proj|down_proj)|custom_text_proj")
    adapted = export_model(tmp_path / "adapter", tmp_path / "merged", query_prefix="<bos>Query: ")
    assert_good(adapted)
    assert adapted.known_prompts
    assert describe_folder(tmp_path / "plain").fingerprint != describe_folder(tmp_path / "merged").fingerprint
    with ColPali.from_pretrained(tmp_path / "plain") as a, ColPali.from_pretrained(tmp_path / "merged") as b:
        page = np.zeros((50, 50, 3), np.uint8)
        one, other = (next(iter(model.embed_images([page]))) for model in (a, b))
        assert np.abs(np.asarray(one) - np.asarray(other)).max() > 0.01  # the adapter really is in it


@pytest.mark.parametrize("modern", [True, False], ids=["colmodernvbert", "colsmol"])
def test_tiled(tmp_path: Path, modern: bool) -> None:
    model = tiled(tmp_path / "base", modern=modern)
    made = export_model(tmp_path / "base", tmp_path / "plain")
    assert_good(made)
    assert made.known_prompts
    projection = "custom_text_proj" if modern else "linear"
    targets = rf".*text_model.*(Wo|down_proj)|{projection}"
    as_adapter(tmp_path / "base", model, tmp_path / "adapter", targets)
    assert_good(export_model(tmp_path / "adapter", tmp_path / "merged"))


def test_transformers_colmodernvbert(tmp_path: Path) -> None:
    from transformers import ColModernVBertConfig, ColModernVBertForRetrieval

    config = ColModernVBertConfig(vlm_config=tiled(tmp_path / "in", modern=True).config, embedding_dim=128)
    config._attn_implementation = "eager"
    model = ColModernVBertForRetrieval(config).eval()
    models.fill(model, models.SEED)
    model.save_pretrained(tmp_path / "in")
    made = export_model(tmp_path / "in", tmp_path / "out")
    assert_good(made)
    assert made.kind == "transformers.ColModernVBertForRetrieval"


def test_half_precision(tmp_path: Path) -> None:
    paligemma(tmp_path / "in", engine=False)
    whole = export_model(tmp_path / "in", tmp_path / "whole", check=False)
    half = export_model(tmp_path / "in", tmp_path / "half", precision="float16")
    assert half.difference is not None
    assert half.difference.agrees("float16")
    assert half.size_in_bytes < 0.6 * whole.size_in_bytes
    assert whole.difference is None


def test_a_wrong_export_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from colpali_integrations.export import graphs

    forward = graphs.PaliGemmaGraph.forward

    def turned(self: Any, input_ids: Any, pixel_values: Any, attention_mask: Any) -> Any:
        return -forward(self, input_ids, pixel_values, attention_mask)

    # Patched, because `export_model` makes the graph and compares it before it returns, and takes no graph.
    monkeypatch.setattr(graphs.PaliGemmaGraph, "forward", turned)
    paligemma(tmp_path / "in", engine=False)
    with pytest.raises(ModelLoadError, match="not the original's"):
        export_model(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiled(tmp_path / "in", modern=False)
    assert run(["export", str(tmp_path / "in"), str(tmp_path / "out"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["kind"] == "colpali_engine.models.ColIdefics3"
    assert record["difference"]["pages"] < 1e-4
    assert run(["export", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert run(["export", str(tmp_path / "in"), str(tmp_path / "second")]) == 0
    shown = capsys.readouterr()
    assert "token ids equal" in shown.out
    assert "ColPali.from_pretrained" in shown.err


def test_examples() -> None:
    assert doctest.testmod(verify).failed == 0


def test_missing_and_unknown_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        export_model(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    with pytest.raises(ModelLoadError, match="BertModel"):
        export_model(tmp_path / "other", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigurationError, match="exists already"):
        export_model(tmp_path / "other", tmp_path / "full")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "/no/base"}')
    with pytest.raises(ModelNotFoundError, match="/no/base"):
        export_model(tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()
