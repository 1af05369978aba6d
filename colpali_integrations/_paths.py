"""The paths that callers pass, read alike at every entry point."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from colpali_integrations.errors import ColPaliError, InputError

__all__ = ["is_folder", "user_path"]

_LONGEST = 120  # characters of a path in a message


def user_path(path: str | os.PathLike[str], error: type[ColPaliError] = InputError) -> Path:
    """A caller's path, with `~` and `~name` expanded. As in a shell, `~name` of no user is a name like others.

    Args:
        path: of a file or folder, which need not exist.
        error: raised if no file or folder can have this path.

    Raises:
        ColPaliError: of the type `error`: the path is empty, has a character that no path can have or is too long; or
            it begins with the name of an unknown user and is no file here.

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
        shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        raise error(f"not a path: {shown}: {reason}")
    return Path(expanded)


def is_folder(source: object) -> bool:
    """Whether a caller's source is the path of a folder that exists.

    Raises:
        InputError: it is a path that no folder can have; see `user_path`.
    """
    return isinstance(source, str | os.PathLike) and user_path(source).is_dir()
