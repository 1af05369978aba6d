"""The paths that callers pass, read alike at every entry point."""

from __future__ import annotations

import os
from pathlib import Path

from colpali_integrations.errors import ColPaliError, InputError

__all__ = ["is_folder", "user_path"]


def user_path(path: str | os.PathLike[str], error: type[ColPaliError] = InputError) -> Path:
    """A caller's path, with `~` and `~name` expanded. As in a shell, `~name` of no user is a name like others.

    Args:
        path: of a file or folder, which need not exist.
        error: raised if no file or folder can have this path.

    Raises:
        ColPaliError: of the type `error`: the path is empty.

    Example:
        >>> user_path("reports/2024.pdf").name
        '2024.pdf'
        >>> user_path("")
        Traceback (most recent call last):
        colpali_integrations.errors.InputError: the path is empty; pass '.' for the current folder
    """
    text = os.fspath(path)
    if not text:
        raise error("the path is empty; pass '.' for the current folder")
    return Path(os.path.expanduser(text))  # noqa: PTH111 - which raises for an unknown user


def is_folder(source: object) -> bool:
    """Whether a caller's source is the path of a folder that exists.

    Raises:
        InputError: it is an empty path.
    """
    return isinstance(source, str | os.PathLike) and user_path(source).is_dir()
