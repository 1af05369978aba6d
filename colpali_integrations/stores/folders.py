"""The search for documents in folders, for every entry point."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeAlias

from colpali_integrations._options import checked_several, shown
from colpali_integrations._paths import user_path
from colpali_integrations.errors import InputError
from colpali_integrations.pages.formats import ImageLimits, image_suffixes
from colpali_integrations.pages.identity import real_path
from colpali_integrations.pages.office import OFFICE_SUFFIXES

__all__ = ["FoundDocuments", "Paths", "find_documents", "several_paths"]

_EXAMPLES = 3
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class FoundDocuments(list[Path]):
    """Paths of documents, and the numbers of files and folders that the search passed over.

    Attributes:
        passed_over: number by reason: `other_suffix`, `hidden` (a file, or a folder with all in it), `excluded`,
            `lock_file` (of an Office program, such as "~$report.docx"), `linked_folder` (behind a symbolic link),
            `unreadable_folder`, and `not_a_file` (a device, a pipe, a broken
            link).
        examples: by reason the first few paths that were passed over.
        several: whether there may be more than one: there is, or a folder was searched.
        folder: the first folder that was searched, if any.

    Example:
        >>> found = find_documents("reports/")
        >>> len(found), dict(found.passed_over)
        (1, {})
    """

    passed_over: Counter[str]
    examples: dict[str, list[str]]

    def __init__(
        self,
        paths: Iterable[Path] = (),
        passed_over: Iterable[tuple[str, str]] = (),
        *,
        folder: Path | None = None,
    ) -> None:
        super().__init__(paths)
        self.passed_over, self.examples = Counter(), {}
        for path, reason in passed_over:
            self.passed_over[reason] += 1
            if len(some := self.examples.setdefault(reason, [])) < _EXAMPLES:
                some.append(path)
        self.folder = folder
        self.several = folder is not None or len(self) > 1


def find_documents(
    paths: Paths, *, exclude: Iterable[str] = (), follow_symlinks: bool = False, image_formats: Iterable[str] = ()
) -> FoundDocuments:
    """List the PDFs, Office files and images among `paths`, which may be files and folders, each file once.

    In folders, hidden files and folders are passed over, as are files with another suffix than those of PDFs, Office
    files and images, the files by which Office programs lock a document, and folders behind symbolic links.

    Args:
        paths: one or several files and folders; `~` is the home folder. A folder that is named here may be a link.
        exclude: patterns such as "drafts/*" or "*.tif", compared with the path below a searched folder and with the
            file's name.
        follow_symlinks: search folders behind symbolic links too, wherever they are. Each folder is searched once, so
            that links in a circle end.
        image_formats: further formats of images, whose files in folders are listed too; see `pages.load_image`.

    Returns:
        Paths in the order of `paths`, within a folder by name; its `passed_over` counts the rest, each file and folder
        once, however many of the searched folders it is in.

    Raises:
        InputError: a path does not exist, or is a folder that cannot be read; or `paths` or `exclude` are none.
        ConfigurationError: Pillow has no format of `image_formats`.

    Example:
        >>> [path.as_posix() for path in find_documents(["report.pdf", "reports/", "report.pdf"])]
        ['report.pdf', 'reports/2024.pdf']
    """
    folders: dict[str, Path] = {}  # by their real paths: each is searched once as a root
    patterns = [exclude] if isinstance(exclude, str) else list(checked_several(exclude, "patterns, exclude=[...]"))
    suffixes = {".pdf", *OFFICE_SUFFIXES, *image_suffixes(ImageLimits(image_formats=image_formats).image_formats)}
    search = _Search(suffixes, patterns, follow_symlinks)
    files: dict[str, Path] = {}
    for name in several_paths(paths):
        path = user_path(name)
        if not path.exists():
            raise InputError(f"no such file or folder: {name}")
        search.take(path)
        if not path.is_dir():
            files.setdefault(real_path(path), path)
        elif folders.setdefault(real_path(path), path) is path:
            for file in search.files(path):
                files.setdefault(real_path(file), file)
    return FoundDocuments(files.values(), search.passed_over, folder=next(iter(folders.values()), None))


def several_paths(paths: Any) -> list[str | os.PathLike[str]]:
    """One or several paths as a list.

    Raises:
        InputError: something else, such as the content of a document.
    """
    if isinstance(paths, bytes | bytearray | memoryview) or hasattr(paths, "read"):
        raise InputError(
            "expected paths, got the content of a document; pass DocumentSource(source=<bytes>, name=...) to ingest, "
            "or save it in a file"
        )
    if isinstance(paths, str | os.PathLike):
        return [paths]
    several = list(checked_several(paths, "a path or several"))
    for one in several:
        if not isinstance(one, str | os.PathLike):
            raise InputError(f"expected paths, and one of them is {shown(one)}")
    return several


# A place in a folder: the folder's real path and a name in it. A link and its target are two.
_Place: TypeAlias = tuple[str, str]


class _Search:
    """A search through folders, which may lie in each other.

    Args:
        suffixes: of documents, in lower case.
        exclude: patterns of files.
        follow_symlinks: whether to search folders behind symbolic links.
    """

    def __init__(self, suffixes: Collection[str], exclude: Sequence[str], follow_symlinks: bool) -> None:
        self._suffixes, self._exclude, self._follow_symlinks = suffixes, exclude, follow_symlinks
        self._searched: set[str] = set()  # real paths
        self._taken: set[_Place] = set()
        self._passed_over: dict[_Place, str] = {}

    @property
    def passed_over(self) -> list[tuple[str, str]]:
        """The path of each file and folder that was passed over in every search, and the reason."""
        passed = self._passed_over.items()
        return [(os.path.join(*place), reason) for place, reason in passed if place not in self._taken]  # noqa: PTH118

    def take(self, path: Path) -> None:
        """Count a file or folder as taken, which the search of another folder may pass over."""
        folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow the link
        self._taken.add((os.path.realpath(folder), name))

    def files(self, root: Path) -> Iterator[Path]:
        """The documents in a folder and below, by name.

        Raises:
            InputError: the folder cannot be read.
        """
        try:
            levels = [self._level(root, os.path.realpath(root))]
        except OSError as error:
            raise InputError(f"cannot read the folder {root}: {error.strerror or error}") from error
        while levels:
            folder, entries = levels[-1]
            entry = next(entries, None)
            if entry is None:
                levels.pop()
            elif (reason := self._reason(entry, root)) is not None:
                self._passed_over[folder, entry.name] = reason
            elif not entry.is_dir():
                self._taken.add((folder, entry.name))
                yield Path(entry.path)
            else:
                place = _place(folder, entry)
                if not (self._follow_symlinks and place in self._searched):
                    try:
                        levels.append(self._level(entry.path, place))
                    except OSError:
                        self._passed_over[folder, entry.name] = "unreadable_folder"

    def _level(self, folder: str | Path, place: str) -> tuple[str, Iterator[os.DirEntry[str]]]:
        """A folder's real path, which is given, and its entries by name."""
        with os.scandir(folder) as entries:
            found = iter(sorted(entries, key=lambda entry: entry.name))
        self._searched.add(place)
        return place, found

    def _reason(self, entry: os.DirEntry[str], root: Path) -> str | None:
        """The reason to pass over an entry of a folder; None for a document, and for a folder to search."""
        if entry.name.startswith("."):
            return "hidden"
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # such as a link to itself
            return "not_a_file"
        if is_folder:
            return "linked_folder" if entry.is_symlink() and not self._follow_symlinks else None
        if not is_file:
            return "not_a_file"
        if os.path.splitext(entry.name)[1].lower() not in self._suffixes:  # noqa: PTH122 - thousands of names
            return "other_suffix"
        if entry.name.startswith("~$"):
            return "lock_file"
        below = os.path.relpath(entry.path, root)
        is_excluded = any(fnmatch(below, one) or fnmatch(entry.name, one) for one in self._exclude)
        return "excluded" if is_excluded else None


def _place(folder: str, entry: os.DirEntry[str]) -> str:
    """The real path of an entry of a folder with this real path. Asking for each anew takes cubic time in the depth."""
    return os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder, entry.name)  # noqa: PTH118
