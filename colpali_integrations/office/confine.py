"""The program that confines itself and becomes LibreOffice: `python -I -S confine.py ARGUMENTS`.

It uses the standard library alone, so that it starts in milliseconds, and no thread of another program is in its way.

| what | by | where |
|---|---|---|
| files but those of the system's programs, of fonts and of the conversion | Landlock | Linux 5.13 and later |
| the network | a namespace of its own, else Landlock | Linux where users may make namespaces; 6.7 and later |
| memory, processor time, the size of files | limits of the process | Linux; macOS but for memory |
| end with the process that started it | the kernel's signal | Linux |
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

__all__ = ["NOT_CONFINED", "main"]

NOT_CONFINED = 97
"""The exit code where the confinement is required, and the system does not have all of it."""

_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on all of Linux's architectures but alpha
_VERSION, _PATH_BENEATH = 1, 1
_WITH_NETWORK = 4  # the version of Landlock that knows connections
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_MAKE_SOCKET = 1 << 9
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
# Numbers of rights by version of Landlock: of files, of the network, of signals and sockets.
_RIGHTS = {1: (13, 0, 0), 2: (14, 0, 0), 3: (15, 0, 0), 4: (15, 2, 0), 5: (16, 2, 0), 6: (16, 2, 2)}

# The system's programs and what they need; not the rest of /etc, /var and /proc, which may hold secrets.
_READABLE = (
    *("/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/etc/fonts", "/etc/libreoffice"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
    *(
        "/etc/nsswitch.conf",
        "/etc/machine-id",
        "/var/cache/fontconfig",
        "/var/lib/libreoffice",
        "/var/spool/libreoffice",
        "/proc/cpuinfo",
        "/proc/meminfo",
    ),
    *("/proc/sys/kernel", "/proc/sys/vm", "/sys/devices/system/cpu", "/proc/filesystems"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/full")


def main(encoded: str) -> None:
    """Confine this process, and become another program.

    Args:
        encoded: JSON with `command`; `readable` and `writable`, paths; `sockets`, folders to make sockets in;
            `cpu_seconds`, `memory` and `file_bytes`; and
            `required`, whether to end by `NOT_CONFINED` where files or the network cannot be closed off.
    """
    job: dict[str, Any] = json.loads(encoded)
    _limit(job)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        has_left = _leave_network(libc)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the namespaces, whose credentials reset it
        version = _close_files(libc, job["readable"], job["writable"], job["sockets"])
        is_confined = version >= _WITH_NETWORK or (has_left and version > 0)
    else:
        is_confined = False
    if job["required"] and not is_confined:
        sys.exit(NOT_CONFINED)
    os.execv(job["command"][0], job["command"])


def _limit(job: dict[str, Any]) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, value in (
        *(("RLIMIT_CORE", 0), ("RLIMIT_CPU", job["cpu_seconds"])),
        *(("RLIMIT_AS", job["memory"]), ("RLIMIT_FSIZE", job["file_bytes"])),
    ):
        kind = getattr(resource, name)
        most = resource.getrlimit(kind)[1]
        least = value if most == resource.RLIM_INFINITY else min(value, most)
        with suppress(OSError, ValueError):  # a system without this limit
            resource.setrlimit(kind, (least, least))


def _leave_network(libc: Any) -> bool:
    """Move to a network without any connection, not even to this machine."""
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC) != 0:
        return False
    with suppress(OSError):  # without these, files have no known owner, and are read all the same
        for name, value in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
                file.write(value)
    return True


def _close_files(libc: Any, readable: Sequence[str], writable: Sequence[str], sockets: Sequence[str]) -> int:
    """Allow only some files, and no connections. Returns the version of Landlock, 0 where the system has none."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    if version < 1:
        return 0
    files, network, scopes = (2**count - 1 for count in _RIGHTS[min(version, max(_RIGHTS))])
    handled = (ctypes.c_uint64 * 3)(files, network, scopes)
    size = 8 if version < _WITH_NETWORK else 16 if version < 6 else 24
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return 0
    _allow(libc, ruleset, (*_READABLE, f"/proc/{os.getpid()}", *readable), _READ & files)
    _allow(libc, ruleset, _DEVICES, (_READ_FILE | _WRITE_FILE) & files)
    _allow(libc, ruleset, writable, files & ~_EXECUTE)
    _allow(libc, ruleset, sockets, _MAKE_SOCKET)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return 0
    is_closed = libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0
    os.close(ruleset)
    return int(version) if is_closed else 0


def _allow(libc: Any, ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined, unused-ignore]
        except OSError:  # this system has no such file
            continue
        is_folder = os.path.isdir(path)  # noqa: PTH112
        rule = rights if is_folder else rights & _OF_A_FILE
        packed = rule.to_bytes(8, sys.byteorder) + place.to_bytes(4, sys.byteorder)
        libc.syscall(_ADD_RULE, ctypes.c_int(ruleset), _PATH_BENEATH, packed, ctypes.c_uint32(0))
        os.close(place)


if __name__ == "__main__":
    main(sys.argv[1])
