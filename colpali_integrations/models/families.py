"""The table of model families. It holds only strings, so that the registry can name families without importing them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FAMILIES", "FamilyReference"]


class FamilyReference(NamedTuple):
    """One family.

    Attributes:
        module: the module of its class, below `colpali_integrations.models`.
        class_name: the name of the class, a `family.Family`.
        preprocessing: name and version of this package's own part in an embedding. A change that gives other vectors
            for the same files takes another version, so that existing indexes are refused.
        settings: options of its checkpoints, fields of a description; empty where only ONNX exports run.
        hints: words in the configuration files of a folder that identify the family. The first family of the table
            with a matching word is chosen.
        onnxruntime: the lowest version of ONNX Runtime that has the operators of its graphs, where it is not that of
            the package.
        system_prompts: whether it renders its prompts from the chat template in a folder, with those that
            sentence-transformers saves as a message of the system.
        patches: whether a page has a vector per cell, also of plain paper, which `drop_blank` leaves out.
    """

    module: str
    class_name: str
    preprocessing: str
    settings: tuple[str, ...]
    hints: tuple[str, ...]
    onnxruntime: str = ""
    system_prompts: bool = False
    patches: bool = True


_BUILT = ("precision", "allow_unused", "base")

FAMILIES = {
    "coltiny": FamilyReference("coltiny.family", "ColTinyFamily", "coltiny-6", (), ("coltiny",), patches=False),
    "ultravbert": FamilyReference(
        *("ultravbert", "UltraVBertFamily", "ultravbert-1", (*_BUILT, "dim"), ("ultravbert",)), system_prompts=True
    ),
    "idefics3": FamilyReference(
        "idefics3", "Idefics3Family", "idefics3-1", _BUILT, ("vbert", "colsmol", "idefics3", "smolvlm")
    ),
    "neomme": FamilyReference("neomme", "NeoMMEFamily", "neomme-1", (*_BUILT, "max_side"), ("neomme",)),
    "paligemma": FamilyReference("paligemma", "PaliGemmaFamily", "paligemma-1", _BUILT, ("colpali", "paligemma")),
    "qwen2_vl": FamilyReference(
        *("qwen2_vl", "Qwen2VLFamily", "qwen2_vl-1", (*_BUILT, "max_num_visual_tokens")),
        # Files of Qwen3-VL name Qwen2-VL's image processor, "Qwen2VLImageProcessor".
        hints=("qwen2_vl", "qwen2_5_vl", "colqwen2"),
    ),
    "qwen3_5": FamilyReference(
        *("qwen3_5", "Qwen3_5Family", "qwen3_5-1", (*_BUILT, "max_num_visual_tokens")),
        hints=("qwen3_5",),
        onnxruntime="1.26",
    ),
    "qwen3_vl": FamilyReference(
        *("qwen3_vl", "Qwen3VLFamily", "qwen3_vl-1", (*_BUILT, "max_num_visual_tokens", "dim")),
        hints=("qwen3_vl", "colqwen3"),
    ),
}
