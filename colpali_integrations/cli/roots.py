"""The folders and files that `index` has read into a store, of which `serve` and `mcp` may show pages as pictures.

They are recorded in this user's state folder and never in the store, which may come from elsewhere and name any folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from filelock import FileLock

from colpali_integrations._logs import package_logger
from colpali_integrations._text import parse_json
from colpali_integrations.cli.places import StorePlace
from colpali_integrations.models.connection import is_server
from colpali_integrations.pages.identity import real_path

__all__ = ["record_roots", "recorded_roots", "roots_of"]

logger = package_logger(__name__)

_MOST_FILES = 20  # of one folder; beyond, the folder is recorded
_LOCK_SECONDS = 10


def roots_of(paths: Iterable[Path], documents: Iterable[Path]) -> list[Path]:
    """The places that a call of `index` has read, with links followed.

    Args:
        paths: of the call, files and folders.
        documents: the files that were found there.

    Returns:
        The folders, and the files that are in none of them.
    """
    return _simplified([real for path in [*paths, *documents] if (real := Path(real_path(path))).exists()])


def record_roots(store: StorePlace, roots: Sequence[Path]) -> None:
    """Add places to those of a store. What cannot be recorded is logged, and `--root` is needed instead.

    Args:
        store: the folder of the store, or the URL of its server.
        roots: real paths.
    """
    file = _file_of(store)
    try:
        file.parent.mkdir(0o700, parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock"), timeout=_LOCK_SECONDS, mode=0o600):
            known = _read(file)
            together = _simplified([*known, *roots])
            if together != known:
                _write(file, {"store": _name(store), "roots": [str(root) for root in together]})
    except (OSError, NotImplementedError, UnicodeError) as error:
        logger.warning(
            "cannot record in %s which folders were read (%s); for pictures, pass --root DIR to serve and mcp",
            file.parent,
            error,
        )


def recorded_roots(store: StorePlace) -> list[Path]:
    """The places of a store that this user has recorded; the file is read anew by each call.

    Args:
        store: the folder of the store, or the URL of its server.
    """
    return _read(_file_of(store))


def _file_of(store: StorePlace) -> Path:
    key = hashlib.sha256(_name(store).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return _state_folder() / "roots" / f"{key}.json"


def _name(store: StorePlace) -> str:
    return str(store) if is_server(store) else real_path(store)


def _state_folder() -> Path:
    """This user's folder for what programs remember, as the system has it (XDG on Linux)."""
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    if given.is_absolute():  # the specification ignores a relative one
        return given / "colpali-integrations"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "colpali-integrations"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "colpali-integrations"
    return Path.home() / ".local" / "state" / "colpali-integrations"


def _read(file: Path) -> list[Path]:
    try:
        with file.open(encoding="utf-8") as opened:
            status = os.fstat(opened.fileno())
            if hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
                logger.warning("%s is passed over: another user can write it; remove it and index again", file)
                return []
            content = parse_json(opened.read())
        return [path for root in content["roots"] if (path := Path(root)).is_absolute()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s is passed over: %s; remove it and index again", file, error)
        return []


def _write(file: Path, content: dict[str, Any]) -> None:
    new = file.with_suffix(f".{token_hex(8)}")
    try:
        with open(new, "x", encoding="utf-8", opener=partial(os.open, mode=0o600)) as opened:
            json.dump(content, opened, indent=1)
        os.replace(new, file)  # noqa: PTH105
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _simplified(paths: Iterable[Path]) -> list[Path]:
    """The paths without those inside of others; a folder in the place of very many files of it."""
    folders, files = set(), defaultdict(set)
    for path in paths:
        if path.is_file():
            files[path.parent].add(path)
        else:
            folders.add(path)
    folders |= {folder for folder, some in files.items() if len(some) > _MOST_FILES}
    outer = {folder for folder in folders if not any(parent in folders for parent in folder.parents)}
    single = [file for folder, some in files.items() if not {folder, *folder.parents} & outer for file in some]
    return sorted([*outer, *single])
