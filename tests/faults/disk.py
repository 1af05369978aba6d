"""A disk that loses its power: what a record of calls leaves of a folder.

Written data are on the disk for certain once their file was flushed, and names once their folder was. Any part of the
rest may have reached the disk too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random
from typing import NamedTuple

__all__ = ["Event", "events", "remains"]

_SECTOR = 512


class Event(NamedTuple):
    """A recorded call; see `calls.c`."""

    op: str
    inode: int
    offset: int
    path: str
    data: bytes


@dataclass
class _File:
    data: bytearray = field(default_factory=bytearray)
    waiting: list[tuple[int, bytes | None]] = field(default_factory=list)  # offset and data; None: cut off there

    def remains(self, random: Random | None) -> bytes:
        if random is None:
            return bytes(self.data)
        data = bytearray(self.data)
        for change in self.waiting:
            fate = random.random()
            if fate < 0.5:
                _change(data, *change)
            elif fate < 0.7 and change[1] is not None:
                for start in range(0, len(change[1]), _SECTOR):
                    if random.random() < 0.5:
                        _change(data, change[0] + start, change[1][start : start + _SECTOR])
        return bytes(data)


@dataclass
class _Folder:
    names: dict[str, _File | _Folder] = field(default_factory=dict)
    waiting: list[tuple[str, _File | _Folder | None]] = field(default_factory=list)  # None: removed

    def current(self) -> dict[str, _File | _Folder]:
        return _named(self.names, self.waiting)

    def remains(self, random: Random | None) -> dict[str, _File | _Folder]:
        if random is None:
            return self.names
        return _named(self.names, [change for change in self.waiting if random.random() < 0.5])


def events(record: bytes) -> Iterator[Event]:
    """The calls of a record."""
    at = 0
    while at < len(record):
        op = chr(record[at])
        inode, offset, size, length = struct.unpack_from("<4Q", record, at + 1)
        at += 33
        path = record[at : at + length].decode()
        at += length
        data = record[at : at + size] if op in "WR" else b""
        at += len(data)
        yield Event(op, inode, offset, path, data)


def remains(calls: list[Event], root: Path, target: Path, random: Random | None) -> None:
    """Write the files that a power cut after these calls leaves.

    Args:
        calls: since `root` was an empty folder.
        root: the recorded folder.
        target: an empty folder.
        random: chooses the parts that reached the disk without a flush; None for none of them.
    """
    top = _Folder()
    inodes: dict[int, _File] = {}
    for call in calls:
        _apply(top, inodes, call, root)
    _write(top, target, random)


def _apply(top: _Folder, inodes: dict[int, _File], call: Event, root: Path) -> None:
    if call.op in "WTS":
        file = inodes[call.inode]
        if call.op == "S":
            for change in file.waiting:
                _change(file.data, *change)
            file.waiting = []
        else:
            file.waiting.append((call.offset, call.data if call.op == "W" else None))
    elif call.op == "D":
        folder = _folder(top, call.path, root)
        folder.names, folder.waiting = folder.current(), []
    elif call.op != "M":
        path = PurePosixPath(call.path)
        parent = _folder(top, str(path.parent), root)
        if call.op == "C":
            inodes[call.inode] = _File()
            parent.waiting.append((path.name, inodes[call.inode]))
        elif call.op == "K":
            parent.waiting.append((path.name, _Folder()))
        elif call.op == "R":
            new = PurePosixPath(call.data.decode())
            _folder(top, str(new.parent), root).waiting.append((new.name, parent.current()[path.name]))
            parent.waiting.append((path.name, None))
        else:
            parent.waiting.append((path.name, None))


def _folder(top: _Folder, path: str, root: Path) -> _Folder:
    folder = top
    for part in PurePosixPath(path).relative_to(root).parts:
        child = folder.current()[part]
        assert isinstance(child, _Folder)
        folder = child
    return folder


def _write(folder: _Folder, target: Path, random: Random | None) -> None:
    for name, child in folder.remains(random).items():
        if isinstance(child, _Folder):
            (target / name).mkdir()
            _write(child, target / name, random)
        else:
            (target / name).write_bytes(child.remains(random))


def _named(
    names: dict[str, _File | _Folder], changes: list[tuple[str, _File | _Folder | None]]
) -> dict[str, _File | _Folder]:
    names = dict(names)
    for name, child in changes:
        if child is None:
            names.pop(name, None)
        else:
            names[name] = child
    return names


def _change(data: bytearray, offset: int, piece: bytes | None) -> None:
    if piece is None:
        del data[offset:]
        data.extend(bytes(max(0, offset - len(data))))
    else:
        data.extend(bytes(max(0, offset + len(piece) - len(data))))
        data[offset : offset + len(piece)] = piece
