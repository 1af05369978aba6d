"""How files are opened when their pages are drawn again: the password, the limits, and the folders that are permitted.

Functions that users call take these as keywords, and build one `PageAccess` of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, TypeAlias

from colpali_integrations._options import shown
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.pages.formats import DEFAULT_LIMITS, MAX_PIXELS, ImageLimits

__all__ = ["DEFAULT_ACCESS", "PageAccess", "Roots", "root_folders"]

Roots: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None
"""Folders whose files may be shown, or one; None for files of known content."""


@dataclass(frozen=True)
class PageAccess:
    """How the files of pages are opened.

    Attributes:
        password: for encrypted PDFs.
        limits: size and formats of images.
        folders: open only files in these folders, links followed; None for files of known content, see `reference`.
        isolate: False to draw a PDF that is trusted in this process, without limits; see `open_pdf`.

    Example:
        >>> access = PageAccess.of(roots="reports")
        >>> access.permits("reports/2024.pdf"), access.permits("reports/../salaries.pdf")
        (True, False)
    """

    password: str | None = field(default=None, repr=False)
    limits: ImageLimits = DEFAULT_LIMITS
    folders: tuple[str, ...] | None = None
    isolate: bool = True

    @classmethod
    def of(
        cls,
        *,
        password: str | None = None,
        max_pixels: int = MAX_PIXELS,
        image_formats: Iterable[str] = (),
        roots: Roots = None,
        isolate: bool = True,
    ) -> PageAccess:
        """Build the value of the keywords that users pass; see `page_image`.

        Raises:
            ConfigurationError: roots are no folders, or a limit of images has an invalid value.
        """
        return cls(password, ImageLimits(max_pixels, image_formats), root_folders(roots), isolate)

    def override(
        self,
        *,
        password: str | None = None,
        max_pixels: int | None = None,
        image_formats: Iterable[str] | None = None,
        roots: Roots = None,
    ) -> PageAccess:
        """The same with other values; None keeps a value.

        Raises:
            ConfigurationError: as `of`.
        """
        return replace(
            self,
            password=self.password if password is None else password,
            limits=self.limits.override(max_pixels, image_formats),
            folders=self.folders if roots is None else root_folders(roots),
        )

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of functions that users call, such as `to_html`."""
        return {"password": self.password, "roots": self.folders, **self.limits.options}

    def permits(self, path: str) -> bool:
        """Whether a file is in one of the folders, once links are followed; True where no folders are named."""
        if self.folders is None:
            return True
        # Following a path of another machine (Windows) would report this user to it.
        is_remote = path.startswith(("\\\\", "//"))
        if is_remote and not any(_normal(path).is_relative_to(_normal(folder)) for folder in self.folders):
            return False
        try:
            place = _normal(os.path.realpath(path))
        except ValueError:  # a null byte
            return False
        return any(place.is_relative_to(_normal(os.path.realpath(folder))) for folder in self.folders)


DEFAULT_ACCESS = PageAccess()
"""No password, the usual limits, and files of known content anywhere."""


def root_folders(roots: Roots) -> tuple[str, ...] | None:
    """The folders of `roots` as strings; None for None.

    Raises:
        ConfigurationError: they are no folders, or no path can have such a name.
    """
    if roots is None:
        return None
    try:
        several = [roots] if isinstance(roots, str | os.PathLike) else roots
        folders: list[Any] = [os.fspath(folder) for folder in several]
        named = all(isinstance(folder, str) and b"\0" not in os.fsencode(folder) for folder in folders)
    except (TypeError, UnicodeEncodeError):
        named = False
    if not named:
        raise ConfigurationError(f"roots must be folders, such as ['/data/reports'], got {shown(roots)}")
    return tuple(os.path.expanduser(folder) for folder in folders)  # noqa: PTH111 - an unknown user is no error


def _normal(path: str) -> PurePath:
    return PurePath(os.path.normcase(path))
