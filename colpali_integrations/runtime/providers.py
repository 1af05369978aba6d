"""What the installed ONNX Runtime has: its execution providers, requested or chosen, and its version."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from typing import Any, TypeAlias

import onnxruntime as ort

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import ModelLoadError, ProviderError

__all__ = [
    "Provider",
    "check_onnxruntime",
    "preferred_provider",
    "provider_name",
    "resolve_providers",
    "warn_of_fallback",
    "with_device",
]

logger = package_logger(__name__)

Provider: TypeAlias = str | tuple[str, dict[str, Any]]

# Providers already reported as unavailable; each is warned about once per process.
_fallen_back: set[str] = set()


def resolve_providers(providers: Sequence[Provider] | None) -> tuple[Provider, ...]:
    """Check the requested providers, or choose some for None.

    Raises:
        ProviderError: this build of onnxruntime does not have a provider.
        ConfigurationError: `providers` is not a non-empty list.
    """
    available = ort.get_available_providers()
    if providers is None:
        chosen = _automatic_providers()
        logger.debug("execution providers chosen: %s", ", ".join(chosen))
        return chosen
    for name in map(provider_name, providers):
        if name not in available:
            raise ProviderError(
                f"{name} is not in this build of onnxruntime (it has: {', '.join(available)}). For NVIDIA GPUs: "
                "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
            )
    return tuple(providers)


def preferred_provider(providers: Sequence[Provider] | None) -> str:
    """The name of the first provider that is requested; for None, of the first that would be chosen."""
    return provider_name((providers or _automatic_providers())[0])


def warn_of_fallback(requested: str, active: str) -> None:
    """Log that a chosen provider failed to start, once per process as a warning."""
    level = logging.DEBUG if requested in _fallen_back else logging.WARNING
    _fallen_back.add(requested)
    logger.log(
        level,
        "%s failed to start; models run on %s. `colpali-integrations doctor` shows why, and providers=[%r] chooses it "
        "without this warning (logged once)",
        requested,
        active,
        active,
    )


def _automatic_providers() -> tuple[str, ...]:
    available = ort.get_available_providers()
    return tuple(name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available)


def provider_name(provider: Provider) -> str:
    """The name of a provider, which may have options."""
    return provider if isinstance(provider, str) else provider[0]


def with_device(providers: tuple[Provider, ...], device_id: int | None) -> tuple[Provider, ...]:
    """The providers with the device of the first one; None leaves the choice to it."""
    if device_id is None:
        return providers
    name = provider_name(providers[0])
    options = {} if isinstance(providers[0], str) else providers[0][1]
    return ((name, {**options, "device_id": str(device_id)}), *providers[1:])


def check_onnxruntime(lowest: str, model: str, *, installed: str = ort.__version__) -> None:
    """Refuse a version of onnxruntime without the operators of a model.

    Args:
        lowest: the first version that has them, as "1.26"; "" for any that this package permits.
        model: the model's name, for the message.
        installed: the version that is installed.

    Raises:
        ModelLoadError: it is older.

    Example:
        >>> check_onnxruntime("1.26", "my-model", installed="1.23.2")
        Traceback (most recent call last):
        colpali_integrations.errors.ModelLoadError: my-model needs onnxruntime 1.26 or later, and 1.23.2 is installed...
    """
    if lowest and _numbers(installed) < _numbers(lowest):
        raise ModelLoadError(
            f"{model} needs onnxruntime {lowest} or later, and {installed} is installed. Run pip install -U "
            f"'onnxruntime>={lowest}', which needs Python 3.11 or later (this is {platform.python_version()})"
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]
