"""The paths that callers pass, read alike at every entry point."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from colpali_integrations._options import shown
from colpali_integrations.errors import ColPaliError, ConfigurationError, InputError

__all__ = ["check_roots", "is_folder", "path_text", "user_path"]

_LONGEST = 120  # characters of a path in a message


def path_text(path: object, error: type[ColPaliError] = InputError, name: str = "a path") -> str:
    """A caller's path, or the name of a model, as a string.

    Args:
        path: a string or a path; anything may come from callers without type checks.
        error: raised for everything else.
        name: of the argument, for the message.

    Raises:
        ColPaliError: of the type `error`: it is neither a string nor a path of text.

    Example:
        >>> path_text(Path("reports"))
        'reports'
        >>> path_text(5, name="local_dir")
        Traceback (most recent call last):
        colpali_integrations.errors.InputError: local_dir must be a str or a pathlib.Path, got 5
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise error(f"{name} must be a str or a pathlib.Path, got {shown(path)}")
    return text


def user_path(path: str | os.PathLike[str], error: type[ColPaliError] = InputError, name: str | None = None) -> Path:
    """A caller's path, with `~` and `~name` expanded. As in a shell, `~name` of no user is a name like others.

    Args:
        path: of a file or folder, which need not exist.
        error: raised if no file or folder can have this path.
        name: of the argument, for the message.

    Raises:
        ColPaliError: of the type `error`: the path is empty, has a character that no path can have or is too long; it
            begins with the name of an unknown user and is no file here; or it is neither a string nor a path.

    Example:
        >>> user_path("reports/2024.pdf").name
        '2024.pdf'
        >>> user_path("")
        Traceback (most recent call last):
        colpali_integrations.errors.InputError: the path is empty; pass '.' for the current folder
    """
    text, prefix = path_text(path, error, name or "a path"), f"{name}: " if name else ""
    if not text:
        raise error(f"{prefix}the path is empty; pass '.' for the current folder")
    expanded, reason = text, None
    try:
        expanded = os.path.expanduser(text)  # noqa: PTH111 - which raises for an unknown user
        os.stat(expanded)  # noqa: PTH116 - a Path hides some reasons, by the version of Python
    except UnicodeError:
        reason = "it has a character that no file name can have"
    except ValueError:
        reason = "it has a null character"
    except OSError as caught:
        if caught.errno == errno.ENAMETOOLONG:
            reason = f"it is too long ({len(text)} characters)"
            if issubclass(error, InputError):
                reason += "; is it the content of a document? Pass the decoded bytes"
        elif expanded.startswith("~") and isinstance(caught, FileNotFoundError):
            reason = "there is no user of this name; of a file of this name, pass the absolute path"
    if reason is not None:
        beginning = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        raise error(f"{prefix}not a path: {beginning}: {reason}")
    return Path(expanded)


def check_roots(roots: Iterable[Path]) -> None:
    """Refuse roots, whose pages may be shown, that are no folders.

    Raises:
        ConfigurationError: one is none.
    """
    for root in roots:
        if not root.is_dir():
            raise ConfigurationError(f"the root {root} is not a folder; pass one whose pages may be shown")


def is_folder(source: object) -> bool:
    """Whether a caller's source is the path of a folder that exists.

    Raises:
        InputError: it is a path that no folder can have; see `user_path`.
    """
    return isinstance(source, str | os.PathLike) and user_path(source).is_dir()
