"""One model a process for equal options, however many adapter objects, copies and threads ask for it.

Frameworks copy, pickle and rebuild their components freely (LangChain's `configurable_fields` runs the constructor at
every call), and an ONNX Runtime session can be neither pickled nor copied. So an adapter holds options, not a model,
and asks here whenever it needs one.

>>> shared_model("coltiny") is shared_model("coltiny", threads=None)
True
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from colpali_integrations.errors import ModelNotFoundError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.registry import ModelDescription, find_model

__all__ = ["release_shared_models", "shared_model"]

_SIGNATURE = inspect.signature(ColPali.from_pretrained)
_PATHS = ("local_dir", "cache_dir")


class _Slot:
    """The place of one model. Its own lock lets a slow download of one model not hold up the others."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.model: ColPali | None = None


_lock = threading.Lock()
_slots: dict[Hashable, _Slot] = {}


def shared_model(name_or_path: str | os.PathLike[str] = "coltiny", **options: Any) -> ColPali:
    """The process's model with these options, made at the first call.

    It is kept until `release_shared_models()`. Its sessions are made at first use, so that a process which only asks
    questions never loads the vision tower. Safe to call from any number of threads; cheap enough to call every time.

    Args:
        name_or_path: as in `ColPali.from_pretrained`.
        options: its keyword arguments. Left out or given as the default is the same; relative folders are told apart
            by the directory they are in. `lazy_load` has no effect.

    Raises:
        TypeError: an option that `ColPali.from_pretrained` does not have.
        ColPaliError: as `ColPali.from_pretrained`. Nothing is kept then; the next call tries again.
    """
    bound = _SIGNATURE.bind(name_or_path, **options)
    bound.apply_defaults()
    arguments = {**bound.arguments, "lazy_load": True}
    key = _key(arguments)
    with _lock:
        slot = _slots.setdefault(key, _Slot())
    if slot.model is not None:
        return slot.model
    with slot.lock:
        if slot.model is None:
            slot.model = ColPali.from_pretrained(**arguments)
        return slot.model


def release_shared_models() -> None:
    """Forget every shared model and free its sessions. Work under way ends well; later calls make new models."""
    with _lock:
        slots = list(_slots.values())
        _slots.clear()
    for slot in slots:
        if slot.model is not None:
            slot.model.close()


def _key(arguments: Mapping[str, Any]) -> Hashable:
    normal = dict(arguments)
    for name in _PATHS:
        if normal[name] is not None:
            normal[name] = os.path.abspath(normal[name])  # noqa: PTH100 - Path.resolve would follow symlinks
    given = normal.pop("name_or_path")
    name = os.fspath(given)
    description = _registered(name)
    if description is None or (normal["local_dir"] is None and (isinstance(given, Path) or Path(name).is_dir())):
        normal["name_or_path"] = os.path.abspath(name)  # noqa: PTH100
    else:
        # The description and not its name: a model registered anew under the same name is another model.
        normal["name_or_path"] = description
    return _freeze(normal)


def _registered(name: str) -> ModelDescription | None:
    try:
        return find_model(name)
    except ModelNotFoundError:
        return None


def _freeze(value: Any) -> Hashable:
    """A hashable stand-in for options made of lists, tuples, dicts and scalars."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), _freeze(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    hash(value)
    return value  # type: ignore[no-any-return]


_inherited: list[dict[Hashable, _Slot]] = []


def _after_fork() -> None:
    """Let a forked child (gunicorn --preload, multiprocessing on older Pythons) make its own models.

    The sessions that it inherits lost their threads in the fork: they run on one core, and destroying one waits for
    ever for threads that are not there. So they are set aside.
    """
    global _lock, _slots
    _inherited.append(_slots)
    _lock, _slots = threading.Lock(), {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
