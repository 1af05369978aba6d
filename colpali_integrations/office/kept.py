"""The PDFs of documents that were converted, in a folder of this user, so that drawing a page converts nothing again.

    <cache of the user>/colpali-integrations/office/     0700
      <64 hex digits>.pdf     by the document's content
      <64 hex digits>.json    what belongs to the texts of its pages; written before the PDF

Beyond one GB, those that were used least recently are removed, but none of the last hour.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from colpali_integrations._text import parse_json
from colpali_integrations.errors import ConfigurationError

__all__ = ["CACHE_VARIABLE", "Converted", "KeptPdfs"]

CACHE_VARIABLE = "COLPALI_OFFICE_CACHE"
"""The environment's variable that names another folder."""

_MOST_BYTES = 1_000_000_000
_LEAST_AGE = 3600.0  # seconds: a program may read it


@dataclass(frozen=True)
class Converted:
    """A document as a PDF.

    Attributes:
        path: of the PDF.
        texts: by the number of a page, what belongs to its text but is not on it.
    """

    path: Path
    texts: dict[int, str]


class KeptPdfs:
    """The folder of PDFs; processes may share it.

    Args:
        folder: None for this user's.
        most_bytes: of all PDFs together.
    """

    def __init__(self, folder: Path | None = None, most_bytes: int = _MOST_BYTES) -> None:
        self.folder = _user_folder() if folder is None else folder
        self._most_bytes = most_bytes

    def find(self, key: str) -> Converted | None:
        """The PDF of a document; None where it is not there (any more)."""
        path = self.folder / f"{key}.pdf"
        try:
            status = path.stat()
            texts = parse_json(path.with_suffix(".json").read_text(encoding="utf-8"))
            # Only the time of use changes; by the other one, readers recognise a file that was exchanged.
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
            self._require_own()
            return Converted(path, {int(number): str(text) for number, text in texts.items()})
        except (OSError, ValueError, AttributeError):
            return None

    def keep(self, key: str, pdf: bytes, texts: dict[str, str]) -> Converted:
        """Keep the PDF of a document.

        Raises:
            ConfigurationError: the folder cannot be written, or other users may enter it.
        """
        path = self.folder / f"{key}.pdf"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._require_own()
            self._write(path.with_suffix(".json"), json.dumps(texts).encode())
            self._write(path, pdf)
            self._remove_surplus(path)
        except OSError as error:
            raise ConfigurationError(
                f"the PDF of an Office file cannot be kept in {self.folder}: {error.strerror or error}; "
                f"{CACHE_VARIABLE} may name another folder"
            ) from error
        return Converted(path, {int(number): text for number, text in texts.items()})

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file that exists as a whole or not at all, for this user alone."""
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix="new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(name, path)  # noqa: PTH105 - a string
        except BaseException:
            with suppress(OSError):
                os.unlink(name)  # noqa: PTH108
            raise

    def _remove_surplus(self, latest: Path) -> None:
        files = []
        for path in self.folder.iterdir():
            with suppress(OSError):  # another process has removed it
                status = path.stat()
                files.append((status.st_atime, status.st_size, path))
        surplus = sum(size for _, size, _ in files) - self._most_bytes
        for used, size, path in sorted(files):
            if surplus <= 0 or path == latest:
                continue
            if path.suffix != ".json" and time.time() - used > _LEAST_AGE:
                for one in (path, path.with_suffix(".json")):
                    with suppress(OSError):
                        one.unlink()
                surplus -= size

    def _require_own(self) -> None:
        if os.name != "posix":
            return
        status = os.lstat(self.folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise ConfigurationError(
                f"{self.folder} must be a folder of this user that no other one may enter; run: chmod 700 {self.folder}"
            )


def _user_folder() -> Path:
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "colpali-integrations" / "office"
