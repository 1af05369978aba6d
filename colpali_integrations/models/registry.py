"""The registry of models: one frozen description per model, and a function to add others.

A description holds everything that a checkpoint needs beside its files, above all its prompts: the query prompt of
ColPali changed three times between releases of colpali-engine, and a checkpoint works well only with the exact prompt
it was trained with.

>>> from colpali_integrations.models import list_supported_models
>>> [model.name for model in list_supported_models()][0]
'coltiny'
"""

from __future__ import annotations

import difflib
import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from colpali_integrations._forks import ForkLock
from colpali_integrations.errors import ConfigurationError, ModelNotFoundError
from colpali_integrations.models.builder.files import ADAPTER_CONFIG, ADAPTER_FILE, INDEX_FILE, WEIGHTS_FILE
from colpali_integrations.models.builder.quantization import PRECISIONS, Precision
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.fingerprint import Fingerprint, PageSettings, identity

__all__ = [
    *("ModelDescription", "Origin", "find_model", "list_supported_models", "not_registered"),
    *("register_model", "registered_model", "trained_as"),
]


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_PALIGEMMA_FILES = (
    *("model.onnx_data", *_TOKENIZER_FILES),
    *("preprocessor_config.json", "processor_config.json", "config.json"),
)
_NEOMME_FILES = (*_TOKENIZER_FILES, "processor_config.json", "chat_template.jinja", "config.json")
_QWEN2_VL_FILES = (*_TOKENIZER_FILES, "preprocessor_config.json", "processor_config.json", "config.json")
_PPLX_LATE_FILES = (
    *(*_QWEN2_VL_FILES, "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
    *("1_Dense/config.json", "1_Dense/model.safetensors", "2_MultiVectorMask/config.json", "3_Normalize/config.json"),
)
_IDEFICS3_FILES = (*_TOKENIZER_FILES, "preprocessor_config.json", "processor_config.json", "config.json")
_ULTRAVBERT_FILES = (
    *(*_IDEFICS3_FILES, "chat_template.jinja", "config_sentence_transformers.json"),
    *("modules.json", "sentence_bert_config.json"),
)
# The fields that decide the space of the vectors, beside the revisions.
_FINGERPRINTED = (
    *("family", "dim", "repository", "model_file"),
    *("query_prefix", "query_suffix", "image_prompt", "max_query_tokens"),
)
_V1 = "README of illuin-tech/colpali"
_NEOMME_SOURCE = "model cards of Hcompany/NeoMME-260M-Retriever and -800M-Retriever, arXiv:2609.01657"
_V3 = "ViDoRe V3, arXiv:2601.08620, means of its 8 public sets by the results repository of mteb (f4cc6c8)"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The checkpoint that `exporting.export_model` wrote as a folder; the fields are those of its description."""

    name: str
    repository: str | None = None
    revision: str | None = None
    model_file: str = "model.safetensors"
    base: str | None = None
    base_revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    r"""Everything about a checkpoint that is not in its files.

    Attributes:
        name: the name for `ColPali.from_pretrained`.
        family: its architecture, a key of `models.families.FAMILIES`: "neomme", "qwen2_vl",
            "qwen3_5", "qwen3_vl", "paligemma", "idefics3", "ultravbert" or "coltiny".
        dim: length of one vector.
        repository: Hugging Face Hub repository; None for a bundled or purely local model.
        revision: commit, tag or branch of the repository; None follows its default branch. For the bundled model and
            models in folders, a hash of the files (`models.content.content_revision`).
        model_file: the ONNX file, relative to the repository; or, of a checkpoint as it was trained, model.safetensors
            or model.safetensors.index.json.
        additional_files: files required beside it (external data, shards, tokenizer, processor configuration).
        query_prefix: text before the user's query. Special tokens in it (`<bos>`) become their ids.
        query_suffix: text after the user's query: the augmentation tokens ("reasoning buffer") and the end.
        image_prompt: the text that accompanies a page; `<image>` stands for the image's tokens. NeoMME reads the
            prompts that are empty here from its checkpoint's chat template.
        max_query_tokens: maximum number of the user's tokens, prefix and suffix excluded; longer queries are cut.
        dense_dim: length of the vector of the trained dense head, which stands for a whole page or text; None for a
            model without one.
        unit_length: whether every vector has length 1. Otherwise lengths carry weights and scores are dot products.
        precision: how a checkpoint in safetensors computes: "float32", "int8" (weights of 8 bits in blocks),
            "int8-dynamic" (a scale per output: faster on CPUs, and less exact), "float16" (for GPUs) or "int4" (not
            proven on trained weights); None for float16 with the CUDA provider and float32 elsewhere. An ONNX export
            has the precision of its files.
        max_side: the longest edge in pixels to which NeoMME reduces a page; None for that of its files.
        max_num_visual_tokens: the most tokens that ColQwen2 and its kin make of a page; None for that of its files.
        base: the repository of the checkpoint that a LoRA adapter adapts; None for the one that its adapter_config.json
            names, and for models that are no adapter.
        base_revision: commit, tag or branch of that; for a base in a folder, a hash of its files.
        allow_unused: beginnings of the names of tensors that a checkpoint holds and retrieval does not need.
        origin: the checkpoint of a folder that `colpali-integrations export` wrote; its vectors are the checkpoint's,
            and so is its fingerprint. None for other models.
        space: a name for the vector space that this model shares with others which are trained for it: an index of one
            takes questions of another. None for a space of its own, as nearly all models have.
        best_match: the highest possible dot product of a page vector with a query vector of length 1, from which
            `relevance` makes a score from 0 to 1; 1 where every vector has length 1.
        parameters: number of weights.
        size_in_bytes: size of the download.
        license: SPDX identifier, or the license's common name.
        vidore: published figures as (benchmark and metric, value) pairs, for choosing a model.
        vidore_source: the publication of those figures.
        summary: when to choose it, in one sentence.

    Raises:
        ConfigurationError: a field has an invalid value: an empty name or space; dim, max_query_tokens,
            max_side or max_num_visual_tokens below 1; a best_match that is not positive; an unknown precision.

    Example: a checkpoint of a known family in a repository of your own.
        >>> mine = ModelDescription(
        ...     name="me/my-colpali",
        ...     family="paligemma",
        ...     repository="me/my-colpali",
        ...     dim=128,
        ...     query_prefix="<bos>Query: ",
        ...     query_suffix="<pad>" * 10 + "\n",
        ...     image_prompt="<image><bos>Describe the image.\n",
        ... )
        >>> mine.files
        ('model.onnx',)
        >>> mine.fingerprint == find_model("Qdrant/colpali-v1.3-fp16").fingerprint
        False
    """

    name: str
    family: str
    dim: int
    repository: str | None = None
    revision: str | None = None
    model_file: str = "model.onnx"
    additional_files: tuple[str, ...] = ()
    query_prefix: str = ""
    query_suffix: str = ""
    image_prompt: str = ""
    max_query_tokens: int = 512
    dense_dim: int | None = None
    unit_length: bool = True
    precision: Precision | None = None
    max_side: int | None = None
    max_num_visual_tokens: int | None = None
    base: str | None = None
    base_revision: str | None = None
    allow_unused: tuple[str, ...] = ()
    origin: Origin | None = None
    space: str | None = None
    best_match: float = 1.0
    parameters: int = 0
    size_in_bytes: int = 0
    license: str = ""
    vidore: tuple[tuple[str, float], ...] = ()
    vidore_source: str = ""
    summary: str = ""

    def __post_init__(self) -> None:
        """Refuse invalid values here, and not at the first query."""
        positive = math.isfinite(self.best_match) and self.best_match > 0
        for name, valid, requirement in (
            ("name", self.name and self.name == self.name.strip(), "a non-empty string without outer spaces"),
            ("dim", self.dim > 0, "positive"),
            ("max_query_tokens", self.max_query_tokens > 0, "positive"),
            ("best_match", positive, "positive"),
            ("space", self.space != "", "a non-empty string or None"),
            ("precision", self.precision in (None, *PRECISIONS), f"one of {', '.join(PRECISIONS)}"),
            *(
                (name, (value := getattr(self, name)) is None or value > 0, "positive")
                for name in ("max_side", "max_num_visual_tokens")
            ),
        ):
            if not valid:
                value = getattr(self, name)
                raise ConfigurationError(f"ModelDescription {self.name!r}: {name} must be {requirement}, got {value!r}")

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the model needs, the ONNX file or the weights first."""
        return (self.model_file, *self.additional_files)

    @property
    def is_checkpoint(self) -> bool:
        """Whether its graphs are those that this package builds from safetensors; otherwise it is an ONNX export."""
        return self.origin is not None or not self.model_file.endswith(".onnx")

    @property
    def is_adapter(self) -> bool:
        """Whether its weights are a LoRA adapter, which needs the checkpoint that it adapts."""
        return self.model_file == ADAPTER_FILE or ADAPTER_CONFIG in self.additional_files

    @property
    def checkpoint(self) -> ModelDescription:
        """Itself; of an exported folder, the checkpoint that it was made of, with the folder's prompts and settings."""
        return self if self.origin is None else replace(self, origin=None, **asdict(self.origin))

    @property
    def fingerprint(self) -> Fingerprint:
        """Identity of the vectors, by everything that determines them.

        The space is made of family, repository, prompts, dim, the version of the family's preprocessing in this
        package, and the revisions of the repository and of an adapter's base; or of `space` and dim. The revision of a
        folder's model is a hash of its files; those of an exported folder are the checkpoint's. The settings of pages
        are precision, max_side and max_num_visual_tokens. Name, figures, license and summary do not count.
        """
        model = self.checkpoint
        values = {key: getattr(model, key) for key in _FINGERPRINTED}
        if self.family in FAMILIES:
            values["preprocessing"] = FAMILIES[self.family].preprocessing
        weights = identity(values, model.revision, model.base_revision)
        pages = PageSettings(
            weights=weights,
            precision=self.precision or ("float32" if self.is_checkpoint else None),
            max_side=self.max_side,
            max_num_visual_tokens=self.max_num_visual_tokens,
        )
        return Fingerprint(weights if self.space is None else f"{self.space} ({self.dim})", pages)

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, JSON-safe."""
        return asdict(self)


_COLPALI = ModelDescription(
    name="Qdrant/colpali-v1.3-fp16",
    family="paligemma",
    repository="Qdrant/colpali-v1.3-fp16",
    dim=128,
    additional_files=_PALIGEMMA_FILES,
    query_prefix="<bos>Query: ",
    query_suffix="<pad>" * 10 + "\n",
    image_prompt="<image><bos>Describe the image.\n",
    parameters=2_923_000_000,
    size_in_bytes=6_500_000_000,
    license="gemma",
    vidore=(("v1 nDCG@5", 84.8), ("v3 nDCG@10, English", 47.5), ("six languages", 43.0)),
    vidore_source=f"{_V1}; {_V3}",
    summary="The best of these on hard pages, where 8 GB of memory and a GPU (or patience) are at hand.",
)
# From the model cards and transformers' documentation, second-hand: repositories, figures, sizes and `max_side`. Not
# verified on the files themselves: that each has one model.safetensors, of bfloat16. Their prompts are read from their
# chat template; that of transformers' tests has "<query>", the text and ten "<mask>".
_NEOMME = ModelDescription(
    name="Hcompany/NeoMME-260M-Retriever",
    family="neomme",
    repository="Hcompany/NeoMME-260M-Retriever",
    dim=128,
    dense_dim=1024,
    model_file="model.safetensors",
    additional_files=_NEOMME_FILES,
    parameters=263_000_000,
    size_in_bytes=540_000_000,
    license="Apache-2.0",
    vidore=(("v1 nDCG@5", 86.0), ("v2 nDCG@5", 52.2), ("v3 nDCG@10, six languages", 52.3)),
    vidore_source=_NEOMME_SOURCE,
    summary="Many languages on CPUs, and texts beside pages in one ranking. Try precision='int8' and max_side=1440.",
)
# Figures from the results of mteb, sizes from its tables. Not verified on the files themselves: sizes of the downloads,
# and the licence of Qwen2.5-VL-3B, which allows research only, while the adapters' own cards say Apache-2.0. The query
# prompt is that of colpali-engine 0.3.2 to 0.3.12, with which they were trained by their dates (its repository's
# history).
_COLQWEN2 = ModelDescription(
    name="vidore/colqwen2-v1.0",
    family="qwen2_vl",
    repository="vidore/colqwen2-v1.0",
    dim=128,
    model_file=ADAPTER_FILE,
    additional_files=(*_QWEN2_VL_FILES, ADAPTER_CONFIG),
    query_prefix="Query: ",
    query_suffix="<|endoftext|>" * 10,
    image_prompt="<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe the image.<|im_end|><|endoftext|>",
    parameters=2_210_000_000,
    size_in_bytes=4_500_000_000,
    license="Apache-2.0",
    vidore=(
        *(("v1 nDCG@5", 89.2), ("v2 nDCG@5", 56.0)),
        *(("v3 nDCG@10, English", 48.3), ("six languages", 44.2)),
    ),
    vidore_source=f"results repository of mteb (f4cc6c8); {_V3}",
    summary="For indexes of ColQwen2; a page has at most 768 tokens, fewer by max_num_visual_tokens.",
)
_COLQWEN2_5 = replace(
    _COLQWEN2,
    name="vidore/colqwen2.5-v0.2",
    repository="vidore/colqwen2.5-v0.2",
    parameters=3_750_000_000,
    size_in_bytes=7_600_000_000,
    license="Apache-2.0, base Qwen research",
    vidore=(
        *(("v1 nDCG@5", 89.5), ("v2 nDCG@5", 60.1)),
        *(("v3 nDCG@10, English", 55.6), ("six languages", 52.4)),
    ),
    summary="For indexes of ColQwen2.5; ColNomic is better at the same cost.",
)
# Prompts, limits and modules from public descriptions of the repository's files; its own figures; sizes from mteb's
# tables. The files themselves were not at hand.
_PPLX_LATE = ModelDescription(
    name="perplexity-ai/pplx-embed-v2-late-0.6b",
    family="qwen3_5",
    repository="perplexity-ai/pplx-embed-v2-late-0.6b",
    dim=128,
    model_file=WEIGHTS_FILE,
    additional_files=_PPLX_LATE_FILES,
    query_prefix="[Q] ",
    image_prompt="[D] <|vision_start|><image><|vision_end|>",
    max_query_tokens=1023,  # and the prompt
    space="pplx-embed-v2-late",
    parameters=594_000_000,
    size_in_bytes=2_380_000_000,
    license="MIT",
    vidore=(("v3 nDCG@10, six languages", 62.3),),
    vidore_source="model card of perplexity-ai/pplx-embed-v2-late-0.6b and -9b",
    summary=(
        "Hard pages in many languages on CPUs, and texts beside pages. Its queries also search an index of the 9B."
    ),
)
# Prompts from colpali-engine's class, by which mteb runs them; figures and sizes from mteb's results and tables, and
# the model cards. The files themselves were not at hand.
_VULTRON = ModelDescription(
    name="vultr/VultronRetrieverFlash-Qwen3.5-0.8B",
    family="qwen3_5",
    repository="vultr/VultronRetrieverFlash-Qwen3.5-0.8B",
    dim=320,
    model_file=WEIGHTS_FILE,
    additional_files=_QWEN2_VL_FILES,
    query_suffix="<|endoftext|>" * 10,
    image_prompt="<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe the image.<|im_end|><|endoftext|>",
    parameters=853_000_000,
    size_in_bytes=1_710_000_000,
    license="Apache-2.0",
    vidore=(
        *(("v1 nDCG@5", 88.2), ("v2 nDCG@5", 60.4)),
        *(("v3 nDCG@10, English", 58.3), ("six languages", 56.5)),
    ),
    vidore_source=f"results repository of mteb (f4cc6c8); {_V3}",
    summary="As pplx-embed-v2-late-0.6b, and behind it, with larger vectors.",
)
# Figures from the results of mteb and sizes from its tables; the licence of Nemotron from its card. Prompts from the
# code in the repositories, as mteb and others copied it; the files themselves were not at hand.
_COLQWEN3 = ModelDescription(
    name="TomoroAI/tomoro-colqwen3-embed-4b",
    family="qwen3_vl",
    repository="TomoroAI/tomoro-colqwen3-embed-4b",
    dim=320,
    model_file=INDEX_FILE,  # or one file: `hub.with_named_files` asks the repository
    additional_files=_QWEN2_VL_FILES,
    query_suffix="<|endoftext|>" * 10,
    image_prompt="<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe the image.<|im_end|><|endoftext|>",
    max_num_visual_tokens=1280,
    parameters=4_400_000_000,
    size_in_bytes=8_900_000_000,
    license="Apache-2.0",
    vidore=(
        *(("v1 nDCG@5", 90.6), ("v2 nDCG@5", 64.7)),
        *(("v3 nDCG@10, English", 62.2), ("six languages", 60.2)),
    ),
    vidore_source=f"results repository of mteb (f4cc6c8); {_V3}",
    summary="Hard pages in many languages, with a GPU or patience.",
)
_OPS = replace(
    _COLQWEN3,
    name="OpenSearch-AI/Ops-Colqwen3-4B",
    repository="OpenSearch-AI/Ops-Colqwen3-4B",
    dim=2560,
    query_prefix="Query: ",
    image_prompt=(
        "<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe the image.<|im_end|>"
        "<|im_start|>assistant\n<|endoftext|>"
    ),
    max_num_visual_tokens=None,
    parameters=4_440_000_000,
    vidore=(
        *(("v1 nDCG@5", 91.4), ("v2 nDCG@5", 68.7)),
        *(("v3 nDCG@10, English", 63.2), ("six languages", 61.3)),
    ),
    summary="Its vectors may be cut: dim=320 or less takes an eighth of the space or less.",
)
_SAUERKRAUT = replace(
    _COLQWEN3,
    name="VAGOsolutions/SauerkrautLM-ColQwen3-1.7b-Turbo-v0.1",
    repository="VAGOsolutions/SauerkrautLM-ColQwen3-1.7b-Turbo-v0.1",
    dim=128,
    query_prefix="Query: ",
    max_num_visual_tokens=None,
    parameters=1_700_000_000,
    size_in_bytes=3_400_000_000,
    vidore=(("v3 nDCG@10, English", 55.4), ("six languages", 48.8)),
    summary="The smallest on Qwen3-VL, for German and other languages of Europe.",
)
_NEMOTRON = replace(
    _COLQWEN3,
    name="nvidia/nemotron-colembed-vl-4b-v2",
    repository="nvidia/nemotron-colembed-vl-4b-v2",
    dim=2560,
    query_prefix="<|im_start|>user\nQuery: query: ",
    query_suffix="<|im_end|>\n<|im_start|>assistant\n",
    image_prompt=(
        "<|im_start|>user\n<|vision_start|><image><|vision_end|>passage: <|im_end|>\n<|im_start|>assistant\n"
    ),
    max_num_visual_tokens=None,
    parameters=4_830_000_000,
    size_in_bytes=9_700_000_000,
    license="CC-BY-NC-4.0",
    vidore=(("v3 nDCG@10, six languages", 61.4),),
    summary="For research only; 2,560 numbers per vector, eight times as many as Tomoro's.",
)
_BUILT_IN = (
    ModelDescription(
        name="coltiny",
        family="coltiny",
        dim=128,
        revision="sha256:438334eb7225",  # content_revision of its files
        model_file="image.onnx",
        additional_files=("text.onnx", "senses.npz", "config.json"),
        unit_length=False,
        best_match=1.0727654394476893,  # of its config.json, see models.coltiny.texts.best_match
        parameters=7_030_000,
        size_in_bytes=10_500_000,
        license="Apache-2.0",
        summary="Prototypes, tests, notebooks and machines without a network: it is inside the package. Latin script.",
    ),
    _NEOMME,
    replace(
        _NEOMME,
        name="Hcompany/NeoMME-800M-Retriever",
        repository="Hcompany/NeoMME-800M-Retriever",
        dense_dim=1792,
        parameters=794_000_000,
        size_in_bytes=1_600_000_000,
        vidore=(("v1 nDCG@5", 87.4), ("v2 nDCG@5", 55.9), ("v3 nDCG@10, six languages", 55.6)),
        summary="As NeoMME-260M, and better, at three times the work per page.",
    ),
    _COLPALI,
    _COLQWEN2,
    _COLQWEN2_5,
    replace(
        _COLQWEN2_5,
        name="nomic-ai/colnomic-embed-multimodal-3b",
        repository="nomic-ai/colnomic-embed-multimodal-3b",
        vidore=(
            *(("v1 nDCG@5", 89.9), ("v2 nDCG@5", 55.7)),
            *(("v3 nDCG@10, English", 58.7), ("six languages", 56.4)),
        ),
        summary="Hard pages in many languages, with a GPU or patience.",
    ),
    replace(
        _COLQWEN2_5,
        name="nomic-ai/colnomic-embed-multimodal-7b",
        repository="nomic-ai/colnomic-embed-multimodal-7b",
        parameters=8_290_000_000,
        size_in_bytes=16_800_000_000,
        license="Apache-2.0",
        vidore=(
            *(("v1 nDCG@5", 89.7), ("v2 nDCG@5", 60.2)),
            *(("v3 nDCG@10, English", 59.4), ("six languages", 57.6)),
        ),
        summary="The best of Qwen2.5-VL in many languages, where a GPU is at hand.",
    ),
    _COLQWEN3,
    replace(
        _COLQWEN3,
        name="TomoroAI/tomoro-colqwen3-embed-8b",
        repository="TomoroAI/tomoro-colqwen3-embed-8b",
        parameters=8_770_000_000,
        size_in_bytes=17_500_000_000,
        vidore=(
            *(("v1 nDCG@5", 90.8), ("v2 nDCG@5", 65.4)),
            *(("v3 nDCG@10, English", 63.6), ("six languages", 61.6)),
        ),
        summary="As the 4B, and better, at twice the work per page.",
    ),
    _OPS,
    _SAUERKRAUT,
    replace(
        _SAUERKRAUT,
        name="VAGOsolutions/SauerkrautLM-ColQwen3-8b-v0.1",
        repository="VAGOsolutions/SauerkrautLM-ColQwen3-8b-v0.1",
        parameters=8_150_000_000,
        size_in_bytes=16_300_000_000,
        vidore=(("v1 nDCG@5", 91.1), ("v3 nDCG@10, English", 61.5), ("six languages", 58.5)),
        summary="Small vectors from a large model, for German and other languages of Europe.",
    ),
    _NEMOTRON,
    replace(
        _NEMOTRON,
        name="nvidia/nemotron-colembed-vl-8b-v2",
        repository="nvidia/nemotron-colembed-vl-8b-v2",
        dim=4096,
        parameters=8_770_000_000,
        size_in_bytes=17_500_000_000,
        vidore=(("v3 nDCG@10, English", 64.4), ("six languages", 63.5)),
        summary="For research only, the best of these; 4,096 numbers per vector.",
    ),
    _PPLX_LATE,
    replace(
        _PPLX_LATE,
        name="perplexity-ai/pplx-embed-v2-late-9b",
        repository="perplexity-ai/pplx-embed-v2-late-9b",
        model_file=INDEX_FILE,  # or one file
        parameters=8_390_000_000,
        size_in_bytes=33_600_000_000,
        vidore=(("v3 nDCG@10, six languages", 65.2),),
        summary="The best of these in many languages: an index of it, made on a GPU, is searched by the 0.6B on CPUs.",
    ),
    _VULTRON,
    replace(
        _VULTRON,
        name="vultr/VultronRetrieverCore-Qwen3.5-4.5B",
        repository="vultr/VultronRetrieverCore-Qwen3.5-4.5B",
        model_file=INDEX_FILE,
        parameters=4_540_000_000,
        size_in_bytes=9_080_000_000,
        vidore=(("v1 nDCG@5", 92.2), ("v2 nDCG@5", 66.1), ("v3 nDCG@10, six languages", 63.7)),
        summary="Hard pages in many languages, with a GPU.",
    ),
    replace(
        _VULTRON,
        name="vultr/VultronRetrieverPrime-Qwen3.5-8B",
        repository="vultr/VultronRetrieverPrime-Qwen3.5-8B",
        model_file=INDEX_FILE,
        parameters=8_390_000_000,
        size_in_bytes=16_800_000_000,
        vidore=(("v3 nDCG@10, six languages", 64.7),),
        summary="As VultronRetrieverCore, and better, at twice the work per page.",
    ),
    replace(
        _VULTRON,
        name="athrael-soju/colqwen3.5-4.5B-v3",
        repository="athrael-soju/colqwen3.5-4.5B-v3",
        model_file=INDEX_FILE,
        dim=128,
        parameters=4_540_000_000,
        size_in_bytes=9_080_000_000,
        vidore=(("v3 nDCG@10, six languages", 61.6),),
        summary="The model before VultronRetrieverCore, with smaller vectors.",
    ),
    ModelDescription(
        name="Qdrant/colmodernvbert",
        family="idefics3",
        repository="Qdrant/colmodernvbert",
        dim=128,
        model_file="model_v2.onnx",
        additional_files=_IDEFICS3_FILES,
        query_suffix="<end_of_utterance>" * 10,
        image_prompt="<|begin_of_text|>User:<image>Describe the image.<end_of_utterance>\nAssistant:",
        parameters=252_000_000,
        size_in_bytes=1_000_000_000,
        license="MIT",
        vidore=(("v3 nDCG@10, English", 44.3), ("six languages", 26.1)),
        vidore_source=_V3,
        summary="English questions on CPUs: close to ColPali at a twelfth of its size; not in other languages.",
    ),
    # Licence, sizes and dims from the model card and mteb 2.26.24; the figure is second-hand. Not verified on the files
    # themselves: that the weights are one file, whether a linear layer follows the backbone, and the chat template.
    ModelDescription(
        name="athrael-soju/ColUltraVBERT",
        family="ultravbert",
        repository="athrael-soju/ColUltraVBERT",
        dim=768,
        model_file="model.safetensors",
        additional_files=_ULTRAVBERT_FILES,
        parameters=254_679_552,
        size_in_bytes=510_000_000,
        license="MIT",
        vidore=(("v1's InfoVQA alone, nDCG@5", 89.5),),
        vidore_source="model card of athrael-soju/ColUltraVBERT",
        summary="Six languages of Europe on CPUs; dim=128 cuts its vectors to a sixth. No mean over ViDoRe is known.",
    ),
    replace(
        _COLPALI,
        name="AndrewOgn/colpali-v1.3-merged-onnx",
        repository="AndrewOgn/colpali-v1.3-merged-onnx",
        size_in_bytes=5_850_000_000,
        summary="ColPali v1.3 in another export, for those who have it already.",
    ),
    replace(
        _COLPALI,
        name="akshayballal/colpali-v1.2-merged-onnx",
        repository="akshayballal/colpali-v1.2-merged-onnx",
        query_prefix="<bos>Question: ",
        size_in_bytes=5_850_000_000,
        vidore=(("v1 nDCG@5", 83.9),),
        vidore_source=_V1,
        summary="The checkpoint before v1.3, for indexes that were made with it.",
    ),
)

# Original checkpoints that run from their safetensors, and a registered export or adapter of each, with the prompts of
# its training. From the releases of colpali-engine (tests/parity/README.md); the repositories' files were not at hand.
_TRAINED_AS = {
    **{f"vidore/colpali-v1.3{kind}": "Qdrant/colpali-v1.3-fp16" for kind in ("", "-merged", "-hf")},
    **{f"vidore/colpali-v1.2{kind}": "akshayballal/colpali-v1.2-merged-onnx" for kind in ("", "-merged", "-hf")},
    **dict.fromkeys(("vidore/colpali", "vidore/colpali-v1.1"), "akshayballal/colpali-v1.2-merged-onnx"),
    "ModernVBERT/colmodernvbert": "Qdrant/colmodernvbert",
    "vidore/colqwen2-v1.0-merged": "vidore/colqwen2-v1.0",
    **dict.fromkeys(
        (f"VAGOsolutions/SauerkrautLM-ColQwen3-{size}-v0.1" for size in ("2b", "4b")),
        "VAGOsolutions/SauerkrautLM-ColQwen3-1.7b-Turbo-v0.1",
    ),
}

_lock = ForkLock()
_models: dict[str, ModelDescription] = {model.name.lower(): model for model in _BUILT_IN}


def list_supported_models() -> list[ModelDescription]:
    """Every registered model: the bundled one first, then those of the Hub, then added ones.

    Returns:
        Frozen descriptions, in the order of registration.

    Example:
        >>> [model.name for model in list_supported_models() if model.size_in_bytes < 600_000_000]
        ['coltiny', 'Hcompany/NeoMME-260M-Retriever', 'athrael-soju/ColUltraVBERT']
    """
    with _lock:
        return list(_models.values())


def register_model(description: ModelDescription, *, replace: bool = False) -> ModelDescription:
    """Make a checkpoint of a known family available by name.

    Args:
        description: the model; its `name` must be new, compared without case.
        replace: allow an existing name.

    Returns:
        The same description.

    Raises:
        ConfigurationError: the name is taken, or the family is unknown.

    Example:
        >>> from dataclasses import replace
        >>> colpali = find_model("Qdrant/colpali-v1.3-fp16")
        >>> register_model(replace(colpali, name="me/my-colpali", repository="me/my-colpali")).dim
        128
    """
    if description.family not in FAMILIES:
        raise ConfigurationError(
            f"register_model({description.name!r}): unknown family {description.family!r}; known: {', '.join(FAMILIES)}"
        )
    with _lock:
        if description.name.lower() in _models and not replace:
            raise ConfigurationError(
                f"register_model: a model named {description.name!r} is registered already; "
                "pass replace=True to replace it"
            )
        _models[description.name.lower()] = description
    return description


def registered_model(
    name_or_path: str | os.PathLike[str], local_dir: str | os.PathLike[str] | None
) -> ModelDescription | None:
    """The description registered under a name; None for a path without `local_dir`, or an unknown string."""
    if local_dir is None and isinstance(name_or_path, os.PathLike):
        return None
    return _models.get(os.fspath(name_or_path).lower())


def trained_as(repository: str) -> ModelDescription | None:
    """The registered model with the prompts that a repository's checkpoint was trained with; None if not known."""
    name = _TRAINED_AS.get(repository, repository)
    models = list_supported_models()
    return next((model for model in models if repository and name in (model.repository, model.name)), None)


def find_model(name: str) -> ModelDescription:
    """The description registered under a name.

    Args:
        name: in capitals or not.

    Raises:
        ModelNotFoundError: no such model; the message lists the registered names.

    Example:
        >>> find_model("ColTiny").dim
        128
        >>> find_model("vidore/colflor")
        Traceback (most recent call last):
        colpali_integrations.errors.ModelNotFoundError: no model is registered as 'vidore/colflor' ...
    """
    if (model := _models.get(name.lower())) is not None:
        return model
    raise ModelNotFoundError(
        f"{not_registered(name)} Checkpoints of the same architectures ({', '.join(FAMILIES)}) can be added with "
        "register_model(...) or opened as a folder with config.json, tokenizer and ONNX file; others are not supported."
    )


def not_registered(name: str) -> str:
    """What an error says of a name that is neither registered nor a folder, with the nearest registered one."""
    names = {model.name.lower(): model.name for model in list_supported_models()}
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return (
        f"no model is registered as {name!r} and no folder has that name. "
        + "".join(f"Did you mean {names[key]!r}? " for key in near)
        + f"Registered are {', '.join(names.values())}."
    )
