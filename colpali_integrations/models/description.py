"""`ModelDescription`: everything about a checkpoint that is not in its files, and its fingerprint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from typing import Any

from colpali_integrations._options import shown
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.models.builder.files import ADAPTER_CONFIG, ADAPTER_FILE
from colpali_integrations.models.builder.quantization import PRECISIONS, Precision
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.fingerprint import Fingerprint, PageSettings, identity, typed_fields

__all__ = ["ModelDescription", "Origin"]

# The fields that decide the space of the vectors, beside the revisions.
_FINGERPRINTED = (
    *("family", "dim", "repository", "model_file"),
    *("query_prefix", "query_suffix", "image_prompt", "max_query_tokens"),
)
_COUNT = "a positive whole number"


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
        drop_blank: whether the vectors of plain paper are left out of a page; see `ColPali.from_pretrained`.
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
        auto_hybrid: what `hybrid="auto"` of a search stands for with this model: True or the weight of the words, where
            ranking by the words of text layers too was measured to pay, else False.
        low_relevance: the relevance below which the best page of a search rarely answers the question, as measured; 0
            where nothing was measured. Searches leave such pages in; see `Hits.doubtful`.
        parameters: number of weights.
        size_in_bytes: size of the download.
        license: SPDX identifier, or the license's common name.
        vidore: published figures as (benchmark and metric, value) pairs, for choosing a model.
        vidore_source: the publication of those figures.
        summary: when to choose it, in one sentence.

    Raises:
        ConfigurationError: a field has an invalid value: an empty name or space; dim, max_query_tokens, max_side or
            max_num_visual_tokens below 1; a best_match that is not positive; an auto_hybrid or a low_relevance
            beyond 0 to 1; an unknown precision.

    Example: a checkpoint of a known family in a repository of your own.
        >>> from colpali_integrations.models import find_model
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
    drop_blank: bool = False
    base: str | None = None
    base_revision: str | None = None
    allow_unused: tuple[str, ...] = ()
    origin: Origin | None = None
    space: str | None = None
    best_match: float = 1.0
    auto_hybrid: bool | float = False
    low_relevance: float = 0.0
    parameters: int = 0
    size_in_bytes: int = 0
    license: str = ""
    vidore: tuple[tuple[str, float], ...] = ()
    vidore_source: str = ""
    summary: str = ""

    def __post_init__(self) -> None:
        """Refuse invalid values here, and not at the first query."""
        for name, valid, requirement in (
            ("name", self.name and self.name == self.name.strip(), "a non-empty string without outer spaces"),
            ("best_match", _is_positive(self.best_match), "positive"),
            *((name, _is_count(getattr(self, name)), _COUNT) for name in ("dim", "max_query_tokens")),
            ("space", self.space != "", "a non-empty string or None"),
            ("auto_hybrid", _is_weight(self.auto_hybrid), "True, False or a weight from 0 to 1"),
            ("low_relevance", _is_share(self.low_relevance), "from 0 to 1"),
            ("precision", self.precision in (None, *PRECISIONS), f"one of {', '.join(PRECISIONS)}"),
            *(
                (name, (value := getattr(self, name)) is None or _is_count(value), _COUNT)
                for name in ("max_side", "max_num_visual_tokens")
            ),
        ):
            if not valid:
                value = getattr(self, name)
                raise ConfigurationError(
                    f"ModelDescription {self.name!r}: {name} must be {requirement}, got {shown(value)}"
                )

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
        are precision, max_side, max_num_visual_tokens and drop_blank. Name, figures, license and summary do not count.
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
            drop_blank=self.drop_blank or None,
        )
        return Fingerprint(weights if self.space is None else f"{self.space} ({self.dim})", pages)

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, JSON-safe."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelDescription:
        """Read the result of `to_dict`, also once it has been JSON; keys of later versions are ignored.

        Raises:
            TypeError: a key is missing, or a value is of another type.
            ValueError: a value is invalid.

        Example:
            >>> import json
            >>> from colpali_integrations.models import find_model
            >>> coltiny = find_model("coltiny")
            >>> ModelDescription.from_dict(json.loads(json.dumps(coltiny.to_dict()))) == coltiny
            True
        """
        known = typed_fields(values, _TYPES)
        for name in _LISTS & known.keys():
            known[name] = tuple(tuple(one) if isinstance(one, list) else one for one in known[name])
        if (origin := values.get("origin")) is not None:
            known["origin"] = Origin(**typed_fields(origin, _ORIGIN_TYPES))
        if "auto_hybrid" in values:  # a weight, or a bool, which is checked as both
            known["auto_hybrid"] = values["auto_hybrid"]
        return cls(**known)


_LISTS = {"additional_files", "allow_unused", "vidore"}
_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("name", "family", "model_file", "query_prefix", "query_suffix", "image_prompt"), str),
    **dict.fromkeys(("license", "vidore_source", "summary"), str),
    **dict.fromkeys(("repository", "revision", "precision", "base", "base_revision", "space"), str | None),
    **dict.fromkeys(("dim", "max_query_tokens", "parameters", "size_in_bytes"), int),
    **dict.fromkeys(("dense_dim", "max_side", "max_num_visual_tokens"), int | None),
    **dict.fromkeys(_LISTS, list | tuple),
    **{"unit_length": bool, "best_match": int | float, "low_relevance": int | float},
}
_ORIGIN_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("name", "model_file"), str),
    **dict.fromkeys(("repository", "revision", "base", "base_revision"), str | None),
}


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _is_share(value: object) -> bool:
    return not isinstance(value, bool) and _is_weight(value)


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and _is_positive(value)


def _is_positive(value: object) -> bool:
    """Whether a value, perhaps of a damaged file, is a positive number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
