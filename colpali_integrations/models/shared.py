"""One model per process for equal options, however many adapter objects, copies and threads ask for it.

Frameworks copy, pickle and rebuild their components freely (LangChain's `configurable_fields` runs the constructor at
every call), and an ONNX Runtime session can be neither pickled nor copied. So an adapter holds options, not a model,
and asks here whenever it needs one.

>>> shared_model("coltiny") is shared_model("coltiny", ModelOptions(threads=None))
True
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable

from colpali_integrations._forks import ForkLock
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.connection import is_server, server_url
from colpali_integrations.models.loading import load_parts
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.registry import registered_model

__all__ = ["release_shared_models", "shared_model"]

_DEFAULTS = ModelOptions()


class _Slot:
    """The place of one model. Its own lock prevents a slow download of one model from delaying the others."""

    def __init__(self) -> None:
        self.lock = ForkLock()
        self.model: ColPali | None = None


_lock = ForkLock()
_slots: defaultdict[Hashable, _Slot] = defaultdict(_Slot)


def shared_model(name_or_path: str | os.PathLike[str] = "coltiny", options: ModelOptions = _DEFAULTS) -> ColPali:
    """The process's model with these options, made at the first call.

    It is kept until `release_shared_models()`. Its sessions are made at first use, so that a process which only asks
    questions never loads the vision tower. Safe to call from any number of threads; cheap enough to call every time.

    Args:
        name_or_path: as in `ColPali.from_pretrained`. A relative folder is one below the present directory.
        options: the other arguments.

    Raises:
        ColPaliError: as `ColPali.from_pretrained`. No model is kept then; the next call tries again.
    """
    # The description and not its name: a model registered anew under the same name is another model.
    model = registered_model(name_or_path, options.local_dir) or _place(name_or_path)
    with _lock:
        slot = _slots[model, options]
    if slot.model is not None:
        return slot.model
    with slot.lock:
        if slot.model is None:
            slot.model = ColPali(*load_parts(name_or_path, options, lazy_load=True))
        return slot.model


def _place(name_or_path: str | os.PathLike[str]) -> str:
    if is_server(name_or_path):
        return server_url(os.fspath(name_or_path))
    return os.path.abspath(name_or_path)  # noqa: PTH100 - Path.resolve follows symlinks


def release_shared_models() -> None:
    """Forget every shared model and free its sessions. Work under way ends well; later calls make new models."""
    with _lock:
        slots = list(_slots.values())
        _slots.clear()
    for slot in slots:
        if slot.model is not None:
            slot.model.close()
