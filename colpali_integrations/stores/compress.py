"""Compression of a store in a folder: a copy with fewer bytes per page, made beside it, that takes its place.

`compress_store` copies every entry into a new store beside the old one. A killed run continues: the entries that were
copied, each with its number and checksums in the old store, stand in a file in the folder of the new one. At the end,
while writers wait, entries that were added or changed meanwhile are copied, the new store is verified, and the folders
are exchanged. So there is a whole store under the name at every moment, and the old one stays until `delete_old_store`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from stat import S_IMODE
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from colpali_integrations._paths import user_path
from colpali_integrations._text import parse_json
from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.embedded.lock import LOCK, locked, write_lock
from colpali_integrations.stores.embedded.manifest import read_manifest
from colpali_integrations.stores.embedded.schema import DATABASE
from colpali_integrations.stores.embedded.swap import FORMER, beside, finish, is_between, is_former, swap
from colpali_integrations.stores.engine import pieces
from colpali_integrations.stores.settings import BITS, Datatype, Settings
from colpali_integrations.stores.store import MultiVectorStore
from colpali_integrations.stores.upkeep import folder_engine, size_of, verify_store

__all__ = ["CompressReport", "compress_store", "delete_old_store"]

_BATCH = 64
_COPIED = f"{DATABASE}.copied"  # the entries that were copied
_BLOCK = r"[\w-]+-\d+\.block"
_OURS = re.compile(
    rf"{re.escape(LOCK)}|({re.escape(DATABASE)}|{_BLOCK})(-\w+|\.(new|salvage|copied|former|unknown|damaged-\d+))?"
)
Versions: TypeAlias = dict[int, tuple[str, int, int | None]]
"""By number of an entry: its id and the checksums of its row and of its vectors; see `FolderEngine.versions`."""


@dataclass(frozen=True, kw_only=True)
class CompressReport:
    """The outcome of a compression.

    Attributes:
        path: of the store, which is compressed now.
        old_path: of the former store; None if it was deleted.
        entries: number of entries.
        not_pooled: number of pages without a grid, whose vectors were all kept; 0 without pooling.
        bytes_before: of the former store's files.
        bytes_after: of the new store's files.

    Example:
        >>> import shutil
        >>> folder = shutil.copytree("my-index", "my-copy")
        >>> compress_store(folder, datatype="int8", delete_old=True).to_dict()["old_path"] is None
        True
    """

    path: Path
    old_path: Path | None
    entries: int
    not_pooled: int
    bytes_before: int
    bytes_after: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        paths = {"path": str(self.path), "old_path": None if self.old_path is None else str(self.old_path)}
        return {**asdict(self), **paths}


def compress_store(
    path: str | os.PathLike[str],
    *,
    datatype: Datatype | None = None,
    pool_factor: int | None = None,
    delete_old: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> CompressReport:
    """Make a compressed store of the one in a folder, and put it in its place; see the module.

    Searches and additions go on meanwhile; writers wait for the end, which verifies the new store. Programs that have
    the store open get a StoreError then, until they open it again.

    Args:
        path: the folder.
        datatype: of the new store; None for that of the old one.
        pool_factor: of the new store; None for that of the old one.
        delete_old: remove the old store at the end. By default it stays beside the new one, with the ending
            ".uncompressed".
        progress: called with the numbers of copied and of all entries.

    Returns:
        The report. A store that has these settings already stays as it is.

    Raises:
        ConfigurationError: the settings would not make the store smaller, or an option has an invalid value.
        StoreError: there is no store, it is damaged, the folder holds other files, an old store or one with other
            settings is beside it, or the disk cannot be written. The store at `path` is then the old one.

    Example:
        >>> import shutil
        >>> folder = shutil.copytree("my-index", "small-index")
        >>> report = compress_store("small-index", datatype="int4")
        >>> report.entries, report.old_path.name, report.bytes_after < report.bytes_before
        (2, 'small-index.uncompressed', True)
    """
    folder = Path(os.path.realpath(user_path(path, StoreError)))
    new, old = beside(folder)
    with _errors(folder), _alone(new):
        if is_between(folder):
            finish(folder)
        before = _settings(folder)
        _log_of(folder).unlink(missing_ok=True)  # of a run that was killed after the exchange
        (folder / FORMER).unlink(missing_ok=True)  # of one that was killed before, or of a store that was put back
        after = _target(before, datatype, pool_factor, folder)
        if is_former(new):
            finish(folder)
        if before != after:
            _refuse_neighbours(folder, after)
            with _opened(new, after, _mode(folder)) as store:
                _copy(folder, store, progress)
            _end(folder, before, after, progress)
        with MultiVectorStore.open(folder, read_only=True) as store:
            entries, unpooled = len(store), _not_pooled(store)
        sizes = size_of(old) if is_former(old) else size_of(folder), size_of(folder)
        if delete_old and old.exists():
            _require_former(old)
            if before == after:  # of an earlier run; this one has verified its own
                _require_sound(folder)
            _remove(old)
    return CompressReport(
        path=folder,
        old_path=old if is_former(old) else None,
        entries=entries,
        not_pooled=unpooled,
        bytes_before=sizes[0],
        bytes_after=sizes[1],
    )


def delete_old_store(path: str | os.PathLike[str]) -> int:
    """Remove the uncompressed store that a compression left beside the store in a folder, which is verified first.

    Args:
        path: the folder of the store.

    Returns:
        The number of removed bytes; 0 if there is no old store.

    Raises:
        StoreError: there is no sound store at `path`, a compression of it is at work, the folder beside it is no store
            that a compression has left, or its files cannot be removed.

    Example:
        >>> delete_old_store("my-index")
        0
    """
    folder = Path(os.path.realpath(user_path(path, StoreError)))
    new, old = beside(folder)
    with _errors(folder):
        _settings(folder)  # an error where there is no store
        if not (new.exists() or old.exists()):
            return 0
        with _alone(new):
            if not old.exists() and is_former(new):
                finish(folder)
            if not old.exists():
                return 0
            _require_former(old)
            _require_sound(folder)
            return _remove(old)


def _require_sound(folder: Path) -> None:
    """Refuse to remove the former store of a damaged one: it may be the only whole one."""
    report = verify_store(folder)
    if not report.ok:
        _, old = beside(folder)
        raise StoreError(
            f"the store {folder} is damaged ({report.problems[0]}), so the former one in {old} is kept. Repair "
            f"{folder}, or move it away and rename {old} to {folder}"
        )


def _require_former(old: Path) -> None:
    """Refuse to remove a folder that is not the former store of a compression, or holds other files.

    Raises:
        StoreError: it is one.
    """
    files = list(old.iterdir())
    if files and not is_former(old):
        raise StoreError(f"{old} is no store that a compression has left, and is kept; move or remove it yourself")
    if others := _others(files):
        raise StoreError(f"{old} holds other files ({others}), and is kept; move them, or remove the folder yourself")


def _remove(folder: Path) -> int:
    """Remove a store; returns the number of bytes."""
    size = 0
    # The database and then the marks last: what is left of a killed removal is still known as a store of ours.
    for file in sorted(folder.iterdir(), key=lambda one: (one.name in (_COPIED, FORMER), one.name == DATABASE)):
        if _OURS.fullmatch(file.name):
            size += file.stat().st_size
            file.unlink()
    folder.rmdir()
    return size


@contextmanager
def _alone(new: Path) -> Iterator[None]:
    """Keep other compressions of the same store out."""
    lock = FileLock(new.with_name(new.name + ".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise StoreError(f"another process is compressing into {new}; wait for its end") from error
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # another process has it open, on Windows
            Path(lock.lock_file).unlink()


def _settings(folder: Path) -> Settings:
    manifest = read_manifest(folder)
    if manifest is None:
        raise StoreError(f"there is no store in {folder}")
    return Settings.from_dict(manifest, where=f"the store {folder}")


def _target(before: Settings, datatype: Datatype | None, pool_factor: int | None, folder: Path) -> Settings:
    after = replace(
        before,
        datatype=before.datatype if datatype is None else datatype,
        pool_factor=before.pool_factor if pool_factor is None else pool_factor,
    )
    if before == after and not before.is_compressed:
        raise ConfigurationError(
            f"nothing to compress {folder} to: pass a datatype other than float16, or a pool_factor"
        )
    if BITS[after.datatype] > BITS[before.datatype]:
        raise ConfigurationError(
            f"the store {folder} has datatype={before.datatype!r}, and {after.datatype!r} would not bring back what "
            "that has lost: index its documents into a new store"
        )
    if before.pool_factor not in (1, after.pool_factor):
        raise ConfigurationError(
            f"the store {folder} was pooled with pool_factor={before.pool_factor}, and means are not pooled again: "
            "index its documents into a new store"
        )
    return after


def _refuse_neighbours(folder: Path, after: Settings) -> None:
    """Refuse what an exchange of folders would move or lose, and remove what was copied of another store."""
    new, old = beside(folder)
    if others := _others(folder.iterdir()):
        raise StoreError(
            f"{folder} holds other files ({others}), which would be "
            "left in the old store's folder; move them, and compress again"
        )
    if old.exists():
        _require_former(old)
        raise StoreError(f"{old} is there, the store before an earlier compression; delete it first (--delete-old)")
    if new.exists() and (manifest := read_manifest(new)) is not None:
        if not _is_copy(new):
            raise StoreError(
                f"{new} is there, a store that no compression of {folder} has begun; move that folder, and compress "
                "again"
            )
        made = Settings.from_dict(manifest, where=f"the store {new}")
        if _way(made) != _way(after):
            raise StoreError(
                f"{new} is a copy with datatype={made.datatype!r} and pool_factor={made.pool_factor}, which another "
                "compression has begun; finish that one, or remove this folder"
            )
        if not _same_store(made, after):
            _remove(new)


def _is_copy(new: Path) -> bool:
    """Whether a compression has begun the store in the folder of new ones; one without entries loses none."""
    if _log_of(new).exists():
        return True
    with MultiVectorStore.open(new, read_only=True) as store:
        return not len(store)


def _same_store(one: Settings, other: Settings) -> bool:
    """Whether two settings can be of one store, which may have learned the revision of its model meanwhile."""
    model = replace(one.model, fingerprint=other.model.fingerprint)
    return one.model.same_pages(other.model) and replace(one, model=model) == other


def _way(settings: Settings) -> tuple[Datatype, int]:
    return settings.datatype, settings.pool_factor


def _others(files: Iterable[Path]) -> str:
    """The names of the first files that are not a store's database, lock and vectors, or set aside by repairs."""
    others = sorted(one.name for one in files if not (one.is_file() and _OURS.fullmatch(one.name)))
    return ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")


def _opened(new: Path, after: Settings, file_mode: int) -> MultiVectorStore:
    """Open or make the compressed copy, with the settings of the old store, its tokenizer included."""
    kept: dict[str, Any] = {"schema": after.schema, "manifest": after.to_dict()}
    return MultiVectorStore(FolderEngine(new, **kept, packed=True, file_mode=file_mode), after)


def _copy(folder: Path, store: MultiVectorStore, progress: Callable[[int, int], object] | None) -> None:
    """Bring a compressed copy up to date with the store in a folder."""
    engine = folder_engine(store._engine, "compress")
    log = _log_of(engine.folder)
    copied = _read_log(log)
    with MultiVectorStore.open(folder) as source:
        versions = folder_engine(source._engine, "compress").versions()
        present = {one[0] for one in engine.versions().values()}
        engine.delete(present - {one[0] for one in versions.values()})
        held = {number: one for number, one in versions.items() if copied.get(number) == one and one[0] in present}
        waiting = [number for number in versions if number not in held]
        done = len(held)
        with log.open("w", encoding="ascii") as lines:
            # Without the entries that are replaced now: a lost line of theirs must not leave an earlier one.
            lines.writelines(_line(number, held[number]) for number in held)
            lines.flush()
            for some in pieces(waiting, _BATCH):
                _copy_some([versions[number][0] for number in some], source, store)
                # After the copy is on the disk: a line that is lost costs a second copy, and no entry.
                lines.writelines(_line(number, versions[number]) for number in some)
                lines.flush()
                done += len(some)
                if progress is not None:
                    progress(done, len(versions))


def _copy_some(ids: list[str], source: MultiVectorStore, store: MultiVectorStore) -> None:
    # Entries that are gone or replaced meanwhile get another number, or none: the next copy sees it.
    pairs = zip(source.get(ids), source.vectors(ids), strict=True)
    store.add((entry, vectors) for entry, vectors in pairs if entry is not None and vectors is not None)


def _end(folder: Path, before: Settings, after: Settings, progress: Callable[[int, int], object] | None) -> None:
    """Copy what has changed meanwhile, verify the copy, and put it in the store's place, while writers wait."""
    new, _ = beside(folder)
    with locked(write_lock(folder, _mode(folder)), folder):
        now = _settings(folder)
        if not _same_store(before, now):
            raise StoreError(f"{folder} was replaced by another store meanwhile; nothing was changed")
        # A store learns the revision of its model from the first writer.
        after = replace(now, datatype=after.datatype, pool_factor=after.pool_factor)
        with _opened(new, after, _mode(folder)) as store, MultiVectorStore.open(folder) as source:
            store._engine.change_manifest(lambda _: after.to_dict())
            _copy(folder, store, progress)
            kept, expected = len(store), len(source)
        report = verify_store(new)
        if not report.ok or kept != expected or report.entries != expected:
            problem = report.problems[0] if report.problems else f"it has {kept} entries of {expected}"
            raise StoreError(f"the compressed copy {new} is not sound ({problem}); remove that folder, and try again")
        try:
            new.chmod(S_IMODE(folder.stat().st_mode))
            swap(folder)
        except OSError as error:
            (folder / FORMER).unlink(missing_ok=True)
            raise StoreError(
                f"{new} is complete and cannot be put in the place of {folder} ({error}). Close the programs that use "
                "them, and run this again; both stores are whole"
            ) from error
    _log_of(folder).unlink(missing_ok=True)


def _not_pooled(store: MultiVectorStore) -> int:
    if store.settings.pool_factor == 1:
        return 0
    return sum(entry.page is not None and not entry.is_page for entry in store.scroll())


def _log_of(new: Path) -> Path:
    """The file of copied entries: in the copy, so that both go together, and no other store is taken for a copy."""
    return new / _COPIED


def _line(number: int, version: tuple[str, int, int | None]) -> str:
    return f"{json.dumps([number, *version])}\n"


def _read_log(log: Path) -> Versions:
    copied: Versions = {}
    if log.exists():
        for line in log.read_text(encoding="ascii", errors="replace").splitlines():
            try:
                number, id_, of_row, of_vectors = parse_json(line)
                copied[number] = (id_, of_row, of_vectors)
            except (TypeError, ValueError):  # the last line of a killed process, or damage
                continue
    return copied


def _mode(folder: Path) -> int:
    return (folder / DATABASE).stat().st_mode & 0o666


@contextmanager
def _errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"the store {folder} cannot be compressed: {error}") from error
