"""Configuration files with the keys of the public repositories."""

from __future__ import annotations

from typing import Any, Final

_PIXELS: Final[dict[str, Any]] = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 0.00392156862745098,
}

SIGLIP: Final[dict[str, Any]] = {
    **_PIXELS,
    "do_convert_rgb": None,
    "image_processor_type": "SiglipImageProcessor",
    "image_seq_length": 1024,
    "processor_class": "ColPaliProcessor",
    "resample": 3,
    "size": {"height": 448, "width": 448},
}
"""preprocessor_config.json of a ColPali."""


def idefics3(processor: str) -> dict[str, Any]:
    """Makes the preprocessor_config.json of a model with Idefics3 tiling.

    Args:
        processor: Name of the processor's class.

    Returns:
        The contents of the file.
    """
    return {
        **_PIXELS,
        "do_convert_rgb": True,
        "do_image_splitting": True,
        "do_pad": True,
        "image_processor_type": "Idefics3ImageProcessor",
        "max_image_size": {"longest_edge": 512},
        "processor_class": processor,
        "resample": 1,
        "size": {"longest_edge": 2048},
    }


GEMMA_TOKENIZER: Final[dict[str, Any]] = {
    "add_bos_token": True,
    "add_eos_token": False,
    "additional_special_tokens": ["<image>"],
    "bos_token": "<bos>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "<eos>",
    "max_length": 50,
    "model_max_length": 1000000000000000019884624838656,
    "pad_token": "<pad>",
    "padding_side": "right",
    "tokenizer_class": "GemmaTokenizerFast",
    "unk_token": "<unk>",
    "use_default_system_prompt": False,
}
"""tokenizer_config.json of a ColPali. ``max_length`` is what fastembed truncates at; the references do not."""

MODERNBERT_TOKENIZER: Final[dict[str, Any]] = {
    "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
    "clean_up_tokenization_spaces": True,
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "model_input_names": ["input_ids", "attention_mask"],
    "model_max_length": 8192,
    "pad_token": "[PAD]",
    "padding_side": "left",
    "sep_token": "[SEP]",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "[UNK]",
}
"""tokenizer_config.json of a ColModernVBERT."""

SMOL_TOKENIZER: Final[dict[str, Any]] = {
    "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
    "bos_token": "<|im_start|>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "<end_of_utterance>",
    "model_max_length": 8192,
    "pad_token": "<|endoftext|>",
    "padding_side": "left",
    "tokenizer_class": "GPT2Tokenizer",
    "unk_token": "<|endoftext|>",
}
"""tokenizer_config.json of a ColSmol."""


def special_tokens_map(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Makes special_tokens_map.json from tokenizer_config.json.

    Args:
        tokenizer: Contents of tokenizer_config.json.

    Returns:
        The contents of the file: one entry for every named special token.
    """
    names = [name for name in tokenizer if name.endswith("_token") and isinstance(tokenizer[name], str)]
    entry = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    tokens: dict[str, Any] = {name: {"content": tokenizer[name], **entry} for name in names}
    tokens["additional_special_tokens"] = [
        {"content": token, **entry} for token in tokenizer["additional_special_tokens"]
    ]
    return tokens
