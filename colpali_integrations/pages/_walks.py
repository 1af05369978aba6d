"""The frames of the latest TIFF files, so that drawing pages one by one does not find them anew for each page."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import IO, TypeAlias

from colpali_integrations._forks import hold_during_forks
from colpali_integrations.pages.tiff import TiffFrames

__all__ = ["file_frames"]

_KEPT = 4  # files
_MOST = 500_000  # frames of a file that is kept: 8 bytes each

_Key: TypeAlias = tuple[str, int, int, int]

_frames: OrderedDict[_Key, TiffFrames] = OrderedDict()
_keeping = threading.Lock()
hold_during_forks(_keeping)


def file_frames(path: str, file: IO[bytes]) -> TiffFrames:
    """The frames of an open TIFF file, which are found anew only if it has changed or is none of the latest files.

    Args:
        path: of the file.
        file: opened by `open_file`.

    Returns:
        Frames that the caller alone uses.

    Raises:
        ImageError: as `TiffFrames`.
    """
    status = os.fstat(file.fileno())
    key = (os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ino)
    with _keeping:
        found = _frames.get(key)
    if found is None:
        found = TiffFrames(file)  # without the lock: other files do not wait for a long one
    if found.count <= _MOST:
        with _keeping:
            _frames[key] = found
            _frames.move_to_end(key)
            while len(_frames) > _KEPT:
                _frames.popitem(last=False)
    return found.unused()
