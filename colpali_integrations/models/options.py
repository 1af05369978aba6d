"""The options of a model beside its name, as one value: hashable, comparable, picklable and JSON-safe."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from colpali_integrations._options import (
    checked_flag,
    checked_text,
    checked_texts,
    checked_timeout,
    checked_whole,
    shown,
    unknown_option,
)
from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.models.builder.quantization import PRECISIONS, Precision
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.runtime.providers import Provider

__all__ = ["OPTION_NAMES", "WRONG_GUESSES", "ModelOptions", "nest_options"]

_GPU = 'pass providers=["CUDAExecutionProvider"] (with onnxruntime-gpu installed), or device_ids=[0]'
_PRECISION = (
    'pass precision="int8" for a checkpoint in safetensors; an ONNX export has the precision of its files, and '
    "`colpali-integrations quantize` makes an int8 copy of one"
)
WRONG_GUESSES = {
    **dict.fromkeys(("device", "device_map", "cuda", "gpu", "use_gpu", "use_cuda"), _GPU),
    **dict.fromkeys(("dtype", "torch_dtype", "quantization_config", "load_in_8bit"), _PRECISION),
    **dict.fromkeys(("token", "use_auth_token", "hf_token"), "run `hf auth login`, or set HF_TOKEN"),
    **dict.fromkeys(("num_threads", "n_threads"), "use threads="),
    "cache_folder": "use cache_dir=",
    "api_key": "write the key of a server to a file and pass api_key_file=, or set COLPALI_API_KEY",
}
"""Options of other libraries, and the option to use instead."""


@dataclass(frozen=True)
class ModelOptions:
    """Everything that `ColPali.from_pretrained` takes beside the name and `lazy_load`, which documents the fields.

    Lists become tuples and paths absolute strings, so that equal options are equal values in every thread and process.

    Raises:
        ConfigurationError: an option has an invalid value.

    Example:
        >>> ModelOptions(device_ids=[0, 1]) == ModelOptions(device_ids=(0, 1))
        True
    """

    local_dir: str | os.PathLike[str] | None = None
    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    threads: int | None = None
    providers: Sequence[Provider] | None = field(default=None, hash=False)  # may hold dictionaries
    device_ids: Sequence[int] | None = None
    enable_cpu_mem_arena: bool = True
    split_graph: bool = True
    precision: Precision | None = None
    max_side: int | None = None
    max_num_visual_tokens: int | None = None
    drop_blank: bool = False
    dim: int | None = None
    base: str | os.PathLike[str] | None = None
    allow_unused: Sequence[str] | None = None
    allow_urls: bool = False
    allow_private_urls: bool = False
    url_timeout: float = 10.0
    url_max_bytes: int = 64 * 2**20
    max_pixels: int = MAX_PIXELS
    image_formats: Sequence[str] | None = None
    api_key_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Normalise the values, and refuse invalid ones."""
        for name in ("local_dir", "cache_dir", "base", "api_key_file"):
            given = getattr(self, name)
            path = None if given is None else user_path(given, ConfigurationError, name)
            if path is not None and (name != "base" or not isinstance(given, str) or path.is_dir()):
                object.__setattr__(self, name, os.path.abspath(path))  # noqa: PTH100 - Path.resolve follows symlinks
        for name in ("threads", "max_side", "max_num_visual_tokens", "dim", "url_max_bytes"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, checked_whole(value, name))
        flags = ("local_files_only", "enable_cpu_mem_arena", "split_graph", "drop_blank")
        for name in (*flags, "allow_urls", "allow_private_urls"):
            object.__setattr__(self, name, checked_flag(getattr(self, name), name))
        object.__setattr__(self, "url_timeout", checked_timeout(self.url_timeout, "url_timeout"))
        if self.revision is not None:
            checked_text(self.revision, "revision")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise ConfigurationError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.allow_private_urls and not self.allow_urls:
            raise ConfigurationError("allow_private_urls needs allow_urls=True, which lets images be URLs")
        unused = () if self.allow_unused is None else self.allow_unused
        object.__setattr__(self, "allow_unused", checked_texts(unused, "allow_unused", "['lm_head.']") or None)
        object.__setattr__(self, "image_formats", self.image_limits.image_formats or None)
        if self.device_ids is not None:
            object.__setattr__(self, "device_ids", _devices(self.device_ids))
        if self.providers is not None:
            object.__setattr__(self, "providers", _providers(self.providers))

    @property
    def image_limits(self) -> ImageLimits:
        """Size and formats of images that are decoded."""
        return ImageLimits(self.max_pixels, self.image_formats or ())

    @property
    def image_options(self) -> dict[str, Any]:
        """The keyword arguments for `load_image`."""
        permissions = {"allow_urls": self.allow_urls, "allow_private_urls": self.allow_private_urls}
        return {
            **permissions,
            **self.image_limits.options,
            **{"timeout": self.url_timeout, "max_bytes": self.url_max_bytes},
        }


OPTION_NAMES = frozenset(one.name for one in fields(ModelOptions))


def nest_options(arguments: Mapping[str, Any], *, where: str, known: Iterable[str]) -> dict[str, Any]:
    """Move the model options among a constructor's arguments into its argument `options`.

    Args:
        arguments: the constructor's keyword arguments.
        where: the class, for messages.
        known: names of the class's other arguments.

    Raises:
        ConfigurationError: an argument is neither one of these nor a model option.

    Example:
        >>> nest_options({"batch_size": 4, "threads": 2}, where="Embeddings", known=["batch_size", "options"])
        {'batch_size': 4, 'options': {'threads': 2}}
    """
    known = frozenset(known)
    if not arguments.keys() <= known | OPTION_NAMES:
        raise unknown_option(where, arguments, known | OPTION_NAMES, WRONG_GUESSES)
    flat = {name: value for name, value in arguments.items() if name not in known}
    if not flat:
        return dict(arguments)
    nested = arguments.get("options") or {}
    options = {**(asdict(nested) if isinstance(nested, ModelOptions) else nested), **flat}
    return {**{name: value for name, value in arguments.items() if name in known}, "options": options}


def _devices(given: object) -> tuple[int, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError(f"device_ids must be a list of numbers of GPUs, such as [0, 1], got {shown(given)}")
    numbers = tuple(checked_whole(one, "each of device_ids", 0) for one in given)
    if len(set(numbers)) != len(numbers):
        raise ConfigurationError(f"device_ids must be different, got {list(numbers)}")
    return numbers


def _providers(given: object) -> tuple[Provider, ...]:
    """The execution providers, each a name or a name with options, which are put in order."""
    several = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else ()
    found: list[Provider] = []
    for one in several:
        name, options = one if isinstance(one, tuple | list) and len(one) == 2 else (one, None)
        if not isinstance(name, str) or not isinstance(options, Mapping | None):
            raise _not_providers(given)
        found.append(name if options is None else (name, dict(sorted(options.items()))))
    if not found:
        raise _not_providers(given)
    return tuple(found)


def _not_providers(given: object) -> ConfigurationError:
    return ConfigurationError(
        f"providers must be a non-empty list of names, or of names with options, such as ['CUDAExecutionProvider'], "
        f"got {shown(given)}"
    )
