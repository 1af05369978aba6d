"""Memory that a worker draws pages into and its caller reads.

Through a pipe, a page of A4 at 150 dpi takes 8 ms of processor time more, a fifteenth of the time that ColTiny takes.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress

from colpali_integrations.pdfium.pixels import MAX_BYTES

__all__ = ["SharedMemory"]

# Lower numbers are those of the standard streams.
_FIRST_FREE = 3
# After a page that is larger than most, its memory goes back to the system.
_KEPT = 2**24


class SharedMemory:
    """`MAX_BYTES` bytes, which take memory as they are written.

    Attributes:
        file: the descriptor that a process inherits; close it by `close_file` once it has.
        bytes: the content.

    Raises:
        OSError: the system has no such memory; only Linux has.
    """

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError("no memfd_create")
        import fcntl

        self.file = os.memfd_create("colpali-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        if self.file < _FIRST_FREE:  # the caller has closed a standard stream, whose number the worker's pipes take
            low, self.file = self.file, fcntl.fcntl(self.file, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
            os.close(low)
        try:
            os.ftruncate(self.file, MAX_BYTES)
            # A process that shrank the memory would end its caller by SIGBUS.
            fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self.bytes = mmap.mmap(self.file, MAX_BYTES)
        except BaseException:
            self.close_file()
            raise

    def close_file(self) -> None:
        """Close the descriptor; the memory stays."""
        os.close(self.file)

    def free(self, used: int) -> None:
        """Give memory back after a page that took `used` bytes of it."""
        if used > _KEPT:
            with suppress(OSError):
                self.bytes.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Release the memory. What still refers to it keeps it until then."""
        with suppress(BufferError):
            self.bytes.close()
